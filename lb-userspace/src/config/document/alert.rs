//! Event types, alerts and SNMP as they are written. Text for operators, as in [`super`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::{
        alert::{Encryption, Facility, SnmpVersion, Transport},
        at::At,
        text::{AbsolutePath, NodeAddress, Period, Url},
    },
    control::event::{Name, Severity},
};

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(in crate::config) struct Snmp {
    /// The socket of an SNMP agent that speaks AgentX, as Net-SNMP's `/var/agentx/master`; without it, nothing is answered.
    /// Takes effect when lbd is started again.
    pub(in crate::config) agentx: Option<At<AbsolutePath>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct EventType {
    /// The events; by default all.
    #[serde(default)]
    pub(in crate::config) events: Vec<At<Name>>,
    /// What they are about: nodes as `"pool/node"`, else a name; `*` stands for any text, as in `"web/*"`. By default anything.
    #[serde(default)]
    pub(in crate::config) objects: Vec<At<String>>,
    /// Only events that matter so much, or more.
    #[serde(default)]
    pub(in crate::config) severity: At<Severity>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Alert {
    /// How it is told.
    #[schemars(required)]
    pub(in crate::config) r#type: Option<At<AlertWord>>,
    /// Names of the event types that are told; by default all events with severity `warning` or `critical`.
    #[serde(default)]
    pub(in crate::config) event_types: Vec<At<String>>,
    /// Whether it is told when a fault that was told is over, whatever the event types say.
    #[serde(default = "yes")]
    pub(in crate::config) recoveries: At<bool>,
    /// At most so many notices in `per`; how many events were held back is told with the next notice.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) limit: At<u32>,
    /// See `limit`.
    #[serde(default = "default_per")]
    pub(in crate::config) per: At<Period>,
    /// The longest that one attempt takes.
    #[serde(default = "default_timeout")]
    pub(in crate::config) timeout: At<Period>,
    /// Further attempts when one fails, each after a longer while.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 10))]
    pub(in crate::config) retries: At<u32>,
    /// With `email`, `snmp` and `syslog`: the machine that is told, with a port or without.
    pub(in crate::config) server: Option<At<NodeAddress>>,
    /// With `email`: the sender.
    pub(in crate::config) from: Option<At<String>>,
    /// With `email`: the recipients.
    #[schemars(length(min = 1))]
    pub(in crate::config) to: Option<Vec<At<String>>>,
    /// With `email`: how the connection is protected; by default `"starttls"`.
    pub(in crate::config) encryption: Option<At<Encryption>>,
    /// With `email` and `webhook`: PEM file: who may have signed the certificate; by default the system's store.
    pub(in crate::config) ca: Option<At<AbsolutePath>>,
    /// With `email`, where the server wants it: the name lbd logs in by. With `snmp` version 3: the user's name.
    pub(in crate::config) user: Option<At<String>>,
    /// With `email`: file with the password, for its owner alone (mode 0600).
    pub(in crate::config) password_file: Option<At<AbsolutePath>>,
    /// With `syslog`: how messages travel; by default `"unix"`.
    pub(in crate::config) transport: Option<At<Transport>>,
    /// With `syslog` on this machine: its socket; by default `/dev/log`.
    pub(in crate::config) socket: Option<At<AbsolutePath>>,
    /// With `syslog`: the facility; by default `"daemon"`.
    pub(in crate::config) facility: Option<At<Facility>>,
    /// With `snmp`: its version; by default `"3"`.
    pub(in crate::config) version: Option<At<SnmpVersion>>,
    /// With `snmp` version 2c: file with the community, for its owner alone (mode 0600).
    pub(in crate::config) community_file: Option<At<AbsolutePath>>,
    /// With `snmp` version 3: file with the passphrase of authentication (SHA-256), at least 8 bytes, mode 0600.
    pub(in crate::config) auth_password_file: Option<At<AbsolutePath>>,
    /// With `snmp` version 3: file with the passphrase of encryption (AES-128), at least 8 bytes, mode 0600.
    pub(in crate::config) privacy_password_file: Option<At<AbsolutePath>>,
    /// With `webhook`: where JSON is posted to, `"https://name/path"`. Redirects are not followed.
    pub(in crate::config) url: Option<At<Url>>,
    /// With `webhook`: file with a header field that holds a secret, as `Authorization: Bearer …`, mode 0600.
    pub(in crate::config) header_file: Option<At<AbsolutePath>>,
    /// With `webhook`: whether the address may be one of this machine (127.0.0.0/8, `::1`) or of its link (169.254.0.0/16,
    /// `fe80::/10`), where clouds keep their secrets.
    #[serde(default)]
    pub(in crate::config) allow_local: At<bool>,
    /// With `program`: name of a file in `daemon.monitor_dir`, which is run as `daemon.monitor_user`. See `docs/operations.md`.
    pub(in crate::config) program: Option<At<String>>,
    /// With `program`: its arguments.
    #[schemars(length(max = 32))]
    pub(in crate::config) arguments: Option<Vec<At<String>>>,
}

/// How events are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum AlertWord {
    /// A line in lbd's log that says `alert`.
    Log,
    /// A mail (SMTP).
    Email,
    /// A message in the format of RFC 5424.
    Syslog,
    /// An SNMP trap, as `/usr/share/lb/mibs/LB-MIB.txt` describes it.
    Snmp,
    /// JSON that is posted to a URL.
    Webhook,
    /// A program, run as a user without rights.
    Program,
}

impl AlertWord {
    /// As it is written.
    pub(in crate::config) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Email => "email",
            Self::Syslog => "syslog",
            Self::Snmp => "snmp",
            Self::Webhook => "webhook",
            Self::Program => "program",
        }
    }
}

fn yes() -> At<bool> {
    At::default_of(true)
}

fn default_limit() -> At<u32> {
    At::default_of(10)
}

fn default_per() -> At<Period> {
    At::default_of(Period(Duration::from_secs(60)))
}

fn default_timeout() -> At<Period> {
    At::default_of(Period(Duration::from_secs(10)))
}

fn default_retries() -> At<u32> {
    At::default_of(3)
}
