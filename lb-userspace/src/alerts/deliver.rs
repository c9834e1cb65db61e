//! Delivers the notices of one alert, one after the other: within its limit, and again when an attempt fails. A task of its
//! own with a queue of bounded length, so that one who does not answer holds nobody else up (THREATS X28).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until},
};

use super::{
    limit::Limiter,
    notice::{Notice, Subject},
    select::Chosen,
    settings::Told,
    sink::Sink,
};
use crate::control::{
    event::{Entry, Name},
    view::AlertCounts,
};

/// Events that wait for an alert at most; more are dropped, and counted.
pub(super) const QUEUE: usize = 256;

/// Before the first further attempt; the next ones wait twice as long each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An event that an alert tells.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) entry: Arc<Entry>,
    pub(super) chosen: Chosen,
}

/// What became of an alert's notices, for others to read.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<AlertCounts>);

impl Counts {
    pub(super) fn get(&self) -> AlertCounts {
        self.lock().clone()
    }

    pub(super) fn drop_one(&self) {
        self.lock().dropped += 1;
    }

    pub(super) fn note(&self, outcome: &Result<(), super::Failure>) {
        let mut counts = self.lock();
        match outcome {
            Ok(()) => {
                counts.sent += 1;
                counts.last_sent_ms = Some(unix_ms());
                counts.problem = None;
            }
            Err(failure) => {
                counts.failed += 1;
                counts.problem = Some(failure.why.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, AlertCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Delivers until the queue is closed and empty.
pub(super) async fn deliver(
    told: Told,
    sink: Arc<Sink>,
    machine: Arc<str>,
    counts: Arc<Counts>,
    mut queue: mpsc::Receiver<Job>,
) {
    let mut limiter = Limiter::new(told.alert.limit, told.alert.per);
    loop {
        let tells_at = limiter.tells_at();
        let summary = async {
            match tells_at {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let notice = tokio::select! {
            job = queue.recv() => match job {
                Some(job) => event(&mut limiter, &machine, &counts, job),
                None => break,
            },
            () = summary => limiter.release(Instant::now()).map(|held| {
                notice(&machine, unix_ms(), Subject::HeldBack, held)
            }),
        };
        if let Some(notice) = notice {
            tell(&told, &sink, &counts, &notice).await;
        }
    }
}

fn event(limiter: &mut Limiter, machine: &Arc<str>, counts: &Counts, job: Job) -> Option<Notice> {
    let Job { entry, chosen } = job;
    let Some(held) = limiter.admit(entry.name, Instant::now()) else {
        counts.lock().held_back += 1;
        return None;
    };
    let at_ms = entry.at_ms;
    let ends = chosen.ends.map(|(name, began)| (name, Duration::from_millis(at_ms.saturating_sub(began))));
    Some(notice(machine, at_ms, Subject::Event(entry, ends), held))
}

/// A notice of a test.
pub(super) fn test(machine: &Arc<str>) -> Notice {
    notice(machine, unix_ms(), Subject::Test, BTreeMap::new())
}

fn notice(machine: &Arc<str>, at_ms: u64, subject: Subject, held_back: BTreeMap<Name, u64>) -> Notice {
    Notice { machine: Arc::clone(machine), at_ms, subject, held_back }
}

async fn tell(told: &Told, sink: &Sink, counts: &Counts, notice: &Notice) {
    let mut pause = FIRST_PAUSE;
    let mut left = told.alert.retries;
    let outcome = loop {
        let outcome = sink.attempt(notice).await;
        let Err(failure) = &outcome else { break outcome };
        if !failure.again || left == 0 {
            break outcome;
        }
        tracing::debug!(alert = told.name, why = failure.why, "an alert was not told; it is tried again");
        left -= 1;
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    };
    if let Err(failure) = &outcome {
        let (alert, event) = (&told.name, notice.name());
        tracing::warn!(alert, event, why = failure.why, "an alert could not be told");
    }
    counts.note(&outcome);
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
