//! ClientHellos made by hand, whole and in pieces.

use super::*;

fn vector(bytes: usize, content: &[u8]) -> Vec<u8> {
    let mut out = content.len().to_be_bytes()[8 - bytes..].to_vec();
    out.extend_from_slice(content);
    out
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), vector(2, content)].concat()
}

fn name_extension(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(2, &[vec![0], vector(2, name)].concat()))
}

/// A ClientHello as a handshake message.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = [[3, 3].as_slice(), &[7; 32]].concat();
    body.extend(vector(1, &[9; 32]));
    body.extend(vector(2, &[0x13, 1, 0x0a, 0x0a]));
    body.extend(vector(1, &[0]));
    body.extend(vector(2, &extensions.concat()));
    [vec![1], vector(3, &body)].concat()
}

/// In records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [vec![22, 3, 1], vector(2, part)].concat()).collect()
}

fn usual() -> Vec<u8> {
    let grease = extension(0x0a0a, b"");
    let protocols = extension(16, &vector(2, &[vector(1, b"h2"), vector(1, b"http/1.1")].concat()));
    message(&[grease, name_extension(b"WWW.Example.org"), protocols, extension(43, &[2, 3, 4])])
}

#[test]
fn names_and_protocols_are_found() {
    let expected = ClientHello {
        server_name: Some("www.example.org".to_owned()),
        protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    let mut wire = records(&usual(), 1 << 14);
    assert_eq!(peek(&wire), Ok(Some(expected.clone())));
    wire.extend_from_slice(&[22, 3, 3, 0, 1, 9]);
    assert_eq!(peek(&wire), Ok(Some(expected)), "what follows does not matter");
}

#[test]
fn t6_every_truncation_is_incomplete() {
    for size in [3, 7, 100, 1 << 14] {
        let wire = records(&usual(), size);
        for length in 0..wire.len() {
            assert_eq!(peek(&wire[..length]), Ok(None), "{length} bytes in records of {size}");
        }
        assert!(peek(&wire).unwrap().unwrap().server_name.is_some(), "in records of {size}");
    }
}

#[test]
fn t6_one_byte_records_are_refused() {
    assert_eq!(peek(&records(&usual(), 1)), Err(BadHello::TooLong));
}

#[test]
fn t6_long_ones_are_refused_at_once() {
    assert_eq!(peek(&[22, 3, 1, 0x40, 0, 1, 0, 0x40, 0]), Err(BadHello::TooLong));
    let long = message(&[extension(21, &vec![0; 15_000]), name_extension(b"a")]);
    assert_eq!(peek(&records(&long, 1 << 14)).unwrap().unwrap().server_name.as_deref(), Some("a"));
    assert!(records(&long, 300).len() < MAX_WIRE);
}

#[test]
fn t6_what_is_no_hello_is_refused_at_its_first_bytes() {
    let cases: [(&str, &[u8]); 7] = [
        ("HTTP", b"G"),
        ("SSLv2", &[0x80, 0x2e]),
        ("alert", &[21, 3]),
        ("version 2", &[22, 2]),
        ("version 3.9", &[22, 3, 9]),
        ("server hello", &[22, 3, 3, 0, 9, 2]),
        ("application data", &[23]),
    ];
    for (name, bytes) in cases {
        assert_eq!(peek(bytes), Err(BadHello::NotTls), "{name}");
    }
    assert_eq!(peek(&[22, 3, 1, 0, 0]), Err(BadHello::Malformed), "empty record");
    assert_eq!(peek(&[22, 3, 1, 0x40, 1]), Err(BadHello::Malformed), "record above 2^14");
}

#[test]
fn t4_names_that_are_none_are_refused() {
    let long = [b"a".as_slice(); 64].concat();
    let longer = "a.".repeat(127);
    let bad: [&[u8]; 11] =
        [b"", b".", b"a.", b".a", b"a..b", b"a\0b", b"a b", b"a:1", b"[::1]", "é".as_bytes(), b"a/b"];
    for name in bad.into_iter().chain([long.as_slice(), longer.as_bytes()]) {
        let wire = records(&message(&[name_extension(name)]), 1 << 14);
        assert_eq!(peek(&wire), Err(BadHello::ServerName), "{:?}", name.escape_ascii().to_string());
    }
    for good in ["a", "1.2.3.4", "xn--a_b.c", "A.b"] {
        let wire = records(&message(&[name_extension(good.as_bytes())]), 1 << 14);
        assert_eq!(peek(&wire).unwrap().unwrap().server_name, Some(good.to_ascii_lowercase()));
    }
}

#[test]
fn t4_two_names_are_refused_and_none_is_none() {
    let read = |extensions: &[Vec<u8>]| peek(&records(&message(extensions), 1 << 14));
    assert_eq!(read(&[name_extension(b"a"), name_extension(b"b")]), Err(BadHello::ServerName));
    let entry = |name: &[u8]| [vec![0], vector(2, name)].concat();
    assert_eq!(read(&[extension(0, &vector(2, &[entry(b"a"), entry(b"b")].concat()))]), Err(BadHello::ServerName));
    assert_eq!(read(&[]), Ok(Some(ClientHello::default())));
    let other = [vec![1], vector(2, b"x")].concat();
    let read_other = read(&[extension(0, &vector(2, &[other, entry(b"a")].concat()))]).unwrap().unwrap();
    assert_eq!(read_other.server_name.as_deref(), Some("a"));
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let read = |message: &[u8]| peek(&records(message, 1 << 14));
    let good = usual();
    // Each length inside the body, one too long: the message says it is complete.
    for at in [4 + 34, 4 + 34 + 33 + 1, 4 + 34 + 33 + 6, 4 + 34 + 33 + 6 + 3] {
        let mut bad = good.clone();
        bad[at] = bad[at].wrapping_add(200);
        assert_eq!(read(&bad), Err(BadHello::Malformed), "at {at}");
    }
    let cases = [
        extension(0, &[0, 9, 0, 0, 1, b'a']),
        extension(0, &[0, 4, 0, 0, 1, b'a', 0]),
        extension(16, &[0, 1, 0]),
        extension(16, &[0, 5, 2, b'h', b'2']),
        extension(16, &vector(2, &vector(1, b"x").repeat(33))),
    ];
    for bad in cases {
        assert_eq!(read(&message(std::slice::from_ref(&bad))), Err(BadHello::Malformed), "{bad:?}");
    }
    let mut trailing = message(&[]);
    trailing.push(0);
    trailing[3] += 1;
    assert_eq!(read(&trailing), Err(BadHello::Malformed), "bytes after the extensions");
}
