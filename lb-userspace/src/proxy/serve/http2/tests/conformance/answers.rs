//! What RFC 9113 and RFC 7541 ask of what a server sends, seen by a client that keeps count.

use super::super::wire::*;
use super::{CLOSED, PROTOCOL, data, settings, window};
use crate::proxy::testing::{Proxy, Recorder, Server, http_plan, read_request};

/// More than the connection's window is at first (§6.9.2).
const BODY: usize = 100_000;

/// A proxy before a node that answers so, whatever is asked.
fn before(response: &'static str) -> (Recorder, Proxy) {
    let node = Recorder::start(response);
    let proxy = Proxy::start(http_plan(&[node.address()]));
    (node, proxy)
}

fn before_a_long_body() -> Proxy {
    let node = Server::start(|mut peer| {
        use std::io::Write;
        while read_request(&mut peer).is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
            if peer.write_all(&[head.as_bytes(), &[b'x'; BODY]].concat()).is_err() {
                return;
            }
        }
    });
    Proxy::start(http_plan(&[node.address()]))
}

/// Fields of a head as they are written: the way they were (§6.2 of RFC 7541), the index or 0, name and value where they are spelt.
fn read_block(mut block: &[u8]) -> Vec<(u8, usize, String, String)> {
    fn number(block: &mut &[u8], bits: u32) -> usize {
        let most = (1 << bits) - 1;
        let mut value = usize::from(block[0]) & most;
        *block = &block[1..];
        let mut shift = 0;
        while value >= most {
            let byte = block[0];
            *block = &block[1..];
            value += usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        value
    }
    fn text(block: &mut &[u8]) -> String {
        assert!(block[0] < 128, "no Huffman coding is written");
        let length = number(block, 7);
        let (text, rest) = block.split_at(length);
        *block = rest;
        String::from_utf8(text.to_vec()).unwrap()
    }
    let mut list = Vec::new();
    while let Some(&first) = block.first() {
        let (way, bits) = match first {
            128.. => (0x80, 7),
            64..128 => (0x40, 6),
            32..64 => (0x20, 5),
            _ => (first & 0x10, 4),
        };
        let index = number(&mut block, bits);
        let is_spelt = !matches!(way, 0x80 | 0x20);
        let name = if is_spelt && index == 0 { text(&mut block) } else { String::new() };
        let value = if is_spelt { text(&mut block) } else { String::new() };
        list.push((way, index, name, value));
    }
    list
}

/// Frames up to the one that ends this stream.
fn response(wire: &mut Wire, stream: u32) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let frame = wire.read().expect("the response has an end");
        if frame.stream != stream || !matches!(frame.kind, HEADERS | DATA) {
            continue;
        }
        let ends = frame.flags & END_STREAM != 0;
        frames.push(frame);
        if ends {
            return frames;
        }
    }
}

fn bytes(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).sum()
}

#[test]
fn section_3_4_and_6_5_our_settings() {
    let (_node, proxy) = before("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut wire = Wire::open(&proxy);
    let first = wire.read().unwrap();
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0), "3.4 the first frame is SETTINGS");
    for setting in first.payload.chunks(6) {
        let (id, value) = (setting[1], u32::from_be_bytes(setting[2..].try_into().unwrap()));
        let is_good = match id {
            2 => value == 0,
            4 => value < 1 << 31,
            5 => (16_384..1 << 24).contains(&value),
            _ => true,
        };
        assert!(is_good, "6.5.2 setting {id} is {value}");
    }
    // One was sent to open the connection.
    wire.send(&[settings(1, 100), settings(3, 7), settings(4, 99), frame(PING, 0, 0, &[9; 8])].concat());
    let mut acknowledged = 0;
    loop {
        let frame = wire.read().unwrap();
        match (frame.kind, frame.flags) {
            (SETTINGS, ACK) => {
                assert!(frame.payload.is_empty() && frame.stream == 0);
                acknowledged += 1;
            }
            (PING, ACK) => break,
            (kind, _) => assert_eq!(kind, WINDOW_UPDATE, "nothing else was asked"),
        }
    }
    assert_eq!(acknowledged, 4, "6.5.3 each is acknowledged, before what came after it is answered");
}

#[test]
fn section_4_2_and_8_1_our_frames() {
    let proxy = before_a_long_body();
    for (most, opening) in [(16_384, vec![]), (20_000, settings(5, 20_000)), (16_384, settings(5, 16_384))] {
        let mut wire = Wire::open(&proxy);
        wire.send(&[opening, settings(4, 1 << 20), window(0, 1 << 20), get(1)].concat());
        let frames = response(&mut wire, 1);
        assert_eq!(frames[0].kind, HEADERS, "8.1 a head comes first");
        assert!(frames[1..].iter().all(|frame| frame.kind == DATA), "8.1 then nothing but DATA");
        assert!(frames.iter().all(|frame| frame.payload.len() <= most), "4.2 no more than {most}");
        assert_eq!(bytes(&frames), BODY);
    }
}

#[test]
fn section_6_9_our_sending() {
    let proxy = before_a_long_body();
    let mut wire = Wire::open(&proxy);
    wire.send(&[settings(4, 10), get(1)].concat());
    let (mut granted, mut came) = (10, 0);
    let mut steps = vec![
        // A setting changes the window of a stream that is open, to below 0, too (§6.9.2).
        (90, [window(1, 40), settings(4, 60)].concat()),
        (0, settings(4, 0)),
        (20, window(1, 80)),
        // The stream may send all of it: the connection's window holds the rest back (§6.9.1).
        (65_535 - 120, window(1, 1 << 20)),
        (BODY - 65_535, window(0, 1 << 20)),
    ]
    .into_iter();
    while came < BODY {
        if came == granted {
            let (more, bytes) = steps.next().unwrap();
            granted += more;
            wire.send(&bytes);
        }
        let frame = wire.read().unwrap();
        if frame.kind == DATA {
            came += frame.payload.len();
            assert!(came <= granted, "{came} of {granted}");
            assert_eq!(frame.flags & END_STREAM != 0, came == BODY, "the last one ends the stream");
        }
    }
}

#[test]
fn section_8_1_no_body_where_there_is_none() {
    for (name, method, answer) in [
        ("HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("a body of nothing", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let (_node, proxy) = before(answer);
        let mut wire = Wire::open(&proxy);
        wire.send(&request(1, &pseudo(method, "/")));
        let frames = response(&mut wire, 1);
        assert_eq!((frames[0].kind, bytes(&frames)), (HEADERS, 0), "{name}");
        wire.send(&request(3, &pseudo(method, "/")));
        assert_eq!(response(&mut wire, 3)[0].kind, HEADERS, "{name}: the connection works on");
    }
}

#[test]
fn section_8_1_interim_responses() {
    let (_node, proxy) = before(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let mut wire = Wire::open(&proxy);
    wire.send(&get(1));
    let frames = response(&mut wire, 1);
    let heads: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == HEADERS).collect();
    let (last, interim) = heads.split_last().unwrap();
    assert_eq!(last.status(), 200);
    assert_eq!(interim[0].status(), 103);
    for head in interim {
        assert!((100..200).contains(&head.status()) && head.flags & END_STREAM == 0, "{head:?}");
    }
    assert_eq!(bytes(&frames), 2);
}

#[test]
fn section_8_2_our_fields() {
    let (_node, proxy) = before(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-MiXed: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: b\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n\r\nok",
    );
    let mut wire = Wire::open(&proxy);
    wire.send(&get(1));
    let fields = read_block(&response(&mut wire, 1)[0].payload);
    let names: Vec<&str> = fields.iter().map(|field| field.2.as_str()).filter(|name| !name.is_empty()).collect();
    assert!(names.contains(&"x-mixed"), "{names:?}");
    assert!(names.iter().all(|name| *name == name.to_ascii_lowercase()), "8.2.1: {names:?}");
    for hop in ["connection", "x-hop", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"] {
        assert!(!names.contains(&hop), "8.2.2: {names:?}");
    }
    // Indices 8 to 14 of the static table are `:status`; 57 is transfer-encoding (RFC 7541 Appendix A).
    assert!(matches!(fields[0].1, 8..=14), "8.3 the status comes first: {fields:?}");
    assert_eq!(fields.iter().filter(|field| matches!(field.1, 1..=14)).count(), 1, "8.3 and once: {fields:?}");
    assert!(fields.iter().all(|field| field.1 != 57), "{fields:?}");
}

#[test]
fn rfc_7541_4_2_our_table_is_no_larger_than_the_client_says() {
    let (_node, proxy) = before("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Often: the same\r\n\r\nok");
    let mut wire = Wire::open(&proxy);
    let indexed = |fields: &[(u8, usize, String, String)]| fields.iter().any(|field| field.1 > 61);
    for stream in [1, 3, 5] {
        wire.send(&get(stream));
        let fields = read_block(&response(&mut wire, stream)[0].payload);
        assert_eq!(indexed(&fields), stream > 3, "what comes again is an index from its third time on: {fields:?}");
    }
    wire.send(&settings(1, 0));
    while wire.read_any(SETTINGS).unwrap().flags & ACK == 0 {}
    for stream in [7, 9, 11] {
        wire.send(&get(stream));
        let fields = read_block(&response(&mut wire, stream)[0].payload);
        let updates: Vec<usize> = fields.iter().filter(|field| field.0 == 0x20).map(|field| field.1).collect();
        assert_eq!(updates, if stream == 7 { vec![0] } else { vec![] }, "told once, at the begin: {fields:?}");
        assert!(stream > 7 || fields[0].0 == 0x20, "{fields:?}");
        assert!(!indexed(&fields), "{fields:?}");
    }
}

#[test]
fn section_5_1_what_comes_on_a_stream_that_ended() {
    let (_node, proxy) = before("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let ended = || {
        let mut wire = Wire::open(&proxy);
        wire.send(&get(1));
        response(&mut wire, 1);
        wire
    };
    for (name, bytes) in [
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE", window(1, 10)),
        ("RST_STREAM", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
    ] {
        let mut wire = ended();
        wire.send(&[bytes, get(3)].concat());
        assert_eq!(response(&mut wire, 3)[0].status(), 200, "{name} changes nothing");
    }
    for (name, bytes) in [("DATA", data(1, END_STREAM, b"x")), ("HEADERS", get(1)), ("half a HEADERS", post(1))] {
        let mut wire = ended();
        wire.send(&bytes);
        loop {
            let frame = wire.read().expect("an error");
            if matches!(frame.kind, GOAWAY | RST_STREAM) {
                assert!([CLOSED, PROTOCOL].contains(&frame.code()), "{name}: {frame:?}");
                break;
            }
            assert!(!matches!(frame.kind, HEADERS | DATA), "{name}: {frame:?}");
        }
    }
}

#[test]
fn section_6_8_goaway_names_the_last_stream() {
    let (node, proxy) = before("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut wire = Wire::open(&proxy);
    for stream in [1, 7] {
        wire.send(&get(stream));
        response(&mut wire, stream);
    }
    wire.send(&[frame(PING, 0, 3, &[0; 8]), get(9)].concat());
    let last = wire.read_kind(GOAWAY).unwrap();
    assert_eq!((u32::from_be_bytes(last.payload[..4].try_into().unwrap()), last.code()), (7, PROTOCOL));
    assert!(wire.read_kind(HEADERS).is_none() && !wire.is_silent, "the connection is closed");
    assert_eq!(node.requests().len(), 2, "what came after the mistake is not executed");
}
