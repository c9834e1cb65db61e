//! ICMP: echo to VIPs is answered, errors go to the owner of the flow that they quote (RFC 5508 §4.2, THREATS D7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::reason::Reason;

use super::{
    Arrival, Expected, Refusal, forward,
    open::{by_ring, is_martian},
    parse::{Part, Tuple, be16},
    state::State,
    translate::{Changes, Ends, addresses, port_bytes, put, set_macs, set_tag},
};
use crate::{packet::sum::octets, rig::world::Mode};

pub(crate) fn run(state: &State, arrival: Arrival<'_>) -> Result<Expected, Refusal> {
    let (frame, packet) = (arrival.frame, arrival.packet);
    if packet.part != Part::Whole {
        return Err(Reason::NotBalanced);
    }
    let message = frame.get(packet.l4..packet.end).unwrap_or_default();
    if message.len() < 8 {
        return Err(Reason::BadIcmp);
    }
    match (packet.tuple.source.is_ipv4(), message[0]) {
        (true, 8) | (false, 128) if arrival.to_vip => echo(arrival),
        (true, 3 | 11 | 12) | (false, 1..=4) => error(state, arrival, message),
        _ => Err(Reason::NotBalanced),
    }
}

/// RFC 792, RFC 4443 §4.2: the same message, turned round.
fn echo(arrival: Arrival<'_>) -> Result<Expected, Refusal> {
    let (frame, packet) = (arrival.frame, arrival.packet);
    let (source, destination) = (packet.tuple.source, packet.tuple.destination);
    if is_martian(source) || source == destination {
        return Err(Reason::BadSource);
    }
    let v4 = source.is_ipv4();
    let mut out = frame.to_vec();
    out[..6].copy_from_slice(&frame[6..12]);
    out[6..12].copy_from_slice(&frame[..6]);
    let (ttl, at) = if v4 { (packet.l3 + 8, packet.l3 + 12) } else { (packet.l3 + 7, packet.l3 + 8) };
    let turned = [octets(destination), octets(source)].concat();
    out[at..at + turned.len()].copy_from_slice(&turned);
    if v4 {
        let mut changes = Changes::default();
        let word = [64, out[ttl + 1]];
        put(&mut out, ttl, &word, &mut changes);
        changes.update(&mut out, packet.l3 + 10);
    } else {
        out[ttl] = 64;
    }
    let mut changes = Changes::default();
    let word = [if v4 { 0 } else { 129 }, frame[packet.l4 + 1]];
    put(&mut out, packet.l4, &word, &mut changes);
    changes.update(&mut out, packet.l4 + 2);
    Ok(Expected::sent(Reason::AnsweredEcho, out))
}

/// A packet quoted in an error.
struct Quote {
    tuple: Tuple,
    /// Offsets in the frame.
    l3: usize,
    l4: usize,
}

fn quote(arrival: Arrival<'_>) -> Option<Quote> {
    let l3 = arrival.packet.l4 + 8;
    let bytes = arrival.frame.get(l3..arrival.packet.end)?;
    let v4 = arrival.packet.tuple.source.is_ipv4();
    let version = bytes.first()? >> 4;
    let header = if v4 { usize::from(bytes[0] & 15) * 4 } else { 40 };
    if version != if v4 { 4 } else { 6 } || header < 20 || bytes.len() < header + 8 {
        return None;
    }
    let (source, destination, protocol): (IpAddr, IpAddr, u8) = if v4 {
        if be16(bytes, 6) & 0x1fff != 0 {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        (address(12).into(), address(16).into(), bytes[9])
    } else {
        let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen bytes"));
        (address(8).into(), address(24).into(), bytes[6])
    };
    let ports = (be16(bytes, header), be16(bytes, header + 2));
    let tuple = Tuple { source, destination, ports, protocol };
    (protocol == 6 || protocol == 17).then_some(Quote { tuple, l3, l4: l3 + header })
}

/// RFC 8200 §5; RFC 791's 576 less the slack that Linux grants. Zero is from before RFC 1191.
fn is_forged(v4: bool, message: &[u8]) -> bool {
    if v4 {
        message[..2] == [3, 4] && (1..552).contains(&be16(message, 6))
    } else {
        message[0] == 2 && u32::from_be_bytes([message[4], message[5], message[6], message[7]]) < 1280
    }
}

fn error(state: &State, arrival: Arrival<'_>, message: &[u8]) -> Result<Expected, Refusal> {
    let outer = arrival.packet.tuple;
    let quote = quote(arrival).ok_or(Reason::BadIcmp)?;
    if is_martian(outer.source) || outer.source == outer.destination {
        return Err(Reason::BadSource);
    }
    if outer.destination != quote.tuple.source {
        return Err(Reason::UnknownIcmpFlow);
    }
    let forged = is_forged(outer.source.is_ipv4(), message);
    let flow = quote.tuple.reversed();
    if let Some(client) = state.answers.get(&flow) {
        return if forged { Err(Reason::IcmpMtuTooSmall) } else { to_client(state, arrival, &quote, client) };
    }
    if !arrival.to_vip {
        return Err(Reason::NotVirtual);
    }
    let Some(connection) = state.connections.get(&flow) else {
        let server = state.server_of(&flow).filter(|server| server.mode == Mode::Dsr);
        let server = server.ok_or(Reason::UnknownIcmpFlow)?;
        if forged {
            return Err(Reason::IcmpMtuTooSmall);
        }
        let node = by_ring(state, server.id, &flow, false).ok_or(Reason::UnknownIcmpFlow)?;
        return forward::dsr(arrival, &state.world.nodes[&node], Reason::ForwardedIcmpError);
    };
    if forged {
        return Err(Reason::IcmpMtuTooSmall);
    }
    if !state.believes(connection.node, connection.generation) {
        return Err(Reason::UnknownIcmpFlow);
    }
    let node = &state.world.nodes[&connection.node];
    if connection.mode == Mode::Dsr {
        return forward::dsr(arrival, node, Reason::ForwardedIcmpError);
    }
    let ends = forward::node_side(node, &flow, connection.mode, connection.nat_port).reversed();
    let mut out = rewritten(arrival, &quote, ends, outer.source)?;
    forward::check_hop(arrival, node)?;
    set_macs(&mut out, node.source_mac, node.mac);
    set_tag(&mut out, node.vlan);
    Ok(Expected::sent(Reason::ForwardedIcmpError, out))
}

fn to_client(state: &State, arrival: Arrival<'_>, quote: &Quote, client: &Tuple) -> Result<Expected, Refusal> {
    let connection = &state.connections[client];
    let ends = forward::client_side(client).reversed();
    // The node speaks as the VIP, a router as itself.
    let outer = arrival.packet.tuple.source;
    let speaker = if outer == quote.tuple.destination { client.destination } else { outer };
    let mut out = rewritten(arrival, quote, ends, speaker)?;
    forward::set_client_macs(&mut out, arrival, connection);
    Ok(Expected::sent(Reason::ForwardedIcmpError, out))
}

/// The error with the quoted packet's ends replaced, to the quoted packet's source.
fn rewritten(arrival: Arrival<'_>, quote: &Quote, ends: Ends, speaker: IpAddr) -> Result<Vec<u8>, Refusal> {
    let packet = arrival.packet;
    let v4 = packet.tuple.source.is_ipv4();
    let mut out = arrival.frame.to_vec();
    // Everything that changes behind the ICMP header, and the pseudo-header of the quoted packet.
    let mut message = Changes::default();
    let mut inner = Changes::default();
    let at = quote.l3 + if v4 { 12 } else { 8 };
    put(&mut out, at, &[octets(ends.source), octets(ends.destination)].concat(), &mut inner);
    message.include(&inner);
    if v4 {
        let old = out[quote.l3 + 10..quote.l3 + 12].to_vec();
        inner.update(&mut out, quote.l3 + 10);
        message.replaced(&old, &out[quote.l3 + 10..quote.l3 + 12]);
    }
    let mut ports = Changes::default();
    put(&mut out, quote.l4, &port_bytes(ends.ports), &mut ports);
    message.include(&ports);
    inner.include(&ports);
    let sum_at = quote.l4 + if quote.tuple.protocol == 17 { 6 } else { 16 };
    if sum_at + 2 <= packet.end {
        let old = out[sum_at..sum_at + 2].to_vec();
        if quote.tuple.protocol == 17 {
            inner.update_udp(&mut out, sum_at);
        } else {
            inner.update(&mut out, sum_at);
        }
        message.replaced(&old, &out[sum_at..sum_at + 2]);
    }
    let outer = addresses(&mut out, packet.l3, v4, speaker, ends.source).ok_or(Reason::TtlExpired)?;
    if !v4 {
        message.include(&outer);
    }
    message.update(&mut out, packet.l4 + 2);
    Ok(out)
}
