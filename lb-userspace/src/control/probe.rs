//! What monitors send and what they expect, as plain values: `config` builds them, `state` says whom they are sent to, and
//! `health` does them. Big ones are shared (`Arc`): thousands of checks are one monitor's.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    str::FromStr,
    sync::Arc,
};

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sends an ICMP echo request.
    Ping,
    /// Opens a TCP connection and closes it at once.
    Tcp,
    /// Sends a TCP SYN to VIPs in frames for the node's MAC address: only a DSR node that owns them answers.
    Vip(Arc<[VipPort]>),
    /// Sends an HTTP request.
    Http(Arc<Http>),
    /// Reads a server's greeting and takes leave.
    Greeting(Greeting, Option<Arc<Tls>>),
    /// Asks a name server.
    Dns(Arc<Dns>),
    /// Sends a datagram.
    Udp(Arc<Udp>),
    /// Sends and expects in turn, over TCP.
    Transaction(Arc<Transaction>),
    /// Runs a program.
    Program(Arc<Program>),
}

/// A VIP that a DSR node must own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipPort {
    /// The VIP and a port.
    pub vip: SocketAddr,
    /// Whether the port must be open; else a refusal is as good, because it shows that the node owns the VIP.
    pub open: bool,
}

/// A protocol whose server speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Greeting {
    /// RFC 5321.
    Smtp,
    /// RFC 1939.
    Pop3,
    /// RFC 3501.
    Imap,
    /// RFC 959.
    Ftp,
}

/// An HTTP check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    /// Method.
    pub method: String,
    /// The `Host` field; `None`: the address that is asked.
    pub host: Option<String>,
    /// Path and query.
    pub path: String,
    /// Further fields.
    pub headers: BTreeMap<String, String>,
    /// Statuses that pass.
    pub statuses: Vec<StatusRange>,
    /// What the body must match.
    pub body: Option<Pattern>,
    /// TLS; `None`: none.
    pub tls: Option<Arc<Tls>>,
}

/// First and last of some HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRange(pub u16, pub u16);

/// A DNS query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dns {
    /// The name that is asked for, absolute.
    pub name: String,
    /// The type of record.
    pub record: RecordType,
    /// The response code that passes.
    pub rcode: ResponseCode,
    /// One of the answers must be this: an address, a name, or text, as the type has it.
    pub answer: Option<String>,
}

/// Types of records that are asked for (RFC 1035 §3.2.2, RFC 3596, RFC 2782).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are DNS's own words")]
pub enum RecordType {
    #[default]
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

/// Response codes that may be expected (RFC 1035 §4.1.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum ResponseCode {
    /// The name exists.
    #[default]
    NoError,
    /// The name does not exist.
    NxDomain,
    /// The server will not say.
    Refused,
}

/// A datagram and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Udp {
    /// Payload.
    pub send: Bytes,
    /// What the answer must match; `None`: any answer passes.
    pub expect: Option<Pattern>,
}

/// A dialogue over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// In this order.
    pub steps: Vec<Step>,
    /// TLS; `None`: none.
    pub tls: Option<Arc<Tls>>,
}

/// A step of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Bytes to send.
    Send(Bytes),
    /// What must come next; what was matched by the step before is not looked at again.
    Expect(Pattern),
}

/// A program of the registered directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// Its file's name.
    pub name: String,
    /// Arguments; `{address}` and `{port}` stand for whom is checked.
    pub arguments: Vec<String>,
    /// Further variables of its environment.
    pub environment: BTreeMap<String, String>,
}

/// TLS towards whom is checked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whether chain and name are verified.
    pub verify: bool,
    /// PEM: who may have signed; only with `verify`.
    pub ca_pem: Arc<str>,
    /// The name that is sent and verified; `None`: the `Host` of HTTP, or the address.
    pub server_name: Option<String>,
    /// PEM: chain and key that we show.
    pub identity: Option<(String, String)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verify, server_name, .. } = self;
        f.debug_struct("Tls").field("verify", verify).field("server_name", server_name).finish_non_exhaustive()
    }
}

impl Hash for Tls {
    /// The certificates are left to `==`: a store of authorities is large, and looked at once a check.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.verify, &self.server_name).hash(state);
    }
}

/// A regular expression over bytes (crate regex: linear time), compared by its text.
#[derive(Clone, Debug)]
pub struct Pattern(regex::bytes::Regex);

impl Pattern {
    /// Bytes that a compiled expression may take.
    const SIZE_LIMIT: usize = 1 << 18;

    /// Where it matches first: the end of that.
    #[must_use]
    pub fn end_of_match(&self, bytes: &[u8]) -> Option<usize> {
        self.0.find(bytes).map(|found| found.end())
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut builder = regex::bytes::RegexBuilder::new(text);
        let built = builder.size_limit(Self::SIZE_LIMIT).dfa_size_limit(Self::SIZE_LIMIT).build();
        // The last line says what is wrong; those before it draw where.
        built.map(Self).map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// Bytes, written as text with `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            bytes.push(match chars.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('x') => {
                    let digits: String = chars.by_ref().take(2).collect();
                    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                    let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| hexadecimal);
                    byte.ok_or("\\x is not followed by two hexadecimal digits")?
                }
                Some(other) => return Err(format!("\\{other} means nothing: a backslash is \\\\")),
                None => return Err("ends by a lone backslash".to_owned()),
            });
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b'\r' => f.write_str("\\r")?,
                b'\n' => f.write_str("\\n")?,
                b'\t' => f.write_str("\\t")?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_and_written_alike() {
        for (text, bytes) in [
            ("PING\\r\\n", &b"PING\r\n"[..]),
            ("PING\r\n", b"PING\r\n"),
            ("\\x00\\xff\\0\\\\", b"\x00\xff\x00\\"),
            ("é", "é".as_bytes()),
            ("", b""),
        ] {
            let read: Bytes = text.parse().unwrap();
            assert_eq!(read.0, bytes, "{text}");
            assert_eq!(read.to_string().parse::<Bytes>().unwrap(), read, "{text}");
        }
        for wrong in ["\\", "\\q", "\\x1", "\\xgg", "\\x+1"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_are_bounded_and_match_bytes() {
        let pattern: Pattern = "(?-u)^\\xff\\x00.*ok".parse().unwrap();
        assert_eq!(pattern.end_of_match(b"\xff\x00...ok!"), Some(7));
        assert_eq!(pattern.end_of_match(b"ok"), None);
        assert!("(".parse::<Pattern>().unwrap_err().contains("unclosed group"));
        assert!("\\w{1000}{1000}".parse::<Pattern>().is_err(), "too large");
    }
}
