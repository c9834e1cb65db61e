//! The frames of the probes, byte by byte.

use lb_common::conntrack::tcp_flag::ACK;

use super::*;

const OURS: Mac = [2, 0, 0, 0, 0, 1];
const NODE: Mac = [2, 0, 0, 0, 0, 0x11];

fn ends(source: &str, destination: &str) -> Ends {
    Ends { mac: OURS, node: NODE, source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn golden_arp_request() {
    let frame = who_has(OURS, ip("10.0.0.1"), ip("192.0.2.10")).unwrap();
    #[rustfmt::skip]
    let expected = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  2, 0, 0, 0, 0, 1,  0x08, 0x06,
        0, 1, 0x08, 0, 6, 4, 0, 1,
        2, 0, 0, 0, 0, 1,  10, 0, 0, 1,
        0, 0, 0, 0, 0, 0,  192, 0, 2, 10,
    ];
    assert_eq!(frame[..42], expected);
    assert_eq!(frame.len(), 60);
    assert!(frame[42..].iter().all(|byte| *byte == 0));
}

#[test]
fn golden_neighbour_solicitation() {
    let frame = who_has(OURS, ip("2001:db8::1"), ip("2001:db8::12:3456")).unwrap();
    #[rustfmt::skip]
    let expected = [
        0x33, 0x33, 0xff, 0x12, 0x34, 0x56,  2, 0, 0, 0, 0, 1,  0x86, 0xdd,
        0x60, 0, 0, 0,  0, 32, 58, 255,
        0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56,
        135, 0, 0xb3, 0x5a, 0, 0, 0, 0,
        0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        1, 1, 2, 0, 0, 0, 0, 1,
    ];
    assert_eq!(frame, expected);
}

#[test]
fn golden_syn_and_reset() {
    let ends = ends("10.0.0.1:40000", "192.0.2.10:80");
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 0x11,  2, 0, 0, 0, 0, 1,  0x08, 0x00,
        0x45, 0, 0, 40,  0, 0, 0x40, 0,  64, 6, 0x6e, 0xc5,  10, 0, 0, 1,  192, 0, 2, 10,
        0x9c, 0x40, 0, 80,  0x6c, 0x62, 0, 0,  0, 0, 0, 0,  0x50, 0x02, 0xfa, 0xf0,  0xdf, 0xf3, 0, 0,
        0, 0, 0, 0, 0, 0, // padding
    ];
    assert_eq!(syn(&ends), expected);
    let reset = reset(&ends);
    assert_eq!(reset[38..42], [0x6c, 0x62, 0, 1], "the sequence number after the SYN");
    assert_eq!(reset[47], RST);
}

#[test]
fn families_are_not_mixed() {
    assert_eq!(who_has(OURS, ip("10.0.0.1"), ip("2001:db8::1")), None);
    assert_eq!(who_has(OURS, ip("2001:db8::1"), ip("10.0.0.1")), None);
}

fn arp_reply() -> Vec<u8> {
    let mut frame = who_has(NODE, ip("192.0.2.10"), ip("10.0.0.1")).unwrap();
    frame[21] = 2;
    frame
}

fn advertisement(with_option: bool) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend("2001:db8::10".parse::<Ipv6Addr>().unwrap().octets());
    if with_option {
        message.extend([2, 1]);
        message.extend(NODE);
    }
    let mut frame = [OURS, [2, 0, 0, 0, 0, 0x99]].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
    frame.extend("2001:db8::10".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    frame.extend(message);
    frame
}

fn syn_ack(source: &str, destination: &str) -> Vec<u8> {
    Draft {
        source_mac: NODE,
        destination_mac: OURS,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport: Transport::Tcp { flags: SYN | ACK, sequence: 9, acknowledgment: SEQUENCE + 1 },
    }
    .frame()
}

#[test]
fn answers_are_read_and_every_truncation_is_nothing() {
    let segment = |source: &str, destination: &str| Answer::Segment {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        flags: SYN | ACK,
    };
    let (client4, vip4) = ("10.0.0.1:40000", "192.0.2.10:80");
    let (client6, vip6) = ("[2001:db8::1]:40000", "[2001:db8::10]:80");
    let cases = [
        ("arp", arp_reply(), Answer::Owner { address: ip("192.0.2.10"), mac: NODE }, 42),
        ("advertisement", advertisement(true), Answer::Owner { address: ip("2001:db8::10"), mac: NODE }, 86),
        (
            "advertisement without option",
            advertisement(false),
            Answer::Owner { address: ip("2001:db8::10"), mac: [2, 0, 0, 0, 0, 0x99] },
            78,
        ),
        ("syn-ack 4", syn_ack(vip4, client4), segment(vip4, client4), 54),
        ("syn-ack 6", syn_ack(vip6, client6), segment(vip6, client6), 74),
    ];
    for (name, frame, expected, needed) in cases {
        assert_eq!(read(&frame), Some(expected), "{name}");
        for length in 0..frame.len() {
            let expected = (length >= needed).then_some(expected);
            assert_eq!(read(&frame[..length]), expected, "{name}, {length} bytes");
        }
    }
}

#[test]
fn questions_and_strangers_are_no_answers() {
    let mut other_icmp = advertisement(true);
    other_icmp[54] = 135;
    let mut other_type = arp_reply();
    other_type[12] = 0x12;
    let udp = Draft {
        source_mac: NODE,
        destination_mac: OURS,
        source: "192.0.2.10:80".parse().unwrap(),
        destination: "10.0.0.1:40000".parse().unwrap(),
        transport: Transport::Udp,
    };
    let frames = [
        ("our own ARP request", who_has(OURS, ip("10.0.0.1"), ip("192.0.2.10")).unwrap()),
        ("our own solicitation", who_has(OURS, ip("2001:db8::1"), ip("2001:db8::10")).unwrap()),
        ("a solicitation", other_icmp),
        ("another protocol", other_type),
        ("udp", udp.frame()),
    ];
    for (name, frame) in frames {
        assert_eq!(read(&frame), None, "{name}");
    }
}
