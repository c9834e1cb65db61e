//! Events, alerts and histories over the API.

use std::{
    collections::BTreeMap,
    future::Future,
    io::{Read, Write},
    os::unix::net::UnixStream,
    pin::Pin,
    sync::Mutex,
};

use serde_json::{Value, json};

use super::Api;
use crate::control::{
    event::{self, Events, Fact, Name, journal::Journal},
    history::{History, HistoryView, Question},
    query::{AlertPath, EventPath, HistoryPath, QueryError},
    view::{AlertCounts, AlertView},
};

/// A journal of two events; a third one comes when somebody waits for it.
#[derive(Debug, Default)]
pub(super) struct FakeEvents(Mutex<u64>);

impl EventPath for FakeEvents {
    fn events(&self, filter: &event::Filter) -> Events {
        let mut journal = Journal::new(10);
        journal.add(Fact::new(Name::NodeDown, "web/n1", "it is down"), 1000);
        journal.add(Fact::new(Name::NodeUp, "web/n1", "it is up"), 2000);
        for _ in 0..*self.0.lock().unwrap() {
            journal.add(Fact::new(Name::Started, "", "line one\nline two"), 3000);
        }
        journal.list(filter)
    }

    fn newer(&self, than: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if than < 3 {
            *self.0.lock().unwrap() = 1;
            return Box::pin(std::future::ready(()));
        }
        Box::pin(std::future::pending())
    }

    fn counts(&self) -> BTreeMap<Name, u64> {
        [(Name::NodeDown, 7)].into()
    }

    fn lost(&self) -> u64 {
        3
    }
}

/// A history of two seconds.
#[derive(Debug)]
pub(super) struct FakeHistories;

impl HistoryPath for FakeHistories {
    fn history(&self, question: &Question) -> HistoryView {
        let mut history = History::default();
        history.add(100, &[("packets.sent".to_owned(), 7.0)]);
        history.show(question, 101)
    }
}

/// One alert that works, and one that does not.
#[derive(Debug)]
pub(super) struct FakeAlerts;

impl AlertPath for FakeAlerts {
    fn alerts(&self) -> Vec<AlertView> {
        let (name, kind, target) = ("ops".into(), "email".into(), "ops@example.com".into());
        let counts = AlertCounts { sent: 4, ..AlertCounts::default() };
        vec![AlertView { name, kind, target, event_types: Vec::new(), engine_id: None, counts }]
    }

    fn test(&self, name: &str) -> Result<(), QueryError> {
        if name == "ops" { Ok(()) } else { Err(QueryError::Failed("the mail server says 550".into())) }
    }
}

#[test]
fn events_are_listed_filtered_and_waited_for() {
    let api = Api::start();
    let numbers = |query: &str| {
        let events = api.get(&format!("/api/v1/events?{query}"));
        let list = events["events"].as_array().unwrap();
        list.iter().map(|event| event["number"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(""), [1, 2]);
    assert_eq!(numbers("severity=warning"), [1]);
    assert_eq!(numbers("after=2"), [0; 0]);
    assert_eq!(numbers("after=2&wait=9"), [3]);
    assert_eq!(api.refused("GET", "/api/v1/events?name=nonsense", "").0, 400);
    let (_, _, page) = api.request("GET", "/metrics", "");
    assert!(page.contains("lb_events_total{event=\"node_down\",severity=\"warning\"} 7"), "{page}");
    assert!(page.contains("lb_events_total{event=\"pool_down\",severity=\"critical\"} 0"), "{page}");
}

#[test]
fn a_stream_goes_on_where_its_reader_was() {
    let api = Api::start();
    let mut stream = UnixStream::connect(api.dir.path().join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    write!(stream, "GET /api/v1/events/stream HTTP/1.1\r\nhost: lb\r\nlast-event-id: 1\r\n\r\n").unwrap();
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains("id: 3") {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    assert!(!seen.contains("id: 1") && seen.contains("id: 2"), "{seen}");
    assert!(seen.contains("event: node_up") && seen.contains("event: started"), "{seen}");
    assert!(seen.contains("line one line two"), "{seen}");
}

#[test]
fn counters_come_again_and_again() {
    let api = Api::start();
    assert_eq!(api.refused("GET", "/api/v1/stats/stream?every_s=0", "").0, 400);
    let mut stream = UnixStream::connect(api.dir.path().join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    write!(stream, "GET /api/v1/stats/stream?every_s=1 HTTP/1.1\r\nhost: lb\r\n\r\n").unwrap();
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while seen.matches("\"clock_ms\"").count() < 2 {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(seen.contains("event: stats") && seen.contains("content-type: text/event-stream"), "{seen}");
}

#[test]
fn alerts_are_shown_and_tried() {
    let api = Api::start();
    let alert = &api.get("/api/v1/alerts")[0];
    assert_eq!((&alert["name"], &alert["sent"], &alert["problem"]), (&json!("ops"), &json!(4), &Value::Null));
    assert_eq!(api.request("POST", "/api/v1/alerts/ops/test", "").0, 200);
    assert_eq!(api.refused("POST", "/api/v1/alerts/broken/test", ""), (500, "the mail server says 550".into()));
    let (_, _, page) = api.request("GET", "/metrics", "");
    for line in ["lb_alerts_total{alert=\"ops\",result=\"sent\"} 4", "lb_alert_events_lost_total 3"] {
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    }
}

#[test]
fn histories_are_asked_by_name() {
    let api = Api::start();
    assert_eq!(api.get("/api/v1/history"), json!({"names": ["packets.sent"], "series": []}));
    let view = api.get("/api/v1/history?series=packets.*&since_s=2");
    let expected = json!([{"name": "packets.sent", "start_s": 100, "step_s": 1, "values": [7.0, null]}]);
    assert_eq!(view["series"], expected);
    assert_eq!(api.refused("GET", "/api/v1/history?since_s=-1", "").0, 400);
}
