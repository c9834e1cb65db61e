//! The records of virtual servers and their rings: the one writer of `VIRTUAL_SERVERS` and `RINGS`. A record is never
//! changed while a key leads to it: a change is written to a free place, and the old place given back once the keys are
//! switched.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use lb_common::{maps::Name, vip::VirtualServer};

use super::{
    apply::{Applied, ApplyError, PlannedNode, failed},
    maps::{Maps, Writer},
    rings::{Layout, Regions, RingSpec},
    services::{self, Family, Keys, RecordKey},
    slots::{Ids, SlotsError, text},
};
use crate::control::plan::Plan;

/// A record that keys lead to.
#[derive(Clone, Debug)]
struct Current {
    index: u32,
    record: VirtualServer,
    /// What its ring was built from; `None` after adoption, and when there is no ring.
    spec: Option<RingSpec>,
}

/// What is to be given back once no key leads to it.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    indexes: Vec<u32>,
    regions: Vec<u32>,
}

impl Leftover {
    /// The record, and its ring unless `successor` uses it on.
    fn add(&mut self, old: &Current, successor: Option<&VirtualServer>) {
        self.indexes.push(old.index);
        let ring = old.record.ring;
        self.regions.extend((ring != 0 && successor.is_none_or(|new| new.ring != ring)).then_some(ring));
    }
}

/// What [`Records::write`] did.
#[derive(Debug)]
pub(super) struct Written {
    /// What is to be given back.
    pub(super) leftover: Leftover,
    /// Whether that was all. Otherwise virtual servers wait for room, as they were before, and the call is to be repeated.
    pub(super) is_whole: bool,
}

/// All records and rings.
#[derive(Debug)]
pub(super) struct Records {
    maps: Arc<Maps>,
    current: BTreeMap<RecordKey, Current>,
    indexes: Regions,
    regions: Regions,
    /// Found at adoption, but not to be used on.
    orphans: Leftover,
}

impl Records {
    /// Finds the records that `keys` lead to, and marks their places as in use. `names`: of virtual servers, by id.
    pub(super) fn adopt(maps: Arc<Maps>, keys: &Keys, names: &[Name]) -> Result<Self, ApplyError> {
        let mut records = Self {
            current: BTreeMap::new(),
            indexes: Regions::new(maps.virtual_servers.len()),
            regions: Regions::new(maps.rings.len()),
            orphans: Leftover::default(),
            maps,
        };
        for (family, index) in keys.referenced() {
            let record = records.maps.virtual_servers.get(&index, 0).map_err(failed("VIRTUAL_SERVERS"))?;
            if records.indexes.occupy(index, 1) {
                records.adopt_one(family, index, record, names);
            }
        }
        Ok(records)
    }

    fn adopt_one(&mut self, family: Family, index: u32, record: VirtualServer, names: &[Name]) {
        let length = Layout::new(record.sequence_len, record.members_len).chunks;
        let has_region = record.ring != 0 && self.regions.occupy(record.ring, length);
        let owner = names.get(usize::from(record.id)).and_then(text).filter(|_| record.id != 0);
        let whole = has_region || record.ring == 0;
        match owner.map(|owner| (owner, family)) {
            Some(key) if whole && !self.current.contains_key(&key) => {
                self.current.insert(key, Current { index, record, spec: None });
            }
            _ => {
                self.orphans.indexes.push(index);
                self.orphans.regions.extend(has_region.then_some(record.ring));
            }
        }
    }

    /// Whether the rings of a plan fit, with room for one of them to be replaced at a time.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), ApplyError> {
        let chunks = |(name, family): RecordKey| {
            let server = plan.virtual_servers.get(&name)?;
            let slots: Vec<u16> = (0..server.nodes.len()).map(|i| i as u16 + 1).collect();
            Some(services::ring_spec(server, &slots, family).map_or(0, |spec| u64::from(spec.layout().chunks)))
        };
        let all: Vec<u64> = services::record_keys(plan).filter_map(chunks).collect();
        // The regions' lengths differ: what lies between them may be too short for the next.
        let largest = all.iter().max().copied().unwrap_or(0);
        let needed = all.iter().sum::<u64>() + 2 * largest;
        let capacity = self.regions.capacity();
        if all.len() + 1 >= self.indexes.capacity() as usize {
            return Err(SlotsError::VirtualServers { wanted: all.len() }.into());
        }
        if needed >= u64::from(capacity) {
            return Err(ApplyError::Rings { virtual_servers: all.len(), needed, capacity });
        }
        Ok(())
    }

    /// Writes every record and ring of a plan that changed, as far as there is room beside those that they replace. `nodes`:
    /// of all virtual servers, in the plan's order. The old places stay as they are until they are given back.
    pub(super) fn write(
        &mut self,
        writer: &mut Writer,
        plan: &Plan,
        ids: &Ids,
        nodes: &[PlannedNode],
        applied: &mut Applied,
    ) -> Result<Written, ApplyError> {
        let mut is_whole = true;
        let mut leftover = std::mem::take(&mut self.orphans);
        let mut rest = nodes;
        for (name, server) in &plan.virtual_servers {
            let (own, others) = rest.split_at(server.nodes.len());
            rest = others;
            let slots: Vec<u16> = own.iter().map(|node| node.slot).collect();
            for family in services::families(server) {
                let key = (name.clone(), family);
                let spec = services::ring_spec(server, &slots, family);
                let region = match &spec {
                    None => None,
                    Some(spec) => {
                        let Some(start) = self.ring(&key, spec, applied) else {
                            is_whole = false;
                            continue;
                        };
                        Some((start, spec.layout()))
                    }
                };
                let record = services::record(server, ids.id(name).unwrap_or(0), region);
                self.record(writer, key, record, spec, &mut leftover, applied)?;
            }
        }
        let wanted: BTreeSet<RecordKey> = services::record_keys(plan).collect();
        self.current.retain(|key, current| {
            let keep = wanted.contains(key);
            if !keep {
                leftover.add(current, None);
            }
            keep
        });
        Ok(Written { leftover, is_whole })
    }

    /// Where the ring of a virtual server is, written if it is not there yet; `None`: there is no room for it now.
    fn ring(&mut self, key: &RecordKey, spec: &RingSpec, applied: &mut Applied) -> Option<u32> {
        if let Some(start) = self.kept_ring(key, spec) {
            return Some(start);
        }
        self.regions.reclaim(Instant::now());
        let start = self.regions.take(spec.layout().chunks)?;
        applied.rings_built += 1;
        for (index, chunk) in (start..).zip(&spec.contents()) {
            self.maps.rings.write(index, chunk);
        }
        Some(start)
    }

    /// Waits until the first region of those that were given back is free.
    ///
    /// # Errors
    /// `Rings` when none was.
    pub(super) fn wait_for_room(&mut self) -> Result<(), ApplyError> {
        let wait = self.regions.next_free(Instant::now()).ok_or(ApplyError::Rings {
            virtual_servers: self.current.len(),
            needed: u64::from(self.regions.capacity()) + 1,
            capacity: self.regions.capacity(),
        })?;
        std::thread::sleep(wait);
        Ok(())
    }

    /// The place that already holds what `spec` asks for.
    fn kept_ring(&self, key: &RecordKey, spec: &RingSpec) -> Option<u32> {
        let current = self.current.get(key).filter(|current| current.record.ring != 0)?;
        let record = &current.record;
        let same = match &current.spec {
            Some(before) => before == spec,
            // Adopted: built by an earlier daemon, so only the contents can tell.
            None => {
                let layout = spec.layout();
                record.sequence_len == layout.sequence_len
                    && record.members_len == layout.members_len
                    && self.holds(record.ring, spec)
            }
        };
        same.then_some(record.ring)
    }

    fn holds(&self, start: u32, spec: &RingSpec) -> bool {
        (start..).zip(spec.contents()).all(|(index, chunk)| self.maps.rings.read(index) == chunk)
    }

    fn record(
        &mut self,
        writer: &mut Writer,
        key: RecordKey,
        record: VirtualServer,
        spec: Option<RingSpec>,
        leftover: &mut Leftover,
        applied: &mut Applied,
    ) -> Result<(), ApplyError> {
        if let Some(current) = self.current.get_mut(&key)
            && current.record == record
        {
            current.spec = spec;
            return Ok(());
        }
        applied.records_written += 1;
        let wanted = self.current.len() + 1;
        let index = take_or_wait(&mut self.indexes, 1).ok_or(SlotsError::VirtualServers { wanted })?;
        writer.virtual_servers.set(index, record, 0).map_err(failed("VIRTUAL_SERVERS"))?;
        if let Some(old) = self.current.insert(key, Current { index, record, spec }) {
            leftover.add(&old, Some(&record));
        }
        Ok(())
    }

    /// The index of each record.
    pub(super) fn index(&self) -> BTreeMap<RecordKey, u32> {
        self.current.iter().map(|(key, current)| (key.clone(), current.index)).collect()
    }

    /// Gives back what no key leads to any more.
    pub(super) fn give_back(&mut self, leftover: Leftover) {
        let now = Instant::now();
        for index in leftover.indexes {
            self.indexes.retire(index, now);
        }
        for region in leftover.regions {
            self.regions.retire(region, now);
        }
    }
}

/// Finds room, waiting for the grace time of what was given back if there is none without it.
fn take_or_wait(regions: &mut Regions, length: u32) -> Option<u32> {
    loop {
        let now = Instant::now();
        regions.reclaim(now);
        if let Some(start) = regions.take(length) {
            return Some(start);
        }
        std::thread::sleep(regions.next_free(now)?);
    }
}
