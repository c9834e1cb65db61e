//! Node slots.

use lb_common::node::{Node, NodeLoad, NodeStats, node_flag};

use super::{Source, rows::Rows};
use crate::{
    control::query::QueryError,
    dataplane::{
        counters::{sum, unreadable},
        inspect::words::{self, bits},
        owner::mac,
        slots::text,
    },
};

/// `NODES`.
pub(super) fn nodes(source: &Source<'_>) -> Rows {
    let mut rows = source.rows(&[
        "slot",
        "node",
        "virtual_server",
        "flags",
        "mac",
        "source_mac",
        "interface",
        "vlan",
        "mtu",
        "address",
        "port",
        "source_address",
        "generation",
    ]);
    for slot in 0..source.maps.nodes.len() {
        let node = source.maps.nodes.read(slot);
        if node != Node::default() {
            rows.push(|| row(source, slot, &node));
        }
    }
    rows
}

fn row(source: &Source<'_>, slot: u32, node: &Node) -> Vec<String> {
    let address = |bytes: [u8; 16]| {
        if bytes == [0; 16] { "-".to_owned() } else { words::address_of_any_family(bytes).to_string() }
    };
    let hop = |bytes: [u8; 6]| if bytes == [0; 6] { "-".to_owned() } else { mac(bytes) };
    let flags = [
        (u32::from(node_flag::USABLE), "usable"),
        (u32::from(node_flag::RESOLVED), "resolved"),
        (u32::from(node_flag::TAGGED), "tagged"),
    ];
    vec![
        slot.to_string(),
        owner(source, slot),
        words::virtual_server(source.names, node.virtual_server),
        bits(u32::from(node.flags), &flags),
        hop(node.mac),
        hop(node.source_mac),
        words::link(source.names, node.ifindex),
        if node.vlan == 0 { "-".to_owned() } else { node.vlan.to_string() },
        node.mtu.to_string(),
        address(node.address),
        if node.port == 0 { "-".to_owned() } else { u16::from_be(node.port).to_string() },
        address(node.source_address),
        node.generation.to_string(),
    ]
}

/// Whose slot it is; `-` when it is free.
fn owner(source: &Source<'_>, slot: u32) -> String {
    let found = u16::try_from(slot).ok().and_then(|slot| source.names.slots.get(&slot));
    found.map_or_else(|| "-".to_owned(), |info| format!("{}/{}", info.pool, info.node))
}

/// `NODE_LOADS`. Signed: one that was subtracted from once too often shows.
pub(super) fn loads(source: &Source<'_>) -> Rows {
    let mut rows = source.rows(&["slot", "node", "active", "pending", "weight"]);
    for slot in 0..source.maps.node_loads.len() {
        let load = source.maps.node_loads.read(slot);
        if load != NodeLoad::default() {
            rows.push(|| {
                let signed = |count: u64| count.cast_signed().to_string();
                let (active, pending) = (signed(load.active), signed(load.pending));
                vec![slot.to_string(), owner(source, slot), active, pending, load.weight.to_string()]
            });
        }
    }
    rows
}

/// `NODE_STATS`, of all CPUs together.
pub(super) fn stats(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&[
        "slot",
        "node",
        "packets",
        "bytes",
        "reply_packets",
        "reply_bytes",
        "connections",
        "rescheduled",
        "evicted",
    ]);
    for (slot, cpus) in (0..).zip(source.maps.node_stats.iter()) {
        let stats = sum(&cpus.map_err(unreadable("NODE_STATS"))?);
        if stats != NodeStats::default() {
            rows.push(|| {
                let NodeStats { packets, bytes, reply_packets, reply_bytes, connections, rescheduled, evicted } = stats;
                let counted = [packets, bytes, reply_packets, reply_bytes, connections, rescheduled, evicted];
                let mut row = vec![slot.to_string(), owner(source, slot)];
                row.extend(counted.map(|count| count.to_string()));
                row
            });
        }
    }
    Ok(rows)
}

/// `NODE_NAMES`.
pub(super) fn names(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["slot", "virtual_server", "pool", "node"]);
    for (slot, names) in (0..).zip(source.maps.node_names.iter()) {
        let slot: u32 = slot;
        let names = names.map_err(unreadable("NODE_NAMES"))?;
        let texts = [text(&names.virtual_server), text(&names.pool), text(&names.node)];
        if texts.iter().any(Option::is_some) {
            rows.push(|| std::iter::once(slot.to_string()).chain(texts.map(Option::unwrap_or_default)).collect());
        }
    }
    Ok(rows)
}
