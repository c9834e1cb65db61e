//! Builds packets as a real sender would: Ethernet, IPv4 or IPv6, TCP or UDP, with right checksums. Pure. Used by
//! `trace` for the packet it asks about and by `doctor` for its probes.

use std::net::{IpAddr, SocketAddr};

use lb_common::packet::{ethertype, protocol};

/// TTL and hop limit of a packet that has just been sent by a Linux machine.
const HOPS: u8 = 64;
/// What a fresh connection offers as its window.
const WINDOW: u16 = 64_240;

/// A packet without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Draft {
    pub(in crate::dataplane) source_mac: [u8; 6],
    pub(in crate::dataplane) destination_mac: [u8; 6],
    /// Of the same family as `destination`.
    pub(in crate::dataplane) source: SocketAddr,
    pub(in crate::dataplane) destination: SocketAddr,
    pub(in crate::dataplane) transport: Transport,
}

/// What is above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Transport {
    /// A TCP segment without options.
    Tcp {
        /// `conntrack::tcp_flag`.
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgment number.
        acknowledgment: u32,
    },
    /// An empty datagram.
    Udp,
}

impl Transport {
    fn protocol(self) -> u8 {
        match self {
            Transport::Tcp { .. } => protocol::TCP,
            Transport::Udp => protocol::UDP,
        }
    }
}

impl Draft {
    /// The whole frame, without padding.
    pub(in crate::dataplane) fn frame(&self) -> Vec<u8> {
        let transport = self.transport();
        let kind = if self.destination.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        let mut frame = Vec::with_capacity(14 + 40 + transport.len());
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        frame.extend(kind.to_be_bytes());
        frame.extend(self.ip_header(transport.len() as u16));
        frame.extend(transport);
        frame
    }

    /// RFC 791 §3.1, RFC 8200 §3.
    fn ip_header(&self, payload: u16) -> Vec<u8> {
        let protocol = self.transport.protocol();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + payload).to_be_bytes());
                header.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]); // id 0, don't fragment
                header.extend(source.octets());
                header.extend(destination.octets());
                let checksum = checksum(&[&header]);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                header
            }
            (source, destination) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(payload.to_be_bytes());
                header.extend([protocol, HOPS]);
                header.extend(octets6(source));
                header.extend(octets6(destination));
                header
            }
        }
    }

    /// RFC 9293 §3.1, RFC 768.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20);
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        let checksum_at = match self.transport {
            Transport::Tcp { flags, sequence, acknowledgment } => {
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgment.to_be_bytes());
                bytes.extend([5 << 4, flags]);
                bytes.extend(WINDOW.to_be_bytes());
                bytes.extend([0; 4]); // checksum, urgent pointer
                16
            }
            Transport::Udp => {
                bytes.extend([0, 8, 0, 0]); // length, checksum
                6
            }
        };
        let checksum = match self.pseudo_checksum(&bytes) {
            // In UDP 0 says that there is none (RFC 768); for TCP both are the same number.
            0 => 0xffff,
            sum => sum,
        };
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn pseudo_checksum(&self, transport: &[u8]) -> u16 {
        pseudo_checksum(self.source.ip(), self.destination.ip(), self.transport.protocol(), transport)
    }
}

/// The Internet checksum over a pseudo header and what follows it (RFC 9293 §3.1, RFC 8200 §8.1).
pub(in crate::dataplane) fn pseudo_checksum(source: IpAddr, destination: IpAddr, protocol: u8, data: &[u8]) -> u16 {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
        (source, destination) => [octets6(source), octets6(destination)].concat(),
    };
    let length = (data.len() as u32).to_be_bytes();
    checksum(&[&addresses, &length, &[0, protocol], data])
}

fn octets6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// RFC 1071, over parts of which all but the last have an even number of bytes.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

#[cfg(test)]
mod tests;
