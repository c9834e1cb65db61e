//! The data path's clock, for those who read ages out of flow records.

use std::time::Duration;

use lb_common::flow::{TICK_SHIFT, ticks};
use nix::time::{ClockId, clock_getres, clock_gettime};

/// Now, in the ticks of flow records.
#[must_use]
pub fn now() -> u32 {
    ticks(monotonic_ns())
}

/// CLOCK_MONOTONIC in nanoseconds after so long a time.
#[must_use]
pub fn after(time: Duration) -> u64 {
    monotonic_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn monotonic_ns() -> u64 {
    // The monotonic clock exists on every Linux; without it all would be new-born, and nothing would be collected.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
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

/// Now, in jiffies: at most a hundredth of a second ahead of the programs' own.
///
/// Not by the clock: jiffies begin to be counted some time after it, in the boot, which a lease is too short to overlook.
#[must_use]
pub fn jiffies_now() -> u64 {
    let mut used = libc::tms { tms_utime: 0, tms_stime: 0, tms_cutime: 0, tms_cstime: 0 };
    // SAFETY: the pointer is to a live tms. The result is `get_jiffies_64()` in USER_HZ (kernel/sys.c), rounded down.
    let ticks = unsafe { libc::times(&raw mut used) };
    jiffies_of(ticks.cast_unsigned().saturating_add(1), jiffies().0)
}

/// Jiffies of so many nanoseconds each in ticks of USER_HZ, which is 100 on every machine that has XDP.
fn jiffies_of(ticks: u64, jiffy: u64) -> u64 {
    u64::try_from(u128::from(ticks) * 10_000_000 / u128::from(jiffy)).unwrap_or(u64::MAX)
}

/// So long, in jiffies, rounded up.
#[must_use]
pub fn in_jiffies(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(jiffies().0.into())).unwrap_or(u64::MAX)
}

/// Time until a jiffy; `None`: it has come.
#[must_use]
pub fn left_of(jiffy: u64) -> Option<Duration> {
    let left = jiffy.checked_sub(jiffies_now()).filter(|left| *left > 0)?;
    Some(Duration::from_nanos(left.saturating_mul(jiffies().0)))
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
    fn jiffies_now_are_those_of_the_kernel() {
        for (ticks, jiffy, jiffies) in [(7, 10_000_000, 7), (7, 4_000_000, 17), (7, 1_000_000, 70)] {
            assert_eq!(jiffies_of(ticks, jiffy), jiffies);
        }
        // They begin near 2³², and each counts a few milliseconds.
        let (before, length) = (jiffies_now(), Duration::from_millis(200));
        std::thread::sleep(length);
        let passed = jiffies_now() - before;
        assert!(before > 1 << 31 && passed + 3 >= in_jiffies(length), "{passed} jiffies in {length:?} from {before}");
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
