//! A revision that is taken back unless somebody confirms it: kept in `confirm.json` beside the revisions, so that a restart
//! in between changes nothing about it.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::unix_s;
use crate::{
    control::revision::Unconfirmed,
    state_file::{self, Prepared},
};

const FILE: &str = "confirm.json";

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    revision: u64,
    back_to: u64,
    /// Seconds since 1970.
    deadline: u64,
    /// What was asked for: a clock that was set meanwhile makes it no longer.
    seconds: u64,
}

/// A revision that waits to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) revision: u64,
    /// What comes back.
    pub(super) back_to: u64,
    pub(super) until: Instant,
}

impl Waiting {
    /// What was waited for when lbd ended.
    pub(super) fn load(directory: &Path) -> Option<Self> {
        let bytes = fs::read(directory.join(FILE)).ok()?;
        let saved = state_file::unseal(&bytes).and_then(|bytes| serde_json::from_slice(bytes).ok());
        let Some(Saved { revision, back_to, deadline, seconds }) = saved else {
            tracing::error!("what says which revision is to be confirmed is damaged: it is taken as confirmed");
            return None;
        };
        let left = deadline.saturating_sub(unix_s()).min(seconds);
        Some(Self { revision, back_to, until: Instant::now() + Duration::from_secs(left) })
    }

    /// Puts it on the disk; in force once it is committed.
    pub(super) fn prepare(directory: &Path, revision: u64, back_to: u64, seconds: u64) -> io::Result<Prepared> {
        let saved = Saved { revision, back_to, deadline: unix_s() + seconds, seconds };
        state_file::prepare(&path(directory), &state_file::seal(&serde_json::to_vec(&saved)?))
    }

    /// Nothing waits any more.
    pub(super) fn forget(directory: &Path) -> io::Result<()> {
        match state_file::remove(&path(directory)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    pub(super) fn view(self) -> Unconfirmed {
        let seconds_left = self.until.saturating_duration_since(Instant::now()).as_secs();
        Unconfirmed { revision: self.revision, back_to: self.back_to, seconds_left }
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}
