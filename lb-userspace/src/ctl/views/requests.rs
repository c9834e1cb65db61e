//! The L7 proxy: requests that ended lately, and what would become of one.

use std::fmt::Write;

use super::{
    super::output::{Cell, Look, Tone, left, paint, right, table},
    admission_tone, bytes,
    servers::facts,
    word,
};
use crate::control::proxy::{
    recent::Record,
    trace::{Candidate, Outcome, Told, UrlTraceView},
};

/// `lbctl conn ls --l7`.
pub(in crate::ctl) fn requests(list: &[Record], look: Look) -> String {
    let columns = vec![
        left("TIME", |r: &Record| Cell::new(time(r.at_us))),
        left("CLIENT", |r: &Record| Cell::new(r.client)).spare(3),
        left("VIRTUAL SERVER", |r: &Record| Cell::new(&r.virtual_server)).spare(4),
        left("REQUEST", |r: &Record| Cell::new(request(r))).wraps(),
        right("STATUS", |r: &Record| status(r.status)),
        left("NODE", |r: &Record| {
            Cell::new(if r.node.is_empty() { String::new() } else { format!("{}/{}", r.pool, r.node) })
        }),
        right("TIME TAKEN", |r: &Record| Cell::new(duration(r.total_us))),
        right("SENT", |r: &Record| Cell::new(bytes(r.bytes_sent))).spare(5),
        left("ENDED", |r: &Record| Cell::new(ended(r))).spare(2),
        left("HOST", |r: &Record| Cell::new(&r.host)).wide(),
        left("RULE", |r: &Record| Cell::new(&r.rule)).wide(),
        right("QUEUE", |r: &Record| Cell::new(duration(r.queue_us))).wide(),
        right("CONNECT", |r: &Record| Cell::new(duration(r.connect_us))).wide(),
        right("TO HEAD", |r: &Record| Cell::new(duration(r.head_us))).wide(),
        right("RETRIES", |r: &Record| Cell::new(r.retries)).wide(),
        left("TLS", |r: &Record| Cell::new(&r.tls)).wide(),
        right("RECEIVED", |r: &Record| Cell::new(bytes(r.bytes_received))).wide(),
        left("ID", |r: &Record| Cell::new(&r.request_id)).wide(),
    ];
    table(columns, list, look)
}

/// `lbctl trace URL`.
pub(in crate::ctl) fn trace_url(view: &UrlTraceView, look: Look) -> String {
    let mut fields = vec![
        ("virtual server", format!("{} at {}", view.virtual_server, view.local)),
        ("verdict", view.verdict.clone()),
    ];
    if !view.path.is_empty() {
        fields.push(("path", view.path.clone()));
    }
    fields.extend(view.persistence.iter().map(|how| ("persistence", how.clone())));
    let mut text = facts(&fields);
    if !view.rules.is_empty() {
        text.push_str("\nrules\n");
    }
    for Told { phase, rule, outcome, why, did } in &view.rules {
        let (word, tone) = match outcome {
            Outcome::Matched => ("matched", Tone::Good),
            Outcome::Ended => ("matched, last", Tone::Good),
            Outcome::NotMatched => ("not matched", Tone::Neutral),
            Outcome::NotReached => ("not reached", Tone::Neutral),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}  {phase} {rule}: {why}", paint(&format!("{word:<13}"), tone, look));
        for did in did {
            let _ = writeln!(text, "                 {did}");
        }
    }
    if !view.nodes.is_empty() {
        let pool = view.pool_in_use.as_deref().unwrap_or_default();
        let _ = writeln!(text, "\nnodes of pool {pool}");
        text.push_str(&nodes(&view.nodes, look));
    }
    text
}

fn nodes(list: &[Candidate], look: Look) -> String {
    let columns = vec![
        left("NODE", |c: &Candidate| Cell::new(&c.node)),
        left("ADDRESS", |c: &Candidate| {
            Cell::new(c.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        }),
        left("TAKES", |c: &Candidate| Cell::toned(word(&c.admission), admission_tone(c.admission))),
        right("WEIGHT", |c: &Candidate| Cell::new(c.weight)),
        right("PRIORITY", |c: &Candidate| Cell::new(c.priority)).spare(1),
        left("MAY SERVE", |c: &Candidate| {
            let tone = if c.may_serve { Tone::Good } else { Tone::Neutral };
            Cell::toned(if c.may_serve { "yes" } else { "no" }, tone)
        }),
        left("WHY", |c: &Candidate| Cell::new(&c.why)).wraps(),
    ];
    table(columns, list, look)
}

fn request(record: &Record) -> String {
    if record.method.is_empty() { String::new() } else { format!("{} {}", record.method, record.url) }
}

fn status(status: u16) -> Cell {
    match status {
        0 => Cell::toned("-", Tone::Bad),
        400..500 => Cell::toned(status, Tone::Attention),
        500.. => Cell::toned(status, Tone::Bad),
        _ => Cell::new(status),
    }
}

/// The letters of the end, with the reason where there is one.
fn ended(record: &Record) -> String {
    if record.reason.is_empty() {
        record.termination.clone()
    } else {
        format!("{} {}", record.termination, record.reason)
    }
}

/// `950 µs`, `12.3 ms`, `1.2 s`.
pub(in crate::ctl) fn duration(us: u64) -> String {
    let us = us as f64;
    match us {
        _ if us < 1000.0 => format!("{us:.0} µs"),
        _ if us < 999_950.0 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

/// The time of day, local, to milliseconds.
fn time(at_us: u64) -> String {
    let time = i64::try_from(at_us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    time.map_or_else(String::new, |time| {
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_listed_with_how_they_ended() {
        let good = Record {
            method: "GET".into(),
            url: "/a".into(),
            status: 200,
            pool: "web".into(),
            node: "n1".into(),
            total_us: 1234,
            bytes_sent: 2048,
            termination: "--".into(),
            ..Record::default()
        };
        let bad = Record { status: 0, termination: "SH".into(), reason: "early_close".into(), ..Record::default() };
        let text = requests(&[good, bad], Look::default());
        // Without time of day, client, and the virtual server, which has no name here.
        let row = |n: usize| text.lines().nth(n).unwrap().split_whitespace().skip(3).collect::<Vec<_>>().join(" ");
        assert_eq!(row(1), "GET /a 200 web/n1 1.2 ms 2.0 KiB --");
        assert!(row(2).ends_with("- 0 µs 0 B SH early_close"), "{text}");
    }

    #[test]
    fn a_trace_says_why() {
        let told = Told {
            phase: "request".into(),
            rule: "api".into(),
            outcome: Outcome::Ended,
            why: "path \"/api\" begins with one of /api".into(),
            did: vec!["chooses its pool".into()],
        };
        let node = Candidate {
            node: "n1".into(),
            addresses: vec!["10.0.0.1:80".parse().unwrap()],
            admission: crate::control::plan::Admission::All,
            weight: 1,
            priority: 0,
            may_serve: true,
            why: "it may be its turn".into(),
        };
        let view = UrlTraceView {
            virtual_server: "web".into(),
            local: "10.1.1.1:80".parse().unwrap(),
            verdict: "pool \"api\" serves, chosen by a rule".into(),
            path: "/api".into(),
            rules: vec![told],
            pool: Some("api".into()),
            pool_in_use: Some("api".into()),
            persistence: None,
            nodes: vec![node],
        };
        let text = trace_url(&view, Look::default());
        for line in [
            "virtual server  web at 10.1.1.1:80",
            "  matched, last  request api: path \"/api\" begins with one of /api",
            "                 chooses its pool",
            "nodes of pool api",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in\n{text}");
        }
    }
}
