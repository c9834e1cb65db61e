//! The journal of events as lbd keeps it: whoever learns of something tells it here; readers of the admin API and the alerts
//! get it from here. Never waits for anybody.

mod kept;

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{mpsc, watch};

use self::kept::{Kept, Writer};
use crate::control::{
    event::{
        Entry, Events, Fact, Filter, Name, Severity,
        journal::{Journal, KEPT},
    },
    query::EventPath,
};

/// Events that wait for the alerts at most; more are counted as lost, and are in the journal all the same.
const FOR_ALERTS: usize = 1024;

/// Where events are told. Copies tell the same journal.
#[derive(Clone, Debug)]
pub(super) struct Teller(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    journal: Mutex<Journal>,
    /// Number of the newest.
    newest: watch::Sender<u64>,
    alerts: mpsc::Sender<Arc<Entry>>,
    /// Those that the alerts did not get because they are behind.
    lost: AtomicU64,
    /// Where they survive a restart.
    kept: Option<Kept>,
}

impl Teller {
    /// An empty journal that nothing survives, and what the alerts read.
    #[cfg(test)]
    pub(super) fn new() -> (Self, mpsc::Receiver<Arc<Entry>>) {
        Self::going_on(Vec::new(), None)
    }

    /// The journal of the lbd before, what the alerts read of what happens from now on, and what writes it: to be started
    /// once threads may be.
    pub(super) fn open(state_dir: &Path) -> (Self, mpsc::Receiver<Arc<Entry>>, Writer) {
        let (kept, before, writer) = Kept::open(state_dir);
        let (teller, for_alerts) = Self::going_on(before, Some(kept));
        (teller, for_alerts, writer)
    }

    fn going_on(before: Vec<Entry>, kept: Option<Kept>) -> (Self, mpsc::Receiver<Arc<Entry>>) {
        let (alerts, for_alerts) = mpsc::channel(FOR_ALERTS);
        let journal = Journal::going_on(KEPT, before);
        let newest = watch::channel(journal.newest()).0;
        let shared = Shared { journal: Mutex::new(journal), newest, alerts, lost: AtomicU64::new(0), kept };
        (Self(Arc::new(shared)), for_alerts)
    }

    /// Waits until what was told would survive an end, but not long.
    pub(super) fn flush(&self) {
        if let Some(kept) = &self.0.kept {
            kept.flush();
        }
    }

    /// Keeps what happened now, writes it to the log, and wakes who waits for it.
    pub(super) fn tell(&self, fact: Fact) {
        let entry = self.journal().add(fact, unix_ms());
        let Entry { number, name, severity, object, text, .. } = &*entry;
        let event = name.word();
        match severity {
            Severity::Info => tracing::info!(event, object, number, "{text}"),
            Severity::Warning | Severity::Critical => tracing::warn!(event, object, number, "{text}"),
        }
        // Another thread may have told of a later one already.
        self.0.newest.send_modify(|newest| *newest = entry.number.max(*newest));
        if let Some(kept) = &self.0.kept {
            kept.add(&entry);
        }
        // Without alerts nobody reads.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.alerts.try_send(entry) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        // It is whole after every one of its methods.
        self.0.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventPath for Teller {
    fn events(&self, filter: &Filter) -> Events {
        self.journal().list(filter)
    }

    fn newer(&self, than: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut newest = self.0.newest.subscribe();
        // The journal lives as long as lbd; without it there is nothing to wait for.
        Box::pin(async move { drop(newest.wait_for(|newest| *newest > than).await) })
    }

    fn counts(&self) -> BTreeMap<Name, u64> {
        self.journal().counts().clone()
    }

    fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn fact(object: &str) -> Fact {
        Fact::new(Name::NodeDown, object, "it is down")
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_what_is_newer() {
        let (teller, _alerts) = Teller::new();
        teller.tell(fact("web/n1"));
        teller.newer(0).await;
        let waiting = teller.newer(1);
        assert!(timeout(Duration::from_millis(20), teller.newer(1)).await.is_err());
        let other = teller.clone();
        let told = tokio::spawn(async move { other.tell(fact("web/n2")) });
        timeout(Duration::from_secs(5), waiting).await.unwrap();
        told.await.unwrap();
        let events = teller.events(&Filter { after: Some(1), ..Filter::default() });
        assert_eq!((events.newest, events.events[0].object.as_str()), (2, "web/n2"));
        assert!(events.events[0].at_ms > 1_700_000_000_000, "milliseconds");
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_alerts_are_not_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let (teller, _alerts, writer) = Teller::open(dir.path());
        writer.start().unwrap();
        teller.tell(fact("web/n1"));
        teller.tell(fact("web/n2"));
        teller.flush();
        let (teller, mut alerts, _) = Teller::open(dir.path());
        assert!(alerts.try_recv().is_err() && teller.counts().is_empty());
        teller.tell(fact("web/n3"));
        let events = teller.events(&Filter::default());
        let seen: Vec<_> = events.events.iter().map(|entry| (entry.number, entry.object.as_str())).collect();
        assert_eq!(seen, [(1, "web/n1"), (2, "web/n2"), (3, "web/n3")]);
    }

    #[test]
    fn alerts_that_are_behind_lose_events_and_nobody_waits() {
        let (teller, mut alerts) = Teller::new();
        for _ in 0..FOR_ALERTS + 7 {
            teller.tell(fact("web/n1"));
        }
        assert_eq!(teller.lost(), 7);
        assert_eq!(teller.counts()[&Name::NodeDown], FOR_ALERTS as u64 + 7);
        assert_eq!(alerts.try_recv().unwrap().number, 1);
        drop(alerts);
        teller.tell(fact("web/n1"));
        assert_eq!(teller.lost(), 7, "without alerts nothing is lost");
    }
}
