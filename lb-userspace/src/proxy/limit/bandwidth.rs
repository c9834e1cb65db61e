//! Bytes per second, shared by every transfer that names the class. Asks nobody to sleep: it says how many bytes may go now,
//! or until when to wait, and the connection's task waits with the timer it has anyway.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::nanos;

/// What may go at once after a pause: so many nanoseconds at the rate, more than passes between two looks at the deadlines of
/// who waits (100 ms, `reactor::TICK_MS`): with less the rate would never be reached …
const BURST_NS: u64 = 250_000_000;
/// … and at least so many bytes, so that a slow class does not send crumbs.
const BURST_BYTES: u64 = 16 * 1024;
/// Fewer bytes than this (or than asked for) are not worth a write: wait.
const LEAST: u64 = 4 * 1024;

/// A limit of bytes per second.
#[derive(Debug)]
pub struct Bandwidth {
    bytes_per_s: u64,
    burst_ns: u64,
    /// When, in nanoseconds, all that was taken will have gone at the rate.
    due: AtomicU64,
}

/// What a transfer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// So many bytes may go; they are counted. What does not go after all is given back.
    Now(usize),
    /// Nothing before this time.
    Until(Duration),
}

impl Bandwidth {
    /// A limit; at least 1 byte per second.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        let mut class = Self { bytes_per_s: bytes_per_s.max(1), burst_ns: BURST_NS, due: AtomicU64::new(0) };
        class.burst_ns = class.time_of(BURST_BYTES).max(BURST_NS);
        class
    }

    /// Asks for `want` bytes. `Now` grants between 1 and `want`.
    #[must_use]
    pub fn take(&self, want: usize, now: Duration) -> Take {
        let now = nanos(now);
        let want = u64::try_from(want).unwrap_or(u64::MAX).max(1);
        let mut due = self.due.load(Relaxed);
        loop {
            let from = due.max(now);
            let free = now.saturating_add(self.burst_ns).saturating_sub(from);
            let least = want.min(LEAST);
            let granted = self.bytes_in(free).min(want);
            if granted < least {
                let wait = self.time_of(least).saturating_sub(free).max(1);
                return Take::Until(Duration::from_nanos(now.saturating_add(wait)));
            }
            let after = from.saturating_add(self.time_of(granted));
            match self.due.compare_exchange_weak(due, after, Relaxed, Relaxed) {
                Ok(_) => return Take::Now(usize::try_from(granted).unwrap_or(usize::MAX)),
                Err(other) => due = other,
            }
        }
    }

    /// Gives back bytes that were taken and did not go.
    pub fn give_back(&self, bytes: usize) {
        let time = self.time_of(u64::try_from(bytes).unwrap_or(0));
        // Always Some: it cannot fail.
        let _ = self.due.fetch_update(Relaxed, Relaxed, |due| Some(due.saturating_sub(time)));
    }

    /// Nanoseconds that `bytes` take at the rate, rounded up.
    fn time_of(&self, bytes: u64) -> u64 {
        let time = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.bytes_per_s));
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    fn bytes_in(&self, ns: u64) -> u64 {
        u64::try_from(u128::from(ns) * u128::from(self.bytes_per_s) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}
