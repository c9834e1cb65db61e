//! Monitors by meaning: what is asked of whom, and what becomes of the answer.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use super::{Config, proxy::FileRef};
use crate::control::{
    plan::Protocol,
    probe::{Greeting, Kind, Tls},
};

/// `[monitor.NAME]`: an active health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// What it does.
    pub kind: Kind,
    /// From the start of a check to the start of the next one.
    pub delay: Duration,
    /// A check without an answer fails after this.
    pub timeout: Duration,
    /// A node goes down after this many failed checks in a row.
    pub failures: u32,
    /// A node comes up after this many successful checks in a row.
    pub successes: u32,
    /// Whether it comes up by itself.
    pub recovery: Recovery,
    /// The port; `None`: see [`Monitor::port`].
    pub port: Option<u16>,
    /// The one machine that is asked for all nodes; `None`: each node is asked.
    pub address: Option<IpAddr>,
    /// Where a `tcp` monitor knocks.
    pub via: Via,
    /// The files of its TLS, which `Config::read_files` reads into `kind`.
    pub files: MonitorFiles,
}

/// Files for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorFiles {
    /// Who may have signed the other side's certificate; `None`: the system's store.
    pub ca: Option<FileRef>,
    /// Name of the certificate that is shown.
    pub certificate: Option<String>,
}

/// Whether a node that was down comes up by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// As soon as its checks succeed.
    #[default]
    Automatic,
    /// When its checks succeed and somebody has said `lbctl node up`.
    Manual,
}

/// Where a connection is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// At the node's own address.
    #[default]
    Node,
    /// At each VIP, by a SYN that is sent to the node's MAC address: a node that does not own the VIP is found. Nothing but
    /// the SYN is sent.
    Vip,
}

impl Monitor {
    /// The port to ask, when the node has `node` and its virtual servers have `common` ones of TCP and UDP.
    #[must_use]
    pub fn port(&self, node: Option<u16>, common: impl FnOnce(Protocol) -> Option<u16>) -> Option<u16> {
        let of_node = if self.address.is_some() { None } else { node };
        let known = known_port(&self.kind);
        self.port.or(of_node).or_else(|| common(transport(&self.kind))).or(known)
    }

    /// Whether there must be a port.
    #[must_use]
    pub fn needs_port(&self) -> bool {
        !matches!(self.kind, Kind::Ping | Kind::Program(_))
    }
}

impl Config {
    /// Whether a pool has this monitor, and its nodes come up by hand alone.
    #[must_use]
    pub fn recovers_manually(&self, pool: &str, monitor: &str) -> bool {
        let has = self.monitors_of(pool).is_some_and(|monitors| monitors.iter().any(|name| name == monitor));
        has && self.monitors.get(monitor).is_some_and(|monitor| monitor.recovery == Recovery::Manual)
    }

    /// Puts the content of files where monitors need it.
    pub(super) fn read_monitors(&mut self) {
        let Self { monitors, proxy, .. } = self;
        let system: Arc<str> = proxy.files.system_store.as_str().into();
        let mut read: BTreeMap<&Path, Arc<str>> = BTreeMap::new();
        for monitor in monitors.values_mut() {
            let Some(tls) = tls_mut(&mut monitor.kind) else { continue };
            let files = &monitor.files;
            let pair = files.certificate.as_ref().and_then(|name| proxy.certificates.get(name));
            let ca_pem = match &files.ca {
                Some(file) => read.entry(&file.path).or_insert_with(|| proxy.files.text(file).into()).clone(),
                None if tls.verify => system.clone(),
                None => Arc::default(),
            };
            let identity = pair.map(|pair| (proxy.files.text(&pair.chain), proxy.files.text(&pair.key)));
            *tls = Arc::new(Tls { ca_pem, identity, ..Tls::clone(tls) });
        }
    }
}

fn tls_mut(kind: &mut Kind) -> Option<&mut Arc<Tls>> {
    match kind {
        Kind::Http(http) => Arc::make_mut(http).tls.as_mut(),
        Kind::Transaction(transaction) => Arc::make_mut(transaction).tls.as_mut(),
        Kind::Greeting(_, tls) => tls.as_mut(),
        Kind::Ping | Kind::Tcp | Kind::Vip(_) | Kind::Dns(_) | Kind::Udp(_) | Kind::Program(_) => None,
    }
}

/// The settings of TLS, where there are some.
pub(super) fn tls(kind: &Kind) -> Option<&Tls> {
    match kind {
        Kind::Http(http) => http.tls.as_deref(),
        Kind::Transaction(transaction) => transaction.tls.as_deref(),
        Kind::Greeting(_, tls) => tls.as_deref(),
        Kind::Ping | Kind::Tcp | Kind::Vip(_) | Kind::Dns(_) | Kind::Udp(_) | Kind::Program(_) => None,
    }
}

fn transport(kind: &Kind) -> Protocol {
    match kind {
        Kind::Dns(_) | Kind::Udp(_) => Protocol::Udp,
        Kind::Ping
        | Kind::Tcp
        | Kind::Vip(_)
        | Kind::Http(_)
        | Kind::Greeting(..)
        | Kind::Transaction(_)
        | Kind::Program(_) => Protocol::Tcp,
    }
}

/// The port that a protocol is known by (IANA).
fn known_port(kind: &Kind) -> Option<u16> {
    let (plain, secure) = match kind {
        Kind::Http(_) => (80, 443),
        Kind::Greeting(Greeting::Smtp, _) => (25, 465),
        Kind::Greeting(Greeting::Pop3, _) => (110, 995),
        Kind::Greeting(Greeting::Imap, _) => (143, 993),
        Kind::Greeting(Greeting::Ftp, _) => (21, 990),
        Kind::Dns(_) => (53, 53),
        Kind::Ping | Kind::Tcp | Kind::Vip(_) | Kind::Udp(_) | Kind::Transaction(_) | Kind::Program(_) => return None,
    };
    Some(if tls(kind).is_some() { secure } else { plain })
}
