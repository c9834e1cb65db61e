//! NAT's second half: the record that recognises a node's answers, and the port that makes it unique.
//!
//! The answering record is put in first and looked for afterwards: two CPUs that claim the same tuple at the same time see
//! each other and both try the next port. A tuple in use is never taken (THREATS D5).

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    flow::{Control, FlowKey, FlowRecord, flag},
    node::Node,
    reason::Reason,
    vip::VirtualServer,
};

use crate::{
    forward::frame_of,
    globals::explaining,
    maps::NODES,
    scratch::scratch,
    table::{self, Flows, Pending, Slot, Table, find_key},
    track::{self, set_client_hop},
    verdict::Verdict,
};

/// Ports tried before "exhausted": more than a small range has, a bound for a large one.
const PROBES: u32 = 24;

/// Finds a source port for the connection in `scratch.record` and notes both its halves in `PENDING`. Returns 0, or the
/// verdict that ends the path.
#[inline(always)]
pub fn allocate(ctx: *mut xdp_md, record: &FlowRecord, hash: u64, server: &VirtualServer) -> u32 {
    let source_nat = record.control.flags & flag::SOURCE_NAT != 0;
    let count = u32::from(server.nat_port_count);
    let first = u32::from(server.nat_port_first);
    let own = u32::from(record.key.source_port());
    let start = (hash >> 40) as u32;
    let keeps = !source_nat || (own >= first && own < first + count);
    let mut probe = 0;
    while probe < PROBES {
        let port = if probe == 0 && keeps {
            own
        } else {
            if count == 0 || probe > count {
                break;
            }
            first + (start + probe) % count
        };
        probe += 1;
        match nat_try_port(ctx, port) {
            TAKEN => {}
            other => return other,
        }
    }
    Verdict::end(Reason::PortsExhausted).to_register()
}

const TAKEN: u32 = u32::MAX;

/// One attempt for the connection in `scratch.record`: 0, `TAKEN`, or the verdict that ends the path.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn nat_try_port(ctx: *mut xdp_md, port: u32) -> u32 {
    let race = Verdict::end(Reason::InsertRace).to_register();
    let Some(scratch) = scratch() else { return race };
    let (record, half) = (&mut scratch.record, &mut scratch.half);
    let Some(node) = NODES.get(u32::from(record.node)) else { return race };
    half.key = answer_key(record, node, port as u16);
    let hash = table::hash_key(&half.key);
    if is_taken::<Pending>(&half.key, hash) || is_taken::<Flows>(&half.key, hash) {
        return TAKEN;
    }
    record.nat_port = (port as u16).to_be();
    if explaining() {
        return 0;
    }
    let now = track::now();
    let answer = match place_answer(ctx, half, hash, record.control, now) {
        Ok(answer) => answer,
        Err(verdict) => return verdict,
    };
    let Some(home) = table::claim::<Pending>(scratch.hash, now) else {
        table::free::<Pending>(&answer);
        return race;
    };
    if home.index == answer.index {
        table::release(&home);
        return race;
    }
    record.peer = answer.index + 1;
    table::publish::<Pending>(&home, record);
    set_peer(&answer, home.index);
    0
}

/// Notes the answering half whose key is in `half`, of a connection with this control word. Or says `TAKEN`, or the verdict
/// that ends the path.
#[inline(always)]
fn place_answer(
    ctx: *mut xdp_md,
    half: &mut FlowRecord,
    hash: u64,
    connection: Control,
    now: u32,
) -> Result<Slot, u32> {
    half.control = Control { seen: now, flags: flag::NAT | flag::REPLY, ..connection };
    half.peer = 0;
    half.created = now;
    let Some(answer) = table::claim::<Pending>(hash, now) else {
        return Err(Verdict::end(Reason::InsertRace).to_register());
    };
    table::publish_before_looking(&answer, half);
    // Published: whoever publishes the same key after us sees it. Whoever did before, we see.
    if table::has_twin::<Pending>(&half.key, answer.index) || find_key::<Flows>(&half.key, hash).is_some() {
        table::free::<Pending>(&answer);
        return Err(TAKEN);
    }
    if let Some(frame) = frame_of(ctx) {
        set_client_hop(answer.record, frame);
    }
    Ok(answer)
}

/// Whether the answering half of a half-open connection was evicted.
#[inline(always)]
pub fn lacks_answer(connection: &Slot) -> bool {
    let control = connection.control();
    if control.flags & flag::NAT == 0 || control.flags & flag::REPLY != 0 {
        return false;
    }
    let answer = table::at::<Pending>(connection.get().peer);
    answer.is_none_or(|answer| {
        let control = answer.control();
        answer.get().peer != connection.index + 1 || control.flags & flag::REPLY == 0 || control.state <= 1
    })
}

/// Gives the half-open connection at `index` its answering half back. False when another connection has its port by now.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_heal(ctx: *mut xdp_md, index: u32) -> bool {
    let Some(scratch) = scratch() else { return false };
    let Some(connection) = table::at::<Pending>(index + 1) else { return false };
    let (record, half) = (connection.get(), &mut scratch.half);
    let Some(node) = NODES.get(u32::from(record.node)) else { return false };
    half.key = answer_key(record, node, u16::from_be(record.nat_port));
    let hash = table::hash_key(&half.key);
    if is_taken::<Pending>(&half.key, hash) || is_taken::<Flows>(&half.key, hash) {
        return false;
    }
    if explaining() {
        return true;
    }
    let Ok(answer) = place_answer(ctx, half, hash, connection.control(), track::now()) else { return false };
    if answer.index == connection.index {
        table::free::<Pending>(&answer);
        return false;
    }
    set_peer(&answer, connection.index);
    set_peer(&connection, answer.index);
    true
}

/// What a node's answer looks like when it sees this connection from `port`.
#[inline(always)]
fn answer_key(record: &FlowRecord, node: &Node, port: u16) -> FlowKey {
    let key = &record.key;
    let towards = if record.control.flags & flag::SOURCE_NAT != 0 { node.source_address } else { key.source() };
    let from_port = if node.port == 0 { key.destination_port() } else { u16::from_be(node.port) };
    FlowKey::from_parts(key.family(), node.address, towards, from_port, port, key.protocol()).answering(key)
}

#[inline(always)]
fn set_peer(slot: &Slot, index: u32) {
    // SAFETY: an aligned word of a map value. Nobody follows it in a record that we made before it is set, and in another one
    // it led nowhere.
    unsafe { (&raw mut (*slot.record).peer).write_volatile(index + 1) };
}

/// Whether a connection answers to this key. An orphan, whose connection is gone, is swept on the way.
#[inline(always)]
fn is_taken<T: Table>(key: &FlowKey, hash: u64) -> bool {
    let Some(slot) = find_key::<T>(key, hash) else { return false };
    if slot.control().flags & flag::REPLY == 0 {
        return true;
    }
    if let Some(connection) = table::at::<T>(slot.get().peer) {
        let alive = connection.get().peer == slot.index + 1
            && connection.control().state > 1
            && !connection.get().is_expired(track::now());
        if alive {
            return true;
        }
    }
    if !explaining() {
        table::free::<T>(&slot);
    }
    false
}

/// Makes the answering half of a connection that moves to `FLOWS`, to `home`: in `scratch.half`, with the place that is
/// claimed for it.
#[inline(always)]
pub fn claim_answer(pending: &Slot, home: u32, now: u32) -> Option<Slot> {
    let old = table::at::<Pending>(pending.get().peer)?;
    if old.get().peer != pending.index + 1 {
        return None;
    }
    let half = &mut scratch()?.half;
    table::copy(half, old.get(), false);
    half.peer = home + 1;
    half.control.seen = now;
    table::claim::<Flows>(table::hash_key(&half.key), now)
}
