//! The revisions of the configuration on disk: `history/00000012.rev` in the state directory, one sealed file each, never
//! changed once it is there. A damaged one is put aside. What cannot be read now may be read later: nothing here stops lbd.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    control::revision::{Revision, Texts},
    state_file::{self, Prepared},
};

/// The ending of revisions' names.
const ENDING: &str = "rev";
/// How hard texts are compressed: the fastest way makes them a tenth.
const LEVEL: i32 = 1;
/// The most that is unpacked: what a configuration may have, many times over.
const MAX_UNPACKED: usize = 256 << 20;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// The newest so many.
    pub(super) revisions: usize,
    /// Those that are younger.
    pub(super) age: Duration,
}

/// Why a revision cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Its file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its file is not what was written.
    #[error("{0} is damaged")]
    Damaged(PathBuf),
}

/// The revisions that are kept.
#[derive(Debug)]
pub(super) struct History {
    directory: PathBuf,
    /// Oldest first.
    revisions: Vec<Revision>,
    /// The text of the newest.
    newest: Option<Texts>,
    /// The number of the next one; also damaged ones have had theirs.
    next: u64,
    /// Whether the directory was read.
    loaded: bool,
    problems: Vec<String>,
}

impl History {
    /// What is in a state directory.
    pub(super) fn open(state_dir: &Path) -> Self {
        let directory = state_dir.join("history");
        let mut history =
            Self { directory, revisions: Vec::new(), newest: None, next: 1, loaded: false, problems: Vec::new() };
        if let Err(error) = history.load() {
            tracing::error!(directory = %history.directory.display(), %error, "the history cannot be read; it is tried again");
        }
        history
    }

    /// Oldest first.
    pub(super) fn revisions(&self) -> &[Revision] {
        &self.revisions
    }

    /// The newest one.
    pub(super) fn newest(&self) -> Option<(&Revision, &Texts)> {
        Some((self.revisions.last()?, self.newest.as_ref()?))
    }

    /// What is wrong with it: one sentence each.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Its directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The number of the next revision.
    pub(super) fn next(&mut self) -> io::Result<u64> {
        self.load()?;
        Ok(self.next)
    }

    /// Writes a revision that is there once it is committed. Its number is [`History::next`].
    pub(super) fn prepare(&self, revision: &Revision, texts: &Texts) -> io::Result<Prepared> {
        state_file::prepare(&self.path(revision.number), &pack(revision, texts)?)
    }

    /// Takes a committed revision up.
    pub(super) fn add(&mut self, revision: Revision, texts: Texts) {
        self.next = revision.number + 1;
        self.revisions.push(revision);
        self.newest = Some(texts);
    }

    /// The text of a revision.
    pub(super) fn read(&self, number: u64) -> Result<(Revision, Texts), Unreadable> {
        read(&self.path(number))
    }

    /// Removes what need not be kept at `now` (seconds since 1970); never the last two, nor `also`.
    pub(super) fn prune(&mut self, keep: Keep, now: u64, also: Option<u64>) {
        let last = self.revisions.len().saturating_sub(2);
        let first = self.revisions.len().saturating_sub(keep.revisions.max(2));
        let oldest = now.saturating_sub(keep.age.as_secs());
        let mut index = 0;
        let directory = self.directory.clone();
        self.revisions.retain(|revision| {
            let stays = index >= last || Some(revision.number) == also || (index >= first && revision.time >= oldest);
            index += 1;
            if !stays && let Err(error) = fs::remove_file(directory.join(name(revision.number))) {
                tracing::warn!(revision = revision.number, %error, "an old revision cannot be removed");
            }
            stays
        });
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(name(number))
    }

    fn load(&mut self) -> io::Result<()> {
        if self.loaded {
            return Ok(());
        }
        state_file::make_private(&self.directory)?;
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&self.directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        paths.sort();
        for path in paths {
            self.find(&path);
        }
        self.loaded = true;
        Ok(())
    }

    fn find(&mut self, path: &Path) {
        let Some(file) = path.file_name().and_then(OsStr::to_str) else { return };
        if file.starts_with('.') {
            // Not committed when lbd ended.
            let _ = fs::remove_file(path);
            return;
        }
        let Some(number) = file.split('.').next().and_then(|digits| digits.parse::<u64>().ok()) else { return };
        self.next = self.next.max(number.saturating_add(1));
        if path.extension() != Some(OsStr::new(ENDING)) {
            self.problems.push(format!("revision {number} was damaged and is put aside: {}", path.display()));
            return;
        }
        match read(path) {
            Ok((revision, texts)) if revision.number == number => {
                self.revisions.push(revision);
                self.newest = Some(texts);
            }
            Ok(_) | Err(Unreadable::Damaged(_)) => {
                let aside = state_file::put_aside(path).unwrap_or_else(|_| path.to_owned());
                tracing::error!(revision = number, aside = %aside.display(), "a revision is damaged and is put aside");
                self.problems.push(format!("revision {number} is damaged and is put aside: {}", aside.display()));
            }
            Err(error @ Unreadable::Io { .. }) => self.problems.push(error.to_string()),
        }
    }
}

fn name(number: u64) -> String {
    format!("{number:08}.{ENDING}")
}

/// A line of JSON about the revision, then its texts as JSON, compressed; all of it sealed.
fn pack(revision: &Revision, texts: &Texts) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(revision)?;
    bytes.push(b'\n');
    bytes.extend(zstd::bulk::compress(&serde_json::to_vec(texts)?, LEVEL)?);
    Ok(state_file::seal(&bytes))
}

fn read(path: &Path) -> Result<(Revision, Texts), Unreadable> {
    let sealed = fs::read(path).map_err(|source| Unreadable::Io { path: path.to_owned(), source })?;
    unpack(&sealed).ok_or_else(|| Unreadable::Damaged(path.to_owned()))
}

fn unpack(sealed: &[u8]) -> Option<(Revision, Texts)> {
    let bytes = state_file::unseal(sealed)?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let revision = serde_json::from_slice(&bytes[..end]).ok()?;
    let packed = &bytes[end + 1..];
    // The size is in the frame; it is believed up to the limit.
    let size = usize::try_from(zstd::zstd_safe::get_frame_content_size(packed).ok()??).ok()?;
    let texts = zstd::bulk::decompress(packed, size.min(MAX_UNPACKED)).ok()?;
    Some((revision, serde_json::from_slice(&texts).ok()?))
}

#[cfg(test)]
mod tests;
