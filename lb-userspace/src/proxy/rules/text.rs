//! Texts of rules with their macros put in. Where a text ends up decides how what comes from outside is written.

use std::{borrow::Cow, fmt::Write};

use super::{condition::Groups, view::View};
use crate::control::proxy::{
    rule::check::is_safe,
    template::{Macro, Piece, Place, Template},
};

/// A compiled text.
#[derive(Clone, Debug)]
pub(super) struct Text(Box<[Piece]>);

/// How what macros stand for is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is; the whole is checked afterwards.
    Plain,
    /// In HTML: an echoed path is no markup.
    Html,
    /// Inside a JSON string.
    Json,
    /// In a path or query: what cannot stand there is percent-encoded.
    Url,
    /// In a cookie's value: what would end it is percent-encoded.
    Cookie,
    /// In a log: control characters as `\xNN`.
    Log,
}

/// A control character, plain or percent-encoded, would have become part of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsafe;

impl Text {
    pub(super) fn compile(text: &str, place: Place) -> Result<Self, String> {
        Template::parse(text, place).map(|template| Self(template.pieces.into())).map_err(|error| error.to_string())
    }

    /// The text for a head: checked.
    pub(super) fn head(&self, escape: Escape, view: &View<'_>, groups: &Groups) -> Result<Cow<'_, str>, Unsafe> {
        let text = self.expand(escape, view, groups);
        // A constant was checked when it was compiled.
        if matches!(text, Cow::Owned(_)) && !is_safe(text.as_bytes()) { Err(Unsafe) } else { Ok(text) }
    }

    /// The text, unchecked: for bodies and logs.
    pub(super) fn expand(&self, escape: Escape, view: &View<'_>, groups: &Groups) -> Cow<'_, str> {
        match &*self.0 {
            [] => Cow::Borrowed(""),
            [Piece::Literal(text)] => Cow::Borrowed(text),
            pieces => {
                let mut out = String::with_capacity(128);
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => out.push_str(text),
                        Piece::Macro(what) => escape.push(&value(what, view, groups), &mut out),
                    }
                }
                Cow::Owned(out)
            }
        }
    }

    /// What the text begins with, before anything of a request.
    pub(super) fn literal_start(&self) -> &str {
        match self.0.first() {
            Some(Piece::Literal(text)) => text,
            Some(Piece::Macro(_)) | None => "",
        }
    }
}

impl Escape {
    pub(super) fn push(self, text: &str, out: &mut String) {
        if self == Self::Plain {
            return out.push_str(text);
        }
        for c in text.chars() {
            // Writing to a String cannot fail.
            let _ = match (self, c) {
                (Self::Html, '&') => out.write_str("&amp;"),
                (Self::Html, '<') => out.write_str("&lt;"),
                (Self::Html, '>') => out.write_str("&gt;"),
                (Self::Html, '"') => out.write_str("&quot;"),
                (Self::Html, '\'') => out.write_str("&#39;"),
                (Self::Json, '"' | '\\') => write!(out, "\\{c}"),
                // Also what would end a script that the JSON is put into.
                (Self::Json, '\0'..='\x1f' | '\x7f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => {
                    write!(out, "\\u{:04x}", u32::from(c))
                }
                (Self::Url, '!' | '#'..=';' | '=' | '?'..='[' | ']' | '_' | 'a'..='z' | '~') if c != '#' => {
                    out.write_char(c)
                }
                (Self::Cookie, '!' | '#'..='+' | '-'..=':' | '<'..='[' | ']'..='~') => out.write_char(c),
                (Self::Url | Self::Cookie, _) => {
                    let mut bytes = [0; 4];
                    c.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(out, "%{byte:02X}"))
                }
                (Self::Log, '\\') => out.write_str("\\\\"),
                (Self::Log, '\0'..='\x1f' | '\x7f'..='\u{9f}') => write!(out, "\\x{:02x}", u32::from(c)),
                (Self::Plain | Self::Html | Self::Json | Self::Log, _) => out.write_char(c),
            };
        }
    }
}

fn value<'a>(what: &Macro, view: &View<'a>, groups: &'a Groups) -> Cow<'a, str> {
    let facts = view.scope.facts;
    let scope = view.scope;
    let client = || facts.tls().and_then(|tls| tls.client.as_ref());
    let maybe = |text: Option<Cow<'a, str>>| text.unwrap_or_default();
    match what {
        Macro::ClientAddress => facts.client().to_string().into(),
        Macro::LocalAddress => facts.local().ip().to_string().into(),
        Macro::LocalPort => facts.local().port().to_string().into(),
        Macro::Scheme => if facts.tls().is_some() { "https" } else { "http" }.into(),
        Macro::Method => facts.method().into(),
        Macro::Host => view.host().into(),
        Macro::Path => view.path().into(),
        Macro::Query => view.query().unwrap_or("").into(),
        Macro::RawUrl => facts.raw_url().into(),
        Macro::Version => facts.version().into(),
        Macro::RequestId => scope.request_id.to_string().into(),
        Macro::VirtualServer => scope.virtual_server.into(),
        Macro::TlsServerName => facts.tls().and_then(|tls| tls.server_name.as_deref()).unwrap_or("").into(),
        Macro::TlsVersion => facts.tls().map_or("", |tls| tls.version).into(),
        Macro::TlsCipher => facts.tls().map_or("", |tls| tls.cipher).into(),
        Macro::TlsClientSubject => client().map_or("", |client| &client.subject).into(),
        Macro::TlsClientFingerprint => client().map_or("", |client| &client.fingerprint).into(),
        Macro::TlsClientIssuer => client().map_or("", |client| &client.issuer).into(),
        Macro::TlsClientSerial => client().map_or("", |client| &client.serial).into(),
        Macro::TlsClientCertificate => client().map_or("", |client| &client.pem).into(),
        Macro::Pool => scope.pool.into(),
        Macro::Node => scope.node.into(),
        Macro::Status => scope.response.map(|response| response.status().to_string()).unwrap_or_default().into(),
        Macro::Header(name) => maybe(view.header(name)),
        Macro::Cookie(name) => maybe(view.cookie(name)),
        Macro::Parameter(name) => maybe(view.query().and_then(|query| super::parameter(query, name))),
        Macro::ResponseHeader(name) => maybe(view.response_header(name)),
        Macro::Group(n) => groups.get(*n).unwrap_or("").into(),
        // Macros of access logs: `Template::parse` lets none into a rule.
        Macro::RequestLine
        | Macro::TimeClf
        | Macro::Time
        | Macro::TimeUnix
        | Macro::BytesReceived
        | Macro::BytesSent
        | Macro::BodyBytesSent
        | Macro::QueueMs
        | Macro::ConnectMs
        | Macro::HeadMs
        | Macro::TotalMs
        | Macro::Retries
        | Macro::TlsResumed
        | Macro::Termination
        | Macro::Reason
        | Macro::Rule => Cow::Borrowed(""),
    }
}

#[cfg(test)]
mod tests {
    use super::Escape;

    #[test]
    fn what_comes_from_outside_is_written_for_its_place() {
        let nasty = "<a b=\"é\">;?#\\\r\n'%41&";
        let cases = [
            (Escape::Plain, nasty),
            (Escape::Html, "&lt;a b=&quot;é&quot;&gt;;?#\\\r\n&#39;%41&amp;"),
            (Escape::Json, "\\u003ca b=\\\"é\\\"\\u003e;?#\\\\\\u000d\\u000a'%41\\u0026"),
            (Escape::Url, "%3Ca%20b=%22%C3%A9%22%3E;?%23%5C%0D%0A'%41&"),
            (Escape::Cookie, "<a%20b=%22%C3%A9%22>%3B?#%5C%0D%0A'%41&"),
            (Escape::Log, "<a b=\"é\">;?#\\\\\\x0d\\x0a'%41&"),
        ];
        for (escape, expected) in cases {
            let mut out = String::new();
            escape.push(nasty, &mut out);
            assert_eq!(out, expected, "{escape:?}");
        }
    }
}
