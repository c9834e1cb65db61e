//! What `top` shows: the last two looks as rows of text, and what keys change of it. Pure.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::sample::Sample;
use crate::{
    control::{
        plan::Admission,
        view::{Health, NodeView, Requests, Traffic, VipState, VirtualServerView},
    },
    ctl::views::{about, seconds, word},
};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Servers,
    Nodes,
    Packets,
    Vips,
}

impl Pane {
    pub(super) const ALL: [Self; 4] = [Self::Servers, Self::Nodes, Self::Packets, Self::Vips];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Servers => "Virtual servers",
            Self::Nodes => "Nodes",
            Self::Packets => "Packets",
            Self::Vips => "VIPs",
        }
    }
}

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Next,
    Previous,
    /// By its place, from 0.
    Pane(usize),
    Sort,
    Pause,
    Help,
    Scroll(isize),
}

/// How a row is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Attention,
    Bad,
}

/// A row of a pane.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) tone: Tone,
    /// What it is sorted by, the greatest first.
    rate: f64,
}

/// A column: its head, its least width, and whether it is of numbers.
pub(super) type Column = (&'static str, u16, bool);

/// The last looks, and what of them is to be seen.
#[derive(Debug)]
pub(super) struct Model {
    now: Sample,
    before: Option<Sample>,
    /// Why lbd did not answer the last time.
    problem: Option<String>,
    pane: Pane,
    /// By name, not by rate.
    by_name: bool,
    paused: bool,
    help: bool,
    offset: usize,
}

/// Lines around the rows of a pane: head, tabs, border with columns, foot.
const AROUND: usize = 7;

impl Model {
    pub(super) fn new(now: Sample) -> Self {
        let (before, problem, pane) = (None, None, Pane::Servers);
        Self { now, before, problem, pane, by_name: false, paused: false, help: false, offset: 0 }
    }

    /// Another look, or why there was none.
    pub(super) fn take(&mut self, sample: Result<Sample, String>) {
        match sample {
            Ok(_) if self.paused => {}
            Ok(sample) => {
                self.before = Some(std::mem::replace(&mut self.now, sample));
                self.problem = None;
            }
            Err(why) => self.problem = Some(why),
        }
    }

    pub(super) fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.offset = 0;
    }

    /// Takes a key; whether it ends the program.
    pub(super) fn press(&mut self, key: Key) -> bool {
        let place = Pane::ALL.iter().position(|pane| *pane == self.pane).unwrap_or(0);
        let count = Pane::ALL.len();
        match key {
            Key::Quit if self.help => self.help = false,
            Key::Quit => return true,
            Key::Next => self.show(Pane::ALL[(place + 1) % count]),
            Key::Previous => self.show(Pane::ALL[(place + count - 1) % count]),
            Key::Pane(place) => {
                if let Some(pane) = Pane::ALL.get(place) {
                    self.show(*pane);
                }
            }
            Key::Sort => self.by_name = !self.by_name,
            Key::Pause => self.paused = !self.paused,
            Key::Help => self.help = !self.help,
            Key::Scroll(lines) => {
                let last = self.rows().len().saturating_sub(1);
                self.offset = self.offset.saturating_add_signed(lines).min(last);
            }
        }
        false
    }

    pub(super) fn pane(&self) -> Pane {
        self.pane
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn wants_help(&self) -> bool {
        self.help
    }

    /// Lines that show the whole pane.
    pub(super) fn height(&self) -> u16 {
        u16::try_from(self.rows().len() + AROUND).unwrap_or(u16::MAX)
    }

    /// The first lines: the daemon, and what needs attention.
    pub(super) fn head(&self) -> [(String, Tone); 2] {
        let status = &self.now.status;
        let fill: Vec<String> = (status.tables.iter())
            .filter_map(|(name, table)| {
                let percent = (table.used * 100).checked_div(table.capacity)?;
                Some(format!("{name} {percent}%"))
            })
            .collect();
        let paused = if self.paused { "  PAUSED" } else { "" };
        let daemon = format!(
            "lb {}  up {}  configuration {}  {}{paused}",
            status.version,
            seconds(status.uptime_s),
            status.config_generation,
            fill.join(" ")
        );
        let attention = match (&self.problem, status.warnings.first(), status.warnings.len()) {
            (Some(why), _, _) => (why.lines().next().unwrap_or_default().to_owned(), Tone::Bad),
            (None, None, _) => ("nothing needs attention".to_owned(), Tone::Good),
            (None, Some(first), 1) => (first.clone(), Tone::Attention),
            (None, Some(first), count) => (format!("{first} (and {} more: lbctl status)", count - 1), Tone::Attention),
        };
        [(daemon, Tone::Plain), attention]
    }

    pub(super) fn columns(&self) -> &'static [Column] {
        match self.pane {
            Pane::Servers => &[
                ("VIRTUAL SERVER", 14, false),
                ("PROTO", 6, false),
                ("NODES", 5, true),
                ("ACTIVE", 7, true),
                ("NEW/S", 7, true),
                ("REQ/S", 7, true),
                ("IN BIT/S", 8, true),
                ("OUT BIT/S", 9, true),
                ("P99", 7, true),
            ],
            Pane::Nodes => &[
                ("NODE", 16, false),
                ("STATE", 8, false),
                ("HEALTH", 7, false),
                ("ACTIVE", 7, true),
                ("NEW/S", 7, true),
                ("REQ/S", 7, true),
                ("TO BIT/S", 8, true),
                ("FROM BIT/S", 10, true),
            ],
            Pane::Packets => &[
                ("INTERFACE", 12, false),
                ("ACTION", 6, false),
                ("REASON", 24, false),
                ("PACKETS/S", 10, true),
                ("BIT/S", 8, true),
                ("PACKETS", 12, true),
            ],
            Pane::Vips => {
                &[("VIP GROUP", 14, false), ("STATE", 8, false), ("OWNER", 12, false), ("ADDRESSES", 30, false)]
            }
        }
    }

    /// The rows of the pane, in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = match self.pane {
            Pane::Servers => self.now.servers.iter().map(|server| self.server(server)).collect(),
            Pane::Nodes => self.nodes(),
            Pane::Packets => self.packets(),
            Pane::Vips => self.vips(),
        };
        if !self.by_name && self.pane != Pane::Vips {
            // Stable: rows without traffic stay in the order of their names.
            rows.sort_by_key(|row: &Row| Reverse(ordered(row.rate)));
        }
        rows
    }

    fn time(&self) -> Option<Duration> {
        self.now.since(self.before.as_ref()?)
    }

    fn rate(&self, before: Option<u64>, now: u64) -> Option<f64> {
        let time = self.time()?;
        // What was not there before has no rate yet.
        Some(now.saturating_sub(before?) as f64 / time.as_secs_f64())
    }

    fn server(&self, now: &VirtualServerView) -> Row {
        let before = self.before.as_ref().and_then(|b| b.servers.iter().find(|server| server.name == now.name));
        let new = self.rate(before.map(|b| b.connections), now.connections);
        let requests = |server: &VirtualServerView| server.proxy.as_ref().map(|proxy| proxy.requests.total);
        let finished = requests(now).and_then(|now| self.rate(before.and_then(requests), now));
        let (received, sent) = (server_bytes(now), before.map(server_bytes));
        let bits = |which: fn((u64, u64)) -> u64| self.rate(sent.map(which), which(received)).map(|bytes| bytes * 8.0);
        let tone = match (now.nodes_available, now.nodes_total) {
            (0, _) if !now.pool.is_empty() => Tone::Bad,
            (available, total) if available < total || now.pool != now.pool_in_use => Tone::Attention,
            _ => Tone::Plain,
        };
        let cells = vec![
            now.name.clone(),
            now.protocol.clone(),
            format!("{}/{}", now.nodes_available, now.nodes_total),
            about(now.active as f64),
            shown(new),
            shown(finished),
            shown(bits(|(received, _)| received)),
            shown(bits(|(_, sent)| sent)),
            p99(now.proxy.as_ref().map(|proxy| &proxy.requests)),
        ];
        Row { cells, tone, rate: finished.or(new).unwrap_or(0.0) }
    }

    /// Nodes of all virtual servers; one that several use is shown once, with its counters together.
    fn nodes(&self) -> Vec<Row> {
        let now = by_node(&self.now);
        let before = self.before.as_ref().map(by_node).unwrap_or_default();
        let row = |node: &NodeView| {
            let same = before.iter().find(|b| (&b.pool, &b.name) == (&node.pool, &node.name));
            let new = self.rate(same.map(|b| b.connections), node.connections);
            let requests = |node: &NodeView| node.proxy.as_ref().map(|proxy| proxy.requests.total);
            let finished = requests(node).and_then(|now| self.rate(same.and_then(requests), now));
            let bits = |which: fn(&NodeView) -> u64| self.rate(same.map(which), which(node)).map(|bytes| bytes * 8.0);
            let tone = match (node.health, node.admission) {
                (Health::Down, _) => Tone::Bad,
                (_, Admission::All) => Tone::Plain,
                (_, Admission::Tracked | Admission::Nothing) => Tone::Attention,
            };
            let cells = vec![
                format!("{}/{}", node.pool, node.name),
                word(&node.state),
                word(&node.health),
                about(node.active as f64),
                shown(new),
                shown(finished),
                shown(bits(|n| n.proxy.as_ref().map_or(n.forward.bytes, |proxy| proxy.bytes_sent))),
                shown(bits(|n| n.proxy.as_ref().map_or(n.reply.bytes, |proxy| proxy.bytes_received))),
            ];
            Row { cells, tone, rate: finished.or(new).unwrap_or(0.0) }
        };
        now.iter().map(row).collect()
    }

    fn packets(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for interface in &self.now.status.interfaces {
            let before = self.before.as_ref();
            let before = before.and_then(|b| b.status.interfaces.iter().find(|other| other.name == interface.name));
            for (reason, traffic) in &interface.reasons {
                // A reason that was not counted before was at zero.
                let earlier = before.map(|b| b.reasons.get(reason).copied().unwrap_or_default());
                let packets = self.rate(earlier.map(|e| e.packets), traffic.packets);
                let bytes = self.rate(earlier.map(|e| e.bytes), traffic.bytes);
                let (action, tone) = action(reason);
                let cells = vec![
                    interface.name.clone(),
                    action.to_owned(),
                    reason.clone(),
                    shown(packets),
                    shown(bytes.map(|bytes| bytes * 8.0)),
                    traffic.packets.to_string(),
                ];
                let tone = if packets.unwrap_or(0.0) > 0.0 { tone } else { Tone::Plain };
                rows.push(Row { cells, tone, rate: packets.unwrap_or(0.0) });
            }
        }
        rows
    }

    fn vips(&self) -> Vec<Row> {
        let vips = &self.now.vips;
        let group = |group: &crate::control::view::VipView| {
            let addresses: Vec<String> = group.addresses.iter().map(|(address, _)| address.to_string()).collect();
            let tone = match group.state {
                VipState::Active | VipState::Static | VipState::Announced => Tone::Good,
                VipState::Idle | VipState::Withdrawn => Tone::Attention,
                VipState::Backup | VipState::External => Tone::Plain,
            };
            let owner = group.owner.clone().unwrap_or_default();
            Row { cells: vec![group.name.clone(), word(&group.state), owner, addresses.join(" ")], tone, rate: 0.0 }
        };
        let machine = |machine: &crate::control::view::MachineView| {
            let (state, tone) = if machine.alive { ("alive", Tone::Good) } else { ("silent", Tone::Bad) };
            let cells = vec!["machine".to_owned(), state.to_owned(), machine.name.clone(), String::new()];
            Row { cells, tone, rate: 0.0 }
        };
        let machines = vips.cluster.iter().flat_map(|cluster| &cluster.machines).map(machine);
        vips.groups.iter().map(group).chain(machines).collect()
    }
}

/// A rate as a number that is ordered.
fn ordered(rate: f64) -> u64 {
    // Rates are never negative, and hundredths do not matter.
    (rate * 100.0) as u64
}

fn shown(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), about)
}

fn p99(requests: Option<&Requests>) -> String {
    let Some(us) = requests.and_then(|requests| requests.p99_us) else { return "-".to_owned() };
    match us {
        0..1000 => format!("{us}us"),
        1000..1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

/// Bytes from clients, and to them.
fn server_bytes(server: &VirtualServerView) -> (u64, u64) {
    match &server.proxy {
        Some(proxy) => (proxy.bytes_received, proxy.bytes_sent),
        None => (server.forward.bytes, server.reply.bytes),
    }
}

fn by_node(sample: &Sample) -> Vec<NodeView> {
    let mut nodes: BTreeMap<(&str, &str), NodeView> = BTreeMap::new();
    let add = |a: Traffic, b: Traffic| Traffic { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
    for node in sample.servers.iter().flat_map(|server| &server.nodes) {
        match nodes.get_mut(&(node.pool.as_str(), node.name.as_str())) {
            // What the proxy counts of a node is of all virtual servers already.
            Some(_) if node.proxy.is_some() => {}
            Some(known) => {
                known.active += node.active;
                known.connections += node.connections;
                known.forward = add(known.forward, node.forward);
                known.reply = add(known.reply, node.reply);
            }
            None => drop(nodes.insert((&node.pool, &node.name), node.clone())),
        }
    }
    nodes.into_values().collect()
}

fn action(reason: &str) -> (&'static str, Tone) {
    use lb_common::reason::{Action, Reason};
    match Reason::ALL.iter().find(|known| known.name() == reason).map(|known| known.action()) {
        Some(Action::Send) => ("send", Tone::Good),
        Some(Action::Pass) => ("pass", Tone::Plain),
        Some(Action::Drop) => ("drop", Tone::Bad),
        None => ("", Tone::Plain),
    }
}
