//! What is shown of the L7 proxy beside what every virtual server, pool and node has.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::control::{plan::Forwarding, proxy::stats::HistogramSnapshot};

/// How a pool's connections reach its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Packets, by direct server return.
    Dsr,
    /// Packets, by NAT.
    Nat,
    /// Packets, by NAT of both addresses.
    NatSource,
    /// By connections of the L7 proxy.
    Proxy,
}

impl From<Forwarding> for Way {
    fn from(forwarding: Forwarding) -> Self {
        match forwarding {
            Forwarding::Dsr => Self::Dsr,
            Forwarding::Nat => Self::Nat,
            Forwarding::NatSource => Self::NatSource,
        }
    }
}

impl PartialEq<Forwarding> for Way {
    fn eq(&self, forwarding: &Forwarding) -> bool {
        *self == Self::from(*forwarding)
    }
}

/// The worker of the L7 proxy, in `GET /api/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WorkerView {
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// Whether it serves.
    pub ready: bool,
    /// Client connections now.
    pub connections: u64,
    /// Workers that ended without being told to, since lbd started.
    pub failures: u64,
    /// Sessions of persistence that lbd keeps for the next worker.
    #[serde(default)]
    pub sessions: u64,
}

/// Requests and how long they took. Counters begin anew with each worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Requests {
    /// Finished ones.
    pub total: u64,
    /// In progress.
    pub active: u64,
    /// By class of their status: `1xx` … `5xx`, and `none` where there was no response.
    pub by_class: BTreeMap<String, u64>,
    /// The middle one's time, in microseconds; `None`: there was none.
    pub p50_us: Option<u64>,
    /// 90 of 100 took no longer.
    pub p90_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
}

/// Words for the classes of responses.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Requests {
    /// Of the counts of all classes and the times.
    #[must_use]
    pub fn new(classes: &[u64; 6], active: u64, times: &HistogramSnapshot) -> Self {
        let quantile = |share| times.quantile(share).map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        let by_class = CLASSES.iter().zip(classes).filter(|(_, count)| **count > 0);
        Self {
            total: classes.iter().sum(),
            active,
            by_class: by_class.map(|(class, count)| ((*class).to_owned(), *count)).collect(),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
        }
    }
}

/// A virtual server of the L7 proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProxyServerView {
    /// What it listens on.
    pub listen: Vec<SocketAddr>,
    /// Certificates that it shows.
    pub certificates: Vec<String>,
    /// Its requests, from their first byte to the end of the response.
    pub requests: Requests,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Full TLS handshakes.
    pub tls_full: u64,
    /// TLS handshakes that resumed a session.
    pub tls_resumed: u64,
    /// TLS handshakes that failed.
    pub tls_failed: u64,
    /// What was refused or failed, by why.
    pub refused: BTreeMap<String, u64>,
    /// How often each rule matched.
    pub rules: BTreeMap<String, u64>,
}

/// A pool of the L7 proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProxyPoolView {
    /// What its nodes answered, to the head of the response.
    pub requests: Requests,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Requests that wait for a node.
    pub queue: u64,
    /// Requests that waited.
    pub queued: u64,
    /// Requests that waited in vain.
    pub queue_timeouts: u64,
    /// Requests for which there was no node.
    pub no_node: u64,
}

/// A node of the L7 proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProxyNodeView {
    /// What it answered, to the head of the response.
    pub requests: Requests,
    /// Requests over a connection that was open already.
    pub reused: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Connections that it closed before it answered.
    pub early_closes: u64,
    /// Replies that did not come in time.
    pub timeouts: u64,
    /// Bytes from the node.
    pub bytes_received: u64,
    /// Bytes to the node.
    pub bytes_sent: u64,
}

/// A certificate of the configuration, in `GET /api/v1/certificates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CertificateView {
    /// Its name.
    pub name: String,
    /// Subject, RFC 4514.
    pub subject: String,
    /// Names that it is for.
    pub names: Vec<String>,
    /// Seconds since 1970 until which it is valid.
    pub not_after: i64,
}
