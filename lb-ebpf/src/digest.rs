//! Digests of the records in `FLOWS` (`lb_common::digest`): how a flow's record is found, and how its packets are forwarded
//! without it.

use lb_common::{
    conntrack::State,
    digest::{Digest, DigestLine},
    flow::{FlowRecord, WAYS, candidates},
};

use crate::{
    globals::{explaining, flow_mask},
    maps::DIGESTS,
    table::{self, Flows, Slot},
};

/// A digest, and the index of its record in `FLOWS`.
#[derive(Clone, Copy)]
pub struct Known {
    pub digest: Digest,
    pub index: u32,
}

#[inline(always)]
fn place(line: *mut DigestLine, way: u32) -> *mut Digest {
    // SAFETY: `way` is masked to 0..4, the ways of a line.
    unsafe { (&raw mut (*line).ways).cast::<Digest>().add((way & (WAYS as u32 - 1)) as usize) }
}

/// The two words, one after the other: between them the record may be published anew and looked at in full by another CPU.
/// That freshness is sealed for the new name.
#[inline(always)]
fn read(place: *mut Digest) -> Digest {
    // SAFETY: a live map value, two aligned words.
    unsafe {
        let name = (&raw const (*place).name).read_volatile();
        Digest { name, fresh: (&raw const (*place).fresh).read_volatile() }
    }
}

/// The digest that is named after this hash.
#[inline(always)]
pub fn find(hash: u64) -> Option<Known> {
    let (first, second, way) = candidates(hash, flow_mask());
    find_in(first, way, hash).or_else(|| find_in(second, way, hash))
}

#[inline(always)]
fn find_in(bucket: u32, way: u32, hash: u64) -> Option<Known> {
    let line = DIGESTS.get_ptr_mut(bucket)?;
    let mut step = 0;
    while step < WAYS as u32 {
        let digest = read(place(line, way + step));
        if Digest::is_named(digest.name, hash) {
            return Some(Known { digest, index: bucket * WAYS as u32 + ((way + step) & 3) });
        }
        step += 1;
    }
    None
}

/// The live record of a key, found by its digest and compared in full.
#[inline(always)]
pub fn find_record(words: &[u64; 5], family: u8, hash: u64) -> Option<Slot> {
    let (first, second, way) = candidates(hash, flow_mask());
    record_in(first, way, words, family, hash).or_else(|| record_in(second, way, words, family, hash))
}

#[inline(always)]
fn record_in(bucket: u32, way: u32, words: &[u64; 5], family: u8, hash: u64) -> Option<Slot> {
    let line = DIGESTS.get_ptr_mut(bucket)?;
    let mut step = 0;
    while step < WAYS as u32 {
        let way = (way + step) & 3;
        if Digest::is_named(read(place(line, way)).name, hash) {
            let slot = table::at::<Flows>(bucket * WAYS as u32 + way + 1)?;
            if table::holds(slot.record, words, family) && slot.control().state > State::Claimed as u8 {
                return Some(slot);
            }
        }
        step += 1;
    }
    None
}

/// Names the record that is being published at `index`. It is fresh after the first full look at it.
#[inline(always)]
pub fn name(index: u32, record: &FlowRecord) {
    let Some(line) = DIGESTS.get_ptr_mut(index / WAYS as u32) else { return };
    let place = place(line, index);
    let name = Digest::name_of(table::hash_key(&record.key), record.control.flags, record.node);
    // SAFETY: a live map value; the claimed record's owner alone writes here. Volatile keeps the order.
    unsafe {
        (&raw mut (*place).fresh).write_volatile(0);
        (&raw mut (*place).name).write_volatile(name);
    }
}

/// Notes that the record at `index`, with this timeout, was looked at in full and may be believed for its grace.
/// `sealed`, `port_or_node`: as in `Digest::fresh`.
#[inline(always)]
pub fn refresh(index: u32, sealed: u16, until: u32, port_or_node: u16, generation: u16) {
    if explaining() {
        return;
    }
    let Some(line) = DIGESTS.get_ptr_mut(index / WAYS as u32) else { return };
    let place = place(line, index);
    // SAFETY: an aligned word of a live map value. It carries bits of its flow's hash: of a record that another CPU has
    // given to another flow meanwhile it makes nothing fresh.
    unsafe { (&raw mut (*place).fresh).write_volatile(Digest::fresh_of(sealed, until, port_or_node, generation)) };
}

/// Makes the digest at `index` not fresh.
#[inline(always)]
pub fn forget(index: u32) {
    let Some(line) = DIGESTS.get_ptr_mut(index / WAYS as u32) else { return };
    // SAFETY: as above. 0 is fresh in one of 1,024 ticks, for packets whose check is 0: none that anyone would notice.
    unsafe { (&raw mut (*place(line, index)).fresh).write_volatile(0) };
}
