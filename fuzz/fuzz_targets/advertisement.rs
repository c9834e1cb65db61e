//! Advertisements of protocol 112: VRRP and CARP, as they come, and with checksums mended so that the rest is reached.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_fuzz::failover::{
    carp::{self, is_carp},
    vrrp::{Advertisement, Checksum, GROUP4, GROUP6, Malformed, TTL},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u8, u8, &[u8])| {
    let (six, ttl, mend, bytes) = input;
    let (source, group) = match six {
        true => (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), IpAddr::V6(GROUP6)),
        false => (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(GROUP4)),
    };
    let mut packet = bytes.to_vec();
    if packet.len() >= 8 && mend & 3 != 0 {
        packet[6..8].fill(0);
        let header = if mend & 1 == 1 { pseudo_header(source, group, packet.len()) } else { Vec::new() };
        let sum = checksum(&[header, packet.clone()].concat());
        packet[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    let ttl = if mend & 4 == 0 { TTL } else { ttl };
    vrrp(&packet, source, group, ttl);
    carp(&packet, ttl);
});

fn vrrp(packet: &[u8], source: IpAddr, group: IpAddr, ttl: u8) {
    let read = Advertisement::read(packet, source, group, ttl);
    assert!(!is_carp(packet) || read == Err(Malformed::Carp), "never one for the other");
    let Ok(advertisement) = read else { return };
    assert_eq!(ttl, TTL);
    assert!(!advertisement.addresses.is_empty() && !advertisement.interval.is_zero() && advertisement.vrid != 0);
    for checksum in [Checksum::PseudoHeader, Checksum::Packet] {
        let mut written = Vec::new();
        advertisement.write(source, group, checksum, &mut written);
        // Seven addresses and CARP's length: only a peer that speaks version 2 to itself would send it.
        if !is_carp(&written) {
            assert_eq!(Advertisement::read(&written, source, group, TTL).as_ref(), Ok(&advertisement));
        }
    }
}

fn carp(packet: &[u8], ttl: u8) {
    let key = carp::Key::new(b"secret", 42, &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10))]);
    // Nobody signed it: it is refused, or of another group.
    assert!(matches!(carp::Advertisement::read(packet, ttl, |vhid| (vhid == 42).then_some(&key)), Err(_) | Ok(None)));
    let [advskew, advbase, demotion, at, change, ..] = packet else { return };
    let counter = packet.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let (advskew, advbase, demotion) = (*advskew, *advbase, *demotion);
    let advertisement = carp::Advertisement { vhid: 42, advbase, advskew, demotion, counter };
    let mut written = Vec::new();
    advertisement.write(&key, &mut written);
    let read = |packet: &[u8]| carp::Advertisement::read(packet, TTL, |_| Some(&key));
    assert_eq!(read(&written), Ok(Some(advertisement)));
    let at = usize::from(*at) % written.len();
    written[at] ^= change;
    assert!(*change == 0 || read(&written).is_err(), "a changed byte is found");
}

fn pseudo_header(source: IpAddr, group: IpAddr, length: usize) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(four) => Ipv4Addr::octets(&four).to_vec(),
        IpAddr::V6(six) => Ipv6Addr::octets(&six).to_vec(),
    };
    let length = u16::try_from(length).expect("a packet is short");
    [octets(source), octets(group), vec![0, 112], length.to_be_bytes().to_vec()].concat()
}

/// Written apart from the one under test.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for (at, byte) in bytes.iter().enumerate() {
        sum += u32::from(*byte) << (8 * (1 - at % 2));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("it was folded")
}
