//! What is remembered, for how long, and how it is found.

use std::time::Duration;

use super::{packed::MAX_TEXT, *};
use crate::{
    control::proxy::Network,
    proxy::{
        access_log::{By, During, Ended, Timings},
        facts::{
            RequestId, ResponseFacts,
            sample::{Request, Response},
        },
    },
};

fn entry<'a>(request: &'a Request, response: Option<&'a Response>, at: u64) -> Entry<'a> {
    Entry {
        facts: request,
        response: response.map(|response| response as &dyn ResponseFacts),
        virtual_server: "web",
        pool: "app",
        node: "a",
        rule: "r",
        reason: "",
        request_id: RequestId(u128::from(at)),
        at: Duration::from_micros(at),
        status: 200,
        bytes_received: 1,
        bytes_sent: 2,
        body_bytes_sent: 2,
        timings: Timings { total: Duration::from_micros(at), ..Timings::default() },
        retries: 0,
        ended: Ended::default(),
    }
}

fn urls(recent: &Recent, filter: &Filter) -> Vec<String> {
    recent.list(filter).into_iter().map(|record| record.url).collect()
}

#[test]
fn the_last_ones_of_all_threads_are_listed_newest_first() {
    let recent = Recent::new(2);
    let skipped = Counter::default();
    let rings = [0, 1].map(|thread| recent.ring("web", thread, 4).unwrap());
    for n in 0..10_u64 {
        let request = Request::get(&format!("/{n}"));
        rings[usize::from(n % 2 == 1)].remember(&entry(&request, None, n), &skipped);
    }
    assert_eq!(urls(&recent, &Filter::default()), ["/9", "/8", "/7", "/6"]);
    let limited = Filter { limit: Some(1), ..Filter::default() };
    assert_eq!(urls(&recent, &limited), ["/9"]);
    assert_eq!(skipped.read(), 0);
}

#[test]
fn records_hold_what_was_and_nothing_of_those_before() {
    let recent = Recent::new(1);
    let skipped = Counter::default();
    let ring = recent.ring("web", 0, 1).unwrap();
    let first = Request::get(&format!("/{}", "é".repeat(400))).with("user-agent", "x").with("authorization", "secret");
    let response = Response::new(200).with("content-type", "text/html").with("set-cookie", "secret");
    ring.remember(&entry(&first, Some(&response), 1), &skipped);
    let record = &recent.list(&Filter::default())[0];
    assert!(record.url.len() <= MAX_TEXT && record.url.starts_with("/é"));
    assert_eq!(record.request_fields, [("user-agent".to_owned(), "x".to_owned())]);
    assert_eq!(record.response_fields, [("content-type".to_owned(), "text/html".to_owned())]);
    assert!(!serde_json::to_string(record).unwrap().contains("secret"));

    let ended = Ended { by: By::Node, during: During::Head };
    ring.remember(&Entry { ended, reason: "early_close", ..entry(&Request::get("/2"), None, 2) }, &skipped);
    let record = &recent.list(&Filter::default())[0];
    assert_eq!((record.url.as_str(), record.termination.as_str(), record.reason.as_str()), ("/2", "SH", "early_close"));
    assert_eq!(record.request_id, "00000000000000000000000000000002");
    assert!(record.request_fields.is_empty() && record.response_fields.is_empty());
}

#[test]
fn filters_find_what_they_name() {
    let recent = Recent::new(1);
    let ring = recent.ring("web", 0, 10).unwrap();
    let skipped = Counter::default();
    let other = Request { client: [10, 0, 0, 1].into(), host: "other".to_owned(), ..Request::get("/b/x") };
    let failed = Ended { by: By::Client, during: During::Data };
    ring.remember(&entry(&Request::get("/a"), None, 1), &skipped);
    let second = entry(&other, None, 2);
    ring.remember(&Entry { status: 503, node: "b", pool: "p", rule: "s", ended: failed, ..second }, &skipped);
    let text = |text: &str| Some(text.to_owned());
    let none = Filter::default;
    let cases = [
        (Filter { virtual_server: text("web"), ..none() }, 2),
        (Filter { virtual_server: text("we"), ..none() }, 0),
        (Filter { node: text("b"), ..none() }, 1),
        (Filter { pool: text("p"), ..none() }, 1),
        (Filter { rule: text("s"), ..none() }, 1),
        (Filter { host: text("other"), ..none() }, 1),
        (Filter { url: text("/b"), ..none() }, 1),
        (Filter { request_id: text("00000000000000000000000000000001"), ..none() }, 1),
        (Filter { client: Some(Network { address: [10, 0, 0, 0].into(), prefix: 8 }), ..none() }, 1),
        (Filter { min_status: Some(500), ..none() }, 1),
        (Filter { max_status: Some(499), ..none() }, 1),
        (Filter { min_status: Some(200), max_status: Some(503), ..none() }, 2),
        (Filter { min_total_us: Some(2), ..none() }, 1),
        (Filter { failed: Some(true), ..none() }, 1),
        (Filter { failed: Some(false), ..none() }, 1),
    ];
    for (filter, expected) in cases {
        assert_eq!(recent.list(&filter).len(), expected, "{filter:?}");
    }
}

#[test]
fn a_reader_holds_nobody_up() {
    let recent = Recent::new(1);
    let ring = recent.ring("web", 0, 10).unwrap();
    let skipped = Counter::default();
    let reading = ring.records.lock().unwrap();
    ring.remember(&entry(&Request::get("/a"), None, 1), &skipped);
    drop(reading);
    assert_eq!((skipped.read(), recent.list(&Filter::default()).len()), (1, 0));
}

#[test]
fn plans_change_rings() {
    let recent = Recent::new(2);
    let skipped = Counter::default();
    recent.ring("web", 0, 10).unwrap().remember(&entry(&Request::get("/a"), None, 1), &skipped);
    let _ = recent.ring("web", 0, 10);
    assert_eq!(recent.list(&Filter::default()).len(), 1, "the same size keeps");
    let _ = recent.ring("web", 0, 20);
    assert_eq!(recent.list(&Filter::default()).len(), 0);
    assert!(recent.ring("web", 0, 0).is_none());
    recent.ring("web", 1, 10).unwrap().remember(&entry(&Request::get("/a"), None, 1), &skipped);
    recent.retain(&ProxyPlan::default());
    assert_eq!(recent.list(&Filter::default()).len(), 0);
}
