//! Taking a proposed configuration into force.

use std::{
    io::ErrorKind,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Files, Known, Parsed, Revisions, Waiting, Work, history::Keep, journal, journal::Pending, keep, lock, names,
    revision, still_waits,
};
use crate::{
    config::{
        Config, ConfigErrors,
        changes::Parts,
        edit::{EditError, Editor},
    },
    control::{
        query::QueryError,
        revision::{Applied, Author, Content, Difference, Edit, Proposal, Revision, Source, Texts, Whole},
    },
    state_file::Prepared,
};

/// The longest comment, in characters.
const LONGEST_COMMENT: usize = 500;

/// The longest a revision waits to be confirmed.
const LONGEST_WAIT: u64 = 24 * 60 * 60;

/// Everything of a change, on the disk under other names.
struct Ready {
    files: Pending,
    revision: Prepared,
    waiting: Option<(Prepared, Waiting)>,
}

impl Revisions {
    /// Takes a proposed configuration into force, writes its files and records it. [`Configuration::apply`] says what fails.
    /// `count` says how many connections go through what will change, while they still do.
    ///
    /// [`Configuration::apply`]: crate::control::revision::Configuration::apply
    pub(in crate::daemon) fn propose(
        &self,
        proposal: Proposal,
        author: &Author,
        source: Source,
        count: &dyn Fn(&mut Difference) -> Result<(), QueryError>,
    ) -> Result<Applied, QueryError> {
        plausible(&proposal)?;
        let of = if let Content::Revision(number) = proposal.content { Some(number) } else { None };
        // Read before the lock: it takes the same.
        let earlier = of.map(|number| self.read(Some(number))).transpose()?.map(|document| document.texts);
        let mut work = lock(&self.work);
        let known = self.known();
        let now = self.allowed(&proposal, &known)?;
        // Of no use any more once an edit has failed.
        let mut editor = work.parsed.editor.take();
        let mut parts = None;
        let texts = match (proposal.content, earlier) {
            (Content::Revision(_), Some(texts)) => texts,
            (Content::Revision(_), None) => Texts::default(),
            (Content::Whole(Whole { main, fragments }), _) => {
                Texts { main, fragments: fragments.unwrap_or_else(|| known.texts.fragments.clone()) }
            }
            (Content::Edits(edits), _) => {
                let texts = edited(&mut editor, &known.texts, &edits);
                let before = work.parsed.parts.as_ref();
                parts = editor.as_ref().zip(before).map(|(editor, before)| before.edited(editor, &edits));
                texts.map_err(|error| QueryError::Invalid(error.to_string()))?
            }
        };
        let is_edit = source == Source::Edit;
        let (config, difference) = self.look_at(&mut work.parsed, &known.texts, &texts, parts);
        let config = config.map_err(|errors| QueryError::ConfigInvalid(errors.to_string()))?;
        let (mut difference, parts) = difference;
        count(&mut difference)?;
        let mut applied = Applied {
            revision: known.in_force,
            changed: texts != *known.texts,
            difference,
            unconfirmed: None,
            warnings: config.warnings().iter().map(ToString::to_string).collect(),
        };
        if proposal.dry_run || (!applied.changed && now == Files::of(&texts)) {
            return Ok(applied);
        }
        let number = work.history.next().map_err(|error| refused_by_disk(&error))?;
        let revision = Revision { of, ..revision(number, author, source, proposal.comment) };
        let ready = self.prepare(&work, &known, &now, &revision, &texts, proposal.confirm_s)?;
        let keep = keep(&config);
        self.configure(Ok(Box::new(config)))?;
        applied.revision = Some(number);
        applied.unconfirmed = ready.waiting.as_ref().map(|(_, waiting)| waiting.view());
        self.commit(&mut work, known, ready, (revision, texts, keep))?;
        work.parsed = Parsed { editor: editor.filter(|_| is_edit), parts: Some(parts) };
        Ok(applied)
    }

    /// Checks texts, and finds out beside it what they change: of a large configuration, both take their time.
    fn look_at(
        &self,
        parsed: &mut Parsed,
        before: &Texts,
        texts: &Texts,
        parts: Option<Parts>,
    ) -> (Result<Config, ConfigErrors>, (Difference, Parts)) {
        thread::scope(|scope| {
            let check = || Config::of(&self.path, texts).and_then(Config::read_files);
            let checked = thread::Builder::new().name("check".to_owned()).spawn_scoped(scope, check);
            let difference = self.difference(parsed, before, texts, parts);
            let config = match checked.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(config)) => config,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // No thread is to be had.
                Err(_) => check(),
            };
            (config, difference)
        })
    }

    /// The files as they are now, if the proposal may replace them.
    fn allowed(&self, proposal: &Proposal, known: &Known) -> Result<Files, QueryError> {
        if let Some(base) = proposal.base
            && known.in_force != Some(base)
        {
            let now = known.in_force.map_or_else(|| "another".to_owned(), |number| number.to_string());
            let why = format!("revision {now} is in force, not {base}: look at it and propose the change again");
            return Err(QueryError::Stale(why));
        }
        let now = Files::read(&self.path);
        let now = now.map_err(|error| QueryError::Failed(format!("cannot read the configuration's files: {error}")))?;
        if proposal.force {
            return Ok(now);
        }
        let edited = names(&now.differing(&Files::of(&known.texts), &self.path)).join(", ");
        if !edited.is_empty() {
            return Err(QueryError::Conflict(format!(
                "{edited}: edited, and not loaded. See it by lbctl diff and load it by lbctl reload, or overwrite it by --force"
            )));
        }
        match (known.waiting, &proposal.content) {
            // Going back is what the waiting is for.
            (Some(waiting), Content::Whole(_) | Content::Edits(_)) => Err(QueryError::Conflict(still_waits(waiting))),
            (Some(_), Content::Revision(_)) | (None, _) => Ok(now),
        }
    }

    fn prepare(
        &self,
        work: &Work,
        known: &Known,
        now: &Files,
        revision: &Revision,
        texts: &Texts,
        confirm_s: Option<u64>,
    ) -> Result<Ready, QueryError> {
        let directory = work.history.directory();
        let waiting = match (confirm_s, known.in_force) {
            (None, _) => None,
            (Some(_), None) => {
                let why = "what is in force now is not in the history: there is nothing to go back to";
                return Err(QueryError::Conflict(why.to_owned()));
            }
            (Some(seconds), Some(back_to)) => {
                let until = Instant::now() + Duration::from_secs(seconds);
                let waiting = Waiting { revision: revision.number, back_to, until };
                let prepared = Waiting::prepare(directory, revision.number, back_to, seconds);
                Some((prepared.map_err(|error| refused_by_disk(&error))?, waiting))
            }
        };
        let ready = || {
            let files = journal::prepare(&self.path, now, texts, revision)?;
            Ok(Ready { files, revision: work.history.prepare(revision, texts)?, waiting })
        };
        ready().map_err(|error| refused_by_disk(&error))
    }

    /// Gives everything its name. Once the files' journal has it, the change is made, and whatever fails is completed later.
    fn commit(
        &self,
        work: &mut Work,
        mut known: Known,
        ready: Ready,
        (revision, texts, keep): (Revision, Texts, Keep),
    ) -> Result<(), QueryError> {
        let directory = work.history.directory().to_owned();
        let waiting = match ready.waiting {
            Some((prepared, waiting)) => prepared.commit().map(|()| Some(waiting)),
            None => Ok(None),
        };
        let made = waiting.and_then(|waiting| Ok((ready.files.commit()?, waiting)));
        let (unfinished, waiting) = match made {
            Ok(made) => made,
            Err(error) => {
                // Without its revision it means nothing; a start would find that out, too.
                let _ = Waiting::forget(&directory);
                return Err(self.go_back(&known, &error));
            }
        };
        if let Err(error) = unfinished.finish() {
            work.is_unfinished = true;
            work.note(format!("the configuration's files cannot be written: {error}"));
        }
        if waiting.is_none()
            && known.waiting.is_some()
            && let Err(error) = Waiting::forget(&directory)
        {
            // It names another revision than the one in force: nothing will be taken back.
            tracing::warn!(%error, "what said which revision is to be confirmed cannot be removed");
        }
        known.waiting = waiting;
        known.keep = keep;
        known.texts = Arc::new(texts.clone());
        match ready.revision.commit() {
            Ok(()) => {
                known.in_force = Some(revision.number);
                work.unrecorded = None;
                work.history.add(revision, texts);
            }
            Err(error) => {
                known.in_force = None;
                work.unrecorded = Some(revision);
                work.note(format!("what is in force cannot be written to the history: {error}"));
            }
        }
        work.publish(&mut known);
        *lock(&self.known) = known;
        Ok(())
    }

    /// The disk refused after the control task had taken the change: it takes the one before again.
    fn go_back(&self, known: &Known, error: &std::io::Error) -> QueryError {
        let before = Config::of(&self.path, &known.texts).and_then(Config::read_files);
        let undone = before
            .map_err(|errors| QueryError::ConfigInvalid(errors.to_string()))
            .and_then(|config| self.configure(Ok(Box::new(config))));
        match undone {
            Ok(()) => refused_by_disk(error),
            Err(undo) => QueryError::Failed(format!(
                "the disk refuses: {error}; the change is in force until lbd starts again, going back failed: {undo}"
            )),
        }
    }
}

/// The texts with edits made. The editor is of these texts, or there is none yet; after an error there is none.
fn edited(editor: &mut Option<Editor>, texts: &Texts, edits: &[Edit]) -> Result<Texts, EditError> {
    let mut of_texts = match editor.take() {
        Some(editor) => editor,
        None => Editor::of(texts)?,
    };
    of_texts.edit(edits)?;
    let edited = of_texts.write(texts);
    *editor = Some(of_texts);
    Ok(edited)
}

fn plausible(proposal: &Proposal) -> Result<(), QueryError> {
    let invalid = |why: String| Err(QueryError::Invalid(why));
    if let Some(comment) = &proposal.comment
        && (comment.chars().count() > LONGEST_COMMENT || comment.chars().any(char::is_control))
    {
        return invalid(format!("a comment is one line of at most {LONGEST_COMMENT} characters"));
    }
    if let Some(seconds) = proposal.confirm_s
        && !(1..=LONGEST_WAIT).contains(&seconds)
    {
        return invalid("a revision waits for one second to 24 hours to be confirmed".to_owned());
    }
    if let Content::Whole(Whole { fragments: Some(fragments), .. }) = &proposal.content {
        for name in fragments.keys() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.starts_with('.') || !name.ends_with(".toml") || name.len() > 200 || !name.chars().all(plain) {
                return invalid(format!(
                    "{name:?} is no name for a file of conf.d: letters, digits, \"_\", \"-\" and \".\" with .toml at the end"
                ));
            }
        }
    }
    Ok(())
}

fn refused_by_disk(error: &std::io::Error) -> QueryError {
    let kind = error.kind();
    let advice = if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        "; make room and try again"
    } else if kind == ErrorKind::ReadOnlyFilesystem {
        "; with systemd, ReadWritePaths= of the unit must name the configuration's directory"
    } else if kind == ErrorKind::PermissionDenied {
        "; root must own the configuration's directory and state_dir"
    } else {
        ""
    };
    QueryError::Failed(format!("the disk refuses, nothing was changed: {error}{advice}"))
}
