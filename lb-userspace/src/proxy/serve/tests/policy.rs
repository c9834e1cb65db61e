//! Rules, limits, persistence and server names on a request's way.

use std::{
    io::{Read, Write},
    time::Duration,
};

use super::{exchange, read_response};
use crate::{
    control::proxy::{
        ProxyPlan, Service,
        http::Http,
        pool::{NodeGone, Persistence, PersistenceKind},
        rule::{Action, Condition, Fact, Rule, Test},
    },
    proxy::testing::{Proxy, Recorder, Server, http_plan, stream_plan},
};

const OK: &str = "HTTP/1.1 200 OK\r\nServer: node\r\nContent-Length: 2\r\n\r\nok";

pub(super) fn http(plan: &mut ProxyPlan) -> &mut Http {
    match &mut plan.virtual_servers.get_mut("test").unwrap().service {
        Service::Http(http) => http,
        Service::Stream(_) => unreachable!(),
    }
}

fn rule(when: Condition, action: Action) -> Rule {
    Rule { name: "rule".to_owned(), when, actions: vec![action] }
}

#[test]
fn request_rules_answer_redirect_and_edit_before_a_node_is_asked() {
    let node = Recorder::start(OK);
    let mut plan = http_plan(&[node.address()]);
    let path = |path: &str| Condition::Is(Fact::Path, Test::OneOf(vec![path.to_owned()]));
    http(&mut plan).rules.request = vec![
        rule(path("/old"), Action::Redirect { status: 301, to: "https://%{host}".to_owned(), keep_path: true }),
        rule(path("/drop"), Action::Drop),
        rule(path("/edit"), Action::SetHeader("x-added".to_owned(), "yes".to_owned())),
        rule(path("/edit"), Action::SetPath("/new".to_owned())),
    ];
    let proxy = Proxy::start(plan);
    let answer = exchange(&proxy, b"GET /old HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 301 ") && answer.contains("\r\nLocation: https://a/old\r\n"), "{answer}");
    assert_eq!(exchange(&proxy, b"GET /drop HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), "");
    let answer = exchange(&proxy, b"GET /edit HTTP/1.1\r\nHost: a\r\nX-Added: no\r\nConnection: close\r\n\r\n");
    assert!(answer.ends_with("ok"), "{answer}");
    let requests = node.requests();
    assert_eq!(requests.len(), 1);
    assert!(
        requests[0].starts_with("GET /new HTTP/1.1\r\n") && requests[0].contains("x-added: yes\r\n"),
        "{requests:?}"
    );
    assert!(!requests[0].contains("X-Added: no"), "{requests:?}");
}

#[test]
fn response_rules_edit_what_the_client_gets() {
    let node = Recorder::start(OK);
    let mut plan = http_plan(&[node.address()]);
    http(&mut plan).rules.response = vec![
        rule(Condition::Always, Action::DeleteHeader("server".to_owned())),
        rule(Condition::Always, Action::SetHeader("x-pool".to_owned(), "%{node}".to_owned())),
    ];
    let proxy = Proxy::start(plan);
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("\r\nx-pool: node0\r\n") && !answer.contains("Server:"), "{answer}");
}

#[test]
fn a_cookie_keeps_a_client_on_its_node() {
    let nodes = [Recorder::start(OK), Recorder::start(OK), Recorder::start(OK)];
    let mut plan = http_plan(&[nodes[0].address(), nodes[1].address(), nodes[2].address()]);
    plan.pools.get_mut("nodes").unwrap().persistence = Some(Persistence {
        kind: PersistenceKind::Cookie { name: "lb".to_owned(), attributes: "Path=/; HttpOnly".to_owned() },
        timeout: Duration::from_secs(60),
        max_entries: 0,
        node_gone: NodeGone::ChooseAnew,
    });
    let proxy = Proxy::start(plan);
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let line = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect("a cookie is set");
    let cookie = line.split(';').next().unwrap();
    let mut client = proxy.connect();
    for _ in 0..6 {
        client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n").as_bytes()).unwrap();
        read_response(&mut client);
    }
    let mut counts: Vec<usize> = nodes.iter().map(|node| node.requests().len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 7]);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let node = Recorder::start(OK);
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().limits.connections = 1;
    let proxy = Proxy::start(plan);
    let mut first = proxy.connect();
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_response(&mut first);
    assert_eq!(exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    let snapshot = serde_json::to_string(&proxy.handle().stats().snapshot()).unwrap();
    assert!(snapshot.contains("connections"), "{snapshot}");
    assert_eq!(node.requests().len(), 1);
}

#[test]
fn tls_passes_through_to_the_pool_of_its_server_name() {
    let answer = |text: &'static str| {
        Server::start(move |mut peer| {
            // The ClientHello arrives untouched: its record begins as it was sent.
            let mut record = [0; 5];
            peer.read_exact(&mut record).unwrap();
            assert_eq!(record[0], 22);
            peer.write_all(text.as_bytes()).unwrap();
        })
    };
    let (own, named) = (answer("own"), answer("named"));
    let mut plan = stream_plan(&[own.address()]);
    let mut pool = plan.pools["nodes"].clone();
    pool.nodes.get_mut("node0").unwrap().addresses = vec![named.address()];
    plan.pools.insert("other".to_owned(), pool);
    let Service::Stream(stream) = &mut plan.virtual_servers.get_mut("test").unwrap().service else { unreachable!() };
    stream.peek = true;
    stream.by_server_name = [("*.example.org".to_owned(), "other".to_owned())].into();
    let proxy = Proxy::start(plan);
    for (name, expected) in [("www.example.org", "named"), ("example.net", "own")] {
        let mut client = proxy.connect();
        client.write_all(&hello(name)).unwrap();
        let mut received = [0; 5];
        let count = client.read(&mut received).unwrap();
        assert_eq!(std::str::from_utf8(&received[..count]).unwrap(), expected, "{name}");
    }
}

/// A ClientHello for `name`, as rustls makes it.
fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}
