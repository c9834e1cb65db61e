//! Sending to nodes and clients.

use lb_common::reason::Reason;

use super::{
    Arrival, Expected, Refusal,
    parse::Tuple,
    state::{Connection, State},
    translate::{Ends, packet, set_macs, set_tag, tags},
};
use crate::{
    packet::Mac,
    rig::world::{IFINDEX, LB_MAC, Mode, Node},
};

/// The ends of a connection as its node knows them.
pub(crate) fn node_side(node: &Node, client: &Tuple, mode: Mode, nat_port: u16) -> Ends {
    Ends {
        source: if mode == Mode::SourceNat { node.source_address } else { client.source },
        destination: node.address,
        ports: (nat_port, if node.port == 0 { client.ports.1 } else { node.port }),
    }
}

/// What keeps a packet from a node's next hop.
pub(crate) fn check_hop(arrival: Arrival<'_>, node: &Node) -> Result<(), Refusal> {
    if !node.resolved {
        return Err(Reason::NextHopUnresolved);
    }
    if node.mtu != 0 && arrival.packet.end - arrival.packet.l3 > usize::from(node.mtu) {
        arrival.exceeded.set(node.mtu);
        return Err(Reason::ExceedsMtu);
    }
    assert_eq!(node.ifindex, IFINDEX, "the model knows one interface");
    Ok(())
}

/// By direct server return: MAC addresses alone.
pub(crate) fn dsr(arrival: Arrival<'_>, node: &Node, reason: Reason) -> Result<Expected, Refusal> {
    check_hop(arrival, node)?;
    if arrival.frame[6..12] == node.mac {
        return Err(Reason::Loop);
    }
    let mut out = arrival.frame.to_vec();
    set_macs(&mut out, node.source_mac, node.mac);
    set_tag(&mut out, node.vlan);
    Ok(Expected::sent(reason, out))
}

/// To the connection's node.
pub(crate) fn to_node(
    state: &State,
    arrival: Arrival<'_>,
    client: &Tuple,
    (slot, mode, nat_port): (u16, Mode, u16),
) -> Result<Expected, Refusal> {
    let node = &state.world.nodes[&slot];
    if mode == Mode::Dsr {
        return dsr(arrival, node, Reason::ForwardedDsr);
    }
    check_hop(arrival, node)?;
    let ends = node_side(node, client, mode, nat_port);
    let mut out = packet(arrival.frame, arrival.packet, ends).ok_or(Reason::TtlExpired)?;
    set_macs(&mut out, node.source_mac, node.mac);
    set_tag(&mut out, node.vlan);
    Ok(Expected::sent(Reason::ForwardedNat, out))
}

/// A node's answer to the client.
pub(crate) fn to_client(arrival: Arrival<'_>, client: &Tuple, connection: &Connection) -> Result<Expected, Refusal> {
    let ends = client_side(client);
    let mut out = packet(arrival.frame, arrival.packet, ends).ok_or(Reason::TtlExpired)?;
    set_client_macs(&mut out, arrival, connection);
    Ok(Expected::sent(Reason::ForwardedReply, out))
}

/// The ends of an answer as the client knows them.
pub(crate) fn client_side(client: &Tuple) -> Ends {
    Ends { source: client.destination, destination: client.source, ports: (client.ports.1, client.ports.0) }
}

/// The client is behind one of the routers that its packets came from; which one depends on the clock.
pub(crate) fn set_client_macs(out: &mut Vec<u8>, arrival: Arrival<'_>, connection: &Connection) {
    let sent = |hop: &&(Mac, u16)| {
        let mut sent = out.clone();
        set_hop(&mut sent, **hop);
        arrival.hint.out.get(..18) == sent.get(..18)
    };
    let taken = connection.hops.iter().find(sent);
    let hop = *taken.or(connection.hops.last()).expect("a connection began with a packet");
    set_hop(out, hop);
}

fn set_hop(out: &mut Vec<u8>, (mac, vlan): (Mac, u16)) {
    set_macs(out, LB_MAC, mac);
    set_tag(out, vlan);
}

/// Where a client's packet came from: MAC address and outer VLAN.
pub(crate) fn hop_of(frame: &[u8]) -> (Mac, u16) {
    (<[u8; 6]>::try_from(&frame[6..12]).expect("six bytes"), tags(frame).first().copied().unwrap_or(0))
}
