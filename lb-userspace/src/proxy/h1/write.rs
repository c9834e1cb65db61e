//! Heads to bytes: written anew from what was parsed, in one pass, by copying slices.
//!
//! What a peer wrote about host, framing and its connection is never copied. What the proxy adds comes after what was
//! copied, so that no `Connection` can take it out.

use super::{Field, Framing, Known, KnownSet, request::RequestHead, response::ResponseHead};

/// How a request's head is changed on its way to the node.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestEdit<'a> {
    /// Instead of the request's path; must be a path that `proxy::path` calls normal.
    pub path: Option<&'a str>,
    /// Instead of the request's query; `Some(None)`: none.
    pub query: Option<Option<&'a str>>,
    /// Instead of the request's host and port. Needed where the request has none (HTTP/1.0).
    pub host: Option<&'a str>,
    /// How the body is sent; not `UntilClose`.
    pub framing: Framing,
    /// Known fields that are not copied.
    pub drop: KnownSet,
    /// Other fields that are not copied, in any case.
    pub remove: &'a [&'a str],
    /// Field lines to add, each with its CR LF, made by [`field`].
    pub extra: &'a [u8],
    /// Whether the upgrade that was asked for is passed on.
    pub upgrade: bool,
    /// Whether the node is to send 100 before the body.
    pub expect_continue: bool,
    /// Whether the node is told to close the connection after its response.
    pub close: bool,
    /// Whether the node is told that trailers are taken (RFC 9110 §10.1.4): not with `upgrade` or `close`.
    pub trailers: bool,
}

/// How a response's head is changed on its way to the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseEdit<'a> {
    /// How the body is sent. `None` keeps the length that a response to HEAD, or 304, tells.
    pub framing: Framing,
    /// Known fields that are not copied.
    pub drop: KnownSet,
    /// Other fields that are not copied, in any case.
    pub remove: &'a [&'a str],
    /// Field lines to add, each with its CR LF, made by [`field`].
    pub extra: &'a [u8],
    /// Whether the client is told that its connection is closed after this response.
    pub close: bool,
    /// Whether the client is told that its connection is kept: HTTP/1.0 clients must be.
    pub keep_alive: bool,
}

/// A name is no token, or a value has a control byte: the field would be read as something else (header injection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header field")]
pub struct BadField;

/// Appends the field line `name: value`.
///
/// # Errors
///
/// [`BadField`]; `out` is as it was.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), BadField> {
    if !super::scan::is_token(name) || value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(BadField);
    }
    line(out, name, value);
    Ok(())
}

/// Appends the head of `head` with `edit` to `out`.
pub fn request_head(out: &mut Vec<u8>, head: &RequestHead<'_>, edit: &RequestEdit<'_>) {
    out.reserve(head.len() + edit.extra.len() + 256);
    out.extend_from_slice(head.method_name().as_bytes());
    out.push(b' ');
    out.extend_from_slice(edit.path.unwrap_or(head.path()).as_bytes());
    if let Some(query) = edit.query.unwrap_or(head.query()) {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(edit.host.unwrap_or(head.authority()).as_bytes());
    out.extend_from_slice(b"\r\n");
    fields(out, head.fields(), KnownSet::NEVER_COPIED.union(edit.drop), edit.remove);
    framing(out, edit.framing);
    if edit.upgrade && !head.upgrade_protocol().is_empty() {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        line(out, b"Upgrade", head.upgrade_protocol());
    } else if edit.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if edit.trailers {
        out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
    if edit.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    out.extend_from_slice(edit.extra);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of `head` with `edit` to `out`; always as HTTP/1.1, RFC 9110 §2.5.
pub fn response_head(out: &mut Vec<u8>, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>) {
    out.reserve(head.len() + edit.extra.len() + 128);
    status_line(out, head.status(), head.reason());
    fields(out, head.fields(), KnownSet::NEVER_COPIED.union(edit.drop), edit.remove);
    match (edit.framing, head.content_length()) {
        (Framing::None, Some(length))
            if head.framing() == Framing::None && head.status() >= 200 && head.status() != 204 =>
        {
            framing(out, Framing::Length(length));
        }
        (other, _) => framing(out, other),
    }
    if head.status() == 101 {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        line(out, b"Upgrade", head.upgrade_protocol());
    } else if edit.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if edit.keep_alive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(edit.extra);
    out.extend_from_slice(b"\r\n");
}

/// Appends a status line. `status` has three digits; `reason` no control byte.
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Appends the field that tells `framing`; `None` and `UntilClose` need none.
pub fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            number(out, length);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends `value` in decimal digits.
pub fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(decimal(&mut [0; 20], value));
}

/// `value` in decimal digits.
pub(crate) fn decimal(digits: &mut [u8; 20], mut value: u64) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

/// Copies the fields that go on.
fn fields<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = Field<'a>>, drop: KnownSet, remove: &[&str]) {
    for field in fields {
        if field.listed || drop.contains(field.known) && field.known != Known::Other {
            continue;
        }
        if remove.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(field.name)) {
            continue;
        }
        line(out, field.name, field.value);
    }
}

/// Appends a field line that needs no check.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::proxy::http::Strictness,
        proxy::h1::{Slots, request, response},
    };

    fn request(text: &str, edit: &RequestEdit<'_>) -> String {
        let mut slots = Slots::new();
        let head = request::parse(text.as_bytes(), &Strictness::default(), &mut slots).unwrap().unwrap();
        let mut out = Vec::new();
        request_head(&mut out, &head, edit);
        String::from_utf8(out).unwrap()
    }

    fn response(text: &str, asked: response::Asked<'_>, edit: &ResponseEdit<'_>) -> String {
        let mut slots = Slots::new();
        let head = response::parse(text.as_bytes(), asked, &Strictness::default(), &mut slots).unwrap().unwrap();
        let mut out = Vec::new();
        response_head(&mut out, &head, edit);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_are_written_anew() {
        let text = "GET http://A.b/x/../y?q HTTP/1.0\r\nX-A: 1\r\nConnection: x-b, close, X-Forwarded-For\r\nX-B: 2\r\n\
                    X-Forwarded-For: 9.9.9.9\r\nTE: trailers\r\nCookie:  a=b \r\nContent-Length: 007\r\nX-C: 3\r\n\r\n";
        let edit = RequestEdit {
            framing: Framing::Length(7),
            remove: &["x-c"],
            extra: b"X-Forwarded-For: 10.0.0.1\r\n",
            ..RequestEdit::default()
        };
        let expected = "GET /y?q HTTP/1.1\r\nHost: A.b\r\nX-A: 1\r\nCookie: a=b\r\nContent-Length: 7\r\n\
                        X-Forwarded-For: 10.0.0.1\r\n\r\n";
        assert_eq!(request(text, &edit), expected);
    }

    #[test]
    fn edits_of_requests_are_taken() {
        let text =
            "PUT /a?b HTTP/1.1\r\nHost: h\r\nVia: x\r\nExpect: 100-continue\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let edit = RequestEdit {
            path: Some("/c"),
            query: Some(None),
            host: Some("n:1"),
            framing: Framing::Chunked,
            drop: KnownSet::of(&[Known::Via]),
            expect_continue: true,
            close: true,
            ..RequestEdit::default()
        };
        let expected = "PUT /c HTTP/1.1\r\nHost: n:1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\
                        Expect: 100-continue\r\n\r\n";
        assert_eq!(request(text, &edit), expected);
    }

    #[test]
    fn upgrades_are_written_only_when_passed_on() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: foo/1\r\n\r\n";
        let plain = "GET / HTTP/1.1\r\nHost: h\r\n";
        assert_eq!(request(text, &RequestEdit::default()), format!("{plain}\r\n"));
        let passed = request(text, &RequestEdit { upgrade: true, ..RequestEdit::default() });
        assert_eq!(passed, format!("{plain}Connection: Upgrade\r\nUpgrade: foo/1\r\n\r\n"));
    }

    #[test]
    fn responses_are_written_anew() {
        let get = response::Asked::default();
        let text = "HTTP/1.0 200\r\nKeep-Alive: 5\r\nConnection: x-b\r\nX-B: 1\r\nX-C: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
        let edit = ResponseEdit {
            framing: Framing::Chunked,
            close: true,
            extra: b"Via: 1.1 lb\r\n",
            ..ResponseEdit::default()
        };
        let expected = "HTTP/1.1 200 \r\nX-C: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\n\
                        Connection: close\r\nVia: 1.1 lb\r\n\r\n";
        assert_eq!(response(text, get, &edit), expected);
        let kept = ResponseEdit { keep_alive: true, ..ResponseEdit::default() };
        let not_modified = response("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", get, &kept);
        assert_eq!(not_modified, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\n");
        let no_content = response("HTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\n", get, &ResponseEdit::default());
        assert_eq!(no_content, "HTTP/1.1 204 No\r\n\r\n");
        let asked = response::Asked { upgrade: b"foo", ..get };
        let text = "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: FOO\r\n\r\n";
        assert_eq!(response(text, asked, &ResponseEdit::default()), text);
    }

    #[test]
    fn h6_fields_that_would_be_more_are_refused() {
        let mut out = Vec::new();
        for (name, value) in
            [("a", "b\r\nc: d"), ("a", "b\n"), ("a", "\0"), ("a\r\n", "b"), ("", "b"), ("a:", "b"), ("a b", "c")]
        {
            assert_eq!(field(&mut out, name.as_bytes(), value.as_bytes()), Err(BadField));
        }
        assert!(out.is_empty());
        assert_eq!(field(&mut out, b"a", "b\té".as_bytes()), Ok(()));
        assert_eq!(out, "a: b\té\r\n".as_bytes());
    }

    #[test]
    fn numbers_are_decimal() {
        for value in [0, 1, 9, 10, 99, 12_345, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }
}
