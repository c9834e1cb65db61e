//! Keeps over a restart what the control task knows, on a thread of its own: a disk may take seconds, in which nodes fail and
//! operators ask. Of changes that come while it writes, only what they come to is written.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::remembered::{DOWN, Down, NAMES, OVERRIDES, Remembered};
use crate::control::state::Overrides;

/// Between two attempts at a disk that refuses.
const AGAIN: Duration = Duration::from_secs(1);

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    /// What operators set at run time.
    pub(super) overrides: Overrides,
    /// What monitors say is down.
    pub(super) down: Vec<Down>,
    /// What DNS names of nodes stand for.
    pub(super) names: BTreeMap<String, Vec<IpAddr>>,
}

/// See the module. Its thread ends with it, and is not waited for.
#[derive(Debug)]
pub(super) struct Keeper {
    /// What it was given last.
    known: Known,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

type Then = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Work {
    /// What is to be written next.
    next: Option<Known>,
    /// Whether the disk has refused it.
    refused: bool,
    /// Who waits for it.
    waiting: Vec<Then>,
    /// Whether something is being written.
    busy: bool,
    /// Why the last attempt came to nothing.
    failure: Option<String>,
    ended: bool,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("busy", &self.busy).field("failure", &self.failure).finish_non_exhaustive()
    }
}

struct Files {
    overrides: Remembered<Overrides>,
    down: Remembered<Vec<Down>>,
    names: Remembered<BTreeMap<String, Vec<IpAddr>>>,
}

impl Files {
    fn save(&mut self, known: &Known) -> io::Result<()> {
        self.overrides.save(&known.overrides)?;
        self.down.save(&known.down)?;
        self.names.save(&known.names)
    }
}

impl Known {
    /// What an earlier lbd left.
    pub(super) fn load(state_dir: &Path) -> (Self, Unstarted) {
        let files = Files {
            overrides: Remembered::load(state_dir, OVERRIDES),
            down: Remembered::load(state_dir, DOWN),
            names: Remembered::load(state_dir, NAMES),
        };
        let known = Self {
            overrides: files.overrides.value().clone(),
            down: files.down.value().clone(),
            names: files.names.value().clone(),
        };
        (known.clone(), Unstarted { known, files })
    }
}

/// A keeper without its thread.
#[must_use = "nothing is kept before it is started"]
pub(super) struct Unstarted {
    known: Known,
    files: Files,
}

impl Unstarted {
    /// Starts the thread. To be called when the process has given up its privileges, which belong to threads.
    pub(super) fn start(self) -> io::Result<Keeper> {
        let mut files = self.files;
        Keeper::start(self.known, move |known| files.save(known))
    }
}

impl Keeper {
    fn start(known: Known, save: impl FnMut(&Known) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let works = Arc::clone(&shared);
        thread::Builder::new().name("keeper".to_owned()).spawn(move || works.run(save))?;
        Ok(Self { known, shared })
    }

    /// What it was given last; at first what the lbd before left.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// Keeps what is known now; nothing is done for what is kept already.
    pub(super) fn keep(&mut self, overrides: &Overrides, down: &[Down], names: &BTreeMap<String, Vec<IpAddr>>) {
        let known = &mut self.known;
        if known.overrides == *overrides && known.down == down && known.names == *names {
            return;
        }
        (known.overrides, known.down, known.names) = (overrides.clone(), down.to_vec(), names.clone());
        let mut work = self.shared.work();
        (work.next, work.refused) = (Some(known.clone()), false);
        drop(work);
        self.shared.changed.notify_all();
    }

    /// Calls back when the disk has all that was given so far, or has refused it.
    pub(super) fn then(&self, done: impl FnOnce() + Send + 'static) {
        let mut work = self.shared.work();
        if work.is_idle() {
            drop(work);
            done();
        } else {
            work.waiting.push(Box::new(done));
        }
    }

    /// Waits, for so long at most, until the disk has all that was given so far, or has refused it. Whether it was in time.
    pub(super) fn flush(&self, longest: Duration) -> bool {
        let is_busy = |work: &mut Work| !work.is_idle();
        let waited = self.shared.changed.wait_timeout_while(self.shared.work(), longest, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Why what is known now would not survive a restart.
    pub(super) fn failure(&self) -> Option<String> {
        self.shared.work().failure.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.work().ended = true;
        self.shared.changed.notify_all();
    }
}

impl Work {
    /// Whether all that was given was tried.
    fn is_idle(&self) -> bool {
        !self.busy && (self.next.is_none() || self.refused)
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut save: impl FnMut(&Known) -> io::Result<()>) {
        while let Some(known) = self.next() {
            let failure = save(&known).err().map(|error| error.to_string());
            let mut work = self.work();
            if failure.is_some() && work.next.is_none() {
                (work.next, work.refused) = (Some(known), true);
            }
            (work.busy, work.failure) = (false, failure);
            // Who waits for what came meanwhile waits on.
            let waiting = if work.is_idle() { std::mem::take(&mut work.waiting) } else { Vec::new() };
            drop(work);
            self.changed.notify_all();
            waiting.into_iter().for_each(|then| then());
        }
    }

    /// What is to be written next; `None`: there will be nothing more.
    fn next(&self) -> Option<Known> {
        let again = Instant::now() + AGAIN;
        let mut work = self.work();
        loop {
            let left = if work.refused { again.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            if left.is_zero()
                && let Some(next) = work.next.take()
            {
                (work.busy, work.refused) = (true, false);
                return Some(next);
            }
            if work.ended {
                return None;
            }
            // A new value, or the end, comes with a call.
            let pause = if work.next.is_some() { left } else { Duration::MAX };
            work = self.changed.wait_timeout(work, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn down(node: &str) -> Vec<Down> {
        let named = str::to_owned;
        vec![Down { pool: named("web"), node: named(node), monitor: named("tcp"), reason: None }]
    }

    fn keep(keeper: &mut Keeper, node: &str) {
        keeper.keep(&Overrides::default(), &down(node), &BTreeMap::new());
    }

    #[test]
    fn what_came_last_is_on_the_disk_when_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (known, keeper) = Known::load(dir.path());
        assert_eq!(known, Known::default());
        let mut keeper = keeper.start().unwrap();
        for number in 0..100 {
            keep(&mut keeper, &format!("n{number}"));
        }
        let (told, heard) = mpsc::channel();
        keeper.then(move || told.send(()).unwrap());
        heard.recv_timeout(LONG).unwrap();
        assert_eq!(Known::load(dir.path()).0.down, down("n99"));
        assert!(keeper.flush(Duration::ZERO) && keeper.failure().is_none(), "nothing is left to be done");
    }

    #[test]
    fn a_disk_that_refuses_is_told_holds_nobody_up_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        fs::write(&state_dir, "not a directory").unwrap();
        let mut keeper = Known::load(&state_dir).1.start().unwrap();
        keep(&mut keeper, "n1");
        assert!(keeper.flush(LONG), "refused is an answer, too");
        assert!(keeper.failure().is_some());
        let (told, heard) = mpsc::channel();
        keeper.then(move || told.send(()).unwrap());
        heard.recv_timeout(LONG).unwrap();
        fs::remove_file(&state_dir).unwrap();
        let until = Instant::now() + LONG;
        while keeper.failure().is_some() {
            assert!(Instant::now() < until, "it is not tried again");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(Known::load(&state_dir).0.down, down("n1"));
    }

    #[test]
    fn a_disk_that_hangs_holds_nobody_up_and_gets_what_came_last() {
        let (saved, written) = mpsc::channel();
        let (goes_on, disk) = mpsc::channel();
        let mut keeper = Keeper::start(Known::default(), move |known| {
            disk.recv().map_err(io::Error::other)?;
            saved.send(known.down.clone()).map_err(io::Error::other)
        })
        .unwrap();
        keep(&mut keeper, "n1");
        assert!(!keeper.flush(Duration::from_millis(50)), "it hangs");
        keep(&mut keeper, "n2");
        keep(&mut keeper, "n3");
        let (told, heard) = mpsc::channel();
        keeper.then(move || told.send(()).unwrap());
        goes_on.send(()).unwrap();
        let first = written.recv_timeout(LONG).unwrap();
        assert!(first == down("n1") || first == down("n3"), "{first:?}");
        if first == down("n1") {
            assert!(heard.try_recv().is_err(), "what came meanwhile is not on the disk yet");
            goes_on.send(()).unwrap();
            assert_eq!(written.recv_timeout(LONG).unwrap(), down("n3"));
        }
        heard.recv_timeout(LONG).unwrap();
    }
}
