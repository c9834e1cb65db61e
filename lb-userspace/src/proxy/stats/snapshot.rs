//! Counters of all threads at one time, as they go from the worker to lbd.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Classes, HistogramSnapshot, NodeStats, PoolStats, Refused, ThreadStats, VirtualServerStats};

/// Everything counted, added up over the threads. Counters start anew with each worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// See [`VirtualServerStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Refusals by [`Refused::name`]; only those that happened.
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

/// See [`PoolStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// See [`NodeStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl Snapshot {
    pub(super) fn add_thread(&mut self, thread: &ThreadStats) {
        self.log_lines_dropped += thread.own.log_lines_dropped.read();
        self.recent_skipped += thread.own.recent_skipped.read();
        self.panics += thread.own.panics.read();
        let named = thread.named();
        for (name, stats) in &named.virtual_servers {
            self.virtual_servers.entry(name.clone()).or_default().add(stats);
        }
        for (name, stats) in &named.pools {
            self.pools.entry(name.clone()).or_default().add(stats);
        }
        for ((pool, name), stats) in &named.nodes {
            self.nodes.entry(pool.clone()).or_default().entry(name.clone()).or_default().add(stats);
        }
        for ((server, rule), hits) in &named.rules {
            *self.rules.entry(server.clone()).or_default().entry(rule.clone()).or_default() += hits.read();
        }
    }
}

/// Adds each named counter of the second to the first.
macro_rules! add {
    ($to:ident, $from:ident: $($field:ident),*) => { $($to.$field += $from.$field.read();)* };
}

impl VirtualServerSnapshot {
    fn add(&mut self, stats: &VirtualServerStats) {
        add!(self, stats: connections, accepted, requests_active, bytes_received, bytes_sent);
        add!(self, stats: tls_full, tls_resumed, tls_failed, compressed_in, compressed_out);
        add_classes(&mut self.requests, &stats.requests);
        self.duration.add(&stats.duration);
        for (why, count) in Refused::ALL.iter().zip(&stats.refused).filter(|(_, count)| count.read() > 0) {
            *self.refused.entry(why.name().to_owned()).or_default() += count.read();
        }
    }
}

impl PoolSnapshot {
    fn add(&mut self, stats: &PoolStats) {
        add!(self, stats: retries, queued, queue, queue_timeouts, no_node);
        add_classes(&mut self.requests, &stats.requests);
        self.time_to_head.add(&stats.time_to_head);
    }
}

impl NodeSnapshot {
    fn add(&mut self, stats: &NodeStats) {
        add!(self, stats: connections, connected, connect_failures, requests_active, bytes_received, bytes_sent);
        add!(self, stats: early_closes, timeouts, reused);
        add_classes(&mut self.requests, &stats.requests);
        self.time_to_head.add(&stats.time_to_head);
    }
}

fn add_classes(to: &mut [u64; 6], from: &Classes) {
    for (to, from) in to.iter_mut().zip(&from.0) {
        *to += from.read();
    }
}
