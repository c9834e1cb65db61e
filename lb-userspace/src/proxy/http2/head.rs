//! Heads between HTTP/2 and HTTP/1.1, RFC 9113 §8.2 and §8.3: fields of one become lines of the other, checked; requests of
//! clients are `request`'s.
//!
//! Of nodes' messages `h2` has refused by then (as stream errors) names with capitals, `Connection` and its like, `TE` other than `trailers`,
//! pseudo-header fields that are missing, unknown, doubled or late, and lengths that the DATA does not keep to.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};

use super::hpack::{Encoder, Keep};
use crate::proxy::h1::{
    Field, Framing, Known, KnownSet,
    body::may_be_trailer,
    request::RequestHead,
    response::ResponseHead,
    write::{self, ResponseEdit},
};

/// Why a message cannot be said in HTTP/2: a byte that HTTP/1.1 allows and it does not.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cannot be told over HTTP/2")]
pub(crate) struct Unsayable;

/// The request of a head that is written for a node, over HTTP/2.
///
/// # Errors
/// [`Unsayable`].
pub(crate) fn request(head: &RequestHead<'_>, is_tls: bool, trailers: bool) -> Result<Request<()>, Unsayable> {
    let mut target = String::with_capacity(64);
    escape(&mut target, head.path());
    if let Some(query) = head.query() {
        target.push('?');
        escape(&mut target, query);
    }
    let uri = Uri::builder()
        .scheme(if is_tls { "https" } else { "http" })
        .authority(head.authority())
        .path_and_query(target)
        .build()
        .map_err(|_| Unsayable)?;
    let mut headers = HeaderMap::with_capacity(16);
    for field in head.fields().filter(|field| goes_on(field, KnownSet::NEVER_COPIED, &[])) {
        headers.append(name(field.name)?, value(field.value)?);
    }
    if let Framing::Length(length) = head.framing() {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method_name().as_bytes()).map_err(|_| Unsayable)?;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Appends the fields of `head`, changed by `edit`, for a client over HTTP/2.
pub(crate) fn encode(encoder: &mut Encoder, out: &mut Vec<u8>, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>) {
    encoder.status(out, head.status());
    let never = KnownSet::NEVER_COPIED.union(edit.drop);
    for field in head.fields().filter(|field| goes_on(field, never, edit.remove)) {
        encode_field(encoder, out, field.known, field.name, field.value);
    }
    let told = match (edit.framing, head.content_length()) {
        (Framing::Length(length), _) => Some(length),
        (Framing::None, Some(length)) if head.framing() == Framing::None && head.status() >= 200 => {
            (head.status() != 204).then_some(length)
        }
        (Framing::None | Framing::Chunked | Framing::UntilClose, _) => None,
    };
    if let Some(length) = told {
        let mut text = [0; 20];
        encode_field(encoder, out, Known::ContentLength, b"content-length", write::decimal(&mut text, length));
    }
    // Made by `write::field`: a name, a colon and a value each.
    for line in edit.extra.split(|byte| *byte == b'\n') {
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            encode_field(encoder, out, Known::of(name), name, value);
        }
    }
}

/// Appends trailers.
pub(crate) fn encode_trailers(encoder: &mut Encoder, out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        let name = name.as_str().as_bytes();
        encode_field(encoder, out, Known::of(name), name, value.as_bytes());
    }
}

fn encode_field(encoder: &mut Encoder, out: &mut Vec<u8>, known: Known, name: &[u8], value: &[u8]) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "others have no place in the static table, or are rare")]
    let (place, keep) = match known {
        Known::CacheControl => (24, Keep::Yes),
        Known::ContentEncoding => (26, Keep::Yes),
        Known::ContentLength => (28, Keep::No),
        Known::ContentLocation => (29, Keep::No),
        Known::ContentRange => (30, Keep::No),
        Known::ContentType => (31, Keep::Yes),
        Known::Date => (33, Keep::Yes),
        Known::Etag => (34, Keep::No),
        Known::LastModified => (44, Keep::No),
        Known::Location => (46, Keep::No),
        Known::Server => (54, Keep::Yes),
        Known::SetCookie => (55, Keep::Never),
        Known::StrictTransportSecurity => (56, Keep::Yes),
        Known::Vary => (59, Keep::Yes),
        Known::Via => (60, Keep::Yes),
        _ => (0, Keep::Yes),
    };
    encoder.field(out, place, name, value, keep);
}

/// Appends the head of a node's response as HTTP/1.1 has it; `is_all`: nothing follows it, `may_have_body`: by method and
/// status something could.
pub(crate) fn write_response(out: &mut Vec<u8>, response: &Response<()>, is_all: bool, may_have_body: bool) {
    write::status_line(out, response.status().as_u16(), b"");
    for (name, value) in response.headers() {
        line(out, name.as_str(), value.as_bytes());
    }
    if may_have_body && !response.headers().contains_key(header::CONTENT_LENGTH) {
        write::framing(out, if is_all { Framing::Length(0) } else { Framing::Chunked });
    }
    out.extend_from_slice(b"\r\n");
}

/// Trailers that go on: none that concerns the message as a whole, or one connection (RFC 9110 §6.5.1).
pub(crate) fn trailers(mut trailers: HeaderMap) -> Option<HeaderMap> {
    let unwanted: Vec<HeaderName> =
        trailers.keys().filter(|name| !may_be_trailer(Known::of(name.as_str().as_bytes()))).cloned().collect();
    for name in unwanted {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

/// Appends a part of a target; bytes that no URI has (RFC 3986 §2) and HTTP/1.1's clients send nevertheless are escaped.
fn escape(out: &mut String, part: &str) {
    for byte in part.chars() {
        match byte {
            '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => out.push_str(&format!("%{:02X}", u32::from(byte))),
            other => out.push(other),
        }
    }
}

fn goes_on(field: &Field<'_>, never: KnownSet, remove: &[&str]) -> bool {
    let is_kept = !never.contains(field.known) || field.known == Known::Other;
    is_kept && !field.listed && !remove.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(field.name))
}

fn name(bytes: &[u8]) -> Result<HeaderName, Unsayable> {
    HeaderName::from_bytes(bytes).map_err(|_| Unsayable)
}

fn value(bytes: &[u8]) -> Result<HeaderValue, Unsayable> {
    HeaderValue::from_bytes(bytes).map_err(|_| Unsayable)
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http2::hpack::{Decoder, static_index};

    #[test]
    fn places_are_those_of_the_static_table() {
        for (known, name) in [
            (Known::CacheControl, "cache-control"),
            (Known::ContentEncoding, "content-encoding"),
            (Known::ContentLength, "content-length"),
            (Known::ContentLocation, "content-location"),
            (Known::ContentRange, "content-range"),
            (Known::ContentType, "content-type"),
            (Known::Date, "date"),
            (Known::Etag, "etag"),
            (Known::LastModified, "last-modified"),
            (Known::Location, "location"),
            (Known::Server, "server"),
            (Known::SetCookie, "set-cookie"),
            (Known::StrictTransportSecurity, "strict-transport-security"),
            (Known::Vary, "vary"),
            (Known::Via, "via"),
            (Known::Other, "x-other"),
        ] {
            let mut out = Vec::new();
            encode_field(&mut Encoder::default(), &mut out, known, name.as_bytes(), b"v");
            let mut seen = None;
            let taken =
                Decoder::default().decode(&out, |name, _| seen = Some(String::from_utf8_lossy(name).into_owned()));
            assert_eq!((taken, seen.as_deref()), (Ok(()), Some(name)));
            assert_eq!(static_index(name) > 0, out[0] & 0x0f > 0, "{name}");
        }
    }

    #[test]
    fn trailers_that_mean_more_are_taken_out() {
        let mut map = HeaderMap::new();
        for name in ["grpc-status", "content-length", "x-forwarded-for", "host", "set-cookie", "x-own"] {
            map.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let kept = trailers(map).unwrap();
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["grpc-status", "x-own"]);
        assert!(trailers(HeaderMap::new()).is_none());
    }
}
