//! Which node takes a new connection.

use aya_ebpf::helpers::{bpf_get_prandom_u32, generated::bpf_loop};
use lb_common::{
    conntrack::State,
    explain::step,
    flow::{Control, FAMILY_V4, FlowKey, hash},
    maglev::{CHUNK_SLOTS, MAX_POOL_NODES, RING_SLOTS},
    node::node_flag,
    packet::{Fragment, Packet},
    vip::{VirtualServer, scheduler, vs_flag},
};

use crate::{
    atomic::Word,
    explain,
    forward::Hop,
    globals::explaining,
    maps::{CURSORS, FLOOD, NODE_LOADS, NODES, RINGS},
    scratch::scratch,
    table::{self, Affinity, find_key},
    track::timeout_of,
};

/// The node for a new connection; 0: none takes it.
#[inline(never)]
pub fn pick(packet: &Packet, server: &VirtualServer, now: u32) -> u16 {
    if server.ring == 0 {
        return 0;
    }
    let remembers = server.flags & vs_flag::AFFINITY != 0;
    if remembers {
        let client = affinity_key(packet, server);
        let known = known_node(&client, now);
        if known != 0 {
            explain::step(step::AFFINITY_HIT);
            return known;
        }
        let flooded = is_flooded(server, now);
        let chosen = choose(packet, server, flooded);
        // What a flood of forged clients does must not push out the nodes of real ones.
        if !flooded {
            remember(&client, server, chosen, now);
        }
        return chosen;
    }
    choose(packet, server, is_flooded(server, now))
}

#[inline(always)]
pub fn choose(packet: &Packet, server: &VirtualServer, flooded: bool) -> u16 {
    explain::step(step::SCHEDULED);
    // Fragments of a datagram must agree even when they come out of order: by the ring, without ports.
    let fragmented = packet.fragment != Fragment::Whole && server.flags & vs_flag::NAT == 0;
    if fragmented || flooded {
        return by_ring(&packet.key, packet.fragment, server);
    }
    match server.scheduler {
        scheduler::SEQUENCE => in_sequence(server, turn(server)),
        scheduler::RANDOM => {
            // SAFETY: no arguments.
            in_sequence(server, u64::from(unsafe { bpf_get_prandom_u32() }))
        }
        scheduler::LEAST => least_loaded(server),
        _ => by_ring(&packet.key, packet.fragment, server),
    }
}

/// The node of the Maglev ring, by flow; by source address alone when the pool says so; without ports for fragments. The
/// same on every balancer with the same ring seed.
#[inline(always)]
pub fn by_ring(key: &FlowKey, fragment: Fragment, server: &VirtualServer) -> u16 {
    if server.ring == 0 {
        return 0;
    }
    let mut words = key.words();
    if server.scheduler == scheduler::RING_SOURCE {
        // What is left: family and source address.
        words[0] = u64::from(key.family()) << 40;
        if key.family() == FAMILY_V4 {
            words[1] &= 0xffff_ffff;
        } else {
            words[3] = 0;
            words[4] = 0;
        }
    } else if fragment != Fragment::Whole {
        words[0] &= !0xffff_ffff;
    }
    let slot = scale(hash(words, key.family(), &server.ring_hash_keys()));
    ring_slot(server.ring, slot)
}

/// A hash as a slot of the ring: its upper half, scaled. A multiplication where a remainder would take a division.
#[inline(always)]
fn scale(hash: u64) -> u32 {
    ((hash >> 32) * u64::from(RING_SLOTS) >> 32) as u32
}

/// Entry `slot` of a region of `RINGS`.
#[inline(always)]
fn ring_slot(region: u32, slot: u32) -> u16 {
    let Some(chunk) = RINGS.get(region + slot / CHUNK_SLOTS as u32) else { return 0 };
    chunk.0[(slot as usize) & (CHUNK_SLOTS - 1)]
}

#[inline(always)]
fn in_sequence(server: &VirtualServer, turn: u64) -> u16 {
    if server.sequence_len == 0 {
        return 0;
    }
    ring_slot(server.sequence, (turn % u64::from(server.sequence_len)) as u32)
}

/// The next turn of round robin, over all CPUs.
#[inline(always)]
fn turn(server: &VirtualServer) -> u64 {
    let Some(cursor) = CURSORS.get_ptr_mut(u32::from(server.id)) else { return 0 };
    // SAFETY: an aligned word of a live map value, changed atomically by everyone.
    let next = unsafe { Word::new(&raw mut (*cursor).next) };
    if explaining() { next.load() } else { next.fetch_add(1) }
}

/// The member with the least `(active + pending + 1) / weight`. Weights of 1 make it plain least connections.
#[inline(always)]
fn least_loaded(server: &VirtualServer) -> u16 {
    let mut search = Search { members: server.members, best: 0, best_load: u64::MAX, best_weight: 1 };
    let callback = compare as extern "C" fn(u32, *mut Search) -> i64;
    // SAFETY: the callback's context is the search, which outlives the call. A helper instead of a loop (Linux 5.17): its
    // body is verified once, not once per member.
    unsafe { bpf_loop(server.members_len.min(MAX_POOL_NODES as u32), callback as *mut _, (&raw mut search).cast(), 0) };
    search.best
}

#[repr(C)]
struct Search {
    best_load: u64,
    best_weight: u64,
    members: u32,
    best: u16,
}

extern "C" fn compare(index: u32, search: *mut Search) -> i64 {
    // SAFETY: `least_loaded` passes its own, live search.
    let search = unsafe { &mut *search };
    let slot = ring_slot(search.members, index);
    let Some(load) = NODE_LOADS.get(u32::from(slot)) else { return 1 };
    let connections = load.active.wrapping_add(load.pending).wrapping_add(1) & 0xffff_ffff;
    let weight = load.weight & 0xffff;
    if search.best == 0 || connections * search.best_weight < search.best_load * weight {
        search.best = slot;
        search.best_load = connections;
        search.best_weight = weight;
    }
    0
}

/// Counts a new connection on this CPU; true above the limit, when the scheduler's state is not worth what an attacker
/// makes of it: the ring needs none, and an evicted half-open connection finds its node again.
#[inline(always)]
pub fn is_flooded(server: &VirtualServer, now: u32) -> bool {
    if explaining() {
        return false;
    }
    let Some(window) = FLOOD.get_ptr_mut(u32::from(server.id)) else { return false };
    // SAFETY: a live per-CPU map value; XDP does not nest on a CPU.
    let window = unsafe { &mut *window };
    if window.tick != now {
        window.tick = now;
        window.count = 0;
    }
    window.count = window.count.wrapping_add(1);
    let flooded = window.count > server.flood_limit;
    if flooded {
        explain::step(step::FLOOD);
        window.limited += 1;
    }
    flooded
}

/// Virtual server and masked client address, as a key of `AFFINITY`.
#[inline(always)]
fn affinity_key(packet: &Packet, server: &VirtualServer) -> FlowKey {
    let family = packet.key.family();
    let key = FlowKey::from_parts(family, packet.key.source(), [0; 16], server.id, 0, 0);
    let [ports, first, second, ..] = key.words();
    if family == FAMILY_V4 {
        return FlowKey::from_words([ports, mask(first, server.affinity_prefix4.min(32)), 0, 0, 0]);
    }
    let first = mask(first, server.affinity_prefix6.min(64));
    let second = mask(second, server.affinity_prefix6.saturating_sub(64));
    FlowKey::from_words([ports, first, second, 0, 0])
}

/// The first `bits` bits of eight bytes in network order, as loaded from memory.
#[inline(always)]
fn mask(word: u64, bits: u8) -> u64 {
    let keep = match bits {
        0 => 0,
        64.. => u64::MAX,
        _ => !(u64::MAX >> (bits & 63)),
    };
    (u64::from_be(word) & keep).to_be()
}

/// The node that had this client last, when it still may be used. Draining nodes keep their persistent clients.
#[inline(always)]
fn known_node(client: &FlowKey, now: u32) -> u16 {
    let Some(slot) = find_key::<Affinity>(client, table::hash_key(client)) else { return 0 };
    let (record, control) = (slot.get(), slot.control());
    if record.is_expired(now) {
        return 0;
    }
    let Some(node) = NODES.get(u32::from(record.node)) else { return 0 };
    let hop = Hop::of(node);
    if hop.flags() & node_flag::USABLE == 0 || hop.generation() != control.generation {
        return 0;
    }
    if control.seen != now && !explaining() {
        slot.exchange(control, Control { seen: now, ..control });
    }
    record.node
}

#[inline(always)]
fn remember(client: &FlowKey, server: &VirtualServer, node: u16, now: u32) {
    if explaining() || node == 0 {
        return;
    }
    let Some(target) = NODES.get(u32::from(node)) else { return };
    if let Some(old) = find_key::<Affinity>(client, table::hash_key(client)) {
        table::free::<Affinity>(&old);
    }
    let state = State::Affinity as u8;
    let Some(scratch) = scratch() else { return };
    let record = &mut scratch.half;
    record.key = *client;
    record.control = Control { seen: now, state, flags: 0, generation: Hop::of(target).generation() };
    record.node = node;
    record.virtual_server = server.id;
    record.nat_port = 0;
    record.timeout = timeout_of(server.id, state);
    record.peer = 0;
    record.created = now;
    if let Some(place) = table::claim::<Affinity>(table::hash_key(client), now) {
        table::publish::<Affinity>(&place, record);
    }
}
