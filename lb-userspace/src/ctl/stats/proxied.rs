//! The L7 half of `lbctl stats`: requests by virtual server and node, with rates and times of the last interval.

use crate::{
    control::proxy::stats::{HistogramSnapshot, NodeSnapshot, Snapshot, VirtualServerSnapshot},
    ctl::{
        output::{Cell, Column, Look, Tone, left, right, table},
        views::{about, bytes, duration},
    },
};

/// A virtual server, or one of the nodes.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    active: u64,
    requests: u64,
    failed: u64,
    received: u64,
    sent: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    rates: Option<Rates>,
}

/// In a second, since the look before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    requests: f64,
    failed: f64,
    received_bits: f64,
    sent_bits: f64,
}

/// Both tables; empty when the proxy serves nothing. `seconds` between the looks; `None`: there is one only.
pub(super) fn text(before: &Snapshot, now: &Snapshot, seconds: Option<f64>, look: Look) -> String {
    if now.virtual_servers.is_empty() {
        return String::new();
    }
    let servers: Vec<Row> = now
        .virtual_servers
        .iter()
        .map(|(name, server)| {
            let nothing = VirtualServerSnapshot::default();
            let before = before.virtual_servers.get(name).unwrap_or(&nothing);
            let traffic = |s: &VirtualServerSnapshot| (s.requests, s.bytes_received, s.bytes_sent);
            row(name.clone(), server.connections, traffic(before), traffic(server), seconds)
                .with_times(&before.duration, &server.duration)
        })
        .collect();
    let nodes: Vec<Row> = now
        .nodes
        .iter()
        .flat_map(|(pool, nodes)| nodes.iter().map(move |(name, node)| (pool, name, node)))
        .map(|(pool, name, node)| {
            let nothing = NodeSnapshot::default();
            let before = before.nodes.get(pool).and_then(|nodes| nodes.get(name)).unwrap_or(&nothing);
            let traffic = |n: &NodeSnapshot| (n.requests, n.bytes_received, n.bytes_sent);
            row(format!("{pool}/{name}"), node.requests_active, traffic(before), traffic(node), seconds)
                .with_times(&before.time_to_head, &node.time_to_head)
        })
        .collect();
    let rates = seconds.is_some();
    let servers = table(columns("L7 VIRTUAL SERVER", "CONNECTIONS", rates), &servers, look);
    let nodes = table(columns("L7 NODE", "IN PROGRESS", rates), &nodes, look);
    format!("\n{servers}\n{nodes}")
}

type Traffic = ([u64; 6], u64, u64);

fn row(name: String, active: u64, before: Traffic, now: Traffic, seconds: Option<f64>) -> Row {
    // 0 and 5: no response at all, and those of the class 5xx.
    let failed = |classes: &[u64; 6]| classes[0] + classes[5];
    let all = |classes: &[u64; 6]| classes.iter().sum::<u64>();
    let rates = seconds.map(|seconds| {
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        Rates {
            requests: rate(all(&before.0), all(&now.0)),
            failed: rate(failed(&before.0), failed(&now.0)),
            received_bits: rate(before.1, now.1) * 8.0,
            sent_bits: rate(before.2, now.2) * 8.0,
        }
    });
    let (requests, failed) = (all(&now.0), failed(&now.0));
    Row { name, active, requests, failed, received: now.1, sent: now.2, p50_us: None, p99_us: None, rates }
}

impl Row {
    /// Times of what was counted between the looks.
    fn with_times(self, before: &HistogramSnapshot, now: &HistogramSnapshot) -> Self {
        let since = if self.rates.is_some() { now.since(before) } else { now.clone() };
        let us = |share| since.quantile(share).map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Self { p50_us: us(0.5), p99_us: us(0.99), ..self }
    }
}

fn columns(name: &str, active: &str, rates: bool) -> Vec<Column<Row>> {
    let mut columns =
        vec![left(name, |row: &Row| Cell::new(&row.name)), right(active, |row: &Row| Cell::new(row.active)).spare(3)];
    let rate = |of: fn(&Rates) -> f64| move |row: &Row| Cell::optional(row.rates.as_ref().map(of).map(about));
    if rates {
        columns.push(right("REQUESTS/S", rate(|rates| rates.requests)));
        columns.push(right("FAILED/S", |row: &Row| match row.rates.map(|rates| rates.failed) {
            Some(failed) if failed > 0.0 => Cell::toned(about(failed), Tone::Bad),
            failed => Cell::optional(failed.map(about)),
        }));
        columns.push(right("RECEIVED BITS/S", rate(|rates| rates.received_bits)).spare(2));
        columns.push(right("SENT BITS/S", rate(|rates| rates.sent_bits)));
    } else {
        columns.push(right("REQUESTS", |row: &Row| Cell::new(row.requests)));
        columns.push(right("FAILED", |row: &Row| Cell::new(row.failed)));
        columns.push(right("RECEIVED", |row: &Row| Cell::new(bytes(row.received))).spare(2));
        columns.push(right("SENT", |row: &Row| Cell::new(bytes(row.sent))));
    }
    columns.push(right("P50", |row: &Row| Cell::optional(row.p50_us.map(duration))).spare(1));
    columns.push(right("P99", |row: &Row| Cell::optional(row.p99_us.map(duration))));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proxy::stats::{BUCKETS, bucket};

    fn snapshot(requests: u64, us: &[u64]) -> Snapshot {
        let mut counts = [0; BUCKETS];
        us.iter().for_each(|us| counts[bucket(*us)] += 1);
        let server = VirtualServerSnapshot {
            requests: [1, 0, requests, 0, 0, 1],
            bytes_sent: requests * 1000,
            duration: HistogramSnapshot::new(counts.into_iter(), us.iter().sum()),
            ..VirtualServerSnapshot::default()
        };
        Snapshot { virtual_servers: [("web".to_owned(), server)].into(), ..Snapshot::default() }
    }

    #[test]
    fn rates_and_times_are_those_of_the_interval() {
        let (before, now) =
            (snapshot(100, &[100_000; 10]), snapshot(300, &[&[100_000; 10][..], &[500; 5][..]].concat()));
        let text = text(&before, &now, Some(2.0), Look::default());
        let row: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row, ["web", "0", "100", "0", "0", "800k", "496", "µs", "496", "µs"], "{text}");
    }

    #[test]
    fn one_look_shows_totals_and_nothing_shows_nothing() {
        let now = snapshot(300, &[500]);
        let text = text(&Snapshot::default(), &now, None, Look::default());
        let row: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["web", "0", "302", "2", "0"], "{text}");
        assert_eq!(super::text(&Snapshot::default(), &Snapshot::default(), None, Look::default()), "");
    }
}
