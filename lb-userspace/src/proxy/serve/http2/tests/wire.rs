//! HTTP/2 as bytes: written from the RFCs, by nothing that the proxy uses.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::proxy::testing::Proxy;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// A frame, RFC 9113 §4.1.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An integer with a prefix of `bits`, RFC 7541 §5.1.
pub(super) fn integer(first: u8, bits: u32, mut value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut out = vec![first | most as u8];
    value -= most;
    while value >= 128 {
        out.push((value % 128) as u8 | 128);
        value /= 128;
    }
    out.push(value as u8);
    out
}

/// A string without Huffman coding, RFC 7541 §5.2.
pub(super) fn string(text: &[u8]) -> Vec<u8> {
    [integer(0, 7, text.len()), text.to_vec()].concat()
}

/// A field without indexing, RFC 7541 §6.2.2.
pub(super) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0], string(name), string(value)].concat()
}

pub(super) fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

/// The pseudo-header fields of a request.
pub(super) fn pseudo(method: &str, path: &str) -> Vec<u8> {
    fields(&[(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)])
}

/// HEADERS that are all of a request.
pub(super) fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

/// HEADERS of a request whose body follows.
pub(super) fn begin(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

pub(super) fn get(stream: u32) -> Vec<u8> {
    request(stream, &pseudo("GET", "/"))
}

pub(super) fn post(stream: u32) -> Vec<u8> {
    begin(stream, &pseudo("POST", "/"))
}

pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of a connection's first response, RFC 7541 Appendix A and B.
    pub(super) fn status(&self) -> u16 {
        const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        let block: Vec<u8> = self.payload.iter().copied().skip_while(|byte| byte & 0xe0 == 0x20).collect();
        match block[0] {
            index @ 0x88..=0x8e => STATIC[usize::from(index - 0x88)],
            0x48 | 0x08 | 0x18 => {
                let length = usize::from(block[1] & 0x7f);
                let text = &block[2..2 + length];
                let digits = if block[1] & 0x80 == 0 { text.to_vec() } else { huffman_digits(text) };
                std::str::from_utf8(&digits).unwrap().parse().unwrap()
            }
            other => panic!("no status: {other:#x}"),
        }
    }
}

/// Digits in the code of RFC 7541 Appendix B: 0 to 2 have five bits, 3 to 9 six.
fn huffman_digits(text: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let (mut at, mut digits) = (0, Vec::new());
    while digits.len() < 3 {
        let five = number(&bits[at..at + 5]);
        if five < 3 {
            digits.push(b'0' + five);
            at += 5;
        } else {
            digits.push(b'0' + number(&bits[at..at + 6]) - 0x19 + 3);
            at += 6;
        }
    }
    digits
}

/// A client's connection.
pub(super) struct Wire {
    pub(super) socket: TcpStream,
    /// Nothing came for too long.
    pub(super) is_silent: bool,
}

impl Wire {
    /// With preface and settings sent.
    pub(super) fn open(proxy: &Proxy) -> Self {
        let mut wire = Self::bare(proxy);
        wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        wire
    }

    pub(super) fn bare(proxy: &Proxy) -> Self {
        let socket = proxy.connect();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { socket, is_silent: false }
    }

    /// Sends; a connection that is closed already is seen by reading.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// The next frame; `None` when the connection is closed or reset, or nothing comes.
    pub(super) fn read(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        if let Err(error) = self.socket.read_exact(&mut header) {
            self.is_silent = error.kind() == std::io::ErrorKind::WouldBlock;
            return None;
        }
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.socket.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of a kind, an acknowledgement as well; `None` at the end.
    pub(super) fn read_any(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.read()).find(|frame| frame.kind == kind)
    }

    /// The next frame of a kind that acknowledges no settings; `None` at the end.
    pub(super) fn read_kind(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            if frame.kind == kind && (kind != SETTINGS || frame.flags & ACK == 0) {
                return Some(frame);
            }
        }
    }
}
