//! How a line looks: combined, JSON, or own text with the macros of `control::proxy::template::Macro`.

use std::{borrow::Cow, io::Write, net::IpAddr, time::Duration};

use super::{Entry, escape, time::TimeText};
use crate::{
    control::proxy::{
        log as plan,
        template::{Macro, Piece, Place, Template, TemplateError},
    },
    proxy::{facts::RequestId, h1::write::number},
};

/// NCSA combined, as Apache and nginx write it.
const COMBINED: &str = "%{client_address} - - [%{time_clf}] \"%{request_line}\" %{status} %{body_bytes_sent} \
                        \"%{header:referer}\" \"%{header:user-agent}\"";

/// Members of a JSON line. What there is not is left out.
const JSON: [(&str, &str); 28] = [
    ("time", "time"),
    ("request_id", "request_id"),
    ("virtual_server", "virtual_server"),
    ("client_address", "client_address"),
    ("method", "method"),
    ("host", "host"),
    ("url", "raw_url"),
    ("version", "version"),
    ("status", "status"),
    ("bytes_received", "bytes_received"),
    ("bytes_sent", "bytes_sent"),
    ("body_bytes_sent", "body_bytes_sent"),
    ("referer", "header:referer"),
    ("user_agent", "header:user-agent"),
    ("pool", "pool"),
    ("node", "node"),
    ("rule", "rule"),
    ("queue_ms", "queue_ms"),
    ("connect_ms", "connect_ms"),
    ("head_ms", "head_ms"),
    ("total_ms", "total_ms"),
    ("retries", "retries"),
    ("tls_version", "tls_version"),
    ("tls_cipher", "tls_cipher"),
    ("tls_server_name", "tls_server_name"),
    ("tls_resumed", "tls_resumed"),
    ("termination", "termination"),
    ("reason", "reason"),
];

/// A compiled format.
#[derive(Clone, Debug)]
pub struct Format(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Text(Box<[Piece]>),
    /// Each member with `"name":` and the comma before it.
    Json(Box<[(Box<str>, Macro)]>),
}

/// What a macro stands for in a line.
enum Value<'a> {
    Nothing,
    /// From outside, or configured: escaped.
    Text(Cow<'a, str>),
    /// Ours: nothing to escape.
    Plain(&'a str),
    Number(u64),
    Milliseconds(Duration),
    Address(IpAddr),
    Time,
    Request,
    Id(RequestId),
    Letters([u8; 2]),
}

impl Format {
    /// Compiles a format.
    ///
    /// # Errors
    /// A macro that there is not.
    pub fn compile(format: &plan::Format) -> Result<Self, TemplateError> {
        let text = |text: &str| Template::parse(text, Place::Log).map(|parsed| Kind::Text(parsed.pieces.into()));
        Ok(Self(match format {
            plan::Format::Combined => text(COMBINED)?,
            plan::Format::Own(own) => text(own)?,
            plan::Format::Json => Kind::Json(JSON.iter().filter_map(json_member).collect()),
        }))
    }

    /// Appends the line of an entry, with its end.
    pub(super) fn write(&self, entry: &Entry<'_>, time: &TimeText, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Text(pieces) => {
                for piece in pieces {
                    match piece {
                        // A line break in a format would make two lines of one.
                        Piece::Literal(text) => {
                            out.extend(text.bytes().map(|byte| if byte < 0x20 && byte != b'\t' { b' ' } else { byte }))
                        }
                        Piece::Macro(what) => write_text(what, entry, time, out),
                    }
                }
            }
            Kind::Json(members) => write_json(members, entry, time, out),
        }
        out.push(b'\n');
    }
}

fn json_member((name, word): &(&str, &str)) -> Option<(Box<str>, Macro)> {
    let parsed = Template::parse(&format!("%{{{word}}}"), Place::Log).ok()?;
    match parsed.pieces.into_iter().next()? {
        Piece::Macro(what) => Some((format!("\"{name}\":").into(), what)),
        Piece::Literal(_) => None,
    }
}

fn write_text(what: &Macro, entry: &Entry<'_>, time: &TimeText, out: &mut Vec<u8>) {
    match value(what, entry) {
        Value::Nothing => out.push(b'-'),
        Value::Text(text) if text.is_empty() => out.push(b'-'),
        Value::Text(text) => escape::text(&text, out),
        Value::Time if *what == Macro::TimeClf => out.extend_from_slice(time.clf().as_bytes()),
        Value::Request => {
            escape::text(entry.facts.method(), out);
            out.push(b' ');
            escape::text(entry.facts.raw_url(), out);
            out.extend_from_slice(b" HTTP/");
            escape::text(entry.facts.version(), out);
        }
        ours @ (Value::Plain(_)
        | Value::Number(_)
        | Value::Milliseconds(_)
        | Value::Address(_)
        | Value::Time
        | Value::Id(_)
        | Value::Letters(_)) => write_ours(&ours, what, entry, time, out),
    }
}

fn write_json(members: &[(Box<str>, Macro)], entry: &Entry<'_>, time: &TimeText, out: &mut Vec<u8>) {
    let mut separator = b'{';
    for (name, what) in members {
        let value = value(what, entry);
        if matches!(&value, Value::Nothing) || matches!(&value, Value::Text(text) if text.is_empty()) {
            continue;
        }
        out.push(separator);
        separator = b',';
        out.extend_from_slice(name.as_bytes());
        match &value {
            Value::Number(_) | Value::Milliseconds(_) => write_ours(&value, what, entry, time, out),
            Value::Text(text) => {
                out.push(b'"');
                escape::json(text, out);
                out.push(b'"');
            }
            Value::Nothing
            | Value::Plain(_)
            | Value::Address(_)
            | Value::Time
            | Value::Request
            | Value::Id(_)
            | Value::Letters(_) => {
                out.push(b'"');
                write_ours(&value, what, entry, time, out);
                out.push(b'"');
            }
        }
    }
    out.push(b'}');
}

/// Writes what needs no escaping.
fn write_ours(value: &Value<'_>, what: &Macro, entry: &Entry<'_>, time: &TimeText, out: &mut Vec<u8>) {
    match value {
        Value::Nothing | Value::Text(_) | Value::Request => {}
        Value::Plain(text) => out.extend_from_slice(text.as_bytes()),
        Value::Number(n) => number(out, *n),
        Value::Milliseconds(time) => milliseconds(*time, out),
        Value::Address(IpAddr::V4(address)) => {
            for (position, octet) in address.octets().into_iter().enumerate() {
                if position > 0 {
                    out.push(b'.');
                }
                number(out, octet.into());
            }
        }
        // Writing to a Vec cannot fail.
        Value::Address(address) => drop(write!(out, "{address}")),
        Value::Time if *what == Macro::TimeUnix => {
            number(out, entry.at.as_secs());
            thousandths(entry.at.subsec_millis(), out);
        }
        Value::Time => {
            out.extend_from_slice(time.iso().as_bytes());
            thousandths(entry.at.subsec_millis(), out);
            out.push(b'Z');
        }
        Value::Id(id) => out.extend_from_slice(&id.digits()),
        Value::Letters(letters) => out.extend_from_slice(letters),
    }
}

fn value<'a>(what: &Macro, entry: &Entry<'a>) -> Value<'a> {
    let facts = entry.facts;
    let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
    let maybe = |text: Option<Cow<'a, str>>| text.map_or(Value::Nothing, Value::Text);
    let tls = facts.tls();
    let client = || tls.and_then(|tls| tls.client.as_ref());
    match what {
        Macro::ClientAddress => Value::Address(facts.client()),
        Macro::LocalAddress => Value::Address(facts.local().ip()),
        Macro::LocalPort => Value::Number(facts.local().port().into()),
        Macro::Scheme => Value::Plain(if tls.is_some() { "https" } else { "http" }),
        Macro::Method => text(facts.method()),
        Macro::Host => text(facts.host()),
        Macro::Path => text(facts.path()),
        Macro::Query => text(facts.query().unwrap_or("")),
        Macro::RawUrl => text(facts.raw_url()),
        Macro::Version => text(facts.version()),
        Macro::RequestId => Value::Id(entry.request_id),
        Macro::VirtualServer => text(entry.virtual_server),
        Macro::TlsServerName => text(tls.and_then(|tls| tls.server_name.as_deref()).unwrap_or("")),
        Macro::TlsVersion => tls.map_or(Value::Nothing, |tls| text(tls.version)),
        Macro::TlsCipher => tls.map_or(Value::Nothing, |tls| text(tls.cipher)),
        Macro::TlsResumed => tls.map_or(Value::Nothing, |tls| Value::Plain(if tls.resumed { "yes" } else { "no" })),
        Macro::TlsClientSubject => text(client().map_or("", |client| &client.subject)),
        Macro::TlsClientFingerprint => text(client().map_or("", |client| &client.fingerprint)),
        Macro::TlsClientIssuer => text(client().map_or("", |client| &client.issuer)),
        Macro::TlsClientSerial => text(client().map_or("", |client| &client.serial)),
        Macro::TlsClientCertificate => text(client().map_or("", |client| &client.pem)),
        Macro::Pool => text(entry.pool),
        Macro::Node => text(entry.node),
        Macro::Status => Value::Number(entry.status.into()),
        Macro::RequestLine if facts.method().is_empty() => Value::Nothing,
        Macro::RequestLine => Value::Request,
        Macro::TimeClf | Macro::Time | Macro::TimeUnix => Value::Time,
        Macro::BytesReceived => Value::Number(entry.bytes_received),
        Macro::BytesSent => Value::Number(entry.bytes_sent),
        Macro::BodyBytesSent => Value::Number(entry.body_bytes_sent),
        Macro::QueueMs => Value::Milliseconds(entry.timings.queue),
        Macro::ConnectMs => Value::Milliseconds(entry.timings.connect),
        Macro::HeadMs => Value::Milliseconds(entry.timings.head),
        Macro::TotalMs => Value::Milliseconds(entry.timings.total),
        Macro::Retries => Value::Number(entry.retries.into()),
        Macro::Termination => Value::Letters(entry.ended.letters()),
        Macro::Reason => text(entry.reason),
        Macro::Rule => text(entry.rule),
        Macro::Header(name) => maybe(facts.header(name)),
        Macro::Cookie(name) => maybe(facts.cookie(name)),
        Macro::Parameter(name) => maybe(facts.query().and_then(|query| crate::proxy::rules::parameter(query, name))),
        Macro::ResponseHeader(name) => maybe(entry.response.and_then(|response| response.header(name))),
        // `Template::parse` lets none into a log.
        Macro::Group(_) => Value::Nothing,
    }
}

fn milliseconds(time: Duration, out: &mut Vec<u8>) {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(out, us / 1000);
    thousandths(u32::try_from(us % 1000).unwrap_or(0), out);
}

/// `.123`.
fn thousandths(value: u32, out: &mut Vec<u8>) {
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
    out.extend([b'.', digit(value / 100), digit(value / 10), digit(value)]);
}
