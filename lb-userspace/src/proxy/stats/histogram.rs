//! A histogram that one thread writes: see [`crate::control::proxy::stats::HistogramSnapshot`].

use std::time::Duration;

use super::Counter;
use crate::control::proxy::stats::{BUCKETS, HistogramSnapshot, bucket};

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
        // Most nodes of a large site are idle, and 2 KiB each are much to read. Durations whose sum is 0 are all in the first bucket.
        if self.sum_us.read() == 0 && self.buckets[0].read() == 0 {
            return HistogramSnapshot::default();
        }
        HistogramSnapshot::new(self.buckets.iter().map(Counter::read), self.sum_us.read())
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn durations_below_a_microsecond_count() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_nanos(300));
        assert_eq!((histogram.snapshot().count(), histogram.snapshot().sum_us), (1, 0));
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
