//! What is written is read as what was meant: random requests, responses and bodies.

use proptest::prelude::*;

use super::super::{
    Framing, Known, Slots,
    body::{ChunkedEncoder, Decoder},
    request,
    response::{self, Asked},
    write::{RequestEdit, ResponseEdit, request_head, response_head},
};
use crate::control::proxy::http::Strictness;

/// Names: ordinary ones, those of one connection, and those of framing.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z][A-Za-z0-9-]{0,12}",
        prop::sample::select(vec![
            "Connection",
            "Keep-Alive",
            "TE",
            "Upgrade",
            "Trailer",
            "Cookie",
            "X-Forwarded-For",
            "Expect"
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,30}", "(close|keep-alive|upgrade|cookie|100-continue|x-a|, ){0,5}"]
}

/// A request that may or may not be valid.
fn request() -> impl Strategy<Value = String> {
    let target = prop_oneof!["/[a-zA-Z0-9/.%;?&=~-]{0,30}", "http://a[a-z.]{0,5}/[a-z.?]{0,9}"];
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "OPTIONS"]);
    let framing = prop_oneof![Just(""), Just("Content-Length: 5\r\n"), Just("Transfer-Encoding: chunked\r\n")];
    (method, target, prop::collection::vec((name(), value()), 0..8), framing).prop_map(
        |(method, target, fields, framing)| {
            let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}{framing}\r\n")
        },
    )
}

proptest! {
    #[test]
    fn requests_written_anew_are_read_as_they_were(text in request()) {
        let strictness = Strictness::default();
        let (mut slots, mut again) = (Slots::new(), Slots::new());
        let Ok(head) = request::parse(text.as_bytes(), &strictness, &mut slots) else { return Ok(()) };
        let head = head.expect("it ends with an empty line");
        let mut out = Vec::new();
        let edit = RequestEdit { framing: head.framing(), upgrade: true, ..RequestEdit::default() };
        request_head(&mut out, &head, &edit);
        let read = request::parse(&out, &strictness, &mut again).expect("what we write is valid").expect("and complete");
        prop_assert_eq!(read.len(), out.len());
        prop_assert_eq!((read.method_name(), read.path(), read.query()), (head.method_name(), head.path(), head.query()));
        prop_assert_eq!(read.target(), [read.path(), read.query().map_or("", |_| "?"), read.query().unwrap_or_default()].concat());
        prop_assert_eq!((read.authority(), read.framing(), read.upgrade()), (head.authority(), head.framing(), head.upgrade()));
        let own = [Known::Connection, Known::Upgrade, Known::ContentLength, Known::TransferEncoding];
        for field in read.fields() {
            prop_assert!(own.contains(&field.known) || !field.listed);
        }
        let ends = |head: &request::RequestHead<'_>| {
            let fields = head.fields().filter(|field| field.known == Known::Other && !field.listed);
            fields.map(|field| (field.name.to_vec(), field.value.to_vec())).collect::<Vec<_>>()
        };
        prop_assert_eq!(ends(&read), ends(&head));
    }

    #[test]
    fn responses_written_anew_are_read_as_they_were(
        status in 200..600_u16,
        reason in "[ -~]{0,10}",
        fields in prop::collection::vec((name(), value()), 0..8),
        framing in prop_oneof![Just(""), Just("Content-Length: 5\r\n"), Just("Transfer-Encoding: chunked\r\n")],
    ) {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("HTTP/1.1 {status} {reason}\r\n{fields}{framing}\r\n");
        let (mut slots, mut again) = (Slots::new(), Slots::new());
        let Ok(head) = response::parse(text.as_bytes(), Asked::default(), &Strictness::default(), &mut slots) else { return Ok(()) };
        let head = head.expect("it ends with an empty line");
        let mut out = Vec::new();
        response_head(&mut out, &head, &ResponseEdit { framing: head.framing(), ..ResponseEdit::default() });
        let read = response::parse(&out, Asked::default(), &Strictness::default(), &mut again).expect("valid").expect("complete");
        prop_assert_eq!((read.status(), read.reason(), read.framing()), (head.status(), head.reason(), head.framing()));
        prop_assert!(!read.has(Known::Connection) && !read.has(Known::KeepAlive));
    }

    #[test]
    fn chunked_bodies_come_out_as_they_went_in(parts in prop::collection::vec(1..400_usize, 0..9), size in 1..50_usize) {
        let mut wire = Vec::new();
        for part in &parts {
            wire.extend_from_slice(ChunkedEncoder::head(*part).as_ref());
            wire.extend_from_slice(&vec![b'\n'; *part]);
            wire.extend_from_slice(ChunkedEncoder::AFTER_DATA);
        }
        wire.extend_from_slice(ChunkedEncoder::END);
        let mut decoder = Decoder::new(Framing::Chunked, 0, &[]);
        let mut total = 0;
        for piece in wire.chunks(size) {
            let mut at = 0;
            while at < piece.len() {
                let step = decoder.decode(&piece[at..]).expect("it is well-formed");
                total += step.data.len();
                at += step.consumed;
            }
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(total, parts.iter().sum::<usize>());
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = request::parse(&bytes, &Strictness::default(), &mut Slots::new());
        let with_line = [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &bytes].concat();
        let _ = request::parse(&with_line, &Strictness::default(), &mut Slots::new());
        let _ = response::parse(&bytes, Asked::default(), &Strictness::default(), &mut Slots::new());
        let _ = crate::proxy::proxy_protocol::parse(&bytes);
        let _ = crate::proxy::client_hello::peek(&bytes);
        let _ = Decoder::new(Framing::Chunked, 0, &["x"]).decode(&bytes);
    }
}
