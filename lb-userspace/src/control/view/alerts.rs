//! Alerts as the admin API shows them.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/alerts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AlertView {
    /// Name.
    pub name: String,
    /// How it tells: `log`, `email`, `syslog`, `snmp`, `webhook`, `program`.
    pub kind: String,
    /// Whom, without secrets.
    pub target: String,
    /// Its event types; none: warnings and worse.
    pub event_types: Vec<String>,
    /// With SNMP: the engine id that receivers of version 3 need, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_id: Option<String>,
    /// What became of its notices.
    #[serde(flatten)]
    pub counts: AlertCounts,
}

/// What became of an alert's notices since lbd started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AlertCounts {
    /// Told, tests included.
    pub sent: u64,
    /// Given up after all attempts.
    pub failed: u64,
    /// Events that were beyond the limit, and told as a number.
    pub held_back: u64,
    /// Events that found the queue full.
    pub dropped: u64,
    /// When the last one was told, in milliseconds since 1970.
    pub last_sent_ms: Option<u64>,
    /// Why the last one was not told; `None` when it was.
    pub problem: Option<String>,
}
