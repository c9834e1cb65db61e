//! Counters of all threads of the worker at one time, as they go from the worker to lbd. Counted by `proxy::stats`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

mod histogram;

pub use histogram::{BUCKETS, HistogramSnapshot, bucket};

/// What of it is asked for: a site may have ten thousand nodes, and a question be about one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Everything.
    All,
    /// Virtual servers, without pools and nodes.
    VirtualServers,
    /// These virtual servers and pools, with the nodes of the latter.
    Of {
        /// Names of virtual servers.
        virtual_servers: BTreeSet<String>,
        /// Names of pools.
        pools: BTreeSet<String>,
    },
}

impl Scope {
    /// Whether it has a virtual server.
    #[must_use]
    pub fn has_virtual_server(&self, name: &str) -> bool {
        match self {
            Self::All | Self::VirtualServers => true,
            Self::Of { virtual_servers, .. } => virtual_servers.contains(name),
        }
    }

    /// Whether it has a pool and its nodes.
    #[must_use]
    pub fn has_pool(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::VirtualServers => false,
            Self::Of { pools, .. } => pools.contains(name),
        }
    }
}

/// Everything counted, added up over the threads. Counters start anew with each worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Snapshot {
    /// By name.
    pub virtual_servers: BTreeMap<String, VirtualServerSnapshot>,
    /// By name.
    pub pools: BTreeMap<String, PoolSnapshot>,
    /// By pool and name.
    pub nodes: BTreeMap<String, BTreeMap<String, NodeSnapshot>>,
    /// How often each rule matched, by virtual server and name.
    pub rules: BTreeMap<String, BTreeMap<String, u64>>,
    /// Lines of access logs that were dropped.
    pub log_lines_dropped: u64,
    /// Requests that are missing among the recent ones.
    pub recent_skipped: u64,
    /// Panics that ended a connection.
    pub panics: u64,
    /// Tenths of a second in which a thread accepted no connection because descriptors were short.
    #[serde(default)]
    pub accept_pauses: u64,
}

impl Snapshot {
    /// Takes over what a later one of a smaller [`Scope`] says.
    pub fn update(&mut self, later: &Self) {
        fn take<T: Clone>(into: &mut BTreeMap<String, T>, from: &BTreeMap<String, T>) {
            into.extend(from.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        take(&mut self.virtual_servers, &later.virtual_servers);
        take(&mut self.pools, &later.pools);
        take(&mut self.nodes, &later.nodes);
        take(&mut self.rules, &later.rules);
        self.log_lines_dropped = later.log_lines_dropped;
        self.recent_skipped = later.recent_skipped;
        self.panics = later.panics;
        self.accept_pauses = later.accept_pauses;
    }
}

/// Counters of a virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VirtualServerSnapshot {
    /// Open connections of clients.
    pub connections: u64,
    /// Connections of clients.
    pub accepted: u64,
    /// Requests in progress.
    pub requests_active: u64,
    /// Responses by class: none, 1xx … 5xx.
    pub requests: [u64; 6],
    /// Durations of requests.
    pub duration: HistogramSnapshot,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Refusals by the word of `proxy::stats::Refused`; only those that happened.
    pub refused: BTreeMap<String, u64>,
    /// Full TLS handshakes.
    pub tls_full: u64,
    /// Resumed TLS handshakes.
    pub tls_resumed: u64,
    /// Failed TLS handshakes.
    pub tls_failed: u64,
    /// Bytes of bodies before compression by us.
    pub compressed_in: u64,
    /// Bytes of bodies after it.
    pub compressed_out: u64,
}

/// Counters of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PoolSnapshot {
    /// Responses by class.
    pub requests: [u64; 6],
    /// Times to the response's head.
    pub time_to_head: HistogramSnapshot,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Requests that waited for a node.
    pub queued: u64,
    /// Requests that wait now.
    pub queue: u64,
    /// Requests that waited in vain.
    pub queue_timeouts: u64,
    /// Requests for which there was no node.
    pub no_node: u64,
}

/// Counters of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeSnapshot {
    /// Open connections, idle ones included.
    pub connections: u64,
    /// Connections made.
    pub connected: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Requests in progress.
    pub requests_active: u64,
    /// Responses by class.
    pub requests: [u64; 6],
    /// Times to the response's head.
    pub time_to_head: HistogramSnapshot,
    /// Bytes from the node.
    pub bytes_received: u64,
    /// Bytes to the node.
    pub bytes_sent: u64,
    /// Connections that it closed before it answered.
    pub early_closes: u64,
    /// Replies that did not come in time.
    pub timeouts: u64,
    /// Requests over a connection that was open already.
    pub reused: u64,
}
