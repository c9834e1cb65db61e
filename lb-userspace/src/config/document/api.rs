//! `[api]` as it is written: see [`super`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{
    api::PasswordPolicy,
    at::At,
    text::{AbsolutePath, NetworkText, Period, Size, SocketText},
};

/// What somebody may do who has proved to be no more than a user of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum LocalUsers {
    /// Nothing: the unix socket is for root and the group `lb`.
    #[default]
    None,
    /// Look at everything but secrets.
    Viewer,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Api {
    /// Address that the API and its documentation are served on by HTTPS; port 8443 where none is said. By default it is served
    /// on the unix socket alone. No VIP may have this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) listen: Option<At<SocketText>>,
    /// File with the certificate for it, PEM, intermediates after it. Without it lbd makes one that signs itself and keeps it
    /// as `api.pem` in its state directory. It is read when lbd starts and at each reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) chain: Option<At<AbsolutePath>>,
    /// File with the certificate's key, for its owner alone (mode 0600).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) key: Option<At<AbsolutePath>>,
    /// Networks that may connect by HTTPS; by default all. A change over HTTPS that would keep out who makes it is refused.
    pub(in crate::config) allow: Vec<At<NetworkText>>,
    /// What local users may do who are neither root nor in the group `lb`. Takes effect when lbd is started again.
    pub(in crate::config) local_users: At<LocalUsers>,
    /// A session of a browser ends when nothing was asked for so long.
    pub(in crate::config) session_idle: At<Period>,
    /// A session of a browser ends after this time.
    pub(in crate::config) session_longest: At<Period>,
    /// Which passwords are taken.
    pub(in crate::config) password: Password,
    /// The audit log: who changed what, in the directory `audit` of lbd's state directory.
    pub(in crate::config) audit: Audit,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Password {
    /// Least number of characters.
    #[schemars(range(min = 8, max = 128))]
    pub(in crate::config) min_length: At<u32>,
    /// How many of these kinds there must be: small letters, capitals, digits, others.
    #[schemars(range(min = 1, max = 4))]
    pub(in crate::config) classes: At<u32>,
    /// So many passwords before are not taken again.
    #[schemars(range(min = 0, max = 24))]
    pub(in crate::config) reuse: At<u32>,
    /// How often a user may change its own password within a day.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::config) changes_per_day: At<u32>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Audit {
    /// A file is closed, and the next one begun, when it has so many bytes.
    pub(in crate::config) file_size: At<Size>,
    /// Closed files that are kept; older ones are removed.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) files: At<u32>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: None,
            chain: None,
            key: None,
            allow: Vec::new(),
            local_users: At::default(),
            session_idle: At::default_of(Period(Duration::from_secs(30 * 60))),
            session_longest: At::default_of(Period(Duration::from_secs(12 * 60 * 60))),
            password: Password::default(),
            audit: Audit::default(),
        }
    }
}

impl Default for Password {
    fn default() -> Self {
        let PasswordPolicy { min_length, classes, reuse, changes_per_day } = PasswordPolicy::default();
        let number = |number: usize| At::default_of(u32::try_from(number).unwrap_or(u32::MAX));
        Self {
            min_length: number(min_length),
            classes: number(classes),
            reuse: number(reuse),
            changes_per_day: number(changes_per_day),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { file_size: At::default_of(Size(10 * 1024 * 1024)), files: At::default_of(100) }
    }
}
