//! Messages (RFC 9113 §8) and how their heads are compressed (RFC 7541).

use super::{super::wire::*, *};

#[test]
fn section_8_1_messages() {
    let length = |text: &str| begin(1, &[pseudo("POST", "/"), fields(&[("content-length", text)])].concat());
    run(
        vec![
            ("8.1 trailers", sent(&[post(1), data(1, 0, b"x"), request(1, &fields(&[("x-sum", "1")]))]), Status(200)),
            (
                "8.1.1 a length that is kept",
                sent(&[length("3"), data(1, 0, b"ab"), data(1, END_STREAM, b"c")]),
                Status(200),
            ),
            // The node has a whole request by its length, before more of it comes.
            (
                "8.1.1 more than the length, in two",
                sent(&[length("2"), data(1, 0, b"ab"), data(1, END_STREAM, b"c")]),
                Stream(PROTOCOL),
            ),
            ("8.1.1 a length of 0", sent(&[length("0"), data(1, END_STREAM, b"")]), Status(200)),
        ],
        false,
    );
    run(
        vec![
            (
                "8.1 a second head that is no end",
                sent(&[post(1), begin(1, &fields(&[("x-sum", "1")]))]),
                Stream(PROTOCOL),
            ),
            (
                "8.1 a pseudo-header field in trailers",
                sent(&[post(1), request(1, &fields(&[(":path", "/x")]))]),
                Stream(PROTOCOL),
            ),
            (
                "8.1.1 less than the length, with trailers",
                sent(&[length("4"), data(1, 0, b"ab"), request(1, &fields(&[("x-sum", "1")]))]),
                Stream(PROTOCOL),
            ),
            ("8.1 a capital in trailers", sent(&[post(1), request(1, &fields(&[("X-Sum", "1")]))]), Stream(PROTOCOL)),
            ("8.1.1 more than the length", sent(&[length("1"), data(1, END_STREAM, b"ab")]), Stream(PROTOCOL)),
            ("8.1.1 less than the length", sent(&[length("4"), data(1, END_STREAM, b"ab")]), Stream(PROTOCOL)),
            (
                "8.1.1 a length, and no body",
                request(1, &[pseudo("POST", "/"), fields(&[("content-length", "4")])].concat()),
                Stream(PROTOCOL),
            ),
            ("8.1.1 a length that is none", sent(&[length("+5"), data(1, END_STREAM, b"abcde")]), Stream(PROTOCOL)),
            ("8.1.1 a list of lengths", sent(&[length("5, 5"), data(1, END_STREAM, b"abcde")]), Stream(PROTOCOL)),
            ("8.1.1 an empty length", sent(&[length(""), data(1, END_STREAM, b"")]), Status(400)),
            (
                "8.1.1 a length above all",
                sent(&[length("18446744073709551616"), data(1, END_STREAM, b"")]),
                Stream(PROTOCOL),
            ),
            (
                "8.1.1 one length twice",
                request(1, &[pseudo("GET", "/"), fields(&[("content-length", "0"), ("content-length", "0")])].concat()),
                Status(400),
            ),
            (
                "8.1.1 a list in which one is empty",
                request(1, &[pseudo("GET", "/"), fields(&[("content-length", ""), ("content-length", "1")])].concat()),
                Stream(PROTOCOL),
            ),
            (
                "8.1.1 two lengths",
                request(1, &[pseudo("GET", "/"), fields(&[("content-length", "0"), ("content-length", "1")])].concat()),
                Stream(PROTOCOL),
            ),
        ],
        true,
    );
}

#[test]
fn section_8_2_fields() {
    run(
        vec![
            ("8.2.1 a capital", with(&[("X-Test", "1")]), Stream(PROTOCOL)),
            ("8.2.1 a space in a name", with(&[("x test", "1")]), Stream(PROTOCOL)),
            ("8.2.1 a colon in a name", with(&[("x:test", "1")]), Stream(PROTOCOL)),
            ("8.2.1 a name with DEL", raw(b"x\x7f", b"1"), Stream(PROTOCOL)),
            ("8.2.1 a name above 0x7f", raw(b"x\xc3", b"1"), Stream(PROTOCOL)),
            ("8.2.1 an empty name", with(&[("", "1")]), Either(PROTOCOL, COMPRESSION)),
            ("8.2.1 NUL in a value", raw(b"x-test", b"a\0b"), Stream(PROTOCOL)),
            ("8.2.1 CR in a value", raw(b"x-test", b"a\rb"), Stream(PROTOCOL)),
            ("8.2.1 LF in a value", raw(b"x-test", b"a\nb"), Stream(PROTOCOL)),
            (
                "8.2.1 a request in a value",
                raw(b"x-test", b"a\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"),
                Stream(PROTOCOL),
            ),
            ("8.2.1 a request in a name", raw(b"x: a\r\n\r\nget / http/1.1\r\nhost", b"a"), Stream(PROTOCOL)),
            ("8.2.1 a space before a value", with(&[("x-test", " a")]), Stream(PROTOCOL)),
            ("8.2.1 a tab after a value", with(&[("x-test", "a\t")]), Stream(PROTOCOL)),
            ("8.2.1 another control byte", raw(b"x-test", b"a\x01b"), Status(400)),
            ("8.2.2 connection", with(&[("connection", "keep-alive")]), Stream(PROTOCOL)),
            ("8.2.2 keep-alive", with(&[("keep-alive", "5")]), Stream(PROTOCOL)),
            ("8.2.2 proxy-connection", with(&[("proxy-connection", "keep-alive")]), Stream(PROTOCOL)),
            ("8.2.2 transfer-encoding", with(&[("transfer-encoding", "chunked")]), Stream(PROTOCOL)),
            ("8.2.2 upgrade", with(&[("upgrade", "websocket")]), Stream(PROTOCOL)),
            ("8.2.2 te of another kind", with(&[("te", "gzip")]), Stream(PROTOCOL)),
            ("8.2.2 te of two kinds", with(&[("te", "trailers, deflate;q=0.5")]), Stream(PROTOCOL)),
        ],
        true,
    );
    run(
        vec![
            ("8.2.2 te: trailers", with(&[("te", "trailers")]), Status(200)),
            ("8.2.1 a tab in a value", with(&[("x-test", "a\tb")]), Status(200)),
            ("8.2.1 bytes above 0x7f in a value", raw(b"x-test", b"\xc3\xa4"), Status(200)),
            ("8.2.1 an empty value", with(&[("x-test", "")]), Status(200)),
            ("8.2.3 several cookies", with(&[("cookie", "a=1"), ("cookie", "b=2")]), Status(200)),
        ],
        false,
    );
}

#[test]
fn section_8_3_requests() {
    let (method, scheme, authority, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/"));
    run(
        vec![
            (
                "8.3 an unknown pseudo-header field",
                only(&[method, scheme, authority, path, (":what", "x")]),
                Stream(PROTOCOL),
            ),
            ("8.3 one of responses", only(&[method, scheme, authority, path, (":status", "200")]), Stream(PROTOCOL)),
            ("8.3 one after a field", only(&[method, scheme, authority, ("x", "y"), path]), Stream(PROTOCOL)),
            ("8.3.1 no :method", only(&[scheme, authority, path]), Stream(PROTOCOL)),
            ("8.3.1 no :scheme", only(&[method, authority, path]), Stream(PROTOCOL)),
            ("8.3.1 no :path", only(&[method, scheme, authority]), Stream(PROTOCOL)),
            ("8.3.1 an empty :path", only(&[method, scheme, authority, (":path", "")]), Stream(PROTOCOL)),
            ("8.3.1 two :method", only(&[method, method, scheme, authority, path]), Stream(PROTOCOL)),
            ("8.3.1 two :scheme", only(&[method, scheme, scheme, authority, path]), Stream(PROTOCOL)),
            ("8.3.1 two :path", only(&[method, scheme, authority, path, path]), Stream(PROTOCOL)),
            ("8.3.1 two :authority", only(&[method, scheme, authority, authority, path]), Stream(PROTOCOL)),
            ("8.3.1 an empty :method", only(&[(":method", ""), scheme, authority, path]), Stream(PROTOCOL)),
            ("8.3.1 a :method with a space", only(&[(":method", "GET /x"), scheme, authority, path]), Stream(PROTOCOL)),
            ("8.3.1 a :path with a space", only(&[method, scheme, authority, (":path", "/a b")]), Stream(PROTOCOL)),
            (
                "8.3.1 a :path with CR LF",
                only(&[method, scheme, authority, (":path", "/ HTTP/1.1\r\nx: y")]),
                Stream(PROTOCOL),
            ),
            (
                "8.3.1 an :authority with CR LF",
                only(&[method, scheme, (":authority", "a\r\nx: y"), path]),
                Stream(PROTOCOL),
            ),
            ("8.3.1 neither :path nor :authority", only(&[method, scheme]), Stream(PROTOCOL)),
            ("8.3.1 no host at all", only(&[method, scheme, path]), Status(400)),
            ("8.3.1 another host", only(&[method, scheme, authority, path, ("host", "b.test")]), Status(400)),
            ("8.3.1 two hosts", only(&[method, scheme, path, ("host", "a.test"), ("host", "a.test")]), Status(400)),
            ("8.3.1 a list of hosts", only(&[method, scheme, path, ("host", "a, b")]), Status(400)),
            ("8.3.1 an empty host", only(&[method, scheme, path, ("host", "")]), Status(400)),
            ("8.3.1 userinfo", only(&[method, scheme, (":authority", "u@a.test"), path]), Status(400)),
            ("8.3.1 a path without slash", target("GET", "x"), Either(PROTOCOL, PROTOCOL)),
            ("8.3.1 * but not OPTIONS", target("GET", "*"), Status(400)),
            ("8.4 NUL in a path", target("GET", "/%00"), Status(400)),
            ("8.4 a slash that is hidden", target("GET", "/a%2fb"), Status(400)),
            ("8.4 an escape that is none", target("GET", "/%zz"), Status(400)),
            ("8.5 CONNECT", only(&[(":method", "CONNECT"), (":authority", "a.test:443")]), Status(405)),
            ("8.5 CONNECT with a path", only(&[(":method", "CONNECT"), authority, path]), Either(PROTOCOL, PROTOCOL)),
            (
                "RFC 8441 an extended CONNECT",
                only(&[(":method", "CONNECT"), (":protocol", "websocket"), scheme, authority, path]),
                Stream(PROTOCOL),
            ),
            ("TRACE", target("TRACE", "/"), Status(405)),
            ("a method of small letters", target("get", "/"), Status(400)),
            ("6.5.2 more fields than allowed", with(&[("x", "y"); 120]), Status(431)),
        ],
        true,
    );
    run(
        vec![
            ("8.3.1 host alone", only(&[method, scheme, path, ("host", "a.test")]), Status(200)),
            ("8.3.1 the same host", only(&[method, scheme, authority, path, ("host", "A.test")]), Status(200)),
            ("8.3.1 * for OPTIONS", target("OPTIONS", "*"), Status(200)),
            ("8.3.1 HEAD", target("HEAD", "/"), Status(200)),
            ("8.3.1 a method nobody knows", target("PROPFIND", "/"), Status(200)),
        ],
        false,
    );
}

#[test]
fn rfc_7541_header_compression() {
    let rest = fields(&[(":authority", "a.test")]);
    let block = |start: &[u8]| request(1, &[start, &rest].concat());
    let get_root = [0x82, 0x86, 0x84];
    let twice = |first: &[u8], second: &[u8]| {
        sent(&[
            request(3, &[&get_root, &rest[..], first].concat()),
            request(5, &[&get_root, &rest[..], second].concat()),
        ])
    };
    run(
        vec![
            ("6.1 fields of the static table", block(&get_root), Status(200)),
            (
                "6.2.1 a literal that is indexed",
                request(1, &[&get_root[..], &rest, &[0x40], &string(b"x-a"), &string(b"b")].concat()),
                Status(200),
            ),
            (
                "6.2.1 a literal with a name of the table",
                request(1, &[&get_root[..], &[0x41], &string(b"a.test")].concat()),
                Status(200),
            ),
            (
                "6.2.2 a literal that is not",
                request(1, &[&get_root[..], &[0x01], &string(b"a.test")].concat()),
                Status(200),
            ),
            (
                "6.2.3 a literal that never is",
                request(1, &[&get_root[..], &[0x11], &string(b"a.test")].concat()),
                Status(200),
            ),
            (
                "5.2 Huffman",
                request(
                    1,
                    &[
                        &get_root[..],
                        &[0x01, 0x8c],
                        &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
                    ]
                    .concat(),
                ),
                Status(200),
            ),
            (
                "4.3 an update of the size at the begin",
                request(1, &[&[0x20], &get_root[..], &rest].concat()),
                Status(200),
            ),
            ("4.3 two updates", request(1, &[&[0x20, 0x3f, 0xe1, 0x1f], &get_root[..], &rest].concat()), Status(200)),
        ],
        false,
    );
    run(
        vec![
            ("6.1 index 0", block(&[0x80]), Either(COMPRESSION, PROTOCOL)),
            ("2.3.3 an index above the tables", block(&[0xbe]), Either(COMPRESSION, PROTOCOL)),
            ("2.3.3 a name's index above the tables", block(&[0x7f, 0x20, 0x01, b'x']), Either(COMPRESSION, PROTOCOL)),
            (
                "5.1 an integer above all",
                block(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
                Either(COMPRESSION, PROTOCOL),
            ),
            (
                "5.2 a string that is cut",
                request(1, &[&get_root[..], &[0x01, 0x7e, b'a']].concat()),
                Either(COMPRESSION, PROTOCOL),
            ),
            (
                "5.2 Huffman with EOS",
                request(1, &[&get_root[..], &[0x01, 0x84, 0xff, 0xff, 0xff, 0xff]].concat()),
                Either(COMPRESSION, PROTOCOL),
            ),
            (
                "5.2 Huffman padded by zeros",
                request(1, &[&get_root[..], &[0x01, 0x81, 0x18]].concat()),
                Either(COMPRESSION, PROTOCOL),
            ),
            (
                "6.3 an update above the setting",
                request(1, &[&[0x3f, 0xe1, 0xff, 0x03], &get_root[..], &rest].concat()),
                Either(COMPRESSION, PROTOCOL),
            ),
            (
                "4.2 an update after a field",
                request(1, &[&get_root[..], &[0x20], &rest].concat()),
                Either(COMPRESSION, PROTOCOL),
            ),
        ],
        true,
    );
    run(
        vec![
            ("2.3.2 an entry that another head made", twice(&[0x40, 1, b'x', 1, b'y'], &[0xbe]), Alive),
            ("4.4 an entry that was put out", twice(&[0x40, 1, b'x', 1, b'y'], &[0x20]), Either(COMPRESSION, PROTOCOL)),
        ],
        false,
    );
}
