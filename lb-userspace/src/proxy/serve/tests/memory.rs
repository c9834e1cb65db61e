//! What clients get while memory is short (THREATS X20).

use std::io::{Read, Write};

use super::super::super::testing::{Proxy, Recorder, Server, http_plan, stream_plan};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Reads a response of known length whose body ends by this.
fn read_until(client: &mut impl Read, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let mut some = [0; 1024];
        let count = client.read(&mut some).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..count]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn x20_requests_are_answered_503_and_connections_closed_until_there_is_memory() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut kept = proxy.connect();
    kept.write_all(REQUEST).unwrap();
    read_until(&mut kept, "ok");
    let before = node.requests().len();
    proxy.handle().memory_is_short(true);
    for mut client in [kept, proxy.connect()] {
        client.write_all(REQUEST).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        for field in ["Retry-After: 5", "Connection: close", "Proxy-Status: lb; error=proxy_internal_error"] {
            assert!(answer.contains(&format!("\r\n{field}")), "{field}: {answer}");
        }
    }
    assert_eq!(node.requests().len(), before, "no node is asked");
    proxy.handle().memory_is_short(false);
    let mut client = proxy.connect();
    client.write_all(REQUEST).unwrap();
    assert!(read_until(&mut client, "ok").starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn x20_generic_connections_go_on_and_new_ones_are_closed() {
    let echo = Server::start(|mut peer| {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = peer.read(&mut bytes) {
            if peer.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::start(stream_plan(&[echo.address()]));
    let mut old = proxy.connect();
    old.write_all(b"one").unwrap();
    read_until(&mut old, "one");
    proxy.handle().memory_is_short(true);
    old.write_all(b"two").unwrap();
    read_until(&mut old, "two");
    let mut refused = proxy.connect();
    // An end or a reset.
    assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
    proxy.handle().memory_is_short(false);
    let mut new = proxy.connect();
    new.write_all(b"three").unwrap();
    read_until(&mut new, "three");
}
