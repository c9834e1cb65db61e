//! What is told of requests when they are over: counters, access logs, recent requests, completion rules, events.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use super::{exchange, policy::http, read_response};
use crate::{
    control::proxy::{
        ProxyEvent, ProxyPlan,
        log::{AccessLog, Format},
        recent::Filter,
        rule::{Action, Condition, Fact, Rule, Test},
    },
    proxy::testing::{Proxy, Recorder, Server, http_plan, read_head, stream_plan, wait},
};

const OK: &str = "HTTP/1.1 200 OK\r\nServer: node\r\nContent-Length: 2\r\n\r\nok";

/// Lines of the access log as they come.
struct Lines(BufReader<std::io::PipeReader>);

impl Lines {
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// A proxy whose access log is read here.
fn logged(mut plan: ProxyPlan, sample: u32) -> (Proxy, Lines) {
    let path = PathBuf::from("/access.log");
    let log = AccessLog { path: path.clone(), format: Format::Json, sample };
    plan.virtual_servers.get_mut("test").unwrap().access_log = Some(log);
    let proxy = Proxy::start(plan);
    let (reader, writer) = std::io::pipe().unwrap();
    proxy.handle().open_log(&path, writer.into());
    (proxy, Lines(BufReader::new(reader)))
}

fn rule(name: &str, when: Condition, actions: Vec<Action>) -> Rule {
    Rule { name: name.to_owned(), when, actions }
}

fn path(path: &str) -> Condition {
    Condition::Is(Fact::Path, Test::OneOf(vec![path.to_owned()]))
}

#[test]
fn every_end_of_a_request_has_its_line_and_is_counted_by_the_status_that_was_sent() {
    let node = Server::start(|mut peer| {
        while let head = read_head(&mut peer)
            && !head.is_empty()
        {
            let answer = match head.split(' ').nth(1).unwrap() {
                "/early" => return,
                "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
                _ => OK,
            };
            peer.write_all(answer.as_bytes()).unwrap();
            if head.starts_with("GET /cut") {
                return;
            }
        }
    });
    let mut plan = http_plan(&[node.address()]);
    let respond = Action::Respond { status: 403, content_type: "text/plain".to_owned(), body: "no".to_owned() };
    http(&mut plan).rules.request =
        vec![rule("deny", path("/deny"), vec![respond]), rule("drop", path("/drop"), vec![Action::Drop])];
    let (proxy, mut lines) = logged(plan, 1);
    let get =
        |url: &str| exchange(&proxy, format!("GET {url} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    let cases = [
        ("/ok", 200, "--", None, Some("node0"), None),
        ("/deny", 403, "LR", Some("rule"), None, Some("deny")),
        ("/drop", 0, "PR", Some("rule"), None, Some("drop")),
        ("/early", 502, "SH", Some("early_close"), Some("node0"), None),
        ("/cut", 200, "SD", Some("truncated"), Some("node0"), None),
    ];
    for (url, status, termination, reason, node, rule) in cases {
        let answer = get(url);
        let line = lines.next();
        assert_eq!(line["url"], url, "{line}");
        let text = |name: &str| line[name].as_str();
        assert_eq!((line["status"].as_u64(), text("termination")), (Some(status), Some(termination)), "{line}");
        assert_eq!((text("reason"), text("node"), text("rule")), (reason, node, rule), "{line}");
        assert_eq!(line["bytes_sent"].as_u64(), Some(answer.len() as u64), "{line}\n{answer}");
        assert_eq!(text("request_id").map(str::len), Some(32), "{line}");
    }
    exchange(&proxy, b"GET / HTTP/1.1\r\n\r\n");
    let line = lines.next();
    assert_eq!((line["status"].as_u64(), line["termination"].as_str()), (Some(400), Some("PR")), "{line}");
    assert!(line.get("url").is_none() && line["reason"] == "malformed", "{line}");
    let snapshot = proxy.handle().stats().snapshot();
    let server = &snapshot.virtual_servers["test"];
    assert_eq!(server.requests, [1, 0, 2, 0, 2, 1]);
    assert_eq!((server.duration.count(), server.refused["rule"]), (6, 2));
    assert_eq!(snapshot.log_lines_dropped, 0);
}

#[test]
fn one_of_so_many_is_logged_and_every_failure() {
    let node = Recorder::start(OK);
    let (proxy, mut lines) = logged(http_plan(&[node.address()]), 10);
    let mut client = proxy.connect();
    for n in 1..=20 {
        client.write_all(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        read_response(&mut client);
    }
    exchange(&proxy, b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(lines.next()["url"], "/10");
    assert_eq!(lines.next()["url"], "/20");
    assert_eq!(lines.next()["status"], 405);
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let node = Recorder::start(OK);
    let mut plan = http_plan(&[node.address()]);
    let log = AccessLog { path: "/none".into(), format: Format::Combined, sample: 1 };
    plan.virtual_servers.get_mut("test").unwrap().access_log = Some(log);
    let proxy = Proxy::start(plan);
    let mut client = proxy.connect();
    for _ in 0..10 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_response(&mut client);
    }
    wait(|| proxy.handle().stats().snapshot().log_lines_dropped == 10);
}

#[test]
fn an_upgraded_connection_and_generic_tcp_are_told_when_they_end() {
    let node = Server::start(|mut peer| {
        if read_head(&mut peer).contains("Upgrade") {
            let _ = peer.write_all(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n");
        }
        let mut bytes = [0; 4];
        peer.read_exact(&mut bytes).unwrap();
        peer.write_all(b"longer").unwrap();
    });
    let (proxy, mut lines) = logged(http_plan(&[node.address()]), 1);
    let mut client = proxy.connect();
    client.write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nping").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let line = lines.next();
    assert_eq!((line["url"].as_str(), line["status"].as_u64()), (Some("/ws"), Some(101)), "{line}");
    assert_eq!((line["bytes_received"].as_u64(), line["body_bytes_sent"].as_u64()), (Some(4), Some(6)), "{line}");
    assert_eq!(line["node"], "node0");

    let (proxy, mut lines) = logged(stream_plan(&[node.address()]), 1);
    let mut client = proxy.connect();
    client.write_all(b"one\r\n\r\nping").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_string(&mut answer).unwrap();
    let line = lines.next();
    assert_eq!((line["bytes_received"].as_u64(), line["bytes_sent"].as_u64()), (Some(11), Some(6)), "{line}");
    assert!(line.get("method").is_none() && line["pool"] == "nodes" && line["termination"] == "--", "{line}");
    let (proxy, mut lines) = logged(stream_plan(&["127.0.0.1:1".parse().unwrap()]), 1);
    assert_eq!(exchange(&proxy, b"x"), "");
    let line = lines.next();
    assert_eq!((line["termination"].as_str(), line["reason"].as_str()), (Some("SC"), Some("connect")), "{line}");
}

#[test]
fn recent_requests_are_remembered_and_found() {
    let node = Recorder::start(OK);
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().recent = 4;
    let proxy = Proxy::start(plan);
    let mut client = proxy.connect();
    for n in 1..=6 {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: a\r\nUser-Agent: t\r\nCookie: secret\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        read_response(&mut client);
    }
    let urls = |filter: &Filter| proxy.handle().recent(filter).into_iter().map(|record| record.url).collect::<Vec<_>>();
    wait(|| urls(&Filter::default()).first().is_some_and(|url| url == "/6"));
    assert_eq!(urls(&Filter::default()), ["/6", "/5", "/4", "/3"]);
    assert_eq!(urls(&Filter { url: Some("5".to_owned()), ..Filter::default() }), ["/5"]);
    let record = &proxy.handle().recent(&Filter::default())[0];
    assert_eq!((record.status, record.node.as_str(), record.bytes_sent), (200, "node0", OK.len() as u64));
    assert!(record.response_fields.contains(&("server".to_owned(), "node".to_owned())), "{record:?}");
    assert!(record.request_fields.contains(&("user-agent".to_owned(), "t".to_owned())), "{record:?}");
    assert!(!format!("{record:?}").contains("secret"));
    assert!(record.total_us >= record.head_us && record.head_us > 0, "{record:?}");
}

#[test]
fn open_connections_to_nodes_are_counted_kept_ones_too() {
    let node = Recorder::start(OK);
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let count = || proxy.handle().stats().snapshot().nodes["nodes"]["node0"].clone();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_response(&mut client);
    }
    wait(|| count().reused == 1);
    assert_eq!((count().connections, count().connected), (1, 1));
    // A plan without the node closes what is kept to it.
    proxy.swap(http_plan(&["127.0.0.1:1".parse().unwrap()]));
    wait(|| count().connections == 0);
}

#[test]
fn completion_rules_see_what_was_sent_and_raise_events() {
    let node = Recorder::start(OK);
    let mut plan = http_plan(&[node.address()]);
    plan.pools.get_mut("nodes").unwrap().passive.node_fail_time = Duration::ZERO;
    let status = |from, to| Condition::Is(Fact::Status, Test::Range(from, to));
    let told = "%{status} %{path} %{node} %{response_header:server}".to_owned();
    http(&mut plan).rules.completion = vec![
        rule("good", status(200, 299), vec![Action::Log(told.clone())]),
        rule("bad", status(400, 599), vec![Action::Event(told)]),
    ];
    let respond = Action::Respond { status: 418, content_type: String::new(), body: String::new() };
    http(&mut plan).rules.request = vec![rule("tea", path("/tea"), vec![Action::Event("before".to_owned()), respond])];
    let proxy = Proxy::start(plan);
    for url in ["/", "/tea"] {
        exchange(&proxy, format!("GET {url} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    }
    let mut events = Vec::new();
    wait(|| {
        events.extend(proxy.handle().pools().take_events().0);
        events.len() >= 3
    });
    let events: Vec<_> = events
        .iter()
        .map(|event| match event {
            ProxyEvent::Rule(event) => (event.is_event, event.rule.as_str(), event.text.as_str()),
            ProxyEvent::Node(event) => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(
        events,
        [(false, "good", "200 / node0 node"), (true, "tea", "before"), (true, "bad", "418 /tea  ")],
        "in order, with what the client got"
    );
    let snapshot = proxy.handle().stats().snapshot();
    assert_eq!((snapshot.rules["test"]["good"], snapshot.rules["test"]["bad"]), (1, 1));
    assert_eq!(snapshot.virtual_servers["test"].requests, [0, 0, 1, 0, 1, 0]);
}
