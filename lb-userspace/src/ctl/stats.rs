//! `lbctl stats`: counters once, or again and again with the rates between two looks.

mod history;
mod proxied;

use std::thread;

use lb_common::reason::{Action, Reason};

use super::{
    args,
    client::Client,
    failure::Failure,
    output::{Cell, Column, Look, Output, Tone, left, right, table},
    views::{about, bytes},
};
use crate::control::{
    api::{NodeStats, Stats},
    view::Traffic,
};

pub(super) fn run(client: &Client, output: &Output, arguments: &args::Stats) -> Result<(), Failure> {
    if let Some(since) = arguments.since {
        return history::run(client, output, since.as_secs(), arguments);
    }
    if !arguments.watch && arguments.count.is_none() {
        let answer = client.get::<Stats>("stats")?;
        return output.answer(&answer, |stats, look| text(None, stats, look));
    }
    watch(client, output, arguments)
}

fn watch(client: &Client, output: &Output, arguments: &args::Stats) -> Result<(), Failure> {
    let mut before = client.get::<Stats>("stats")?.value;
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        thread::sleep(arguments.interval);
        let now = client.get::<Stats>("stats")?;
        if output.is_json() {
            output.print(&now.json)?;
        } else {
            output.clear()?;
            output.print(&text(Some(&before), &now.value, output.look()))?;
        }
        before = now.value;
        left -= 1;
    }
    Ok(())
}

/// Packets and bytes so far, and in a second when there was an earlier look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Flow {
    total: Traffic,
    packets_per_s: Option<f64>,
    bits_per_s: Option<f64>,
}

impl Flow {
    /// `seconds` between the looks; `None` when there is nothing to compare with.
    fn between(before: Traffic, now: Traffic, seconds: Option<f64>) -> Self {
        let rate = |before: u64, now: u64| seconds.map(|seconds| now.saturating_sub(before) as f64 / seconds);
        Self {
            total: now,
            packets_per_s: rate(before.packets, now.packets),
            bits_per_s: rate(before.bytes, now.bytes).map(|bytes| bytes * 8.0),
        }
    }
}

/// What ended for one reason on one interface.
#[derive(Clone, Debug, PartialEq)]
struct ReasonRow {
    interface: String,
    action: Option<Action>,
    reason: String,
    flow: Flow,
}

/// A node of a virtual server, or (without a node) all of them.
#[derive(Clone, Debug, PartialEq)]
struct NodeRow {
    virtual_server: String,
    node: Option<String>,
    active: u64,
    connections: u64,
    connections_per_s: Option<f64>,
    forward: Flow,
    reply: Flow,
}

fn text(before: Option<&Stats>, now: &Stats, look: Look) -> String {
    let seconds = before.and_then(|before| seconds_between(before, now));
    let nothing = Stats::default();
    let before = before.unwrap_or(&nothing);
    let reasons = table(reason_columns(seconds.is_some()), &reason_rows(before, now, seconds), look);
    let nodes = table(node_columns(seconds.is_some()), &node_rows(before, now, seconds), look);
    let fill: Vec<String> = now.tables.iter().map(|(name, t)| format!("{name} {}/{}", t.used, t.capacity)).collect();
    let requests = proxied::text(&before.proxy, &now.proxy, seconds, look);
    format!("{reasons}\n{nodes}\nrecords  {}\n{requests}", fill.join(", "))
}

/// `None` when the later look is of another lbd, whose clock began anew.
fn seconds_between(before: &Stats, now: &Stats) -> Option<f64> {
    let milliseconds = now.clock_ms.checked_sub(before.clock_ms).filter(|ms| *ms > 0)?;
    Some(milliseconds as f64 / 1000.0)
}

fn reason_rows(before: &Stats, now: &Stats, seconds: Option<f64>) -> Vec<ReasonRow> {
    let mut rows = Vec::new();
    for interface in &now.interfaces {
        let earlier = before.interfaces.iter().find(|earlier| earlier.name == interface.name);
        for (reason, &traffic) in &interface.reasons {
            let earlier = earlier.and_then(|earlier| earlier.reasons.get(reason)).copied().unwrap_or_default();
            rows.push(ReasonRow {
                interface: interface.name.clone(),
                action: Reason::ALL.iter().find(|known| known.name() == reason).map(|known| known.action()),
                reason: reason.clone(),
                flow: Flow::between(earlier, traffic, seconds),
            });
        }
    }
    rows
}

fn node_rows(before: &Stats, now: &Stats, seconds: Option<f64>) -> Vec<NodeRow> {
    let mut rows: Vec<NodeRow> = Vec::new();
    let mut names: Vec<&String> = now.nodes.iter().map(|node| &node.virtual_server).collect();
    names.dedup();
    for name in names {
        let of = |stats: &Stats| -> Vec<NodeStats> {
            stats.nodes.iter().filter(|node| node.virtual_server == *name).cloned().collect()
        };
        let (earlier, nodes) = (of(before), of(now));
        if nodes.len() > 1 {
            rows.push(node_row(&sum(&earlier), &sum(&nodes), seconds, None));
        }
        for node in &nodes {
            let same = |other: &&NodeStats| other.pool == node.pool && other.node == node.node;
            let earlier = earlier.iter().find(same).cloned().unwrap_or_default();
            rows.push(node_row(&earlier, node, seconds, Some(format!("{}/{}", node.pool, node.node))));
        }
    }
    rows
}

fn node_row(before: &NodeStats, now: &NodeStats, seconds: Option<f64>, node: Option<String>) -> NodeRow {
    NodeRow {
        virtual_server: now.virtual_server.clone(),
        node,
        active: now.active,
        connections: now.connections,
        connections_per_s: seconds.map(|s| now.connections.saturating_sub(before.connections) as f64 / s),
        forward: Flow::between(before.forward, now.forward, seconds),
        reply: Flow::between(before.reply, now.reply, seconds),
    }
}

fn sum(nodes: &[NodeStats]) -> NodeStats {
    let add = |a: Traffic, b: Traffic| Traffic { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
    nodes.iter().fold(NodeStats::default(), |sum, node| NodeStats {
        virtual_server: node.virtual_server.clone(),
        active: sum.active + node.active,
        connections: sum.connections + node.connections,
        rescheduled: sum.rescheduled + node.rescheduled,
        evicted: sum.evicted + node.evicted,
        forward: add(sum.forward, node.forward),
        reply: add(sum.reply, node.reply),
        ..sum
    })
}

fn reason_columns(rates: bool) -> Vec<Column<ReasonRow>> {
    let mut columns = vec![
        left("INTERFACE", |row: &ReasonRow| Cell::new(&row.interface)),
        left("ACTION", |row: &ReasonRow| match row.action {
            Some(Action::Send) => Cell::toned("send", Tone::Good),
            Some(Action::Pass) => Cell::new("pass"),
            Some(Action::Drop) => Cell::toned("drop", Tone::Bad),
            None => Cell::new(""),
        }),
        left("REASON", |row: &ReasonRow| Cell::new(&row.reason)),
    ];
    if rates {
        columns.push(right("PACKETS/S", |row: &ReasonRow| rate(row.flow.packets_per_s)));
        columns.push(right("BITS/S", |row: &ReasonRow| rate(row.flow.bits_per_s)));
    }
    columns.push(right("PACKETS", |row: &ReasonRow| Cell::new(row.flow.total.packets)));
    columns.push(right("BYTES", |row: &ReasonRow| Cell::new(bytes(row.flow.total.bytes))));
    columns
}

fn node_columns(rates: bool) -> Vec<Column<NodeRow>> {
    let mut columns = vec![
        left("VIRTUAL SERVER", |row: &NodeRow| Cell::new(&row.virtual_server)),
        left("NODE", |row: &NodeRow| Cell::new(row.node.as_deref().unwrap_or("all"))),
        right("ACTIVE", |row: &NodeRow| Cell::new(row.active)),
        right("CONNECTIONS", |row: &NodeRow| Cell::new(row.connections)).spare(1),
    ];
    if rates {
        columns.push(right("CONN/S", |row: &NodeRow| rate(row.connections_per_s)).spare(2));
        columns.push(right("TO PACKETS/S", |row: &NodeRow| rate(row.forward.packets_per_s)).spare(3));
        columns.push(right("TO BITS/S", |row: &NodeRow| rate(row.forward.bits_per_s)));
        columns.push(right("FROM PACKETS/S", |row: &NodeRow| rate(row.reply.packets_per_s)).spare(4));
        columns.push(right("FROM BITS/S", |row: &NodeRow| rate(row.reply.bits_per_s)).spare(1));
    } else {
        columns.push(right("TO PACKETS", |row: &NodeRow| Cell::new(row.forward.total.packets)).spare(3));
        columns.push(right("TO BYTES", |row: &NodeRow| Cell::new(bytes(row.forward.total.bytes))));
        columns.push(right("FROM PACKETS", |row: &NodeRow| Cell::new(row.reply.total.packets)).spare(4));
        columns.push(right("FROM BYTES", |row: &NodeRow| Cell::new(bytes(row.reply.total.bytes))));
    }
    columns
}

fn rate(rate: Option<f64>) -> Cell {
    Cell::optional(rate.map(about))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::InterfaceView;

    fn stats(clock_ms: u64, packets: u64) -> Stats {
        let traffic = Traffic { packets, bytes: packets * 100 };
        let node = |node: &str| NodeStats {
            virtual_server: "web".into(),
            pool: "p".into(),
            node: node.into(),
            connections: packets,
            forward: traffic,
            ..NodeStats::default()
        };
        let reasons = [("forwarded_dsr".to_owned(), traffic)].into();
        let interface = InterfaceView { name: "eth0".into(), ifindex: 2, mode: "native".into(), reasons };
        Stats { clock_ms, interfaces: vec![interface], nodes: vec![node("n1"), node("n2")], ..Stats::default() }
    }

    #[test]
    fn rates_are_differences_over_the_daemons_clock() {
        let (before, now) = (stats(1000, 100), stats(3000, 300));
        let seconds = seconds_between(&before, &now);
        let reasons = reason_rows(&before, &now, seconds);
        assert_eq!(reasons[0].flow.packets_per_s, Some(100.0));
        assert_eq!(reasons[0].flow.bits_per_s, Some(80_000.0));
        let nodes = node_rows(&before, &now, seconds);
        let names: Vec<_> = nodes.iter().map(|row| row.node.as_deref()).collect();
        assert_eq!(names, [None, Some("p/n1"), Some("p/n2")]);
        assert_eq!(nodes[0].connections_per_s, Some(200.0));
        assert_eq!(nodes[1].forward.packets_per_s, Some(100.0));
    }

    #[test]
    fn a_restarted_daemon_has_no_rates_and_counters_never_run_backwards() {
        assert_eq!(seconds_between(&stats(3000, 1), &stats(10, 1)), None);
        assert_eq!(seconds_between(&stats(3000, 1), &stats(3000, 1)), None);
        let rows = reason_rows(&stats(0, 500), &stats(1000, 10), Some(1.0));
        assert_eq!(rows[0].flow.packets_per_s, Some(0.0));
    }

    #[test]
    fn one_look_shows_totals_only() {
        let text = text(None, &stats(0, 7), Look::default());
        assert!(!text.contains("/S") && text.contains("forwarded_dsr"), "{text}");
    }
}
