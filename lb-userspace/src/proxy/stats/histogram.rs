//! Durations in buckets of fixed bounds: eight to each doubling of microseconds, so that a value read back is at most
//! 6.25 % off. 1 µs to 4.9 h; longer counts as that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Counter;

/// Buckets of a doubling.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 3;
/// Doublings above the first, whose buckets are 1 µs wide.
const DOUBLINGS: u64 = 32;
/// All buckets.
const BUCKETS: usize = (STEPS * DOUBLINGS) as usize;

/// A histogram that one thread writes.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum_us: Counter::default() }
    }
}

impl Histogram {
    /// Counts a duration.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let us = micros(duration);
        self.buckets[bucket(us)].add(1);
        self.sum_us.add(us);
    }

    /// What was counted up to now.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        snapshot.add(self);
        snapshot
    }
}

/// A histogram at one time; only buckets with something in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramSnapshot {
    /// Bucket and count, ascending.
    buckets: Vec<(u16, u64)>,
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

impl HistogramSnapshot {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        let counts = histogram.buckets.iter().enumerate().map(|(bucket, count)| (bucket as u16, count.read()));
        let other = Self { buckets: counts.filter(|(_, count)| *count > 0).collect(), sum_us: histogram.sum_us.read() };
        self.merge(&other);
    }

    /// Adds another.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            match self.buckets.binary_search_by_key(bucket, |(own, _)| *own) {
                Ok(at) => self.buckets[at].1 += count,
                Err(at) => self.buckets.insert(at, (*bucket, *count)),
            }
        }
        self.sum_us += other.sum_us;
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// How many were shorter than `us` microseconds; exact where `us` is a power of two.
    #[must_use]
    pub fn count_below(&self, us: u64) -> u64 {
        let end = bucket(us);
        self.buckets.iter().filter(|(bucket, _)| usize::from(*bucket) < end).map(|(_, count)| count).sum()
    }

    /// The duration that `share` (0 to 1) of all do not exceed: the middle of its bucket. `None` when nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        // Counts stay far below 2^52, where f64 is exact.
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let (bucket, _) = self.buckets.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        })?;
        let (from, width) = bounds(usize::from(*bucket));
        Some(Duration::from_nanos(from * 1000 + width * 500))
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

/// The bucket of so many whole microseconds.
fn bucket(us: u64) -> usize {
    let doubling = (u64::BITS - us.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let bucket = u64::from(doubling) * STEPS + (us >> doubling);
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// First microsecond and width of a bucket.
fn bounds(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    let doubling = (bucket / STEPS).saturating_sub(1);
    let first = bucket - doubling * STEPS;
    (first << doubling, 1 << doubling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        for at in 0..BUCKETS {
            let (from, width) = bounds(at);
            assert_eq!(bucket(from), at, "start of {at}");
            assert_eq!(bucket(from + width - 1), at, "end of {at}");
            if at + 1 < BUCKETS {
                assert_eq!(bounds(at + 1).0, from + width, "after {at}");
            }
            assert!(width == 1 || width * 8 <= from, "{at} is wider than an eighth of {from}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_sixteenth() {
        let histogram = Histogram::default();
        // A skewed set: x³ µs for x in 1..=1000, so 1 µs to 1000 s.
        let values: Vec<u64> = (1..=1000_u64).map(|x| x * x * x).collect();
        for us in &values {
            histogram.record(Duration::from_micros(*us));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count(), 1000);
        assert_eq!(snapshot.sum_us, values.iter().sum::<u64>());
        for (share, position) in [(0.001, 0), (0.1, 99), (0.5, 499), (0.9, 899), (0.99, 989), (0.999, 998), (1.0, 999)]
        {
            let exact = values[position] as f64;
            let read = snapshot.quantile(share).unwrap().as_nanos() as f64 / 1000.0;
            assert!((read - exact).abs() <= exact / 16.0 + 0.5, "{share}: {read} for {exact}");
        }
        assert_eq!(HistogramSnapshot::default().quantile(0.5), None);
    }

    #[test]
    fn counts_below_powers_of_two_are_exact() {
        let histogram = Histogram::default();
        for us in 0..5000 {
            histogram.record(Duration::from_micros(us));
        }
        let snapshot = histogram.snapshot();
        for power in 0..13 {
            assert_eq!(snapshot.count_below(1 << power), (1 << power).min(5000), "below {}", 1 << power);
        }
    }

    #[test]
    fn merging_adds() {
        let [a, b, both] = [(); 3].map(|()| Histogram::default());
        for us in [1, 5, 900, 70_000] {
            a.record(Duration::from_micros(us));
            both.record(Duration::from_micros(us));
        }
        for us in [5, 17, 3_000_000] {
            b.record(Duration::from_micros(us));
            both.record(Duration::from_micros(us));
        }
        let mut merged = a.snapshot();
        merged.merge(&b.snapshot());
        assert_eq!(merged, both.snapshot());
    }
}
