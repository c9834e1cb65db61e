//! Two CPUs at once: two lists of frames, run by two pinned threads that begin together and go through the same maps.

use std::{
    hint,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::Rig;

/// What became of a frame: XDP's answer, and the frame that came out.
pub type Ran = (u32, Vec<u8>);

impl Rig {
    /// Runs each list on a CPU of its own; what became of its frames, in order. Counters are not looked at.
    ///
    /// # Errors
    /// Without two CPUs, and what the kernel says.
    pub fn run_on_two_cpus(&self, lists: [&[Vec<u8>]; 2]) -> Result<[Vec<Ran>; 2]> {
        let [first, second] = two_cpus()?;
        let ready = AtomicUsize::new(0);
        let [a, b] = lists;
        thread::scope(|scope| {
            let other = scope.spawn(|| self.run_list(b, second, &ready));
            let own = scope.spawn(|| self.run_list(a, first, &ready));
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Vec<Ran>>>| {
                thread.join().map_err(|_| anyhow!("a thread of the pair panicked"))?
            };
            Ok([join(own)?, join(other)?])
        })
    }

    fn run_list(&self, frames: &[Vec<u8>], cpu: CpuSet, ready: &AtomicUsize) -> Result<Vec<Ran>> {
        sched_setaffinity(Pid::from_raw(0), &cpu).context("pinning a thread")?;
        ready.fetch_add(1, Ordering::AcqRel);
        while ready.load(Ordering::Acquire) < 2 {
            hint::spin_loop();
            thread::yield_now();
        }
        let mut ran = Vec::with_capacity(frames.len());
        for frame in frames {
            let mut out = Vec::new();
            let action = self.test_run(frame, &mut out)?;
            ran.push((action, out));
        }
        Ok(ran)
    }
}

/// The first two CPUs that this process may use.
fn two_cpus() -> Result<[CpuSet; 2]> {
    let own = sched_getaffinity(Pid::from_raw(0))?;
    let mut usable = (0..CpuSet::count()).filter(|cpu| own.is_set(*cpu).unwrap_or(false));
    let mut next = || -> Result<CpuSet> {
        let mut one = CpuSet::new();
        one.set(usable.next().context("this test needs two CPUs")?)?;
        Ok(one)
    };
    Ok([next()?, next()?])
}
