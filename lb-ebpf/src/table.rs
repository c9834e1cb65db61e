//! The flow tables: find, insert, remove. Four ways per bucket; a key of `FLOWS`, which must not evict, has two candidate
//! buckets, a key of the tables that do has one. Ownership of a record is
//! its control word (`lb_common::flow::Control`), taken and given up by compare-and-exchange.
//!
//! Everything here is generic over the table: each table is a zero-sized type whose methods inline,
//! so that every map has its own call sites and the kernel inlines the lookup.

use aya_ebpf::maps::Array;
use lb_common::{
    conntrack::State,
    flow::{Bucket, Control, FAMILY_V4, FlowKey, FlowRecord, WAYS, candidates, flag, hash},
};

use crate::{atomic::Word, count, digest, globals, maps};

/// A flow table. `find_index` and `claim_index` are BPF functions of their own, verified once.
pub trait Table {
    fn map() -> &'static Array<Bucket>;
    fn mask() -> u32;
    /// Nothing live is evicted: a full first bucket has a second, and records are found by their digests. `FLOWS` alone.
    const KEEPS: bool;
    /// Index plus one of a key's live record; 0: not there.
    fn find_index(key: &FlowKey, hash: u64) -> u32;
    /// Index plus one of a claimed place; 0: there is none.
    fn claim_index(hash: u64, now: u32) -> u32;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident, $map:ident, $mask:ident, $find:ident, $claim:ident, keeps: $keeps:literal;)+) => { $(
        $(#[$doc])*
        pub struct $name;
        impl Table for $name {
            const KEEPS: bool = $keeps;
            #[inline(always)]
            fn map() -> &'static Array<Bucket> { &maps::$map }
            #[inline(always)]
            fn mask() -> u32 { globals::$mask() }
            #[inline(always)]
            fn find_index(key: &FlowKey, hash: u64) -> u32 { $find(key, hash) }
            #[inline(always)]
            fn claim_index(hash: u64, now: u32) -> u32 {
                $claim(hash, now)
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $find(key: *const FlowKey, hash: u64) -> u32 {
            if key.is_null() {
                return 0;
            }
            // SAFETY: not null, and the verifier has seen to it that callers pass a whole key.
            index_of::<$name>(unsafe { &*key }, hash)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $claim(hash: u64, now: u32) -> u32 {
            claim_in::<$name>(hash, now)
        }
    )+ };
}

tables! {
    /// Tracked connections.
    Flows, FLOWS, flow_mask, flows_find, flows_claim, keeps: true;
    /// Half-open connections.
    Pending, PENDING, pending_mask, pending_find, pending_claim, keeps: false;
    /// Clients' nodes.
    Affinity, AFFINITY, affinity_mask, affinity_find, affinity_claim, keeps: false;
    /// Fragmented datagrams.
    Fragments, FRAGMENTS, fragment_mask, fragments_find, fragments_claim, keeps: false;
}

/// A live record: a pointer into a map value, and its index (bucket × 4 + way).
#[derive(Clone, Copy)]
pub struct Slot {
    pub record: *mut FlowRecord,
    pub index: u32,
}

impl Slot {
    /// The record. It may change under us between two reads, field by field; every field is valid at any time.
    #[inline(always)]
    pub fn get(&self) -> &FlowRecord {
        // SAFETY: points into a map value, which lives as long as the program.
        unsafe { &*self.record }
    }

    /// The control word, read once.
    #[inline(always)]
    pub fn control(&self) -> Control {
        Control::from_word(self.word().load())
    }

    #[inline(always)]
    pub fn word(&self) -> Word {
        // SAFETY: `control` is 8 bytes, aligned to 8, at a fixed offset of a live map value.
        unsafe { Word::new((&raw mut (*self.record).control).cast()) }
    }

    /// Exchanges the control word if it still is what was read.
    #[inline(always)]
    pub fn exchange(&self, old: Control, new: Control) -> bool {
        self.word().exchange(old.to_word(), new.to_word())
    }
}

/// Hash of a key for all flow tables.
#[inline(always)]
pub fn hash_key(key: &FlowKey) -> u64 {
    hash(key.words(), key.family(), &globals::table_keys())
}

#[inline(always)]
fn record_of(bucket: *mut Bucket, way: u32) -> *mut FlowRecord {
    // SAFETY: `way` is masked to 0..4, the ways of a bucket.
    unsafe { (&raw mut (*bucket).records).cast::<FlowRecord>().add((way & (WAYS as u32 - 1)) as usize) }
}

/// Whether the record holds this key. IPv4 keys differ in two words only; the family is in the first.
#[inline(always)]
pub fn holds(record: *mut FlowRecord, words: &[u64; 5], family: u8) -> bool {
    // SAFETY: a live map value; the five words of the key are its first 40 bytes.
    let stored = unsafe { &*record.cast::<[u64; 5]>() };
    stored[0] == words[0]
        && stored[1] == words[1]
        && (family == FAMILY_V4 || (stored[2] == words[2] && stored[3] == words[3] && stored[4] == words[4]))
}

/// Whether a record is live, and of this key.
#[inline(always)]
pub fn is_of(slot: &Slot, key: &FlowKey) -> bool {
    holds(slot.record, &key.words(), key.family()) && slot.control().state > State::Claimed as u8
}

/// The live record of a key.
#[inline(always)]
pub fn find<T: Table>(words: &[u64; 5], family: u8, hash: u64) -> Option<Slot> {
    if T::KEEPS {
        return digest::find_record(words, family, hash);
    }
    let (bucket, _, way) = candidates(hash, T::mask());
    find_in::<T>(bucket, way, words, family)
}

#[inline(always)]
fn find_in<T: Table>(bucket_index: u32, way: u32, words: &[u64; 5], family: u8) -> Option<Slot> {
    let bucket = T::map().get_ptr_mut(bucket_index)?;
    let mut step = 0;
    while step < WAYS as u32 {
        let record = record_of(bucket, way + step);
        if holds(record, words, family) {
            let slot = Slot { record, index: bucket_index * WAYS as u32 + ((way + step) & 3) };
            if slot.control().state > State::Claimed as u8 {
                return Some(slot);
            }
        }
        step += 1;
    }
    None
}

/// The live record of a key with this `hash_key`, for the slow path.
#[inline(always)]
pub fn find_key<T: Table>(key: &FlowKey, hash: u64) -> Option<Slot> {
    at::<T>(T::find_index(key, hash))
}

#[inline(always)]
fn index_of<T: Table>(key: &FlowKey, hash: u64) -> u32 {
    find::<T>(&key.words(), key.family(), hash).map_or(0, |slot| slot.index + 1)
}

/// The record at an index, as stored in `FlowRecord::peer` (index plus one).
#[inline(always)]
pub fn at<T: Table>(peer: u32) -> Option<Slot> {
    if peer == 0 {
        return None;
    }
    let index = peer - 1;
    let bucket = T::map().get_ptr_mut(index / WAYS as u32)?;
    Some(Slot { record: record_of(bucket, index), index })
}

/// Claims a place for a key: a free or expired one; else the oldest, in the tables that evict, or in `FLOWS` one that looks
/// forged (`is_brief`). The record is then `Claimed`: fill it and `publish`.
#[inline(always)]
pub fn claim<T: Table>(hash: u64, now: u32) -> Option<Slot> {
    at::<T>(T::claim_index(hash, now))
}

#[inline(always)]
fn claim_in<T: Table>(hash: u64, now: u32) -> u32 {
    let (first, second, way) = candidates(hash, T::mask());
    let slot = claim_where::<T>(first, way, now, is_dead).or_else(|| {
        if !T::KEEPS {
            return claim_oldest::<T>(first, way, now);
        }
        claim_where::<T>(second, way, now, is_dead)
            .or_else(|| claim_where::<T>(first, way, now, is_brief))
            .or_else(|| claim_where::<T>(second, way, now, is_brief))
    });
    slot.map_or(0, |slot| slot.index + 1)
}

/// Nobody's, or silent for longer than its timeout and counted nowhere.
#[inline(always)]
fn is_dead(record: &FlowRecord, control: Control, now: u32) -> bool {
    control.state == State::Free as u8
        || (control.state > State::Claimed as u8 && control.flags & KEPT == 0 && record.is_expired(now))
}

/// Ticks that a connection proven by the client's word alone must have lasted not to be taken for a forgery.
pub const BRIEF: i32 = 2;
/// Ticks (60 s) after which a brief one is silent.
const BRIEF_SILENCE: i32 = 56;

/// The last resort of a full bucket: a DSR connection that had all its packets within two seconds, a minute ago or longer.
/// Two forged segments make one such record each; a genuine one goes on by the ring.
#[inline(always)]
fn is_brief(record: &FlowRecord, control: Control, now: u32) -> bool {
    control.state > State::Claimed as u8
        && control.flags & (flag::NAT | flag::REPLY) == 0
        && control.seen.wrapping_sub(record.created) as i32 <= BRIEF
        && now.wrapping_sub(control.seen) as i32 > BRIEF_SILENCE
}

/// Claims the first place of a bucket that may be taken.
#[inline(always)]
fn claim_where<T: Table>(
    bucket_index: u32,
    way: u32,
    now: u32,
    may_be_taken: impl Fn(&FlowRecord, Control, u32) -> bool,
) -> Option<Slot> {
    let bucket = T::map().get_ptr_mut(bucket_index)?;
    let mut step = 0;
    while step < WAYS as u32 {
        let slot = Slot { record: record_of(bucket, way + step), index: bucket_index * 4 + ((way + step) & 3) };
        let (control, node) = (slot.control(), slot.get().node);
        if may_be_taken(slot.get(), control, now) && slot.exchange(control, claimed(now)) {
            if control.flags & flag::ACTIVE != 0 {
                count::forget(node, control);
                count::evicted(node);
            }
            return Some(slot);
        }
        step += 1;
    }
    None
}

/// Bit of `Control::flags`, in `PENDING` only: a CPU is moving the record to `FLOWS`.
pub const PROMOTING: u8 = 128;

/// Not taken here even when silent for too long: records that count in `NODE_LOADS` (whoever removes them subtracts), and
/// answering halves, which live as long as their connection.
const KEPT: u8 = flag::ACTIVE | flag::PENDING | flag::REPLY;

#[inline(always)]
fn claim_oldest<T: Table>(bucket_index: u32, way: u32, now: u32) -> Option<Slot> {
    let bucket = T::map().get_ptr_mut(bucket_index)?;
    let mut oldest = way;
    let mut age = 0;
    let mut step = 0;
    while step < WAYS as u32 {
        let slot = Slot { record: record_of(bucket, way + step), index: 0 };
        let control = slot.control();
        let this = now.wrapping_sub(control.seen);
        // Ages are whole ticks: of equals the way that the hash names goes, which spreads eviction.
        if this > age && this < 1 << 31 && control.flags & PROMOTING == 0 {
            age = this;
            oldest = way + step;
        }
        step += 1;
    }
    let slot = Slot { record: record_of(bucket, oldest), index: bucket_index * 4 + (oldest & 3) };
    let control = slot.control();
    if control.state == State::Claimed as u8 || control.flags & PROMOTING != 0 {
        return None;
    }
    let evicted_node = slot.get().node;
    if !slot.exchange(control, claimed(now)) {
        return None;
    }
    // An answering half has no node of its own and counts nowhere.
    if control.flags & flag::REPLY == 0 {
        count::forget(evicted_node, control);
    }
    Some(slot)
}

#[inline(always)]
fn claimed(now: u32) -> Control {
    Control { seen: now, state: State::Claimed as u8, flags: 0, generation: 0 }
}

/// Fills a claimed place and makes it live.
#[inline(always)]
pub fn publish<T: Table>(slot: &Slot, record: &FlowRecord) {
    if T::KEEPS {
        digest::name(slot.index, record);
    }
    copy(slot.record, record, true);
    slot.word().release(record.control.to_word());
}

/// The same in a table that evicts, and seen by everyone before this CPU looks at anything else.
#[inline(always)]
pub fn publish_before_looking(slot: &Slot, record: &FlowRecord) {
    copy(slot.record, record, true);
    slot.word().publish(record.control.to_word());
}

/// Copies a record word by word, without the control word when that is the lock: the compiler's own copy is a loop over
/// bytes in a function, because it cannot know that the two are apart.
#[inline(always)]
pub fn copy(to: *mut FlowRecord, from: *const FlowRecord, keep_control: bool) {
    let mut i = 0;
    while i < 8 {
        if i != 5 || !keep_control {
            // SAFETY: a record is eight aligned words; volatile, so that the copies stay words.
            unsafe { to.cast::<u64>().add(i).write_volatile(from.cast::<u64>().add(i).read_volatile()) };
        }
        i += 1;
    }
}

/// Frees a record, whoever owns it; what it was when this call freed it, state 0 when someone else did.
#[inline(always)]
pub fn free<T: Table>(slot: &Slot) -> Control {
    let nothing = Control { seen: 0, state: 0, flags: 0, generation: 0 };
    let mut control = slot.control();
    if control.state <= State::Claimed as u8 {
        return nothing;
    }
    if !slot.exchange(control, nothing) {
        // A packet that came to another CPU may have refreshed it, or ended the connection.
        let (before, now) = (control, slot.control());
        control = now;
        let same = now.state == before.state && now.generation == before.generation;
        if !same || !slot.exchange(now, nothing) {
            return nothing;
        }
    }
    if T::KEEPS {
        digest::forget(slot.index);
    }
    control
}

/// Whether another live record than the one at `index` has this key.
#[inline(never)]
pub fn has_twin<T: Table>(key: &FlowKey, index: u32) -> bool {
    let (words, family) = (key.words(), key.family());
    let (first, second, _) = candidates(hash_key(key), T::mask());
    twin_in::<T>(first, &words, family, index) || (T::KEEPS && twin_in::<T>(second, &words, family, index))
}

#[inline(always)]
fn twin_in<T: Table>(bucket_index: u32, words: &[u64; 5], family: u8, index: u32) -> bool {
    let Some(bucket) = T::map().get_ptr_mut(bucket_index) else { return false };
    let mut way = 0;
    while way < WAYS as u32 {
        let slot = Slot { record: record_of(bucket, way), index: bucket_index * WAYS as u32 + way };
        if slot.index != index && holds(slot.record, words, family) && slot.control().state > State::Claimed as u8 {
            return true;
        }
        way += 1;
    }
    false
}

/// Gives a claimed place back.
#[inline(always)]
pub fn release(slot: &Slot) {
    slot.word().release(0);
}
