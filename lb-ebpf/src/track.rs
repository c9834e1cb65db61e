//! Packets of connections that are known: checks that the record may still be believed, moves its state, keeps it alive,
//! and forwards. The same code serves `FLOWS` (fast path) and `PENDING` (slow path).

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    conntrack::{Direction, SYN_SILENCE, State, on_segment, on_syn, tcp_flag},
    digest::{Digest, check},
    explain::step,
    flow::{ClientHop, Control, FlowKey, FlowRecord, flag, grace, ticks},
    node::node_flag,
    packet::{ETHERNET, Frame, View, ethertype},
    reason::Reason,
};

use crate::{
    count, digest, explain,
    forward::{self, Hop, Layout},
    frame::XdpFrame,
    fresh,
    globals::{explaining, interface, jiffies_epoch, jiffy_ns},
    maps::{NODES, TIMEOUTS},
    scratch::scratch,
    table::{self, Flows, PROMOTING, Slot, Table},
    verdict::Verdict,
};

/// What the parser found out about the packet beyond its key.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub tcp_flags: u8,
    /// Bytes of the IP packet.
    pub ip_len: usize,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Of its key.
    pub hash: u64,
    /// Of its digest.
    pub check: u16,
}

impl Arrival {
    /// Of a packet in one buffer, with this hash of its key.
    #[inline(always)]
    pub fn new(frame: XdpFrame, layout: Layout, tcp_flags: u8, ip_len: usize, hash: u64) -> Self {
        let mac = frame.view::<12>(0).map_or((0, 0), |ethernet| (ethernet.load32(6), ethernet.load16(10)));
        let tag = if layout.l3 == ETHERNET { 0 } else { frame.view::<2>(ETHERNET).map_or(0, |tag| tag.load16(0)) };
        let bytes = frame.linear_len();
        Self { tcp_flags, ip_len, hash, bytes, check: check(hash, mac, tag, interface()) }
    }
}

/// Now, in ticks. Jiffies count CLOCK_MONOTONIC in the timer's steps of 1 to 10 ms; reading them is one load, where a helper
/// that reads the clock is a call.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: no arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    ticks(jiffies.wrapping_mul(jiffy_ns()).wrapping_add(jiffies_epoch()))
}

/// A full look: forwards a packet of the connection in `slot`, or says `STALE`: expired, or its node may not be used.
#[inline(always)]
pub fn forward<T: Table>(frame: XdpFrame, layout: Layout, slot: Slot, arrival: Arrival) -> Verdict {
    let now = now();
    let control = slot.control();
    if control.flags & flag::REPLY != 0 {
        return reply::<T>(frame, layout, slot, arrival, now);
    }
    let record = slot.get();
    if record.is_expired(now) {
        return Verdict::STALE;
    }
    let Some(node) = NODES.get(u32::from(record.node)) else { return Verdict::STALE };
    let hop = Hop::of(node);
    if hop.flags() & node_flag::USABLE == 0 || hop.generation() != control.generation {
        return Verdict::STALE;
    }
    if needs_attention(control, arrival.tcp_flags) {
        if !follow_state(slot.record, Direction::FromClient as u32, arrival.tcp_flags, now) {
            return Verdict::STALE;
        }
        doubt::<T>(slot.index, record.peer, arrival.tcp_flags);
    } else if T::KEEPS {
        let sealed = Digest::sealed(arrival.check, control.flags, record.node);
        digest::refresh(slot.index, sealed, fresh_until(record, now), record.nat_port, control.generation);
    }
    explain::connection(record.virtual_server, record.node, control.flags, control.state);
    // A full look in `FLOWS` is rare, and may have been asked for by packets that come from another router.
    if T::KEEPS || control.seen != now {
        refresh::<T>(frame, slot, control, now);
    }
    let verdict = if control.flags & flag::NAT == 0 {
        forward::dsr(frame, layout.l3, hop, arrival.ip_len, Reason::ForwardedDsr)
    } else {
        forward::nat(frame, layout, record, control.flags, node, arrival.ip_len)
    };
    count::forward(record.node, arrival.bytes, verdict);
    verdict
}

/// Node → client: the record found points to the connection's own.
#[inline(always)]
fn reply<T: Table>(frame: XdpFrame, layout: Layout, slot: Slot, arrival: Arrival, now: u32) -> Verdict {
    let answer = slot.get();
    let Some(connection) = table::at::<T>(answer.peer) else { return Verdict::STALE };
    let control = connection.control();
    let record = connection.get();
    // One half may have been evicted and its place taken: the two must name each other.
    if record.peer != slot.index + 1 || control.state <= State::Claimed as u8 || record.is_expired(now) {
        return Verdict::STALE;
    }
    let client = answer.client_hop();
    if needs_attention(control, arrival.tcp_flags) {
        if !follow_state(connection.record, Direction::FromNode as u32, arrival.tcp_flags, now) {
            return Verdict::STALE;
        }
        doubt::<T>(connection.index, record.peer, arrival.tcp_flags);
    } else if T::KEEPS {
        let sealed = Digest::sealed(arrival.check, flag::REPLY, 0);
        digest::refresh(slot.index, sealed, fresh_until(record, now), record.node, control.generation);
    }
    explain::step(step::REPLY);
    explain::connection(record.virtual_server, record.node, control.flags, control.state);
    if control.seen != now {
        touch(connection, now);
    }
    let verdict = forward::reply(frame, layout, record, client);
    count::reply(record.node, arrival.bytes, verdict);
    verdict
}

/// Whether the state may change: never for UDP and plain segments of established connections.
#[inline(always)]
fn needs_attention(control: Control, tcp_flags: u8) -> bool {
    let steady = control.state == State::Established as u8 || control.state == State::Udp as u8;
    !steady || tcp_flags & fresh::MOVING != 0
}

/// Until when a full look in this tick is good. Of a young connection only in this tick: what it has lasted must show in
/// `seen`, or a live one would be taken for brief.
#[inline(always)]
fn fresh_until(record: &FlowRecord, now: u32) -> u32 {
    if now.wrapping_sub(record.created) as i32 <= table::BRIEF { now } else { now + u32::from(grace(record.timeout)) }
}

/// A connection's state may have moved: its packets, and its answers, are looked at in full again.
#[inline(always)]
fn doubt<T: Table>(index: u32, peer: u32, tcp_flags: u8) {
    // Of a state that was not steady before, there is no fresh digest.
    if !T::KEEPS || tcp_flags & fresh::MOVING == 0 || explaining() {
        return;
    }
    digest::forget(index);
    if peer != 0 {
        digest::forget(peer - 1);
    }
}

/// The daemon and other CPUs compare the whole word; a refresh between their load and exchange makes them look again.
#[inline(always)]
fn touch(slot: Slot, now: u32) {
    if explaining() {
        return;
    }
    // SAFETY: an aligned word of a live map value.
    unsafe { (&raw mut (*slot.record).control.seen).write_volatile(now) };
}

/// Once a tick at most, in `FLOWS` at each full look: the connection lives, and its client may be behind another router by now.
#[inline(always)]
fn refresh<T: Table>(frame: XdpFrame, slot: Slot, control: Control, now: u32) {
    touch(slot, now);
    if control.flags & flag::NAT == 0 || explaining() {
        return;
    }
    if let Some(answer) = table::at::<T>(slot.get().peer) {
        if answer.control().flags & flag::REPLY != 0 && answer.get().peer == slot.index + 1 {
            set_client_hop(answer.record, frame);
        }
    }
}

/// Notes where a client's packets come from, as `FlowRecord::client_hop` reads it. Of two tags the outer one: new connections with
/// two are refused.
#[inline(always)]
pub fn set_client_hop(record: *mut FlowRecord, frame: XdpFrame) {
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return };
    let kind = ethernet.be16(12);
    let mut vlan = 0;
    if kind == ethertype::VLAN || kind == ethertype::QINQ {
        let Some(tag) = frame.view::<4>(ETHERNET) else { return };
        vlan = tag.be16(0) & 0xfff;
    }
    let mac = u64::from(ethernet.load32(6)) | u64::from(ethernet.load16(10)) << 32;
    let hop = ClientHop::new(mac, interface(), vlan);
    // SAFETY: an aligned word of a live map value: the four fields from `node` to `timeout`.
    unsafe { (&raw mut (*record).node).cast::<u64>().write_volatile(hop.0) };
}

/// Seconds that a state may be silent, by the virtual server's settings.
#[inline(always)]
pub fn timeout_of(virtual_server: u16, state: u8) -> u16 {
    TIMEOUTS.get(u32::from(virtual_server)).map_or(60, |t| t.0[usize::from(state & 15)])
}

/// Moves the state of a connection in `FLOWS` or `PENDING`. False: the packet opens a new connection in the old one's place.
#[inline(always)]
fn follow_state(record: *mut FlowRecord, direction: u32, tcp_flags: u8, now: u32) -> bool {
    let moved = segment(record, u32::from(tcp_flags) | direction << 8, now);
    if moved > UNCHANGED {
        count_change(record, moved);
    }
    moved != OPENS
}

/// What [`segment`] says: a new connection begins in the record's place.
const OPENS: u32 = 0;

/// What [`segment`] says: nothing has to be counted. Above it: the flags before, shifted by 8, and after, by 16.
const UNCHANGED: u32 = 1;

/// What [`exchange_state`] says: somebody else was faster.
const LOST: u32 = u32::MAX;

/// The change itself; `how` is the TCP flags, and the direction from bit 8 on.
///
/// A function of its own, as is [`count_change`]: they run a few times in a connection's life, and Linux 6.1 rounds the stack
/// of each function in a chain of calls up to 32 bytes.
#[inline(never)]
fn segment(record: *mut FlowRecord, how: u32, now: u32) -> u32 {
    let slot = Slot { record, index: 0 };
    // Written out: a counter is a word of stack, and there is none left.
    let mut moved = exchange_state(slot, how, now);
    if moved == LOST {
        moved = exchange_state(slot, how, now);
    }
    if moved == LOST {
        moved = exchange_state(slot, how, now);
    }
    if moved == LOST { UNCHANGED } else { moved }
}

/// One try; [`LOST`]: another CPU or the daemon changed the record at the same time.
#[inline(always)]
fn exchange_state(slot: Slot, how: u32, now: u32) -> u32 {
    let control = slot.control();
    let Some((state, flags)) = moved(control, how >> 8 == Direction::FromClient as u32, how as u8, now) else {
        return OPENS;
    };
    if (state as u8 == control.state && flags == control.flags) || explaining() {
        return UNCHANGED;
    }
    let changed = Control { seen: now, state: state as u8, flags, generation: control.generation };
    if slot.exchange(control, changed) {
        UNCHANGED | u32::from(control.flags) << 8 | u32::from(flags) << 16
    } else {
        LOST
    }
}

/// State and flags after a segment. `None`: it opens a new connection in the old one's place.
#[inline(always)]
fn moved(control: Control, from_client: bool, tcp_flags: u8, now: u32) -> Option<(State, u8)> {
    let state = State::from_number(control.state);
    let direction = if from_client { Direction::FromClient } else { Direction::FromNode };
    let fins = control.flags & (flag::FIN_CLIENT | flag::FIN_NODE);
    let (next, fins) = match state {
        State::Established | State::FinWait | State::TimeWait | State::Closed if tcp_flags & tcp_flag::SYN != 0 => {
            let silent = now.wrapping_sub(control.seen) as i32 > SYN_SILENCE;
            on_syn(state, fins, control.flags & flag::NAT != 0, direction, tcp_flags, silent)?
        }
        State::Established | State::FinWait | State::TimeWait | State::Closed => on_segment(fins, direction, tcp_flags),
        State::SynSent if !from_client && tcp_flags & tcp_flag::SYN != 0 => (State::SynReceived, 0),
        State::Free | State::Claimed => return None,
        State::SynSent | State::SynReceived | State::UdpNew | State::Udp | State::Affinity | State::Fragment => {
            return Some((state, control.flags));
        }
    };
    let active = if next.is_active() { flag::ACTIVE } else { 0 };
    Some((next, control.flags & !(flag::FIN_CLIENT | flag::FIN_NODE | flag::ACTIVE) | fins | active))
}

/// A connection went from one state to another: its node's load and its timeout follow.
#[inline(never)]
fn count_change(record: *mut FlowRecord, moved: u32) -> u32 {
    let (before, after) = ((moved >> 8) as u8, (moved >> 16) as u8);
    let control = Slot { record, index: 0 }.control();
    // SAFETY: a live map value.
    let (node, virtual_server) = unsafe { ((*record).node, (*record).virtual_server) };
    // Of the state that it has by now. SAFETY: as above; a 16-bit field that only the connection's own packets write.
    unsafe { (*record).timeout = timeout_of(virtual_server, control.state) };
    if (before ^ after) & flag::ACTIVE == 0 {
        return moved;
    }
    // A slot that is another node's by now counts from zero.
    if NODES.get(u32::from(node)).is_some_and(|n| n.generation == control.generation) {
        count::active(node, if after & flag::ACTIVE != 0 { 1 } else { u64::MAX });
    }
    moved
}

/// Takes a connection and its answering half out of `FLOWS`.
#[inline(always)]
pub fn remove<T: Table>(slot: Slot) {
    if explaining() {
        return;
    }
    let (node, peer) = (slot.get().node, slot.get().peer);
    if slot.control().flags & flag::NAT != 0 {
        if let Some(answer) = table::at::<T>(peer) {
            if answer.get().peer == slot.index + 1 && answer.control().flags & flag::REPLY != 0 {
                table::free::<T>(&answer);
            }
        }
    }
    count::forget(node, table::free::<T>(&slot));
}

/// Moves a connection from `PENDING` to `FLOWS`: both ways are proven, by a segment that closes the client's half when `fin`
/// is not 0. Without room it stays where it is, kept alive by its packets. 0: another CPU moves it, or has, and does not know
/// of this segment.
#[inline(never)]
pub fn promote(record: *mut FlowRecord, index: u32, fin: u32) -> u32 {
    if explaining() {
        return 1;
    }
    let (pending, now) = (Slot { record, index }, now());
    let control = pending.control();
    if control.state <= State::Claimed as u8 {
        return 0;
    }
    // One CPU does it; the record stays readable in `PENDING` until it is in `FLOWS`.
    let moving = Control { flags: control.flags | PROMOTING, ..control };
    if control.flags & PROMOTING != 0 || !pending.exchange(control, moving) {
        let control = pending.control();
        let ended = Control { flags: control.flags | flag::FIN_CLIENT, ..control };
        return u32::from(fin != 0 && control.flags & PROMOTING != 0 && pending.exchange(control, ended));
    }
    let home = move_to_flows(pending, control, now, fin != 0);
    if home != 0 {
        let node = pending.get().node;
        if let Some(answer) = table::at::<crate::table::Pending>(pending.get().peer) {
            if control.flags & flag::NAT != 0 && answer.get().peer == pending.index + 1 {
                table::free::<crate::table::Pending>(&answer);
            }
        }
        // What this call freed, and nothing else, is subtracted: the record may have a new owner by now.
        let freed = table::free::<crate::table::Pending>(&pending);
        count::forget(node, freed);
        if fin == 0 && freed.flags & flag::FIN_CLIENT != 0 {
            end(home, now);
        }
    } else {
        // Not by an exchange, which fails when a packet comes at the same time: the mark would stay for ever.
        pending.word().clear(Control { seen: 0, state: 0, flags: PROMOTING, generation: 0 }.to_word());
    }
    1
}

/// Notes the DSR connection of `scratch.record` in `FLOWS`: both ways are proven, by a segment that closes the client's half
/// when `fin` is not 0. Index plus one of the record; 0: there is no room.
#[inline(never)]
pub fn admit(fin: u32) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let record = &mut scratch.record;
    let (state, flags) = if fin == 0 { (State::Established, flag::ACTIVE) } else { (State::FinWait, flag::FIN_CLIENT) };
    let now = record.control.seen;
    let Some(home) = table::claim::<Flows>(scratch.hash, now) else { return 0 };
    record.timeout = timeout_of(record.virtual_server, state as u8);
    record.control = Control { state: state as u8, flags, ..record.control };
    table::publish::<Flows>(&home, record);
    if flags & flag::ACTIVE != 0 {
        count::active(record.node, 1);
    }
    home.index + 1
}

/// The client's FIN, which another CPU saw while this one noted the connection in `FLOWS`. `home`: index plus one.
#[inline(always)]
pub fn end(home: u32, now: u32) {
    if let Some(slot) = table::at::<Flows>(home) {
        follow_state(slot.record, Direction::FromClient as u32, tcp_flag::FIN, now);
    }
}

/// The same, seen by this CPU after another one noted the connection.
#[inline(always)]
pub fn end_tracked(key: &FlowKey, hash: u64, now: u32) {
    if !explaining() {
        end(Flows::find_index(key, hash), now);
    }
}

/// Index plus one of the connection's record in `FLOWS`; 0: there is no room.
#[inline(always)]
fn move_to_flows(pending: Slot, control: Control, now: u32, fin: bool) -> u32 {
    let record = pending.get();
    let (state, flags) = match (control.state == State::UdpNew as u8, fin) {
        (true, _) => (State::Udp, flag::ACTIVE),
        (false, false) => (State::Established, flag::ACTIVE),
        (false, true) => (State::FinWait, flag::FIN_CLIENT),
    };
    let Some(scratch) = scratch() else { return 0 };
    let moved = &mut scratch.record;
    table::copy(moved, record, false);
    moved.timeout = timeout_of(record.virtual_server, state as u8);
    moved.control = Control {
        seen: now,
        state: state as u8,
        flags: control.flags & !(flag::PENDING | PROMOTING) | flags,
        generation: control.generation,
    };
    let Some(home) = table::claim::<Flows>(table::hash_key(&moved.key), now) else { return 0 };
    if control.flags & flag::NAT != 0 {
        let Some(place) = crate::nat::claim_answer(&pending, home.index, now) else {
            table::release(&home);
            return 0;
        };
        // The connection before its answering half: an answer that finds the one finds the other.
        moved.peer = place.index + 1;
        table::publish::<Flows>(&home, moved);
        table::publish::<Flows>(&place, &scratch.half);
    } else {
        table::publish::<Flows>(&home, moved);
    }
    // As above: an answer may prove a connection whose slot is another node's by now.
    let current = NODES.get(u32::from(moved.node)).is_some_and(|n| n.generation == control.generation);
    if current && flags & flag::ACTIVE != 0 {
        count::active(moved.node, 1);
    }
    home.index + 1
}
