//! HTTP/1.1, differentially: what we accept and write anew is read by two others (httparse, and a slow strict reading
//! written here) as one message that means what we say it means.
#![no_main]

use lb_fuzz::{
    control::proxy::http::Strictness,
    proxy::h1::{
        Framing, Slots,
        body::Decoder,
        request,
        response::{self, Asked},
        write::{RequestEdit, ResponseEdit, request_head, response_head},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (flags, bytes) = input;
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let strictness = Strictness {
        max_head_bytes: 4096,
        allow_bare_lf: flag(0),
        allow_underscore: flag(1),
        allow_encoded_slash: flag(2),
        merge_slashes: flag(3),
        allow_upgrade: flag(4),
        ..Strictness::default()
    };
    if flag(5) { answer(bytes, &strictness) } else { ask(bytes, &strictness) }
});

/// A request, with its body.
fn ask(bytes: &[u8], strictness: &Strictness) {
    let mut slots = Slots::new();
    let whole = request::parse(bytes, strictness, &mut slots).map(|head| head.map(|head| head.len()));
    let mut by_piece = Slots::new();
    for cut in 0..bytes.len().min(600) {
        let part = request::parse(&bytes[..cut], strictness, &mut by_piece).map(|head| head.map(|head| head.len()));
        if part != Ok(None) {
            assert_eq!(part, whole, "at {cut}");
            break;
        }
    }
    let Some(head) = request::view(bytes, &slots) else { return };
    assert!(!strictness.allow_bare_lf || bytes.len() >= head.len());
    let mut out = Vec::new();
    let edit = RequestEdit {
        framing: head.framing(),
        upgrade: true,
        expect_continue: head.expects_continue(),
        ..RequestEdit::default()
    };
    request_head(&mut out, &head, &edit);

    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Request::new(&mut fields);
    let status = other.parse(&out).expect("httparse takes it");
    assert_eq!(status, httparse::Status::Complete(out.len()), "one head and nothing after");
    assert_eq!((other.method, other.version), (Some(head.method_name()), Some(1)));
    let target = other.path.expect("it has one");
    let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
    assert_eq!(target, [head.path(), &query].concat());
    assert!(target.starts_with('/') || target == "*");

    let read = slow::head(&out);
    let pairs: Vec<_> =
        other.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    assert_eq!(pairs, read.fields, "both readings agree");
    assert_eq!(read.all("host"), [head.authority().as_bytes()], "exactly one Host");
    assert_eq!(read.framing(true), head.framing());
    for name in ["te", "keep-alive", "proxy-connection", "http2-settings", "trailer", "proxy-authorization"] {
        assert!(read.all(name).is_empty(), "{name} concerns one connection");
    }
    let is_upgrade = !head.upgrade_protocol().is_empty();
    assert_eq!(read.all("upgrade").len(), usize::from(is_upgrade));
    assert!(read.fields.iter().all(|(name, _)| strictness.allow_underscore || !name.contains('_')));

    // What the client sent, read slowly, says the same about framing.
    if !strictness.allow_bare_lf {
        let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        let came = slow::head(&bytes[start..head.len()]);
        assert_eq!(came.framing(true), head.framing());
        for name in came.listed() {
            let is_own = matches!(
                name.as_str(),
                "host" | "connection" | "upgrade" | "content-length" | "transfer-encoding" | "expect"
            );
            assert!(is_own || read.all(&name).is_empty(), "Connection lists {name}");
        }
    }
    body(head.framing(), &bytes[head.len()..]);
}

/// A response.
fn answer(bytes: &[u8], strictness: &Strictness) {
    let mut slots = Slots::new();
    let asked = Asked { upgrade: b"websocket", ..Asked::default() };
    let whole = response::parse(bytes, asked, strictness, &mut slots).map(|head| head.map(|head| head.len()));
    let mut by_piece = Slots::new();
    for cut in 0..bytes.len().min(600) {
        let part =
            response::parse(&bytes[..cut], asked, strictness, &mut by_piece).map(|head| head.map(|head| head.len()));
        if part != Ok(None) {
            assert_eq!(part, whole, "at {cut}");
            break;
        }
    }
    let Some(head) = response::view(bytes, &slots) else { return };
    let mut out = Vec::new();
    response_head(&mut out, &head, &ResponseEdit { framing: head.framing(), ..ResponseEdit::default() });
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Response::new(&mut fields);
    let status = other.parse(&out).expect("httparse takes it");
    assert_eq!(status, httparse::Status::Complete(out.len()), "one head and nothing after");
    assert_eq!((other.code, other.version), (Some(head.status()), Some(1)));
    let read = slow::head(&out);
    if head.framing() != Framing::None {
        assert_eq!(read.framing(false), head.framing());
    }
    assert!(read.all("content-length").len() <= 1 && read.all("keep-alive").is_empty());
    body(head.framing(), &bytes[head.len()..]);
}

/// Data found in one piece and byte by byte is the same, and a slow reading of chunks agrees.
fn body(framing: Framing, wire: &[u8]) {
    let read = |size: usize| {
        let mut decoder = Decoder::new(framing, 0, &["x"]);
        let (mut data, mut consumed) = (Vec::new(), 0);
        for piece in wire.chunks(size) {
            let mut at = 0;
            while at < piece.len() && !decoder.is_done() {
                match decoder.decode(&piece[at..]) {
                    Ok(step) => {
                        assert!(step.consumed > 0);
                        data.extend_from_slice(&piece[at..][step.data]);
                        at += step.consumed;
                        consumed += step.consumed;
                    }
                    Err(bad) => return (Err(bad), data, consumed),
                }
            }
        }
        (Ok(decoder.is_done()), data, consumed)
    };
    let whole = read(usize::MAX);
    let bytewise = read(1);
    assert_eq!((&whole.0, &whole.1), (&bytewise.0, &bytewise.1));
    if whole.0 == Ok(true) && framing == Framing::Chunked {
        let (data, length) = slow::chunks(wire).expect("the slow reading takes it");
        assert_eq!((data, length), (whole.1, whole.2));
    }
}

mod slow {
    //! A strict reading by plain means, to compare with.

    use lb_fuzz::proxy::h1::Framing;

    /// A head: names in lower case, values trimmed.
    pub(super) struct Head {
        pub(super) fields: Vec<(String, Vec<u8>)>,
    }

    /// Panics where `bytes` are not exactly one head with CR LF everywhere.
    pub(super) fn head(bytes: &[u8]) -> Head {
        let lines = bytes.strip_suffix(b"\r\n\r\n").expect("it ends with an empty line");
        let mut fields = Vec::new();
        let mut rest = lines;
        let mut is_first = true;
        while !rest.is_empty() {
            let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap_or(rest.len());
            let line = &rest[..end];
            assert!(!line.is_empty() && line.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()));
            if !is_first {
                let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
                let name = str::from_utf8(&line[..colon]).expect("ASCII").to_ascii_lowercase();
                assert!(
                    !name.is_empty()
                        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte))
                );
                let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
                let value = &line[colon + 1..];
                let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
                let stop = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
                fields.push((name, value[start..stop].to_vec()));
            }
            is_first = false;
            rest = rest.get(end + 2..).unwrap_or_default();
        }
        Head { fields }
    }

    impl Head {
        pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
            self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_slice()).collect()
        }

        /// Panics where framing is said in two ways.
        pub(super) fn framing(&self, is_request: bool) -> Framing {
            match (self.all("content-length").as_slice(), self.all("transfer-encoding").as_slice()) {
                ([], []) if is_request => Framing::None,
                ([], []) => Framing::UntilClose,
                ([length], []) => {
                    assert!(length.iter().all(u8::is_ascii_digit));
                    Framing::Length(str::from_utf8(length).expect("digits").parse().expect("a number"))
                }
                ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
                other => panic!("framing said twice, or wrongly: {other:?}"),
            }
        }

        /// What `Connection` lists, lower case.
        pub(super) fn listed(&self) -> Vec<String> {
            let values = self.all("connection").concat_with_commas();
            let names = values.split(',').map(|name| name.trim_matches([' ', '\t']).to_ascii_lowercase());
            names.filter(|name| !name.is_empty()).collect()
        }
    }

    trait Concat {
        fn concat_with_commas(&self) -> String;
    }

    impl Concat for Vec<&[u8]> {
        fn concat_with_commas(&self) -> String {
            self.iter().map(|value| String::from_utf8_lossy(value)).collect::<Vec<_>>().join(",")
        }
    }

    /// Data and length of a chunked body at the beginning of `wire`.
    pub(super) fn chunks(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
        let line = |at: usize| -> Option<(&[u8], usize)> {
            let end = at + wire[at..].windows(2).position(|pair| pair == b"\r\n")?;
            (!wire[at..end].contains(&b'\n')).then_some((&wire[at..end], end + 2))
        };
        let (mut data, mut at) = (Vec::new(), 0);
        loop {
            let (head, next) = line(at)?;
            let size = head.split(|byte| *byte == b';').next()?;
            let size = str::from_utf8(size).ok().filter(|size| size.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            let size = usize::from_str_radix(size, 16).ok()?;
            at = next;
            if size == 0 {
                break;
            }
            data.extend_from_slice(wire.get(at..at + size)?);
            at += size;
            (wire.get(at..at + 2)? == b"\r\n").then_some(())?;
            at += 2;
        }
        loop {
            let (trailer, next) = line(at)?;
            at = next;
            if trailer.is_empty() {
                return Some((data, at));
            }
        }
    }
}
