//! Who the client is, behind proxies in front of us, and what nodes are told about it.
//!
//! Pure. What a client says of itself is taken out unless the connection comes from a trusted proxy; then it is appended
//! to. Works on fields of either HTTP version. Called for every request, before it is written to a node.

use std::{io::Write as _, net::IpAddr};

use super::h1::{Field, Known, KnownSet, write::number};
use crate::control::proxy::{Network, http::Identity};

mod forwarded;

/// Entries of a list of addresses that are looked at: nobody has more proxies in a row.
const MAX_HOPS: usize = 64;

/// What nodes are told besides the fields of the request.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The address of the connection (of the PROXY header, where there is one).
    pub peer: IpAddr,
    /// Whether the client side is TLS.
    pub tls: bool,
    /// Host and port of the request; must be valid.
    pub authority: &'a str,
    /// The version that the request came in: `1.0`, `1.1` or `2`.
    pub version: &'a str,
    /// Random bytes for a `traceparent`: trace, then span.
    pub random: [u8; 24],
}

/// The client's address: the peer's, or behind trusted proxies the rightmost address told that is not a trusted proxy's.
///
/// Of the enabled fields the first counts, in this order: `X-Forwarded-For`, `Forwarded`, `X-Cluster-Client-IP`,
/// `X-Real-IP`; another may come from the client through a proxy that does not know it. Where an entry is no address, the
/// last one told before (nearer to us) is taken.
pub fn client<'a>(
    fields: impl DoubleEndedIterator<Item = Field<'a>> + Clone,
    peer: IpAddr,
    identity: &Identity,
) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, &identity.trusted) {
        return peer;
    }
    let values = |known| fields.clone().filter(move |field| field.known == known).map(|field| field.value);
    if identity.x_forwarded {
        let hops = values(Known::XForwardedFor).rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
        rightmost(hops.map(address), peer, &identity.trusted)
    } else if identity.forwarded {
        let hops = forwarded::clients(values(Known::Forwarded)).unwrap_or_default();
        rightmost(hops.into_iter().rev(), peer, &identity.trusted)
    } else if identity.x_cluster_client_ip {
        values(Known::XClusterClientIp).next_back().and_then(address).unwrap_or(peer)
    } else if identity.x_real_ip {
        values(Known::XRealIp).next_back().and_then(address).unwrap_or(peer)
    } else {
        peer
    }
}

/// Appends to `out` the field lines that tell the node about the client; returns the known fields of the request that must
/// not be copied.
///
/// `client` is what [`client`] returned for it.
pub fn write<'a>(
    out: &mut Vec<u8>,
    fields: impl DoubleEndedIterator<Item = Field<'a>> + Clone,
    sender: &Sender<'_>,
    client: IpAddr,
    identity: &Identity,
) -> KnownSet {
    let is_trusted = is_trusted(sender.peer, &identity.trusted);
    let mut drop = if is_trusted { KnownSet::EMPTY } else { KnownSet::OF_CLIENT };
    let told = |known| fields.clone().filter(move |field| is_trusted && field.known == known).map(|field| field.value);
    if identity.x_forwarded {
        drop.insert(Known::XForwardedFor);
        append(out, b"X-Forwarded-For: ", told(Known::XForwardedFor), |out| push_address(out, sender.peer));
        if told(Known::XForwardedProto).next().is_none() {
            out.extend_from_slice(if sender.tls {
                b"X-Forwarded-Proto: https\r\n"
            } else {
                b"X-Forwarded-Proto: http\r\n"
            });
        }
        if told(Known::XForwardedHost).next().is_none() && !sender.authority.is_empty() {
            push(out, &[b"X-Forwarded-Host: ", sender.authority.as_bytes(), b"\r\n"]);
        }
    }
    for (wanted, known, name) in [
        (identity.x_real_ip, Known::XRealIp, b"X-Real-IP: ".as_slice()),
        (identity.x_cluster_client_ip, Known::XClusterClientIp, b"X-Cluster-Client-IP: "),
    ] {
        if wanted {
            drop.insert(known);
            out.extend_from_slice(name);
            push_address(out, client);
            out.extend_from_slice(b"\r\n");
        }
    }
    if identity.forwarded {
        drop.insert(Known::Forwarded);
        // What cannot be read is not handed on: ours would be read as a part of it.
        let is_readable = forwarded::clients(told(Known::Forwarded)).is_some();
        let before = told(Known::Forwarded).filter(|_| is_readable);
        append(out, b"Forwarded: ", before, |out| forwarded::push_element(out, sender));
    }
    if identity.via {
        via(out, sender.version);
    }
    if identity.traceparent && !has_trace(fields.clone()) {
        drop.insert(Known::Traceparent);
        drop.insert(Known::Tracestate);
        push_trace(out, &sender.random);
    }
    drop
}

/// Appends our `Via`, RFC 9110 §7.6.3; for a message that came in `version`. It stands after those of others.
pub fn via(out: &mut Vec<u8>, version: &str) {
    push(out, &[b"Via: ", version.as_bytes(), b" lb\r\n"]);
}

fn is_trusted(peer: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(peer))
}

/// The first address that is not trusted, of those told from the nearest to the farthest.
fn rightmost(hops: impl Iterator<Item = Option<IpAddr>>, peer: IpAddr, trusted: &[Network]) -> IpAddr {
    let mut last = peer;
    for hop in hops.take(MAX_HOPS) {
        let Some(address) = hop else { return last };
        last = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    last
}

/// An address as proxies write them: with or without port, IPv6 with or without brackets, IPv4-mapped as IPv4.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bare = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']')?;
            (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(inner)?
        }
        None => match text.split_once(':') {
            Some((name, port)) if !port.contains(':') => is_port(port).then_some(name)?,
            _ => text,
        },
    };
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// A port; proxies also write names there (`_x`), which RFC 7239 allows.
fn is_port(text: &str) -> bool {
    text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Appends `name`, the values of `before` and what `own` writes, as one list.
fn append<'a>(out: &mut Vec<u8>, name: &[u8], before: impl Iterator<Item = &'a [u8]>, own: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name);
    for value in before.filter(|value| !value.is_empty()) {
        push(out, &[value, b", "]);
    }
    own(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends an address: IPv4 without the formatting machinery, since it is in every request.
fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        IpAddr::V6(address) => {
            // Writing to memory cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

/// Whether there is exactly one `traceparent`, and a valid one: W3C Trace Context §3.2.
fn has_trace<'a>(fields: impl Iterator<Item = Field<'a>>) -> bool {
    let mut values = fields.filter(|field| field.known == Known::Traceparent).map(|field| field.value);
    match (values.next(), values.next()) {
        (Some(value), None) => is_trace(value),
        _ => false,
    }
}

fn is_trace(value: &[u8]) -> bool {
    let is_hex =
        |part: &[u8], length| part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let mut parts = value.split(|byte| *byte == b'-');
    let [Some(version), Some(trace), Some(span), Some(flags)] = [(); 4].map(|()| parts.next()) else { return false };
    let is_whole = version != b"00" || parts.next().is_none();
    is_whole
        && is_hex(version, 2)
        && version != b"ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(span, 16)
        && !is_zero(span)
        && is_hex(flags, 2)
}

/// Appends a `traceparent` of version 0, not sampled: whether to sample is for whoever collects.
fn push_trace(out: &mut Vec<u8>, random: &[u8; 24]) {
    let hex = |out: &mut Vec<u8>, bytes: &[u8]| {
        for byte in bytes {
            out.extend_from_slice(&[
                b"0123456789abcdef"[usize::from(byte >> 4)],
                b"0123456789abcdef"[usize::from(byte & 15)],
            ]);
        }
    };
    out.extend_from_slice(b"traceparent: 00-");
    // All zeroes are no identifier: the lowest bits are set.
    let mut random = *random;
    random[15] |= 1;
    random[23] |= 1;
    hex(out, &random[..16]);
    out.push(b'-');
    hex(out, &random[16..]);
    out.extend_from_slice(b"-00\r\n");
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests;
