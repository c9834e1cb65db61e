//! The table "HTTP" of THREATS.md from outside: bytes in, and what a recording node is sent: one well-formed request, or none.

use std::io::{Read, Write};

use super::super::super::testing::{Proxy, Recorder, http_plan};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
/// What must never be read as a request of its own where the one before it was refused.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends and reads until the proxy closes, which may be before all was sent.
fn exchange(proxy: &Proxy, request: &[u8]) -> String {
    let mut client = proxy.connect();
    let (mut answer, _) = (Vec::new(), client.write_all(request));
    // A reset after the answer is an end, too.
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

fn target(line: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn host(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{fields}\r\n")
}

/// What is refused, and the statuses that it may be refused with.
fn refused() -> Vec<(&'static str, String, &'static [u16])> {
    const BAD: &[u16] = &[400];
    let extension = "x".repeat(64 * 1024);
    vec![
        ("both lengths", post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), BAD),
        ("the same length twice", post("Content-Length: 5\r\nContent-Length: 5", "hello"), BAD),
        ("a list of lengths", post("Content-Length: 5, 5", "hello"), BAD),
        ("a length with a plus", post("Content-Length: +5", "hello"), BAD),
        ("a length below 0", post("Content-Length: -5", "hello"), BAD),
        ("a hexadecimal length", post("Content-Length: 0x5", "hello"), BAD),
        ("a length with an underscore", post("Content-Length: 5_0", "hello"), BAD),
        ("no length at all", post("Content-Length: ", "hello"), BAD),
        ("a length of 2^64", post("Content-Length: 18446744073709551616", "hello"), &[400, 413]),
        ("the greatest length of 64 bits", post("Content-Length: 18446744073709551615", "hello"), &[400, 413]),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), &[400, 501]),
        ("another coding before", post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), &[400, 501]),
        ("identity before", post("Transfer-Encoding: identity, chunked", "0\r\n\r\n"), &[400, 501]),
        ("two fields", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), &[400, 501]),
        ("a folded coding", post("Transfer-Encoding:\r\n chunked", "0\r\n\r\n"), BAD),
        ("a folded field", get("X: a\r\n b"), BAD),
        (
            "chunked over HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            BAD,
        ),
        ("no host", host(""), BAD),
        ("two hosts", host("Host: a\r\nHost: a\r\n"), BAD),
        ("a list of hosts", host("Host: a, b\r\n"), BAD),
        ("a host with a path", host("Host: a/b@c\r\n"), BAD),
        ("an empty host", host("Host: \r\n"), BAD),
        ("another host than the target's", target("GET http://b/"), BAD),
        ("lines that end by LF", "GET / HTTP/1.1\nHost: a\n\n".to_owned(), BAD),
        ("one line that ends by LF", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".to_owned(), BAD),
        ("a bare CR", get("X: a\rb"), BAD),
        ("NUL", get("X: a\0b"), BAD),
        ("DEL", get("X: a\x7fb"), BAD),
        ("a line without a colon", get("X"), BAD),
        ("a blank before the colon", get("X : a"), BAD),
        ("a name with a bracket", get("X(: a"), BAD),
        ("a chunk's size that ends by LF", chunked("2\nhi\r\n0\r\n\r\n"), BAD),
        ("a last chunk that ends by LF", chunked("0\n\n"), BAD),
        ("LF in an extension", chunked("2;a\nb\r\nhi\r\n0\r\n\r\n"), BAD),
        ("an endless extension", chunked(&format!("2;{extension}\r\nhi\r\n0\r\n\r\n")), BAD),
        ("a chunk's size with 0x", chunked("0x2\r\nhi\r\n0\r\n\r\n"), BAD),
        ("a chunk's size with a plus", chunked("+2\r\nhi\r\n0\r\n\r\n"), BAD),
        ("a chunk's size below 0", chunked("-1\r\nhi\r\n0\r\n\r\n"), BAD),
        ("a chunk's size beyond 64 bits", chunked("10000000000000002\r\nhi\r\n0\r\n\r\n"), BAD),
        ("a chunk without its end", chunked("2\r\nhi0\r\n\r\n"), BAD),
        ("TRACE", target("TRACE /"), &[405]),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(), &[405]),
        ("a fragment", target("GET /#frag"), BAD),
        ("a path in UTF-8", target("GET /é"), BAD),
        ("a path without a slash", target("GET index"), BAD),
        ("a method in lower case", target("get /"), BAD),
        ("an encoded NUL", target("GET /a%00b"), BAD),
        ("an encoded slash", target("GET /a%2fb"), BAD),
        ("an encoded backslash", target("GET /a%5cb"), BAD),
        ("an unknown expectation", post("Expect: 200-ok\r\nContent-Length: 2", "hi"), &[417]),
        ("101 fields", get(&vec!["X: a"; 101].join("\r\n")), &[431]),
        ("a field of 64 KiB", get(&format!("X: {}", "a".repeat(64 * 1024))), &[431]),
    ]
}

#[test]
fn what_could_be_read_two_ways_reaches_no_node() {
    let node = Recorder::start(OK);
    let proxy = Proxy::start(http_plan(&[node.address()]));
    for (name, request, statuses) in refused() {
        let answer = exchange(&proxy, [&request, SMUGGLED].concat().as_bytes());
        let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        assert!(status.is_some_and(|status| statuses.contains(&status)), "{name}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
        assert!(node.requests().is_empty(), "{name}: {:?}", node.requests());
    }
    let endless = get(&format!("X: {}", "a".repeat(500 * 1024)));
    let answer = exchange(&proxy, [&endless, SMUGGLED].concat().as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "500 KiB: {answer}");
    assert!(node.requests().is_empty(), "{:?}", node.requests());
}

/// What passes: the request, and the lines that the node gets besides those that tell of the client.
fn forwarded() -> Vec<(&'static str, String, &'static [&'static str])> {
    const GET: &str = "GET / HTTP/1.1";
    vec![
        ("names with an underscore are dropped", get("X_A: 1\r\nX-B: 2"), &[GET, "Host: a", "X-B: 2"]),
        (
            "no upgrade to h2c",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
            &[GET, "Host: a"],
        ),
        (
            "fields that Connection lists go no further, ours do",
            get("Connection: close, X-Forwarded-For, X-A\r\nX-A: 1\r\nX-Forwarded-For: 192.0.2.1"),
            &[GET, "Host: a"],
        ),
        (
            "fields of one connection go no further",
            get("Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: gzip\r\nProxy-Authorization: x"),
            &[GET, "Host: a"],
        ),
        ("trailers are asked for anew", get("TE: gzip, trailers"), &[GET, "Host: a", "Connection: TE", "TE: trailers"]),
        (
            "who the client is says the proxy",
            get(
                "X-Real-IP: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\nTrue-Client-IP: 192.0.2.1\r\nX-Forwarded-Proto: https",
            ),
            &[GET, "Host: a"],
        ),
        (
            "a path is forwarded as it was judged",
            target("GET /x/../admin/%2e%2e/y;v=1/./z?q=/../"),
            &["GET /y;v=1/z?q=/../ HTTP/1.1", "Host: a"],
        ),
        ("a parent with a parameter is one", target("GET /a/..;x/b"), &["GET /b HTTP/1.1", "Host: a"]),
        ("a target with its host", target("GET http://a/p"), &["GET /p HTTP/1.1", "Host: a"]),
        (
            "trailers that frame or identify are dropped",
            chunked("2\r\nhi\r\n0\r\nContent-Length: 9\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"),
            &["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"],
        ),
    ]
}

#[test]
fn what_passes_is_one_request_that_says_no_more() {
    for (name, request, expected) in forwarded() {
        let node = Recorder::start(OK);
        let proxy = Proxy::start(http_plan(&[node.address()]));
        // The last one of its connection: what follows would be a request.
        let request = request.replacen("Host: a\r\n", "Connection: close\r\nHost: a\r\n", 1);
        let answer = exchange(&proxy, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{name}: {answer}");
        let (head, body) = node.last();
        let of_client = ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: a"];
        let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
        let mut expected: Vec<&str> = expected.iter().copied().chain(of_client).collect();
        assert_eq!(lines[0], expected[0], "{name}");
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{name}");
        assert!(!String::from_utf8_lossy(&body).contains("192.0.2.1"), "{name}: {body:?}");
        assert_eq!(node.requests().len(), 1, "{name}");
    }
}
