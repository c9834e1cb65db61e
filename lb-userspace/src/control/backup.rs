//! What is asked of a backup, and what a restore says. Plain values; made and read by `admin::backup`.

use serde::{Deserialize, Serialize};

use super::revision::Applied;

/// `POST /api/v1/backup`: answers with the archive.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// By which the archive is encrypted: 12 characters or more. Without it nobody can read the archive.
    pub passphrase: String,
}

/// `POST /api/v1/restore`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// As `POST /api/v1/backup` answered it.
    pub archive: serde_json::Value,
    /// By which it is encrypted.
    pub passphrase: String,
    /// Only says what would change.
    #[serde(default)]
    pub compare: bool,
    /// Leaves users and tokens as they are.
    #[serde(default)]
    pub keep_users: bool,
    /// Also over files that were edited and not loaded, and when it keeps out who restores it.
    #[serde(default)]
    pub force: bool,
}

/// What a restore did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Restored {
    /// Version of the lbd that made the archive.
    pub lbd: String,
    /// Seconds since 1970 when it was made.
    pub made_s: i64,
    /// The new revision, and what it changed; `None`: the configuration would not be valid here, see `problems`.
    pub applied: Option<Applied>,
    /// Files that were written, or would be.
    pub files: Vec<String>,
    /// Files that must be copied by hand, and why.
    pub left: Vec<String>,
    /// Whether users and tokens are others.
    pub users_changed: bool,
    /// Revisions in the archive.
    pub revisions: usize,
    /// Why it could not be restored as it is.
    pub problems: Vec<String>,
}

super::access::mute!(BackupRequest, RestoreRequest);
