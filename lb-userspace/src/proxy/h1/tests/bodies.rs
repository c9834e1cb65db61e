//! Bodies, in pieces of every size.

use super::super::{
    Framing,
    body::{BadBody, ChunkedEncoder, Decoder},
};

/// The data, the kept trailers, and the bytes that were consumed, of `wire` fed in pieces of `size`.
fn decode(mut decoder: Decoder, wire: &[u8], size: usize) -> (Result<Vec<u8>, BadBody>, String, usize) {
    let (mut data, mut consumed) = (Vec::new(), 0);
    for piece in wire.chunks(size) {
        let mut at = 0;
        while at < piece.len() && !decoder.is_done() {
            let rest = &piece[at..];
            let step = match decoder.decode(rest) {
                Ok(step) => step,
                Err(bad) => return (Err(bad), String::new(), consumed),
            };
            assert!(step.consumed > 0, "it gets on");
            assert!(step.data.end <= step.consumed && step.done == decoder.is_done());
            data.extend_from_slice(&rest[step.data]);
            at += step.consumed;
            consumed += step.consumed;
        }
    }
    (Ok(data), String::from_utf8(decoder.trailers().to_vec()).unwrap(), consumed)
}

fn chunked(max: u64) -> Decoder {
    Decoder::new(Framing::Chunked, max, &["grpc-status", "content-length", "x-forwarded-for", "host", "cookie"])
}

#[test]
fn chunked_bodies_are_read_in_pieces_of_any_size() {
    let cases: [(&str, &str, &str, &str); 9] = [
        ("empty", "0\r\n\r\n", "", ""),
        ("one", "5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("two", "5\r\nhello\r\n00a\r\n, world!!!\r\n0\r\n\r\n", "hello, world!!!", ""),
        ("upper case", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""),
        ("extension", "1;a=b;c=\"d e\"\r\nx\r\n0;z\r\n\r\n", "x", ""),
        ("line ends in the data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", ""),
        ("trailers dropped", "0\r\nX: y\r\nA_b:\r\n\r\n", "", ""),
        ("trailers kept", "0\r\nGrpc-Status:  0 \r\nX: y\r\n\r\n", "", "Grpc-Status: 0\r\n"),
        (
            "framing, identity and cookies never",
            "1\r\nx\r\n0\r\nContent-Length: 5\r\nX-Forwarded-For: 1\r\nHost: a\r\nCookie: b\r\ngrpc-status: 1\r\n\r\n",
            "x",
            "grpc-status: 1\r\n",
        ),
    ];
    for (name, wire, data, trailers) in cases {
        let with_next = format!("{wire}GET");
        for size in 1..=with_next.len() {
            let expected = (Ok(data.as_bytes().to_vec()), trailers.to_owned(), wire.len());
            assert_eq!(decode(chunked(0), with_next.as_bytes(), size), expected, "{name}, in pieces of {size}");
        }
        for cut in 0..wire.len() {
            let (part, _, consumed) = decode(chunked(0), &wire.as_bytes()[..cut], usize::MAX);
            assert!(data.as_bytes().starts_with(&part.unwrap()) && consumed == cut, "{name}, cut off at {cut}");
        }
    }
}

#[test]
fn h1_bad_chunks_are_refused() {
    use BadBody::*;
    let extension = |length: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(length - 1));
    let cases: [(&str, &str, BadBody); 32] = [
        ("no size", "\r\n", ChunkSize),
        ("0x2", "0x2\r\nab\r\n0\r\n\r\n", ChunkSize),
        ("+2", "+2\r\nab\r\n0\r\n\r\n", ChunkSize),
        ("-1", "-1\r\nab\r\n0\r\n\r\n", ChunkSize),
        ("space before", " 2\r\nab\r\n0\r\n\r\n", ChunkSize),
        ("space after", "2 \r\nab\r\n0\r\n\r\n", ChunkSize),
        ("space before the extension", "2 ;a\r\nab\r\n0\r\n\r\n", ChunkSize),
        ("g", "g\r\n", ChunkSize),
        ("underscore", "1_0\r\n", ChunkSize),
        ("extension without size", ";a\r\n", ChunkSize),
        ("2^63", "8000000000000000\r\n", ChunkSize),
        ("overflow", "10000000000000002\r\nab", ChunkSize),
        ("17 digits", "00000000000000002\r\nab", ChunkSize),
        ("size by LF", "2\nab\r\n0\r\n\r\n", ChunkEnd),
        ("size by CR", "2\rab\r\n0\r\n\r\n", ChunkEnd),
        ("0 by LF", "0\n\n", ChunkEnd),
        ("no CR LF after data", "2\r\nab0\r\n\r\n", ChunkEnd),
        ("LF after data", "2\r\nab\n0\r\n\r\n", ChunkEnd),
        ("CR after data", "2\r\nab\r0\r\n\r\n", ChunkEnd),
        ("more data than told", "2\r\nabc\r\n0\r\n\r\n", ChunkEnd),
        ("LF in an extension", "2;a\nab\r\n0\r\n\r\n", ChunkExtension),
        ("CR in an extension", "2;a\rb\r\nab\r\n0\r\n\r\n", ChunkEnd),
        ("NUL in an extension", "2;\0\r\nab\r\n0\r\n\r\n", ChunkExtension),
        ("long extension", &extension(257), ChunkExtension),
        ("LF at the end", "0\r\n\n", Trailer),
        ("CR at the end", "0\r\n\rx", Trailer),
        ("trailer by LF", "0\r\nX: y\n\r\n", Trailer),
        ("trailer without colon", "0\r\nX\r\n\r\n", Trailer),
        ("trailer without name", "0\r\n: y\r\n\r\n", Trailer),
        ("folded trailer", "0\r\nX: y\r\n z: a\r\n\r\n", Trailer),
        ("NUL in a trailer", "0\r\nX: \0\r\n\r\n", Trailer),
        ("long trailers", &format!("0\r\n{}\r\n", format!("X: {}\r\n", "y".repeat(1000)).repeat(9)), Trailer),
    ];
    for (name, wire, expected) in cases {
        for size in [1, 2, 3, usize::MAX] {
            assert_eq!(decode(chunked(0), wire.as_bytes(), size).0, Err(expected), "{name}, in pieces of {size}");
        }
    }
    assert!(decode(chunked(0), extension(256).as_bytes(), usize::MAX).0.is_ok());
}

#[test]
fn h13_small_chunks_with_long_extensions_are_refused() {
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(200));
    assert_eq!(decode(chunked(0), chunk.repeat(200).as_bytes(), usize::MAX).0, Err(BadBody::ChunkExtension));
    let honest = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(100_000));
    assert_eq!(decode(chunked(0), honest.as_bytes(), usize::MAX).0.map(|data| data.len()), Ok(100_000));
}

#[test]
fn h13_bodies_are_limited() {
    let wire = b"5\r\nhello\r\n1\r\nx\r\n0\r\n\r\n";
    assert!(decode(chunked(6), wire, usize::MAX).0.is_ok());
    for size in 1..wire.len() {
        assert_eq!(decode(chunked(5), wire, size).0, Err(BadBody::TooLarge));
    }
    assert_eq!(decode(chunked(5), b"ffffff\r\n", usize::MAX).0, Err(BadBody::TooLarge), "before its data comes");
}

#[test]
fn lengths_and_ends() {
    let length = |length| Decoder::new(Framing::Length(length), 0, &[]);
    for size in 1..9 {
        assert_eq!(decode(length(5), b"helloGET", size), (Ok(b"hello".to_vec()), String::new(), 5));
    }
    assert!(length(0).is_done() && Decoder::new(Framing::None, 0, &[]).is_done());
    let mut decoder = length(5);
    assert_eq!(decoder.run(), 5);
    decoder.skip(4);
    assert!(!decoder.may_end() && !decoder.is_done());
    decoder.skip(9);
    assert!(decoder.may_end() && decoder.is_done(), "no more is skipped than there is");
    let close = || Decoder::new(Framing::UntilClose, 0, &[]);
    assert_eq!(decode(close(), b"hello", 2), (Ok(b"hello".to_vec()), String::new(), 5));
    assert!(close().may_end() && !close().is_done());
    let step = length(5).decode(b"").unwrap();
    assert_eq!((step.data, step.consumed, step.done), (0..0, 0, false));
    assert!(!chunked(0).may_end());
}

#[test]
fn what_is_encoded_is_decoded() {
    for length in [1, 9, 10, 15, 16, 255, 256, 65_536] {
        let data = vec![b'x'; length];
        let mut wire = ChunkedEncoder::head(length).as_ref().to_vec();
        assert_eq!(wire, format!("{length:x}\r\n").into_bytes());
        wire.extend_from_slice(&data);
        wire.extend_from_slice(ChunkedEncoder::AFTER_DATA);
        let mut with_trailer = wire.clone();
        wire.extend_from_slice(ChunkedEncoder::END);
        assert_eq!(decode(chunked(0), &wire, 1000), (Ok(data.clone()), String::new(), wire.len()));
        ChunkedEncoder::end(&mut with_trailer, b"grpc-status: 0\r\n");
        let expected = (Ok(data), "grpc-status: 0\r\n".to_owned(), with_trailer.len());
        assert_eq!(decode(chunked(0), &with_trailer, 1000), expected);
    }
    assert_eq!(ChunkedEncoder::head(usize::MAX).as_ref(), b"ffffffffffffffff\r\n");
}
