//! Requests.

use super::super::{
    Framing, Known, Slots, Version,
    request::{self, Method, Preface, Refusal, Upgrade},
};
use crate::{control::proxy::http::Strictness, proxy::path::BadPath as Path};

/// What a case must be.
type Verdict = Result<(), Refusal>;

fn parse(text: &[u8], strictness: &Strictness) -> Result<Option<usize>, Refusal> {
    request::parse(text, strictness, &mut Slots::new()).map(|head| head.map(|head| head.len()))
}

/// Checks one case whole, at every length, and byte by byte.
fn check(name: &str, text: &[u8], strictness: &Strictness, expected: Verdict) {
    let whole = parse(text, strictness);
    assert_eq!(whole.map(|length| assert!(length.is_some(), "{name}: incomplete")), expected, "{name}");
    let length = whole.ok().flatten();
    let mut slots = Slots::new();
    let mut ended = false;
    for cut in 0..=text.len() {
        let part = parse(&text[..cut], strictness);
        let by_byte = if ended {
            part
        } else {
            request::parse(&text[..cut], strictness, &mut slots).map(|head| head.map(|head| head.len()))
        };
        assert_eq!(by_byte, part, "{name}: byte by byte, at {cut}");
        ended |= by_byte != Ok(None);
        match (part, expected) {
            (Ok(None), _) => assert!(length.is_none_or(|length| cut < length), "{name}: incomplete at {cut}"),
            (Ok(found), Ok(())) => assert_eq!(found, length, "{name}: at {cut}"),
            (Err(refusal), Err(expected)) => assert_eq!(refusal, expected, "{name}: at {cut}"),
            other => panic!("{name}: at {cut}: {other:?}"),
        }
    }
}

/// A request with these lines after a good request line and `Host`.
fn with(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

/// A request with this line, and a `Host`.
fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

#[test]
fn h1_framing() {
    use Refusal::*;
    let cases: [(&str, &str, Verdict); 36] = [
        ("CL", "Content-Length: 5", Ok(())),
        ("CL with leading zeroes", "Content-Length: 005", Ok(())),
        ("TE", "Transfer-Encoding: chunked", Ok(())),
        ("TE in other case", "transfer-encoding:CHUNKED", Ok(())),
        ("CL + TE", "Content-Length: 5\r\nTransfer-Encoding: chunked", Err(LengthAndCoding)),
        ("TE + CL", "Transfer-Encoding: chunked\r\nContent-Length: 5", Err(LengthAndCoding)),
        ("dup CL equal", "Content-Length: 5\r\nContent-Length: 5", Err(DuplicateContentLength)),
        ("dup CL", "Content-Length: 5\r\nX: y\r\ncontent-length: 6", Err(DuplicateContentLength)),
        ("CL list", "Content-Length: 5, 5", Err(BadContentLength)),
        ("CL +5", "Content-Length: +5", Err(BadContentLength)),
        ("CL -5", "Content-Length: -5", Err(BadContentLength)),
        ("CL 0x5", "Content-Length: 0x5", Err(BadContentLength)),
        ("CL 5_0", "Content-Length: 5_0", Err(BadContentLength)),
        ("CL empty", "Content-Length:", Err(BadContentLength)),
        ("CL with space inside", "Content-Length: 5 5", Err(BadContentLength)),
        ("CL in Unicode digits", "Content-Length: \u{ff15}", Err(BadContentLength)),
        ("CL 2^64", "Content-Length: 18446744073709551616", Err(BadContentLength)),
        ("CL u64 max", "Content-Length: 18446744073709551615", Err(BodyTooLarge)),
        ("CL i64 max", "Content-Length: 9223372036854775807", Ok(())),
        ("TE chunked, chunked", "Transfer-Encoding: chunked, chunked", Err(BadTransferEncoding)),
        ("TE gzip, chunked", "Transfer-Encoding: gzip, chunked", Err(UnsupportedCoding)),
        ("TE chunked, gzip", "Transfer-Encoding: chunked, gzip", Err(UnsupportedCoding)),
        ("TE identity, chunked", "Transfer-Encoding: identity, chunked", Err(UnsupportedCoding)),
        ("TE identity", "Transfer-Encoding: identity", Err(UnsupportedCoding)),
        ("TE xchunked", "Transfer-Encoding: xchunked", Err(UnsupportedCoding)),
        ("TE \"chunked\"", "Transfer-Encoding: \"chunked\"", Err(UnsupportedCoding)),
        ("TE with parameter", "Transfer-Encoding: chunked;a=b", Err(UnsupportedCoding)),
        ("TE empty", "Transfer-Encoding:", Err(BadTransferEncoding)),
        ("TE comma", "Transfer-Encoding: ,chunked", Err(BadTransferEncoding)),
        ("two TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Err(BadTransferEncoding)),
        ("two TE, one other", "Transfer-Encoding: chunked\r\nTransfer-encoding: x", Err(BadTransferEncoding)),
        ("TE obs-fold: empty already", "Transfer-Encoding:\r\n chunked", Err(BadTransferEncoding)),
        ("TE with vertical tab", "Transfer-Encoding: \x0bchunked", Err(ControlByte)),
        ("TE with space before colon", "Transfer-Encoding : chunked", Err(BadFieldName)),
        ("TE with tab before", "\tTransfer-Encoding: chunked", Err(FoldedField)),
        ("TE in a name with NBSP", "Transfer-Encoding\u{a0}: chunked", Err(BadFieldName)),
    ];
    for (name, lines, expected) in cases {
        check(name, &with(lines), &Strictness::default(), expected);
    }
    let http10 = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    check("HTTP/1.0 + TE", http10, &Strictness::default(), Err(CodingInHttp10));
}

#[test]
fn h1_lines() {
    use Refusal::*;
    let cases: [(&str, &[u8], Verdict); 24] = [
        ("obs-fold", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Err(FoldedField)),
        ("obs-fold by tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Err(FoldedField)),
        ("space after the request line", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(FoldedField)),
        ("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(BareLf)),
        ("bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n", Err(BareLf)),
        ("bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(BareLf)),
        ("bare LF before", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(BareLf)),
        ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Err(BareCr)),
        ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Err(BareCr)),
        ("bare CR in the request line", b"GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", Err(BareCr)),
        ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Err(ControlByte)),
        ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", Err(ControlByte)),
        ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Err(ControlByte)),
        ("DEL", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n", Err(ControlByte)),
        ("BEL", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x07\r\n\r\n", Err(ControlByte)),
        ("tab in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n", Ok(())),
        ("obs-text in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xc3\xa9\r\n\r\n", Ok(())),
        ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Err(BadFieldName)),
        ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", Err(BadFieldName)),
        ("space in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n", Err(BadFieldName)),
        ("space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(BadFieldName)),
        ("UTF-8 in a name", b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: a\r\n\r\n", Err(BadFieldName)),
        ("one empty line before", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
        ("two empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(BadMethod)),
    ];
    for (name, text, expected) in cases {
        check(name, text, &Strictness::default(), expected);
    }
    let lenient = Strictness { allow_bare_lf: true, ..Strictness::default() };
    check("bare LF by choice", b"GET / HTTP/1.1\nHost: a\n\n", &lenient, Ok(()));
    check("bare CR is no choice", b"GET / HTTP/1.1\nHost: a\rb\n\n", &lenient, Err(BareCr));
}

#[test]
fn h10_hosts() {
    use Refusal::*;
    let cases: [(&str, &str, Verdict); 24] = [
        ("no Host", "GET / HTTP/1.1\r\nX: y", Err(NoHost)),
        ("HTTP/1.0 without", "GET / HTTP/1.0\r\nX: y", Ok(())),
        ("dup Host", "GET / HTTP/1.1\r\nHost: a\r\nHost: a", Err(DuplicateHost)),
        ("dup Host in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nhost: b", Err(DuplicateHost)),
        ("empty", "GET / HTTP/1.1\r\nHost:", Err(BadHost)),
        ("spaces", "GET / HTTP/1.1\r\nHost:   ", Err(BadHost)),
        ("a, b", "GET / HTTP/1.1\r\nHost: a, b", Err(BadHost)),
        ("a/b@c", "GET / HTTP/1.1\r\nHost: a/b@c", Err(BadHost)),
        ("user", "GET / HTTP/1.1\r\nHost: u@a", Err(BadHost)),
        ("space", "GET / HTTP/1.1\r\nHost: a b", Err(BadHost)),
        ("UTF-8", "GET / HTTP/1.1\r\nHost: é", Err(BadHost)),
        ("port", "GET / HTTP/1.1\r\nHost: a:8080", Ok(())),
        ("port above 65535", "GET / HTTP/1.1\r\nHost: a:65536", Err(BadHost)),
        ("IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80", Ok(())),
        ("absolute-URI = Host", "GET http://A:80/x HTTP/1.1\r\nHost: a:80", Ok(())),
        ("absolute-URI ≠ Host", "GET http://b/ HTTP/1.1\r\nHost: a", Err(HostMismatch)),
        ("absolute-URI ≠ Host in the port", "GET http://a:80/ HTTP/1.1\r\nHost: a", Err(HostMismatch)),
        ("absolute-URI without Host", "GET http://a/ HTTP/1.1\r\nX: y", Err(NoHost)),
        ("absolute-URI in HTTP/1.0", "GET http://a/ HTTP/1.0\r\nX: y", Ok(())),
        ("absolute-URI with user", "GET http://u@a/ HTTP/1.1\r\nHost: a", Err(BadHost)),
        ("absolute-URI without host", "GET http:///x HTTP/1.1\r\nHost: a", Err(BadHost)),
        ("absolute-URI of https", "GET HTTPS://a HTTP/1.1\r\nHost: a", Ok(())),
        ("absolute-URI of ftp", "GET ftp://a/ HTTP/1.1\r\nHost: a", Err(BadTarget)),
        ("authority form", "GET a:80 HTTP/1.1\r\nHost: a", Err(BadTarget)),
    ];
    for (name, text, expected) in cases {
        check(name, format!("{text}\r\n\r\n").as_bytes(), &Strictness::default(), expected);
    }
}

#[test]
fn request_lines() {
    use Refusal::*;
    let cases: [(&str, &str, Verdict); 42] = [
        ("GET", "GET / HTTP/1.1", Ok(())),
        ("own method", "M-SEARCH * HTTP/1.1", Err(BadTarget)),
        ("OPTIONS *", "OPTIONS * HTTP/1.1", Ok(())),
        ("TRACE", "TRACE / HTTP/1.1", Err(MethodNotAllowed)),
        ("CONNECT", "CONNECT a:443 HTTP/1.1", Err(MethodNotAllowed)),
        ("lower-case method", "get / HTTP/1.1", Err(BadMethod)),
        ("mixed-case method", "Get / HTTP/1.1", Err(BadMethod)),
        ("no method", " / HTTP/1.1", Err(BadMethod)),
        ("colon in method", "GET: / HTTP/1.1", Err(BadMethod)),
        ("long method", "GETGETGETGETGETGETGETGETGET / HTTP/1.1", Err(BadMethod)),
        ("HTTP/0.9", "GET /", Err(BadVersion)),
        ("HTTP/0.9 by name", "GET / HTTP/0.9", Err(UnsupportedVersion)),
        ("HTTP/1.2", "GET / HTTP/1.2", Err(UnsupportedVersion)),
        ("HTTP/2.0", "GET / HTTP/2.0", Err(UnsupportedVersion)),
        ("HTTP/1.1.1", "GET / HTTP/1.1.1", Err(BadVersion)),
        ("HTTP/1", "GET / HTTP/1", Err(BadVersion)),
        ("HTTP/01.1", "GET / HTTP/01.1", Err(BadVersion)),
        ("http/1.1", "GET / http/1.1", Err(BadVersion)),
        ("no version", "GET / ", Err(BadVersion)),
        ("space after the version", "GET / HTTP/1.1 ", Err(BadVersion)),
        ("two spaces", "GET  / HTTP/1.1", Err(BadVersion)),
        ("space in the target", "GET /a b HTTP/1.1", Err(BadVersion)),
        ("tab between", "GET\t/ HTTP/1.1", Err(BadMethod)),
        ("tab in the method", "GET\t/x / HTTP/1.1", Err(BadMethod)),
        ("tab in the target", "GET /\ta HTTP/1.1", Err(BadPath(Path::Byte))),
        ("version only", "GET HTTP/1.1", Err(BadVersion)),
        ("#frag", "GET /#frag HTTP/1.1", Err(BadPath(Path::Byte))),
        ("#frag in the query", "GET /?a#frag HTTP/1.1", Err(BadTarget)),
        ("raw UTF-8 path", "GET /é HTTP/1.1", Err(BadPath(Path::Byte))),
        ("raw UTF-8 query", "GET /?é HTTP/1.1", Err(BadTarget)),
        ("no-slash path", "GET x HTTP/1.1", Err(BadTarget)),
        ("no-slash path, encoded", "GET %2fx HTTP/1.1", Err(BadTarget)),
        ("asterisk", "GET * HTTP/1.1", Err(BadTarget)),
        ("query only", "GET ?x HTTP/1.1", Err(BadTarget)),
        ("%00", "GET /%00 HTTP/1.1", Err(BadPath(Path::Nul))),
        ("%2f", "GET /a%2fb HTTP/1.1", Err(BadPath(Path::EncodedSlash))),
        ("%5c", "GET /a%5Cb HTTP/1.1", Err(BadPath(Path::EncodedSlash))),
        ("backslash", "GET /a\\b HTTP/1.1", Err(BadPath(Path::EncodedSlash))),
        ("bad escape", "GET /%zz HTTP/1.1", Err(BadPath(Path::Escape))),
        ("cut escape", "GET /%4 HTTP/1.1", Err(BadPath(Path::Escape))),
        ("overlong", "GET /%c0%ae%c0%ae/ HTTP/1.1", Err(BadPath(Path::Overlong))),
        ("query as it is", "GET /?a=[b]|{c}&%2f%zz=\"<>\\^` HTTP/1.1", Ok(())),
    ];
    for (name, text, expected) in cases {
        check(name, &line(text), &Strictness::default(), expected);
    }
}

#[test]
fn other_protocols_are_refused_at_their_first_byte() {
    for (name, bytes, expected) in [
        ("TLS", b"\x16".as_slice(), Refusal::ControlByte),
        ("SSH", b"SSh", Refusal::BadMethod),
        ("high bytes", b"\x80", Refusal::BadMethod),
        ("lower case", b"g", Refusal::BadMethod),
    ] {
        assert_eq!(parse(bytes, &Strictness::default()), Err(expected), "{name}");
    }
    let magic = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for cut in 0..magic.len() {
        assert_eq!(request::preface(&magic[..cut]), Preface::Unknown);
    }
    assert_eq!(request::preface(&[magic.as_slice(), b"x"].concat()), Preface::Http2);
    assert_eq!(request::preface(b"POST"), Preface::Other);
}

#[test]
fn h13_limits() {
    use Refusal::*;
    let strictness = Strictness { max_head_bytes: 200, max_fields: 5, max_body_bytes: 10, ..Strictness::default() };
    let request = |target: usize, fields: usize, value: usize| {
        let fields = format!("X: {}\r\n", "v".repeat(value)).repeat(fields);
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n{fields}\r\n", "t".repeat(target)).into_bytes()
    };
    let head = request(0, 1, 0).len();
    assert_eq!(request(0, 1, 200 - head).len(), 200);
    check("exactly as long as allowed", &request(0, 1, 200 - head), &strictness, Ok(()));
    check("one byte longer", &request(0, 1, 201 - head), &strictness, Err(HeadTooLarge));
    check("long request line", &request(200, 0, 0), &strictness, Err(TargetTooLong));
    check("as many fields as allowed", &request(0, 4, 1), &strictness, Ok(()));
    check("one more", &request(0, 5, 1), &strictness, Err(TooManyFields));
    let dropped = request(0, 5, 1).escape_ascii().to_string().replace("X:", "X_:").replace("\\r\\n", "\r\n");
    check("those that are taken out count", dropped.as_bytes(), &strictness, Err(TooManyFields));
    check("body", &with("Content-Length: 10"), &strictness, Ok(()));
    check("body too large", &with("Content-Length: 11"), &strictness, Err(BodyTooLarge));
    check("options", &with(&format!("Connection: {}", "a,".repeat(32))), &Strictness::default(), Ok(()));
    check("too many", &with(&format!("Connection: {}", "a,".repeat(33))), &Strictness::default(), Err(TooManyOptions));
    let statuses = [HeadTooLarge, TargetTooLong, TooManyFields, BodyTooLarge].map(Refusal::status);
    assert_eq!(statuses, [431, 414, 431, 413]);
    let other = [MethodNotAllowed, BadExpect, UnsupportedCoding, UnsupportedVersion, BareLf].map(Refusal::status);
    assert_eq!(other, [405, 417, 501, 505, 400]);
}

#[test]
fn h13_small_reads_cost_what_one_does() {
    // 16 KiB of one field, byte by byte: each call looks at what is new, or this takes minutes.
    let text = with(&format!("X: {}", "v".repeat(16 * 1024)));
    let mut slots = Slots::new();
    for cut in 0..text.len() {
        assert!(request::parse(&text[..cut], &Strictness::default(), &mut slots).unwrap().is_none());
        assert!(slots.scanned() + 1 >= cut, "all but a last CR was looked at");
    }
}

/// Runs `test` on the head of `text`.
fn head<T>(text: &[u8], strictness: &Strictness, test: impl FnOnce(request::RequestHead<'_>) -> T) -> T {
    let mut slots = Slots::new();
    test(request::parse(text, strictness, &mut slots).unwrap().unwrap())
}

#[test]
fn heads_tell_what_they_say() {
    let text = b"PUT http://User.Example:80/a/%7eb/../c?x=%2f HTTP/1.1\r\nHOST: user.example:80\r\nCookie: a=b\r\nX-A:  1 \r\n\
                 cookie: c=d\r\nx-a: 2\r\nContent-Length: 3\r\nExpect: 100-Continue\r\nConnection: X-A, keep-alive\r\n\r\nabc";
    head(text, &Strictness::default(), |head| {
        assert_eq!((head.method(), head.method_name(), head.version()), (Method::Put, "PUT", Version::Http11));
        assert_eq!((head.path(), head.query()), ("/a/c", Some("x=%2f")));
        assert_eq!(head.target(), "http://User.Example:80/a/%7eb/../c?x=%2f");
        assert_eq!((head.authority(), &*head.host()), ("User.Example:80", "user.example"));
        assert_eq!((head.framing(), head.len()), (Framing::Length(3), text.len() - 3));
        assert!(head.keep_alive() && head.expects_continue());
        assert_eq!(head.header("cookie").as_deref(), Some("a=b; c=d"));
        assert_eq!(head.header("x-a").as_deref(), Some("1, 2"));
        assert_eq!((head.header("x-b"), head.field(Known::ContentLength)), (None, Some(b"3".as_slice())));
        let listed: Vec<_> = head.fields().filter(|field| field.listed).map(|field| field.name).collect();
        assert_eq!(listed, [b"X-A".as_slice(), b"x-a"]);
    });
}

#[test]
fn view_gives_the_head_again_and_parse_begins_anew() {
    let mut slots = Slots::new();
    let both = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n";
    assert!(request::view(both, &slots).is_none());
    let first = request::parse(both, &Strictness::default(), &mut slots).unwrap().unwrap().len();
    assert_eq!(request::view(both, &slots).unwrap().path(), "/a");
    assert!(request::view(&both[..first - 1], &slots).is_none());
    let second = request::parse(&both[first..], &Strictness::default(), &mut slots).unwrap().unwrap();
    assert_eq!((second.path(), second.authority(), second.fields().count()), ("/b", "b", 2));
    assert_eq!(second.len(), both.len() - first);
}

#[test]
fn underscores_are_taken_out() {
    let text = with("X_Forwarded_For: 1\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nA_B: 1\r\nA-B: 2");
    let names = |strictness: &Strictness| {
        head(&text, strictness, |head| {
            assert_eq!(head.framing(), Framing::None);
            head.fields().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect::<Vec<_>>()
        })
    };
    assert_eq!(names(&Strictness::default()), ["Host", "A-B"]);
    let lenient = Strictness { allow_underscore: true, ..Strictness::default() };
    assert_eq!(names(&lenient), ["Host", "A_B", "A-B"], "H7: never twins of what only the proxy may write");
}

#[test]
fn h3_expectations() {
    let expects = |lines: &str| head(&with(lines), &Strictness::default(), |head| head.expects_continue());
    assert!(expects("Expect: 100-continue\r\nContent-Length: 1"));
    assert!(expects("Transfer-Encoding: chunked\r\nexpect: 100-CONTINUE"));
    assert!(!expects("Expect: 100-continue"), "there is no body to wait for");
    assert!(!expects("Expect: 100-continue\r\nContent-Length: 0"));
    for bad in [
        "Expect: x",
        "Expect:",
        "Expect: 100-continue, 100-continue",
        "Expect: 100-continue\r\nExpect: 100-continue",
        "Expect: 100-continue;a",
    ] {
        check(bad, &with(bad), &Strictness::default(), Err(Refusal::BadExpect));
    }
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    assert!(!head(old, &Strictness::default(), |head| head.expects_continue()), "RFC 9110 §10.1.1");
}

#[test]
fn connections_are_kept() {
    let kept =
        |text: &str| head(format!("{text}\r\n\r\n").as_bytes(), &Strictness::default(), |head| head.keep_alive());
    assert!(kept("GET / HTTP/1.1\r\nHost: a"));
    assert!(!kept("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close"));
    assert!(!kept("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close"));
    assert!(!kept("GET / HTTP/1.0\r\nHost: a"));
    assert!(kept("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive"));
    assert!(!kept("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close"));
}

#[test]
fn h4_upgrades() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let websocket =
        format!("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n{key}");
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    let off = Strictness { allow_upgrade: false, ..Strictness::default() };
    let strict = Strictness::default();
    // Whether the connection may go on with another request when the upgrade is not to be had.
    let cases: [(&str, String, &Strictness, Upgrade, bool); 22] = [
        ("WebSocket", get(&websocket), &strict, Upgrade::WebSocket, true),
        ("not allowed", get(&websocket), &off, Upgrade::None, false),
        ("version 8", get(&websocket.replace("13", "8")), &strict, Upgrade::None, false),
        ("no version", get(&websocket.replace("Version", "V")), &strict, Upgrade::None, false),
        ("two versions", get(&format!("{websocket}\r\nSec-WebSocket-Version: 13")), &strict, Upgrade::None, false),
        ("no key", get(&websocket.replace("Key", "K")), &strict, Upgrade::None, false),
        ("short key", get(&websocket.replace("dGhl", "")), &strict, Upgrade::None, false),
        ("key that is no base64", get(&websocket.replace("dGhl", "d-hl")), &strict, Upgrade::None, false),
        ("two keys", get(&format!("{websocket}\r\n{key}")), &strict, Upgrade::None, false),
        ("POST", get(&websocket).replace("GET", "POST"), &strict, Upgrade::None, false),
        ("HTTP/1.0", get(&websocket).replace("1.1\r", "1.0\r"), &strict, Upgrade::None, false),
        ("with a body", get(&format!("{websocket}\r\nContent-Length: 1")), &strict, Upgrade::None, false),
        (
            "with a chunked body",
            get(&format!("{websocket}\r\nTransfer-Encoding: chunked")),
            &strict,
            Upgrade::None,
            false,
        ),
        ("without Connection", get("Upgrade: websocket"), &strict, Upgrade::None, false),
        ("two Upgrades", get(&format!("{websocket}\r\nUpgrade: websocket")), &strict, Upgrade::None, false),
        ("a list", get("Connection: upgrade\r\nUpgrade: foo, bar"), &strict, Upgrade::None, false),
        ("empty", get("Connection: upgrade\r\nUpgrade:"), &strict, Upgrade::None, false),
        ("another", get("Connection: upgrade\r\nUpgrade: foo/2"), &strict, Upgrade::Other, true),
        (
            "h2c",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
            &strict,
            Upgrade::None,
            true,
        ),
        ("h2c among others", get("Connection: Upgrade\r\nUpgrade: h2c, websocket"), &strict, Upgrade::None, true),
        ("TLS", get("Connection: Upgrade\r\nUpgrade: TLS/1.0"), &strict, Upgrade::None, true),
        ("Connection without Upgrade", get("Connection: Upgrade"), &strict, Upgrade::None, true),
    ];
    for (name, text, strictness, upgrade, keep_alive) in cases {
        head(text.as_bytes(), strictness, |head| {
            assert_eq!(head.upgrade(), upgrade, "{name}");
            assert_eq!(head.upgrade_protocol().is_empty(), upgrade == Upgrade::None, "{name}");
            assert_eq!(head.keep_alive(), keep_alive, "{name}: what follows may be no request");
        });
    }
}
