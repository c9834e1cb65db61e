//! The questions that probes ask on the wire, and how their answers are read. Pure: bytes in, bytes out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    conntrack::tcp_flag::{RST, SYN},
    flow::{FAMILY_V4, FAMILY_V6},
    packet::{ETHERNET, Packet, SliceFrame, ethertype, parse, protocol},
};

use crate::dataplane::trace::packet::{Draft, Transport, pseudo_checksum};

/// A hardware address.
pub(super) type Mac = [u8; 6];

const ARP: u16 = 0x0806;
const BROADCAST: Mac = [0xff; 6];
/// The shortest Ethernet frame, without its check sequence.
const MINIMUM_FRAME: usize = 60;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// A neighbour advertisement without options.
const ADVERTISEMENT_BYTES: usize = 24;
/// Our SYN's sequence number: any will do, the connection never lives.
const SEQUENCE: u32 = 0x6c62_0000;

/// Asks everybody on the link who has `target`, as a machine with address `source` of the same family would.
/// `None`: the families differ.
pub(super) fn who_has(mac: Mac, source: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Some(arp_request(mac, source, target)),
        (IpAddr::V6(source), IpAddr::V6(target)) => Some(solicitation(mac, source, target)),
        _ => None,
    }
}

/// RFC 826.
fn arp_request(mac: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MINIMUM_FRAME);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend(ARP.to_be_bytes());
    frame.extend([0, 1, 0x08, 0x00, 6, 4]); // Ethernet, IPv4, their address lengths
    frame.extend([0, 1]); // request
    frame.extend(mac);
    frame.extend(source.octets());
    frame.extend([0; 6]); // target hardware address: what is asked for
    frame.extend(target.octets());
    frame.resize(MINIMUM_FRAME, 0);
    frame
}

/// RFC 4861 §4.3, to the target's solicited-node multicast address (RFC 4291 §2.7.1, RFC 2464 §7).
fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0]; // type, code, checksum, reserved
    message.extend(target.octets());
    message.extend([1, 1]); // source link-layer address, one unit of 8 bytes
    message.extend(mac);
    let checksum = pseudo_checksum(source.into(), group.into(), protocol::ICMPV6, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0xff, a, b, c];
    frame.extend(mac);
    frame.extend(ethertype::IPV6.to_be_bytes());
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, protocol::ICMPV6, 255]); // hop limit 255: has crossed no router
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// The two ends of a probe's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Our MAC address.
    pub(super) mac: Mac,
    /// The node's.
    pub(super) node: Mac,
    /// Our address and the port that is held for the probe.
    pub(super) source: SocketAddr,
    /// The VIP and its port.
    pub(super) destination: SocketAddr,
}

/// Knocks at the VIP on one node.
pub(super) fn syn(ends: &Ends) -> Vec<u8> {
    segment(ends, SYN, SEQUENCE)
}

/// Takes it back after a SYN-ACK, so that the node keeps no half-open connection (RFC 9293 §3.10.7.4: accepted, as its
/// sequence number is the one that the node expects next).
pub(super) fn reset(ends: &Ends) -> Vec<u8> {
    segment(ends, RST, SEQUENCE + 1)
}

fn segment(ends: &Ends, flags: u8, sequence: u32) -> Vec<u8> {
    let mut frame = Draft {
        source_mac: ends.mac,
        destination_mac: ends.node,
        source: ends.source,
        destination: ends.destination,
        transport: Transport::Tcp { flags, sequence, acknowledgment: 0 },
    }
    .frame();
    frame.resize(frame.len().max(MINIMUM_FRAME), 0);
    frame
}

/// What a frame says that may answer a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Somebody says that it has an address.
    Owner {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        mac: Mac,
    },
    /// A TCP segment.
    Segment {
        /// From.
        source: SocketAddr,
        /// To.
        destination: SocketAddr,
        /// `conntrack::tcp_flag`.
        flags: u8,
    },
}

/// Reads a frame. `None`: it answers nothing.
pub(super) fn read(frame: &[u8]) -> Option<Answer> {
    match u16::from_be_bytes(frame.get(12..ETHERNET)?.try_into().ok()?) {
        ARP => read_arp(frame.get(ETHERNET..)?),
        ethertype::IPV4 => read_ip(frame, FAMILY_V4),
        ethertype::IPV6 => read_ip(frame, FAMILY_V6),
        _ => None,
    }
}

fn read_arp(message: &[u8]) -> Option<Answer> {
    let is_reply = message.get(..8)? == [0, 1, 0x08, 0x00, 6, 4, 0, 2];
    let (mac, address) = (message.get(8..14)?, message.get(14..18)?);
    // The whole message must be there, also the target that is of no interest.
    let complete = is_reply && message.len() >= 28;
    complete.then_some(Answer::Owner {
        address: IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        mac: mac.try_into().ok()?,
    })
}

fn read_ip(frame: &[u8], family: u8) -> Option<Answer> {
    let mut packet = Packet::default();
    parse(SliceFrame(frame), ETHERNET, family, &mut packet).ok()?;
    let key = packet.key;
    match key.protocol() {
        protocol::TCP => Some(Answer::Segment {
            source: SocketAddr::new(address(key.source(), family), key.source_port()),
            destination: SocketAddr::new(address(key.destination(), family), key.destination_port()),
            flags: packet.tcp_flags,
        }),
        protocol::ICMPV6 => read_advertisement(frame, packet.l4.into(), packet.end as usize),
        _ => None,
    }
}

/// RFC 4861 §4.4. Without the link-layer option the sender is the owner.
fn read_advertisement(frame: &[u8], start: usize, end: usize) -> Option<Answer> {
    let message = frame.get(start..end)?;
    if message.len() < ADVERTISEMENT_BYTES || message[0] != ADVERTISEMENT {
        return None;
    }
    let target: [u8; 16] = message[8..24].try_into().ok()?;
    let named = match message.get(24..32) {
        Some([2, 1, mac @ ..]) => mac,
        _ => frame.get(6..12)?,
    };
    Some(Answer::Owner { address: IpAddr::from(target), mac: named.try_into().ok()? })
}

fn address(bytes: [u8; 16], family: u8) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if family == FAMILY_V4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(bytes) }
}

#[cfg(test)]
mod tests;
