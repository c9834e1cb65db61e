//! Golden packets of keepalived and every way to be malformed.

use std::{net::IpAddr, time::Duration};

use super::{Advertisement, Checksum, Malformed, RESIGN, TTL, Version, virtual_mac};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn advertisement(interval_ms: u64) -> Advertisement {
    Advertisement {
        version: Version::V3,
        vrid: 42,
        priority: 200,
        interval: Duration::from_millis(interval_ms),
        addresses: vec![ip("10.77.0.100")],
    }
}

fn written(advertisement: &Advertisement, destination: &str, checksum: Checksum) -> Vec<u8> {
    let source = if destination.contains(':') { ip("fe80::1") } else { ip("10.77.0.1") };
    let mut out = Vec::new();
    advertisement.write(source, ip(destination), checksum, &mut out);
    out
}

#[test]
fn it_writes_what_keepalived_writes() {
    let multicast = written(&advertisement(1_000), "224.0.0.18", Checksum::PseudoHeader);
    assert_eq!(multicast, hex("312ac801 0064 10e2 0a4d0064"));
    let unicast = written(&advertisement(100), "10.77.0.2", Checksum::PseudoHeader);
    assert_eq!(unicast, hex("312ac801 000a e6ff 0a4d0064"));
}

#[test]
fn both_dialects_of_the_checksum_and_both_versions_are_read() {
    let v6 = Advertisement { addresses: vec![ip("fe80::99"), ip("2001:db8::99")], ..advertisement(100) };
    let v2 = Advertisement { version: Version::V2, ..advertisement(1_000) };
    let cases = [
        (advertisement(100), "224.0.0.18", Checksum::PseudoHeader),
        (advertisement(100), "224.0.0.18", Checksum::Packet),
        (advertisement(40_950), "10.77.0.2", Checksum::Packet),
        (v6, "ff02::12", Checksum::PseudoHeader),
        (v2, "224.0.0.18", Checksum::PseudoHeader),
        (Advertisement { priority: RESIGN, ..advertisement(100) }, "224.0.0.18", Checksum::PseudoHeader),
    ];
    for (advertisement, destination, checksum) in cases {
        let packet = written(&advertisement, destination, checksum);
        let source = if destination.contains(':') { ip("fe80::1") } else { ip("10.77.0.1") };
        assert_eq!(Advertisement::read(&packet, source, ip(destination), TTL), Ok(advertisement));
    }
}

#[test]
fn what_is_malformed_is_dropped() {
    let good = written(&advertisement(100), "224.0.0.18", Checksum::Packet);
    let changed = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet[6..8].fill(0);
        let sum = super::finish(super::sum(0, &packet));
        packet[6..8].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let mut broken = good.clone();
    broken[6] ^= 1;
    #[rustfmt::skip]
    let cases = [
        ("TTL 254", good.clone(), 254, Malformed::Ttl),
        ("version 4", changed(0, 0x41), TTL, Malformed::Version),
        ("type 2", changed(0, 0x32), TTL, Malformed::Version),
        ("two addresses announced, one there", changed(3, 2), TTL, Malformed::Length),
        ("no address announced, one there", changed(3, 0), TTL, Malformed::Length),
        ("a byte too many", [good.clone(), vec![0]].concat(), TTL, Malformed::Length),
        ("checksum", broken, TTL, Malformed::Checksum),
        ("interval 0", changed(5, 0), TTL, Malformed::Empty),
        ("id 0", changed(1, 0), TTL, Malformed::Empty),
        ("CARP", hex("212a0007 0001 9376 0e12863b08978d8a d7cc53f946acef0e2484172e7236135675e8883f"), TTL, Malformed::Carp),
    ];
    for (name, packet, ttl, expected) in cases {
        let read = Advertisement::read(&packet, ip("10.77.0.1"), ip("224.0.0.18"), ttl);
        assert_eq!(read, Err(expected), "{name}");
    }
    for length in 0..good.len() {
        let read = Advertisement::read(&good[..length], ip("10.77.0.1"), ip("224.0.0.18"), TTL);
        assert_eq!(read, Err(Malformed::Length), "{length} bytes");
    }
}

#[test]
fn virtual_macs_are_those_of_the_rfc() {
    assert_eq!(virtual_mac(42, false), [0, 0, 0x5e, 0, 1, 42]);
    assert_eq!(virtual_mac(42, true), [0, 0, 0x5e, 0, 2, 42]);
}
