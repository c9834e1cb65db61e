//! A rate for each value of a key: the generic cell rate algorithm (a token bucket that stores one time, not two figures) in
//! a table of fixed size.
//!
//! `governor` was looked at: its keyed store grows with the number of keys until somebody trims it, which a client with many
//! addresses decides, not we.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{client_bits, hash_key, nanos};
use crate::{control::proxy::pool::Key, proxy::facts::Facts};

/// Keys that are told apart at a time: 1 MiB of table.
const BUCKETS: usize = 16 * 1024;
/// Keys of a bucket.
const WAYS: usize = 4;
/// What the clock passed in may stand still: a rate forgives so much, so that it is reached with a coarse clock, too.
pub const CLOCK_STEP: Duration = Duration::from_millis(10);

/// Requests per second for each value of a key.
#[derive(Debug)]
pub struct Rate {
    /// Nanoseconds between requests at the rate.
    interval: u64,
    /// How far ahead of the rate a key may be, in nanoseconds.
    tolerance: u64,
    key: Option<Key>,
    /// Random, so that nobody can choose keys that share a bucket.
    state: RandomState,
    buckets: Box<[Bucket]>,
}

/// The rate is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// When the next request would be let in.
    pub retry_after: Duration,
}

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([Slot; WAYS]);

/// A key's hash (0: free) and when, in nanoseconds, it will have used up what it took. Two threads that put keys into one
/// slot at a time may charge one request to the wrong key: a request, not a limit, is lost.
#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    due: AtomicU64,
}

impl Rate {
    /// `rate` requests per second, `burst` more at once; `key` for [`Self::take`].
    #[must_use]
    pub fn new(rate: u32, burst: u32, key: Option<Key>) -> Self {
        let interval = 1_000_000_000 / u64::from(rate.max(1));
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst)).max(nanos(CLOCK_STEP)),
            key,
            state: RandomState::new(),
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
        }
    }

    /// Counts a request by the class's key.
    ///
    /// # Errors
    /// The key is above its rate.
    pub fn take(&self, facts: &dyn Facts, now: Duration) -> Result<(), Over> {
        match &self.key {
            Some(key) => self.take_hash(hash_key(key, facts, &self.state), now),
            None => self.take_address(facts.client(), now),
        }
    }

    /// Counts something of a client address.
    ///
    /// # Errors
    /// The address is above its rate.
    pub fn take_address(&self, client: IpAddr, now: Duration) -> Result<(), Over> {
        self.take_hash(self.state.hash_one(client_bits(client)), now)
    }

    fn take_hash(&self, hash: u64, now: Duration) -> Result<(), Over> {
        let now = nanos(now);
        let slot = self.slot(hash);
        let mut due = slot.due.load(Relaxed);
        loop {
            let from = due.max(now);
            if let Some(ahead) = (from - now).checked_sub(self.tolerance).filter(|ahead| *ahead > 0) {
                return Err(Over { retry_after: Duration::from_nanos(ahead) });
            }
            match slot.due.compare_exchange_weak(due, from.saturating_add(self.interval), Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => due = other,
            }
        }
    }

    /// The slot of a key; when it has none, that of the key which is the furthest behind its rate.
    fn slot(&self, hash: u64) -> &Slot {
        let key = hash.max(1);
        let at = usize::try_from(hash % BUCKETS as u64).unwrap_or(0);
        let ways = &self.buckets[at].0;
        loop {
            let mut idle = (&ways[0], 0, u64::MAX);
            for slot in ways {
                let held = slot.key.load(Relaxed);
                if held == key {
                    return slot;
                }
                let due = slot.due.load(Relaxed);
                if due < idle.2 {
                    idle = (slot, held, due);
                }
            }
            let (slot, held, due) = idle;
            if slot.key.compare_exchange(held, key, Relaxed, Relaxed).is_ok() {
                // Fails when the key before us just took something: that is charged to us.
                let _ = slot.due.compare_exchange(due, 0, Relaxed, Relaxed);
                return slot;
            }
        }
    }
}
