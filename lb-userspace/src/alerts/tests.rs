//! Alerts as a whole: a configuration, events, and servers on the loopback that take what is told.

use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    sync::mpsc as channel,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::*;
use crate::control::event::Name;

/// Anything that must happen happens within this.
const SOON: Duration = Duration::from_secs(20);

/// A server that takes one request a connection, tells its body, and answers with the next of these (the last for ever).
fn hook(answers: &[&'static str]) -> (u16, channel::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, requests) = channel::channel();
    let answers = answers.to_vec();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            let body = loop {
                let read = stream.read(&mut buffer).unwrap();
                request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                let Some((_, body)) = request.split_once("\r\n\r\n") else { continue };
                if let Ok(body) = serde_json::from_str(body) {
                    break body;
                }
            };
            let answer = answers[number.min(answers.len() - 1)];
            stream.write_all(answer.as_bytes()).unwrap();
            if told.send((request, body)).is_err() {
                return;
            }
        }
    });
    (port, requests)
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn start(config: &str) -> (Alerts, mpsc::Sender<Arc<Entry>>) {
    let (events, entries) = mpsc::channel(4096);
    let alerts = Alerts::start(entries, "lb1", None).unwrap();
    alerts.set(&Config::parse("lb.toml", &format!("version = 1\n{config}")).unwrap().read_files().unwrap());
    (alerts, events)
}

fn entry(number: u64, name: Name, object: &str) -> Arc<Entry> {
    let (object, text) = (object.to_owned(), format!("{} of {object}", name.word()));
    Arc::new(Entry { number, at_ms: number * 1000, name, severity: name.severity(), object, text })
}

fn until(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn counts(alerts: &Alerts, name: &str) -> crate::control::view::AlertCounts {
    // A configuration takes a moment to be in force.
    alerts.alerts().into_iter().find(|alert| alert.name == name).map(|alert| alert.counts).unwrap_or_default()
}

fn webhook(name: &str, port: u16, more: &str) -> String {
    format!("[alert.{name}]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{port}/in\"\nallow_local = true\n{more}\n")
}

#[test]
fn a_fault_and_its_recovery_are_posted() {
    let (port, requests) = hook(&[OK]);
    let (alerts, events) = start(&webhook("ops", port, ""));
    for (number, name) in [(1, Name::Started), (2, Name::NodeDown), (9, Name::NodeUp), (10, Name::NodeUp)] {
        events.blocking_send(entry(number, name, "web/n1")).unwrap();
    }
    let (head, fault) = requests.recv_timeout(SOON).unwrap();
    assert!(head.starts_with("POST /in HTTP/1.1\r\n") && head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        (&fault["event"], &fault["state"], &fault["object"]),
        (&"node_down".into(), &"fault".into(), &"web/n1".into())
    );
    let (_, recovery) = requests.recv_timeout(SOON).unwrap();
    assert_eq!(
        (&recovery["state"], &recovery["ends"], &recovery["after_s"]),
        (&"recovery".into(), &"node_down".into(), &7.into())
    );
    until("both are counted", || counts(&alerts, "ops").sent == 2);
    assert_eq!(alerts.test("ops"), Ok(()));
    assert_eq!(requests.recv_timeout(SOON).unwrap().1["state"], "test");
    let unknown = alerts.test("opps").unwrap_err();
    assert!(matches!(&unknown, QueryError::NotFound(why) if why.contains("ops")), "{unknown:?}");
}

#[test]
fn what_fails_for_a_while_is_tried_again_and_redirects_are_not_followed() {
    let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
    let (port, requests) = hook(&[busy, OK]);
    let (alerts, events) = start(&webhook("ops", port, ""));
    events.blocking_send(entry(1, Name::NodeDown, "web/n1")).unwrap();
    let bodies = [requests.recv_timeout(SOON).unwrap().1, requests.recv_timeout(SOON).unwrap().1];
    assert_eq!(bodies[0], bodies[1]);
    until("it is counted as sent", || counts(&alerts, "ops").sent == 1);
    assert_eq!(counts(&alerts, "ops").failed, 0);

    let (port, requests) = hook(&["HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"]);
    let (alerts, events) = start(&webhook("ops", port, ""));
    events.blocking_send(entry(1, Name::NodeDown, "web/n1")).unwrap();
    until("it is counted as failed", || counts(&alerts, "ops").failed == 1);
    assert!(counts(&alerts, "ops").problem.unwrap().contains("redirects"), "{:?}", counts(&alerts, "ops"));
    assert!(requests.try_iter().count() == 1, "once");
}

#[test]
fn one_who_does_not_answer_holds_nobody_up_and_its_queue_is_bounded() {
    // Connections are taken by the kernel, and nobody reads.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, requests) = hook(&[OK]);
    let slow = webhook("dead", dead.local_addr().unwrap().port(), "timeout = \"1h\"\nlimit = 10000");
    let (alerts, events) = start(&format!("{slow}{}", webhook("ops", port, "limit = 10000")));
    let many = QUEUE as u64 + 100;
    for number in 1..=many {
        events.blocking_send(entry(number, Name::NodeDown, &format!("web/{number}"))).unwrap();
        requests.recv_timeout(SOON).unwrap();
    }
    until("all are told where they can be", || counts(&alerts, "ops").sent == many);
    // One is under way.
    let dropped = counts(&alerts, "dead").dropped;
    assert_eq!((dropped, counts(&alerts, "dead").sent), (many - QUEUE as u64 - 1, 0));
}

#[test]
fn what_is_beyond_the_limit_is_told_together() {
    let (port, requests) = hook(&[OK]);
    let (alerts, events) = start(&webhook("ops", port, "limit = 1\nper = \"300ms\""));
    for number in 1..=5 {
        events.blocking_send(entry(number, Name::NodeDown, &format!("web/{number}"))).unwrap();
    }
    assert_eq!(requests.recv_timeout(SOON).unwrap().1["number"], 1);
    let summary = requests.recv_timeout(SOON).unwrap().1;
    assert_eq!((&summary["state"], &summary["held_back"]["node_down"]), (&"held_back".into(), &4.into()));
    until("they are counted", || counts(&alerts, "ops").held_back == 4);
}

#[test]
fn a_new_configuration_leaves_counters_and_tells_elsewhere() {
    let (port, requests) = hook(&[OK]);
    let (other_port, other) = hook(&[OK]);
    let (alerts, events) = start(&webhook("ops", port, ""));
    events.blocking_send(entry(1, Name::NodeDown, "web/n1")).unwrap();
    requests.recv_timeout(SOON).unwrap();
    until("it is counted", || counts(&alerts, "ops").sent == 1);
    let config = format!("version = 1\n{}", webhook("ops", other_port, ""));
    alerts.set(&Config::parse("lb.toml", &config).unwrap().read_files().unwrap());
    until("it is in force", || alerts.alerts()[0].target.ends_with(&other_port.to_string()));
    events.blocking_send(entry(2, Name::NodeUp, "web/n1")).unwrap();
    assert_eq!(other.recv_timeout(SOON).unwrap().1["ends"], "node_down", "the fault was told before");
    until("counters go on", || counts(&alerts, "ops").sent == 2);
}

#[test]
fn syslog_over_udp_arrives_in_one_datagram() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let server = socket.local_addr().unwrap();
    let config =
        format!("[alert.log]\ntype = \"syslog\"\ntransport = \"udp\"\nserver = \"{server}\"\nfacility = \"local1\"\n");
    let (_alerts, events) = start(&config);
    events.blocking_send(entry(1, Name::PoolDown, "web")).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..length]).unwrap();
    assert!(
        text.starts_with("<138>1 1970-01-01T00:00:01.000Z lb1 lbd ") && text.ends_with("] pool_down of web"),
        "{text}"
    );
}
