//! The histories as lbd keeps them: fed by the watch, asked by the admin API, written to a file of the state directory every
//! five minutes and when lbd ends. A file that is damaged is put aside and never stops lbd.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::journal::unix_ms;
use crate::{
    control::{
        history::{self, History, HistoryView, Question, file},
        query::{Counters, HistoryPath},
    },
    state_file,
};

/// Where they are kept.
const FILE: &str = "history.bin";

/// How often they are written.
const SAVED_EVERY: Duration = Duration::from_secs(300);

/// Histories. Copies are of the same.
#[derive(Clone, Debug)]
pub(super) struct Histories(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// When lbd started, by both clocks: time goes on evenly whatever is done to the wall clock.
    started: (Instant, u64),
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    history: History,
    before: Option<(Instant, Counters)>,
    saved: Instant,
    /// Whether it was told that they cannot be written.
    told: bool,
}

impl Histories {
    /// What an earlier lbd left.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let (now, wall) = (Instant::now(), unix_ms() / 1000);
        let read = state_file::read_sealed(&path).map_err(|damage| damage.to_string());
        let read =
            read.and_then(|bytes| bytes.map(|bytes| file::read(&bytes, wall)).transpose().map_err(|e| e.to_string()));
        let history = read.unwrap_or_else(|why| {
            let aside = state_file::put_aside(&path).is_ok();
            tracing::warn!(path = %path.display(), why, aside, "histories cannot be used and begin anew");
            None
        });
        let history = history.unwrap_or_default();
        let kept = Mutex::new(Kept { history, before: None, saved: now, told: false });
        Self(Arc::new(Shared { path, started: (now, wall), kept }))
    }

    /// Takes a look at the counters into them, and writes them when it is time.
    pub(super) fn take(&self, counters: Counters) {
        let now = Instant::now();
        let mut kept = self.kept();
        if let Some((then, before)) = &kept.before {
            let values = history::sample(before, &counters, now.saturating_duration_since(*then));
            let time = self.time(now);
            kept.history.add(time, &values);
        }
        kept.before = Some((now, counters));
        if now.saturating_duration_since(kept.saved) >= SAVED_EVERY {
            kept.saved = now;
            drop(kept);
            self.save();
        }
    }

    /// Writes them now. Not synced, since who calls may not wait for a disk: what a power cut leaves of them is known by its seal.
    pub(super) fn save(&self) {
        let bytes = file::write(&self.kept().history);
        let outcome = state_file::replace_sealed_unsynced(&self.0.path, &bytes);
        let mut kept = self.kept();
        if let Err(error) = &outcome
            && !kept.told
        {
            tracing::warn!(path = %self.0.path.display(), %error, "histories cannot be written");
        }
        kept.told = outcome.is_err();
    }

    fn time(&self, now: Instant) -> u64 {
        let (started, wall) = self.0.started;
        wall + now.saturating_duration_since(started).as_secs()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HistoryPath for Histories {
    fn history(&self, question: &Question) -> HistoryView {
        let now = self.time(Instant::now());
        self.kept().history.show(question, now)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::control::view::TableUse;

    fn counters(used: u64) -> Counters {
        Counters { tables: [("FLOWS".to_owned(), TableUse { used, capacity: 100 })].into(), ..Counters::default() }
    }

    fn fill(histories: &Histories) -> Vec<f32> {
        let question = Question { series: Some("table.FLOWS".into()), since_s: Some(600) };
        let view = histories.history(&question);
        view.series.iter().flat_map(|series| series.values.iter().flatten().copied()).collect()
    }

    #[test]
    fn histories_survive_a_restart_and_a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let histories = Histories::load(dir.path());
        histories.take(counters(10));
        histories.take(counters(50));
        assert_eq!(fill(&histories), [0.5], "the first look has nothing to compare with");
        // A point that is being made is not written; what has ended is.
        histories.0.kept.lock().unwrap().history.add(unix_ms() / 1000 + 1, &[("table.FLOWS".to_owned(), 0.75)]);
        histories.save();
        assert_eq!(fill(&Histories::load(dir.path())), [0.5]);

        let path = dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(fill(&Histories::load(dir.path())), [0.0; 0]);
        assert!(dir.path().join("history.bin.damaged").exists() && !path.exists());
    }

    #[test]
    fn a_full_disk_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("state");
        fs::write(&blocked, "no directory").unwrap();
        let histories = Histories::load(&blocked);
        histories.take(counters(1));
        histories.save();
        assert!(histories.kept().told);
        fs::remove_file(&blocked).unwrap();
        histories.save();
        assert!(!histories.kept().told && blocked.join(FILE).exists());
    }
}
