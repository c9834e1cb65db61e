//! Revisions of the configuration: what is kept of each, what is asked of them, and how a change is proposed. Plain values,
//! shared by `daemon` (which keeps them on disk), `admin` and `ctl`; field names are the JSON keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::query::QueryError;

/// The text of a configuration: the file and the files of `conf.d` beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// The file itself.
    pub main: String,
    /// Files of `conf.d`, by name (`web.toml`).
    #[serde(default)]
    pub fragments: BTreeMap<String, String>,
}

/// How a revision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Found in the file when lbd started.
    Start,
    /// The file was read again at SIGHUP.
    Signal,
    /// The file was read again at an operator's word.
    Reload,
    /// A whole configuration was given.
    Apply,
    /// A part was edited.
    Edit,
    /// An earlier revision was taken again.
    Rollback,
    /// A revision was not confirmed in time.
    Expiry,
}

/// What is known of a revision, beside its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Revision {
    /// From 1, one more each time.
    pub number: u64,
    /// When it was accepted: seconds since 1970.
    pub time: u64,
    /// Who gave it; empty where nobody can be named, as with a signal.
    pub author: String,
    /// How.
    pub source: Source,
    /// Why, in the author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The revision whose text it took again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// Version of lbd.
    pub lbd: String,
}

/// A revision that is taken back unless somebody confirms it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Unconfirmed {
    /// The revision.
    pub revision: u64,
    /// The one that comes back.
    pub back_to: u64,
    /// Seconds until then.
    pub seconds_left: u64,
}

/// `GET /api/v1/revisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RevisionsView {
    /// Newest first.
    pub revisions: Vec<Revision>,
    /// The one in force; `None`: it could not be recorded.
    pub in_force: Option<u64>,
    /// Waits for `lbctl confirm`.
    pub unconfirmed: Option<Unconfirmed>,
    /// Files that differ from the revision in force: edited, and not loaded.
    pub edited: Vec<String>,
    /// What is wrong with the history: one sentence each.
    pub problems: Vec<String>,
}

/// `GET /api/v1/config` and `GET /api/v1/revisions/{number}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RevisionDocument {
    /// What is known of it; `None`: the configuration in force could not be recorded.
    pub revision: Option<Revision>,
    /// Its text.
    #[serde(flatten)]
    pub texts: Texts,
}

/// One change of a part of the configuration, which keeps the comments and the order of the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Where: `["pool", "web", "node", "n1", "weight"]`.
    pub path: Vec<String>,
    /// What is done there.
    pub action: Action,
}

/// What an [`Edit`] does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Puts this value in the place of what is there, if anything is.
    Set(Value),
    /// Merges this object into the table that is there (RFC 7396: `null` removes a key).
    Merge(Value),
    /// Takes it out.
    Remove,
}

/// What a [`Proposal`] is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A whole configuration.
    Whole(Whole),
    /// Parts of the one in force, changed in this order.
    Edits(Vec<Edit>),
    /// The text of an earlier revision.
    Revision(u64),
}

/// A new configuration, proposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// What.
    pub content: Content,
    /// Only if this revision is in force.
    pub base: Option<u64>,
    /// Why, for the history.
    pub comment: Option<String>,
    /// Taken back after so many seconds unless it is confirmed.
    pub confirm_s: Option<u64>,
    /// Also over files that were edited and not loaded, and over a revision that is not confirmed yet.
    pub force: bool,
    /// Only checks it, and says what would change.
    pub dry_run: bool,
}

impl Proposal {
    /// Of this content.
    #[must_use]
    pub fn new(content: Content, base: Option<u64>, how: How) -> Self {
        let How { comment, confirm_s, force, dry_run } = how;
        Self { content, base, comment, confirm_s, force, dry_run }
    }
}

/// What became of a [`Proposal`], or of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Applied {
    /// The revision in force now; `None`: it could not be recorded.
    pub revision: Option<u64>,
    /// Whether there was anything to change.
    pub changed: bool,
    /// What was changed, or would be.
    pub difference: Difference,
    /// Until when it must be confirmed.
    pub unconfirmed: Option<Unconfirmed>,
    /// What is in force and should be looked at: `lbd --check` says the same.
    pub warnings: Vec<String>,
}

/// What sets two configurations apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Difference {
    /// The parts of the configuration, by kind and name.
    pub changes: Vec<Change>,
    /// Unified diff of the files; empty when they are the same.
    pub text: String,
}

/// A part of the configuration that two of them do not share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Change {
    /// `virtual_server`, `pool`, `node`, `vip`, … or the name of a section without names, such as `daemon`.
    pub kind: String,
    /// Its name; of nodes `POOL/NODE`; empty for a section without names.
    pub name: String,
    /// What became of it.
    pub what: What,
    /// Keys that changed: `weight: 1 → 3`.
    pub details: Vec<String>,
    /// The virtual servers that it is part of.
    pub virtual_servers: Vec<String>,
    /// Connections that go through it now.
    pub connections: u64,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

/// How a change is to be made: parameters of the requests that change the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct How {
    /// Why, for the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Taken back after so many seconds unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_s: Option<u64>,
    /// Also over files that were edited and not loaded, and over a revision that is not confirmed yet.
    pub force: bool,
    /// Only checks it, and says what would change.
    pub dry_run: bool,
}

/// `PUT /api/v1/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// The file itself.
    pub main: String,
    /// Files of `conf.d`, by name. Without it, those that are there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<BTreeMap<String, String>>,
}

/// What two configurations are compared: parameters of `GET /api/v1/config/diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compared {
    /// A revision; without it the one in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// A revision; without it the files as they are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The configuration in force.
    InForce,
    /// The files as they are now.
    Files,
    /// A revision.
    Revision(u64),
}

/// Who proposes something, by what name; empty where nobody can be named.
pub type Author = str;

/// The configuration as a document with a history: what `admin` asks. Implemented by `daemon`; all methods may wait for disk.
pub trait Configuration: Send + Sync + std::fmt::Debug {
    /// The history.
    ///
    /// # Errors
    /// `Failed` when lbd cannot say.
    fn revisions(&self) -> Result<RevisionsView, QueryError>;
    /// A revision with its text; `None`: the one in force.
    ///
    /// # Errors
    /// `NotFound` for a number that is not kept, `Failed` when its file is damaged.
    fn revision(&self, number: Option<u64>) -> Result<RevisionDocument, QueryError>;
    /// What sets two configurations apart.
    ///
    /// # Errors
    /// As [`Configuration::revision`]; `ConfigInvalid` when the files are not valid.
    fn difference(&self, from: Side, to: Side) -> Result<Difference, QueryError>;
    /// Takes a new configuration into force, writes it to its files and records it: all of it or nothing.
    ///
    /// # Errors
    /// `ConfigInvalid` with every mistake, `Stale` when another revision than `base` is in force, `Conflict` when files were
    /// edited or a revision waits to be confirmed, `Failed` when the disk or the data path refused.
    fn apply(&self, proposal: Proposal, author: &Author) -> Result<Applied, QueryError>;
    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Configuration::apply`].
    fn reload(&self, author: &Author) -> Result<Applied, QueryError>;
    /// Keeps a revision that waits to be confirmed: its number.
    ///
    /// # Errors
    /// `Conflict` when none does, `Failed` when the disk refuses.
    fn confirm(&self, author: &Author) -> Result<u64, QueryError>;
}
