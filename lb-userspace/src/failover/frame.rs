//! Advertisements of VRRP and CARP as whole Ethernet frames: the kernel would send them from the interface's own address, and they are to
//! come from the virtual one, so that switches know where it is (RFC 9568 §7.2). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    announce::Mac,
    routers::Packet,
    vrrp::{self, PROTOCOL, TTL},
};

/// Class selector 6 (RFC 4594 §3.1): switches drop these last.
const NETWORK_CONTROL: u8 = 0xc0;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// The frame of an advertisement from a virtual MAC address to all routers; `None`: it goes from the interface's own address, or to
/// one router alone, whose address the kernel knows.
#[must_use]
pub(super) fn advertisement(packet: &Packet) -> Option<Vec<u8>> {
    let from = packet.virtual_mac?;
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(group)) if group.is_multicast() => {
            Some(over_ipv4(from, source, group, &packet.payload))
        }
        (IpAddr::V6(source), IpAddr::V6(group)) if group.is_multicast() => {
            Some(over_ipv6(from, source, group, &packet.payload))
        }
        _ => None,
    }
}

/// RFC 1112 §6.4: the low 23 bits of the group.
fn over_ipv4(from: Mac, source: Ipv4Addr, group: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let [_, b, c, d] = group.octets();
    let mut frame = ethernet([1, 0, 0x5e, b & 0x7f, c, d], from, [0x08, 0x00], IPV4 + payload.len());
    let length = u16::try_from(IPV4 + payload.len()).unwrap_or(u16::MAX);
    frame.extend([0x45, NETWORK_CONTROL]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0]); // atomic: no id, and not to be fragmented (RFC 6864 §4.1)
    frame.extend([TTL, PROTOCOL, 0, 0]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    let checksum = vrrp::finish(vrrp::sum(0, &frame[ETHERNET..]));
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 2464 §7: the low 32 bits of the group.
fn over_ipv6(from: Mac, source: Ipv6Addr, group: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], from, [0x86, 0xdd], IPV6 + payload.len());
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    frame.extend([0x60 | NETWORK_CONTROL >> 4, NETWORK_CONTROL << 4, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([PROTOCOL, TTL]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(payload);
    frame
}

fn ethernet(to: Mac, from: Mac, kind: [u8; 2], length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + length);
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, destination: &str, virtual_mac: Option<Mac>) -> Packet {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Packet { interface: "eth0".into(), source, destination, payload: vec![1, 2, 3, 4, 5, 6, 7, 8], virtual_mac }
    }

    #[test]
    fn an_advertisement_comes_from_the_virtual_address() {
        let frame = advertisement(&packet("10.77.0.1", "224.0.0.18", Some([0, 0, 0x5e, 0, 1, 42]))).unwrap();
        // As tcpdump and keepalived read it; the header's checksum was computed elsewhere.
        let expected = [
            &[1, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, 42, 8, 0][..],
            &[0x45, 0xc0, 0, 28, 0, 0, 0x40, 0, 255, 112, 0x90, 0x51, 10, 77, 0, 1, 224, 0, 0, 18],
            &[1, 2, 3, 4, 5, 6, 7, 8],
        ];
        assert_eq!(frame, expected.concat());

        let frame = advertisement(&packet("fe80::1", "ff02::12", Some([0, 0, 0x5e, 0, 2, 42]))).unwrap();
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 0x12, 0, 0, 0x5e, 0, 2, 42, 0x86, 0xdd]);
        assert_eq!(frame[14..22], [0x6c, 0, 0, 0, 0, 8, 112, 255]);
        assert_eq!((frame.len(), &frame[54..]), (62, &[1, 2, 3, 4, 5, 6, 7, 8][..]));
    }

    #[test]
    fn to_one_router_and_without_a_virtual_address_the_kernel_sends() {
        for (destination, mac) in [("224.0.0.18", None), ("10.77.0.2", Some([0, 0, 0x5e, 0, 1, 42]))] {
            assert_eq!(advertisement(&packet("10.77.0.1", destination, mac)), None, "{destination}");
        }
    }
}
