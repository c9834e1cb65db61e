//! Packets that belong to no connection: new ones are placed, others go by the ring or are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{reason::Reason, vip::scheduler};

use super::{
    Arrival, Expected, Refusal, forward,
    hash::Flow,
    parse::{Part, Tuple},
    ring,
    state::{Connection, Phase, State},
    tracked::{self, Fate},
    translate::tags,
};
use crate::{
    packet::{sum, tcp},
    rig::world::{Mode, Server},
};

/// Whether nobody on the Internet can have this address (RFC 1122 §3.2.1.3, RFC 4291 §2.5).
pub(crate) fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.is_loopback() || a.octets()[0] >= 224,
        IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.is_multicast(),
    }
}

pub(crate) fn run(state: &mut State, arrival: Arrival<'_>, fate: Fate) -> Result<Expected, Refusal> {
    let (tuple, flags) = (arrival.packet.tuple, arrival.packet.flags);
    if is_martian(tuple.source) || tuple.source == tuple.destination {
        return Err(Reason::BadSource);
    }
    if tuple.ports.0 == 0 || tuple.ports.1 == 0 {
        return Err(Reason::ZeroPort);
    }
    let server = state.server_of(&tuple).cloned().ok_or(Reason::NoVirtualServer)?;
    let is_tcp = tuple.protocol == 6;
    let opens = !is_tcp || flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    if !opens && fate == Fate::Fresh {
        return without_state(state, arrival, &server);
    }
    if server.mode != Mode::Dsr && tags(arrival.frame).len() == 2 {
        return Err(Reason::StackedVlan);
    }
    let Some(node) = pick(state, arrival, &server) else { return refuse(arrival, &server, Reason::NoNode) };
    // What is not sent leaves nothing behind.
    let target = &state.world.nodes[&node];
    forward::check_hop(arrival, target)?;
    if server.mode == Mode::Dsr && arrival.frame[6..12] == target.mac {
        return Err(Reason::Loop);
    }
    if server.mode != Mode::Dsr && ttl(arrival) <= 1 {
        return Err(Reason::TtlExpired);
    }
    let phase = match (is_tcp, opens) {
        (true, true) => Phase::SynSent,
        (true, false) => Phase::SynReceived,
        (false, _) => Phase::UdpNew,
    };
    let nat_port = if server.mode == Mode::Dsr { tuple.ports.0 } else { source_port(state, arrival, &server, node)? };
    remember(state, arrival, &server, (node, phase, nat_port));
    tracked::note(state, arrival, tuple, false);
    forward::to_node(state, arrival, &tuple, (node, server.mode, nat_port))
}

fn ttl(arrival: Arrival<'_>) -> u8 {
    let v4 = arrival.packet.tuple.source.is_ipv4();
    arrival.frame[arrival.packet.l3 + if v4 { 8 } else { 7 }]
}

fn remember(state: &mut State, arrival: Arrival<'_>, server: &Server, (node, phase, nat_port): (u16, Phase, u16)) {
    let tuple = arrival.packet.tuple;
    let answer = (server.mode != Mode::Dsr).then(|| answer_of(state, &tuple, server.mode, node, nat_port));
    if let Some(answer) = answer {
        state.answers.insert(answer, tuple);
    }
    let connection = Connection {
        node,
        generation: state.world.nodes[&node].generation,
        server: server.id,
        mode: server.mode,
        phase,
        fins: (false, false),
        nat_port,
        answer,
        hops: vec![forward::hop_of(arrival.frame)],
        silent: false,
        counts_pending: server.counts_pending,
        number: state.opened,
    };
    state.opened += 1;
    state.count(&connection, None, Some(phase));
    state.connections.insert(tuple, connection);
}

fn answer_of(state: &State, client: &Tuple, mode: Mode, node: u16, nat_port: u16) -> Tuple {
    let ends = forward::node_side(&state.world.nodes[&node], client, mode, nat_port).reversed();
    Tuple { source: ends.source, destination: ends.destination, ports: ends.ports, protocol: client.protocol }
}

/// The port that the node sees: the client's own when it may be kept and is free, else a free one of the range.
fn source_port(state: &State, arrival: Arrival<'_>, server: &Server, node: u16) -> Result<u16, Refusal> {
    let tuple = arrival.packet.tuple;
    let own = tuple.ports.0;
    let (first, count) = server.nat_ports;
    let range = first..first + count;
    let is_free = |port: u16| !state.answers.contains_key(&answer_of(state, &tuple, server.mode, node, port));
    if (server.mode == Mode::Nat || range.contains(&own)) && is_free(own) {
        return Ok(own);
    }
    let taken = arrival.hint.noted.map(|(_, port)| port);
    if let Some(port) = taken.filter(|port| range.contains(port) && is_free(*port)) {
        return Ok(port);
    }
    // Any will do: if the program found none or took a wrong one, the comparison says so.
    range.into_iter().find(|port| is_free(*port)).ok_or(Reason::PortsExhausted)
}

fn pick(state: &mut State, arrival: Arrival<'_>, server: &Server) -> Option<u16> {
    if server.members.is_empty() {
        return None;
    }
    let Some(prefix) = server.persistence else { return choose(state, arrival, server) };
    let client = (server.id, masked(arrival.packet.tuple.source, prefix));
    if let Some((node, generation)) = state.affinity.get(&client).copied()
        && state.believes(node, generation)
    {
        return Some(node);
    }
    let chosen = choose(state, arrival, server)?;
    // What a flood of forged clients does must not push out the nodes of real ones.
    if server.flood_limit == 0 {
        return Some(chosen);
    }
    state.affinity.insert(client, (chosen, state.world.nodes[&chosen].generation));
    Some(chosen)
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from(u32::from(a) & mask).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from(u128::from(a) & mask).into()
        }
    }
}

fn choose(state: &mut State, arrival: Arrival<'_>, server: &Server) -> Option<u16> {
    let fragmented = arrival.packet.part != Part::Whole;
    let tuple = arrival.packet.tuple;
    if (fragmented && server.mode == Mode::Dsr) || server.flood_limit == 0 {
        return by_ring(state, server.id, &tuple, fragmented);
    }
    match server.scheduler {
        scheduler::SEQUENCE => {
            let ring = state.ring_of(server.id);
            let turn = state.turns.entry(server.id).or_default();
            let node = ring.sequence[(*turn % ring.sequence.len() as u64) as usize];
            *turn += 1;
            Some(node)
        }
        scheduler::LEAST => least(state, server),
        scheduler::RANDOM => {
            // Any member is right: the one that got it.
            let got = |slot: &&u16| arrival.hint.noted.is_some_and(|(node, _)| node == **slot);
            server.members.iter().find(got).or(server.members.first()).copied()
        }
        _ => by_ring(state, server.id, &tuple, fragmented),
    }
}

/// The member with the least `(active + half-open + 1) / weight`; the first of equals.
fn least(state: &State, server: &Server) -> Option<u16> {
    let share = |slot: &u16| {
        let (active, pending) = state.loads.get(slot).copied().unwrap_or_default();
        ((active + pending + 1) as u64, u64::from(state.world.nodes[slot].weight))
    };
    server.members.iter().copied().min_by(|a, b| {
        let ((load_a, weight_a), (load_b, weight_b)) = (share(a), share(b));
        (load_a * weight_b).cmp(&(load_b * weight_a))
    })
}

/// The node that the ring names for a flow: by ports too, unless it is fragmented; by source alone for source hash.
pub(crate) fn by_ring(state: &State, server: u16, tuple: &Tuple, fragmented: bool) -> Option<u16> {
    let server = state.world.server(server);
    if server.members.is_empty() {
        return None;
    }
    let by_source = server.scheduler == scheduler::RING_SOURCE;
    let flow = Flow {
        ports: if by_source || fragmented { (0, 0) } else { tuple.ports },
        protocol: if by_source { 0 } else { tuple.protocol },
        source: tuple.source,
        destination: (!by_source).then_some(tuple.destination),
    };
    let ring = state.ring_of(server.id);
    Some(ring.slots[ring::place(flow.hash(&ring.keys))]).filter(|node| *node != 0)
}

/// A segment that opens nothing: DSR sends it where the ring says, NAT has nothing to go by.
fn without_state(state: &State, arrival: Arrival<'_>, server: &Server) -> Result<Expected, Refusal> {
    if server.mode != Mode::Dsr {
        return refuse(arrival, server, Reason::UnknownFlow);
    }
    let fragmented = arrival.packet.part != Part::Whole;
    let Some(node) = by_ring(state, server.id, &arrival.packet.tuple, fragmented) else {
        return refuse(arrival, server, Reason::NoNode);
    };
    forward::dsr(arrival, &state.world.nodes[&node], Reason::ForwardedDsr)
}

fn refuse(arrival: Arrival<'_>, server: &Server, reason: Reason) -> Result<Expected, Refusal> {
    if arrival.packet.tuple.protocol == 6 && server.resets { reset(arrival) } else { Err(reason) }
}

/// A reset to the sender (RFC 9293 §3.5.2), in a packet without options. Resets are not answered.
pub(crate) fn reset(arrival: Arrival<'_>) -> Result<Expected, Refusal> {
    let (frame, packet) = (arrival.frame, arrival.packet);
    if packet.flags & tcp::RST != 0 {
        return Err(Reason::UnknownFlow);
    }
    let segment = &frame[packet.l4..packet.end];
    let number = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let data = (segment.len() - usize::from(segment[12] >> 4) * 4) as u32;
    let ends = u32::from(packet.flags & tcp::SYN != 0) + u32::from(packet.flags & tcp::FIN != 0);
    let (sequence, acknowledgment, flags) = if packet.flags & tcp::ACK != 0 {
        (number(8), 0, tcp::RST)
    } else {
        (0, number(4).wrapping_add(data).wrapping_add(ends), tcp::RST | tcp::ACK)
    };
    let (client, vip) = packet.tuple.ports;
    let mut answer = super::translate::port_bytes((vip, client)).to_vec();
    answer.extend(sequence.to_be_bytes());
    answer.extend(acknowledgment.to_be_bytes());
    answer.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let (source, destination) = (packet.tuple.destination, packet.tuple.source);
    let mut covered = sum::pseudo_header(source, destination, 6, 20);
    covered.extend(&answer);
    let checksum = sum::checksum(&covered);
    answer[16..18].copy_from_slice(&checksum.to_be_bytes());

    let mut out = [&frame[6..12], &frame[..6], &frame[12..packet.l3]].concat();
    let mut header = if source.is_ipv4() {
        vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]
    } else {
        vec![0x60, 0, 0, 0, 0, 20, 6, 64]
    };
    header.extend(sum::octets(source));
    header.extend(sum::octets(destination));
    if source.is_ipv4() {
        let checksum = sum::checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    out.extend(header);
    out.extend(answer);
    Ok(Expected::sent(Reason::AnsweredReset, out))
}
