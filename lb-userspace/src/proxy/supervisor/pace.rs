//! When the next worker may be started: at once after one that served for a while, later and later after ones that ended
//! soon. Pure.

use std::time::{Duration, Instant};

/// A worker that served for so long ended for a reason of its own, not because workers cannot live.
const HEALTHY: Duration = Duration::from_secs(10);
/// Workers that may end soon, one after the other, before there is a delay.
const FREE: u32 = 3;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    soon_ended: u32,
    not_before: Option<Instant>,
}

impl Pace {
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now)
    }

    pub(super) fn started(&mut self) {
        self.not_before = None;
    }

    /// A worker has ended after this life.
    pub(super) fn ended(&mut self, now: Instant, life: Duration) {
        if life >= HEALTHY {
            self.soon_ended = 0;
        } else {
            self.failed(now);
        }
    }

    /// A worker ended soon, or could not even be started.
    pub(super) fn failed(&mut self, now: Instant) {
        self.soon_ended = self.soon_ended.saturating_add(1);
        let Some(doublings) = self.soon_ended.checked_sub(FREE + 1) else { return };
        let delay = FIRST_DELAY.saturating_mul(1 << doublings.min(10)).min(LONGEST_DELAY);
        self.not_before = Some(now + delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_end_soon_are_replaced_later_and_later() {
        let mut pace = Pace::default();
        let now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..12 {
            pace.ended(now, Duration::from_millis(10));
            delays.push(pace.not_before.map(|at| at.duration_since(now).as_millis()));
        }
        let expected = [None, None, None, Some(200), Some(400), Some(800), Some(1600), Some(3200), Some(6400)];
        assert_eq!(&delays[..9], &expected);
        assert_eq!(&delays[9..], &[Some(10_000); 3]);
        assert!(!pace.may_start(now) && pace.may_start(now + Duration::from_secs(10)));
        pace.started();
        pace.ended(now, Duration::from_secs(60));
        assert!(pace.may_start(now), "one that served for a while is replaced at once");
    }
}
