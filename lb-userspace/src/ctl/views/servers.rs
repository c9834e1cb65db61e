//! Virtual servers, pools and nodes: as lists, and one with all that is known of it.

use std::net::IpAddr;

use super::{
    super::output::{Cell, Column, Look, Tone, left, right, table},
    admission_tone, health_tone, ports, proxied,
    requests::duration,
    state_tone, traffic, word,
};
use crate::{
    control::{
        plan::Admission,
        view::{NodeView, PoolView, Requests, VirtualServerView},
    },
    visible,
};

/// `lbctl vs ls`.
pub(in crate::ctl) fn virtual_servers(list: &[VirtualServerView], look: Look) -> String {
    type Vs = VirtualServerView;
    let mut columns = vec![
        left("NAME", |vs: &Vs| Cell::new(&vs.name)),
        left("ADDRESSES", |vs: &Vs| Cell::new(addresses(&vs.addresses, ","))),
        left("PROTOCOL", |vs: &Vs| Cell::new(word(&vs.protocol))).spare(3),
        left("PORTS", |vs: &Vs| Cell::new(ports(&vs.ports))),
        left("POOL", pool_in_use).spare(4),
        left("FORWARDING", |vs: &Vs| Cell::new(word(&vs.forwarding))).spare(6),
        left("SCHEDULER", |vs: &Vs| Cell::new(word(&vs.scheduler))).spare(7),
        left("NODES", |vs: &Vs| available(vs.nodes_available, vs.nodes_total)),
        right("ACTIVE", |vs: &Vs| Cell::new(vs.active)),
        right("CONNECTIONS", |vs: &Vs| Cell::new(vs.connections)).spare(5),
        right("TO NODES", |vs: &Vs| Cell::new(traffic(vs.forward))).wide(),
        right("FROM NODES", |vs: &Vs| Cell::new(traffic(vs.reply))).wide(),
        right("FLOOD", |vs: &Vs| Cell::new(vs.flood_limited)).wide(),
    ];
    if list.iter().any(|vs| vs.proxy.is_some()) {
        columns.extend(request_columns(|vs: &Vs| vs.proxy.as_ref().map(|proxy| &proxy.requests)));
    }
    table(columns, list, look)
}

/// `lbctl vs show`.
pub(in crate::ctl) fn virtual_server(vs: &VirtualServerView, look: Look) -> String {
    if let Some(proxy) = &vs.proxy {
        return proxied::virtual_server(vs, proxy, look);
    }
    let fields = [
        ("virtual server", vs.name.clone()),
        ("addresses", addresses(&vs.addresses, ", ")),
        ("protocol", word(&vs.protocol)),
        ("ports", ports(&vs.ports)),
        ("pool", pool_sentence(vs)),
        ("forwarding", word(&vs.forwarding)),
        ("scheduler", word(&vs.scheduler)),
        ("nodes", format!("{} of {} take new connections", vs.nodes_available, vs.nodes_total)),
        ("connections", format!("{} active, {} so far", vs.active, vs.connections)),
        ("to nodes", traffic(vs.forward)),
        ("from nodes", traffic(vs.reply)),
        ("flood limited", vs.flood_limited.to_string()),
    ];
    format!("{}\n{}", facts(&fields), nodes(&vs.nodes, look))
}

/// `lbctl pool ls`.
pub(in crate::ctl) fn pools(list: &[PoolView], look: Look) -> String {
    type Pool = PoolView;
    let mut columns = vec![
        left("NAME", |pool: &Pool| Cell::new(&pool.name)),
        left("FORWARDING", forwarding).spare(2),
        left("SCHEDULER", |pool: &Pool| Cell::new(word(&pool.scheduler))).spare(5),
        left("NODES", |pool: &Pool| available(pool.nodes_available, pool.nodes_total)),
        right("ACTIVE", |pool: &Pool| Cell::new(pool.active)),
        right("CONNECTIONS", |pool: &Pool| Cell::new(pool.connections)).spare(3),
        left("VIRTUAL SERVERS", |pool: &Pool| Cell::new(pool.virtual_servers.join(","))).spare(4),
        left("FAILURE POOL", |pool: &Pool| Cell::optional(pool.failure_pool.as_ref())).wide(),
        left("MONITORS", |pool: &Pool| Cell::new(pool.monitors.join(","))).wide(),
        left("ON NODE FAILURE", |pool: &Pool| Cell::optional(pool.on_node_failure.as_ref().map(word))).wide(),
        left("REFUSAL", |pool: &Pool| Cell::optional(pool.refusal.as_ref().map(word))).wide(),
    ];
    if list.iter().any(|pool| pool.proxy.is_some()) {
        columns.extend(request_columns(|pool: &Pool| pool.proxy.as_ref().map(|proxy| &proxy.requests)));
    }
    table(columns, list, look)
}

/// `lbctl pool show`.
pub(in crate::ctl) fn pool(pool: &PoolView, look: Look) -> String {
    if let Some(proxy) = &pool.proxy {
        return proxied::pool(pool, proxy, look);
    }
    let changed = if pool.forwarding_overridden { " (set at run time)" } else { "" };
    let none_of = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    let fields = [
        ("pool", pool.name.clone()),
        ("forwarding", format!("{}{changed}", word(&pool.forwarding))),
        ("scheduler", word(&pool.scheduler)),
        ("virtual servers", none_of(&pool.virtual_servers)),
        ("monitors", none_of(&pool.monitors)),
        ("failure pool", pool.failure_pool.clone().unwrap_or_else(|| "none".to_owned())),
        ("on node failure", pool.on_node_failure.as_ref().map(word).unwrap_or_default()),
        ("refusal", pool.refusal.as_ref().map(word).unwrap_or_default()),
    ];
    format!("{}\n{}", facts(&fields), nodes(&pool.nodes, look))
}

/// `lbctl node ls`, and the nodes of a pool or virtual server.
pub(in crate::ctl) fn nodes(list: &[NodeView], look: Look) -> String {
    let mut columns = node_columns();
    if list.iter().any(|node| node.proxy.is_some()) {
        columns.extend(request_columns(|node: &NodeView| node.proxy.as_ref().map(|proxy| &proxy.requests)));
    }
    table(columns, list, look)
}

/// Requests so far, those in progress, and how long they take; blank for what forwards packets.
fn request_columns<T>(of: fn(&T) -> Option<&Requests>) -> Vec<Column<T>>
where
    T: 'static,
{
    vec![
        right("REQUESTS", move |of_row: &T| Cell::optional(of(of_row).map(|requests| requests.total))),
        right("FAILED", move |of_row: &T| match of(of_row).map(failed) {
            Some(0) => Cell::new(0),
            Some(failed) => Cell::toned(failed, Tone::Attention),
            None => Cell::new(""),
        }),
        right("P99", move |of_row: &T| Cell::optional(of(of_row).and_then(|requests| requests.p99_us).map(duration)))
            .spare(2),
        right("IN PROGRESS", move |of_row: &T| Cell::optional(of(of_row).map(|requests| requests.active))).wide(),
        right("P50", move |of_row: &T| Cell::optional(of(of_row).and_then(|r| r.p50_us).map(duration))).wide(),
    ]
}

/// Requests without a response, or with one of the class 5xx.
fn failed(requests: &Requests) -> u64 {
    ["none", "5xx"].iter().filter_map(|class| requests.by_class.get(*class)).sum()
}

fn node_columns() -> Vec<Column<NodeView>> {
    type Node = NodeView;
    vec![
        left("NODE", |n: &Node| Cell::new(format!("{}/{}", n.pool, n.name))),
        left("ADDRESS", |n: &Node| Cell::new(&n.address)).spare(2),
        left("STATE", |n: &Node| {
            let mark = if n.state_overridden { "*" } else { "" };
            Cell::toned(format!("{}{mark}", word(&n.state)), state_tone(n.state))
        }),
        left("HEALTH", |n: &Node| Cell::toned(word(&n.health), health_tone(n.health))),
        left("TAKES", |n: &Node| Cell::toned(takes(n.admission), admission_tone(n.admission))).spare(3),
        right("WEIGHT", |n: &Node| Cell::new(n.weight)).spare(5),
        right("ACTIVE", |n: &Node| Cell::new(n.active)),
        right("CONNECTIONS", |n: &Node| Cell::new(n.connections)).spare(4),
        left("NEXT HOP", |n: &Node| match &n.mac {
            Some(mac) => Cell::new(mac),
            None if n.proxy.is_some() => Cell::new(""),
            None => Cell::toned("unresolved", Tone::Bad),
        })
        .wide(),
        left("INTERFACE", |n: &Node| Cell::optional(n.interface.as_ref())).wide(),
        right("RESCHEDULED", |n: &Node| Cell::new(n.rescheduled)).wide(),
        right("EVICTED", |n: &Node| Cell::new(n.evicted)).wide(),
        right("TO NODE", |n: &Node| Cell::new(traffic(n.forward))).wide(),
        right("FROM NODE", |n: &Node| Cell::new(traffic(n.reply))).wide(),
        left("REASON", |n: &Node| Cell::optional(n.health_reason.as_ref())).wide().wraps(),
    ]
}

/// `lbctl node show`.
pub(in crate::ctl) fn node(node: &NodeView, _: Look) -> String {
    if let Some(proxy) = &node.proxy {
        return proxied::node(node, proxy);
    }
    let set = if node.state_overridden { " (set at run time)" } else { "" };
    let reason = node.health_reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let hop = match (&node.mac, &node.interface) {
        (Some(mac), Some(interface)) => format!("{mac} on {interface}"),
        (Some(mac), None) => mac.clone(),
        (None, _) => "unresolved: packets to it are dropped; next: lbctl doctor".to_owned(),
    };
    facts(&[
        ("node", format!("{}/{}", node.pool, node.name)),
        ("address", node.address.clone()),
        ("state", format!("{}{set}", word(&node.state))),
        ("health", format!("{}{reason}", word(&node.health))),
        ("takes", takes(node.admission).to_owned()),
        ("weight", node.weight.to_string()),
        ("next hop", hop),
        (
            "connections",
            format!("{} active, {} so far, {} moved here", node.active, node.connections, node.rescheduled),
        ),
        ("to node", traffic(node.forward)),
        ("from node", traffic(node.reply)),
    ])
}

pub(super) fn takes(admission: Admission) -> &'static str {
    match admission {
        Admission::All => "new",
        Admission::Tracked => "tracked",
        Admission::Nothing => "nothing",
    }
}

fn available(available: usize, total: usize) -> Cell {
    let tone = match available {
        0 => Tone::Bad,
        some if some < total => Tone::Attention,
        _ => Tone::Good,
    };
    Cell::toned(format!("{available}/{total}"), tone)
}

fn pool_in_use(vs: &VirtualServerView) -> Cell {
    if vs.pool == vs.pool_in_use {
        return Cell::new(&vs.pool);
    }
    Cell::toned(format!("{} (for {})", vs.pool_in_use, vs.pool), Tone::Attention)
}

pub(super) fn pool_sentence(vs: &VirtualServerView) -> String {
    if vs.pool == vs.pool_in_use {
        return vs.pool.clone();
    }
    format!("{}: the failure pool of {}, which has no node that takes new connections", vs.pool_in_use, vs.pool)
}

fn forwarding(pool: &PoolView) -> Cell {
    let mark = if pool.forwarding_overridden { "*" } else { "" };
    Cell::new(format!("{}{mark}", word(&pool.forwarding)))
}

pub(super) fn addresses(list: &[IpAddr], separator: &str) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// Names and values, a line each.
pub(in crate::ctl) fn facts(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:<width$}  {}\n", visible::line(value))).collect()
}
