//! The request line: method, target, version, RFC 9112 §3.

use super::{Method, Refusal, Slots, Span, Version, host, path, path_policy};
use crate::control::proxy::http::Strictness;

/// Longest method.
const MAX_METHOD: usize = 24;

/// Whether `line` begins with a method, as far as it came: what speaks another protocol is refused at its first bytes.
/// Control bytes but tabs are left to the reader of lines, which names them.
pub(super) fn check_method(line: &[u8]) -> Result<(), Refusal> {
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b' ' if at > 0 => return Ok(()),
            0..=8 | 10..=0x1f | 0x7f => return Ok(()),
            b'A'..=b'Z' if at < MAX_METHOD => {}
            b'0'..=b'9' | b'-' | b'_' if at > 0 && at < MAX_METHOD => {}
            _ => return Err(Refusal::BadMethod),
        }
    }
    Ok(())
}

/// Reads the request line from `start` to `end`.
pub(super) fn request_line(
    slots: &mut Slots,
    buf: &[u8],
    (start, end): (usize, usize),
    strictness: &Strictness,
) -> Result<(), Refusal> {
    let line = &buf[start..end];
    let method = line.iter().position(|byte| *byte == b' ').ok_or(Refusal::BadMethod)?;
    let rest = &line[method + 1..];
    let target = rest.iter().position(|byte| *byte == b' ').ok_or(Refusal::BadVersion)?;
    let facts = &mut slots.request;
    facts.method_name = Span::at(start, &line[..method]);
    facts.method = Method::of(&line[..method]);
    facts.version = version(&rest[target + 1..])?;
    if matches!(&line[..method], b"CONNECT" | b"TRACE") {
        return Err(Refusal::MethodNotAllowed);
    }
    facts.target = Span::at(start + method + 1, &rest[..target]);
    read_target(slots, buf, strictness)
}

/// Exactly `HTTP/1.0` or `HTTP/1.1`, RFC 9112 §2.3.
fn version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::UnsupportedVersion),
        _ => Err(Refusal::BadVersion),
    }
}

/// Takes the target apart: origin, absolute or asterisk form, RFC 9112 §3.2.
fn read_target(slots: &mut Slots, buf: &[u8], strictness: &Strictness) -> Result<(), Refusal> {
    let facts = &mut slots.request;
    let target = facts.target.of(buf);
    let mut start = facts.target.start as usize;
    if target == b"*" && facts.method == Method::Options {
        facts.path = facts.target;
        return Ok(());
    }
    let mut rest = target;
    if !target.starts_with(b"/") {
        let scheme = scheme_length(target).ok_or(Refusal::BadTarget)?;
        let authority = &target[scheme..];
        let length = authority.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(authority.len());
        if !host::is_valid(&authority[..length]) {
            return Err(Refusal::BadHost);
        }
        facts.target_host = Span::at(start + scheme, &authority[..length]);
        start += scheme + length;
        rest = &authority[length..];
    }
    let length = rest.iter().position(|byte| *byte == b'?').unwrap_or(rest.len());
    facts.path = Span::at(start, &rest[..length]);
    if let Some(query) = rest.get(length + 1..) {
        if !query.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#') {
            return Err(Refusal::BadTarget);
        }
        facts.query = Some(Span::at(start + length + 1, query));
    }
    if length == 0 {
        // A URL without path, RFC 9112 §3.2.1 and §3.2.4.
        let whole_server = facts.method == Method::Options && facts.query.is_none();
        facts.normal_path = Some(if whole_server { "*" } else { "/" }.to_owned());
    } else if let std::borrow::Cow::Owned(normal) = path::normalise(&rest[..length], path_policy(strictness))? {
        facts.normal_path = Some(normal);
    }
    Ok(())
}

/// Bytes of `http://` or `https://` at the beginning.
fn scheme_length(target: &[u8]) -> Option<usize> {
    [b"http://".as_slice(), b"https://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(|scheme| scheme.len())
}
