//! What clients of the HTTPS listener may not do to others.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use super::client::{Https, PASSWORD};

#[test]
fn every_answer_tells_browsers_what_to_refuse() {
    let api = Https::start("");
    for path in ["/api/v1/status", "/nonsense", "/docs", "/healthz", "/a//b"] {
        let answer = api.get(path);
        let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("{path} has no {name}"));
        assert!(header("strict-transport-security").starts_with("max-age="));
        assert!(header("content-security-policy").contains("default-src 'none'"));
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("cache-control"), "no-store");
        let kind = header("content-type");
        assert!(answer.status == 200 || kind == "application/problem+json", "{path}: {} {kind}", answer.status);
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[test]
fn who_is_not_allowed_is_not_spoken_to() {
    let api = Https::start("allow = [\"192.0.2.0/24\", \"2001:db8::/32\"]");
    assert!(api.connect().is_err());
    assert_eq!(api.local.get("/api/v1/users"), json!([]), "the unix socket is not concerned");
    let api = Https::start("allow = [\"127.0.0.0/8\"]");
    assert!(api.connect().is_ok());
}

#[test]
fn silent_clients_take_no_more_than_their_places() {
    let api = Https::start("");
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(api.address).unwrap()).collect();
    let closed = || {
        let is_closed = |mut stream: &TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            matches!(stream.read(&mut [0]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
        };
        silent.iter().filter(|stream| is_closed(stream)).count()
    };
    assert!((0..200).any(|_| closed() >= 24), "16 of a client stay, {} were closed", closed());
    assert_eq!(api.local.get("/api/v1/users"), json!([]), "the unix socket answers");
    drop(silent);
    assert!((0..500).any(|_| api.connect().is_ok()), "their places are given away again");
}

#[test]
fn large_and_deep_bodies_are_refused() {
    let api = Https::start("");
    let token = api.token("admin", json!([]));
    let large = json!({"forwarding": "x".repeat(100_000)});
    assert_eq!(token.send("PATCH", "/api/v1/pools/web", Some(large)).status, 413);
    let mut deep = json!(1);
    (0..100).for_each(|_| deep = json!([deep]));
    assert_eq!(token.send("PATCH", "/api/v1/pools/web", Some(deep)).status, 400);
}

#[test]
fn a_caller_has_a_hundred_requests_a_second() {
    let api = Https::start("");
    api.add("ann", "viewer");
    let session = api.log_in("ann", PASSWORD).unwrap();
    let mut stream = api.connect().unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n", session.cookie);
    // Many in one go, so that it does not depend on how fast this machine is.
    write!(stream, "{}", request.repeat(400)).unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 65_536];
    while seen.matches("HTTP/1.1 ").count() < 400 {
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "closed early");
        seen += std::str::from_utf8(&buffer[..count]).unwrap();
    }
    assert!(seen.matches("HTTP/1.1 200").count() >= 200);
    assert!(seen.contains("HTTP/1.1 429"), "none was held back");
}
