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

/// Processor time that a slice may take: 3 % of a core, whatever is in the tables. Where that does not suffice, a pass takes
/// longer.
const SLICE_TIME: Duration = Duration::from_millis(3);

/// Places that are walked before the clock is looked at.
const STEP_PLACES: u32 = 8192;

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
    let places = pass.places().div_ceil(SLICES);
    let mut plan = Arc::clone(&context.names.snapshot().plan);
    let mut alarmed = false;
    let mut tick = interval(SLICE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(findings) = slice(&mut pass, places) else { continue };
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

/// Walks on by so many places, or as far as the time suffices.
fn slice(pass: &mut Pass, places: u64) -> Option<Findings> {
    let (start, now) = (clock::thread_time(), clock::now());
    for _ in 0..places.div_ceil(STEP_PLACES.into()) {
        if let Some(findings) = pass.advance(STEP_PLACES, now) {
            return Some(findings);
        }
        if clock::thread_time().saturating_sub(start) >= SLICE_TIME {
            break;
        }
    }
    None
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
