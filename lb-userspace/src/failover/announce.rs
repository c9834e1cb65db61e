//! The packets that tell neighbours where a VIP is now: gratuitous ARP and unsolicited neighbour advertisements. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// Where Ethernet delivers `ff02::1` (RFC 2464 §7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The shortest Ethernet frame, without its check sequence.
const MINIMUM_FRAME: usize = 60;
const ICMPV6: u8 = 58;
const ADVERTISEMENT: usize = 32;

/// What is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The VIP.
    pub address: IpAddr,
    /// The interface's hardware address.
    pub mac: Mac,
    /// IPv6: whether this machine forwards. Neighbours then believe it is a router, and would drop it from their default
    /// routers if an advertisement said otherwise (RFC 4861 §7.2.5), so it must say what the kernel's own ones say.
    pub is_router: bool,
}

impl Announcement {
    /// The Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(address) => gratuitous_arp(address, self.mac),
            IpAddr::V6(address) => unsolicited_advertisement(address, self.mac, self.is_router),
        }
    }
}

/// An ARP announcement in its request form (RFC 5227 §2.3): every stack updates its cache from it, some ignore the reply form.
fn gratuitous_arp(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MINIMUM_FRAME);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend([0x08, 0x06]); // ARP
    frame.extend([0, 1, 0x08, 0x00, 6, 4]); // Ethernet, IPv4, their address lengths
    frame.extend([0, 1]); // request
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]); // target hardware address: none
    frame.extend(address.octets());
    frame.resize(MINIMUM_FRAME, 0);
    frame
}

/// RFC 4861 §4.4 and §7.2.6: to all nodes, S=0 (nobody asked), O=1 (replaces the cached address).
fn unsolicited_advertisement(address: Ipv6Addr, mac: Mac, is_router: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(ADVERTISEMENT);
    message.extend([136, 0, 0, 0]); // type, code, checksum
    message.extend([if is_router { 0xa0 } else { 0x20 }, 0, 0, 0]);
    message.extend(address.octets());
    message.extend([2, 1]); // target link-layer address, one unit of 8 bytes
    message.extend(mac);
    let checksum = icmpv6_checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(14 + 40 + ADVERTISEMENT);
    frame.extend(ALL_NODES_MAC);
    frame.extend(mac);
    frame.extend([0x86, 0xdd]); // IPv6
    frame.extend([0x60, 0, 0, 0, 0, ADVERTISEMENT as u8, ICMPV6, 255]); // hop limit 255: has crossed no router
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// RFC 8200 §8.1, over a message of an even number of bytes.
fn icmpv6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words =
        |bytes: &[u8]| bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message);
    sum += message.len() as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

#[cfg(test)]
mod tests;
