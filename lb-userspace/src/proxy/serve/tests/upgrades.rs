//! Upgrades: a tunnel only after a matching 101 (THREATS H4).

use std::io::{Read, Write};

use super::{exchange, read_response};
use crate::proxy::testing::{Proxy, Server, http_plan, read_head};

const WEBSOCKET: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_websocket_becomes_a_tunnel_with_what_came_early() {
    let node = Server::start(|mut peer| {
        let head = read_head(&mut peer);
        assert!(head.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        peer.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
            .unwrap();
        let mut bytes = [0; 4];
        peer.read_exact(&mut bytes).unwrap();
        peer.write_all(&bytes).unwrap();
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    client.write_all(WEBSOCKET).unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Upgrade: websocket\r\n"), "{head}");
    client.write_all(b"ping").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "helloping");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let node = Server::start(|mut peer| {
        read_head(&mut peer);
        peer.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").unwrap();
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    client.write_all(WEBSOCKET).unwrap();
    let (head, body) = read_response(&mut client);
    assert!(head.starts_with("HTTP/1.1 403 ") && body == b"no", "{head}");
}

#[test]
fn upgrades_that_are_switched_off_are_not_asked_for() {
    let node = Server::start(|mut peer| {
        let head = read_head(&mut peer);
        assert!(!head.contains("Upgrade"), "{head}");
        peer.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .unwrap();
    });
    let mut plan = http_plan(&[node.address()]);
    let crate::control::proxy::Service::Http(http) = &mut plan.virtual_servers.get_mut("test").unwrap().service else {
        unreachable!()
    };
    http.strictness.allow_upgrade = false;
    let proxy = Proxy::start(plan);
    let answer = exchange(&proxy, WEBSOCKET);
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}
