//! Records of a flow table found, put in and taken out by user space, as `lb-ebpf/src/table.rs` does it.

use lb_common::{
    conntrack::State,
    digest::Digest,
    flow::{Control, FlowKey, FlowRecord, HashKeys, WAYS, candidates, flag, hash},
};

use crate::dataplane::table::Table;

/// Not taken even when silent for too long: records that count in `NODE_LOADS`, and answering halves.
const KEPT: u8 = flag::ACTIVE | flag::PENDING | flag::REPLY;

/// A flow table with what is needed to find a key in it.
pub(super) struct Places<'m> {
    pub(super) table: &'m Table<FlowRecord>,
    /// Of `FLOWS`, whose records are found by these.
    pub(super) digests: Option<&'m Table<Digest>>,
    pub(super) keys: HashKeys,
    /// Buckets, minus one.
    pub(super) mask: u32,
}

impl Places<'_> {
    fn hash(&self, key: &FlowKey) -> u64 {
        hash(key.words(), key.family(), &self.keys)
    }

    /// The places that a key may have, best first. A table without digests has one bucket for each key.
    fn of(&self, key: &FlowKey) -> impl Iterator<Item = u32> {
        let (first, second, way) = candidates(self.hash(key), self.mask);
        let buckets = if self.digests.is_some() { 2 } else { 1 };
        let ways = WAYS as u32;
        [first, second]
            .into_iter()
            .take(buckets)
            .flat_map(move |bucket| (0..ways).map(move |step| bucket * ways + (way + step) % ways))
    }

    /// The live record of a key.
    pub(super) fn find(&self, key: &FlowKey) -> Option<(u32, FlowRecord)> {
        let plain = key.plain();
        self.of(key).find_map(|index| {
            let record = self.table.snapshot(index)?;
            (record.key.plain() == plain).then_some((index, record))
        })
    }

    /// Takes a free place, or one whose record is dead; nobody else reads or writes it until it is published or given back.
    pub(super) fn claim(&self, key: &FlowKey, now: u32) -> Option<u32> {
        self.of(key).find(|index| {
            let control = self.table.control(*index);
            let is_dead = || self.table.read(*index).is_expired(now);
            let free = control.state == State::Free as u8
                || control.state > State::Claimed as u8 && control.flags & KEPT == 0 && is_dead();
            let claimed = Control { seen: now, state: State::Claimed as u8, flags: 0, generation: 0 };
            free && self.table.exchange_control(*index, control, claimed)
        })
    }

    /// Fills a claimed place and makes it live.
    pub(super) fn publish(&self, index: u32, record: &FlowRecord) {
        if let Some(digests) = self.digests {
            let name = Digest::name_of(self.hash(&record.key), record.control.flags, record.node);
            digests.name(index, name);
        }
        self.table.publish(index, record);
    }

    /// Gives a claimed place back.
    pub(super) fn release(&self, index: u32) {
        let claimed = self.table.control(index);
        // It is ours: nobody else exchanges a claimed word.
        self.table.exchange_control(index, claimed, Control::default());
    }

    /// Frees a record that still is what was read.
    pub(super) fn free(&self, index: u32, control: Control) -> bool {
        let freed = self.table.exchange_control(index, control, Control::default());
        if freed && let Some(digests) = self.digests {
            digests.doubt(index);
        }
        freed
    }
}
