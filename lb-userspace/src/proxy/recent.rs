//! The last requests (connections of generic TCP) of each virtual server, for `lbctl conn ls --l7`: a ring of fixed size for
//! each thread, whose records are written over in place.
//!
//! A proxy thread never waits: while somebody reads its ring, it skips the record and counts that.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, TryLockError},
    time::Duration,
};

use super::{access_log::Entry, stats::Counter};
use crate::control::proxy::{
    ProxyPlan,
    recent::{Filter, Record},
};

/// Bytes of a text that are kept.
const MAX_TEXT: usize = 256;
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
    all: Vec<Record>,
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
        let rings: Vec<_> = self.rings.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut found = Vec::new();
        for ring in rings {
            let records = ring.records.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(records.all.iter().filter(|record| filter.passes(record)).cloned());
        }
        found.sort_by_key(|record| Reverse(record.at_us));
        found.truncate(filter.limit());
        for record in &mut found {
            record.request_fields.retain(|(_, value)| !value.is_empty());
            record.response_fields.retain(|(_, value)| !value.is_empty());
        }
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
            all.push(Record::default());
        }
        all[*next].fill(entry);
        *next = (*next + 1) % self.capacity;
    }
}

impl Record {
    /// Writes a request over what was here; its texts keep their memory.
    fn fill(&mut self, entry: &Entry<'_>) {
        let facts = entry.facts;
        let texts = [
            (&mut self.virtual_server, entry.virtual_server),
            (&mut self.method, facts.method()),
            (&mut self.host, facts.host()),
            (&mut self.url, facts.raw_url()),
            (&mut self.version, facts.version()),
            (&mut self.pool, entry.pool),
            (&mut self.node, entry.node),
            (&mut self.rule, entry.rule),
            (&mut self.reason, entry.reason),
            (&mut self.tls, facts.tls().map_or("", |tls| tls.version)),
        ];
        for (to, from) in texts {
            put(to, from);
        }
        self.request_id.clear();
        self.request_id.extend(entry.request_id.digits().map(char::from));
        self.termination.clear();
        self.termination.extend(entry.ended.letters().map(char::from));
        self.at_us = micros(entry.at);
        self.client = facts.client();
        self.local = facts.local();
        self.status = entry.status;
        self.bytes_received = entry.bytes_received;
        self.bytes_sent = entry.bytes_sent;
        self.queue_us = micros(entry.timings.queue);
        self.connect_us = micros(entry.timings.connect);
        self.head_us = micros(entry.timings.head);
        self.total_us = micros(entry.timings.total);
        self.retries = entry.retries;
        for (name, value) in &mut self.request_fields {
            put(value, facts.header(name).as_deref().unwrap_or(""));
        }
        for (name, value) in &mut self.response_fields {
            put(value, entry.response.and_then(|response| response.header(name)).as_deref().unwrap_or(""));
        }
    }
}

fn put(to: &mut String, from: &str) {
    let end = (0..=from.len().min(MAX_TEXT)).rev().find(|end| from.is_char_boundary(*end)).unwrap_or(0);
    to.clear();
    to.push_str(&from[..end]);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
