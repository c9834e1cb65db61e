//! Who may do what: roles, and the documents by which users, tokens and sessions are asked for and shown. Plain values;
//! kept and checked by `admin::access`.

use serde::{Deserialize, Serialize};

/// What somebody may do; each role may do all that the ones before may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything but secrets.
    #[default]
    Viewer,
    /// Also what is done at run time: nodes, VIPs, reload of the file that is there.
    Operator,
    /// Also the configuration, users, tokens and the audit log.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// A user as it is shown: nothing of its password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UserView {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it cannot log in.
    #[serde(default)]
    pub disabled: bool,
    /// Seconds since 1970 when it was made.
    pub created_s: i64,
    /// Seconds since 1970 when its password was set last; `None`: it has none, and cannot log in.
    pub password_set_s: Option<i64>,
    /// Seconds since 1970 when it logged in last, since lbd started.
    pub last_login_s: Option<i64>,
    /// Sessions it has now.
    pub sessions: usize,
}

/// `POST /api/v1/users`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// 1 to 63 of `A-Z a-z 0-9 . _ - @`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its password, by the rules of `[api.password]`.
    pub password: String,
}

/// `PATCH /api/v1/users/{name}`: fields that are left out stay.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether it cannot log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// A new password: ends its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `POST /api/v1/session`: logs in.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Name.
    pub name: String,
    /// Password.
    pub password: String,
}

/// `PUT /api/v1/session/password`: one's own.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The one before.
    pub old: String,
    /// The new one: ends all sessions, this one too.
    pub new: String,
}

/// `POST /api/v1/setup`: makes the first user, an admin.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The one-time token of `setup-token` in lbd's state directory.
    pub token: String,
    /// Name.
    pub name: String,
    /// Password.
    pub password: String,
}

/// Who asks, `GET /api/v1/session`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SessionView {
    /// Name of the user, or how the caller is known.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// To be sent as `X-CSRF-Token` with every request that changes something; of sessions by cookie alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
    /// Seconds until the session ends if nothing is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_left_s: Option<u64>,
    /// Seconds until it ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<u64>,
}

/// A token as it is shown: nothing of its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TokenView {
    /// By which it is revoked.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Paths that it may ask, each with all below; empty: all.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Who made it.
    pub created_by: String,
    /// Seconds since 1970 when it was made.
    pub created_s: i64,
    /// Seconds since 1970 when it ends.
    pub expires_s: i64,
    /// Seconds since 1970 when it was used last, since lbd started.
    pub last_used_s: Option<i64>,
}

/// `POST /api/v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for: 1 to 63 of `A-Z a-z 0-9 . _ - @`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Paths that it may ask, each with all below, such as `/api/v1/pools`; empty: all.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Seconds that it lives; a day less than ten years at most. Without it: 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
}

/// The answer to [`NewToken`]: the only time that the secret is shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MadeToken {
    /// What is sent as `Authorization: Bearer …`.
    pub secret: String,
    /// The token as it is shown from now on.
    pub token: TokenView,
}

/// A line of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditEntry {
    /// Its number, one more than that of the line before.
    pub seq: u64,
    /// Seconds since 1970.
    pub at_s: i64,
    /// Who.
    pub who: String,
    /// With which role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// From where: an address, or `socket`.
    pub from: String,
    /// Method and path, or what happened.
    pub what: String,
    /// Status of the answer; 0: not a request.
    #[serde(default)]
    pub status: u16,
    /// What was refused or failed, or what is worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// What is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
    /// SHA-256 of the line before, hexadecimal.
    pub previous: String,
}

/// `GET /api/v1/audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditPage {
    /// The newest last.
    pub entries: Vec<AuditEntry>,
    /// Number to ask for older ones with, as `before`; `None`: there are none.
    pub next_before: Option<u64>,
}

/// `GET /api/v1/audit/verification`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditVerification {
    /// Whether each line is chained to the one before, as far as files are there.
    pub intact: bool,
    /// Lines that were looked at.
    pub entries: u64,
    /// Number of the first.
    pub first: Option<u64>,
    /// Number of the last.
    pub last: Option<u64>,
    /// SHA-256 of the last line: keep it elsewhere, and a log that was cut or written anew is found out.
    pub head: String,
    /// What is wrong, and where.
    pub problem: Option<String>,
}

/// Keeps secrets out of logs: types with passwords say nothing but their name.
macro_rules! mute {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), " { .. }"))
            }
        }
    )*};
}
pub(super) use mute;

mute!(NewUser, UserPatch, Login, PasswordChange, Setup, MadeToken);
