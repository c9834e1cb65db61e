//! What packets pay while somebody captures: the capturing program, asked for what never comes, or for everything.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aya::maps::{Array, Map, MapData, RingBuf};
use lb::{
    control::capture::DEFAULT_SNAPLEN,
    dataplane::load::{self, Program, Purpose},
};
use lb_common::{
    capture::{Control, Filter, direction, map},
    maps::Meta,
    reason::Reason,
};
use lb_tests::harness::wait::let_pass;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Bytes of the ring, as lbd's.
const RING: u32 = 4 << 20;
/// How often an empty ring is looked at.
const PAUSE: Duration = Duration::from_micros(200);

/// What is captured while a row is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Captured {
    /// Packets to a port that none has.
    Nothing,
    /// Every packet, as it comes and as it leaves.
    Everything,
}

impl Captured {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "nothing" => Ok(Self::Nothing),
            "everything" => Ok(Self::Everything),
            other => bail!("--capture {other}: it is nothing or everything"),
        }
    }

    fn control(self) -> Control {
        let port = if self == Self::Nothing { 9 } else { 0 };
        Control {
            filter: Filter { reasons: (1 << Reason::ALL.len()) - 1, port, ..Filter::default() },
            until_ns: u64::MAX,
            left: i64::MAX,
            lost: 0,
            snaplen: DEFAULT_SNAPLEN,
            directions: u32::from(direction::IN | direction::OUT),
        }
    }
}

/// Loads the capturing program; while the reader lives, what it tells is read on the first CPU, as lbd reads it.
pub(crate) fn load(maps: &Path, meta: &Meta, purpose: Purpose, captured: Captured) -> Result<(Program, Reader)> {
    let program = load::load_capture(maps, meta, purpose, maps, RING)?;
    let pinned = |name: &str| MapData::from_pin(maps.join(name)).with_context(|| format!("map {name}"));
    Array::try_from(Map::Array(pinned(map::CAPTURE)?))?.set(0, captured.control(), 0)?;
    let ring = RingBuf::try_from(Map::RingBuf(pinned(map::CAPTURED)?))?;
    Ok((program, Reader::start(ring)))
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(mut ring: RingBuf<MapData>) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            leave_the_measured_cpu();
            while !stopped.load(Ordering::Relaxed) {
                while ring.next().is_some() {}
                let_pass(PAUSE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

/// Threads begin where their maker is, with its priority.
fn leave_the_measured_cpu() {
    let mut first = CpuSet::new();
    // SAFETY: a plain structure, passed by address for the length of the call.
    let usual = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &libc::sched_param { sched_priority: 0 }) };
    if usual != 0 || first.set(0).and_then(|()| sched_setaffinity(Pid::from_raw(0), &first)).is_err() {
        crate::note("the reader of the capture shares the measured CPU");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It does nothing that could fail.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
