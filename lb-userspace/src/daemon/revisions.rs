//! The configuration as a document with a history: takes changes into force, writes them to their files and keeps each as a
//! revision, all of it or nothing.
//!
//! A change is checked here, on the asker's thread, and put on the disk whole under other names; then the control task takes
//! it into force; then its files get their names. Whatever ends lbd in between, its next start has the old or the new
//! configuration, and the new one whenever somebody was told so. A disk that refuses leaves everything as it was.

mod history;
mod journal;
mod propose;
mod start;
mod waiting;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

pub(super) use self::start::{Found, find};
use self::{
    history::{History, Keep, Unreadable},
    journal::Files,
    waiting::Waiting,
};
use super::{handle::Request, notify, proxied::unix_s};
use crate::{
    config::{
        Config,
        changes::{self, Parts},
        edit::Editor,
    },
    control::{
        query::QueryError,
        revision::{
            Applied, Author, Content, Difference, How, Proposal, Revision, RevisionDocument, RevisionsView, Side,
            Source, Texts,
        },
        view::Status,
    },
};

/// How often what waits is looked at.
const TICK: Duration = Duration::from_secs(1);

/// The configuration in force, its files and its history.
#[derive(Debug)]
pub(super) struct Revisions {
    path: PathBuf,
    control: mpsc::Sender<Request>,
    /// Held through a whole change: one at a time.
    work: Mutex<Work>,
    /// Held for moments.
    known: Mutex<Known>,
}

/// What a change needs for itself.
#[derive(Debug)]
struct Work {
    history: History,
    /// What is in force and could not be written down.
    unrecorded: Option<Revision>,
    /// Whether files of a change that is made are not in their places.
    is_unfinished: bool,
    /// Why the last try to do either failed, for the log.
    trouble: Option<String>,
    /// What is in force, parsed: kept from one change to the next.
    parsed: Parsed,
}

/// A text in the forms that changes need.
#[derive(Debug, Default)]
struct Parsed {
    editor: Option<Editor>,
    parts: Option<Parts>,
}

/// What everybody may ask.
#[derive(Clone, Debug)]
struct Known {
    /// The text in force.
    texts: Arc<Texts>,
    in_force: Option<u64>,
    /// Oldest first.
    revisions: Vec<Revision>,
    waiting: Option<Waiting>,
    problems: Vec<String>,
    keep: Keep,
}

impl Revisions {
    /// Of an lbd that has started with what was found.
    pub(super) fn new(path: PathBuf, found: Found, config: &Config, control: mpsc::Sender<Request>) -> Self {
        let Found { texts, history, completed, .. } = found;
        let waiting = Waiting::load(history.directory());
        let mut known = Known {
            texts: Arc::new(texts),
            in_force: None,
            revisions: Vec::new(),
            waiting: None,
            problems: Vec::new(),
            keep: keep(config),
        };
        let mut work =
            Work { history, unrecorded: None, is_unfinished: false, trouble: None, parsed: Parsed::default() };
        match work.history.newest() {
            Some((newest, texts)) if *texts == *known.texts => known.in_force = Some(newest.number),
            Some(_) | None => {
                work.unrecorded = Some(completed.unwrap_or_else(|| revision(0, "", Source::Start, None)));
                work.record(&mut known);
            }
        }
        // A change that was not made has nothing to confirm.
        known.waiting = waiting.filter(|waiting| known.in_force == Some(waiting.revision));
        if waiting.is_some()
            && known.waiting.is_none()
            && let Err(error) = Waiting::forget(work.history.directory())
        {
            work.note(format!("what says which revision is to be confirmed cannot be removed: {error}"));
        }
        work.publish(&mut known);
        Self { path, control, work: Mutex::new(work), known: Mutex::new(known) }
    }

    /// Reads the files again whenever told so by the sender, and looks after what waits.
    pub(super) fn attend(self: &Arc<Self>) -> std::io::Result<Sender<()>> {
        let (tell, told) = channel();
        let revisions = Arc::clone(self);
        thread::Builder::new().name("revisions".to_owned()).spawn(move || revisions.keep_on(&told))?;
        Ok(tell)
    }

    fn keep_on(&self, told: &Receiver<()>) {
        loop {
            match told.recv_timeout(TICK) {
                // The outcome is in the log and in `lbctl status`.
                Ok(()) => drop(self.read_again(Source::Signal, "")),
                Err(RecvTimeoutError::Timeout) => self.look_after(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Tries again what the disk refused, and takes back what nobody confirmed.
    fn look_after(&self) {
        if let Some(waiting) = self.known().waiting
            && waiting.until <= Instant::now()
        {
            self.take_back(waiting);
        }
        let mut work = lock(&self.work);
        if work.unrecorded.is_none() && !work.is_unfinished {
            return;
        }
        work.complete(&self.path);
        let mut known = self.known();
        work.record(&mut known);
        work.publish(&mut known);
        *lock(&self.known) = known;
    }

    /// The history.
    pub(super) fn view(&self) -> RevisionsView {
        let known = self.known();
        RevisionsView {
            edited: self.edited(&known),
            revisions: known.revisions.into_iter().rev().collect(),
            in_force: known.in_force,
            unconfirmed: known.waiting.map(Waiting::view),
            problems: known.problems,
        }
    }

    /// A revision; `None`: the one in force.
    pub(super) fn read(&self, number: Option<u64>) -> Result<RevisionDocument, QueryError> {
        let known = self.known();
        match number {
            Some(number) if known.in_force != Some(number) => {
                let (revision, texts) = self.kept(number)?;
                Ok(RevisionDocument { revision: Some(revision), texts })
            }
            _ => {
                let revision = known.revisions.into_iter().find(|revision| Some(revision.number) == known.in_force);
                Ok(RevisionDocument { revision, texts: (*known.texts).clone() })
            }
        }
    }

    /// What sets two configurations apart; connections are not counted.
    pub(super) fn compare(&self, from: Side, to: Side) -> Result<Difference, QueryError> {
        let texts = |side| match side {
            Side::InForce => Ok(self.known().texts),
            Side::Revision(number) => Ok(Arc::new(self.read(Some(number))?.texts)),
            Side::Files => {
                Config::texts(&self.path).map(Arc::new).map_err(|errors| QueryError::ConfigInvalid(errors.to_string()))
            }
        };
        Ok(self.difference(&mut Parsed::default(), &*texts(from)?, &*texts(to)?, None).0)
    }

    /// Adds what only the history knows.
    pub(super) fn annotate(&self, status: &mut Status) {
        let known = self.known();
        status.config_revision = known.in_force;
        let edited = self.edited(&known);
        if !edited.is_empty() && status.config_error.is_none() {
            let (files, are) = (edited.join(", "), if edited.len() == 1 { "differs" } else { "differ" });
            status
                .warnings
                .push(format!("{files} {are} from what is in force: see lbctl diff, load it by lbctl reload"));
        }
        if let Some(waiting) = known.waiting.map(Waiting::view) {
            status.warnings.push(format!(
                "revision {} goes back to revision {} in {} s unless it is confirmed: lbctl confirm",
                waiting.revision, waiting.back_to, waiting.seconds_left
            ));
        }
        status.warnings.extend(known.problems);
    }

    /// Reads the files again and takes them into force.
    pub(super) fn read_again(&self, source: Source, author: &Author) -> Result<Applied, QueryError> {
        let mut work = lock(&self.work);
        notify::reloading();
        let known = self.known();
        let refusal = known.waiting.map(|waiting| QueryError::Conflict(still_waits(waiting)));
        let read = match refusal {
            Some(refusal) => Err(refusal),
            None => Config::texts(&self.path)
                .and_then(|texts| Ok((Config::of(&self.path, &texts)?.read_files()?, texts)))
                .map_err(|errors| {
                    for error in &errors.errors {
                        let place = error.place.as_ref().map(ToString::to_string);
                        tracing::error!(place, error = error.message, help = error.help, "configuration");
                    }
                    QueryError::ConfigInvalid(errors.to_string())
                }),
        };
        let (config, texts) = match read {
            Ok(read) => read,
            Err(why) => return self.configure(Err(why)).map(|()| Applied::default()),
        };
        let warnings = config.warnings().iter().map(ToString::to_string).collect();
        let (difference, parts) = self.difference(&mut work.parsed, &known.texts, &texts, None);
        let (changed, keep) = (*known.texts != texts, keep(&config));
        self.configure(Ok(Box::new(config)))?;
        let mut known = Known { keep, ..known };
        if changed {
            work.parsed = Parsed { editor: None, parts: Some(parts) };
            known.texts = Arc::new(texts);
            known.in_force = None;
            work.unrecorded = Some(revision(0, author, source, None));
            work.record(&mut known);
        }
        work.publish(&mut known);
        *lock(&self.known) = known.clone();
        Ok(Applied { revision: known.in_force, changed, difference, unconfirmed: None, warnings })
    }

    fn take_back(&self, waiting: Waiting) {
        let Waiting { revision, back_to, .. } = waiting;
        tracing::warn!(revision, back_to, "nobody confirmed the revision: it is taken back");
        let comment = Some(format!("revision {revision} was not confirmed"));
        let how = How { comment, force: true, ..How::default() };
        let proposal = Proposal::new(Content::Revision(back_to), None, how);
        if let Err(error) = self.propose(proposal, "", Source::Expiry, &|_| Ok(())) {
            tracing::error!(%error, revision, "the revision cannot be taken back; it is tried again");
        }
    }

    /// Keeps the revision that waits.
    pub(super) fn confirm(&self) -> Result<u64, QueryError> {
        let work = lock(&self.work);
        let Some(waiting) = self.known().waiting else {
            return Err(QueryError::Conflict("no revision waits to be confirmed; see lbctl history".to_owned()));
        };
        Waiting::forget(work.history.directory())
            .map_err(|error| QueryError::Failed(format!("the disk refuses, nothing is confirmed: {error}")))?;
        lock(&self.known).waiting = None;
        Ok(waiting.revision)
    }

    /// Lets the control task take a configuration into force, or tells it why there is none.
    fn configure(&self, read: Result<Box<Config>, QueryError>) -> Result<(), QueryError> {
        let stopping = || QueryError::Conflict("lbd is stopping".to_owned());
        let (answer, answered) = oneshot::channel();
        self.control.blocking_send(Request::Configure(read, answer)).map_err(|_| stopping())?;
        answered.blocking_recv().map_err(|_| stopping())?
    }

    fn kept(&self, number: u64) -> Result<(Revision, Texts), QueryError> {
        let known = self.known();
        if !known.revisions.iter().any(|revision| revision.number == number) {
            let (first, last) = (known.revisions.first(), known.revisions.last());
            let kept = match (first, last) {
                (Some(first), Some(last)) => format!("kept are {} to {}", first.number, last.number),
                _ => "none is kept".to_owned(),
            };
            return Err(QueryError::NotFound(format!("there is no revision {number}; {kept}: see lbctl history")));
        }
        let unreadable = |error: Unreadable| QueryError::Failed(format!("revision {number}: {error}"));
        lock(&self.work).history.read(number).map_err(unreadable)
    }

    /// What sets two texts apart, and the parts of the second, if they are not known. Those of the first are kept where they were
    /// parsed.
    fn difference(&self, parsed: &mut Parsed, from: &Texts, to: &Texts, known: Option<Parts>) -> (Difference, Parts) {
        let before = parsed.parts.get_or_insert_with(|| Parts::of(from));
        let after = known.unwrap_or_else(|| if from == to { before.clone() } else { Parts::of(to) });
        let deadline = changes::deadline(Instant::now());
        (changes::difference(&self.main_name(), (from, before), (to, &after), deadline), after)
    }

    fn main_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Files that are not what is in force.
    fn edited(&self, known: &Known) -> Vec<String> {
        match Files::read(&self.path) {
            Ok(files) => names(&files.differing(&Files::of(&known.texts), &self.path)),
            Err(error) => vec![format!("{} ({error})", self.path.display())],
        }
    }

    fn known(&self) -> Known {
        lock(&self.known).clone()
    }
}

impl Work {
    /// Writes down what is in force, if it is not.
    fn record(&mut self, known: &mut Known) {
        let Some(revision) = self.unrecorded.take() else { return };
        let written = self.history.next().and_then(|number| {
            let revision = Revision { number, ..revision.clone() };
            self.history.prepare(&revision, &known.texts)?.commit()?;
            Ok(revision)
        });
        match written {
            Ok(revision) => {
                known.in_force = Some(revision.number);
                self.history.add(revision, (*known.texts).clone());
                self.trouble = None;
            }
            Err(error) => {
                self.unrecorded = Some(revision);
                self.note(format!("what is in force cannot be written to the history: {error}"));
            }
        }
    }

    /// Moves files into their places that could not be.
    fn complete(&mut self, path: &Path) {
        if !self.is_unfinished {
            return;
        }
        match journal::recover(path) {
            Ok(_) => {
                self.is_unfinished = false;
                self.trouble = None;
            }
            Err(error) => self.note(format!("the configuration's files cannot be written: {error}")),
        }
    }

    fn note(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::error!(trouble, "it is tried again");
        }
        self.trouble = Some(trouble);
    }

    /// Removes what is old, and tells what there is.
    fn publish(&mut self, known: &mut Known) {
        self.history.prune(known.keep, unix_s(), known.waiting.map(|waiting| waiting.back_to));
        known.revisions = self.history.revisions().to_vec();
        known.problems = self.history.problems().to_vec();
        known.problems.extend(self.trouble.as_ref().map(|trouble| format!("{trouble}; it is tried again")));
    }
}

fn revision(number: u64, author: &Author, source: Source, comment: Option<String>) -> Revision {
    let (author, lbd) = (author.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Revision { number, time: unix_s(), author, source, comment, of: None, lbd }
}

fn keep(config: &Config) -> Keep {
    Keep { revisions: config.daemon.history_revisions as usize, age: config.daemon.history_age }
}

fn still_waits(waiting: Waiting) -> String {
    let Waiting { revision, back_to, .. } = waiting;
    format!("revision {revision} waits to be confirmed: first say lbctl confirm, or lbctl rollback {back_to}")
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
