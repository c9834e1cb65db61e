//! Bringing node slots up to date with what is known of their next hops.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::node::{Node, node_flag};

use crate::dataplane::{
    apply::PlannedNode,
    maps::{Maps, Writer},
    network::{Network, Unresolved},
    nodes,
    slots::Slots,
};

/// Whether nodes that may take less than before lose it now, or in a later call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Losses {
    Now,
    Later,
}

/// Writes the slots of `nodes`. Says whether anything changed, and which nodes have no next hop.
pub(super) fn refresh(
    maps: &Maps,
    writer: &mut Writer,
    devices: &mut BTreeSet<u32>,
    network: &Network,
    slots: &Slots,
    nodes: &[PlannedNode],
    losses: Losses,
) -> (bool, BTreeMap<u16, Unresolved>) {
    let mut changed = false;
    let mut unresolved = BTreeMap::new();
    for node in nodes {
        let Some(slot) = slots.slot(node.slot) else { continue };
        let hop = nodes::next_hop(network, slot, node);
        match hop {
            Ok(hop) => add_device(writer, devices, hop.ifindex),
            Err(why) => {
                unresolved.insert(node.slot, why);
            }
        }
        let index = u32::from(node.slot);
        let before = maps.nodes.read(index);
        let mut after = nodes::image(&before, slot, node, hop);
        if losses == Losses::Later && before.generation == after.generation {
            after.flags |= before.flags & node_flag::USABLE;
        }
        if before == after {
            continue;
        }
        changed = true;
        log_change(&before, &after, node);
        nodes::write(&maps.nodes, index, &after);
    }
    (changed, unresolved)
}

fn log_change(before: &Node, after: &Node, node: &PlannedNode) {
    let resolved = |node: &Node| node.flags & node_flag::RESOLVED != 0;
    let (slot, address) = (node.slot, node.address);
    match (resolved(before), resolved(after)) {
        (true, true) if before.mac != after.mac => {
            tracing::info!(slot, %address, before = %mac(before.mac), after = %mac(after.mac), "next hop's MAC address changed");
        }
        (false, true) => {
            tracing::info!(slot, %address, mac = %mac(after.mac), ifindex = after.ifindex, "next hop resolved");
        }
        (true, false) if before.generation == after.generation => {
            tracing::warn!(slot, %address, "next hop lost");
        }
        _ => {}
    }
}

/// A MAC address as people write it.
#[must_use]
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Lets the data path redirect to an interface.
pub(super) fn add_device(writer: &mut Writer, devices: &mut BTreeSet<u32>, ifindex: u32) {
    if devices.contains(&ifindex) {
        return;
    }
    match writer.devices.insert(ifindex, ifindex, None, 0) {
        Ok(()) => {
            devices.insert(ifindex);
        }
        Err(error) => tracing::warn!(ifindex, %error, "cannot redirect to this interface"),
    }
}
