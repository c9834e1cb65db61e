//! Fragmented datagrams: the first fragment has the ports and is placed like any packet; where it went is noted under the
//! datagram's id, and the later ones follow.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    conntrack::State,
    explain::step,
    flow::{Control, FlowKey, FlowRecord, flag},
    node::node_flag,
    packet::{Fragment, Packet},
    reason::Reason,
    vip::vs_flag,
};

use crate::{
    count, explain,
    forward::{self, Hop, Layout, frame_of},
    frame::XdpFrame,
    globals::explaining,
    maps::NODES,
    schedule,
    scratch::scratch,
    service,
    slow::{ip_len, layout_of},
    table::{self, Flows, Fragments, Slot, Table, find_key},
    track,
    verdict::Verdict,
};

/// Seconds that the rest of a datagram may take: longer than any network delays it, short against the 16 bits of its id.
const REASSEMBLY_S: u16 = 5;

#[inline(always)]
fn datagram_key(packet: &Packet) -> FlowKey {
    let key = &packet.key;
    let (low, high) = (packet.fragment_id as u16, (packet.fragment_id >> 16) as u16);
    FlowKey::from_parts(key.family(), key.source(), key.destination(), low, high, key.protocol())
}

/// Notes where the datagram of a first fragment goes. `peer`: for a node's answer, index plus one of its record.
#[inline(never)]
pub fn remember(packet: &Packet, connection: &FlowRecord, peer: u32) {
    if explaining() {
        return;
    }
    let now = track::now();
    let Some(scratch) = scratch() else { return };
    let record = &mut scratch.half;
    let control = connection.control;
    record.key = datagram_key(packet);
    record.control = Control {
        seen: now,
        state: State::Fragment as u8,
        flags: control.flags & !(flag::ACTIVE | flag::PENDING),
        generation: control.generation,
    };
    record.node = connection.node;
    record.virtual_server = connection.virtual_server;
    record.nat_port = connection.nat_port;
    if peer != 0 {
        // Which answering half it was; in the half itself the client's next hop stands here.
        record.node = packet.key.source_port_ne();
        record.nat_port = packet.key.destination_port_ne();
    }
    record.timeout = REASSEMBLY_S;
    record.peer = peer;
    record.created = now;
    let hash = table::hash_key(&record.key);
    // Sent again, or another datagram with the same id: the newest counts.
    if let Some(old) = find_key::<Fragments>(&record.key, hash) {
        table::free::<Fragments>(&old);
    }
    if let Some(place) = table::claim::<Fragments>(hash, now) {
        table::publish::<Fragments>(&place, record);
    }
}

/// The same, from the record that the first fragment was found by.
#[inline(always)]
pub fn remember_connection<T: Table>(packet: &Packet, slot: Slot) {
    if packet.fragment != Fragment::First {
        return;
    }
    let is_answer = slot.control().flags & flag::REPLY != 0;
    remember(packet, slot.get(), if is_answer { slot.index + 1 } else { 0 });
}

/// Sends a later fragment after its first.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fragment_later(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    // In working memory: the stack of this chain of calls is full.
    scratch.half.key = datagram_key(&scratch.packet);
    follow(frame, &scratch.packet, &scratch.half.key, scratch.to_vip != 0).to_register()
}

#[inline(always)]
fn follow(frame: XdpFrame, packet: &Packet, key: &FlowKey, to_vip: bool) -> Verdict {
    let ip_len = ip_len(packet);
    let known = find_key::<Fragments>(key, table::hash_key(key));
    let Some(slot) = known.filter(|slot| !slot.get().is_expired(track::now())) else {
        return without_first(frame, packet, to_vip, ip_len);
    };
    explain::step(step::FRAGMENT_HIT);
    let (record, control) = (slot.get(), slot.control());
    let (layout, bytes) = (layout_of(packet), frame.bytes());
    if control.flags & flag::REPLY != 0 {
        return follow_answer(frame, packet, layout, record);
    }
    let Some(node) = NODES.get(u32::from(record.node)) else { return Verdict::end(Reason::Internal) };
    let hop = Hop::of(node);
    if hop.flags() & node_flag::USABLE == 0 || hop.generation() != control.generation {
        return Verdict::end(Reason::UnknownFragment);
    }
    explain::connection(record.virtual_server, record.node, control.flags, control.state);
    if control.flags & flag::NAT == 0 {
        let verdict = forward::dsr(frame, layout.l3, hop, ip_len, Reason::ForwardedDsr);
        count::forward(record.node, bytes, verdict);
        return verdict;
    }
    // The addresses come from the packet; a client's own address stays unless source NAT replaces it.
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal) };
    let client = &mut scratch.record;
    client.key = packet.key;
    client.nat_port = record.nat_port;
    let verdict = forward::nat(frame, layout, client, control.flags, node, ip_len);
    count::forward(record.node, bytes, verdict);
    verdict
}

/// A fragment of a node's answer: `peer` leads to the answering half in `FLOWS`, and that to the connection.
#[inline(always)]
fn follow_answer(frame: XdpFrame, packet: &Packet, layout: Layout, record: &FlowRecord) -> Verdict {
    let unknown = Verdict::end(Reason::UnknownFragment);
    let Some(answer) = table::at::<Flows>(record.peer) else { return unknown };
    // The place may be another connection's by now.
    let key = &answer.get().key;
    let same_ends = key.source() == packet.key.source() && key.destination() == packet.key.destination();
    let same_ports = key.source_port_ne() == record.node && key.destination_port_ne() == record.nat_port;
    if !same_ends || !same_ports || answer.get().created > record.created {
        return unknown;
    }
    let Some(connection) = table::at::<Flows>(answer.get().peer) else { return unknown };
    if connection.get().peer != answer.index + 1 || answer.control().flags & flag::REPLY == 0 {
        return unknown;
    }
    let client = answer.get().client_hop();
    let (node, bytes) = (connection.get().node, frame.bytes());
    let verdict = forward::reply(frame, layout, connection.get(), client);
    count::reply(node, bytes, verdict);
    verdict
}

/// The first fragment was not seen, or comes later. DSR places fragments by addresses alone, as it did the first.
#[inline(always)]
fn without_first(frame: XdpFrame, packet: &Packet, to_vip: bool, ip_len: usize) -> Verdict {
    if !to_vip {
        return Verdict::end(Reason::NotVirtual);
    }
    let unknown = Verdict::end(Reason::UnknownFragment);
    let Some(server) = service::find_for_fragment(&packet.key) else { return unknown };
    if server.flags & vs_flag::NAT != 0 {
        return unknown;
    }
    let chosen = schedule::by_ring(&packet.key, packet.fragment, server);
    if chosen == 0 {
        return Verdict::end(Reason::NoNode);
    }
    let Some(node) = NODES.get(u32::from(chosen)) else { return Verdict::end(Reason::Internal) };
    explain::connection(server.id, chosen, 0, 0);
    let bytes = frame.bytes();
    let verdict = forward::dsr(frame, layout_of(packet).l3, Hop::of(node), ip_len, Reason::ForwardedDsr);
    count::forward(chosen, bytes, verdict);
    verdict
}
