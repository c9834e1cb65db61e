//! The data path's clock, for those who read ages out of flow records.

use std::time::Duration;

use lb_common::flow::{TICK_SHIFT, ticks};
use nix::time::{ClockId, clock_gettime};

/// Now, in the ticks of flow records.
#[must_use]
pub fn now() -> u32 {
    // The monotonic clock exists on every Linux; without it all would be new-born, and nothing would be collected.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| ticks(time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()))
}

/// Processor time that this thread has used.
#[must_use]
pub fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Ticks from `then` to `now`; 0 when `then` is ahead (another CPU's clock may be by one tick).
#[must_use]
pub fn age(then: u32, now: u32) -> u32 {
    u32::try_from(now.wrapping_sub(then).cast_signed()).unwrap_or(0)
}

/// Ticks as whole seconds.
#[must_use]
pub fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << TICK_SHIFT) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_a_little_more_than_a_second() {
        assert_eq!([seconds(0), seconds(1), seconds(14), seconds(7200)], [0, 1, 15, 7730]);
        assert_eq!([age(10, 15), age(15, 10), age(u32::MAX, 1)], [5, 0, 2]);
        assert!(now() <= now());
    }
}
