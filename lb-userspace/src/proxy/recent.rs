//! The last requests (connections of generic TCP) of each virtual server, for `lbctl conn ls --l7`: a ring of fixed size for
//! each thread, whose records are written over in place.
//!
//! A proxy thread never waits: while somebody reads its ring, it skips the record and counts that.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, TryLockError},
};

use super::{access_log::Entry, stats::Counter};
use crate::control::proxy::{
    ProxyPlan,
    recent::{Filter, Record},
};

mod packed;

use packed::Packed;

/// What all threads remember.
#[derive(Debug)]
pub struct Recent {
    threads: usize,
    rings: Mutex<BTreeMap<(String, usize), Arc<Ring>>>,
}

/// What one thread remembers of one virtual server.
#[derive(Debug)]
pub struct Ring {
    capacity: usize,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    all: Vec<Packed>,
    /// Where the next one goes.
    next: usize,
}

impl Recent {
    /// For so many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), rings: Mutex::default() }
    }

    /// The ring of a thread for a virtual server that remembers `recent` requests: `None` when that is 0. A ring of the same
    /// size is kept, with what is in it.
    #[must_use]
    pub fn ring(&self, virtual_server: &str, thread: usize, recent: u32) -> Option<Arc<Ring>> {
        let capacity = usize::try_from(recent).unwrap_or(usize::MAX).div_ceil(self.threads);
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (virtual_server.to_owned(), thread);
        if capacity == 0 {
            rings.remove(&key);
            return None;
        }
        let ring = rings.entry(key).or_insert_with(|| Arc::new(Ring::new(capacity)));
        if ring.capacity != capacity {
            *ring = Arc::new(Ring::new(capacity));
        }
        Some(Arc::clone(ring))
    }

    /// Forgets virtual servers that `plan` has not.
    pub fn retain(&self, plan: &ProxyPlan) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.retain(|(name, _), _| plan.virtual_servers.contains_key(name));
    }

    /// What passes the filter, newest first.
    #[must_use]
    pub fn list(&self, filter: &Filter) -> Vec<Record> {
        let rings: Vec<_> = {
            let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
            rings.iter().map(|((name, _), ring)| (name.clone(), Arc::clone(ring))).collect()
        };
        let mut found = Vec::new();
        for (virtual_server, ring) in rings {
            // Copied, so that the ring's thread goes on while they are looked at.
            let all = ring.records.lock().unwrap_or_else(PoisonError::into_inner).all.clone();
            found
                .extend(all.iter().map(|packed| packed.unpack(&virtual_server)).filter(|record| filter.passes(record)));
        }
        found.sort_by_key(|record| Reverse(record.at_us));
        found.truncate(filter.limit());
        found
    }
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self { capacity, records: Mutex::default() }
    }

    /// Remembers a request in place of the oldest; `skipped` counts when somebody is reading.
    pub fn remember(&self, entry: &Entry<'_>, skipped: &Counter) {
        let mut records = match self.records.try_lock() {
            Ok(records) => records,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return skipped.add(1),
        };
        let Records { all, next } = &mut *records;
        if *next >= all.len() {
            all.push(Packed::default());
        }
        all[*next].fill(entry);
        *next = (*next + 1) % self.capacity;
    }
}

#[cfg(test)]
mod tests;
