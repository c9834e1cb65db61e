//! The data path's clock, for those who read ages out of flow records.

use std::time::Duration;

use lb_common::flow::{TICK_SHIFT, ticks};
use nix::time::{ClockId, clock_getres, clock_gettime};

/// Now, in the ticks of flow records.
#[must_use]
pub fn now() -> u32 {
    // The monotonic clock exists on every Linux; without it all would be new-born, and nothing would be collected.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| ticks(time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()))
}

/// Nanoseconds of a jiffy, and CLOCK_MONOTONIC in nanoseconds when jiffies were 0, wrapped: how the XDP programs tell the time
/// from `bpf_jiffies64`.
#[must_use]
pub fn jiffies() -> (u64, u64) {
    // The resolution of the coarse clocks is a jiffy (TICK_NSEC, kernel/time/posix-timers.c).
    let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(4_000_000, |time| time.tv_nsec().unsigned_abs());
    (jiffy, jiffies_epoch(jiffy))
}

/// The clock and jiffies begin together, jiffies at five minutes before 2³² (INITIAL_JIFFIES, include/linux/jiffies.h), and are
/// advanced by the clock from then on.
fn jiffies_epoch(jiffy: u64) -> u64 {
    let hertz = (1_000_000_000 + jiffy / 2) / jiffy;
    0u64.wrapping_sub(((1 << 32) - 300 * hertz) * jiffy)
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

    #[test]
    fn jiffies_tell_the_time_at_every_rate() {
        for (jiffy, hertz) in [(10_000_000, 100), (4_000_000, 250), (3_333_333, 300), (1_000_000, 1000)] {
            let at = |jiffies: u64| jiffies.wrapping_mul(jiffy).wrapping_add(jiffies_epoch(jiffy));
            let first = (1 << 32) - 300 * hertz;
            assert_eq!(
                [at(first), at(first + 1), at(first + 600 * hertz)],
                [0, jiffy, 600 * hertz * jiffy],
                "{hertz} Hz"
            );
        }
    }
}
