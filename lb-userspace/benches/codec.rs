//! What the HTTP/1.1 codec costs: `cargo xtask bench codec`.
#![expect(clippy::print_stdout, reason = "what it prints is its result")]

use std::{hint::black_box, net::IpAddr, time::Instant};

use lb::{
    control::proxy::http::{Identity, Strictness},
    proxy::{
        h1::{
            Framing, Slots,
            body::Decoder,
            request, response,
            write::{RequestEdit, ResponseEdit, request_head, response_head},
        },
        identity::{self, Sender},
    },
};

/// Ten fields, as a browser sends them.
const REQUEST: &[u8] = b"GET /static/app/main.js?version=20261121 HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: */*\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.org/index.html\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Sec-Fetch-Dest: script\r\n\
    Sec-Fetch-Mode: no-cors\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: application/javascript\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"673dc0a0-400\"\r\n\
    Accept-Ranges: bytes\r\n\r\n";

/// The best of several runs, in nanoseconds per call.
fn measure(name: &str, mut call: impl FnMut()) {
    const CALLS: u32 = 200_000;
    let run = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    let best = (0..9).map(|_| run(&mut call)).fold(f64::INFINITY, f64::min);
    println!("{name:<40} {best:>8.1} ns");
}

fn main() {
    let strictness = Strictness::default();
    let (mut slots, mut out) = (Slots::new(), Vec::with_capacity(4096));
    println!("request of 10 fields, {} bytes; response of 8 fields, {} bytes", REQUEST.len(), RESPONSE.len());
    measure("parse request", || {
        let head = request::parse(black_box(REQUEST), &strictness, &mut slots).expect("valid").expect("complete");
        black_box(head.path());
    });
    let head = request::view(REQUEST, &slots).expect("it was parsed");
    let peer = IpAddr::from([192, 0, 2, 77]);
    let sender = Sender { peer, tls: true, authority: head.authority(), version: "1.1", random: [7; 24] };
    let told = Identity::default();
    let mut extra = Vec::with_capacity(512);
    measure("fields that tell the client", || {
        extra.clear();
        let client = identity::client(head.fields(), peer, &told);
        black_box(identity::write(&mut extra, head.fields(), &sender, client, &told));
    });
    let drop = identity::write(&mut Vec::new(), head.fields(), &sender, peer, &told);
    let edit = RequestEdit { drop, extra: &extra, ..RequestEdit::default() };
    measure("write request", || {
        out.clear();
        request_head(&mut out, black_box(&head), &edit);
        black_box(&out);
    });
    let mut slots = Slots::new();
    measure("parse response", || {
        let head = response::parse(black_box(RESPONSE), response::Asked::default(), &strictness, &mut slots);
        black_box(head.expect("valid").expect("complete").status());
    });
    let head = response::view(RESPONSE, &slots).expect("it was parsed");
    let edit = ResponseEdit { framing: Framing::Length(1024), ..ResponseEdit::default() };
    measure("write response", || {
        out.clear();
        response_head(&mut out, black_box(&head), &edit);
        black_box(&out);
    });
    let chunks = [b"400\r\n".as_slice(), &[b'x'; 1024], b"\r\n0\r\n\r\n"].concat();
    measure("decode a chunked body of 1 KiB", || {
        let mut decoder = Decoder::new(Framing::Chunked, 0, &[]);
        let mut at = 0;
        while !decoder.is_done() {
            at += decoder.decode(black_box(&chunks[at..])).expect("well-formed").consumed;
        }
    });
}
