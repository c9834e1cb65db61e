//! Texts with macros, `https://%{host}/x`: parsed once, for rules and access logs. What a macro stands for is the business
//! of `proxy::rules` and `proxy::access_log`; this module says which there are and where they may stand.

use thiserror::Error;

/// A text with macros, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Constant parts and macros, in order.
    pub pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Stands for itself.
    Literal(String),
    /// Stands for something of the request.
    Macro(Macro),
}

/// Where a template stands, which decides what can be known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A request rule: the request alone.
    Request,
    /// A response or completion rule: also the response and its node.
    Response,
    /// An access log: everything.
    Log,
}

impl Place {
    /// Where what is known here may stand.
    const fn name(self) -> &'static str {
        match self {
            Self::Request => "everywhere",
            Self::Response => "response and completion rules, access logs",
            Self::Log => "access logs",
        }
    }
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// `%{` without `}`.
    #[error("`%{{` at byte {at} has no `}}`")]
    Open {
        /// Byte of the text.
        at: usize,
    },
    /// No such macro.
    #[error("unknown macro `%{{{name}}}`; there are: {known}")]
    Unknown {
        /// What stands between the braces.
        name: String,
        /// The macros of this place.
        known: String,
    },
    /// A macro that is not known yet where the text stands.
    #[error("`%{{{name}}}` is not known here: it needs {needs}")]
    TooEarly {
        /// The macro.
        name: String,
        /// What it needs.
        needs: &'static str,
    },
}

/// Declares [`Macro`] with the words that stand for its variants.
macro_rules! macros {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $place:ident;)*) => {
        /// What a macro stands for. Where there is nothing, it is empty in rules and `-` in access logs.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Macro {
            $($(#[doc = $doc])+ $variant,)*
            /// `header:NAME`: a request header field; several are joined by `, `.
            Header(String),
            /// `cookie:NAME`: a cookie of the request.
            Cookie(String),
            /// `parameter:NAME`: a parameter of the query, percent-decoded.
            Parameter(String),
            /// `response_header:NAME`: a header field of the response.
            ResponseHeader(String),
            /// `1` … `9`: a group of the last regex that matched in the rule's conditions.
            Group(u8),
        }

        /// Words without an argument, with what they stand for, where, and in words.
        const WORDS: &[(&str, Macro, Place, &str)] =
            &[$(($word, Macro::$variant, Place::$place, concat!($($doc),+)),)*];
    };
}

macros! {
    /// The client's address; behind trusted proxies the one they tell.
    ClientAddress = "client_address", Request;
    /// The address the client connected to.
    LocalAddress = "local_address", Request;
    /// The port the client connected to.
    LocalPort = "local_port", Request;
    /// `https` or `http`.
    Scheme = "scheme", Request;
    /// The method.
    Method = "method", Request;
    /// The host: lower case, without port.
    Host = "host", Request;
    /// The path, normalised.
    Path = "path", Request;
    /// The query without `?`.
    Query = "query", Request;
    /// The target as it came.
    RawUrl = "raw_url", Request;
    /// `1.0`, `1.1` or `2`.
    Version = "version", Request;
    /// 32 hexadecimal digits: the same in logs, events and what nodes are told.
    RequestId = "request_id", Request;
    /// The virtual server's name.
    VirtualServer = "virtual_server", Request;
    /// The server name the client asked for.
    TlsServerName = "tls_server_name", Request;
    /// `1.2` or `1.3`.
    TlsVersion = "tls_version", Request;
    /// IANA name of the cipher suite.
    TlsCipher = "tls_cipher", Request;
    /// Subject of the verified client certificate (RFC 4514).
    TlsClientSubject = "tls_client_subject", Request;
    /// Issuer of the verified client certificate (RFC 4514).
    TlsClientIssuer = "tls_client_issuer", Request;
    /// Serial number of the verified client certificate, hexadecimal.
    TlsClientSerial = "tls_client_serial", Request;
    /// The verified client certificate: PEM in one line, percent-encoded.
    TlsClientCertificate = "tls_client_certificate", Request;
    /// SHA-256 of the verified client certificate, hexadecimal.
    TlsClientFingerprint = "tls_client_fingerprint", Request;
    /// The pool that served.
    Pool = "pool", Response;
    /// The node that served.
    Node = "node", Response;
    /// Status of the response.
    Status = "status", Response;
    /// Method, target and version as in a request line.
    RequestLine = "request_line", Log;
    /// `21/Nov/2026:11:57:09 +0000`.
    TimeClf = "time_clf", Log;
    /// `2026-11-21T11:57:09.123Z`.
    Time = "time", Log;
    /// Seconds since 1970, with milliseconds.
    TimeUnix = "time_unix", Log;
    /// Bytes of the request's body.
    BytesReceived = "bytes_received", Log;
    /// Bytes sent to the client: head and body of the response.
    BytesSent = "bytes_sent", Log;
    /// Bytes of the response's body.
    BodyBytesSent = "body_bytes_sent", Log;
    /// Milliseconds waiting for a free node.
    QueueMs = "queue_ms", Log;
    /// Milliseconds connecting to the node, TLS included; 0 on a kept connection.
    ConnectMs = "connect_ms", Log;
    /// Milliseconds from the request to the head of the response.
    HeadMs = "head_ms", Log;
    /// Milliseconds from the first byte of the request to the end of the response.
    TotalMs = "total_ms", Log;
    /// Attempts beyond the first.
    Retries = "retries", Log;
    /// `yes` when the TLS session was resumed.
    TlsResumed = "tls_resumed", Log;
    /// How it ended, two letters as in HAProxy's logs: who (`-` well, `C` client closed, `c` client timed out, `S` node
    /// closed, `s` node timed out, `P` refused by us, `L` answered by us, `R` limit reached, `D` no node, `K` cut by an
    /// operator, `I` fault of ours), and when (`R` request, `Q` queue, `C` connect, `H` response head, `D` data, `-`).
    Termination = "termination", Log;
    /// Why we refused or failed, in a word.
    Reason = "reason", Log;
    /// The last rule that matched.
    Rule = "rule", Log;
}

/// A word with an argument: what it makes of it, and where it may stand.
type Prefix = (&'static str, fn(String) -> Macro, Place);

const PREFIXES: &[Prefix] = &[
    ("header", |name| Macro::Header(name.to_ascii_lowercase()), Place::Request),
    ("cookie", Macro::Cookie, Place::Request),
    ("parameter", Macro::Parameter, Place::Request),
    ("response_header", |name| Macro::ResponseHeader(name.to_ascii_lowercase()), Place::Response),
];

impl Template {
    /// Parses `text` for `place`.
    ///
    /// # Errors
    /// A macro that does not end, is not known, or not there yet at `place`.
    pub fn parse(text: &str, place: Place) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("%{") {
            if start > 0 {
                pieces.push(Piece::Literal(rest[..start].to_owned()));
            }
            let inside = &rest[start + 2..];
            let Some(end) = inside.find('}') else {
                return Err(TemplateError::Open { at: text.len() - rest.len() + start });
            };
            pieces.push(Piece::Macro(parse_macro(&inside[..end], place)?));
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// The text, when it has no macros.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            [Piece::Macro(_)] | [_, _, ..] => None,
        }
    }

    /// Whether a group of a regex is asked for.
    #[must_use]
    pub fn uses_groups(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Macro(Macro::Group(_))))
    }
}

fn parse_macro(name: &str, place: Place) -> Result<Macro, TemplateError> {
    if let Some((_, found, needed, _)) = WORDS.iter().find(|(word, ..)| *word == name) {
        return allowed(name, *needed, place).map(|()| found.clone());
    }
    if let Some((word, argument)) = name.split_once(':').filter(|(_, argument)| !argument.is_empty())
        && let Some((_, make, needed)) = PREFIXES.iter().find(|(prefix, ..)| *prefix == word)
    {
        return allowed(name, *needed, place).map(|()| make(argument.to_owned()));
    }
    match name.as_bytes() {
        [digit @ b'1'..=b'9'] if place != Place::Log => Ok(Macro::Group(digit - b'0')),
        _ => Err(TemplateError::Unknown { name: name.to_owned(), known: known(place) }),
    }
}

fn allowed(name: &str, needed: Place, place: Place) -> Result<(), TemplateError> {
    let needs = match needed {
        Place::Request => return Ok(()),
        Place::Response => "the response (response and completion rules, access logs)",
        Place::Log => "the end of the request (access logs)",
    };
    if needed <= place { Ok(()) } else { Err(TemplateError::TooEarly { name: name.to_owned(), needs }) }
}

/// The macros of a place, for messages and documents.
#[must_use]
pub fn known(place: Place) -> String {
    let words = WORDS.iter().filter(|(_, _, needed, _)| *needed <= place).map(|(word, ..)| (*word).to_owned());
    let prefixes = PREFIXES.iter().filter(|(_, _, needed)| *needed <= place);
    let mut all: Vec<_> = words.chain(prefixes.map(|(word, ..)| format!("{word}:NAME"))).collect();
    if place != Place::Log {
        all.push("1 … 9".to_owned());
    }
    all.join(", ")
}

/// All macros as a Markdown table, for the reference of the configuration.
#[must_use]
pub fn table() -> String {
    let mut out = "| macro | in | stands for |\n|---|---|---|\n".to_owned();
    for (word, _, place, meaning) in WORDS {
        out.push_str(&format!("| `%{{{word}}}` | {} | {} |\n", place.name(), meaning.trim()));
    }
    for (prefix, _, place) in PREFIXES {
        let what = prefix.replace('_', " ");
        out.push_str(&format!("| `%{{{prefix}:NAME}}` | {} | The {what} of that name. |\n", place.name()));
    }
    out.push_str("| `%{1}` … `%{9}` | rules | A group of the last regex that matched in the rule's conditions. |\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_macros_alternate() {
        let parsed = Template::parse("https://%{host}%{path}?x=%{header:X-Foo}!", Place::Request).unwrap();
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let expected = [
            literal("https://"),
            Piece::Macro(Macro::Host),
            Piece::Macro(Macro::Path),
            literal("?x="),
            Piece::Macro(Macro::Header("x-foo".to_owned())),
            literal("!"),
        ];
        assert_eq!(parsed.pieces, expected);
        assert_eq!(Template::parse("100%", Place::Request).unwrap().constant(), Some("100%"));
        assert_eq!(Template::parse("", Place::Request).unwrap().constant(), Some(""));
        assert!(Template::parse("/%{1}", Place::Request).unwrap().uses_groups());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str, place| Template::parse(text, place).unwrap_err().to_string();
        assert_eq!(error("ab%{host", Place::Request), "`%{` at byte 2 has no `}`");
        assert!(error("%{hots}", Place::Request).starts_with("unknown macro `%{hots}`; there are: client_address, "));
        assert!(error("%{header:}", Place::Request).starts_with("unknown macro `%{header:}`"));
        assert!(error("%{0}", Place::Request).starts_with("unknown macro `%{0}`"));
        assert!(error("%{1}", Place::Log).starts_with("unknown macro `%{1}`"));
        assert!(error("%{status}", Place::Request).contains("needs the response"));
        assert!(error("%{total_ms}", Place::Response).contains("needs the end of the request"));
        assert!(Template::parse("%{status}", Place::Response).is_ok());
    }

    #[test]
    fn every_macro_is_understood_where_it_is_listed() {
        for (word, expected, place, _) in WORDS {
            assert_eq!(parse_macro(word, *place).as_ref(), Ok(expected), "{word}");
            assert_eq!(WORDS.iter().filter(|(other, ..)| other == word).count(), 1, "{word} stands twice");
        }
    }
}
