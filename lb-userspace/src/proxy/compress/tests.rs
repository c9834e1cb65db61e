//! When responses are compressed, what their heads say, and that bodies are what they were.

use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::proxy::facts::sample::{Request, Response};

const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

fn http() -> Http {
    Http { compression: ALL.to_vec(), compression_min_bytes: 100, ..Http::default() }
}

fn request() -> Request {
    Request::get("/").with("accept-encoding", "gzip")
}

fn html(status: u16) -> Response {
    Response::new(status).with("content-type", "text/html; charset=utf-8")
}

#[test]
fn what_is_compressed() {
    let encode = Decision::Encode(Coding::Gzip);
    let media = |media: &str| Response::new(200).with("content-type", media);
    let head = Request { method: "HEAD".to_owned(), ..request() };
    let old = Request { version: "1.0".to_owned(), ..request() };
    let cases = [
        ("ordinary", request(), html(200), Some(1000), encode),
        ("length unknown", request(), html(200), None, encode),
        ("error page", request(), html(404), Some(1000), encode),
        ("not accepted", Request::get("/"), html(200), Some(1000), Decision::Identity),
        ("refused", Request::get("/").with("accept-encoding", "*;q=0"), html(200), None, Decision::Identity),
        ("small", request(), html(200), Some(99), Decision::Leave),
        ("empty", request(), html(200), Some(0), Decision::Leave),
        ("HEAD", head, html(200), Some(1000), Decision::Leave),
        ("HTTP/1.0", old, html(200), Some(1000), Decision::Leave),
        ("204", request(), html(204), None, Decision::Leave),
        ("205", request(), html(205), None, Decision::Leave),
        ("206", request(), html(206).with("content-range", "bytes 0-1/2"), None, Decision::Leave),
        ("304", request(), html(304), None, Decision::Leave),
        ("101", request(), html(101), None, Decision::Leave),
        ("encoded", request(), html(200).with("content-encoding", "br"), None, Decision::Leave),
        ("encoded as it is", request(), html(200).with("content-encoding", "identity"), None, encode),
        ("no-transform", request(), html(200).with("cache-control", "public, No-Transform"), None, Decision::Leave),
        ("asked no-transform", request().with("cache-control", "no-transform"), html(200), None, Decision::Leave),
        ("digest", request(), html(200).with("content-digest", "sha-256=:x:"), None, Decision::Leave),
        ("sets a cookie", request(), html(200).with("set-cookie", "a=b"), None, Decision::Leave),
        ("no type", request(), Response::new(200), None, Decision::Leave),
        ("json", request(), media("application/JSON"), None, encode),
        ("problem", request(), media("application/problem+json"), None, encode),
        ("svg", request(), media("image/svg+xml"), None, encode),
        ("events", request(), media("text/event-stream"), None, encode),
        ("png", request(), media("image/png"), None, Decision::Leave),
        ("video", request(), media("video/mp4"), None, Decision::Leave),
        ("zip", request(), media("application/zip"), None, Decision::Leave),
    ];
    for (name, request, response, length, expected) in cases {
        assert_eq!(decide(&http(), &request, &response, length), expected, "{name}");
    }
    assert_eq!(decide(&Http::default(), &request(), &html(200), None), Decision::Leave, "off by default");
}

#[test]
fn heads_say_what_was_done() {
    let edited = |decision, response: &Response| {
        let mut edits = HeaderEdits::default();
        edit_head(decision, response, &mut edits);
        edits
    };
    let encode = Decision::Encode(Coding::Br);
    let tagged = html(200).with("etag", "\"abc\"").with("vary", "Origin").with("accept-ranges", "bytes");
    let edits = edited(encode, &tagged);
    let added: Vec<_> = edits.added().collect();
    assert_eq!(added, [("vary", "Origin, Accept-Encoding"), ("content-encoding", "br"), ("etag", "W/\"abc\"")]);
    for name in ["accept-ranges", "content-length", "etag", "vary", "content-encoding"] {
        assert!(edits.removes(name), "{name}");
    }
    let weak = html(200).with("etag", "W/\"abc\"").with("vary", "accept-encoding");
    let edits = edited(encode, &weak);
    assert_eq!(edits.added().collect::<Vec<_>>(), [("content-encoding", "br")]);
    assert!(!edits.removes("etag"));

    let edits = edited(Decision::Identity, &html(200));
    assert_eq!(edits.added().collect::<Vec<_>>(), [("vary", "Accept-Encoding")]);
    assert!(!edits.removes("content-length") && !edits.removes("etag"));
    assert!(edited(Decision::Leave, &tagged).is_empty());
    assert!(edited(Decision::Identity, &html(200).with("vary", "*")).is_empty());
}

fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
    };
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn bodies_arrive_as_they_were(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..5000), any::<bool>()), 0..8),
    ) {
        for coding in ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            let mut out = Vec::new();
            for (piece, flush) in &pieces {
                encoder.push(piece, *flush, &mut out).unwrap();
            }
            encoder.finish(&mut out).unwrap();
            let whole: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            prop_assert_eq!(decode(coding, &out), whole, "{:?}", coding);
        }
    }
}

/// What a decoder reads of the bytes that are there, the end still missing.
fn decode_begun(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn Read + '_> = match coding {
        Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Coding::Br => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    };
    let mut out = Vec::new();
    let mut byte = [0];
    // Stops where the input does.
    while let Ok(1) = reader.read(&mut byte) {
        out.push(byte[0]);
    }
    out
}

#[test]
fn a_flush_lets_the_client_see_what_there_is() {
    for coding in ALL {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut out = Vec::new();
        encoder.push(b"data: one\n\n", true, &mut out).unwrap();
        assert_eq!(decode_begun(coding, &out), b"data: one\n\n", "{coding:?}");
        encoder.push(b"data: two\n\n", true, &mut out).unwrap();
        assert_eq!(decode_begun(coding, &out), b"data: one\n\ndata: two\n\n", "{coding:?}");
    }
}

#[test]
fn text_shrinks() {
    let text = include_str!("../rules.rs");
    for coding in ALL {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut out = Vec::new();
        encoder.push(text.as_bytes(), false, &mut out).unwrap();
        encoder.finish(&mut out).unwrap();
        assert!(out.len() * 2 < text.len(), "{coding:?}: {} of {}", out.len(), text.len());
        assert_eq!(decode(coding, &out), text.as_bytes());
    }
}
