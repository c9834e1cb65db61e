//! Responses of hostile and of honest nodes.

use super::super::{
    Framing, Slots, Version,
    request::Method,
    response::{self, Asked, BadResponse, ResponseHead},
};
use crate::control::proxy::http::Strictness;

const GET: Asked<'_> = Asked { method: Method::Get, upgrade: b"" };
const HEAD: Asked<'_> = Asked { method: Method::Head, upgrade: b"" };

type Verdict = Result<Framing, BadResponse>;

fn parse(text: &[u8], asked: Asked<'_>, strictness: &Strictness) -> Result<Option<(Framing, usize)>, BadResponse> {
    let mut slots = Slots::new();
    response::parse(text, asked, strictness, &mut slots).map(|head| head.map(|head| (head.framing(), head.len())))
}

/// Checks one case whole, at every length, and byte by byte.
fn check(name: &str, text: &[u8], asked: Asked<'_>, strictness: &Strictness, expected: Verdict) {
    let whole = parse(text, asked, strictness);
    assert_eq!(whole.map(|found| found.expect(name).0), expected, "{name}");
    let length = whole.ok().flatten().map(|(_, length)| length);
    let mut slots = Slots::new();
    let mut ended = false;
    for cut in 0..=text.len() {
        let part = parse(&text[..cut], asked, strictness);
        if !ended {
            let by_byte = response::parse(&text[..cut], asked, strictness, &mut slots);
            let by_byte = by_byte.map(|head| head.map(|head| (head.framing(), head.len())));
            assert_eq!(by_byte, part, "{name}: byte by byte, at {cut}");
            ended = by_byte != Ok(None);
        }
        match part {
            Ok(None) => assert!(length.is_none_or(|length| cut < length), "{name}: incomplete at {cut}"),
            Ok(Some((framing, found))) => {
                assert_eq!((Ok(framing), Some(found)), (expected, length), "{name}: at {cut}")
            }
            Err(bad) => assert_eq!(Err(bad), expected, "{name}: at {cut}"),
        }
    }
}

#[test]
fn h5_framing() {
    use BadResponse::*;
    let cases: [(&str, &str, Asked<'_>, Verdict); 38] = [
        ("CL", "200 OK\r\nContent-Length: 5", GET, Ok(Framing::Length(5))),
        ("TE", "200 OK\r\nTransfer-Encoding: chunked", GET, Ok(Framing::Chunked)),
        ("neither", "200 OK", GET, Ok(Framing::UntilClose)),
        ("CL 0", "200 OK\r\nContent-Length: 0", GET, Ok(Framing::Length(0))),
        ("TE + CL", "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", GET, Err(LengthAndCoding)),
        ("CL + TE for HEAD", "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", HEAD, Err(LengthAndCoding)),
        ("dup CL", "200 OK\r\nContent-Length: 5\r\nContent-Length: 6", GET, Err(DuplicateContentLength)),
        ("dup CL equal", "200 OK\r\nContent-Length: 5\r\nContent-Length: 5", GET, Err(DuplicateContentLength)),
        ("CL list", "200 OK\r\nContent-Length: 5, 5", GET, Err(ContentLength)),
        ("CL +5", "200 OK\r\nContent-Length: +5", GET, Err(ContentLength)),
        ("CL empty", "200 OK\r\nContent-Length:", GET, Err(ContentLength)),
        ("CL garbage", "200 OK\r\nContent-Length: abc", GET, Err(ContentLength)),
        ("CL u64 max", "200 OK\r\nContent-Length: 18446744073709551615", GET, Err(ContentLength)),
        ("TE gzip, chunked", "200 OK\r\nTransfer-Encoding: gzip, chunked", GET, Err(TransferEncoding)),
        ("TE chunked, chunked", "200 OK\r\nTransfer-Encoding: chunked, chunked", GET, Err(TransferEncoding)),
        ("TE identity", "200 OK\r\nTransfer-Encoding: identity", GET, Err(TransferEncoding)),
        ("two TE", "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", GET, Err(TransferEncoding)),
        ("HEAD", "200 OK\r\nContent-Length: 5", HEAD, Ok(Framing::None)),
        ("HEAD with TE", "200 OK\r\nTransfer-Encoding: chunked", HEAD, Ok(Framing::None)),
        ("HEAD with neither", "200 OK", HEAD, Ok(Framing::None)),
        ("204", "204 No Content", GET, Ok(Framing::None)),
        ("204 with CL", "204 No Content\r\nContent-Length: 5", GET, Ok(Framing::None)),
        ("204 with TE", "204 No Content\r\nTransfer-Encoding: chunked", GET, Err(NoBody)),
        ("304", "304 Not Modified\r\nContent-Length: 5", GET, Ok(Framing::None)),
        ("304 with TE", "304 Not Modified\r\nTransfer-Encoding: chunked", GET, Ok(Framing::None)),
        ("205", "205 Reset\r\nContent-Length: 0", GET, Ok(Framing::Length(0))),
        ("100", "100 Continue", GET, Ok(Framing::None)),
        ("103", "103 Early Hints\r\nLink: </a>", GET, Ok(Framing::None)),
        ("100 with CL", "100 Continue\r\nContent-Length: 5", GET, Err(NoBody)),
        ("100 with CL 0", "100 Continue\r\nContent-Length: 0", GET, Ok(Framing::None)),
        ("100 with TE", "100 Continue\r\nTransfer-Encoding: chunked", GET, Err(NoBody)),
        ("101 not asked for", "101 Go\r\nConnection: upgrade\r\nUpgrade: websocket", GET, Err(Upgrade)),
        ("obs-fold", "200 OK\r\nX: a\r\n b", GET, Err(FoldedField)),
        ("no colon", "200 OK\r\nX", GET, Err(FieldName)),
        ("space before the colon", "200 OK\r\nContent-Length : 5", GET, Err(FieldName)),
        ("NUL", "200 OK\r\nX: \0", GET, Err(ControlByte)),
        ("bare CR", "200 OK\r\nX: a\rb", GET, Err(BareCr)),
        ("bare LF", "200 OK\r\nX: a\nb: c", GET, Err(BareLf)),
    ];
    for (name, text, asked, expected) in cases {
        check(name, format!("HTTP/1.1 {text}\r\n\r\n").as_bytes(), asked, &Strictness::default(), expected);
    }
    let old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check("HTTP/1.0 with TE", old, GET, &Strictness::default(), Err(TransferEncoding));
}

#[test]
fn h5_status_lines() {
    let good = [
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 200 ",
        "HTTP/1.1 200",
        "HTTP/1.1 999 \u{e9} x\ty",
        "HTTP/1.1 599 a b",
    ];
    for text in good {
        let text = format!("{text}\r\nContent-Length: 1\r\n\r\n");
        check(&text, text.as_bytes(), GET, &Strictness::default(), Ok(Framing::Length(1)));
    }
    let bad = [
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1\t200 OK",
        "ICY 200 OK",
        "<html>",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
    ];
    for text in bad {
        let text = format!("{text}\r\nContent-Length: 1\r\n\r\n");
        check(&text, text.as_bytes(), GET, &Strictness::default(), Err(BadResponse::StatusLine));
    }
}

#[test]
fn h4_101_only_to_what_was_asked_for() {
    let asked = Asked { method: Method::Get, upgrade: b"websocket" };
    let cases = [
        ("as asked", "101 Go\r\nConnection: Upgrade\r\nUpgrade: WebSocket", asked, true),
        ("another protocol", "101 Go\r\nConnection: Upgrade\r\nUpgrade: foo", asked, false),
        ("no protocol", "101 Go\r\nConnection: Upgrade", asked, false),
        ("two protocols", "101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket", asked, false),
        ("without Connection", "101 Go\r\nUpgrade: websocket", asked, false),
        ("not asked for, no protocol", "101 Go\r\nConnection: Upgrade\r\nUpgrade:", GET, false),
    ];
    for (name, text, asked, may) in cases {
        let expected = if may { Ok(Framing::None) } else { Err(BadResponse::Upgrade) };
        check(name, format!("HTTP/1.1 {text}\r\n\r\n").as_bytes(), asked, &Strictness::default(), expected);
    }
    let old = b"HTTP/1.0 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    check("HTTP/1.0", old, asked, &Strictness::default(), Err(BadResponse::Upgrade));
}

#[test]
fn h5_header_bombs() {
    let strictness = Strictness { max_head_bytes: 200, max_fields: 3, ..Strictness::default() };
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200));
    check("long", long.as_bytes(), GET, &strictness, Err(BadResponse::HeadTooLarge));
    let line = format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(200));
    check("long status line", line.as_bytes(), GET, &strictness, Err(BadResponse::HeadTooLarge));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(4));
    check("many", many.as_bytes(), GET, &strictness, Err(BadResponse::TooManyFields));
    let options = format!("HTTP/1.1 200 OK\r\nConnection: {}\r\n\r\n", "a,".repeat(33));
    check("options", options.as_bytes(), GET, &Strictness::default(), Err(BadResponse::TooManyOptions));
}

#[test]
fn heads_tell_what_they_say() {
    let mut slots = Slots::new();
    let text = b"HTTP/1.0 404 Not here\r\nConnection: keep-alive, X-Y\r\nx-y: 1\r\nSet_Cookie: a\r\nContent-Length: 3\r\n\r\nabc";
    let head = response::parse(text, HEAD, &Strictness::default(), &mut slots).unwrap().unwrap();
    assert_eq!((head.status(), head.reason(), head.version()), (404, b"Not here".as_slice(), Version::Http10));
    assert_eq!((head.framing(), head.content_length(), head.len()), (Framing::None, Some(3), text.len() - 3));
    assert!(head.keep_alive() && !head.is_interim());
    assert_eq!(head.header("set_cookie").as_deref(), Some("a"), "nodes may use underscores");
    assert_eq!(head.fields().filter(|field| field.listed).count(), 1);
    assert!(response::view(text, &slots).is_some());
}

#[test]
fn connections_are_kept() {
    let head = |text: &str, test: fn(ResponseHead<'_>) -> bool| {
        let text = format!("{text}\r\n\r\n");
        test(response::parse(text.as_bytes(), GET, &Strictness::default(), &mut Slots::new()).unwrap().unwrap())
    };
    let kept = |text: &str| head(text, |head| head.keep_alive());
    assert!(kept("HTTP/1.1 200 OK\r\nContent-Length: 1"));
    assert!(kept("HTTP/1.1 204 OK"));
    assert!(!kept("HTTP/1.1 200 OK"), "the body ends with it");
    assert!(!kept("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close"));
    assert!(!kept("HTTP/1.0 200 OK\r\nContent-Length: 1"));
    assert!(head("HTTP/1.1 103 Hints", |head| head.is_interim()));
}
