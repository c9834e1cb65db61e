//! A client's request out of its fields, RFC 9113 §8: written as HTTP/1.1 has it, for the parser that judges both.
//!
//! What only HTTP/2 has is judged here: pseudo-header fields, names, fields of one connection. The rest (host, target,
//! limits, lengths) is `h1`'s to judge, so that both protocols have the same rules.

use std::cell::RefCell;

use super::frame::Code;
use crate::proxy::h1::{
    Framing, Known, content_length, is_token,
    request::Refusal,
    write::{self, line},
};

/// What a field counts beside its text, RFC 9113 §6.5.2.
const OVERHEAD: usize = 32;

/// A request's head as it goes to the parser.
#[derive(Debug)]
pub(crate) struct Head {
    /// In HTTP/1.1's form.
    pub(crate) text: Vec<u8>,
    /// What is wrong with it besides, which only its form in HTTP/2 shows.
    pub(crate) refusal: Option<Refusal>,
    /// Whether the method is HEAD.
    pub(crate) is_head: bool,
    /// Whether it said `te: trailers`.
    pub(crate) takes_trailers: bool,
    /// Bytes of DATA that it announces.
    pub(crate) length: Option<u64>,
}

/// The request is malformed (§8.1.1): its stream is reset, without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<Malformed> for Code {
    fn from(Malformed: Malformed) -> Self {
        Self::Protocol
    }
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// What is kept of a head until it can be written.
#[derive(Debug, Default)]
struct Memory {
    method: Vec<u8>,
    path: Vec<u8>,
    authority: Vec<u8>,
    host: Vec<u8>,
    cookie: Vec<u8>,
}

/// Takes the fields of one request.
#[derive(Debug)]
pub(crate) struct Builder {
    memory: Memory,
    text: Vec<u8>,
    /// Bytes of fields that may still come.
    left: usize,
    seen: Seen,
    is_begun: bool,
    is_malformed: bool,
    refusal: Option<Refusal>,
    takes_trailers: bool,
    length: Option<u64>,
}

/// Which fields came.
#[derive(Debug, Default)]
struct Seen {
    method: bool,
    scheme: bool,
    path: bool,
    authority: bool,
    host: bool,
    cookie: bool,
    length: bool,
}

impl Builder {
    /// For a head of at most `most` bytes, as §6.5.2 counts them.
    pub(crate) fn new(most: usize) -> Self {
        let mut memory = MEMORY.take();
        for part in [&mut memory.method, &mut memory.path, &mut memory.authority, &mut memory.host, &mut memory.cookie]
        {
            part.clear();
        }
        Self {
            memory,
            text: Vec::with_capacity(512),
            left: most,
            seen: Seen::default(),
            is_begun: false,
            is_malformed: false,
            refusal: None,
            takes_trailers: false,
            length: None,
        }
    }

    /// The next field.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        let Some(left) = self.left.checked_sub(size) else {
            self.left = 0;
            self.refusal = Some(Refusal::HeadTooLarge);
            return;
        };
        self.left = left;
        let taken = match name {
            [b':', pseudo @ ..] => self.pseudo(pseudo, value),
            _ => self.regular(name, value),
        };
        self.is_malformed |= taken.is_err();
    }

    /// §8.3.1: each once, before all others.
    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if self.is_begun || value.is_empty() && name != b"authority" {
            return Err(Malformed);
        }
        let (seen, place) = match name {
            b"method" => (&mut self.seen.method, Some(&mut self.memory.method)),
            b"path" => (&mut self.seen.path, Some(&mut self.memory.path)),
            b"authority" => (&mut self.seen.authority, Some(&mut self.memory.authority)),
            b"scheme" => (&mut self.seen.scheme, None),
            _ => return Err(Malformed),
        };
        // What would end the request line, or the line of the host.
        if std::mem::replace(seen, true) || value.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return Err(Malformed);
        }
        if let Some(place) = place {
            place.extend_from_slice(value);
        }
        Ok(())
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        self.begin();
        check(name, value)?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "most known fields say nothing about the connection")]
        match Known::of(name) {
            // §8.2.2.
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => return Err(Malformed),
            Known::Te if value.eq_ignore_ascii_case(b"trailers") => self.takes_trailers = true,
            Known::Te => return Err(Malformed),
            Known::Host if self.seen.host => self.refusal = self.refusal.or(Some(Refusal::DuplicateHost)),
            Known::Host => {
                self.seen.host = true;
                self.memory.host.extend_from_slice(value);
            }
            // §8.2.3: one field again, for whoever knows no other form.
            Known::Cookie => {
                if std::mem::replace(&mut self.seen.cookie, true) {
                    self.memory.cookie.extend_from_slice(b"; ");
                }
                self.memory.cookie.extend_from_slice(value);
            }
            Known::ContentLength => {
                // An empty one is the parser's to refuse.
                let length = if value.is_empty() { None } else { Some(content_length(value).ok_or(Malformed)?) };
                if self.length.is_some() && self.length != length {
                    return Err(Malformed);
                }
                self.seen.length = true;
                self.length = length;
                line(&mut self.text, name, value);
            }
            _ => line(&mut self.text, name, value),
        }
        Ok(())
    }

    /// Writes the request line, once all pseudo-header fields are there.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        for part in [&self.memory.method[..], b" ", &self.memory.path, b" HTTP/1.1\r\n"] {
            self.text.extend_from_slice(part);
        }
    }

    /// The head, after its last field; `ends`: no DATA comes after it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(crate) fn finish(mut self, ends: bool) -> Result<Head, Malformed> {
        self.begin();
        let head = self.judge(ends);
        MEMORY.set(self.memory);
        head
    }

    fn judge(&mut self, ends: bool) -> Result<Head, Malformed> {
        if self.is_malformed {
            return Err(Malformed);
        }
        let too_large = self.refusal == Some(Refusal::HeadTooLarge);
        if !too_large {
            self.check_pseudo()?;
            if ends && self.length.is_some_and(|length| length > 0) {
                return Err(Malformed);
            }
            self.write_host();
            self.write_rest(ends);
        }
        Ok(Head {
            is_head: self.memory.method == b"HEAD",
            text: std::mem::take(&mut self.text),
            refusal: self.refusal,
            takes_trailers: self.takes_trailers,
            length: self.length,
        })
    }

    fn check_pseudo(&mut self) -> Result<(), Malformed> {
        let Seen { method, scheme, path, authority, .. } = self.seen;
        if !method || !is_token(&self.memory.method) {
            return Err(Malformed);
        }
        if self.memory.method == b"CONNECT" {
            if path || scheme || !authority {
                return Err(Malformed);
            }
            self.refusal = Some(Refusal::MethodNotAllowed);
            return Ok(());
        }
        let is_target = matches!(self.memory.path[..], [b'/', ..] | [b'*']);
        if scheme && path && is_target { Ok(()) } else { Err(Malformed) }
    }

    /// The one host, from `:authority`, `host` or both: §8.3.1.
    fn write_host(&mut self) {
        let Memory { authority, host, .. } = &self.memory;
        let name = match (self.seen.authority, self.seen.host) {
            (true, true) if !authority.eq_ignore_ascii_case(host) => {
                self.refusal = self.refusal.or(Some(Refusal::HostMismatch));
                return;
            }
            (true, _) => authority,
            (false, true) => host,
            (false, false) => {
                self.refusal = self.refusal.or(Some(Refusal::NoHost));
                return;
            }
        };
        line(&mut self.text, b"Host", name);
    }

    fn write_rest(&mut self, ends: bool) {
        if self.seen.cookie {
            line(&mut self.text, b"Cookie", &self.memory.cookie);
        }
        if !self.seen.length {
            if !ends {
                write::framing(&mut self.text, Framing::Chunked);
            } else if [&b"POST"[..], b"PUT", b"PATCH"].contains(&&self.memory.method[..]) {
                // RFC 9110 §8.6: nodes over HTTP/1.1 may answer 411 without.
                write::framing(&mut self.text, Framing::Length(0));
            }
        }
        self.text.extend_from_slice(b"\r\n");
    }
}

/// §8.2.1: what no name and no value may have. Other bytes are for the parser to judge.
pub(crate) fn check(name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    let is_name = is_token(name) && !name.iter().any(u8::is_ascii_uppercase);
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_value = !is_blank(value.first())
        && !is_blank(value.last())
        && !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
    if is_name && is_value { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(
        pseudo: &[(&str, &str)],
        fields: &[(&str, &str)],
        ends: bool,
    ) -> Result<(String, Option<Refusal>), Malformed> {
        let mut builder = Builder::new(4096);
        for (name, value) in pseudo.iter().chain(fields) {
            builder.field(name.as_bytes(), value.as_bytes());
        }
        let head = builder.finish(ends)?;
        Ok((String::from_utf8(head.text).unwrap(), head.refusal))
    }

    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/x?y")];

    #[test]
    fn requests_become_lines_with_one_host_and_one_cookie() {
        let with = |authority: &'static str| [&GET[..], &[(":authority", authority)]].concat();
        let start = "GET /x?y HTTP/1.1\r\n";
        type Case<'a> = (Vec<(&'a str, &'a str)>, &'a [(&'a str, &'a str)], bool, Option<&'a str>);
        let cases: [Case<'_>; 6] = [
            (with("a.b:1"), &[], true, Some("Host: a.b:1\r\n\r\n")),
            (with("a"), &[("host", "A")], true, Some("Host: a\r\n\r\n")),
            (GET.to_vec(), &[("host", "a")], true, Some("Host: a\r\n\r\n")),
            (
                with("a"),
                &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")],
                true,
                Some("x: y\r\nHost: a\r\nCookie: a=1; b=2\r\n\r\n"),
            ),
            (with("a"), &[], false, Some("Host: a\r\nTransfer-Encoding: chunked\r\n\r\n")),
            (with("a"), &[("connection", "x")], true, None),
        ];
        for (pseudo, fields, ends, expected) in cases {
            let expected = expected.map(|rest| (format!("{start}{rest}"), None)).ok_or(Malformed);
            assert_eq!(written(&pseudo, fields, ends), expected, "{pseudo:?} {fields:?}");
        }
        let refused = |fields: &[(&str, &str)], authority: bool| {
            written(&if authority { with("a") } else { GET.to_vec() }, fields, true).unwrap().1
        };
        assert_eq!(refused(&[("host", "b")], true), Some(Refusal::HostMismatch));
        assert_eq!(refused(&[("host", "a"), ("host", "a")], true), Some(Refusal::DuplicateHost));
        assert_eq!(refused(&[], false), Some(Refusal::NoHost));
        let large = "z".repeat(4096);
        assert_eq!(refused(&[("x", &large)], true), Some(Refusal::HeadTooLarge));
    }
}
