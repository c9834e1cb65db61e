//! `Forwarded`, RFC 7239: read as far as the client's address needs, and written.

use std::net::IpAddr;

use super::{Sender, address, push, push_address};

/// Pairs and elements that are read: more are no honest ones.
const MAX_PAIRS: usize = 256;

/// The address of each element's `for`, in order; `None` where it is none. `None` as a whole: it cannot be read.
pub(super) fn clients<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut pairs = 0;
    for value in values {
        let mut rest = value;
        loop {
            let mut hop = None;
            loop {
                rest = skip_space(rest);
                let name = rest.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(rest.len());
                let (name, after) = rest.split_at(name);
                rest = after;
                pairs += 1;
                if pairs > MAX_PAIRS {
                    return None;
                }
                if !name.is_empty() {
                    let (text, after) = pair_value(after.strip_prefix(b"=")?)?;
                    if name.eq_ignore_ascii_case(b"for") {
                        hop = address(text);
                    }
                    rest = skip_space(after);
                }
                let Some(after) = rest.strip_prefix(b";") else { break };
                rest = after;
            }
            hops.push(hop);
            match rest {
                [] => break,
                [b',', after @ ..] => rest = after,
                _ => return None,
            }
        }
    }
    Some(hops)
}

/// A token or a quoted string, and what follows. Escapes in quotes are of no use to an address: refused.
fn pair_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        return (!quoted[..end].contains(&b'\\')).then_some((&quoted[..end], &quoted[end + 1..]));
    }
    // Unquoted colons and brackets are not allowed; they are written nevertheless.
    let is_value = |byte: u8| is_token_byte(byte) || matches!(byte, b':' | b'[' | b']');
    let end = text.iter().position(|byte| !is_value(*byte)).unwrap_or(text.len());
    (end > 0).then_some(text.split_at(end))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn skip_space(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

/// Appends our element.
pub(super) fn push_element(out: &mut Vec<u8>, sender: &Sender<'_>) {
    let is_v6 = sender.peer.to_canonical().is_ipv6();
    out.extend_from_slice(if is_v6 { b"for=\"[" } else { b"for=" });
    push_address(out, sender.peer);
    out.extend_from_slice(if is_v6 { b"]\"" } else { b"" });
    if !sender.authority.is_empty() {
        // Quoted always: a port or brackets are no token. An authority has neither quotes nor backslashes.
        push(out, &[b";host=\"", sender.authority.as_bytes(), b"\""]);
    }
    out.extend_from_slice(if sender.tls { b";proto=https" } else { b";proto=http" });
}
