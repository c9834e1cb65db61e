//! What a frame says, by RFC 791, 8200, 9293, 768 and IEEE 802.1Q.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::reason::Reason;

/// A direction of a flow. ICMP and later fragments have ports 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// The other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ports: (self.ports.1, self.ports.0), ..self }
    }
}

/// Which part of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// The first, with the datagram's identification.
    First(u32),
    /// Another one.
    Later(u32),
}

/// A packet with addresses.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Where the IP header begins.
    pub l3: usize,
    /// Where the transport header begins.
    pub l4: usize,
    /// Where the IP packet ends.
    pub end: usize,
    /// Who speaks to whom.
    pub tuple: Tuple,
    /// TCP flags.
    pub flags: u8,
    /// Part of a datagram.
    pub part: Part,
    /// What is wrong with it, if it is for us.
    pub problem: Option<Reason>,
}

/// Reads two bytes in network order.
#[must_use]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Parses a frame. `is_served` says which VLANs count.
///
/// # Errors
/// Why the host gets it at once: no IP, a foreign VLAN, not even addresses.
pub fn parse(frame: &[u8], is_served: impl Fn(u16) -> bool) -> Result<Parsed, Reason> {
    let mut l3 = 14;
    let mut kind = be16(frame, 12);
    for depth in 0.. {
        if kind != 0x8100 && kind != 0x88a8 {
            break;
        }
        if depth == 2 {
            return Err(Reason::VlanNotServed);
        }
        if frame.len() < l3 + 4 {
            return Err(Reason::NotIp);
        }
        let id = be16(frame, l3) & 0xfff;
        if id != 0 && !is_served(id) {
            return Err(Reason::VlanNotServed);
        }
        kind = be16(frame, l3 + 2);
        l3 += 4;
    }
    match kind {
        0x0800 if frame.len() >= l3 + 20 => Ok(parse4(frame, l3)),
        0x86dd if frame.len() >= l3 + 40 => Ok(parse6(frame, l3)),
        0x0800 | 0x86dd => Err(Reason::NotVirtual),
        _ => Err(Reason::NotIp),
    }
}

fn parse4(frame: &[u8], l3: usize) -> Parsed {
    let ip = &frame[l3..];
    let address = |at: usize| IpAddr::from(Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]));
    let tuple = Tuple { source: address(12), destination: address(16), ports: (0, 0), protocol: ip[9] };
    let mut packet = Parsed { l3, l4: 0, end: 0, tuple, flags: 0, part: Part::Whole, problem: None };
    let header = usize::from(ip[0] & 15) * 4;
    let total = usize::from(be16(ip, 2));
    let fragment = be16(ip, 6) & 0x3fff;
    packet.l4 = l3 + header;
    packet.end = l3 + total;
    if fragment != 0 {
        let id = u32::from(be16(ip, 4));
        packet.part = if fragment == 0x2000 { Part::First(id) } else { Part::Later(id) };
    }
    packet.problem = if ip[0] >> 4 != 4 || header < 20 || header > ip.len() {
        Some(Reason::BadIpHeader)
    } else if total < header || total > ip.len() {
        Some(Reason::BadIpLength)
    } else if is_source_routed(&ip[20..header]) {
        Some(Reason::SourceRouted)
    } else {
        transport(frame, &mut packet)
    };
    packet
}

/// Loose or strict source route. A length beyond the header ends the options; what has no room for one is none.
fn is_source_routed(options: &[u8]) -> bool {
    let mut rest = options;
    loop {
        match rest {
            [] | [0, ..] => return false,
            [131 | 137, _, ..] => return true,
            [1, after @ ..] => rest = after,
            [_, length, ..] => rest = rest.get(usize::from(*length).max(2)..).unwrap_or_default(),
            [_] => return false,
        }
    }
}

fn parse6(frame: &[u8], l3: usize) -> Parsed {
    let ip = &frame[l3..];
    let address = |at: usize| {
        let octets = <[u8; 16]>::try_from(&ip[at..at + 16]).expect("sixteen bytes");
        IpAddr::from(Ipv6Addr::from(octets))
    };
    let tuple = Tuple { source: address(8), destination: address(24), ports: (0, 0), protocol: ip[6] };
    let length = usize::from(be16(ip, 4));
    let mut packet =
        Parsed { l3, l4: l3 + 40, end: l3 + 40 + length, tuple, flags: 0, part: Part::Whole, problem: None };
    packet.problem = if ip[0] >> 4 != 6 {
        Some(Reason::BadIpHeader)
    } else if 40 + length > ip.len() {
        Some(Reason::BadIpLength)
    } else {
        match chain(frame, &mut packet) {
            Ok(()) => transport(frame, &mut packet),
            Err(reason) => Some(reason),
        }
    };
    packet
}

/// Follows extension headers, eight at most, to the transport header or to the end of what a later fragment tells.
fn chain(frame: &[u8], packet: &mut Parsed) -> Result<(), Reason> {
    for followed in 0.. {
        let number = packet.tuple.protocol;
        if number == 43 {
            return Err(Reason::SourceRouted);
        }
        if ![0, 44, 51, 60].contains(&number) {
            return Ok(());
        }
        let Some(header) = frame.get(packet.l4..packet.l4 + 8) else { return Err(Reason::BadExtensionChain) };
        let units = usize::from(header[1]);
        let length = match number {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        if number == 44 {
            let (offset, id) = (be16(header, 2), u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
            match (offset >> 3, offset & 1) {
                (0, 0) => {}
                (0, _) => packet.part = Part::First(id),
                _ => packet.part = Part::Later(id),
            }
        }
        packet.l4 += length;
        packet.tuple.protocol = header[0];
        if packet.l4 > packet.end || packet.l4 > 2048 {
            return Err(Reason::BadExtensionChain);
        }
        if matches!(packet.part, Part::Later(_)) {
            return Ok(());
        }
        if followed == 8 {
            return Err(Reason::BadExtensionChain);
        }
    }
    Ok(())
}

fn transport(frame: &[u8], packet: &mut Parsed) -> Option<Reason> {
    if matches!(packet.part, Part::Later(_)) {
        return None;
    }
    let first = matches!(packet.part, Part::First(_));
    let body = frame.get(packet.l4..packet.end).unwrap_or_default();
    match packet.tuple.protocol {
        6 if body.len() < 20 => Some(if first { Reason::TinyFragment } else { Reason::BadTcpHeader }),
        17 if body.len() < 8 => Some(if first { Reason::TinyFragment } else { Reason::BadUdpHeader }),
        6 => {
            packet.tuple.ports = (be16(body, 0), be16(body, 2));
            packet.flags = body[13];
            let header = usize::from(body[12] >> 4) * 4;
            let contradictory = body[13] & 2 != 0 && body[13] & 5 != 0;
            (header < 20 || header > body.len() || contradictory).then_some(Reason::BadTcpHeader)
        }
        17 => {
            packet.tuple.ports = (be16(body, 0), be16(body, 2));
            let length = usize::from(be16(body, 4));
            if length < 8 || (length > body.len() && !first) {
                return Some(Reason::BadUdpHeader);
            }
            let unsummed = packet.tuple.source.is_ipv6() && body[6..8] == [0, 0];
            unsummed.then_some(Reason::UdpWithoutChecksum)
        }
        _ => None,
    }
}
