//! Event types and alerts of a configuration: which events are told to whom.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::proxy::{FileRef, Host};
use crate::control::event::{Name, Severity};

/// The shortest passphrases of SNMP version 3 (RFC 3414 §11.2).
pub const MIN_SNMP_PASSPHRASE: usize = 8;

/// `[event_type.NAME]`: a group of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventType {
    /// These; empty: all.
    pub events: Vec<Name>,
    /// About these, each with `*` for any text; empty: about anything.
    pub objects: Vec<String>,
    /// That matter so much, or more.
    pub severity: Severity,
}

/// `[alert.NAME]`: what is done about events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Names of event types; empty: warnings and worse.
    pub event_types: Vec<String>,
    /// Whether it is told when a fault that was told is over.
    pub recoveries: bool,
    /// At most so many in `per`.
    pub limit: u32,
    /// See `limit`.
    pub per: Duration,
    /// The longest that one attempt takes.
    pub timeout: Duration,
    /// Further attempts when one fails.
    pub retries: u32,
    /// How it is told.
    pub action: Action,
}

/// How events are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A line in lbd's log.
    Log,
    /// A mail.
    Email(Email),
    /// A message to a syslog server.
    Syslog(Syslog),
    /// An SNMP trap.
    Snmp(Snmp),
    /// An HTTP POST.
    Webhook(Webhook),
    /// A program of `daemon.monitor_dir`.
    Program {
        /// Its file.
        name: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// A machine and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address or DNS name.
    pub host: Host,
    /// Port.
    pub port: u16,
}

/// TLS towards whom is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Who may have signed the certificate; `None`: the system's store.
    pub ca: Option<FileRef>,
}

/// Where and how mail is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// The mail server.
    pub server: Server,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// Authorities.
    pub trust: Trust,
    /// Name and password of lbd, when the server wants them.
    pub login: Option<(String, FileRef)>,
    /// Sender.
    pub from: String,
    /// Recipients, at least one.
    pub to: Vec<String>,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// The server is asked for TLS before anything is said; one that has none gets no mail.
    #[default]
    Starttls,
    /// TLS from the first byte on.
    Tls,
    /// None: for servers on this machine.
    None,
}

/// Where messages go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Transport and place.
    pub to: SyslogTo,
    /// RFC 5424 §6.2.1.
    pub facility: Facility,
}

/// Transport and place of syslog messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTo {
    /// RFC 5426: a datagram a message.
    Udp(Server),
    /// RFC 6587: each with its length in front.
    Tcp(Server),
    /// A datagram socket of this machine.
    Unix(PathBuf),
}

/// How syslog messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Datagrams to `server`: nobody says whether they arrived.
    Udp,
    /// A connection to `server`, with the length in front of each message (RFC 6587 §3.4.1).
    Tcp,
    /// This machine's own, by the socket at `socket`.
    #[default]
    Unix,
}

/// Syslog's facilities that suit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "RFC 5424 table 1 has them")]
pub enum Facility {
    #[default]
    Daemon,
    User,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl Facility {
    /// Its number in RFC 5424 table 1.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Daemon => 3,
            Self::Local0 => 16,
            Self::Local1 => 17,
            Self::Local2 => 18,
            Self::Local3 => 19,
            Self::Local4 => 20,
            Self::Local5 => 21,
            Self::Local6 => 22,
            Self::Local7 => 23,
        }
    }
}

/// Where traps go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snmp {
    /// The receiver.
    pub server: Server,
    /// By whom.
    pub security: SnmpSecurity,
}

/// Who sends traps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnmpSecurity {
    /// Version 2c: a word that everybody on the way can read.
    Community(FileRef),
    /// Version 3, authPriv: HMAC-SHA-256 and AES-128.
    User {
        /// Name.
        name: String,
        /// Passphrase of authentication.
        authentication: FileRef,
        /// Passphrase of encryption.
        privacy: FileRef,
    },
}

/// Version of SNMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum SnmpVersion {
    /// With a community, in the clear.
    #[serde(rename = "2c")]
    V2c,
    /// With a user, authenticated (HMAC-SHA-256) and encrypted (AES-128).
    #[serde(rename = "3")]
    V3,
}

/// Where JSON is posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Whether by TLS.
    pub is_tls: bool,
    /// The machine.
    pub server: Server,
    /// Path and query, with the slash in front.
    pub path: String,
    /// Authorities.
    pub trust: Trust,
    /// A header field that holds a secret, as `Authorization: Bearer …`.
    pub header: Option<FileRef>,
    /// Whether the machine may be this one, or of its link.
    pub allow_local: bool,
}

/// Everything that is told, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerts {
    /// Groups of events, by name.
    pub event_types: BTreeMap<String, EventType>,
    /// Alerts, by name.
    pub alerts: BTreeMap<String, Alert>,
}

impl Alerts {
    /// The files that they name, and whether each must be text.
    #[must_use]
    pub fn files(&self) -> Vec<(&FileRef, bool)> {
        let mut files = Vec::new();
        for alert in self.alerts.values() {
            match &alert.action {
                Action::Email(email) => files.extend(email.trust.ca.iter().map(|ca| (ca, true))),
                Action::Webhook(webhook) => files.extend(webhook.trust.ca.iter().map(|ca| (ca, true))),
                Action::Log | Action::Syslog(_) | Action::Snmp(_) | Action::Program { .. } => {}
            }
        }
        files.extend(self.secrets().into_iter().map(|(file, _)| (file, true)));
        files
    }

    /// Files that only their owner may read, with the least length of what is in them.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&FileRef, usize)> {
        let mut secrets = Vec::new();
        for alert in self.alerts.values() {
            match &alert.action {
                Action::Email(email) => secrets.extend(email.login.iter().map(|(_, file)| (file, 1))),
                Action::Webhook(webhook) => secrets.extend(webhook.header.iter().map(|file| (file, 1))),
                Action::Snmp(Snmp { security: SnmpSecurity::Community(file), .. }) => secrets.push((file, 1)),
                Action::Snmp(Snmp { security: SnmpSecurity::User { authentication, privacy, .. }, .. }) => {
                    secrets.extend([(authentication, MIN_SNMP_PASSPHRASE), (privacy, MIN_SNMP_PASSPHRASE)]);
                }
                Action::Log | Action::Syslog(_) | Action::Program { .. } => {}
            }
        }
        secrets
    }

    /// Whether somebody's certificate is verified by the system's store.
    #[must_use]
    pub fn needs_system_store(&self) -> bool {
        self.alerts.values().any(|alert| match &alert.action {
            Action::Email(email) => email.encryption != Encryption::None && email.trust.ca.is_none(),
            Action::Webhook(webhook) => webhook.is_tls && webhook.trust.ca.is_none(),
            Action::Log | Action::Syslog(_) | Action::Snmp(_) | Action::Program { .. } => false,
        })
    }
}
