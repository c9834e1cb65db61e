//! Packets for tests, built field by field: `eth().ipv4(CLIENT, VIP).udp(31337, 80).payload(b"ping")`.
//!
//! Every length and checksum is computed from scratch when the bytes are made ([`sum`] is RFC 1071 by the letter), so a
//! packet with other addresses is what a forwarded packet has to look like. No code under test is used here.

mod build;
pub mod sum;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use build::bytes_of;

/// A MAC address.
pub type Mac = [u8; 6];

/// TCP flags.
pub mod tcp {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledgment.
    pub const ACK: u8 = 0x10;
}

/// What stands in a checksum field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sum {
    /// The right one.
    #[default]
    Right,
    /// Wrong by this much, in ones' complement.
    Off(u16),
    /// Zero: "none" in UDP.
    Zero,
}

/// The IP header.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) ttl: u8,
    pub(crate) class: u8,
    pub(crate) id: u32,
    pub(crate) dont_fragment: bool,
    pub(crate) options: Vec<u8>,
    pub(crate) protocol: Option<u8>,
    /// IPv6: header number and its bytes, whose first one ("next header") is filled in.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// Only this part of the payload, as a fragment.
    pub(crate) part: Option<(usize, usize)>,
}

/// The transport header.
#[derive(Clone, Debug, Default)]
pub enum Transport {
    /// None: the payload follows the IP header.
    #[default]
    None,
    /// UDP.
    Udp {
        /// Ports, source first.
        ports: (u16, u16),
        /// Checksum.
        sum: Sum,
    },
    /// TCP.
    Tcp {
        /// Ports, source first.
        ports: (u16, u16),
        /// Flags.
        flags: u8,
        /// Sequence and acknowledgment number.
        numbers: (u32, u32),
        /// Window.
        window: u16,
        /// Options, a multiple of four bytes.
        options: Vec<u8>,
        /// Checksum.
        sum: Sum,
    },
    /// ICMP or ICMPv6, by the family of the packet.
    Icmp {
        /// Type and code.
        kind: (u8, u8),
        /// The four bytes after the checksum.
        rest: [u8; 4],
        /// Checksum.
        sum: Sum,
    },
}

/// A packet.
#[derive(Clone, Debug)]
pub struct Packet {
    pub(crate) destination_mac: Mac,
    pub(crate) source_mac: Mac,
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) ethertype: Option<u16>,
    pub(crate) network: Network,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
    pub(crate) padding: Vec<u8>,
    /// Bytes written over the finished packet: from the IP header on.
    pub(crate) patches: Vec<(usize, Vec<u8>)>,
    pub(crate) length: Option<usize>,
}

/// An Ethernet frame from the client's router to the balancer.
#[must_use]
pub fn eth() -> Packet {
    Packet {
        destination_mac: crate::rig::world::LB_MAC,
        source_mac: crate::rig::world::CLIENT_MAC,
        tags: Vec::new(),
        ethertype: None,
        network: Network { ttl: 64, id: 0x1234, ..Network::default() },
        transport: Transport::None,
        payload: Vec::new(),
        padding: Vec::new(),
        patches: Vec::new(),
        length: None,
    }
}

#[allow(clippy::return_self_not_must_use, reason = "a test that drops a packet fails to compile for other reasons")]
impl Packet {
    /// Source and destination MAC address.
    pub fn macs(mut self, source: Mac, destination: Mac) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// Adds an 802.1Q tag inside the tags so far.
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push((0x8100, id));
        self
    }

    /// Adds an 802.1ad tag.
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.tags.push((0x88a8, id));
        self
    }

    /// Some tag: EtherType and control word.
    pub fn tag(mut self, ethertype: u16, control: u16) -> Self {
        self.tags.push((ethertype, control));
        self
    }

    /// Whether it is IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.network.source.is_some_and(|address| address.is_ipv4())
    }

    /// Whether routers may not fragment it.
    #[must_use]
    pub fn asks_not_to_fragment(&self) -> bool {
        self.network.dont_fragment
    }

    /// Id of the outer tag; 0 without one.
    #[must_use]
    pub fn outer_vlan(&self) -> u16 {
        self.tags.first().map_or(0, |(_, control)| control & 0xfff)
    }

    /// As the frame leaves into a VLAN (0: untagged): one 802.1Q tag with the priority of the innermost one so far. A tag
    /// without an id is none.
    pub fn retagged(mut self, vlan: u16) -> Self {
        let innermost = self.tags.last().map_or(0, |(_, control)| *control);
        if vlan != 0 || self.tags.len() != 1 || innermost & 0xfff != 0 {
            self.tags = if vlan == 0 { Vec::new() } else { vec![(0x8100, innermost & 0xf000 | vlan)] };
        }
        self
    }

    /// Another packet with this one's tags.
    pub fn tags_of(self, other: Packet) -> Self {
        Packet { tags: self.tags, ..other }
    }

    /// Another EtherType than the addresses say.
    pub fn ethertype(mut self, number: u16) -> Self {
        self.ethertype = Some(number);
        self
    }

    /// IPv4 addresses.
    pub fn ipv4(self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.ip(source.into(), destination.into())
    }

    /// IPv6 addresses.
    pub fn ipv6(self, source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        self.ip(source.into(), destination.into())
    }

    /// Addresses of either family.
    pub fn ip(mut self, source: IpAddr, destination: IpAddr) -> Self {
        (self.network.source, self.network.destination) = (Some(source), Some(destination));
        self
    }

    /// Another source address.
    pub fn source(mut self, address: impl Into<IpAddr>) -> Self {
        self.network.source = Some(address.into());
        self
    }

    /// Another destination address.
    pub fn destination(mut self, address: impl Into<IpAddr>) -> Self {
        self.network.destination = Some(address.into());
        self
    }

    /// TTL or hop limit; 64 unless told.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.network.ttl = ttl;
        self
    }

    /// DSCP and ECN.
    pub fn class(mut self, class: u8) -> Self {
        self.network.class = class;
        self
    }

    /// Identification of the datagram.
    pub fn id(mut self, id: u32) -> Self {
        self.network.id = id;
        self
    }

    /// Sets DF.
    pub fn dont_fragment(mut self) -> Self {
        self.network.dont_fragment = true;
        self
    }

    /// IPv4 options; padded to a multiple of four bytes by zeros.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.network.options = options.to_vec();
        self.network.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// Another protocol number than the transport header's.
    pub fn protocol(mut self, number: u8) -> Self {
        self.network.protocol = Some(number);
        self
    }

    /// Adds an IPv6 extension header of `8 * (units + 1)` bytes (authentication: `4 * (units + 2)`).
    pub fn extension(mut self, number: u8, units: u8) -> Self {
        let length = if number == 51 { (usize::from(units) + 2) * 4 } else { (usize::from(units) + 1) * 8 };
        let mut bytes = vec![0; length];
        if number != 44 {
            bytes[1] = units;
        }
        self.network.extensions.push((number, bytes));
        self
    }

    /// Only bytes `from..to` of what follows the IP header, as a fragment. Lengths and checksums are those of the whole.
    pub fn part(mut self, from: usize, to: usize) -> Self {
        self.network.part = Some((from, to));
        self
    }

    /// A UDP header.
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Udp { ports: (source, destination), sum: Sum::Right };
        self
    }

    /// A TCP header.
    pub fn tcp(mut self, source: u16, destination: u16, flags: u8) -> Self {
        self.transport = Transport::Tcp {
            ports: (source, destination),
            flags,
            numbers: (0x0102_0304, if flags & tcp::ACK == 0 { 0 } else { 0x0a0b_0c0d }),
            window: 0xfaf0,
            options: Vec::new(),
            sum: Sum::Right,
        };
        self
    }

    /// TCP or UDP by protocol number; `flags` are TCP's.
    pub fn transport(self, protocol: u8, source: u16, destination: u16, flags: u8) -> Self {
        if protocol == 6 { self.tcp(source, destination, flags) } else { self.udp(source, destination) }
    }

    /// An ICMP header.
    pub fn icmp(mut self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport = Transport::Icmp { kind: (kind, code), rest, sum: Sum::Right };
        self
    }

    /// Other ports.
    pub fn ports(mut self, source: u16, destination: u16) -> Self {
        match &mut self.transport {
            Transport::Udp { ports, .. } | Transport::Tcp { ports, .. } => *ports = (source, destination),
            Transport::None | Transport::Icmp { .. } => panic!("no ports in this packet"),
        }
        self
    }

    /// Another source port.
    pub fn source_port(self, port: u16) -> Self {
        let (_, destination) = self.port_pair();
        self.ports(port, destination)
    }

    /// Another destination port.
    pub fn destination_port(self, port: u16) -> Self {
        let (source, _) = self.port_pair();
        self.ports(source, port)
    }

    /// Source and destination port.
    #[must_use]
    pub fn port_pair(&self) -> (u16, u16) {
        match &self.transport {
            Transport::Udp { ports, .. } | Transport::Tcp { ports, .. } => *ports,
            Transport::None | Transport::Icmp { .. } => panic!("no ports in this packet"),
        }
    }

    /// Whether it has a TCP header.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp { .. })
    }

    /// TCP sequence and acknowledgment number.
    pub fn numbers(mut self, sequence: u32, acknowledgment: u32) -> Self {
        if let Transport::Tcp { numbers, .. } = &mut self.transport {
            *numbers = (sequence, acknowledgment);
        }
        self
    }

    /// TCP window.
    pub fn window(mut self, size: u16) -> Self {
        if let Transport::Tcp { window, .. } = &mut self.transport {
            *window = size;
        }
        self
    }

    /// TCP options, a multiple of four bytes.
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = bytes.to_vec();
        }
        self
    }

    /// Another transport checksum than the right one.
    pub fn sum(mut self, what: Sum) -> Self {
        match &mut self.transport {
            Transport::Udp { sum, .. } | Transport::Tcp { sum, .. } | Transport::Icmp { sum, .. } => *sum = what,
            Transport::None => {}
        }
        self
    }

    /// What follows the transport header.
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// That many bytes of a pattern.
    pub fn filled(mut self, length: usize) -> Self {
        self.payload = (0..length).map(|i| (i * 7 + 3) as u8).collect();
        self
    }

    /// What an ICMP error quotes: the first `length` bytes of the other packet, from its IP header on.
    pub fn quoting(mut self, other: &Packet, length: usize) -> Self {
        let bytes = bytes_of(other);
        let ip = &bytes[other.l3()..];
        self.payload = ip[..length.min(ip.len())].to_vec();
        self
    }

    /// Bytes after the end of the IP packet.
    pub fn padding(mut self, bytes: &[u8]) -> Self {
        self.padding = bytes.to_vec();
        self
    }

    /// Writes over the finished packet at an offset from the IP header. Checksums are not adapted.
    pub fn patch(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.patches.push((offset, bytes.to_vec()));
        self
    }

    /// Cuts the frame, or extends it by zeros, to this length.
    pub fn frame_len(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Offset of the IP header in the frame.
    #[must_use]
    pub fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Bytes of the IP header with extensions: the offset of the transport header in the IP packet.
    #[must_use]
    pub fn ip_header_len(&self) -> usize {
        match self.network.source {
            Some(IpAddr::V4(_)) => 20 + self.network.options.len(),
            Some(IpAddr::V6(_)) => {
                let fragment = if self.network.part.is_some() { 8 } else { 0 };
                40 + fragment + self.network.extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
            }
            None => 0,
        }
    }

    /// The same packet as the other side answers it: MAC addresses, addresses and ports swapped.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.source_mac, &mut self.destination_mac);
        std::mem::swap(&mut self.network.source, &mut self.network.destination);
        if let Transport::Udp { ports, .. } | Transport::Tcp { ports, .. } = &mut self.transport {
            *ports = (ports.1, ports.0);
        }
        self
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        bytes_of(self)
    }
}
