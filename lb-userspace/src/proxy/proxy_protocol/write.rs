//! Headers to bytes.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use super::{
    FIXED, MAX_V2, SIGNATURE, Tls,
    tlv::{client, kind},
};

/// What a header of version 2 tells besides addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The protocol that ALPN chose with the client.
    pub alpn: Option<&'a [u8]>,
    /// The server name that the client asked for.
    pub authority: Option<&'a str>,
    /// TLS with the client.
    pub tls: Option<Tls<'a>>,
}

/// Appends a header of version 1 for a connection from `source` to `destination`.
pub fn write_v1(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    let (source_ip, destination_ip) = one_family(source, destination);
    let family = if source_ip.is_ipv4() { "TCP4" } else { "TCP6" };
    // Writing to memory cannot fail.
    let _ = write!(out, "PROXY {family} {source_ip} {destination_ip} {} {}\r\n", source.port(), destination.port());
}

/// Appends a header of version 2. Without `addresses` it says that the connection is our own (`LOCAL`), as monitors' are.
///
/// A fact that would make the header longer than receivers must take is left out.
pub fn write_v2(out: &mut Vec<u8>, addresses: Option<(SocketAddr, SocketAddr)>, facts: &Facts<'_>) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    let Some((source, destination)) = addresses else {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return;
    };
    match one_family(source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 0]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        (source, destination) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 0]);
            out.extend_from_slice(&to_v6(source).octets());
            out.extend_from_slice(&to_v6(destination).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    let limit = start + FIXED + MAX_V2;
    if let Some(tls) = &facts.tls {
        push(out, limit, kind::SSL, &tls_value(tls));
    }
    if let Some(alpn) = facts.alpn {
        push(out, limit, kind::ALPN, alpn);
    }
    if let Some(authority) = facts.authority {
        push(out, limit, kind::AUTHORITY, authority.as_bytes());
    }
    let length = (out.len() - start - FIXED) as u16;
    out[start + 14..start + FIXED].copy_from_slice(&length.to_be_bytes());
}

/// Both addresses in one family: IPv4 if both are, mapped ones too.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (IpAddr, IpAddr) {
    let pair = (source.ip().to_canonical(), destination.ip().to_canonical());
    match pair {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => pair,
        (source, destination) => (to_v6(source).into(), to_v6(destination).into()),
    }
}

fn to_v6(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The value of the TLS field: flags, result of the verification, fields.
fn tls_value(tls: &Tls<'_>) -> Vec<u8> {
    // Leaves room for the addresses and what else is told.
    const LIMIT: usize = 256;
    let certificate = if tls.verified { client::CERT_CONN | client::CERT_SESS } else { 0 };
    let mut value = vec![client::SSL | certificate, 0, 0, 0, u8::from(!tls.verified)];
    for (kind, text) in [
        (kind::SSL_VERSION, tls.version),
        (kind::SSL_CIPHER, tls.cipher),
        (kind::SSL_CN, tls.common_name.filter(|_| tls.verified)),
    ] {
        if let Some(text) = text {
            push(&mut value, LIMIT, kind, text.as_bytes());
        }
    }
    value
}

/// Appends a field if it fits below `limit`.
fn push(out: &mut Vec<u8>, limit: usize, kind: u8, value: &[u8]) {
    if out.len() + 3 + value.len() > limit {
        return;
    }
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}
