//! Packets of known connections, and fragments after the first.

use lb_common::reason::Reason;

use super::{
    Arrival, Expected, Hint, Refusal, forward, open,
    parse::{Part, Tuple},
    state::{Connection, Datagram, Note, Phase, State},
};
use crate::{packet::tcp, rig::world::Mode};

/// What became of the connection that a packet seemed to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// There is none.
    Fresh,
    /// Its node failed.
    Moved,
}

/// A TCP segment or datagram with ports.
pub(crate) fn segment(state: &mut State, arrival: Arrival<'_>) -> Result<Expected, Refusal> {
    let tuple = arrival.packet.tuple;
    if let Some(client) = state.answers.get(&tuple).copied() {
        return answer(state, arrival, client);
    }
    let fate = match state.connections.contains_key(&tuple) {
        true => match known(state, arrival)? {
            Ok(expected) => return expected,
            Err(Some(fate)) => fate,
            Err(None) => return open::reset(arrival),
        },
        false => Fate::Fresh,
    };
    if !arrival.to_vip {
        return Err(Reason::NotVirtual);
    }
    open::run(state, arrival, fate)
}

type Known = Result<Result<Expected, Refusal>, Option<Fate>>;

/// From the client of a connection: forwarded, or what became of the connection (`None`: it is reset).
fn known(state: &mut State, arrival: Arrival<'_>) -> Result<Known, Refusal> {
    let (tuple, flags) = (arrival.packet.tuple, arrival.packet.flags);
    let connection = state.connections[&tuple].clone();
    let is_tcp = tuple.protocol == 6;
    let opening = is_tcp && flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    if !state.believes(connection.node, connection.generation) {
        state.remove(&tuple);
        if connection.phase.is_closing() || opening {
            return Ok(Err(Some(Fate::Fresh)));
        }
        let resets = state.server_of(&tuple).is_some_and(|server| server.resets_on_failure);
        return Ok(Err(if is_tcp && resets { None } else { Some(Fate::Moved) }));
    }
    if opening && begins_afresh(&connection, arrival.hint) {
        state.remove(&tuple);
        return Ok(Err(Some(Fate::Fresh)));
    }
    if opening && is_forgeable_end(&connection) {
        reopen(state, &tuple);
    } else if is_tcp {
        advance(state, &tuple, true, flags);
    }
    let hop = forward::hop_of(arrival.frame);
    if let Some(connection) = state.connections.get_mut(&tuple) {
        connection.hops.push(hop);
        connection.silent = false;
    }
    let sent = forward::to_node(state, arrival, &tuple, (connection.node, connection.mode, connection.nat_port));
    let plain = flags & (tcp::SYN | tcp::RST) == 0 && flags & tcp::ACK != 0;
    let answered = connection.mode == Mode::Dsr || connection.phase == Phase::SynReceived;
    // Two forged datagrams prove nothing where an answer can be seen.
    let proves = if is_tcp { plain && answered } else { connection.mode == Mode::Dsr };
    if connection.phase.is_half_open() && proves {
        prove(state, &tuple, is_tcp && flags & tcp::FIN != 0);
    }
    note(state, arrival, tuple, false);
    Ok(Ok(sent))
}

/// Ended by what anybody could have forged: a RST, or a FIN where the node's is not seen.
fn is_forgeable_end(connection: &Connection) -> bool {
    connection.phase == Phase::Closed || (connection.phase == Phase::FinWait && connection.mode == Mode::Dsr)
}

/// Whether a SYN opens a new connection in the place of this one: both sides have closed it, or it is silent after an end
/// that may be forged.
fn begins_afresh(connection: &Connection, hint: Hint<'_>) -> bool {
    let silent = connection.silent || (hint.slow && hint.noted.is_some());
    connection.phase == Phase::TimeWait || (is_forgeable_end(connection) && silent)
}

/// Perhaps a new connection between the same ends: what the old one's FINs said does not count for it.
fn reopen(state: &mut State, client: &Tuple) {
    if let Some(connection) = state.connections.get_mut(client) {
        connection.fins = (false, false);
    }
    state.set_phase(client, Phase::Closed);
}

/// From the node of a connection.
fn answer(state: &mut State, arrival: Arrival<'_>, client: Tuple) -> Result<Expected, Refusal> {
    if client.protocol == 6 {
        advance(state, &client, false, arrival.packet.flags);
    }
    if let Some(connection) = state.connections.get_mut(&client) {
        connection.silent = false;
    }
    let connection = state.connections[&client].clone();
    let sent = forward::to_client(arrival, &client, &connection);
    if connection.phase == Phase::UdpNew {
        prove(state, &client, false);
    }
    if !state.connections[&client].phase.is_half_open() {
        note(state, arrival, client, true);
    }
    sent
}

/// Both sides take part. `fin`: the client closes its half with the same segment.
fn prove(state: &mut State, client: &Tuple, fin: bool) {
    let phase = match (client.protocol, fin) {
        (6, true) => Phase::FinWait,
        (6, false) => Phase::Established,
        _ => Phase::Udp,
    };
    if let Some(connection) = state.connections.get_mut(client) {
        connection.fins.0 |= fin;
    }
    state.set_phase(client, phase);
}

/// RFC 9293 §3.6, as a forwarder sees it. A reset is believed until traffic goes on.
fn advance(state: &mut State, client: &Tuple, from_client: bool, flags: u8) {
    let Some(connection) = state.connections.get_mut(client) else { return };
    if connection.phase.is_half_open() {
        if connection.phase == Phase::SynSent && !from_client && flags & tcp::SYN != 0 {
            state.set_phase(client, Phase::SynReceived);
        }
        return;
    }
    if flags & tcp::SYN != 0 {
        if !from_client && flags & tcp::ACK != 0 && connection.phase.is_closing() {
            reopen(state, client);
        }
        return;
    }
    if flags & tcp::FIN != 0 {
        if from_client {
            connection.fins.0 = true;
        } else {
            connection.fins.1 = true;
        }
    }
    let phase = match (flags & tcp::RST != 0, connection.fins) {
        (true, _) => Phase::Closed,
        (false, (true, true)) => Phase::TimeWait,
        (false, (false, false)) => Phase::Established,
        (false, _) => Phase::FinWait,
    };
    state.set_phase(client, phase);
}

fn datagram(arrival: Arrival<'_>) -> Option<Datagram> {
    let tuple = arrival.packet.tuple;
    match arrival.packet.part {
        Part::Whole => None,
        Part::First(id) | Part::Later(id) => Some((tuple.source, tuple.destination, id, tuple.protocol)),
    }
}

/// Notes where the rest of a first fragment's datagram goes.
pub(crate) fn note(state: &mut State, arrival: Arrival<'_>, client: Tuple, is_answer: bool) {
    if !matches!(arrival.packet.part, Part::First(_)) {
        return;
    }
    let (Some(datagram), Some(connection)) = (datagram(arrival), state.connections.get(&client)) else { return };
    let note = match connection.answer {
        Some(answer) if is_answer => Note::ToClient(answer, connection.number),
        _ => Note::ToNode { node: connection.node, generation: connection.generation, mode: connection.mode },
    };
    state.notes.insert(datagram, note);
}

/// A fragment without ports.
pub(crate) fn later_fragment(state: &mut State, arrival: Arrival<'_>) -> Result<Expected, Refusal> {
    let note = datagram(arrival).and_then(|datagram| state.notes.get(&datagram)).cloned();
    let tuple = arrival.packet.tuple;
    match note {
        Some(Note::ToNode { node, generation, mode }) => {
            if !state.believes(node, generation) {
                return Err(Reason::UnknownFragment);
            }
            forward::to_node(state, arrival, &tuple, (node, mode, 0))
        }
        Some(Note::ToClient(answer, number)) => {
            let client = state.answers.get(&answer).ok_or(Reason::UnknownFragment)?;
            let connection = &state.connections[client];
            // Whether a new connection with the same answers has the very place of the old one is chance.
            if connection.number != number && arrival.hint.reason == Reason::UnknownFragment {
                return Err(Reason::UnknownFragment);
            }
            forward::to_client(arrival, client, connection)
        }
        None if !arrival.to_vip => Err(Reason::NotVirtual),
        None => {
            let owns = |s: &&crate::rig::world::Server| {
                s.owns_fragments && s.protocol == tuple.protocol && s.vips.contains(&tuple.destination)
            };
            let server = state.world.servers.iter().find(owns).filter(|server| server.mode == Mode::Dsr);
            let id = server.ok_or(Reason::UnknownFragment)?.id;
            let node = open::by_ring(state, id, &tuple, true).ok_or(Reason::NoNode)?;
            forward::dsr(arrival, &state.world.nodes[&node], Reason::ForwardedDsr)
        }
    }
}
