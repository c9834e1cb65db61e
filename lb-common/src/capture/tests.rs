//! What filters want of frames of every kind, whole and cut, and records as they are read back.

use std::{vec, vec::Vec};

use super::*;
use crate::packet::SliceFrame;

const A4: [u8; 4] = [203, 0, 113, 7];
const B4: [u8; 4] = [192, 0, 2, 10];
const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

fn padded(address: [u8; 4]) -> [u8; 16] {
    let mut all = [0; 16];
    all[..4].copy_from_slice(&address);
    all
}

fn frame(tags: usize, kind: u16, ip: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for _ in 0..tags {
        frame.extend(ethertype::VLAN.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(ip);
    frame
}

/// From A, port 40000, to B, port 80.
fn ipv4(tags: usize, kind: u8, options: usize, fragment: u16) -> Vec<u8> {
    let mut ip = vec![0x45 + options as u8, 0, 0, 40, 0, 0];
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, kind, 0, 0]);
    ip.extend(A4);
    ip.extend(B4);
    ip.resize(20 + options * 4, 1);
    ip.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0]);
    frame(tags, ethertype::IPV4, &ip)
}

fn ipv6(kind: u8) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 8, kind, 64];
    ip.extend(A6);
    ip.extend(B6);
    ip.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0]);
    frame(0, ethertype::IPV6, &ip)
}

fn wants(filter: Filter, frame: &[u8]) -> bool {
    is_wanted(SliceFrame(frame), &filter)
}

#[test]
fn a_filter_wants_what_it_says() {
    let any = Filter::default();
    let (a4, b4, b6) = (Net::new(padded(A4), 32), Net::new(padded(B4), 32), Net::new(B6, 128));
    let near = Net::new(padded([203, 0, 113, 200]), 24);
    let tcp = ipv4(0, protocol::TCP, 0, 0);
    let cases = [
        ("everything", any, true),
        ("its source", Filter { source: a4, version: 4, ..any }, true),
        ("its source's network", Filter { source: near, version: 4, ..any }, true),
        ("another source", Filter { source: b4, version: 4, ..any }, false),
        ("its destination", Filter { destination: b4, ..any }, true),
        ("another destination", Filter { destination: a4, ..any }, false),
        ("either, by its source", Filter { either: a4, ..any }, true),
        ("either, by its destination", Filter { either: b4, ..any }, true),
        ("either, of nobody", Filter { either: Net::new(padded([9, 9, 9, 9]), 32), ..any }, false),
        ("its source port", Filter { port: 40_000, ..any }, true),
        ("its destination port", Filter { port: 80, ..any }, true),
        ("another port", Filter { port: 81, ..any }, false),
        ("its protocol", Filter { protocol: protocol::TCP, ..any }, true),
        ("another protocol", Filter { protocol: protocol::UDP, ..any }, false),
        ("another family", Filter { version: 6, ..any }, false),
        ("an IPv6 address", Filter { either: b6, version: 6, ..any }, false),
    ];
    for (name, filter, expected) in cases {
        for frame in [tcp.clone(), ipv4(1, protocol::TCP, 0, 0), ipv4(2, protocol::TCP, 10, 0)] {
            assert_eq!(wants(filter, &frame), expected, "{name}");
        }
    }
    let six = Filter { source: Net::new(A6, 64), either: b6, version: 6, protocol: protocol::TCP, port: 80, ..any };
    assert!(wants(six, &ipv6(protocol::TCP)));
    assert!(!wants(Filter { source: Net::new(B6, 48), ..six }, &ipv6(protocol::TCP)));
    let icmp = Filter { protocol: protocol::ICMP, ..any };
    assert!(wants(icmp, &ipv6(protocol::ICMPV6)) && wants(icmp, &ipv4(0, protocol::ICMP, 0, 0)));
}

#[test]
fn ports_are_those_of_whole_packets_and_first_fragments() {
    let http = Filter { port: 80, ..Filter::default() };
    assert!(wants(http, &ipv4(0, protocol::UDP, 0, 0x2000)), "a first fragment");
    assert!(!wants(http, &ipv4(0, protocol::UDP, 0, 100)), "a later fragment");
    assert!(!wants(http, &ipv4(0, protocol::ICMP, 0, 0)), "ICMP has none");
    assert!(!wants(http, &ipv6(44)), "behind an extension header they are not looked for");
}

#[test]
fn what_is_cut_short_matches_nothing_but_everything() {
    for whole in [ipv4(2, protocol::TCP, 3, 0), ipv6(protocol::UDP)] {
        for cut in 0..whole.len() - 4 {
            assert!(!wants(Filter { port: 80, ..Filter::default() }, &whole[..cut]), "{cut} bytes");
            assert!(wants(Filter::default(), &whole[..cut]), "{cut} bytes");
        }
    }
    assert!(!wants(Filter { version: 4, ..Filter::default() }, &frame(0, 0x0806, &[0; 28])), "ARP is not IP");
}

#[test]
fn a_network_is_its_first_bits() {
    assert_eq!(Net::new(B6, 0), Net::default());
    for prefix in 1..=128_u8 {
        let net = Net::new([0xff; 16], prefix);
        let ones = net.mask[0].count_ones() + net.mask[1].count_ones();
        assert_eq!((ones, net.address), (u32::from(prefix), net.mask), "{prefix}");
    }
}

#[test]
fn a_record_is_read_back() {
    let mut bytes = vec![0; Record::BYTES];
    bytes[..8].copy_from_slice(&7_u64.to_ne_bytes());
    bytes[8..12].copy_from_slice(&1500_u32.to_ne_bytes());
    bytes[12..16].copy_from_slice(&3_u32.to_ne_bytes());
    bytes[16..20].copy_from_slice(&5_u32.to_ne_bytes());
    bytes[20..22].copy_from_slice(&2_u16.to_ne_bytes());
    bytes[22..24].copy_from_slice(&9_u16.to_ne_bytes());
    (bytes[24], bytes[25]) = (27, direction::IN);
    bytes.extend([1, 2, 3, 0, 0]);
    let expected = Record {
        at_ns: 7,
        length: 1500,
        captured: 3,
        ifindex: 5,
        virtual_server: 2,
        node: 9,
        reason: 27,
        direction: direction::IN,
        padding: [0; 6],
    };
    assert_eq!(Record::read(&bytes), Some((expected, &[1, 2, 3][..])));
    for cut in 0..Record::BYTES + 3 {
        assert_eq!(Record::read(&bytes[..cut]), None, "{cut} bytes");
    }
}
