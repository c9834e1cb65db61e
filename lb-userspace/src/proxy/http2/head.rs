//! Heads between HTTP/2 and HTTP/1.1, RFC 9113 §8.2 and §8.3: fields of one become lines of the other, checked.
//!
//! `h2` has refused by then (as stream errors) names with capitals, `Connection` and its like, `TE` other than `trailers`,
//! pseudo-header fields that are missing, unknown, doubled or late, and lengths that the DATA does not keep to.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};

use crate::proxy::h1::{
    Field, Framing, Known, KnownSet,
    body::may_be_trailer,
    request::{Refusal, RequestHead},
    response::ResponseHead,
    write::{self, ResponseEdit},
};

/// Fields that only HTTP/1.1 has, RFC 9113 §8.2.2.
const OF_HTTP1: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::KeepAlive,
    Known::ProxyConnection,
]);

/// Why a message cannot be said in HTTP/2: a byte that HTTP/1.1 allows and it does not.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cannot be told over HTTP/2")]
pub(crate) struct Unsayable;

/// Appends the head of a client's request as HTTP/1.1 has it; `has_body`: its stream goes on after it.
///
/// # Errors
/// What HTTP/1.1's form cannot show its parser: a host that is told twice or not at all, a target of another form.
pub(crate) fn write_request(out: &mut Vec<u8>, parts: &Parts, has_body: bool) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::MethodNotAllowed);
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if !target.starts_with('/') && target != "*" {
        return Err(Refusal::BadTarget);
    }
    for part in [parts.method.as_str(), " ", target, " HTTP/1.1\r\nHost: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(authority(parts)?);
    out.extend_from_slice(b"\r\n");
    for (name, value) in &parts.headers {
        let known = Known::of(name.as_str().as_bytes());
        if known != Known::Other && OF_HTTP1.contains(known) {
            return Err(Refusal::BadFieldName);
        }
        if !matches!(known, Known::Host | Known::Cookie) {
            line(out, name.as_str(), value.as_bytes());
        }
    }
    // RFC 9113 §8.2.3: one field again, for whoever knows no other form.
    let mut cookies = parts.headers.get_all(header::COOKIE).iter();
    if let Some(first) = cookies.next() {
        out.extend_from_slice(b"Cookie: ");
        out.extend_from_slice(first.as_bytes());
        for cookie in cookies {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(cookie.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    if !parts.headers.contains_key(header::CONTENT_LENGTH) {
        if has_body {
            write::framing(out, Framing::Chunked);
        } else if matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
            // RFC 9110 §8.6: nodes over HTTP/1.1 may answer 411 without.
            write::framing(out, Framing::Length(0));
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// The one host and port, from `:authority`, `host` or both: RFC 9113 §8.3.1.
fn authority(parts: &Parts) -> Result<&[u8], Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Refusal::DuplicateHost);
    }
    match (parts.uri.authority().map(|authority| authority.as_str().as_bytes()), host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => Err(Refusal::HostMismatch),
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Refusal::NoHost),
    }
}

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

/// The response of `head`, changed by `edit`, for a client over HTTP/2.
///
/// # Errors
/// [`Unsayable`].
pub(crate) fn response(head: &ResponseHead<'_>, edit: &ResponseEdit<'_>) -> Result<Response<()>, Unsayable> {
    let never = KnownSet::NEVER_COPIED.union(edit.drop);
    let mut headers = HeaderMap::with_capacity(16);
    for field in head.fields().filter(|field| goes_on(field, never, edit.remove)) {
        headers.append(name(field.name)?, value(field.value)?);
    }
    let told = match (edit.framing, head.content_length()) {
        (Framing::Length(length), _) => Some(length),
        (Framing::None, Some(length)) if head.framing() == Framing::None && head.status() >= 200 => {
            (head.status() != 204).then_some(length)
        }
        (Framing::None | Framing::Chunked | Framing::UntilClose, _) => None,
    };
    if let Some(length) = told {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    for line in edit.extra.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Unsayable)?;
        headers.append(name(&line[..colon])?, value(line[colon + 1..].trim_ascii())?);
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status()).map_err(|_| Unsayable)?;
    *response.headers_mut() = headers;
    Ok(response)
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

    fn parts(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method("GET").uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn written(uri: &str, fields: &[(&str, &str)], has_body: bool) -> Result<String, Refusal> {
        let mut out = Vec::new();
        write_request(&mut out, &parts(uri, fields), has_body)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn requests_become_lines_with_one_host_and_one_cookie() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool, Result<&'a str, Refusal>);
        let cases: [Case<'_>; 9] = [
            ("http://a.b:1/x?y", &[], false, Ok("GET /x?y HTTP/1.1\r\nHost: a.b:1\r\n\r\n")),
            ("http://a/", &[("host", "A")], false, Ok("GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
            ("/", &[("host", "a")], false, Ok("GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
            ("http://a/", &[("host", "b")], false, Err(Refusal::HostMismatch)),
            ("http://a/", &[("host", "a"), ("host", "a")], false, Err(Refusal::DuplicateHost)),
            ("/", &[], false, Err(Refusal::NoHost)),
            (
                "http://a/",
                &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")],
                false,
                Ok("GET / HTTP/1.1\r\nHost: a\r\nx: y\r\nCookie: a=1; b=2\r\n\r\n"),
            ),
            ("http://a/", &[], true, Ok("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")),
            ("http://a/", &[("connection", "x")], false, Err(Refusal::BadFieldName)),
        ];
        for (uri, fields, has_body, expected) in cases {
            assert_eq!(
                written(uri, fields, has_body).as_deref(),
                expected.as_ref().map(|text| *text),
                "{uri} {fields:?}"
            );
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
