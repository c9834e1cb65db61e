//! The packets that tell neighbours where a VIP is now: gratuitous ARP and unsolicited neighbour advertisements; and those that ask
//! where a neighbour is. Pure.

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
/// Length of an advertisement, and of a solicitation, with one link-layer address.
const DISCOVERY: usize = 32;

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

/// Who has this address? Whoever is asked learns the asker's hardware address by it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The neighbour.
    pub wanted: IpAddr,
    /// Own address on the same segment, of the same family.
    pub asker: IpAddr,
    /// Its interface's hardware address.
    pub mac: Mac,
}

impl Question {
    /// The Ethernet frame; `None`: the two addresses are of two families.
    pub fn frame(&self) -> Option<Vec<u8>> {
        match (self.asker, self.wanted) {
            (IpAddr::V4(asker), IpAddr::V4(wanted)) => Some(arp_request(asker, wanted, self.mac)),
            (IpAddr::V6(asker), IpAddr::V6(wanted)) => Some(solicitation(asker, wanted, self.mac)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

/// An ARP announcement in its request form (RFC 5227 §2.3): every stack updates its cache from it, some ignore the reply form.
fn gratuitous_arp(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    arp_request(address, address, mac)
}

/// RFC 826, to all neighbours.
fn arp_request(sender: Ipv4Addr, target: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MINIMUM_FRAME);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend([0x08, 0x06]); // ARP
    frame.extend([0, 1, 0x08, 0x00, 6, 4]); // Ethernet, IPv4, their address lengths
    frame.extend([0, 1]); // request
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]); // target hardware address: none
    frame.extend(target.octets());
    frame.resize(MINIMUM_FRAME, 0);
    frame
}

/// RFC 4861 §4.4 and §7.2.6: to all nodes, S=0 (nobody asked), O=1 (replaces the cached address).
fn unsolicited_advertisement(address: Ipv6Addr, mac: Mac, is_router: bool) -> Vec<u8> {
    let flags = if is_router { 0xa0 } else { 0x20 };
    // Option 2: the target's link-layer address.
    discovery([136, flags, 2], address, mac, (address, ALL_NODES, ALL_NODES_MAC))
}

/// RFC 4861 §4.3, to the group of those whose address ends like this one (RFC 4291 §2.7.1).
fn solicitation(asker: Ipv6Addr, wanted: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let [.., a, b, c] = wanted.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    // Option 1: the source's link-layer address.
    discovery([135, 0, 1], wanted, mac, (asker, group, [0x33, 0x33, 0xff, a, b, c]))
}

/// A message of neighbour discovery about `target`, with this machine's link-layer address, from and to these addresses.
fn discovery(
    [kind, flags, option]: [u8; 3],
    target: Ipv6Addr,
    mac: Mac,
    (source, destination, to): (Ipv6Addr, Ipv6Addr, Mac),
) -> Vec<u8> {
    let mut message = Vec::with_capacity(DISCOVERY);
    message.extend([kind, 0, 0, 0]); // code, checksum
    message.extend([flags, 0, 0, 0]);
    message.extend(target.octets());
    message.extend([option, 1]); // one unit of 8 bytes
    message.extend(mac);
    let checksum = icmpv6_checksum(source, destination, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(14 + 40 + DISCOVERY);
    frame.extend(to);
    frame.extend(mac);
    frame.extend([0x86, 0xdd]); // IPv6
    frame.extend([0x60, 0, 0, 0, 0, DISCOVERY as u8, ICMPV6, 255]); // hop limit 255: has crossed no router
    frame.extend(source.octets());
    frame.extend(destination.octets());
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
