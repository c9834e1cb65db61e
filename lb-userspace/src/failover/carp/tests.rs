//! A golden packet of ucarp and every way to be malformed.

use std::{net::IpAddr, time::Duration};

use super::{Advertisement, Key, Malformed, TTL};

/// Passphrase `secret`, vhid 42, VIP 10.77.0.100.
const GOLDEN: [u8; 36] = [
    0x21, 0x2a, 0x00, 0x07, 0x00, 0x01, 0x93, 0x76, 0x0e, 0x12, 0x86, 0x3b, 0x08, 0x97, 0x8d, 0x8a, 0xd7, 0xcc, 0x53,
    0xf9, 0x46, 0xac, 0xef, 0x0e, 0x24, 0x84, 0x17, 0x2e, 0x72, 0x36, 0x13, 0x56, 0x75, 0xe8, 0x88, 0x3f,
];

fn key(passphrase: &str, addresses: &[&str]) -> Key {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Key::new(passphrase.as_bytes(), 42, &addresses)
}

fn golden() -> Advertisement {
    Advertisement { vhid: 42, advbase: 1, advskew: 0, demotion: 0, counter: 0x0e12_863b_0897_8d8a }
}

#[test]
fn it_writes_and_reads_what_ucarp_writes() {
    let key = key("secret", &["10.77.0.100"]);
    let mut out = Vec::new();
    golden().write(&key, &mut out);
    assert_eq!(out, GOLDEN);
    assert_eq!(Advertisement::read(&GOLDEN, TTL, |_| Some(&key)), Ok(Some(golden())));
}

#[test]
fn what_is_malformed_or_forged_is_dropped() {
    let ours = key("secret", &["10.77.0.100"]);
    let read = |packet: &[u8], ttl| Advertisement::read(packet, ttl, |_| Some(&ours));
    assert_eq!(read(&GOLDEN, 254), Err(Malformed::Ttl));
    assert_eq!(read(&GOLDEN[..35], TTL), Err(Malformed::Foreign));
    for bit in 0..GOLDEN.len() * 8 {
        let mut packet = GOLDEN;
        packet[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&packet, TTL).is_err(), "bit {bit}");
    }
    for other in [
        key("Secret", &["10.77.0.100"]),
        key("secret", &["10.77.0.101"]),
        key("secret", &["10.77.0.100", "10.77.0.99"]),
    ] {
        assert_eq!(Advertisement::read(&GOLDEN, TTL, |_| Some(&other)), Err(Malformed::Forged));
    }
}

#[test]
fn other_groups_are_none_of_ours() {
    assert_eq!(
        Advertisement::read(&GOLDEN, TTL, |vhid| {
            assert_eq!(vhid, 42);
            None
        }),
        Ok(None)
    );
}

#[test]
fn the_order_of_addresses_does_not_matter() {
    let mut packets = [Vec::new(), Vec::new()];
    golden().write(&key("secret", &["10.0.0.2", "2001:db8::1", "10.0.0.1"]), &mut packets[0]);
    golden().write(&key("secret", &["2001:db8::1", "10.0.0.1", "10.0.0.2"]), &mut packets[1]);
    assert_eq!(packets[0], packets[1]);
}

#[test]
fn intervals_are_seconds_and_256ths() {
    assert_eq!(Advertisement { advskew: 128, ..golden() }.interval(), Duration::from_millis(1_500));
    assert_eq!(Advertisement { advbase: 0, advskew: 64, ..golden() }.interval(), Duration::from_millis(250));
}
