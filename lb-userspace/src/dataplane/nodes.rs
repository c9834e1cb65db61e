//! Node slots in `NODES`: what stands there for a node and its next hop, and in which order the words are stored, so that
//! no packet goes to a mixture of two nodes. Pure but for the stores.

use lb_common::node::{Node, node_flag};

use super::{
    apply::{PlannedNode, Source},
    network::{Network, NextHop, Unresolved},
    slots::{Slot, address_bytes},
    table::{Table, to_words},
};
use crate::control::plan::Admission;

/// The next hop of `node`, unless source NAT lacks an address of ours: such a node gets no packets.
///
/// # Errors
/// Why there is none.
pub fn next_hop(network: &Network, slot: &Slot, node: &PlannedNode) -> Result<NextHop, Unresolved> {
    let hop = network.next_hop(node.address, node.on_link_only)?;
    if node.source != Source::Client && slot.source.is_none() { Err(Unresolved::NoSource) } else { Ok(hop) }
}

/// What the slot of `node` should hold, after `before`. A next hop that is being asked for anew stays as it was until the
/// kernel gives up, so that neither a restart nor a flushed neighbour table loses a packet.
#[must_use]
pub fn image(before: &Node, slot: &Slot, node: &PlannedNode, hop: Result<NextHop, Unresolved>) -> Node {
    let same_owner = before.generation == slot.generation;
    let kept = if same_owner { *before } else { Node::default() };
    let usable = if node.admission == Admission::Nothing { 0 } else { node_flag::USABLE };
    let (resolved, hop) = match hop {
        Ok(hop) => (node_flag::RESOLVED, hop),
        Err(Unresolved::Asking(_)) => (kept.flags & node_flag::RESOLVED, hop_of(&kept)),
        Err(_) => (0, hop_of(&kept)),
    };
    Node {
        mac: hop.mac,
        flags: usable | resolved | if hop.vlan == 0 { 0 } else { node_flag::TAGGED },
        source_mac: hop.source_mac,
        mtu: hop.mtu,
        ifindex: hop.ifindex,
        virtual_server: node.virtual_server,
        generation: slot.generation,
        address: address_bytes(slot.key.address.ip()),
        source_address: slot.source.map_or([0; 16], address_bytes),
        port: slot.key.address.port().to_be(),
        vlan: hop.vlan,
        padding: [0; 4],
    }
}

fn hop_of(node: &Node) -> NextHop {
    NextHop { mac: node.mac, source_mac: node.source_mac, ifindex: node.ifindex, vlan: node.vlan, mtu: node.mtu }
}

/// The link that frames to the node leave into.
fn segment(node: &Node) -> (u32, u16) {
    (node.ifindex, node.vlan)
}

/// Stores `node` in its slot. A change of MAC address or flags alone is one store. When more changes, the slot is
/// unresolved in between, and when it changes hands, unusable.
pub fn write(nodes: &Table<Node>, index: u32, node: &Node) {
    let before = nodes.read(index);
    if before == *node {
        return;
    }
    let handed_over = before.generation != node.generation;
    let moved = Node { mac: before.mac, flags: before.flags, ..*node } != before;
    if handed_over {
        nodes.store(index, 0, 0);
    } else if moved && before.flags & node_flag::RESOLVED != 0 && segment(&before) != segment(node) {
        let unresolved = Node { flags: before.flags & !node_flag::RESOLVED, ..before };
        nodes.store(index, 0, to_words(&unresolved).next().unwrap_or(0));
    }
    for (word, value) in to_words(node).enumerate().skip(1) {
        if nodes.load(index, word) != value {
            nodes.store(index, word, value);
        }
    }
    nodes.store(index, 0, to_words(node).next().unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::slots::SlotKey;

    const HOP: NextHop =
        NextHop { mac: [2, 0, 0, 0, 0, 1], source_mac: [2, 0, 0, 0, 0, 2], ifindex: 3, vlan: 0, mtu: 1500 };

    fn slot() -> Slot {
        let address = "10.0.0.1:8080".parse().unwrap();
        let key = SlotKey { virtual_server: "web".into(), pool: "p".into(), node: "n".into(), address };
        Slot { key, source: None, generation: 4 }
    }

    fn planned(admission: Admission) -> PlannedNode {
        let address = "10.0.0.1".parse().unwrap();
        PlannedNode { slot: 1, virtual_server: 9, address, admission, on_link_only: false, source: Source::Client }
    }

    #[test]
    fn a_node_is_usable_unless_it_takes_nothing_and_resolved_when_its_hop_is_known() {
        let both = node_flag::USABLE | node_flag::RESOLVED;
        let silent = Err(Unresolved::Silent("10.0.0.1".parse().unwrap()));
        let rows = [
            ("active", Admission::All, Ok(HOP), both),
            ("draining", Admission::Tracked, Ok(HOP), both),
            ("in a vlan", Admission::All, Ok(NextHop { vlan: 100, ..HOP }), both | node_flag::TAGGED),
            ("down", Admission::Nothing, Ok(HOP), node_flag::RESOLVED),
            ("silent", Admission::All, silent, node_flag::USABLE),
        ];
        for (name, admission, hop, flags) in rows {
            let node = image(&Node::default(), &slot(), &planned(admission), hop);
            assert_eq!(node.flags, flags, "{name}");
            assert_eq!((node.generation, node.virtual_server, node.port), (4, 9, 8080u16.to_be()), "{name}");
        }
    }

    #[test]
    fn source_nat_without_an_address_of_ours_sends_nothing() {
        use crate::dataplane::network::{Link, Neighbour, Reachability, Route};
        let node = PlannedNode { source: Source::Route, ..planned(Admission::All) };
        let mut network = Network::default();
        let link =
            Link { ifindex: 3, name: "eth0".into(), mac: Some(HOP.source_mac), mtu: 1500, up: true, ..Link::default() };
        network.set_links(vec![link]);
        network.set_route(node.address, Some(Route { ifindex: 3, ..Route::default() }));
        let (address, reachability) = (node.address, Reachability::Confirmed);
        network.set_neighbours(vec![Neighbour { ifindex: 3, address, mac: Some(HOP.mac), reachability }]);
        assert_eq!(next_hop(&network, &slot(), &node), Err(Unresolved::NoSource));
        assert_eq!(next_hop(&network, &slot(), &planned(Admission::All)), Ok(HOP));
        let with = Slot { source: Some("10.0.0.254".parse().unwrap()), ..slot() };
        assert_eq!(next_hop(&network, &with, &node), Ok(HOP));
    }

    #[test]
    fn a_hop_that_is_asked_for_anew_stays_until_the_kernel_gives_up() {
        let asking = || Err(Unresolved::Asking("10.0.0.1".parse().unwrap()));
        let silent = || Err(Unresolved::Silent("10.0.0.1".parse().unwrap()));
        let known = image(&Node::default(), &slot(), &planned(Admission::All), Ok(HOP));
        assert_eq!(image(&known, &slot(), &planned(Admission::All), asking()), known);
        let lost = image(&known, &slot(), &planned(Admission::All), silent());
        assert_eq!(lost.flags, node_flag::USABLE);
        assert_eq!(image(&lost, &slot(), &planned(Admission::All), asking()).flags, node_flag::USABLE);
        let other = Node { generation: 3, ..known };
        let taken_over = image(&other, &slot(), &planned(Admission::All), asking());
        assert_eq!(taken_over.flags, node_flag::USABLE, "what another node's hop was says nothing");
    }
}
