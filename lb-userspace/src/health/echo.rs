//! ICMP echo messages of both families as bytes: requests built, answers recognised. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What makes an answer believable: unknown to whoever did not see the request.
pub(super) type Token = [u8; 16];

/// Length of a request.
pub(super) const REQUEST: usize = 8 + size_of::<Token>();

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const UNREACHABLE6: u8 = 1;
const ECHO_REQUEST6: u8 = 128;
const ECHO_REPLY6: u8 = 129;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const IPV6_HEADER: usize = 40;

/// An answer to a request of ours, or what claims to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of the request.
    pub(super) identifier: u16,
    /// Of the request.
    pub(super) sequence: u16,
    /// Of the request.
    pub(super) token: Token,
    /// Where the request went, when a router quotes it; an echo reply comes from there.
    pub(super) quoted: Option<IpAddr>,
    /// Why it could not go there; `None`: an echo reply.
    pub(super) unreachable: Option<&'static str>,
}

/// An echo request for IPv4 (RFC 792) or IPv6 (RFC 4443 §4.1), whose checksum the kernel fills in.
pub(super) fn request(is_ipv6: bool, identifier: u16, sequence: u16, token: Token) -> [u8; REQUEST] {
    let mut message = [0; REQUEST];
    message[0] = if is_ipv6 { ECHO_REQUEST6 } else { ECHO_REQUEST };
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..].copy_from_slice(&token);
    if !is_ipv6 {
        let checksum = checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// Reads what a raw IPv4 socket receives: a packet with its IP header.
pub(super) fn answer4(packet: &[u8]) -> Option<Answer> {
    let message = payload4(packet)?;
    match *message.first()? {
        ECHO_REPLY => echo(message, ECHO_REPLY, None, None),
        UNREACHABLE => {
            let quoted = message.get(8..)?;
            let destination: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
            let why = unreachable4(*message.get(1)?);
            echo(payload4(quoted)?, ECHO_REQUEST, Some(Ipv4Addr::from(destination).into()), Some(why))
        }
        _ => None,
    }
}

/// Reads what a raw ICMPv6 socket receives: a message without its IP header.
pub(super) fn answer6(message: &[u8]) -> Option<Answer> {
    match *message.first()? {
        ECHO_REPLY6 => echo(message, ECHO_REPLY6, None, None),
        UNREACHABLE6 => {
            let quoted = message.get(8..)?;
            let destination: [u8; 16] = quoted.get(24..40)?.try_into().ok()?;
            let why = unreachable6(*message.get(1)?);
            let is_icmp = *quoted.get(6)? == ICMPV6;
            let inner = quoted.get(IPV6_HEADER..).filter(|_| is_icmp)?;
            echo(inner, ECHO_REQUEST6, Some(Ipv6Addr::from(destination).into()), Some(why))
        }
        _ => None,
    }
}

fn payload4(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    if *packet.get(9)? != ICMP || header < 20 {
        return None;
    }
    packet.get(header..)
}

fn echo(message: &[u8], kind: u8, quoted: Option<IpAddr>, unreachable: Option<&'static str>) -> Option<Answer> {
    if *message.first()? != kind || *message.get(1)? != 0 {
        return None;
    }
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let token = message.get(8..REQUEST)?.try_into().ok()?;
    Some(Answer { identifier: word(4)?, sequence: word(6)?, token, quoted, unreachable })
}

/// RFC 792, RFC 1122 §3.2.2.1 and RFC 1812 §5.2.7.1.
fn unreachable4(code: u8) -> &'static str {
    match code {
        0 | 6 | 11 => "network unreachable",
        1 | 7 | 12 => "no route to host",
        9 | 10 | 13 => "administratively prohibited",
        _ => "destination unreachable",
    }
}

/// RFC 4443 §3.1.
fn unreachable6(code: u8) -> &'static str {
    match code {
        0 => "network unreachable",
        1 | 5 | 6 => "administratively prohibited",
        3 => "no route to host",
        _ => "destination unreachable",
    }
}

/// RFC 1071, over an even number of bytes.
fn checksum(message: &[u8; REQUEST]) -> u16 {
    let sum: u32 = message.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    // Twelve words: one fold leaves at most one carry.
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests;
