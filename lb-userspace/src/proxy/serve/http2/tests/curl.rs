//! curl as a client: TLS with ALPN, prior knowledge, and hosts that a certificate does not stand for (THREATS H10).

use std::process::Command;

use crate::{
    control::proxy::{
        ProxyPlan,
        tls::{Certificate, ClientAuth, ServerTls, Version},
    },
    proxy::testing::{Proxy, Recorder, http_plan},
};

fn certificate(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Certificate { chain_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem(), ocsp: None }
}

fn tls_plan(node: &Recorder) -> ProxyPlan {
    let mut plan = http_plan(&[node.address()]);
    for name in ["a.test", "b.test"] {
        plan.certificates.insert(name.to_owned(), certificate(name));
    }
    plan.virtual_servers.get_mut("test").unwrap().tls = Some(ServerTls {
        certificates: vec!["a.test".to_owned(), "b.test".to_owned()],
        default_certificate: None,
        min_version: Version::Tls12,
        cipher_suites: Vec::new(),
        curves: Vec::new(),
        client_auth: ClientAuth::None,
        tickets: true,
        ticket_secret: None,
    });
    plan
}

/// What curl says of a request to `a.test`: version and status.
fn curl(proxy: &Proxy, scheme: &str, arguments: &[&str]) -> String {
    let port = proxy.address().port();
    let output = Command::new("curl")
        .args(["-sk", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--max-time", "10"])
        .args(["--resolve", &format!("a.test:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("{scheme}://a.test:{port}/"))
        .output()
        .expect("curl is installed");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_agrees_on_a_version_by_alpn() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(tls_plan(&node));
    assert_eq!(curl(&proxy, "https", &["--http2"]), "2 200");
    assert_eq!(curl(&proxy, "https", &["--http1.1"]), "1.1 200");
    assert!(node.last().0.contains("X-Forwarded-Proto: https\r\n"));
    let body = "x".repeat(100_000);
    assert_eq!(curl(&proxy, "https", &["--http2", "-d", &body]), "2 200");
    assert_eq!(node.last().1.len(), 100_000);
}

#[test]
fn h10_a_host_of_another_certificate_is_misdirected() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(tls_plan(&node));
    assert_eq!(curl(&proxy, "https", &["--http2", "-H", "Host: b.test"]), "2 421");
    assert_eq!(curl(&proxy, "https", &["--http1.1", "-H", "Host: b.test"]), "1.1 421");
    assert!(node.requests().is_empty());
}

#[test]
fn curl_speaks_http2_with_prior_knowledge() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    assert_eq!(curl(&proxy, "http", &["--http2-prior-knowledge"]), "2 200");
    // An upgrade is not taken (THREATS, HTTP table): the request is HTTP/1.1's.
    assert_eq!(curl(&proxy, "http", &["--http2"]), "1.1 200");
}
