//! Half-open TCP connections in DSR (`lb_common::proof`): a word in `PROOFS` from the SYN to the client's ACK, which proves
//! that both sides speak and makes a record in `FLOWS` of it.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    conntrack::{State, tcp_flag},
    explain::step,
    flow::{Control, FlowRecord, WAYS},
    node::node_flag,
    packet::{Fragment, Packet},
    proof::{Proof, ProofSet},
    reason::Reason,
    vip::{VirtualServer, vs_flag},
};

use crate::{
    atomic::Word,
    count, explain,
    forward::{self, Hop, frame_of},
    fragment,
    globals::{explaining, pending_mask},
    maps::{CURSORS, NODES, PROOFS},
    scratch::{Scratch, scratch},
    service,
    slow::{ip_len, layout_of},
    track::{self, timeout_of},
    verdict::Verdict,
};

/// A proof, and where it was found.
#[derive(Clone, Copy)]
pub struct Found {
    pub proof: Proof,
    place: *mut Proof,
}

impl Found {
    #[inline(always)]
    fn word(self) -> Word {
        // SAFETY: an aligned word of a live map value.
        unsafe { Word::new(self.place.cast()) }
    }

    /// Puts another one in its place, unless that was given to another flow meanwhile.
    #[inline(always)]
    fn replace(self, new: Proof) -> bool {
        !explaining() && self.word().exchange(self.proof.0, new.0)
    }
}

#[inline(always)]
fn set_of(hash: u64) -> Option<*mut ProofSet> {
    PROOFS.get_ptr_mut(hash as u32 & pending_mask())
}

#[inline(always)]
fn place_in(set: *mut ProofSet, way: usize) -> Found {
    // SAFETY: callers stay below the number of places of a set.
    let place = unsafe { (&raw mut (*set).places).cast::<Proof>().add(way) };
    // SAFETY: an aligned word of a live map value.
    Found { proof: unsafe { place.read_volatile() }, place }
}

/// The proof of this hash.
#[inline(always)]
pub fn find(hash: u64) -> Option<Found> {
    let set = set_of(hash)?;
    let mut way = 0;
    while way < WAYS {
        let found = place_in(set, way);
        if found.proof.is_of(hash) {
            return Some(found);
        }
        way += 1;
    }
    None
}

/// Notes a proof: in the place of an old one of the same hash, else of the oldest of its set; of equals in the first from one
/// that the hash names, which spreads eviction.
#[inline(always)]
pub fn store(hash: u64, proof: Proof, now: u32) {
    if explaining() {
        return;
    }
    let Some(set) = set_of(hash) else { return };
    // Another CPU may take the same place for another flow: the one that comes second looks for another.
    // Not a loop: 6.1's verifier refuses the shape that the compiler gives it (a step back that falls through).
    if !best_place(set, hash, now).replace(proof) && !best_place(set, hash, now).replace(proof) {
        best_place(set, hash, now).replace(proof);
    }
}

/// The place that a new proof of this hash goes to: where one is already, if it has one.
#[inline(always)]
pub fn place_for(hash: u64, now: u32) -> Option<Found> {
    set_of(hash).map(|set| best_place(set, hash, now))
}

/// Notes a proof in this place, or in another one when that was given to another flow meanwhile.
#[inline(always)]
pub fn store_in(place: Found, hash: u64, proof: Proof, now: u32) {
    if !place.replace(proof) {
        store(hash, proof, now);
    }
}

/// The place of a set that a new proof goes to.
#[inline(always)]
fn best_place(set: *mut ProofSet, hash: u64, now: u32) -> Found {
    let named = (hash >> 34) as usize;
    let mut best = place_in(set, named & 3);
    let mut rank = 0;
    let mut step = 0;
    while step < WAYS {
        let found = place_in(set, (named + step) & 3);
        let this = match found.proof.node() {
            0 => u32::from(u16::MAX),
            _ if found.proof.is_of(hash) => u32::MAX,
            _ => u32::from(found.proof.age(now)),
        };
        if this > rank {
            (best, rank) = (found, this);
        }
        step += 1;
    }
    best
}

/// Whether a virtual server's half-open TCP connections are proofs.
#[inline(always)]
pub fn is_kept_by(server: &VirtualServer) -> bool {
    server.flags & (vs_flag::NAT | vs_flag::COUNT_PENDING) == 0
}

/// Ticks for which `PENDING` is looked at after a virtual server's last TCP record in it: longer than a half-open connection
/// is tried by its client (RFC 6298 §5.7: three minutes on the largest).
const RECORDS_LINGER: u32 = 180;

/// Notes that a TCP connection of the virtual server has a record in `PENDING`, which its SYNs must look for.
#[inline(always)]
pub fn note_record(server: &VirtualServer, now: u32) {
    let Some(cursor) = CURSORS.get_ptr_mut(u32::from(server.id)) else { return };
    // SAFETY: an aligned word of a live map value, which is shared: it is written once a tick.
    unsafe {
        let recorded = &raw mut (*cursor).recorded;
        if recorded.read_volatile() != now && !explaining() {
            recorded.write_volatile(now);
        }
    }
}

/// Whether `PENDING` may have TCP connections of a virtual server that makes none now: its pool was NAT a while ago.
#[inline(always)]
pub fn has_records(server: &VirtualServer, now: u32) -> bool {
    let Some(cursor) = CURSORS.get_ptr_mut(u32::from(server.id)) else { return true };
    // SAFETY: as above.
    let recorded = unsafe { (&raw const (*cursor).recorded).read_volatile() };
    recorded != 0 && now.wrapping_sub(recorded) <= RECORDS_LINGER
}

/// A TCP segment whose connection is not in `FLOWS`: follows its proof, or says where to look next.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn proof_look(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let Some(found) = find(scratch.hash) else { return without(scratch).to_register() };
    let (proof, now) = (found.proof, track::now());
    let Some(node) = NODES.get(u32::from(proof.node())) else { return Verdict::end(Reason::Internal).to_register() };
    let hop = Hop::of(node);
    if proof.is_expired(timeout_of(hop.virtual_server(), proof.state() as u8), now) {
        return without(scratch).to_register();
    }
    explain::step(step::PENDING_HIT);
    if hop.flags() & node_flag::USABLE == 0 || !proof.is_generation(hop.generation()) {
        found.replace(Proof(0));
        return give_up(scratch).to_register();
    }
    explain::connection(hop.virtual_server(), proof.node(), 0, proof.state() as u8);
    let packet = &scratch.packet;
    let fin = packet.tcp_flags & tcp_flag::FIN;
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let verdict = forward::dsr(frame, layout_of(packet).l3, hop, ip_len(packet), Reason::ForwardedDsr);
    count::forward(proof.node(), frame.bytes(), verdict);
    let proves = packet.tcp_flags & (tcp_flag::SYN | tcp_flag::RST) == 0 && packet.tcp_flags & tcp_flag::ACK != 0;
    if (proves && !proof.is_moving()) || packet.fragment == Fragment::First {
        fill(&mut scratch.record, packet, proof, hop, now);
    }
    if proves && !proof.is_moving() && found.replace(proof.moving()) {
        use_up(Found { proof: proof.moving(), ..found }, proof.seen(now), u32::from(fin), now);
    } else if fin != 0 {
        note_end(packet, scratch.hash, now);
    } else if proof.age(now) != 0 && !proof.is_moving() {
        found.replace(proof.seen(now));
    }
    if packet.fragment == Fragment::First {
        fragment::remember(packet, &scratch.record, 0);
    }
    verdict.to_register()
}

/// Makes the record in `scratch` of a proof that this CPU marked as moving. Without room it stays a proof, `kept` alive by its
/// packets.
#[inline(always)]
fn use_up(moving: Found, kept: Proof, fin: u32, now: u32) {
    let home = track::admit(fin);
    if moving.replace(if home == 0 { kept } else { Proof(0) }) {
        return;
    }
    // The client's FIN came to another CPU meanwhile. Or the place is another flow's by now.
    if moving.word().exchange(moving.proof.ended().0, if home == 0 { kept.0 } else { 0 }) && home != 0 {
        track::end(home, now);
    }
}

/// The client's FIN, while another CPU makes the record: that one hears of it, or has made the record.
#[inline(always)]
fn note_end(packet: &Packet, hash: u64, now: u32) {
    let moving = find(hash).filter(|found| found.proof.is_moving());
    if !moving.is_some_and(|found| found.replace(found.proof.ended())) {
        track::end_tracked(&packet.key, hash, now);
    }
}

/// Its node is gone: a SYN is placed anew, another segment goes on elsewhere or is reset, as its pool says.
#[inline(always)]
fn give_up(scratch: &mut Scratch) -> Verdict {
    explain::step(step::STALE);
    if is_opening(&scratch.packet) {
        return without(scratch);
    }
    if service::resets_on_failure(&scratch.packet.key) {
        return Verdict::RESET;
    }
    scratch.moved = 1;
    Verdict::OPEN
}

#[inline(always)]
pub fn is_opening(packet: &Packet) -> bool {
    packet.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
}

/// No proof: `PENDING` is next, but for a SYN to a virtual server that has nothing there.
#[inline(always)]
fn without(scratch: &mut Scratch) -> Verdict {
    if !is_opening(&scratch.packet) {
        return Verdict::HALF_OPEN;
    }
    let index = service::find_index(&scratch.packet.key);
    scratch.service = index + 1;
    match service::record(index) {
        Some(server) if is_kept_by(server) && !has_records(server, track::now()) => Verdict::OPEN,
        _ => Verdict::HALF_OPEN,
    }
}

/// The connection that a proof is of, as a record that stands where the proof does.
#[inline(always)]
pub fn fill(record: &mut FlowRecord, packet: &Packet, proof: Proof, hop: Hop, now: u32) {
    record.key = packet.key;
    record.control = Control { seen: now, state: proof.state() as u8, flags: 0, generation: hop.generation() };
    record.node = proof.node();
    record.virtual_server = hop.virtual_server();
    record.nat_port = packet.key.source_port_ne();
    record.timeout = timeout_of(record.virtual_server, proof.state() as u8);
    record.peer = 0;
    record.created = now.wrapping_sub(u32::from(proof.age(now)));
}

/// The proof of a flow that an ICMP error quotes, while it is believed: the node's slot, 0 when there is none, or `GONE` when its
/// node may not be used.
#[inline(always)]
pub fn owner(hash: u64) -> u32 {
    let Some(found) = find(hash) else { return 0 };
    let proof = found.proof;
    let Some(node) = NODES.get(u32::from(proof.node())) else { return 0 };
    let hop = Hop::of(node);
    if proof.is_expired(timeout_of(hop.virtual_server(), proof.state() as u8), track::now()) {
        return 0;
    }
    if hop.flags() & node_flag::USABLE == 0 || !proof.is_generation(hop.generation()) {
        return GONE;
    }
    explain::connection(hop.virtual_server(), proof.node(), 0, State::SynSent as u8);
    u32::from(proof.node())
}

/// What [`owner`] says of a flow whose node may not be used.
pub const GONE: u32 = u32::MAX;
