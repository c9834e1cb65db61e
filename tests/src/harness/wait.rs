//! Waits for conditions with a deadline: the one place of the harness that sleeps.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(10);

/// Asks `check` until it says `true`.
///
/// # Errors
/// When it has not said so before the deadline: names what was waited for.
pub fn eventually(what: &str, deadline: Duration, mut check: impl FnMut() -> bool) -> Result<Duration> {
    until(what, deadline, || Ok::<_, String>(check().then_some(()))).map(|((), took)| took)
}

/// Asks `check` until it gives a value; that value and how long it took. An error of `check` is not the end but is told
/// when the deadline passes: a daemon that starts refuses connections at first.
///
/// # Errors
/// When the deadline passes.
pub fn until<T, E: std::fmt::Display>(
    what: &str,
    deadline: Duration,
    mut check: impl FnMut() -> Result<Option<T>, E>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let last = check();
        let took = start.elapsed();
        match last {
            Ok(Some(value)) => return Ok((value, took)),
            Ok(None) if took < deadline => {}
            Err(_) if took < deadline => {}
            Ok(None) => bail!("{what}: not within {deadline:?}"),
            Err(error) => bail!("{what}: not within {deadline:?}; the last error was: {error:#}"),
        }
        thread::sleep(POLL);
    }
}

/// Lets time pass in which something must *not* happen, or load must run: not for waiting on a condition.
pub fn let_pass(time: Duration) {
    thread::sleep(time);
}
