//! The counters of the data path: of interfaces, node slots and tables, summed over CPUs and named.

use std::{collections::BTreeMap, sync::Arc};

use aya::maps::MapError;
use lb_common::{
    node::{NodeStats, node_flag},
    reason::{Counter, REASON_SLOTS, Reason},
    vip::FloodWindow,
};

use super::{
    inspect::Context,
    maps::Maps,
    names::{InterfaceInfo, Names, SlotInfo},
    network::Mode,
    owner::mac,
};
use crate::control::{
    query::{Counters, NodeCounters, NodeId, Part, QueryError},
    view::{InterfaceView, Traffic},
};

/// Those of a part, now.
///
/// # Errors
/// `Failed` when a map cannot be read.
pub fn counters(context: &Context, part: Part<'_>) -> Result<Counters, QueryError> {
    let names = context.names.snapshot();
    let maps = &context.maps;
    let is_wanted = |info: &SlotInfo| match part {
        Part::All | Part::VirtualServers => true,
        Part::Machine => false,
        Part::Pool(name) => info.pool == name,
        Part::VirtualServer(name) => info.virtual_server == name,
    };
    let limited = |name: &str| match part {
        Part::All | Part::VirtualServers => true,
        Part::VirtualServer(wanted) => wanted == name,
        Part::Machine | Part::Pool(_) => false,
    };
    Ok(Counters {
        interfaces: names.interfaces.iter().map(|info| interface(maps, info)).collect::<Result<_, _>>()?,
        tables: context.collected.tables(),
        nodes: nodes(maps, &names, is_wanted)?,
        flood_limited: flood_limited(maps, &names, limited)?,
        proxy: Arc::default(),
    })
}

/// What a map's error says to the operator.
pub(super) fn unreadable(map: &'static str) -> impl Fn(MapError) -> QueryError {
    move |source| QueryError::Failed(format!("map {map} cannot be read: {source}"))
}

fn interface(maps: &Maps, info: &InterfaceInfo) -> Result<InterfaceView, QueryError> {
    let mut reasons = BTreeMap::new();
    for reason in Reason::ALL {
        let index = info.slot * REASON_SLOTS + *reason as u32;
        let total = traffic(&maps.reasons.get(&index, 0).map_err(unreadable("REASONS"))?);
        if total != Traffic::default() {
            reasons.insert(reason.name().to_owned(), total);
        }
    }
    let mode = info.mode.map_or("absent", Mode::name).to_owned();
    Ok(InterfaceView { name: info.name.clone(), ifindex: info.ifindex, mode, reasons })
}

/// The counters of all CPUs together.
pub(super) fn traffic(cpus: &[Counter]) -> Traffic {
    cpus.iter().fold(Traffic::default(), |total, cpu| Traffic {
        packets: total.packets.wrapping_add(cpu.packets),
        bytes: total.bytes.wrapping_add(cpu.bytes),
    })
}

fn nodes(
    maps: &Maps,
    names: &Names,
    is_wanted: impl Fn(&SlotInfo) -> bool,
) -> Result<BTreeMap<NodeId, NodeCounters>, QueryError> {
    let mut nodes: BTreeMap<NodeId, NodeCounters> = BTreeMap::new();
    for (slot, info) in names.slots.iter().filter(|(_, info)| is_wanted(info)) {
        let of_slot = node(maps, names, *slot)?;
        let SlotInfo { virtual_server, pool, node, .. } = info;
        add(nodes.entry((virtual_server.clone(), pool.clone(), node.clone())).or_default(), of_slot);
    }
    Ok(nodes)
}

fn node(maps: &Maps, names: &Names, slot: u16) -> Result<NodeCounters, QueryError> {
    let index = u32::from(slot);
    let stats = sum(&maps.node_stats.get(&index, 0).map_err(unreadable("NODE_STATS"))?);
    let hop = maps.nodes.read(index);
    let resolved = hop.flags & node_flag::RESOLVED != 0;
    Ok(NodeCounters {
        active: not_negative(maps.node_loads.read(index).active),
        connections: stats.connections,
        rescheduled: stats.rescheduled,
        evicted: stats.evicted,
        forward: Traffic { packets: stats.packets, bytes: stats.bytes },
        reply: Traffic { packets: stats.reply_packets, bytes: stats.reply_bytes },
        mac: resolved.then(|| mac(hop.mac)),
        interface: resolved.then(|| names.links.get(&hop.ifindex).cloned()).flatten(),
    })
}

/// The statistics of all CPUs together.
pub(super) fn sum(cpus: &[NodeStats]) -> NodeStats {
    cpus.iter().fold(NodeStats::default(), |total, cpu| NodeStats {
        packets: total.packets.wrapping_add(cpu.packets),
        bytes: total.bytes.wrapping_add(cpu.bytes),
        reply_packets: total.reply_packets.wrapping_add(cpu.reply_packets),
        reply_bytes: total.reply_bytes.wrapping_add(cpu.reply_bytes),
        connections: total.connections.wrapping_add(cpu.connections),
        rescheduled: total.rescheduled.wrapping_add(cpu.rescheduled),
        evicted: total.evicted.wrapping_add(cpu.evicted),
    })
}

/// A load that was subtracted from once too often, until the collector has mended it, is none.
pub(super) fn not_negative(load: u64) -> u64 {
    u64::try_from(load.cast_signed()).unwrap_or(0)
}

/// A node whose address changed has two slots while the names are replaced.
fn add(total: &mut NodeCounters, slot: NodeCounters) {
    total.active = total.active.saturating_add(slot.active);
    total.connections = total.connections.saturating_add(slot.connections);
    total.rescheduled = total.rescheduled.saturating_add(slot.rescheduled);
    total.evicted = total.evicted.saturating_add(slot.evicted);
    total.forward = plus(total.forward, slot.forward);
    total.reply = plus(total.reply, slot.reply);
    total.mac = total.mac.take().or(slot.mac);
    total.interface = total.interface.take().or(slot.interface);
}

fn plus(one: Traffic, other: Traffic) -> Traffic {
    Traffic { packets: one.packets.saturating_add(other.packets), bytes: one.bytes.saturating_add(other.bytes) }
}

fn flood_limited(
    maps: &Maps,
    names: &Names,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, u64>, QueryError> {
    let mut limited = BTreeMap::new();
    for (id, name) in names.virtual_servers.iter().filter(|(_, name)| is_wanted(name)) {
        let windows = maps.flood.get(&u32::from(*id), 0).map_err(unreadable("FLOOD"))?;
        limited.insert(name.clone(), total_limited(&windows));
    }
    Ok(limited)
}

/// New connections placed by the ring because of the limit, of all CPUs together.
pub(super) fn total_limited(cpus: &[FloodWindow]) -> u64 {
    cpus.iter().fold(0, |total, cpu| total.wrapping_add(cpu.limited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_and_slots_of_one_node_are_summed() {
        let cpu = |packets| NodeStats { packets, bytes: packets * 100, connections: 1, ..NodeStats::default() };
        let stats = sum(&[cpu(1), cpu(0), cpu(5)]);
        assert_eq!((stats.packets, stats.bytes, stats.connections), (6, 600, 3));
        assert_eq!(traffic(&[Counter { packets: 1, bytes: 60 }; 4]), Traffic { packets: 4, bytes: 240 });
        let slot = |active, mac: Option<&str>| NodeCounters {
            active,
            mac: mac.map(str::to_owned),
            forward: Traffic { packets: 1, bytes: 2 },
            ..NodeCounters::default()
        };
        let mut total = slot(1, None);
        add(&mut total, slot(2, Some("02:00:00:00:00:01")));
        assert_eq!((total.active, total.forward.packets, total.mac.as_deref()), (3, 2, Some("02:00:00:00:00:01")));
    }

    #[test]
    fn a_load_below_zero_is_shown_as_none() {
        assert_eq!([not_negative(3), not_negative(0), not_negative(u64::MAX)], [3, 0, 0]);
    }
}
