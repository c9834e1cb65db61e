//! Bodies of every framing, in pieces of every size, both ways.

use std::io::{Read, Write};

use super::{exchange, read_response};
use crate::proxy::testing::{Proxy, Recorder, Server, http_plan, read_head, read_request};

/// Bytes that are recognised where they are cut or mixed up.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// A response or request body in the chunked coding, in chunks of `size`, the first with an extension.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, chunk) in body.chunks(size).enumerate() {
        let extension = if i == 0 { ";name=value" } else { "" };
        out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nTrailer-Field: dropped\r\n\r\n");
    out
}

/// Takes the chunked coding off.
fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        bytes = &bytes[line + 2..];
        if length == 0 {
            assert_eq!(bytes, b"\r\n");
            return out;
        }
        out.extend_from_slice(&bytes[..length]);
        assert_eq!(&bytes[length..length + 2], b"\r\n");
        bytes = &bytes[length + 2..];
    }
}

#[test]
fn responses_of_known_length_come_whole() {
    for length in [0, 1, 16 * 1024 - 60, 16 * 1024, 70_000, 100_000, 3_000_000] {
        let body = pattern(length);
        let sent = body.clone();
        let node = Server::start(move |mut peer| {
            while read_request(&mut peer).is_some() {
                peer.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).unwrap();
                peer.write_all(&sent).unwrap();
            }
        });
        let proxy = Proxy::start(http_plan(&[node.address()]));
        let mut client = proxy.connect();
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert!(read_response(&mut client).1 == body, "{length} bytes");
        }
    }
}

#[test]
fn chunked_and_unbounded_responses_come_whole() {
    for (length, size) in [(1, 1), (1000, 7), (100_000, 65_536), (300_000, 100_000), (40_000, 16_384)] {
        let body = pattern(length);
        let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        response.extend_from_slice(&chunked(&body, size));
        let mut unbounded = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        unbounded.extend_from_slice(&body);
        for response in [response, unbounded] {
            let node = Server::start(move |mut peer| {
                read_head(&mut peer);
                peer.write_all(&response).unwrap();
            });
            let proxy = Proxy::start(http_plan(&[node.address()]));
            let mut client = proxy.connect();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            let head = read_head(&mut client);
            assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert!(dechunk(&rest) == body, "{length} bytes in chunks of {size}");
        }
    }
}

#[test]
fn request_bodies_come_whole_and_framed_once() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    for (length, size) in [(0, 1), (5, 2), (1000, 999), (50_000, 1), (50_000, 60_000), (2_000_000, 100_000)] {
        let body = pattern(length);
        client.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").as_bytes()).unwrap();
        client.write_all(&body).unwrap();
        assert_eq!(read_response(&mut client).1, b"ok");
        let (head, received) = node.last();
        assert!(received == body && head.contains(&format!("\r\nContent-Length: {length}\r\n")), "{head}");
        client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        client.write_all(&chunked(&body, size)).unwrap();
        assert_eq!(read_response(&mut client).1, b"ok");
        let (head, received) = node.last();
        assert!(received == body && !head.contains("Content-Length"), "{head}");
        assert_eq!(head.matches("Transfer-Encoding: chunked\r\n").count(), 1, "{head}");
    }
    assert_eq!(node.connections(), 1);
}

#[test]
fn a_broken_chunk_closes_both_sides_and_answers_400() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let answer =
        exchange(&proxy, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(node.requests().is_empty(), "no whole request came");
}

#[test]
fn a_client_that_waits_for_100_gets_it_once_and_the_node_is_not_asked() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").unwrap();
        assert_eq!(read_head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"body").unwrap();
        let (head, body) = read_response(&mut client);
        assert!(head.starts_with("HTTP/1.1 200") && body == b"ok", "{head}");
        let (head, body) = node.last();
        assert!(!head.contains("Expect") && body == b"body", "{head}");
    }
}

#[test]
fn an_early_response_is_passed_on_and_what_follows_is_no_request() {
    let node = Server::start(|mut peer| {
        read_head(&mut peer);
        peer.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").unwrap();
        let _ = peer.read_to_end(&mut Vec::new());
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").unwrap();
    let (head, body) = read_response(&mut client);
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("\r\nConnection: close\r\n"), "{head}");
    assert_eq!(body, b"no");
    // THREATS H2: a leftover that looks like a request is not one.
    let _ = client.write_all(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn interim_responses_pass_and_too_many_do_not() {
    let start = |count: usize| {
        Server::start(move |mut peer| {
            read_head(&mut peer);
            for _ in 0..count {
                peer.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").unwrap();
            }
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        })
    };
    let node = start(2);
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.matches("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").count(), 2, "{answer}");
    assert!(answer.ends_with("ok"), "{answer}");
    let node = start(11);
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let answer = exchange(&proxy, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(answer.contains("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
}

#[test]
fn trailers_of_a_node_reach_who_takes_them() {
    let node = Server::start(|mut peer| {
        while let head = read_head(&mut peer)
            && !head.is_empty()
        {
            let asked = head.contains("\r\nTE: trailers\r\nConnection: TE\r\n");
            let last = if asked { "X-Sum: 1\r\nContent-Length: 9\r\nSet-Cookie: a=b\r\n" } else { "" };
            let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{last}\r\n");
            peer.write_all(answer.as_bytes()).unwrap();
        }
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    for (fields, expected) in [
        ("TE: trailers\r\nConnection: TE, close\r\n", "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"),
        ("Connection: close\r\n", "2\r\nok\r\n0\r\n\r\n"),
    ] {
        let answer = exchange(&proxy, format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{answer}");
    }
}
