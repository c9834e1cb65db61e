//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): addresses of the client before its first byte.
//!
//! Pure. Read where a listener is set so and the peer is trusted; else not looked for. Written to nodes that want it. Own
//! code, not `ppp`: that takes ports with a sign, does not check the CRC, and builds headers by several allocations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod tlv;
mod write;

pub use tlv::{Tls, Tlv, Tlvs};
pub use write::{Facts, write_v1, write_v2};

/// Longest header of version 1, with its CR LF.
pub const MAX_V1: usize = 107;
/// Most bytes after the fixed part of version 2: addresses and TLVs.
pub const MAX_V2: usize = 536;

/// What every header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the fixed part of version 2.
const FIXED: usize = 16;

/// Why a header is refused. The connection is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProxy {
    /// There is none.
    #[error("no PROXY header")]
    Absent,
    /// A line of version 1 that is not one.
    #[error("bad PROXY line")]
    Line,
    /// An unknown version, command or address family.
    #[error("unknown PROXY version, command or address family")]
    Unsupported,
    /// The length does not fit the addresses, or is above [`MAX_V2`].
    #[error("bad PROXY length")]
    Length,
    /// A TLV that ends after the header.
    #[error("bad PROXY TLV")]
    Tlv,
    /// The checksum is wrong.
    #[error("bad PROXY checksum")]
    Checksum,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Client and the address that it connected to; `None`: the connection is the sender's own (`LOCAL`), or its addresses
    /// are `UNKNOWN`; then those of the connection count.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What else is told; empty for version 1.
    pub tlvs: Tlvs<'a>,
    /// Bytes of the header: what the client sent begins after.
    pub length: usize,
}

/// Reads the header at the beginning of `buf`; `None`: it is not complete. A header has at most `16 + MAX_V2` bytes, and
/// this looks at no more.
///
/// # Errors
///
/// [`BadProxy`] as soon as it is certain.
pub fn parse(buf: &[u8]) -> Result<Option<Header<'_>>, BadProxy> {
    match buf.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(buf),
        Some(_) => parse_v2(buf),
    }
}

fn parse_v1(buf: &[u8]) -> Result<Option<Header<'_>>, BadProxy> {
    const NAME: &[u8] = b"PROXY ";
    let known = buf.len().min(NAME.len());
    if buf[..known] != NAME[..known] {
        return Err(BadProxy::Absent);
    }
    let head = &buf[..buf.len().min(MAX_V1)];
    let Some(end) = head.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0 | 0x80..)) else {
        return if buf.len() < MAX_V1 { Ok(None) } else { Err(BadProxy::Line) };
    };
    match head.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if head[end] == b'\r' && buf.len() < MAX_V1 => return Ok(None),
        _ => return Err(BadProxy::Line),
    }
    let line = str::from_utf8(&head[NAME.len()..end]).map_err(|_| BadProxy::Line)?;
    let length = end + 2;
    // What follows UNKNOWN is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some(Header { addresses: None, tlvs: Tlvs::default(), length }));
    }
    let addresses = line_addresses(line).ok_or(BadProxy::Line)?;
    Ok(Some(Header { addresses: Some(addresses), tlvs: Tlvs::default(), length }))
}

/// `TCP4 SOURCE DESTINATION PORT PORT`, one space between.
fn line_addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let ip = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse().ok().map(Ipv4Addr::into),
            "TCP6" => word.parse().ok().map(Ipv6Addr::into),
            _ => None,
        }
    };
    let port = |word: &str| -> Option<u16> {
        let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        is_plain.then(|| word.parse().ok()).flatten()
    };
    let (source, destination) = (ip(words.next()?)?, ip(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let addresses = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
    words.next().is_none().then_some(addresses)
}

fn parse_v2(buf: &[u8]) -> Result<Option<Header<'_>>, BadProxy> {
    let known = buf.len().min(SIGNATURE.len());
    if buf[..known] != SIGNATURE[..known] {
        return Err(BadProxy::Absent);
    }
    let Some(command) = buf.get(12) else { return Ok(None) };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(BadProxy::Unsupported),
    };
    let Some(family) = buf.get(13) else { return Ok(None) };
    let address_length = match family {
        0x11 => 12,
        0x21 => 36,
        // UNSPEC, or anything with LOCAL: the addresses are to be ignored.
        _ if *family == 0 || is_local => 0,
        _ => return Err(BadProxy::Unsupported),
    };
    let Some(&[high, low]) = buf.get(14..FIXED) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 || length < address_length && !is_local {
        return Err(BadProxy::Length);
    }
    let Some(header) = buf.get(..FIXED + length) else { return Ok(None) };
    let payload = &header[FIXED..];
    if is_local || address_length == 0 {
        // Where the addresses of an ignored family end is not known: TLVs cannot be told from them.
        return Ok(Some(Header { addresses: None, tlvs: Tlvs::default(), length: header.len() }));
    }
    let (addresses, rest) = payload.split_at(address_length);
    let tlvs = Tlvs::parse(rest)?;
    tlvs.check(header, FIXED + address_length)?;
    Ok(Some(Header { addresses: binary_addresses(addresses), tlvs, length: header.len() }))
}

/// Source, destination, their ports: of 12 bytes for IPv4, of 36 for IPv6.
fn binary_addresses(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (ips, ports) = bytes.split_last_chunk::<4>()?;
    let (source, destination) = ips.split_at(ips.len() / 2);
    let ip = |bytes: &[u8]| -> Option<IpAddr> {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    let [a, b, c, d] = *ports;
    let source = SocketAddr::new(ip(source)?, u16::from_be_bytes([a, b]));
    Some((source, SocketAddr::new(ip(destination)?, u16::from_be_bytes([c, d]))))
}

#[cfg(test)]
mod tests;
