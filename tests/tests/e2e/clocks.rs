//! A wall clock that jumps: nothing that a VIP group does depends on what time it is.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use lb::control::view::VipState;
use lb_tests::harness::{Lb, Stop, command::sh, eventually, wait::let_pass};

use super::{
    pair::{NO_FAILBACK, Pair, network},
    support::SOON,
};

/// In the place of the C library's function: the wall clock alone, ahead by the seconds in a file.
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long *ahead;
__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_AHEAD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) ahead = map;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && ahead) time->tv_sec += *ahead;
    return failed;
}
"#;

/// In seconds.
const HOUR: i64 = 3_600;

/// How far one machine's clock is ahead.
struct Clock(PathBuf);

impl Clock {
    /// A clock of its own for an lbd that has not begun.
    fn install<'n>(lb: Lb<'n>, dir: &Path) -> Result<(Lb<'n>, Self)> {
        let (source, library, ahead) = (dir.join("shift.c"), dir.join("shift.so"), dir.join("ahead"));
        fs::write(&source, SHIFT)?;
        fs::write(&ahead, 0_i64.to_ne_bytes())?;
        sh(&format!("cc -shared -fPIC -O1 -o {} {}", library.display(), source.display()))?;
        let lb = lb.with_own_program()?;
        lb.install_script(&format!(
            "LD_PRELOAD={} CLOCK_AHEAD={} exec {} \"$@\"",
            library.display(),
            ahead.display(),
            Lb::built_program()?.display()
        ))?;
        Ok((lb, Self(ahead)))
    }

    fn set(&self, seconds: i64) -> Result<()> {
        Ok(fs::File::options().write(true).open(&self.0)?.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}

/// The time of the last thing that happened there, as that lbd says it, in seconds since 1970.
fn last_event(lb: &Lb<'_>) -> Result<i64> {
    let events = lb.ctl_json(&["events", "ls"])?;
    let times = events["events"].as_array().context("no events")?.iter().filter_map(|event| event["at_ms"].as_i64());
    Ok(times.max().context("nothing has happened")? / 1_000)
}

#[test]
fn a_clock_that_jumps_changes_nothing() -> Result<()> {
    let net = network("clock-jumps")?;
    let (dir, mut clock) = (tempfile::tempdir()?, None);
    let mut pair = Pair::with(&net, NO_FAILBACK, ["", ""], |lb| {
        let (lb, installed) = Clock::install(lb, dir.path())?;
        clock = Some(installed);
        Ok(lb)
    })?;
    let clock = clock.context("no clock")?;
    let transitions = |lb: &Lb<'_>| Ok::<_, anyhow::Error>(lb.vips()?.groups[0].transitions);
    for seconds in [HOUR, -24 * HOUR, 30 * 365 * 24 * HOUR, HOUR] {
        clock.set(seconds)?;
        // Twice what it takes to find a machine dead.
        let_pass(Duration::from_millis(700));
        let seen = (transitions(&pair.first)?, transitions(&pair.second)?);
        ensure!(seen == (Some(1), Some(0)), "{seen:?} changes of owner with a clock that is {seconds} s ahead");
    }
    // Nor does one that begins now believe less.
    pair.second.restart(Stop::Graceful)?;
    pair.wait_for(VipState::Active, VipState::Backup)?;
    let hears = || pair.second.vips().is_ok_and(|v| v.cluster.is_some_and(|c| c.machines.iter().all(|m| m.hears_us)));
    eventually("they hear each other", SOON, hears)?;
    ensure!(transitions(&pair.first)? == Some(1), "it was lost on the way");
    pair.first.ctl(&["vip", "failover", "web"])?;
    pair.wait_for(VipState::Backup, VipState::Active)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs().cast_signed();
    let ahead = last_event(&pair.first)? - now;
    ensure!((HOUR - 60..=HOUR).contains(&ahead), "its clock was not ahead at all: {ahead} s");
    Ok(())
}
