//! Replacing the files of a configuration, several of them, as one: all are the old ones or, after the next start at the
//! latest, all are the new ones.
//!
//! Everything is on the disk before the journal gets its name, `.lb.toml.journal` beside the file: from then on the change is
//! made, and whatever ends lbd, its next start completes it. It is removed when all files are in their places.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::fragments_of,
    control::revision::{Revision, Texts},
    state_file::{self, Prepared},
};

/// Mode of new files of `conf.d`, as an editor would make them.
const MODE: u32 = 0o644;

/// Which file: `None` is the main one, else the name of one in `conf.d`.
type Which = Option<String>;

/// The files of a configuration as they are on the disk: not always text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<Which, Vec<u8>>);

/// What is in the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    revision: Revision,
    /// Checksums of the files that are replaced: the main one and those of `conf.d`.
    main: Option<String>,
    fragments: BTreeMap<String, String>,
    after: Texts,
}

/// A change that is on the disk as a whole and not made yet.
#[derive(Debug)]
pub(super) struct Pending {
    journal: Prepared,
    change: Change,
}

/// What is left of a change that is made: moving its files into their places.
#[derive(Debug)]
struct Change {
    path: PathBuf,
    files: Vec<Prepared>,
    removed: Vec<PathBuf>,
}

impl Files {
    /// Those of the configuration at `path`.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        let mut read = |which: Which| match fs::read(place(path, &which)) {
            Ok(bytes) => {
                files.0.insert(which, bytes);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        read(None)?;
        for name in names(&fragments_of(path))? {
            read(Some(name))?;
        }
        Ok(files)
    }

    /// What the files with these texts are.
    pub(super) fn of(texts: &Texts) -> Self {
        let main = (None, texts.main.clone().into_bytes());
        let fragments = texts.fragments.iter().map(|(name, text)| (Some(name.clone()), text.clone().into_bytes()));
        Self(std::iter::once(main).chain(fragments).collect())
    }

    /// The files that the two do not share.
    pub(super) fn differing(&self, other: &Self, path: &Path) -> Vec<PathBuf> {
        let all: BTreeSet<&Which> = self.0.keys().chain(other.0.keys()).collect();
        all.into_iter()
            .filter(|which| self.0.get(*which) != other.0.get(*which))
            .map(|which| place(path, which))
            .collect()
    }
}

/// Puts a change on the disk. `before` is what the files are now.
pub(super) fn prepare(path: &Path, before: &Files, after: &Texts, revision: &Revision) -> io::Result<Pending> {
    let fragments = before.0.iter().filter_map(|(which, bytes)| Some((which.clone()?, state_file::checksum(bytes))));
    let journal = Journal {
        revision: revision.clone(),
        main: before.0.get(&None).map(|bytes| state_file::checksum(bytes)),
        fragments: fragments.collect(),
        after: after.clone(),
    };
    let journal = state_file::prepare(&journal_path(path), &state_file::seal(&serde_json::to_vec(&journal)?))?;
    Ok(Pending { journal, change: Change::prepare(path, before, &Files::of(after))? })
}

impl Pending {
    /// Makes the change. After an error it is not made, as far as the disk says.
    pub(super) fn commit(self) -> io::Result<Unfinished> {
        let path = self.change.path.clone();
        if let Err(error) = self.journal.commit() {
            // It may have its name and not be synced: without it, the files are the old ones for good.
            let _ = state_file::remove(&journal_path(&path));
            return Err(error);
        }
        Ok(Unfinished(self.change))
    }
}

/// A change that is made, whose files are not in their places yet.
#[derive(Debug)]
#[must_use = "the files are not in their places"]
pub(super) struct Unfinished(Change);

impl Unfinished {
    /// Moves the files into their places. After an error [`recover`] completes it.
    pub(super) fn finish(self) -> io::Result<()> {
        let path = self.0.path.clone();
        self.0.make()?;
        state_file::remove(&journal_path(&path))
    }
}

impl Change {
    fn prepare(path: &Path, before: &Files, after: &Files) -> io::Result<Self> {
        let mut change = Self { path: path.to_owned(), files: Vec::new(), removed: Vec::new() };
        let all: BTreeSet<&Which> = before.0.keys().chain(after.0.keys()).collect();
        for which in all {
            let place = place(path, which);
            match (before.0.get(which), after.0.get(which)) {
                (old, Some(new)) if old != Some(new) => {
                    if which.is_some() {
                        fs::create_dir_all(fragments_of(path))?;
                    }
                    // What a symbolic link leads to is replaced, not the link.
                    let target = fs::canonicalize(&place).unwrap_or(place);
                    change.files.push(state_file::prepare_shared(&target, new, MODE)?);
                }
                (_, None) => change.removed.push(place),
                (_, Some(_)) => {}
            }
        }
        Ok(change)
    }

    fn make(self) -> io::Result<()> {
        for file in self.files {
            file.commit()?;
        }
        self.removed.iter().try_for_each(|path| state_file::remove(path))
    }
}

/// Completes what was begun before lbd ended, or before the disk refused: the revision whose files are in place now. Files that
/// somebody edited meanwhile are left alone.
pub(super) fn recover(path: &Path) -> io::Result<Option<Revision>> {
    let place = journal_path(path);
    sweep(path)?;
    let sealed = match fs::read(&place) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let journal = state_file::unseal(&sealed).and_then(|bytes| serde_json::from_slice::<Journal>(bytes).ok());
    let Some(Journal { revision, main, fragments, after }) = journal else {
        let aside = state_file::put_aside(&place)?;
        tracing::error!(aside = %aside.display(), "the journal of a change is damaged: the files stay as they are");
        return Ok(None);
    };
    let (now, after) = (Files::read(path)?, Files::of(&after));
    let all: BTreeSet<&Which> = now.0.keys().chain(after.0.keys()).collect();
    let old = |which: &Which| which.as_ref().map_or(main.as_ref(), |name| fragments.get(name));
    let edited = all.into_iter().find(|which| {
        let found = now.0.get(*which);
        found != after.0.get(*which) && found.map(|bytes| state_file::checksum(bytes)).as_ref() != old(which)
    });
    if let Some(which) = edited {
        let file = self::place(path, which);
        tracing::error!(file = %file.display(), revision = revision.number, "edited since: the change is not completed");
        state_file::remove(&place)?;
        return Ok(None);
    }
    Change::prepare(path, &now, &after)?.make()?;
    state_file::remove(&place)?;
    Ok(Some(revision))
}

/// Removes what an lbd left that ended before its change was made.
fn sweep(path: &Path) -> io::Result<()> {
    let fragments = fragments_of(path);
    let mut left = vec![state_file::temporary(&journal_path(path))];
    left.push(state_file::temporary(&fs::canonicalize(path).unwrap_or(path.to_owned())));
    if let Ok(entries) = fs::read_dir(&fragments) {
        let ours = |name: &str| name.starts_with('.') && name.ends_with(".toml.new");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        left.extend(names.filter(|name| ours(name)).map(|name| fragments.join(name)));
    }
    for file in left {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The TOML files of a directory, which may be missing.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && name.ends_with(".toml")
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn place(path: &Path, which: &Which) -> PathBuf {
    which.as_ref().map_or_else(|| path.to_owned(), |name| fragments_of(path).join(name))
}

fn journal_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.journal"))
}

#[cfg(test)]
mod tests;
