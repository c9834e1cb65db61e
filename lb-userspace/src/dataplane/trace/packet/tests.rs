//! The packets that `trace` asks about.

use lb_common::{
    conntrack::tcp_flag::{ACK, SYN},
    flow::{FAMILY_V4, FAMILY_V6},
    packet::{ETHERNET, Packet, SliceFrame, parse},
};

use super::*;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn draft(source: &str, destination: &str, transport: Transport) -> Draft {
    Draft {
        source_mac: CLIENT_MAC,
        destination_mac: OUR_MAC,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport,
    }
}

fn tcp(flags: u8) -> Transport {
    Transport::Tcp { flags, sequence: 0x0102_0304, acknowledgment: 0 }
}

/// Sum of all 16-bit words in ones' complement, by 64-bit arithmetic: 0xffff for what carries a right checksum.
fn ones_sum(bytes: &[u8]) -> u64 {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(2), 0);
    let sum: u64 = padded.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum % 0xffff
}

#[test]
fn golden_syn() {
    let frame = draft("192.0.2.7:40000", "198.51.100.1:80", tcp(SYN)).frame();
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 1,  2, 0, 0, 0, 0, 7,  0x08, 0x00,
        0x45, 0, 0, 40,  0, 0, 0x40, 0,  64, 6, 0x4e, 0x94,  192, 0, 2, 7,  198, 51, 100, 1,
        0x9c, 0x40, 0, 80,  1, 2, 3, 4,  0, 0, 0, 0,  0x50, 0x02, 0xfa, 0xf0,  0x28, 0x1f, 0, 0,
    ];
    assert_eq!(frame, expected);
}

#[test]
fn checksums_are_right_by_another_computation() {
    let cases = [
        ("tcp4", draft("192.0.2.7:40000", "198.51.100.1:80", tcp(SYN))),
        ("udp4", draft("192.0.2.7:53", "198.51.100.1:53", Transport::Udp)),
        ("tcp6", draft("[2001:db8::7]:40000", "[2001:db8::10]:443", tcp(SYN | ACK))),
        ("udp6", draft("[2001:db8::7]:1", "[2001:db8::10]:65535", Transport::Udp)),
    ];
    for (name, draft) in cases {
        let frame = draft.frame();
        let (addresses, l4) = if draft.source.is_ipv4() {
            assert_eq!(ones_sum(&frame[14..34]), 0, "{name}: header checksum");
            (&frame[26..34], &frame[34..])
        } else {
            (&frame[22..54], &frame[54..])
        };
        let protocol = [0, draft.transport.protocol()];
        let pseudo = [addresses, &(l4.len() as u32).to_be_bytes(), &protocol, l4].concat();
        assert_eq!(ones_sum(&pseudo), 0, "{name}: transport checksum");
        let mut broken = pseudo.clone();
        broken[0] ^= 1;
        assert_ne!(ones_sum(&broken), 0, "{name}: the recompute can fail");
    }
}

#[test]
fn the_data_paths_parser_reads_what_was_asked_for() {
    let cases = [
        (draft("192.0.2.7:40000", "198.51.100.1:80", tcp(SYN)), FAMILY_V4, 6, SYN),
        (draft("[2001:db8::7]:40000", "[2001:db8::10]:80", Transport::Udp), FAMILY_V6, 17, 0),
    ];
    for (draft, family, protocol, flags) in cases {
        let frame = draft.frame();
        let mut packet = Packet::default();
        assert_eq!(parse(SliceFrame(&frame), ETHERNET, family, &mut packet), Ok(()));
        assert_eq!((packet.key.source_port(), packet.key.destination_port()), (40_000, 80));
        assert_eq!((packet.key.protocol(), packet.tcp_flags, packet.ttl), (protocol, flags, HOPS));
        assert_eq!(packet.end as usize, frame.len());
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    // Some source port makes the sum come out as zero: it must not be sent as "no checksum".
    let zero = (1..=u16::MAX).find(|port| {
        let draft = draft(&format!("192.0.2.7:{port}"), "198.51.100.1:53", Transport::Udp);
        let mut bytes = draft.transport();
        bytes[6..8].copy_from_slice(&[0, 0]);
        draft.pseudo_checksum(&bytes) == 0
    });
    let draft = draft(&format!("192.0.2.7:{}", zero.unwrap()), "198.51.100.1:53", Transport::Udp);
    assert_eq!(draft.frame()[40..42], [0xff, 0xff]);
}
