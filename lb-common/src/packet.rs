//! The one parser of packets, generic over where the bytes are: the XDP programs run it over a frame, host tests and
//! fuzz targets over a slice. It states facts and problems; what to do about them is decided elsewhere.
//!
//! The fast path in `lb-ebpf/src/pipeline.rs` reads the common header itself and comes here for everything else.

use crate::{
    flow::{FAMILY_V4, FAMILY_V6, FlowKey},
    maps::MAX_EXTENSION_HEADERS,
    reason::Reason,
};

/// Bytes whose presence was checked. Offsets count from the start of the view; numbers are in memory order.
pub trait View: Copy {
    /// The byte at `at`.
    fn u8(self, at: usize) -> u8;
    /// Two bytes, as loaded from memory.
    fn u16(self, at: usize) -> u16;
    /// Four bytes, as loaded from memory.
    fn u32(self, at: usize) -> u32;

    /// Two bytes in network order, as a number.
    #[inline(always)]
    fn be16(self, at: usize) -> u16 {
        u16::from_be(self.u16(at))
    }

    /// Four bytes, in the order of the wire.
    #[inline(always)]
    fn bytes4(self, at: usize) -> [u8; 4] {
        self.u32(at).to_ne_bytes()
    }

    /// An IPv6 address, in the order of the wire.
    #[inline(always)]
    fn bytes16(self, at: usize) -> [u8; 16] {
        let [a, b, c, d] = self.bytes4(at);
        let [e, f, g, h] = self.bytes4(at + 4);
        let [i, j, k, l] = self.bytes4(at + 8);
        let [m, n, o, p] = self.bytes4(at + 12);
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

/// A frame, from its destination MAC address on.
pub trait Frame: Copy {
    /// What a checked part of it is.
    type View: View;
    /// `LEN` bytes from `offset`, or `None` when the frame (its first buffer) ends before.
    fn view<const LEN: usize>(self, offset: usize) -> Option<Self::View>;
    /// Bytes of the whole frame.
    fn len(self) -> usize;
    /// Whether the IPv4 header at `l3`, of `header` bytes, has a source route: a walk by [`next_option`].
    fn is_source_routed(self, l3: usize, header: usize) -> bool {
        has_source_route(self, l3, header)
    }
    /// Never true: frames without a byte do not exist.
    fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// EtherTypes, as numbers.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad (service) tag.
    pub const QINQ: u16 = 0x88a8;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bytes of the Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of the IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of the IPv6 header.
pub const IPV6: usize = 40;
/// Bytes of the TCP header without options.
pub const TCP: usize = 20;
/// Bytes of the UDP header.
pub const UDP: usize = 8;

/// EtherType of what is behind up to two VLAN tags, whichever they are, and where it begins. `None`: the frame ends before it.
#[inline(always)]
#[must_use]
pub fn network_layer<F: Frame>(frame: F) -> Option<(u16, usize)> {
    let mut l3 = ETHERNET;
    let mut kind = frame.view::<ETHERNET>(0)?.be16(12);
    if kind == ethertype::VLAN || kind == ethertype::QINQ {
        kind = frame.view::<4>(l3)?.be16(2);
        l3 += 4;
        if kind == ethertype::VLAN || kind == ethertype::QINQ {
            kind = frame.view::<4>(l3)?.be16(2);
            l3 += 4;
        }
    }
    Some((kind, l3))
}

/// Which part of a datagram a packet holds.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// All of it; also an IPv6 atomic fragment (RFC 6946).
    #[default]
    Whole,
    /// The first part: has the transport header.
    First,
    /// Any other part: has no ports.
    Later,
}

/// What the parser found. Where it stopped at a problem, later fields are zero; the addresses are always there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, protocol and, except in later fragments and ICMP, ports.
    pub key: FlowKey,
    /// Offset of the IP header in the frame.
    pub l3: u16,
    /// Offset of the transport header in the frame.
    pub l4: u16,
    /// Offset in the frame where the IP packet ends: what follows is padding. A packet of 65,535 bytes ends beyond 16 bits.
    pub end: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags (`conntrack::tcp_flag`).
    pub tcp_flags: u8,
    /// Part of a datagram.
    pub fragment: Fragment,
    /// Zero.
    pub padding: u8,
    /// Identification of a fragment (16 bits in IPv4).
    pub fragment_id: u32,
}

/// Parses the IP packet at `l3`, filling `packet`. A problem is only that of a packet to us: for others it is ignored.
///
/// # Errors
/// The first problem found; [`Reason::NotVirtual`] when not even the addresses are there.
#[inline(always)]
pub fn parse<F: Frame>(frame: F, l3: usize, family: u8, packet: &mut Packet) -> Result<(), Reason> {
    packet.l3 = l3 as u16;
    if family == FAMILY_V4 { parse4(frame, l3, packet) } else { parse6(frame, l3, packet) }
}

/// RFC 791 §3.1.
#[inline(always)]
fn parse4<F: Frame>(frame: F, l3: usize, packet: &mut Packet) -> Result<(), Reason> {
    let Some(ip) = frame.view::<IPV4>(l3) else { return Err(Reason::NotVirtual) };
    let protocol = ip.u8(9);
    packet.key = FlowKey::v4(ip.bytes4(12), ip.bytes4(16), 0, 0, protocol);
    packet.ttl = ip.u8(8);
    let header = usize::from(ip.u8(0) & 15) * 4;
    if ip.u8(0) >> 4 != 4 || header < IPV4 || l3 + header > frame.len() {
        return Err(Reason::BadIpHeader);
    }
    let total = usize::from(ip.be16(2));
    if total < header || l3 + total > frame.len() {
        return Err(Reason::BadIpLength);
    }
    packet.end = (l3 + total) as u32;
    packet.l4 = (l3 + header) as u16;
    if header > IPV4 && frame.is_source_routed(l3, header) {
        return Err(Reason::SourceRouted);
    }
    // Bit 15 is reserved, 14 is DF, 13 is MF: DF is no fragment.
    let fragment = ip.be16(6) & 0x3fff;
    if fragment != 0 {
        packet.fragment_id = u32::from(ip.be16(4));
        packet.fragment = if fragment & 0x1fff == 0 { Fragment::First } else { Fragment::Later };
    }
    parse_transport(frame, protocol, packet)
}

/// Most options that an IPv4 header can hold: forty bytes, each of at least one.
pub const MAX_OPTIONS: u32 = 40;

/// Loose and strict source route, RFC 791 §3.1 options 131 and 137.
fn has_source_route<F: Frame>(frame: F, l3: usize, header: usize) -> bool {
    let mut at = IPV4;
    (0..MAX_OPTIONS).find_map(|_| next_option(frame, l3, header, &mut at)).unwrap_or(false)
}

/// Looks at the option at `at` and steps over it. `Some`: the walk is over, and whether there was a source route.
#[inline(always)]
pub fn next_option<F: Frame>(frame: F, l3: usize, header: usize, at: &mut usize) -> Option<bool> {
    // An option in the last byte is padding, or nothing.
    if *at + 1 >= header {
        return Some(false);
    }
    let Some(option) = frame.view::<2>(l3 + (*at & 63)) else { return Some(true) };
    match option.u8(0) {
        0 => return Some(false),
        1 => *at += 1,
        131 | 137 => return Some(true),
        // A length beyond the header ends the walk.
        _ => *at = (*at + usize::from(option.u8(1)).max(2)).min(header),
    }
    None
}

/// RFC 8200 §3 and §4.
#[inline(always)]
fn parse6<F: Frame>(frame: F, l3: usize, packet: &mut Packet) -> Result<(), Reason> {
    let Some(ip) = frame.view::<IPV6>(l3) else { return Err(Reason::NotVirtual) };
    packet.key = FlowKey::v6(ip.bytes16(8), ip.bytes16(24), 0, 0, ip.u8(6));
    packet.ttl = ip.u8(7);
    if ip.u8(0) >> 4 != 6 {
        return Err(Reason::BadIpHeader);
    }
    let end = l3 + IPV6 + usize::from(ip.be16(4));
    if end > frame.len() {
        return Err(Reason::BadIpLength);
    }
    packet.end = end as u32;
    let protocol = skip_extensions(frame, l3, ip.u8(6), packet)?;
    packet.key.set_protocol(protocol);
    parse_transport(frame, protocol, packet)
}

/// How far into a frame a transport header may stand behind extension headers. The XDP programs mask offsets to 12 bits,
/// also those of a packet that is quoted further on.
const MAX_TRANSPORT_OFFSET: usize = 2048;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Walks the extension headers, sets `l4` and the fragment facts, returns the transport protocol.
#[inline(always)]
fn skip_extensions<F: Frame>(frame: F, l3: usize, first: u8, packet: &mut Packet) -> Result<u8, Reason> {
    let mut next = first;
    let mut at = l3 + IPV6;
    let mut count = 0;
    while count <= MAX_EXTENSION_HEADERS {
        packet.l4 = at as u16;
        let length = match next {
            HOP_BY_HOP | DESTINATION_OPTIONS | FRAGMENT | AUTHENTICATION => {
                let Some(header) = frame.view::<8>(at) else { return Err(Reason::BadExtensionChain) };
                let length = match next {
                    FRAGMENT => {
                        let offset = header.be16(2);
                        // An offset of 0 without "more" is an atomic fragment: a whole packet (RFC 6946).
                        if offset & 0xfff9 != 0 {
                            packet.fragment_id = header.u32(4).to_be();
                            packet.fragment = if offset & 0xfff8 == 0 { Fragment::First } else { Fragment::Later };
                        }
                        8
                    }
                    AUTHENTICATION => (usize::from(header.u8(1)) + 2) * 4,
                    _ => (usize::from(header.u8(1)) + 1) * 8,
                };
                next = header.u8(0);
                length
            }
            ROUTING => return Err(Reason::SourceRouted),
            _ => return Ok(next),
        };
        at += length;
        if at > (packet.end as usize) || at > MAX_TRANSPORT_OFFSET {
            return Err(Reason::BadExtensionChain);
        }
        packet.l4 = at as u16;
        if matches!(packet.fragment, Fragment::Later) {
            return Ok(next);
        }
        count += 1;
    }
    Err(Reason::BadExtensionChain)
}

#[inline(always)]
fn parse_transport<F: Frame>(frame: F, protocol: u8, packet: &mut Packet) -> Result<(), Reason> {
    if matches!(packet.fragment, Fragment::Later) {
        return Ok(());
    }
    match protocol {
        self::protocol::TCP => parse_tcp(frame, packet),
        self::protocol::UDP => parse_udp(frame, packet),
        _ => Ok(()),
    }
}

/// Says to the BPF verifier what [`MAX_TRANSPORT_OFFSET`] has already seen to.
const OFFSET_MASK: usize = 0xfff;

/// RFC 9293 §3.1.
#[inline(always)]
fn parse_tcp<F: Frame>(frame: F, packet: &mut Packet) -> Result<(), Reason> {
    let l4 = usize::from(packet.l4) & OFFSET_MASK;
    let room = packet.end as usize - l4.min(packet.end as usize);
    let short = if matches!(packet.fragment, Fragment::First) { Reason::TinyFragment } else { Reason::BadTcpHeader };
    if room < TCP {
        return Err(short);
    }
    let Some(tcp) = frame.view::<TCP>(l4) else { return Err(short) };
    set_ports(packet, tcp);
    packet.tcp_flags = tcp.u8(13);
    let header = usize::from(tcp.u8(12) >> 4) * 4;
    if header < TCP || header > room || is_contradictory(packet.tcp_flags) {
        return Err(Reason::BadTcpHeader);
    }
    Ok(())
}

/// SYN together with FIN or RST: no implementation sends it, scanners do.
#[inline(always)]
pub fn is_contradictory(flags: u8) -> bool {
    use crate::conntrack::tcp_flag::{FIN, RST, SYN};
    flags & SYN != 0 && flags & (FIN | RST) != 0
}

/// RFC 768. A first fragment's UDP length is that of the whole datagram.
#[inline(always)]
fn parse_udp<F: Frame>(frame: F, packet: &mut Packet) -> Result<(), Reason> {
    let l4 = usize::from(packet.l4) & OFFSET_MASK;
    let room = packet.end as usize - l4.min(packet.end as usize);
    let first = matches!(packet.fragment, Fragment::First);
    let short = if first { Reason::TinyFragment } else { Reason::BadUdpHeader };
    if room < UDP {
        return Err(short);
    }
    let Some(udp) = frame.view::<UDP>(l4) else { return Err(short) };
    set_ports(packet, udp);
    let length = usize::from(udp.be16(4));
    if length < UDP || (length > room && !first) {
        return Err(Reason::BadUdpHeader);
    }
    if packet.key.family() == FAMILY_V6 && udp.u16(6) == 0 {
        return Err(Reason::UdpWithoutChecksum);
    }
    Ok(())
}

#[inline(always)]
fn set_ports<V: View>(packet: &mut Packet, l4: V) {
    packet.key.set_ports_ne(l4.u32(0));
}

/// Whether an address may be the source of a packet to a VIP (RFC 1122 §3.2.1.3, RFC 4291 §2.5–2.7): not unspecified,
/// loopback, multicast or broadcast.
#[inline(always)]
pub fn is_valid_source(family: u8, address: [u8; 16]) -> bool {
    if family == FAMILY_V4 {
        let [first, ..] = address;
        return first != 0 && first != 127 && first < 224;
    }
    if address[0] == 0xff {
        return false;
    }
    let words = u128::from_be_bytes(address);
    words > 1
}

/// A slice as a frame: for tests, fuzzing and the daemon.
#[derive(Clone, Copy, Debug)]
pub struct SliceFrame<'a>(pub &'a [u8]);

impl<'a> Frame for SliceFrame<'a> {
    type View = SliceView<'a>;

    fn view<const LEN: usize>(self, offset: usize) -> Option<SliceView<'a>> {
        self.0.get(offset..offset.checked_add(LEN)?).map(SliceView)
    }

    fn len(self) -> usize {
        self.0.len()
    }
}

/// A part of a [`SliceFrame`].
#[derive(Clone, Copy, Debug)]
pub struct SliceView<'a>(&'a [u8]);

impl View for SliceView<'_> {
    fn u8(self, at: usize) -> u8 {
        self.0[at]
    }

    fn u16(self, at: usize) -> u16 {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    const TCP4: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
        0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 203, 0, 113, 7, 198, 51, 100, 1, // IPv4
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0, // TCP
    ];

    /// Extension headers in front of UDP, between IPv6 header and transport.
    fn udp6(extensions: &[u8], first: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0];
        frame.extend([extensions.len() as u8 + 8, first, 64]);
        frame.extend([0x20; 16]);
        frame.extend([0x21; 16]);
        frame.extend(extensions);
        frame.extend([0x9c, 0x40, 0, 53, 0, 8, 0x12, 0x34]);
        frame
    }

    /// Plain, with options, fragmented, with extension headers of each kind.
    fn packets() -> Vec<(u8, Vec<u8>)> {
        let mut with_options = TCP4.to_vec();
        with_options.splice(34..34, [1, 68, 4, 0, 7, 3, 4, 0]);
        (with_options[14], with_options[17]) = (0x47, 48);
        let mut first = TCP4.to_vec();
        first[20] = 0x20;
        let mut later = TCP4.to_vec();
        later[21] = 9;
        vec![
            (FAMILY_V4, TCP4.to_vec()),
            (FAMILY_V4, with_options),
            (FAMILY_V4, first),
            (FAMILY_V4, later),
            (FAMILY_V6, udp6(&[], 17)),
            (FAMILY_V6, udp6(&[60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0], 0)),
            (FAMILY_V6, udp6(&[17, 0, 0, 1, 0, 0, 0, 7], 44)),
            (FAMILY_V6, udp6(&[17, 0, 0, 8, 0, 0, 0, 7], 44)),
            (FAMILY_V6, udp6(&[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 51)),
            (FAMILY_V6, udp6(&[17, 0, 0, 0, 0, 0, 0, 0], 43)),
        ]
    }

    #[test]
    fn whole_packets_are_understood() {
        for (i, (family, frame)) in packets().into_iter().enumerate() {
            let mut packet = Packet::default();
            let result = parse(SliceFrame(&frame), ETHERNET, family, &mut packet);
            assert_eq!(result, if i == 9 { Err(Reason::SourceRouted) } else { Ok(()) }, "packet {i}");
            assert_eq!((packet.end as usize), frame.len(), "packet {i}");
            let has_ports = packet.fragment != Fragment::Later && i != 9;
            assert_eq!(packet.key.source_port(), if has_ports { 40_000 } else { 0 }, "packet {i}");
        }
    }

    #[test]
    fn packets_cut_at_any_byte_or_with_any_byte_changed_are_no_trouble() {
        for (i, (family, whole)) in packets().into_iter().enumerate() {
            for length in 0..whole.len() {
                let mut packet = Packet::default();
                let cut = &whole[..length];
                assert!(parse(SliceFrame(cut), ETHERNET, family, &mut packet).is_err(), "packet {i} cut to {length}");
            }
            for at in ETHERNET..whole.len() {
                for value in 0..=255 {
                    let mut frame = whole.clone();
                    frame[at] = value;
                    let mut packet = Packet::default();
                    if parse(SliceFrame(&frame), ETHERNET, family, &mut packet) == Ok(()) {
                        assert!(
                            u32::from(packet.l4) <= packet.end && (packet.end as usize) <= frame.len(),
                            "packet {i} byte {at}"
                        );
                    }
                }
            }
        }
    }
}
