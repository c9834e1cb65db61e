//! Durations in buckets of fixed bounds: eight to each doubling of microseconds, so that a value read back is at most
//! 6.25 % off. 1 µs to 4.9 h; longer counts as that. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of a doubling.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 3;
/// Doublings above the first, whose buckets are 1 µs wide.
const DOUBLINGS: u64 = 32;
/// All buckets.
pub const BUCKETS: usize = (STEPS * DOUBLINGS) as usize;

/// A histogram at one time; only buckets with something in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HistogramSnapshot {
    /// Bucket and count, ascending.
    buckets: Vec<(u16, u64)>,
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

impl HistogramSnapshot {
    /// Of the counts of all [`BUCKETS`], and the sum of what was counted.
    #[must_use]
    pub fn new(counts: impl Iterator<Item = u64>, sum_us: u64) -> Self {
        let counts = (0..).zip(counts).filter(|(_, count)| *count > 0);
        Self { buckets: counts.collect(), sum_us }
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

    /// What was counted since an earlier look; all of it, when a counter went back: another worker counts.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |bucket: u16| {
            before.buckets.binary_search_by_key(&bucket, |(own, _)| *own).map_or(0, |at| before.buckets[at].1)
        };
        let grown = self.buckets.iter().map(|(bucket, count)| Some((*bucket, count.checked_sub(earlier(*bucket))?)));
        match (grown.collect::<Option<Vec<_>>>(), self.sum_us.checked_sub(before.sum_us)) {
            (Some(mut buckets), Some(sum_us)) => {
                buckets.retain(|(_, count)| *count > 0);
                Self { buckets, sum_us }
            }
            _ => self.clone(),
        }
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

/// The bucket of so many whole microseconds.
#[must_use]
pub fn bucket(us: u64) -> usize {
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
}
