//! Responses that are compressed on their way, and bytes that wait for their bandwidth classes.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use super::policy::http;
use crate::{
    control::proxy::{
        BandwidthClass, ProxyPlan,
        http::Coding,
        rule::{Action, Condition, Rule},
    },
    proxy::testing::{Proxy, Recorder, Server, http_plan, read_head, read_request, stream_plan},
};

const TEXT: &str = "the same words over and over, which is what compression lives on. ";

fn compressing(node: std::net::SocketAddr) -> ProxyPlan {
    let mut plan = http_plan(&[node]);
    http(&mut plan).compression = vec![Coding::Zstd, Coding::Br, Coding::Gzip];
    http(&mut plan).compression_min_bytes = 100;
    plan
}

/// A node that answers with `fields` and text of so many bytes.
fn texts(fields: &'static str, length: usize) -> Server {
    Server::start(move |mut peer| {
        while let head = read_head(&mut peer)
            && !head.is_empty()
        {
            let body: String = TEXT.chars().cycle().take(length).collect();
            let body = if head.starts_with("HEAD") { String::new() } else { body };
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{fields}Content-Length: {length}\r\n\r\n");
            peer.write_all(head.as_bytes()).unwrap();
            peer.write_all(body.as_bytes()).unwrap();
        }
    })
}

/// Head and body, out of its chunks.
fn get(proxy: &Proxy, method: &str, fields: &str) -> (String, Vec<u8>) {
    let mut client = proxy.connect();
    client
        .write_all(format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n").as_bytes())
        .unwrap();
    let head = read_head(&mut client);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    if !head.contains("Transfer-Encoding: chunked") {
        return (head, rest);
    }
    let framed = [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &rest[..]].concat();
    (head, read_request(&mut &framed[..]).expect("whole chunks").1)
}

fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "gzip" => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap()),
        "br" => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut out).unwrap()),
        _ => out = zstd::decode_all(body).unwrap(),
    }
    out
}

#[test]
fn responses_are_compressed_as_their_clients_like_it() {
    let length = 300_000;
    let node = texts("ETag: \"x\"\r\nAccept-Ranges: bytes\r\n", length);
    let proxy = Proxy::start(compressing(node.address()));
    let expected: Vec<u8> = TEXT.bytes().cycle().take(length).collect();
    for coding in ["gzip", "br", "zstd"] {
        let (head, body) = get(&proxy, "GET", &format!("Accept-Encoding: {coding}\r\n"));
        assert!(body.len() < length / 10, "{coding}: {}", body.len());
        assert_eq!(decoded(coding, &body), expected, "{coding}");
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains(&format!("\r\ncontent-encoding: {coding}\r\n")), "{head}");
        assert!(lower.contains("\r\nvary: accept-encoding\r\n") && lower.contains("\r\netag: w/\"x\"\r\n"), "{head}");
        assert!(!lower.contains("content-length") && !lower.contains("accept-ranges"), "{head}");
    }
    let (head, body) = get(&proxy, "GET", "");
    assert!(
        body == expected && head.contains("\r\nvary: Accept-Encoding\r\n") && head.contains("ETag: \"x\""),
        "{head}"
    );
    let (head, body) = get(&proxy, "HEAD", "Accept-Encoding: gzip\r\n");
    assert!(body.is_empty() && head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
    let snapshot = proxy.handle().stats().snapshot();
    let server = &snapshot.virtual_servers["test"];
    assert_eq!(server.compressed_in, 3 * length as u64);
    assert!((1..3 * length as u64 / 10).contains(&server.compressed_out), "{}", server.compressed_out);
}

#[test]
fn what_must_stay_as_it_is_stays() {
    for fields in ["Cache-Control: no-transform\r\n", "Content-Encoding: x\r\n", "Set-Cookie: a=b\r\n"] {
        let node = texts(fields, 1000);
        let proxy = Proxy::start(compressing(node.address()));
        let (head, body) = get(&proxy, "GET", "Accept-Encoding: gzip\r\n");
        assert!(body.len() == 1000 && !head.contains("gzip") && head.contains(fields), "{head}");
    }
    // As rules change it, too.
    let node = texts("", 1000);
    let mut plan = compressing(node.address());
    let actions = vec![Action::SetHeader("cache-control".to_owned(), "no-transform".to_owned())];
    http(&mut plan).rules.response = vec![Rule { name: "r".to_owned(), when: Condition::Always, actions }];
    let (head, body) = get(&Proxy::start(plan), "GET", "Accept-Encoding: gzip\r\n");
    assert!(body.len() == 1000 && !head.contains("gzip"), "{head}");
}

#[test]
fn a_stream_of_events_is_compressed_and_not_held_back() {
    let node = Server::start(|mut peer| {
        read_head(&mut peer);
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n").unwrap();
        // The client says that it has the first by closing.
        let _ = peer.read(&mut [0; 1]);
    });
    let proxy = Proxy::start(compressing(node.address()));
    for coding in ["gzip", "br", "zstd"] {
        let mut client = proxy.connect();
        client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n").as_bytes()).unwrap();
        assert!(read_head(&mut client).to_ascii_lowercase().contains(&format!("content-encoding: {coding}\r\n")));
        let mut body = Vec::new();
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("data: one\n\n") {
            let mut bytes = [0; 512];
            let count = client.read(&mut bytes).unwrap();
            assert!(count > 0, "{coding}: ended");
            body.extend_from_slice(&bytes[..count]);
            text = so_far(coding, &unchunked(&body));
        }
    }
}

/// Data of the chunks that are whole.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = body.get(end + 2..end + 2 + size) else { break };
        data.extend_from_slice(chunk);
        body = body.get(end + 4 + size..).unwrap_or_default();
    }
    data
}

/// What can be decoded of a body that did not end yet.
fn so_far(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut decoder: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        _ => Box::new(zstd::Decoder::new(body).unwrap()),
    };
    let mut byte = [0; 1];
    while matches!(decoder.read(&mut byte), Ok(1)) {
        out.push(byte[0]);
    }
    out
}

fn paced(mut plan: ProxyPlan, bytes_per_s: u64) -> ProxyPlan {
    plan.bandwidth_classes.insert("class".to_owned(), BandwidthClass { bytes_per_s });
    plan.virtual_servers.get_mut("test").unwrap().bandwidth = Some("class".to_owned());
    plan
}

/// Whether bytes went at the rate: not faster, beyond a burst of a quarter of a second, and not much slower.
fn at_rate(bytes: usize, bytes_per_s: usize, took: Duration) {
    let ideal = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
    assert!(took + Duration::from_millis(350) >= ideal, "too fast: {took:?} for {ideal:?}");
    assert!(took <= ideal * 2 + Duration::from_secs(1), "too slow: {took:?} for {ideal:?}");
}

#[test]
fn responses_and_requests_wait_for_their_class_and_share_it() {
    const LENGTH: usize = 500_000;
    let node = texts("", LENGTH);
    let proxy = Proxy::start(paced(http_plan(&[node.address()]), 1_000_000));
    let begin = Instant::now();
    let ended = std::thread::scope(|scope| {
        let clients = [0, 1].map(|_| scope.spawn(|| (get(&proxy, "GET", "").1.len(), begin.elapsed())));
        clients.map(|client| client.join().unwrap())
    });
    assert_eq!(ended.map(|(length, _)| length), [LENGTH; 2]);
    at_rate(2 * LENGTH, 1_000_000, begin.elapsed());
    let apart = ended[0].1.abs_diff(ended[1].1);
    assert!(apart < Duration::from_millis(450), "one waited for the other: {ended:?}");

    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut plan = paced(http_plan(&[node.address()]), 1_000_000);
    // Slower than this by the class alone is not the client's fault.
    plan.virtual_servers.get_mut("test").unwrap().timeouts.body_rate = 2_000_000;
    plan.virtual_servers.get_mut("test").unwrap().timeouts.body_grace = Duration::from_millis(100);
    let proxy = Proxy::start(plan);
    let begin = Instant::now();
    let mut client = proxy.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n").unwrap();
    client.write_all(&vec![b'x'; 900_000]).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    at_rate(900_000, 1_000_000, begin.elapsed());
    assert_eq!(node.last().1.len(), 900_000);
}

#[test]
fn who_waits_for_the_class_is_not_cut_as_stalled() {
    let node = texts("", 60_000);
    let mut plan = paced(http_plan(&[node.address()]), 40_000);
    let timeouts = &mut plan.virtual_servers.get_mut("test").unwrap().timeouts;
    (timeouts.write_stall, timeouts.idle) = (Duration::from_millis(100), Duration::from_millis(100));
    plan.pools.get_mut("nodes").unwrap().timeouts.idle = Duration::from_millis(100);
    let proxy = Proxy::start(plan);
    assert_eq!(get(&proxy, "GET", "").1.len(), 60_000);
}

#[test]
fn generic_tcp_and_compressed_bodies_wait_too() {
    let node = Server::start(|mut peer| {
        let _ = peer.read(&mut [0; 1]);
        let _ = peer.write_all(&vec![b'x'; 900_000]);
    });
    let proxy = Proxy::start(paced(stream_plan(&[node.address()]), 1_000_000));
    let begin = Instant::now();
    let mut client = proxy.connect();
    client.write_all(b"x").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 900_000);
    at_rate(900_000, 1_000_000, begin.elapsed());

    // Digits that nobody can guess take half their room.
    let mut x = 1_u64;
    let digits: String = std::iter::repeat_with(|| {
        x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        char::from(b"0123456789abcdef"[(x >> 60) as usize])
    })
    .take(200_000)
    .collect();
    let response = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200000\r\n\r\n{digits}");
    let node = Recorder::start(response.leak());
    let proxy = Proxy::start(paced(compressing(node.address()), 100_000));
    let begin = Instant::now();
    let (_, body) = get(&proxy, "GET", "Accept-Encoding: gzip\r\n");
    assert_eq!(decoded("gzip", &body).len(), 200_000);
    assert!((80_000..150_000).contains(&body.len()), "{}", body.len());
    at_rate(body.len(), 100_000, begin.elapsed());
}
