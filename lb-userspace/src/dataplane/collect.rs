//! The collector: removes what is dead from the flow tables and counts what is not. XDP programs reuse expired places when
//! they happen on them, but only the daemon sees a connection that nobody speaks on any more.
//!
//! It runs on a thread of its own, a slice of the tables at a time, and takes nothing but by exchanging the whole control
//! word of a record: a packet that comes in between wins. Two collectors at once (an `lbd` and its successor) do no harm.
//! Started by `daemon`; `inspect` shows what it found.

pub mod fate;
pub mod pass;
pub mod recount;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};

use self::pass::{Findings, Pass};
use super::{clock, inspect::Context, task};
use crate::control::{plan::Plan, view::TableUse};

/// How often a slice is walked.
const SLICE: Duration = Duration::from_millis(100);

/// Slices of a whole pass.
const SLICES: u64 = 20;

/// Places in a slice at most (4 ms of work): a pass over tables of more than five million places takes longer.
const SLICE_PLACES: u32 = 262_144;

/// Fill of `FLOWS`, in percent, that is logged: from there on new connections may find no room.
const ALARM_PERCENT: u64 = 70;

/// What the collector found last, shared.
#[derive(Clone, Debug, Default)]
pub struct Collected(Arc<RwLock<BTreeMap<String, TableUse>>>);

impl Collected {
    /// Live records and places by table; empty before the first pass is over.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<String, TableUse> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, tables: BTreeMap<String, TableUse>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tables;
    }
}

/// The running collector; ends, within a slice, when dropped. It holds a [`task::Handle`]: drop it before the data plane's
/// thread is joined.
#[derive(Debug)]
pub struct Collector {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Collector {
    /// Starts it. What it finds goes to `context.collected` and, for the address filter, to `data_plane`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(context: Context, data_plane: task::Handle) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = thread::Builder::new().name("collector".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    // Dropped without a word: that is the word.
                    _ = stopped => {}
                    () = run(context, data_plane) => {}
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the collector ended by a panic");
        }
    }
}

/// Walks until the data plane has ended.
async fn run(context: Context, data_plane: task::Handle) {
    let mut pass = Pass::new(Arc::clone(&context.maps));
    let places = slice_places(pass.places());
    let mut plan = Arc::clone(&context.names.snapshot().plan);
    let mut alarmed = false;
    let mut tick = interval(SLICE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(findings) = pass.advance(places, clock::now()) else { continue };
        tracing::trace!(removed = findings.removed, "flow tables collected");
        alarmed = watch(&findings, alarmed);
        context.collected.replace(findings.tables);
        let newest = Arc::clone(&context.names.snapshot().plan);
        // Where the plan changed meanwhile, a connection may have been opened behind our back by a node that is not
        // translated any more.
        if same(&plan, &newest) && data_plane.collected(findings.translated).await.is_err() {
            return;
        }
        plan = newest;
    }
}

fn same(before: &Arc<Plan>, now: &Arc<Plan>) -> bool {
    Arc::ptr_eq(before, now)
}

/// How many places a slice has.
fn slice_places(all: u64) -> u32 {
    u32::try_from(all.div_ceil(SLICES)).unwrap_or(SLICE_PLACES).clamp(1, SLICE_PLACES)
}

/// Says so in the log when `FLOWS` fills up, and when it has room again. Whether it is full.
fn watch(findings: &Findings, alarmed: bool) -> bool {
    let Some(TableUse { used, capacity }) = findings.tables.get("FLOWS").copied() else { return alarmed };
    let full = used * 100 >= capacity * ALARM_PERCENT;
    if full && !alarmed {
        tracing::warn!(used, capacity, "the flow table fills up: raise [dataplane] max_flows");
    } else if alarmed && !full {
        tracing::info!(used, capacity, "the flow table has room again");
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_two_seconds_and_a_slice_is_never_too_long() {
        assert_eq!([slice_places(8), slice_places(2_800_000), slice_places(1 << 33)], [1, 140_000, SLICE_PLACES]);
    }

    #[test]
    fn the_alarm_is_raised_once_and_withdrawn_once() {
        let findings = |used| Findings {
            tables: BTreeMap::from([("FLOWS".to_owned(), TableUse { used, capacity: 1000 })]),
            ..Findings::default()
        };
        assert_eq!(
            [(699, false), (700, false), (700, true), (699, true)].map(|(u, a)| watch(&findings(u), a)),
            [false, true, true, false]
        );
    }
}
