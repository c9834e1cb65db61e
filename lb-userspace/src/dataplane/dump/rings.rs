//! `RINGS`: Maglev rings, round robin sequences and least connections lists, and the shares of a virtual server's ring.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{
    maglev::{CHUNK_SLOTS, RING_CHUNKS, RING_SLOTS},
    vip::VirtualServer as Record,
};

use super::{Source, rows::Rows, services::records};
use crate::{
    control::{
        plan::{Admission, VirtualServer},
        query::QueryError,
        view::RingShare,
    },
    dataplane::{
        counters::unreadable,
        inspect::{
            Context,
            words::{REMOVED, virtual_server},
        },
        maps::Maps,
        names::Names,
        rings::effective_weight,
        services::{Family, families, service_key},
    },
};

/// The elements that virtual servers use.
pub(super) fn elements(source: &Source<'_>) -> Result<Rows, QueryError> {
    let mut rows = source.rows(&["element", "virtual_server", "part", "first", "node_slots"]);
    let mut shown = BTreeSet::new();
    for (_, record) in records(source)? {
        let server = virtual_server(source.names, record.id);
        let parts = [
            ("ring", record.ring, RING_SLOTS),
            ("sequence", record.sequence, record.sequence_len),
            ("members", record.members, record.members_len),
        ];
        for (part, start, slots) in parts.into_iter().filter(|(_, start, slots)| *start != 0 && *slots != 0) {
            if shown.insert(start) {
                part_elements(source, &mut rows, (&server, part), start, slots)?;
            }
        }
    }
    Ok(rows)
}

fn part_elements(
    source: &Source<'_>,
    rows: &mut Rows,
    (server, part): (&str, &str),
    start: u32,
    slots: u32,
) -> Result<(), QueryError> {
    let chunks = slots.div_ceil(CHUNK_SLOTS as u32).min(source.maps.rings.len().saturating_sub(start));
    for chunk in 0..chunks {
        if rows.is_full() {
            rows.skip(u64::from(chunks - chunk));
            break;
        }
        let element = start + chunk;
        let first = chunk * CHUNK_SLOTS as u32;
        let contents = source.maps.rings.read(element);
        rows.push(|| {
            let count = (slots - first).min(CHUNK_SLOTS as u32) as usize;
            let numbers: Vec<String> = contents.0[..count].iter().map(u16::to_string).collect();
            let (server, part) = (server.to_owned(), part.to_owned());
            vec![element.to_string(), server, part, first.to_string(), numbers.join(" ")]
        });
    }
    Ok(())
}

/// How a virtual server's Maglev ring is divided: what stands in the map, beside what the weights ask for. IPv4 and IPv6
/// nodes have a ring each.
///
/// # Errors
/// `NotFound` for an unknown name, `Failed` when a map cannot be read.
pub fn ring(context: &Context, name: &str) -> Result<Vec<RingShare>, QueryError> {
    let names = context.names.snapshot();
    let Some(server) = names.plan.virtual_servers.get(name) else {
        let known: Vec<&str> = names.plan.virtual_servers.keys().map(String::as_str).collect();
        let known =
            if known.is_empty() { "there is none".to_owned() } else { format!("there are: {}", known.join(", ")) };
        return Err(QueryError::NotFound(format!("there is no virtual server {name:?}; {known}")));
    };
    let mut shares = Vec::new();
    for family in families(server) {
        let Some(record) = record(&context.maps, server, family)? else { continue };
        let found = if record.ring == 0 { BTreeMap::new() } else { count(&context.maps, record.ring)? };
        shares.extend(compare(&names, server, family, &found));
    }
    Ok(shares)
}

/// The record that packets to the virtual server find.
fn record(maps: &Maps, server: &VirtualServer, family: Family) -> Result<Option<Record>, QueryError> {
    let address: Option<&IpAddr> = server.addresses.iter().find(|address| Family::of(**address) == family);
    let (Some(address), Some((first, last))) = (address, server.ports.first()) else { return Ok(None) };
    let protocol = server.protocol.number();
    let index = if first == last {
        maps.services.get(&service_key(*address, *first, protocol), 0).map_err(unreadable("SERVICES"))?
    } else {
        let ranges = maps.port_ranges.get(&service_key(*address, 0, protocol), 0).map_err(unreadable("PORT_RANGES"))?;
        let range = ranges.ranges.iter().find(|range| (range.first, range.last) == (*first, *last));
        range.map_or(0, |range| range.config)
    };
    maps.virtual_servers.get(&index, 0).map(Some).map_err(unreadable("VIRTUAL_SERVERS"))
}

/// Slots of a ring by node slot.
fn count(maps: &Maps, start: u32) -> Result<BTreeMap<u16, u32>, QueryError> {
    let mut counts = BTreeMap::new();
    let mut left = RING_SLOTS as usize;
    for element in start..(start + RING_CHUNKS).min(maps.rings.len()) {
        let chunk = maps.rings.read(element);
        for slot in chunk.0.iter().take(left) {
            *counts.entry(*slot).or_default() += 1;
        }
        left = left.saturating_sub(CHUNK_SLOTS);
    }
    Ok(counts)
}

/// Shares found beside those that the plan's weights ask for, of one family.
fn compare(names: &Names, server: &VirtualServer, family: Family, found: &BTreeMap<u16, u32>) -> Vec<RingShare> {
    let members =
        server.nodes.iter().filter(|node| node.admission == Admission::All && Family::of(node.address.ip()) == family);
    let weights: BTreeMap<(&str, &str), u32> = members
        .map(|node| ((node.pool.as_str(), node.name.as_str()), effective_weight(server.scheduler, node.weight)))
        .collect();
    let total: f64 = weights.values().copied().map(f64::from).sum();
    let mut slots: BTreeMap<(&str, &str), u32> = weights.keys().map(|node| (*node, 0)).collect();
    for (slot, count) in found.iter().filter(|(slot, _)| **slot != 0) {
        let node = names.slots.get(slot).map_or(("", REMOVED), |info| (info.pool.as_str(), info.node.as_str()));
        *slots.entry(node).or_default() += count;
    }
    let share = |(node, slots): ((&str, &str), u32)| RingShare {
        node: node.1.to_owned(),
        slots,
        share: f64::from(slots) / f64::from(RING_SLOTS),
        expected: if total == 0.0 { 0.0 } else { weights.get(&node).copied().map_or(0.0, f64::from) / total },
    };
    slots.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use lb_common::conntrack::Timeouts;

    use super::*;
    use crate::{
        control::plan::{self, Forwarding, OnNodeFailure, Protocol, Refusal, Scheduler},
        dataplane::names::SlotInfo,
    };

    fn server() -> VirtualServer {
        let node = |name: &str, address: &str, weight, admission| plan::Node {
            pool: "p".to_owned(),
            name: name.to_owned(),
            address: address.parse().unwrap(),
            weight,
            admission,
            source_address: None,
        };
        VirtualServer {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            protocol: Protocol::Tcp,
            ports: vec![(80, 80)],
            pool: "p".to_owned(),
            forwarding: Forwarding::Nat,
            scheduler: Scheduler::Maglev,
            affinity: None,
            on_node_failure: OnNodeFailure::Reschedule,
            refusal: Refusal::Reset,
            timeouts: Timeouts::default(),
            flood_limit: 0,
            ring_seed: 7,
            source_ports: (1024, 2047),
            nodes: vec![
                node("a", "10.0.0.1:80", 1, Admission::All),
                node("b", "10.0.0.2:80", 3, Admission::All),
                node("drained", "10.0.0.3:80", 9, Admission::Tracked),
                node("six", "[2001:db8::1]:80", 9, Admission::All),
            ],
        }
    }

    #[test]
    fn shares_are_compared_with_weights_by_family() {
        let slot = |node: &str| SlotInfo {
            virtual_server: "web".to_owned(),
            pool: "p".to_owned(),
            node: node.to_owned(),
            address: "10.0.0.1:80".parse().unwrap(),
            source: None,
            generation: 1,
            admission: Admission::All,
            unresolved: None,
        };
        let names = Names { slots: BTreeMap::from([(1, slot("a")), (2, slot("b"))]), ..Names::default() };
        let found = BTreeMap::from([(1, RING_SLOTS / 4), (2, RING_SLOTS / 2), (9, RING_SLOTS / 4 + 1)]);
        let shares = compare(&names, &server(), Family::V4, &found);
        let rows: Vec<(&str, u32, f64)> =
            shares.iter().map(|share| (share.node.as_str(), share.slots, share.expected)).collect();
        let (quarter, half) = (RING_SLOTS / 4, RING_SLOTS / 2);
        assert_eq!(rows, [("(removed)", quarter + 1, 0.0), ("a", quarter, 0.25), ("b", half, 0.75)]);
        assert!((shares[2].share - 0.5).abs() < 0.001);
        let empty = compare(&names, &server(), Family::V6, &BTreeMap::new());
        assert_eq!((empty.len(), empty[0].slots, empty[0].expected), (1, 0, 1.0));
    }
}
