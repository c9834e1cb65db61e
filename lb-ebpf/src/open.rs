//! Packets to a virtual server that no record knows: new connections, and TCP segments without a connection.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    conntrack::{State, tcp_flag},
    explain::step,
    flow::{Control, FlowKey, FlowRecord, flag},
    node::Node,
    packet::{ETHERNET, Fragment, Packet, is_valid_source, protocol},
    proof::Proof,
    reason::Reason,
    vip::{VirtualServer, vs_flag},
};

use crate::{
    count, explain,
    forward::{self, Hop, frame_of},
    fragment,
    globals::explaining,
    maps::NODES,
    nat, proof, schedule,
    scratch::scratch,
    service,
    slow::{ip_len, layout_of},
    table::{self, Pending},
    track::{self, timeout_of},
    verdict::Verdict,
};

/// Chooses a node for the packet, `scratch.chosen`, and says how it goes on: `OPEN_PROOF` or `OPEN_RECORD`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn open_run(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let packet = &scratch.packet;
    if scratch.service == 0 {
        scratch.service = service::find_index(&packet.key) + 1;
    }
    let server = service::record(scratch.service - 1);
    if server.is_none() && !service::is_vip(&packet.key) {
        return Verdict::end(Reason::NotVirtual).to_register();
    }
    if let Err(reason) = check_ends(&packet.key) {
        return Verdict::end(reason).to_register();
    }
    let Some(server) = server else { return Verdict::end(Reason::NoVirtualServer).to_register() };
    if !opens(packet) && scratch.moved == 0 {
        return stateless(ctx, packet, server);
    }
    if server.flags & vs_flag::NAT != 0 && usize::from(packet.l3) == ETHERNET + 8 {
        return Verdict::end(Reason::StackedVlan).to_register();
    }
    scratch.chosen = schedule::pick(packet, server, track::now());
    if scratch.chosen == 0 {
        return refuse(packet, server, Reason::NoNode).to_register();
    }
    let by_proof = packet.key.protocol() == protocol::TCP && proof::is_kept_by(server);
    (if by_proof { Verdict::OPEN_PROOF } else { Verdict::OPEN_RECORD }).to_register()
}

/// Whether a packet begins a connection by itself.
#[inline(always)]
fn opens(packet: &Packet) -> bool {
    packet.key.protocol() != protocol::TCP || packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
}

/// Sends the first packet of a DSR connection over TCP, and notes a proof of it when that was done.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn open_with_proof(ctx: *mut xdp_md) -> u32 {
    let internal = Verdict::end(Reason::Internal).to_register();
    let (Some(scratch), Some(frame)) = (scratch(), frame_of(ctx)) else { return internal };
    let packet = &scratch.packet;
    let Some(node) = NODES.get(u32::from(scratch.chosen)) else { return internal };
    let (hop, moved) = (Hop::of(node), !opens(packet));
    let state = if moved { State::SynReceived } else { State::SynSent };
    explain::connection(hop.virtual_server(), scratch.chosen, 0, state as u8);
    let verdict = forward::dsr(frame, layout_of(packet).l3, hop, ip_len(packet), Reason::ForwardedDsr);
    if verdict.is_sent() {
        let now = track::now();
        let proof = Proof::new(scratch.hash, scratch.chosen, hop.generation(), moved, now);
        proof::store(scratch.hash, proof, now);
        count::opened(scratch.chosen, frame.bytes(), scratch.moved != 0);
        if packet.fragment == Fragment::First {
            proof::fill(&mut scratch.record, packet, proof, hop, now);
            fragment::remember(packet, &scratch.record, 0);
        }
    }
    verdict.to_register()
}

/// The same for the others: notes a record in `PENDING`, of NAT two, and sends the packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn open_with_record(ctx: *mut xdp_md) -> u32 {
    let internal = Verdict::end(Reason::Internal).to_register();
    let Some(scratch) = scratch() else { return internal };
    let (packet, chosen, now) = (&scratch.packet, scratch.chosen, track::now());
    let Some(server) = service::record(scratch.service.wrapping_sub(1)) else { return internal };
    let Some(node) = NODES.get(u32::from(chosen)) else { return internal };
    let hop = Hop::of(node);
    // What is not sent leaves no record.
    if let Err(verdict) = check_way(ctx, packet, hop, server.flags & vs_flag::NAT != 0) {
        return verdict.to_register();
    }
    let state = match (packet.key.protocol() == protocol::TCP, opens(packet)) {
        (true, true) => State::SynSent,
        // Moved in mid-stream: proven once, its next ACK brings it back to `FLOWS`.
        (true, false) => State::SynReceived,
        (false, _) => State::UdpNew,
    };
    let draft = Draft { node: chosen, generation: hop.generation(), state, now };
    fill(&mut scratch.record, packet, server, &draft);
    let verdict = note(ctx, &scratch.record, scratch.hash, server);
    if verdict != 0 {
        return verdict;
    }
    if packet.fragment == Fragment::First {
        fragment::remember(packet, &scratch.record, 0);
    }
    send(ctx, packet, &scratch.record, node, scratch.moved)
}

/// What keeps a packet from the node that was chosen for it.
#[inline(always)]
fn check_way(ctx: *mut xdp_md, packet: &Packet, hop: Hop, translated: bool) -> Result<(), Verdict> {
    forward::check_hop(hop, ip_len(packet))?;
    if translated {
        return if packet.ttl <= 1 { Err(Verdict::end(Reason::TtlExpired)) } else { Ok(()) };
    }
    let Some(frame) = frame_of(ctx) else { return Err(Verdict::end(Reason::Internal)) };
    forward::check_loop(frame, hop).map_err(Verdict::end)
}

/// Addresses and ports that no client has.
#[inline(always)]
pub fn check_ends(key: &FlowKey) -> Result<(), Reason> {
    if !is_valid_source(key.family(), key.source()) || key.source() == key.destination() {
        return Err(Reason::BadSource);
    }
    if key.source_port() == 0 || key.destination_port() == 0 {
        return Err(Reason::ZeroPort);
    }
    Ok(())
}

struct Draft {
    node: u16,
    generation: u16,
    state: State,
    now: u32,
}

#[inline(always)]
fn fill(record: &mut FlowRecord, packet: &Packet, server: &VirtualServer, draft: &Draft) {
    let mut flags = 0;
    if server.flags & vs_flag::NAT != 0 {
        flags |= flag::NAT;
    }
    if server.flags & vs_flag::SOURCE_NAT != 0 {
        flags |= flag::SOURCE_NAT;
    }
    if server.flags & vs_flag::COUNT_PENDING != 0 {
        flags |= flag::PENDING;
    }
    record.key = packet.key;
    record.control = Control { seen: draft.now, state: draft.state as u8, flags, generation: draft.generation };
    record.node = draft.node;
    record.virtual_server = server.id;
    record.nat_port = packet.key.source_port_ne();
    record.timeout = timeout_of(server.id, draft.state as u8);
    record.peer = 0;
    record.created = draft.now;
}

/// Notes the connection as half-open. Returns 0, or the verdict that ends the path.
#[inline(always)]
fn note(ctx: *mut xdp_md, record: &FlowRecord, hash: u64, server: &VirtualServer) -> u32 {
    if record.control.flags & flag::NAT != 0 {
        let verdict = nat::allocate(ctx, record, hash, server);
        if verdict != 0 {
            return verdict;
        }
    } else if !insert(record, hash) {
        return 0;
    }
    if record.control.flags & flag::PENDING != 0 {
        count::pending(record.node, 1);
    }
    if record.key.protocol() == protocol::TCP {
        proof::note_record(server, record.control.seen);
    }
    0
}

/// Sends the first packet of a connection.
#[inline(never)]
fn send(ctx: *mut xdp_md, packet: &Packet, record: &FlowRecord, node: &Node, moved: u32) -> u32 {
    let control = record.control;
    explain::connection(record.virtual_server, record.node, control.flags, control.state);
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let bytes = frame.bytes();
    count::connection(record.node, moved != 0);
    let verdict = if control.flags & flag::NAT != 0 {
        forward::nat(frame, layout_of(packet), record, control.flags, node, ip_len(packet))
    } else {
        forward::dsr(frame, layout_of(packet).l3, Hop::of(node), ip_len(packet), Reason::ForwardedDsr)
    };
    count::forward(record.node, bytes, verdict);
    verdict.to_register()
}

/// Notes a DSR connection as half-open. False: there was no place, it goes on by the ring.
#[inline(always)]
fn insert(record: &FlowRecord, hash: u64) -> bool {
    if explaining() {
        return true;
    }
    let Some(place) = table::claim::<Pending>(hash, record.control.seen) else { return false };
    table::publish::<Pending>(&place, record);
    true
}

/// A TCP segment that opens nothing and is known to nobody: after an eviction, a failover or a scan. DSR sends it where the
/// ring says, without a trace (the node resets what it does not know); NAT cannot.
#[inline(never)]
fn stateless(ctx: *mut xdp_md, packet: &Packet, server: &VirtualServer) -> u32 {
    if server.flags & vs_flag::NAT != 0 {
        return refuse(packet, server, Reason::UnknownFlow).to_register();
    }
    explain::step(step::STATELESS);
    let chosen = schedule::by_ring(&packet.key, packet.fragment, server);
    if chosen == 0 {
        return refuse(packet, server, Reason::NoNode).to_register();
    }
    let Some(node) = NODES.get(u32::from(chosen)) else { return Verdict::end(Reason::Internal).to_register() };
    explain::connection(server.id, chosen, 0, 0);
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let bytes = frame.bytes();
    let verdict = forward::dsr(frame, layout_of(packet).l3, Hop::of(node), ip_len(packet), Reason::ForwardedDsr);
    count::forward(chosen, bytes, verdict);
    verdict.to_register()
}

/// Answers a TCP segment with a reset when the pool says so, else drops it.
#[inline(always)]
fn refuse(packet: &Packet, server: &VirtualServer, reason: Reason) -> Verdict {
    if packet.key.protocol() == protocol::TCP && server.flags & vs_flag::RESET_UNKNOWN != 0 {
        return Verdict::RESET;
    }
    Verdict::end(reason)
}
