//! Headers by their bytes, and round trips.

use super::*;

fn addresses(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (source, destination) = text.split_once(' ')?;
    Some((source.parse().unwrap(), destination.parse().unwrap()))
}

#[test]
fn h8_lines_are_read_strictly() {
    let good = [
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\n", "1.2.3.4:1 5.6.7.8:65535"),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\nGET", "1.2.3.4:0 5.6.7.8:0"),
        ("PROXY TCP6 ::1 2001:db8::2 1 2\r\n", "[::1]:1 [2001:db8::2]:2"),
        ("PROXY UNKNOWN\r\n", ""),
        ("PROXY UNKNOWN ffff:f...f:ffff x 65535 65535\r\n", ""),
    ];
    for (text, expected) in good {
        let header = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(header.addresses, addresses(expected), "{text:?}");
        assert_eq!(header.length, text.find('\n').unwrap() + 1);
        for length in 0..header.length {
            assert_eq!(parse(&text.as_bytes()[..length]), Ok(None), "{length} bytes of {text:?}");
        }
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(MAX_V1 - 16));
    assert_eq!(parse(longest.as_bytes()).unwrap().unwrap().length, MAX_V1);
    let bad = [
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 +2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx",
        "PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
        &longest.replace('N', "NN"),
        &"PROXY UNKNOWN ".repeat(20),
    ];
    for text in bad {
        assert_eq!(parse(text.as_bytes()), Err(BadProxy::Line), "{text:?}");
        check_truncations(text.as_bytes());
    }
    for text in ["GET / HTTP/1.1\r\n", "POST", "PROXX", "proxy ", "\r\n\r\n\0\r\nQUIX", "\u{16}\u{3}"] {
        assert_eq!(parse(text.as_bytes()), Err(BadProxy::Absent), "{text:?}");
        check_truncations(text.as_bytes());
    }
}

/// Every part from the beginning is incomplete or refused as the whole is.
fn check_truncations(bytes: &[u8]) {
    let whole = parse(bytes).unwrap_err();
    for length in 0..bytes.len() {
        assert!(
            [Ok(None), Err(whole)].contains(&parse(&bytes[..length])),
            "{length} bytes of {}",
            bytes.escape_ascii()
        );
    }
}

/// A header of version 2.
fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [SIGNATURE.as_slice(), &[command, family], &length, payload].concat()
}

const FOUR: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];

#[test]
fn h8_binary_headers_are_read_strictly() {
    let with = |tail: &[u8]| [FOUR.as_slice(), tail].concat();
    let four = addresses("1.2.3.4:80 5.6.7.8:443");
    let good = [
        ("IPv4", v2(0x21, 0x11, &FOUR), four),
        ("unknown TLV", v2(0x21, 0x11, &with(&[0xee, 0, 2, 9, 9, 4, 0, 0])), four),
        ("LOCAL", v2(0x20, 0, b""), None),
        ("LOCAL with addresses", v2(0x20, 0x11, &FOUR), None),
        ("LOCAL with garbage", v2(0x20, 0x31, b"abc"), None),
        ("UNSPEC", v2(0x21, 0, b"abc"), None),
    ];
    for (name, bytes, expected) in good {
        let header = parse(&bytes).unwrap().unwrap();
        assert_eq!((header.addresses, header.length), (expected, bytes.len()), "{name}");
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Ok(None), "{length} bytes of {name}");
        }
    }
    let bad = [
        ("version 1", v2(0x11, 0x11, &FOUR), BadProxy::Unsupported),
        ("command 2", v2(0x22, 0x11, &FOUR), BadProxy::Unsupported),
        ("UDP", v2(0x21, 0x12, &FOUR), BadProxy::Unsupported),
        ("unix", v2(0x21, 0x31, &[0; 216]), BadProxy::Unsupported),
        ("family 4", v2(0x21, 0x41, &FOUR), BadProxy::Unsupported),
        ("too short", v2(0x21, 0x11, &FOUR[1..]), BadProxy::Length),
        ("too short for IPv6", v2(0x21, 0x21, &FOUR), BadProxy::Length),
        ("too long", v2(0x21, 0x11, &[0; MAX_V2 + 1]), BadProxy::Length),
        ("half a TLV", v2(0x21, 0x11, &with(&[4, 0])), BadProxy::Tlv),
        ("TLV too long", v2(0x21, 0x11, &with(&[4, 0, 1])), BadProxy::Tlv),
        ("CRC too short", v2(0x21, 0x11, &with(&[3, 0, 1, 0])), BadProxy::Tlv),
        ("wrong CRC", v2(0x21, 0x11, &with(&[3, 0, 4, 0, 0, 0, 0])), BadProxy::Checksum),
    ];
    for (name, bytes, expected) in bad {
        assert_eq!(parse(&bytes), Err(expected), "{name}");
        check_truncations(&bytes);
    }
}

#[test]
fn h8_checksums_are_verified() {
    // Made by another program (table-driven, in Python) over the header with zeroes in its place.
    let mut bytes = v2(0x21, 0x11, &[FOUR.as_slice(), &[4, 0, 1, 0, 3, 0, 4, 0, 0, 0, 0]].concat());
    let place = bytes.len() - 4;
    let sum = 0x9ff04429_u32.to_be_bytes();
    bytes[place..].copy_from_slice(&sum);
    assert!(parse(&bytes).unwrap().unwrap().addresses.is_some());
    bytes[20] ^= 1;
    assert_eq!(parse(&bytes), Err(BadProxy::Checksum));
}

#[test]
fn what_is_written_is_read() {
    let tls = Tls {
        verified: true,
        version: Some("TLSv1.3"),
        cipher: Some("TLS_AES_128_GCM_SHA256"),
        common_name: Some("é"),
    };
    let facts = Facts { alpn: Some(b"h2"), authority: Some("a.b"), tls: Some(tls) };
    let unverified = Facts { tls: Some(Tls { verified: false, ..tls }), ..facts };
    let pairs = [
        ("1.2.3.4:5 6.7.8.9:10", "1.2.3.4:5 6.7.8.9:10"),
        ("[::1]:5 [2001:db8::1]:10", "[::1]:5 [2001:db8::1]:10"),
        ("[::ffff:1.2.3.4]:5 [::ffff:6.7.8.9]:10", "1.2.3.4:5 6.7.8.9:10"),
        ("1.2.3.4:5 [::1]:10", "[::ffff:1.2.3.4]:5 [::1]:10"),
    ];
    for (given, expected) in pairs {
        let (source, destination) = addresses(given).unwrap();
        let mut out = b"before".to_vec();
        write_v1(&mut out, source, destination);
        let header = parse(&out[6..]).unwrap().unwrap();
        assert_eq!((header.addresses, header.length), (addresses(expected), out.len() - 6), "{given}");
        for facts in [Facts::default(), facts, unverified] {
            out.truncate(6);
            write_v2(&mut out, Some((source, destination)), &facts);
            let header = parse(&out[6..]).unwrap().unwrap();
            assert_eq!((header.addresses, header.length), (addresses(expected), out.len() - 6), "{given}");
            assert_eq!((header.tlvs.alpn(), header.tlvs.authority()), (facts.alpn, facts.authority));
            let told = facts.tls.map(|tls| Tls { common_name: tls.common_name.filter(|_| tls.verified), ..tls });
            assert_eq!(header.tlvs.tls(), told);
        }
    }
    let mut out = Vec::new();
    write_v2(&mut out, None, &facts);
    assert_eq!(parse(&out).unwrap().unwrap(), Header { addresses: None, tlvs: Tlvs::default(), length: 16 });
}

#[test]
fn facts_that_do_not_fit_are_left_out() {
    let long = "a".repeat(MAX_V2);
    let tls = Tls { verified: true, version: Some("TLSv1.3"), cipher: None, common_name: Some(&long) };
    let facts = Facts { alpn: Some(b"h2"), authority: Some(&long), tls: Some(tls) };
    let mut out = Vec::new();
    write_v2(&mut out, addresses("1.2.3.4:5 6.7.8.9:10"), &facts);
    let tlvs = parse(&out).unwrap().unwrap().tlvs;
    assert_eq!((tlvs.alpn(), tlvs.authority()), (Some(b"h2".as_slice()), None));
    assert_eq!(tlvs.tls(), Some(Tls { common_name: None, ..tls }));
}
