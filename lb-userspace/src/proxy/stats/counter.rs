//! Counters that one thread writes and others may read. Writing is a load and a store without a locked instruction: two
//! threads that wrote one would lose counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; by the owning thread only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// What was counted up to now; by any thread.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many of something there are.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more; by the owning thread only.
    #[inline]
    pub fn enter(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// One less; by the owning thread only.
    #[inline]
    pub fn leave(&self) {
        self.0.store(self.0.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// How many now; by any thread.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts one in a gauge as long as it lives.
#[derive(Debug)]
pub struct Entered<'a>(&'a Gauge);

impl<'a> Entered<'a> {
    /// One more, by the owning thread.
    #[must_use]
    pub fn new(gauge: &'a Gauge) -> Self {
        gauge.enter();
        Self(gauge)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}
