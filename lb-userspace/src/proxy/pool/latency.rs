//! How fast a node answers: a peak EWMA, as Finagle and linkerd use it.
//!
//! A slower answer than expected counts in full at once, faster ones are believed by and by, and without answers the
//! figure fades, so that a node that was slow is tried again.

use std::{cell::Cell, time::Duration};

/// Time constant: after it an old figure counts for 1/e.
const DECAY_NS: f64 = 10e9;

/// What a node that never answered, and has open requests, is taken for: slow, until it answers.
const UNKNOWN_NS: f64 = 1e9;

/// Peak EWMA of the time to a response's head.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Nanoseconds; 0: no answer yet.
    value: Cell<f64>,
    /// When `value` was taken, in nanoseconds.
    at: Cell<u64>,
}

impl Latency {
    /// Takes a measurement in.
    pub(super) fn observe(&self, sample: Duration, now: Duration) {
        let sample = (sample.as_nanos() as f64).max(1.0);
        let faded = self.weight(now);
        let value = self.value.get();
        self.value.set(if sample > value { sample } else { value * faded + sample * (1.0 - faded) });
        self.at.set(now.as_nanos() as u64);
    }

    /// The expected time in nanoseconds, as seen by a node with `open` requests; 0: unknown, and worth trying.
    #[inline]
    pub(super) fn expect(&self, open: u32, now: Duration) -> f64 {
        let value = self.value.get();
        if value == 0.0 {
            return if open == 0 { 0.0 } else { UNKNOWN_NS };
        }
        value * self.weight(now)
    }

    /// e^(-age / `DECAY_NS`), as (1 + x/8)⁻⁸: within 6 % up to one time constant, and never rising. An exact value would cost
    /// more than all else in a choice.
    #[inline]
    fn weight(&self, now: Duration) -> f64 {
        let age = (now.as_nanos() as u64).saturating_sub(self.at.get());
        let root = 1.0 + age as f64 / (8.0 * DECAY_NS);
        let square = root * root;
        let fourth = square * square;
        1.0 / (fourth * fourth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let latency = Latency::default();
        assert_eq!(latency.expect(0, s(100)), 0.0, "never asked: worth trying");
        assert_eq!(latency.expect(1, s(100)), UNKNOWN_NS, "asked and not answered yet");
        latency.observe(Duration::from_millis(10), s(100));
        assert_eq!(latency.expect(0, s(100)), 10e6);
        latency.observe(Duration::from_millis(200), s(100));
        assert_eq!(latency.expect(0, s(100)), 200e6, "slower: believed at once");
        latency.observe(Duration::from_millis(10), s(101));
        let after = latency.expect(0, s(101));
        assert!((180e6..195e6).contains(&after), "faster: by and by, {after}");
        let faded = latency.expect(0, s(131));
        assert!((0.05..0.1).contains(&(faded / after)), "three time constants without an answer: {faded}");
    }

    #[test]
    fn steady_answers_are_converged_upon() {
        let latency = Latency::default();
        latency.observe(s(5), s(0));
        for i in 1..=600 {
            latency.observe(Duration::from_millis(20), Duration::from_millis(i * 100));
        }
        let value = latency.expect(0, s(60));
        assert!((19e6..60e6).contains(&value), "{value}");
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_is_harmless() {
        let latency = Latency::default();
        latency.observe(Duration::ZERO, s(10));
        assert_eq!(latency.expect(3, s(1)), 1.0, "an instant answer is known, and counts as one nanosecond");
    }
}
