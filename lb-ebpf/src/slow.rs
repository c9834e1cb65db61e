//! Everything but the common packet of a tracked connection: odd headers, ICMP, fragments, half-open connections, stale
//! records, and packets that belong to nobody.
//!
//! Its steps are functions that the entry calls one after the other, not each other: the stack of a BPF call chain is 512
//! bytes. They share `scratch`, and say by a [`Verdict`] constant which step is next.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    conntrack::{State, tcp_flag},
    explain::step,
    flow::{Control, FAMILY_V4, FlowRecord, flag},
    packet::{Fragment, Packet, parse, protocol},
    reason::Reason,
};

use crate::{
    explain,
    forward::{Layout, frame_of},
    fragment, icmp, nat, open, proof, reset,
    scratch::scratch,
    service, syn,
    table::{self, Flows, PROMOTING, Pending, Slot, Table, find_key},
    track::{self, Arrival},
    verdict::Verdict,
};

/// Decides about the IP packet at `l3`.
#[inline(always)]
pub fn run(ctx: &XdpContext, l3: usize, family: u8) -> Verdict {
    let ctx = ctx.ctx;
    let verdict = Verdict::from_register(slow_classify(ctx, l3 as u32, u32::from(family)));
    if verdict == Verdict::ICMP {
        return icmp::run(ctx);
    }
    if verdict == Verdict::FRAGMENT {
        return Verdict::from_register(fragment::fragment_later(ctx));
    }
    go_on(ctx, verdict)
}

/// The steps from `TRACKED`, `SYN`, `PROOF` or `HALF_OPEN` on: `scratch` has the packet as parsed, its hash, and what was found.
#[inline(always)]
pub fn go_on(ctx: *mut xdp_md, verdict: Verdict) -> Verdict {
    let mut verdict = verdict;
    if verdict == Verdict::TRACKED {
        verdict = Verdict::from_register(slow_tracked(ctx));
    }
    if verdict == Verdict::SYN {
        verdict = Verdict::from_register(syn::syn_run(ctx));
    }
    if verdict == Verdict::PROOF {
        verdict = Verdict::from_register(proof::proof_look(ctx));
    }
    if verdict == Verdict::HALF_OPEN {
        verdict = Verdict::from_register(slow_half_open(ctx));
        slow_settle();
    }
    if verdict == Verdict::AGAIN {
        verdict = Verdict::from_register(slow_tracked(ctx));
        if verdict == Verdict::SYN || verdict == Verdict::PROOF || verdict == Verdict::HALF_OPEN {
            verdict = Verdict::OPEN;
        }
    }
    if verdict == Verdict::OPEN {
        verdict = Verdict::from_register(open::open_run(ctx));
        if verdict == Verdict::OPEN_PROOF {
            return Verdict::from_register(open::open_with_proof(ctx));
        }
        if verdict == Verdict::OPEN_RECORD {
            return Verdict::from_register(open::open_with_record(ctx));
        }
    }
    if verdict == Verdict::RESET {
        verdict = Verdict::from_register(reset::reset_build(ctx));
    }
    verdict
}

/// Parses. A problem is held against a packet only when it is for one of our VIPs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn slow_classify(ctx: *mut xdp_md, l3: u32, family: u32) -> u32 {
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::NotIp).to_register() };
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let packet = &mut scratch.packet;
    *packet = Packet::default();
    // The three possible values, said so that the verifier knows.
    let l3 = match l3 {
        14 => 14,
        18 => 18,
        _ => 22,
    };
    let problem = parse(frame, l3, family as u8, packet);
    explain::flow(&packet.key);
    if problem == Err(Reason::NotVirtual) {
        return Verdict::end(Reason::NotVirtual).to_register();
    }
    let to_vip = service::is_vip(&packet.key);
    scratch.to_vip = u32::from(to_vip);
    (scratch.moved, scratch.found, scratch.service) = (0, 0, 0);
    scratch.hash = table::hash_key(&packet.key);
    if to_vip {
        explain::step(step::FILTER_HIT);
    }
    next_step(packet, to_vip, problem).to_register()
}

#[inline(always)]
fn next_step(packet: &Packet, to_vip: bool, problem: Result<(), Reason>) -> Verdict {
    if let Err(reason) = problem {
        return of_vip(to_vip, reason);
    }
    let icmp = if packet.key.family() == FAMILY_V4 { protocol::ICMP } else { protocol::ICMPV6 };
    match packet.key.protocol() {
        protocol::TCP | protocol::UDP if packet.fragment == Fragment::Later => Verdict::FRAGMENT,
        protocol::TCP | protocol::UDP => Verdict::TRACKED,
        other if other == icmp => Verdict::ICMP,
        _ => of_vip(to_vip, Reason::NotBalanced),
    }
}

/// The reason when the packet is for a VIP; else it is none of our business.
#[inline(always)]
pub fn of_vip(to_vip: bool, reason: Reason) -> Verdict {
    Verdict::end(if to_vip { reason } else { Reason::NotVirtual })
}

/// Where a packet goes on that `FLOWS` does not know.
#[inline(always)]
pub fn untracked(packet: &Packet) -> Verdict {
    match packet.key.protocol() {
        protocol::TCP if proof::is_opening(packet) => Verdict::SYN,
        protocol::TCP => Verdict::PROOF,
        _ => Verdict::HALF_OPEN,
    }
}

/// The connection in `FLOWS`: where its digest was found, or looked for.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn slow_tracked(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let packet = &scratch.packet;
    let found = table::at::<Flows>(scratch.found).filter(|slot| table::is_of(slot, &packet.key));
    let slot = found.or_else(|| find_key::<Flows>(&packet.key, scratch.hash));
    let Some(slot) = slot else { return untracked(packet).to_register() };
    explain::step(step::FLOW_HIT);
    let verdict = forward_tracked(ctx, packet, slot.record, slot.index);
    if verdict != Verdict::STALE.to_register() {
        fragment::remember_connection::<Flows>(packet, slot);
        return verdict;
    }
    go_on_after(give_up::<Flows>(packet, slot), &mut scratch.moved).to_register()
}

/// Looks for the connection in `PENDING`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn slow_half_open(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let packet = &scratch.packet;
    scratch.found = 0;
    let Some(slot) = find_key::<Pending>(&packet.key, scratch.hash) else {
        return moved_meanwhile(packet);
    };
    explain::step(step::PENDING_HIT);
    if nat::lacks_answer(&slot) && !nat::nat_heal(ctx, slot.index) {
        if is_moved(&slot, packet) {
            return moved_meanwhile(packet);
        }
        track::remove::<Pending>(slot);
        return Verdict::OPEN.to_register();
    }
    let verdict = forward_pending(ctx, packet, slot.record, slot.index);
    if verdict != Verdict::STALE.to_register() {
        scratch.found = slot.index + 1;
        return verdict;
    }
    if slot.control().flags & flag::REPLY != 0 || is_moved(&slot, packet) {
        return moved_meanwhile(packet);
    }
    go_on_after(give_up::<Pending>(packet, slot), &mut scratch.moved).to_register()
}

/// Whether a record of `PENDING` went to `FLOWS` since it was found, or goes there, by another CPU.
#[inline(always)]
fn is_moved(slot: &Slot, packet: &Packet) -> bool {
    slot.control().flags & PROMOTING != 0 || !table::is_of(slot, &packet.key)
}

/// Neither in `FLOWS` nor in `PENDING`, or no more: another CPU may have moved it from here to there since `FLOWS` was looked
/// at. A SYN opens a connection all the same.
#[inline(always)]
fn moved_meanwhile(packet: &Packet) -> u32 {
    let opening = packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    (if opening { Verdict::OPEN } else { Verdict::AGAIN }).to_register()
}

#[inline(always)]
fn go_on_after(fate: Fate, moved: &mut u32) -> Verdict {
    *moved = u32::from(fate == Fate::Moved);
    if fate == Fate::Reset { Verdict::RESET } else { Verdict::OPEN }
}

/// What becomes of a connection whose record may not be used any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing is known: a packet opens a connection or is placed without one.
    Fresh,
    /// Its node failed: it goes on at another one.
    Moved,
    /// Its node failed and its pool says reset.
    Reset,
}

/// Removes the record.
#[inline(always)]
fn give_up<T: Table>(packet: &Packet, slot: Slot) -> Fate {
    explain::step(step::STALE);
    let control = slot.control();
    if control.flags & flag::REPLY != 0 {
        // An orphan: its connection is gone, and the daemon sweeps it. For the host it is an ordinary packet.
        return Fate::Fresh;
    }
    let ended = slot.get().is_expired(track::now()) || State::from_number(control.state).is_closing();
    track::remove::<T>(slot);
    let tcp = packet.key.protocol() == protocol::TCP;
    let opening = packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
    if ended || (tcp && opening) {
        return Fate::Fresh;
    }
    if tcp && service::resets_on_failure(&packet.key) {
        return Fate::Reset;
    }
    Fate::Moved
}

#[inline(always)]
pub fn layout_of(packet: &Packet) -> Layout {
    Layout {
        l3: usize::from(packet.l3) & 0x3f,
        l4: usize::from(packet.l4) & 0xfff,
        family: packet.key.family(),
        protocol: packet.key.protocol(),
        has_ports: packet.fragment != Fragment::Later,
    }
}

/// Bytes of the IP packet.
#[inline(always)]
pub fn ip_len(packet: &Packet) -> usize {
    (packet.end as usize).saturating_sub(usize::from(packet.l3))
}

#[inline(never)]
fn forward_tracked(ctx: *mut xdp_md, packet: &Packet, record: *mut FlowRecord, index: u32) -> u32 {
    let slot = Slot { record, index };
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let arrival = Arrival::new(frame, layout_of(packet), packet.tcp_flags, ip_len(packet), scratch.hash);
    let arrival = Arrival { bytes: frame.bytes(), ..arrival };
    track::forward::<Flows>(frame, layout_of(packet), slot, arrival).to_register()
}

#[inline(never)]
fn forward_pending(ctx: *mut xdp_md, packet: &Packet, record: *mut FlowRecord, index: u32) -> u32 {
    let slot = Slot { record, index };
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let arrival = Arrival::new(frame, layout_of(packet), packet.tcp_flags, ip_len(packet), scratch.hash);
    let arrival = Arrival { bytes: frame.bytes(), ..arrival };
    track::forward::<Pending>(frame, layout_of(packet), slot, arrival).to_register()
}

/// After a packet of a half-open connection was forwarded: moves the connection to `FLOWS` when the packet proves that both
/// sides speak, and notes where a fragmented datagram goes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn slow_settle() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let Some(slot) = table::at::<Pending>(scratch.found) else { return 0 };
    let (packet, hash) = (&scratch.packet, scratch.hash);
    let control = slot.control();
    let connection = if control.flags & flag::REPLY == 0 { Some(slot) } else { table::at::<Pending>(slot.get().peer) };
    if let Some(connection) = connection {
        if proves(packet, control, connection.control()) {
            let fin = u32::from(packet.tcp_flags & tcp_flag::FIN);
            if track::promote(connection.record, connection.index, fin) == 0 && fin != 0 {
                track::end_tracked(&packet.key, hash, track::now());
            }
        }
    }
    if packet.fragment == Fragment::First {
        match find_key::<Flows>(&packet.key, hash) {
            Some(home) => fragment::remember_connection::<Flows>(packet, home),
            None if control.flags & flag::REPLY == 0 => fragment::remember_connection::<Pending>(packet, slot),
            None => {}
        }
    }
    0
}

/// Whether a packet of a half-open connection shows that both sides take part.
#[inline(always)]
fn proves(packet: &Packet, found: Control, connection: Control) -> bool {
    let from_client = found.flags & flag::REPLY == 0;
    if packet.key.protocol() == protocol::UDP {
        // Anybody can forge two datagrams; in NAT the answer is seen, and nothing less fills `FLOWS`.
        return connection.flags & flag::NAT == 0 || !from_client;
    }
    let plain = packet.tcp_flags & (tcp_flag::SYN | tcp_flag::RST) == 0 && packet.tcp_flags & tcp_flag::ACK != 0;
    let answered = connection.flags & flag::NAT == 0 || connection.state == State::SynReceived as u8;
    from_client && plain && answered
}
