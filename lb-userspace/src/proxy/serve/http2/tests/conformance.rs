//! What RFC 9113 and RFC 7541 ask of a server, case by case: frames in, and how they are answered.

mod answers;
mod messages;

use super::wire::*;
use crate::proxy::testing::{Proxy, Recorder, http_plan};

/// Error codes, RFC 9113 §7.
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;

/// How a case ends.
#[derive(Clone, Copy, Debug)]
enum Is {
    /// The response on stream 1 has this status.
    Status(u16),
    /// A stream error, which may be treated as one of the connection (§5.4.2).
    Stream(u32),
    /// A connection error: GOAWAY, or just closed.
    Connection(u32),
    /// One or the other, with either code.
    Either(u32, u32),
    /// Nothing: the connection works on.
    Alive,
}

use Is::{Alive, Connection, Either, Status, Stream};

type Case = (&'static str, Vec<u8>, Is);

/// Runs cases, each on a connection of its own; `refused`: no node may see any of it.
fn run(cases: Vec<Case>, refused: bool) {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let before = node.requests().len();
        let mut wire = Wire::open(&proxy);
        wire.send(&bytes);
        if let Err(seen) = check(&mut wire, expected) {
            wrong.push(format!("{name}: {expected:?}, but {seen}"));
        }
        if refused && node.requests().len() != before {
            wrong.push(format!("{name}: it came to the node: {:?}", node.requests().last()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(wire: &mut Wire, expected: Is) -> Result<(), String> {
    const MARK: [u8; 8] = *b"are you?";
    if matches!(expected, Alive) {
        wire.send(&frame(PING, 0, 0, &MARK));
    }
    loop {
        let Some(frame) = wire.read() else {
            if wire.is_silent {
                return Err("nothing".to_owned());
            }
            return if matches!(expected, Connection(_) | Either(..)) { Ok(()) } else { Err("closed".to_owned()) };
        };
        let is = |code: u32| frame.code() == code;
        match (frame.kind, expected) {
            (PING, Alive) if frame.flags == ACK && frame.payload == MARK => return Ok(()),
            (HEADERS, Status(status)) if frame.stream == 1 => {
                let seen = frame.status();
                return if seen == status { Ok(()) } else { Err(format!("status {seen}")) };
            }
            (HEADERS, Stream(_)) => return Err(format!("status {}", frame.status())),
            (RST_STREAM, Stream(code)) | (GOAWAY, Stream(code) | Connection(code)) if is(code) => return Ok(()),
            (RST_STREAM | GOAWAY, Either(one, other)) if is(one) || is(other) => return Ok(()),
            (RST_STREAM | GOAWAY, _) => return Err(format!("frame {} with code {}", frame.kind, frame.code())),
            _ => {}
        }
    }
}

fn with(list: &[(&str, &str)]) -> Vec<u8> {
    request(1, &[pseudo("GET", "/"), fields(list)].concat())
}

fn raw(name: &[u8], value: &[u8]) -> Vec<u8> {
    request(1, &[pseudo("GET", "/"), field(name, value)].concat())
}

fn only(list: &[(&str, &str)]) -> Vec<u8> {
    request(1, &fields(list))
}

fn target(method: &str, path: &str) -> Vec<u8> {
    request(1, &pseudo(method, path))
}

fn sent(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &setting(id, value))
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

#[test]
fn section_3_4_the_preface() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    // Over TLS it is agreed before a byte comes: here what begins as HTTP/2 is told by its first line.
    let begun = &PREFACE[..18];
    for (name, bytes) in [
        ("another end of it", sent(&[begun.to_vec(), b"XX\r\n\r\n".to_vec(), settings(3, 1)])),
        ("no settings after it", sent(&[PREFACE.to_vec(), get(1)])),
        ("an acknowledgement instead of settings", sent(&[PREFACE.to_vec(), frame(SETTINGS, ACK, 0, &[]), get(1)])),
    ] {
        let mut wire = Wire::bare(&proxy);
        wire.send(&bytes);
        while let Some(frame) = wire.read() {
            assert!(frame.kind != HEADERS, "{name}");
        }
        assert!(!wire.is_silent, "{name}: the connection stays");
    }
    assert!(node.requests().is_empty());
    let mut wire = Wire::bare(&proxy);
    for byte in [PREFACE, &settings(3, 1), &get(1)].concat() {
        wire.send(&[byte]);
    }
    assert_eq!(wire.read_kind(HEADERS).unwrap().status(), 200, "byte by byte");
}

#[test]
fn section_4_frames() {
    let cut = pseudo("GET", "/").len() - 3;
    run(
        vec![
            ("4.1 an unknown kind is read over", sent(&[frame(0x16, 0, 0, b"what"), get(1)]), Status(200)),
            ("4.1 an unknown kind on a stream", sent(&[frame(0xff, 0xff, 1, b""), get(1)]), Status(200)),
            ("4.1 undefined flags", sent(&[frame(PING, 0x16, 0, &[0; 8]), get(1)]), Status(200)),
            ("4.1 the reserved bit", sent(&[frame(PING, 0, 1 << 31, &[0; 8]), get(1)]), Status(200)),
            ("4.2 DATA of the most size", sent(&[post(1), data(1, END_STREAM, &[0; 16_384])]), Status(200)),
            ("4.2 DATA above it", sent(&[post(1), data(1, END_STREAM, &[0; 16_385])]), Stream(SIZE)),
            ("4.2 HEADERS above it", frame(HEADERS, 5, 1, &[0; 16_385]), Connection(SIZE)),
            ("4.2 an unknown kind above it", frame(0x20, 0, 0, &[0; 16_385]), Connection(SIZE)),
            ("4.3 a block that is none", request(1, &[0xff, 0xff, 0xff, 0xff, 0xff]), Either(COMPRESSION, PROTOCOL)),
            ("4.3 a block that is cut", request(1, &pseudo("GET", "/")[..cut]), Either(COMPRESSION, PROTOCOL)),
            (
                "4.3 PRIORITY within a block",
                sent(&[frame(HEADERS, 1, 1, &pseudo("GET", "/")), frame(PRIORITY, 0, 1, &[0; 5])]),
                Connection(PROTOCOL),
            ),
            (
                "4.3 another stream within a block",
                sent(&[frame(HEADERS, 1, 1, &pseudo("GET", "/")), get(3)]),
                Connection(PROTOCOL),
            ),
        ],
        false,
    );
}

#[test]
fn section_5_streams() {
    let cut = vec![
        ("5.1 idle: DATA", data(1, END_STREAM, b"x"), Connection(PROTOCOL)),
        ("5.1 idle: RST_STREAM", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Connection(PROTOCOL)),
        ("5.1 idle: WINDOW_UPDATE", window(1, 100), Connection(PROTOCOL)),
        ("5.1 idle: CONTINUATION", frame(CONTINUATION, 4, 1, &pseudo("GET", "/")), Connection(PROTOCOL)),
        ("5.1.1 an even stream", get(2), Connection(PROTOCOL)),
        ("5.1.1 stream 0", get(0), Connection(PROTOCOL)),
        (
            "5.5 an extension within a block",
            sent(&[frame(HEADERS, 1, 1, &pseudo("GET", "/")), frame(0x16, 0, 1, b"")]),
            Connection(PROTOCOL),
        ),
    ];
    run(cut, true);
    run(
        vec![
            ("5.1 idle: PRIORITY", sent(&[frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 5]), get(1)]), Status(200)),
            ("5.1 half-closed: DATA", sent(&[get(1), data(1, END_STREAM, b"x")]), Either(CLOSED, PROTOCOL)),
            ("5.1 half-closed: HEADERS", sent(&[get(1), get(1)]), Either(CLOSED, PROTOCOL)),
            ("5.1 half-closed: WINDOW_UPDATE", sent(&[get(1), window(1, 10)]), Status(200)),
            ("5.1 half-closed: PRIORITY", sent(&[get(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 5])]), Status(200)),
            (
                "5.1 closed by RST_STREAM: HEADERS",
                sent(&[post(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), get(1)]),
                Either(CLOSED, PROTOCOL),
            ),
            (
                "5.1 closed by RST_STREAM: PRIORITY",
                sent(&[post(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame(PRIORITY, 0, 1, &[0; 5])]),
                Alive,
            ),
            (
                "5.1 closed by RST_STREAM: WINDOW_UPDATE",
                sent(&[post(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), window(1, 5)]),
                Alive,
            ),
            ("5.1.1 a lower stream than before", sent(&[get(5), get(3)]), Connection(PROTOCOL)),
            ("5.1.1 streams may be left out", sent(&[get(1), get(77)]), Status(200)),
            (
                "5.1.2 more streams than may be open",
                (0..129).flat_map(|i| post(i * 2 + 1)).collect(),
                Either(REFUSED, PROTOCOL),
            ),
            ("5.5 an unknown setting", sent(&[settings(0x77, 1), get(1)]), Status(200)),
        ],
        false,
    );
}

#[test]
fn section_6_1_to_6_4() {
    run(
        vec![
            ("6.1 DATA on stream 0", data(0, 0, b"x"), Connection(PROTOCOL)),
            ("6.1 padding", sent(&[post(1), data(1, END_STREAM | PADDED, &[2, b'x', 0, 0])]), Status(200)),
            ("6.1 padding that is all", sent(&[post(1), data(1, END_STREAM | PADDED, &[3, 0, 0, 0])]), Status(200)),
            (
                "6.1 padding above the payload",
                sent(&[post(1), data(1, END_STREAM | PADDED, &[4, 0, 0, 0])]),
                Connection(PROTOCOL),
            ),
            ("6.1 padded and empty", sent(&[post(1), data(1, END_STREAM | PADDED, &[])]), Either(PROTOCOL, SIZE)),
            (
                "6.2 padding",
                frame(HEADERS, 5 | PADDED, 1, &[vec![2], pseudo("GET", "/"), vec![0; 2]].concat()),
                Status(200),
            ),
            (
                "6.2 padding above the payload",
                frame(HEADERS, 5 | PADDED, 1, &[vec![99], pseudo("GET", "/")[..9].to_vec()].concat()),
                Connection(PROTOCOL),
            ),
            (
                "6.2 a priority",
                frame(HEADERS, 5 | 0x20, 1, &[vec![0, 0, 0, 0, 9], pseudo("GET", "/")].concat()),
                Status(200),
            ),
            ("6.2 a priority that is cut", frame(HEADERS, 5 | 0x20, 1, &[0, 0, 0]), Either(PROTOCOL, SIZE)),
            ("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), Connection(PROTOCOL)),
            ("6.3 PRIORITY of 4 bytes", sent(&[post(1), frame(PRIORITY, 0, 1, &[0; 4])]), Either(SIZE, PROTOCOL)),
            ("6.3 PRIORITY of 6 bytes", sent(&[post(1), frame(PRIORITY, 0, 1, &[0; 6])]), Either(SIZE, PROTOCOL)),
            ("6.4 RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), Connection(PROTOCOL)),
            ("6.4 RST_STREAM of 3 bytes", sent(&[post(1), frame(RST_STREAM, 0, 1, &[0; 3])]), Either(SIZE, PROTOCOL)),
            ("6.4 RST_STREAM of 5 bytes", sent(&[post(1), frame(RST_STREAM, 0, 1, &[0; 5])]), Either(SIZE, PROTOCOL)),
            ("6.4 RST_STREAM with an unknown code", sent(&[post(1), frame(RST_STREAM, 0, 1, &[9; 4])]), Alive),
        ],
        false,
    );
}

#[test]
fn section_6_5_settings() {
    run(
        vec![
            ("6.5 on a stream", frame(SETTINGS, 0, 1, &setting(3, 1)), Connection(PROTOCOL)),
            ("6.5 an acknowledgement with a payload", frame(SETTINGS, ACK, 0, &setting(3, 1)), Either(SIZE, PROTOCOL)),
            ("6.5 of 3 bytes", frame(SETTINGS, 0, 0, &[0; 3]), Either(SIZE, PROTOCOL)),
            ("6.5 of 7 bytes", frame(SETTINGS, 0, 0, &[0; 7]), Either(SIZE, PROTOCOL)),
            ("6.5.2 ENABLE_PUSH 0", sent(&[settings(2, 0), get(1)]), Status(200)),
            ("6.5.2 ENABLE_PUSH 1", sent(&[settings(2, 1), get(1)]), Status(200)),
            ("6.5.2 ENABLE_PUSH 2", settings(2, 2), Connection(PROTOCOL)),
            ("6.5.2 MAX_CONCURRENT_STREAMS 0", sent(&[settings(3, 0), get(1)]), Status(200)),
            ("6.5.2 INITIAL_WINDOW_SIZE of the most", sent(&[settings(4, 0x7fff_ffff), get(1)]), Status(200)),
            ("6.5.2 INITIAL_WINDOW_SIZE above it", settings(4, 0x8000_0000), Either(FLOW, PROTOCOL)),
            ("6.5.2 MAX_FRAME_SIZE of the least", sent(&[settings(5, 16_384), get(1)]), Status(200)),
            ("6.5.2 MAX_FRAME_SIZE of the most", sent(&[settings(5, 16_777_215), get(1)]), Status(200)),
            ("6.5.2 MAX_FRAME_SIZE below", settings(5, 16_383), Connection(PROTOCOL)),
            ("6.5.2 MAX_FRAME_SIZE above", settings(5, 16_777_216), Connection(PROTOCOL)),
            ("6.5.2 HEADER_TABLE_SIZE 0", sent(&[settings(1, 0), get(1)]), Status(200)),
            ("6.5.2 HEADER_TABLE_SIZE of the most", sent(&[settings(1, u32::MAX), get(1)]), Status(200)),
            ("6.5.2 MAX_HEADER_LIST_SIZE", sent(&[settings(6, 100_000), get(1)]), Status(200)),
            (
                "6.5.3 the last of several values counts",
                sent(&[frame(SETTINGS, 0, 0, &[setting(4, 0), setting(4, 65_535)].concat()), get(1)]),
                Status(200),
            ),
        ],
        false,
    );
}

#[test]
fn section_6_6_to_6_10() {
    let block = pseudo("GET", "/");
    let split = |parts: usize| {
        let mut frames = frame(HEADERS, END_STREAM, 1, &[]);
        let size = block.len().div_ceil(parts);
        let count = block.chunks(size).count();
        for (at, part) in block.chunks(size).enumerate() {
            let flags = if at + 1 == count { END_HEADERS } else { 0 };
            frames.extend(frame(CONTINUATION, flags, 1, part));
        }
        frames
    };
    run(
        vec![
            (
                "6.6 PUSH_PROMISE",
                frame(PUSH_PROMISE, 4, 1, &[vec![0, 0, 0, 2], pseudo("GET", "/")].concat()),
                Connection(PROTOCOL),
            ),
            ("6.7 PING is answered", vec![], Alive),
            ("6.7 an answer nobody waits for", sent(&[frame(PING, ACK, 0, &[7; 8]), get(1)]), Status(200)),
            ("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), Connection(PROTOCOL)),
            ("6.7 PING of 6 bytes", frame(PING, 0, 0, &[0; 6]), Either(SIZE, PROTOCOL)),
            ("6.7 PING of 9 bytes", frame(PING, 0, 0, &[0; 9]), Either(SIZE, PROTOCOL)),
            ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL)),
            ("6.8 GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, &[0; 7]), Either(SIZE, PROTOCOL)),
            ("6.8 what runs ends after GOAWAY", sent(&[get(1), frame(GOAWAY, 0, 0, &[0; 8])]), Status(200)),
            ("6.9 the connection's window by 0", window(0, 0), Connection(PROTOCOL)),
            ("6.9 a stream's window by 0", sent(&[post(1), window(1, 0)]), Stream(PROTOCOL)),
            ("6.9 WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Either(SIZE, PROTOCOL)),
            ("6.9 WINDOW_UPDATE of 5 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 5]), Either(SIZE, PROTOCOL)),
            (
                "6.9.1 the connection's window above the most",
                sent(&[window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)]),
                Connection(FLOW),
            ),
            (
                "6.9.1 a stream's window above the most",
                sent(&[post(1), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)]),
                Stream(FLOW),
            ),
            (
                "6.9.2 a setting that lifts a window above the most",
                sent(&[post(1), window(1, 0x7fff_0000), settings(4, 0x7fff_ffff)]),
                Either(FLOW, FLOW),
            ),
            ("6.10 one CONTINUATION", split(1), Status(200)),
            ("6.10 several", split(5), Status(200)),
            ("6.10 after END_HEADERS", sent(&[get(1), frame(CONTINUATION, 4, 1, &block)]), Connection(PROTOCOL)),
            ("6.10 on stream 0", frame(CONTINUATION, 4, 0, &block), Connection(PROTOCOL)),
            (
                "6.10 after DATA",
                sent(&[post(1), data(1, 0, b"x"), frame(CONTINUATION, 4, 1, &block)]),
                Connection(PROTOCOL),
            ),
            ("6.10 DATA within", sent(&[frame(HEADERS, 1, 1, &block), data(1, 0, b"x")]), Connection(PROTOCOL)),
            (
                "6.10 on another stream",
                sent(&[frame(HEADERS, 1, 1, &block), frame(CONTINUATION, 4, 3, &[])]),
                Connection(PROTOCOL),
            ),
        ],
        false,
    );
}
