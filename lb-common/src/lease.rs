//! The forwarding lease: VIPs of groups that another machine can take are served only while lbd's failover thread renews it.
//! A daemon that is stopped or hangs can say nothing any more; its data path says it for it, by silence.
//!
//! `LEASE` has one word, the jiffy from which on the lease is over; 0: never. `LEASED` has the VIPs that it is for, as
//! [`crate::vip::ServiceKey`]s without port and protocol.

use crate::{
    flow::{FAMILY_V4, FAMILY_V6},
    packet::{Frame, IPV6, View, ethertype, network_layer, protocol},
};

/// EtherType of ARP.
const ARP: u16 = 0x0806;
/// An ARP packet of Ethernet and IPv4 (RFC 826).
const ARP_BYTES: usize = 28;
/// Operation of a request.
const ARP_REQUEST: u16 = 1;
/// Type of a neighbour solicitation (RFC 4861 section 4.3), and where its target ends.
const SOLICITATION: u8 = 135;
const SOLICITATION_BYTES: usize = IPV6 + 24;

/// Whether a lease that ends at `until` is over; `jiffies`: now.
#[inline(always)]
#[must_use]
pub fn is_over(until: u64, jiffies: u64) -> bool {
    // 0 becomes the greatest number.
    until.wrapping_sub(1) < jiffies
}

/// The address that a frame wants something of, as the image of its key ([`crate::vip::ServiceKey::image`]): the destination of an
/// IP packet, the target of an ARP request or a neighbour solicitation. `None`: of nobody.
///
/// What another machine announces for itself (gratuitous ARP) wants nothing.
#[inline(always)]
pub fn wanted<F: Frame>(frame: F) -> Option<[u64; 3]> {
    let (kind, l3) = network_layer(frame)?;
    match kind {
        ethertype::IPV4 => Some(key4(frame.view::<20>(l3)?.u32(16))),
        ARP => {
            let arp = frame.view::<ARP_BYTES>(l3)?;
            let (sender, target) = (arp.u32(14), arp.u32(24));
            (arp.be16(6) == ARP_REQUEST && sender != target).then(|| key4(target))
        }
        ethertype::IPV6 => {
            let ip = frame.view::<IPV6>(l3)?;
            if ip.u8(6) == protocol::ICMPV6
                && let Some(icmp) = frame.view::<SOLICITATION_BYTES>(l3)
                && icmp.u8(IPV6) == SOLICITATION
            {
                return Some(key6(icmp, IPV6 + 8));
            }
            Some(key6(ip, 24))
        }
        _ => None,
    }
}

#[inline(always)]
fn key4(address: u32) -> [u64; 3] {
    [u64::from(address), 0, u64::from(FAMILY_V4) << 24]
}

#[inline(always)]
fn key6<V: View>(view: V, at: usize) -> [u64; 3] {
    let word = |at| u64::from(view.u32(at)) | u64::from(view.u32(at + 4)) << 32;
    [word(at), word(at + 8), u64::from(FAMILY_V6) << 24]
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;
    use crate::{flow::FlowKey, packet::SliceFrame, vip::ServiceKey};

    const VIP4: [u8; 4] = [192, 0, 2, 10];
    const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
    const OTHER4: [u8; 4] = [192, 0, 2, 99];

    fn frame(tags: usize, kind: u16, parts: &[(usize, &[u8])], length: usize) -> Vec<u8> {
        let mut frame = vec![0; 12];
        for tag in 0..tags {
            frame.extend(if tag == 0 && tags == 2 { ethertype::QINQ } else { ethertype::VLAN }.to_be_bytes());
            frame.extend([0, 7]);
        }
        frame.extend(kind.to_be_bytes());
        let start = frame.len();
        frame.resize(start + length, 0);
        for (at, bytes) in parts {
            frame[start + at..start + at + bytes.len()].copy_from_slice(bytes);
        }
        frame
    }

    fn ipv4(destination: [u8; 4]) -> (u16, Vec<(usize, Vec<u8>)>, usize) {
        (ethertype::IPV4, vec![(16, destination.to_vec())], 20)
    }

    fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> (u16, Vec<(usize, Vec<u8>)>, usize) {
        (ARP, vec![(7, vec![operation]), (14, sender.to_vec()), (24, target.to_vec())], ARP_BYTES)
    }

    fn ipv6(kind: u8, icmp: u8, destination: [u8; 16], target: [u8; 16]) -> (u16, Vec<(usize, Vec<u8>)>, usize) {
        let parts = vec![(6, vec![kind]), (24, destination.to_vec()), (40, vec![icmp]), (48, target.to_vec())];
        (ethertype::IPV6, parts, SOLICITATION_BYTES)
    }

    fn key_of(flow: &FlowKey) -> [u64; 3] {
        ServiceKey::image(flow, 0, 0)
    }

    #[test]
    fn a_frame_wants_what_it_is_sent_to_or_asks_for() {
        let vip4 = Some(key_of(&FlowKey::v4(OTHER4, VIP4, 1, 2, 6)));
        let vip6 = Some(key_of(&FlowKey::v6([1; 16], VIP6, 1, 2, 6)));
        let group = [0xff; 16];
        let to_group = Some(key_of(&FlowKey::v6([1; 16], group, 1, 2, 58)));
        let cases = [
            ("IPv4", ipv4(VIP4), vip4),
            ("an ARP request", arp(1, OTHER4, VIP4), vip4),
            ("an ARP probe", arp(1, [0; 4], VIP4), vip4),
            ("an ARP answer", arp(2, OTHER4, VIP4), None),
            ("gratuitous ARP", arp(1, VIP4, VIP4), None),
            ("IPv6", ipv6(6, SOLICITATION, VIP6, group), vip6),
            ("a neighbour solicitation", ipv6(58, SOLICITATION, group, VIP6), vip6),
            ("an echo request", ipv6(58, 128, VIP6, group), vip6),
            ("a neighbour advertisement", ipv6(58, 136, group, VIP6), to_group),
            ("LLDP", (0x88cc, Vec::new(), 60), None),
        ];
        for (name, (kind, parts, length), expected) in cases {
            let parts: Vec<(usize, &[u8])> = parts.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
            for tags in 0..=2 {
                let whole = frame(tags, kind, &parts, length);
                assert_eq!(wanted(SliceFrame(&whole)), expected, "{name}, {tags} tags");
                // A solicitation cut short is a packet to its destination.
                for cut in 0..whole.len() {
                    let found = wanted(SliceFrame(&whole[..cut]));
                    let least = whole.len() - length + IPV6;
                    let whole_enough = kind == ethertype::IPV6 && cut >= least;
                    assert!(found.is_none() || whole_enough, "{name}, {cut} bytes: {found:?}");
                }
            }
        }
        assert_eq!(wanted(SliceFrame(&frame(3, ethertype::IPV4, &[], 20))), None, "three tags");
    }

    #[test]
    fn a_lease_of_zero_lasts_for_ever() {
        for (until, jiffies, over) in [
            (0, 0, false),
            (0, u64::MAX, false),
            (5, 4, false),
            (5, 5, true),
            (5, u64::MAX, true),
            (u64::MAX, u64::MAX - 1, false),
        ] {
            assert_eq!(is_over(until, jiffies), over, "until {until}, now {jiffies}");
        }
    }
}
