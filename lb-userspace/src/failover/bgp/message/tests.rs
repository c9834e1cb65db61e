//! Bytes that FRR and BIRD take, and bytes that nobody should send.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn path(communities: &[Community]) -> Path<'_> {
    Path { path: vec![65_001], four_octets: true, med: None, local_preference: None, communities }
}

fn open() -> Open {
    Open {
        asn: 4_200_000_001,
        hold: Duration::from_secs(3),
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        four_octets: true,
        families: Family::ALL.to_vec(),
    }
}

const MARKER: &str = "ffffffffffffffffffffffffffffffff";

#[test]
fn messages_are_what_the_rfcs_say() {
    let vip = [IpAddr::from([198, 51, 100, 10])];
    let golden: [(Vec<u8>, &[&str]); 6] = [
        // Length, type, version, AS_TRANS, hold time, identifier; multiprotocol twice, route refresh, AS of 32 bits.
        (
            open().write(),
            &[
                "0033",
                "01",
                "04",
                "5ba0",
                "0003",
                "c0000201",
                "160214",
                "010400010001",
                "010400020001",
                "0200",
                "4104fa56ea01",
            ],
        ),
        (keep_alive(), &["0013", "04"]),
        (notification(Fault::HOLD_TIMER), &["0015", "03", "0400"]),
        // No withdrawals; origin, path, next hop; the route.
        (
            announce(IpAddr::from([192, 0, 2, 1]), &vip, &path(&[])),
            &["0030", "02", "0000", "0014", "40010100", "400206", "02010000fde9", "400304c0000201", "20c633640a"],
        ),
        (withdraw(Family::V4, &vip), &["001c", "02", "0005", "20c633640a", "0000"]),
        (
            withdraw(Family::V6, &["2001:db8::10".parse().unwrap()]),
            &["002e", "02", "0000", "0017", "800f14", "000201", "80", "20010db8000000000000000000000010"],
        ),
    ];
    for (bytes, expected) in golden {
        assert_eq!(hex(&bytes), MARKER.to_owned() + &expected.concat());
    }
}

#[test]
fn ipv6_routes_and_communities_are_attributes() {
    let communities = [Community::Plain(65_001, 100), Community::Large(4_200_000_001, 1, 2)];
    let message = announce("fd00::1".parse().unwrap(), &["fd00::2".parse().unwrap()], &path(&communities));
    let text = hex(&message);
    for part in [
        "c00804fde90064",
        "c0200cfa56ea010000000100000002",
        "800e26000201".to_owned().as_str(),
        "10fd00000000000000000000000000000100",
        "80fd000000000000000000000000000002",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!text.contains("4003"), "no IPv4 next hop: {text}");
}

#[test]
fn a_neighbour_of_16_bits_hears_of_the_large_number_beside_the_path() {
    let path = Path { path: vec![4_200_000_001; 2], four_octets: false, ..path(&[]) };
    let text = hex(&announce(IpAddr::from([192, 0, 2, 1]), &[IpAddr::from([198, 51, 100, 10])], &path));
    assert!(text.contains("40020602025ba05ba0"), "{text}");
    assert!(text.contains("c0110a0202fa56ea01fa56ea01"), "{text}");
}

#[test]
fn the_longest_messages_fit() {
    let communities = vec![Community::Large(1, 2, 3); 64];
    let path = Path { path: vec![4_200_000_001; 17], four_octets: false, ..path(&communities) };
    let vips: Vec<IpAddr> = (0..ROUTES).map(|n| IpAddr::from([n as u16; 8])).collect();
    assert!(announce("fd00::1".parse().unwrap(), &vips, &path).len() <= MAX);
    assert!(withdraw(Family::V6, &vips).len() <= MAX);
}

#[test]
fn what_is_written_is_read_and_waits_until_it_is_whole() {
    for (bytes, message) in [
        (open().write(), Message::Open(open())),
        (keep_alive(), Message::KeepAlive),
        (notification(Fault(6, 2)), Message::Notification(Fault(6, 2))),
        (withdraw(Family::V4, &[IpAddr::from([1, 2, 3, 4])]), Message::Update),
    ] {
        let more = [bytes.clone(), vec![0xff; 3]].concat();
        assert_eq!(read(&more), Ok(Some((message, bytes.len()))));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), Ok(None), "{length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn what_nobody_should_send_is_refused_as_the_rfc_says() {
    let changed = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let open = open().write();
    let cases = [
        ("marker", changed(&open, 3, 0), Fault::NOT_SYNCHRONIZED),
        ("too long", changed(&keep_alive(), 16, 0x10), Fault::BAD_LENGTH),
        ("too short", changed(&keep_alive(), 17, 18), Fault::BAD_LENGTH),
        ("unknown type", changed(&keep_alive(), 18, 9), Fault::BAD_TYPE),
        ("keepalive with a body", changed(&[keep_alive(), vec![0]].concat(), 17, 20), Fault::BAD_LENGTH),
        ("version 3", changed(&open, 19, 3), Fault::BAD_VERSION),
        ("hold time of 2 s", changed(&open, 23, 2), Fault::BAD_HOLD_TIME),
        ("parameters longer than the message", changed(&open, 28, 0x1b), Fault::OPEN),
        ("a capability longer than its parameter", changed(&open, 32, 0x60), Fault::OPEN),
        ("another parameter", changed(&open, 29, 1), Fault(2, 4)),
    ];
    for (name, bytes, fault) in cases {
        assert_eq!(read(&bytes), Err(fault), "{name}");
    }
}

#[test]
fn bytes_of_any_kind_are_answered_without_a_panic() {
    let mut seed = 7_u32;
    for _ in 0..20_000 {
        let mut bytes = open().write();
        for _ in 0..4 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = 16 + (seed >> 16) as usize % (bytes.len() - 16);
            bytes[at] = (seed >> 8) as u8;
        }
        if let Ok(Some((_, length))) = read(&bytes) {
            assert!((HEADER..=bytes.len()).contains(&length), "{}", hex(&bytes));
        }
    }
}
