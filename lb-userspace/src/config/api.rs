//! The admin API over the network, its users and its audit log.

use std::{net::SocketAddr, time::Duration};

use super::proxy::FileRef;
use crate::control::proxy::Network;

/// Port of the admin API where none is said.
pub const DEFAULT_PORT: u16 = 8443;

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Where HTTPS is spoken; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Certificate chain and key; `None`: one that signs itself.
    pub certificate: Option<(FileRef, FileRef)>,
    /// Networks that may connect; empty: all.
    pub allow: Vec<Network>,
    /// Whether every local user may look by the unix socket.
    pub local_viewers: bool,
    /// A session ends when nothing was asked for so long.
    pub session_idle: Duration,
    /// A session ends after this time.
    pub session_longest: Duration,
    /// Which passwords are taken.
    pub password: PasswordPolicy,
    /// The audit log.
    pub audit: Audit,
}

impl Api {
    /// Whether a client may connect.
    #[must_use]
    pub fn allows(&self, client: std::net::IpAddr) -> bool {
        let client = client.to_canonical();
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(client))
    }
}

/// `[api.password]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// Least number of characters.
    pub min_length: usize,
    /// How many of small letters, capitals, digits and others there must be.
    pub classes: usize,
    /// So many passwords before are not taken again.
    pub reuse: usize,
    /// Changes by the user itself within a day.
    pub changes_per_day: usize,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { min_length: 12, classes: 1, reuse: 5, changes_per_day: 10 }
    }
}

/// `[api.audit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// A file is closed when it has so many bytes.
    pub file_size: u64,
    /// Closed files that are kept.
    pub files: usize,
}
