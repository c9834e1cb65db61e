//! What can be said of a request only when its head is complete: host, framing, connection, upgrade.

use super::{Framing, Known, Method, Refusal, Slots, Span, Upgrade, Version, scan};
use crate::control::proxy::http::Strictness;

/// `Transfer-Encoding` must be `chunked`, alone and once: RFC 9112 §6.1.
pub(super) fn check_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let other = scan::list(value).any(|coding| !coding.eq_ignore_ascii_case(b"chunked"));
    Err(if other { Refusal::UnsupportedCoding } else { Refusal::BadTransferEncoding })
}

/// Decides on the head as a whole.
pub(super) fn finish(slots: &mut Slots, buf: &[u8], strictness: &Strictness) -> Result<(), Refusal> {
    check_host(slots, buf)?;
    check_framing(slots)?;
    let upgrade_is_dropped = decide_upgrade(slots, buf, strictness);
    let (seen, facts) = (slots.seen, &mut slots.request);
    let options = facts.options;
    let is_11 = facts.version == Version::Http11;
    // Behind a request for another protocol that is not passed on may stand that protocol, not a request.
    facts.keep_alive = !options.close && (is_11 || options.keep_alive) && !upgrade_is_dropped;
    // In HTTP/1.0 it is to be ignored, RFC 9110 §10.1.1; without a body there is nothing to wait for.
    facts.expect_continue =
        is_11 && seen.contains(Known::Expect) && !matches!(facts.framing, Framing::None | Framing::Length(0));
    if options.lists {
        slots.mark_listed(buf);
    }
    Ok(())
}

fn check_host(slots: &mut Slots, buf: &[u8]) -> Result<(), Refusal> {
    let has_host = slots.seen.contains(Known::Host);
    let facts = &mut slots.request;
    if !has_host && facts.version == Version::Http11 {
        return Err(Refusal::NoHost);
    }
    if facts.target_host.is_empty() {
        return Ok(());
    }
    if has_host && !facts.target_host.of(buf).eq_ignore_ascii_case(facts.host.of(buf)) {
        return Err(Refusal::HostMismatch);
    }
    facts.host = facts.target_host;
    Ok(())
}

fn check_framing(slots: &mut Slots) -> Result<(), Refusal> {
    if !slots.seen.contains(Known::TransferEncoding) {
        return Ok(());
    }
    if slots.seen.contains(Known::ContentLength) {
        return Err(Refusal::LengthAndCoding);
    }
    if slots.request.version == Version::Http10 {
        return Err(Refusal::CodingInHttp10);
    }
    slots.request.framing = Framing::Chunked;
    Ok(())
}

/// Which upgrade may be had; returns whether one was asked for that may not, and whose client may have gone on in it.
fn decide_upgrade(slots: &mut Slots, buf: &[u8], strictness: &Strictness) -> bool {
    if !slots.seen.contains(Known::Upgrade) {
        return false;
    }
    let protocol = slots.request.upgrade_protocol.of(buf);
    let is_websocket = protocol.eq_ignore_ascii_case(b"websocket");
    // Neither HTTP/2 nor TLS is passed through, only terminated; clients that offer them go on in HTTP/1.1.
    let is_offer = [b"h2c".as_slice(), b"h2", b"http/", b"tls/"]
        .iter()
        .any(|name| protocol.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
    let facts = &mut slots.request;
    let may = strictness.allow_upgrade
        && facts.options.upgrade
        && facts.version == Version::Http11
        && matches!(facts.framing, Framing::None | Framing::Length(0))
        && !is_offer
        && is_protocol(protocol)
        && (!is_websocket || facts.method == Method::Get);
    if !may {
        slots.request.upgrade_protocol = Span::default();
        return !is_offer;
    }
    if is_websocket && !is_websocket_request(slots, buf) {
        slots.request.upgrade_protocol = Span::default();
        return true;
    }
    slots.request.upgrade = if is_websocket { Upgrade::WebSocket } else { Upgrade::Other };
    false
}

/// `protocol-name` with or without `/version`, and one only: RFC 9110 §7.8.
fn is_protocol(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'/').count() <= 2 && text.split(|byte| *byte == b'/').all(scan::is_token)
}

/// Version and key as RFC 6455 §4.1 wants them, each once.
fn is_websocket_request(slots: &Slots, buf: &[u8]) -> bool {
    let once = |known: Known| {
        let mut values = slots.iter(buf).filter(|field| field.known == known).map(|field| field.value);
        values.next().filter(|_| values.next().is_none())
    };
    once(Known::SecWebsocketVersion) == Some(b"13") && once(Known::SecWebsocketKey).is_some_and(is_key)
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key[..22].iter().all(is_digit) && key.ends_with(b"==")
}
