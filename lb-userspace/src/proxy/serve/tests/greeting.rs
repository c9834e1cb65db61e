//! What comes before a client's first byte: PROXY headers, and from whom they are taken (THREATS H8); and that a connection to a
//! node that told of one client serves no other (H16).

use std::{
    io::{Read, Write},
    net::Ipv4Addr,
    time::Duration,
};

use super::{
    super::super::testing::{Proxy, Recorder, http_plan},
    read_response,
};
use crate::control::proxy::{Network, ProxyPlan, pool::ProxyVersion};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// PROXY headers are taken from this network.
fn plan(node: &Recorder, network: Ipv4Addr) -> ProxyPlan {
    let mut plan = http_plan(&[node.address()]);
    let server = plan.virtual_servers.get_mut("test").unwrap();
    server.proxy_protocol = Some(vec![Network { address: network.into(), prefix: 8 }]);
    server.timeouts.handshake = Duration::from_millis(300);
    plan
}

#[test]
fn h8_a_proxy_header_is_taken_from_trusted_networks_and_nothing_is_served_without() {
    let node = Recorder::start(OK);
    let trusted = Proxy::start(plan(&node, Ipv4Addr::LOCALHOST));
    let mut client = trusted.connect();
    client.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 80\r\n").unwrap();
    client.write_all(REQUEST.as_bytes()).unwrap();
    assert!(read_response(&mut client).0.starts_with("HTTP/1.1 200 "));
    assert!(node.last().0.contains("\r\nX-Forwarded-For: 192.0.2.7\r\n"), "{}", node.last().0);

    let stranger = Proxy::start(plan(&node, Ipv4Addr::new(10, 0, 0, 0)));
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 40000 80\r\n";
    let cases = [
        ("a stranger", &stranger, format!("{header}{REQUEST}")),
        ("none", &trusted, REQUEST.to_owned()),
        ("half a one", &trusted, header[..20].to_owned()),
        ("silence", &trusted, String::new()),
        ("a broken one", &trusted, format!("PROXY TCP4 192.0.2.7 198.51.100.1 99999 80\r\n{REQUEST}")),
        ("one of another form", &trusted, format!("PROXY TCP6 192.0.2.7 198.51.100.1 40000 80\r\n{REQUEST}")),
    ];
    for (name, proxy, bytes) in cases {
        let mut client = proxy.connect();
        // It may be closed already.
        let _ = client.write_all(bytes.as_bytes());
        let mut answer = Vec::new();
        // An end or a reset, within the time for greetings.
        let _ = client.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{name}: {:?}", String::from_utf8_lossy(&answer));
        assert_eq!(node.requests().len(), 1, "{name}");
    }
}

#[test]
fn h16_a_connection_that_told_the_node_of_a_client_serves_no_other() {
    for (proxy_protocol, connections) in [(None, 1), (Some(ProxyVersion::V1), 2)] {
        let node = Recorder::start(OK);
        let mut plan = http_plan(&[node.address()]);
        plan.pools.get_mut("nodes").unwrap().proxy_protocol = proxy_protocol;
        let proxy = Proxy::start(plan);
        for _ in 0..2 {
            let mut client = proxy.connect();
            client.write_all(REQUEST.as_bytes()).unwrap();
            assert!(read_response(&mut client).0.starts_with("HTTP/1.1 200 "), "{proxy_protocol:?}");
        }
        assert_eq!(node.connections(), connections, "{proxy_protocol:?}");
    }
}
