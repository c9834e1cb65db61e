//! From counters of threads to the [`Snapshot`] that lbd gets.

use std::collections::BTreeMap;

use super::{Classes, NodeStats, PoolStats, Refused, ThreadStats, VirtualServerStats};
use crate::control::proxy::stats::{NodeSnapshot, PoolSnapshot, Scope, Snapshot, VirtualServerSnapshot};

impl Snapshot {
    pub(super) fn add_thread(&mut self, thread: &ThreadStats, scope: &Scope) {
        self.log_lines_dropped += thread.own.log_lines_dropped.read();
        self.recent_skipped += thread.own.recent_skipped.read();
        self.panics += thread.own.panics.read();
        self.accept_pauses += thread.own.accept_pauses.read();
        let named = thread.named();
        for (name, stats) in named.virtual_servers.iter().filter(|(name, _)| scope.has_virtual_server(name)) {
            of(&mut self.virtual_servers, name).add(stats);
        }
        for (name, stats) in named.pools.iter().filter(|(name, _)| scope.has_pool(name)) {
            of(&mut self.pools, name).add(stats);
        }
        for ((pool, name), stats) in named.nodes.iter().filter(|((pool, _), _)| scope.has_pool(pool)) {
            of(of(&mut self.nodes, pool), name).add(stats);
        }
        for ((server, rule), hits) in named.rules.iter().filter(|((server, _), _)| scope.has_virtual_server(server)) {
            *of(of(&mut self.rules, server), rule) += hits.read();
        }
    }
}

/// What stands under a name; the name is copied only where nothing does yet.
fn of<'m, T: Default>(map: &'m mut BTreeMap<String, T>, name: &str) -> &'m mut T {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), T::default());
    }
    map.get_mut(name).expect("it is there now")
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
        self.duration.merge(&stats.duration.snapshot());
        for (why, count) in Refused::ALL.iter().zip(&stats.refused).filter(|(_, count)| count.read() > 0) {
            *self.refused.entry(why.name().to_owned()).or_default() += count.read();
        }
    }
}

impl PoolSnapshot {
    fn add(&mut self, stats: &PoolStats) {
        add!(self, stats: retries, queued, queue, queue_timeouts, no_node);
        add_classes(&mut self.requests, &stats.requests);
        self.time_to_head.merge(&stats.time_to_head.snapshot());
    }
}

impl NodeSnapshot {
    fn add(&mut self, stats: &NodeStats) {
        add!(self, stats: connections, connected, connect_failures, requests_active, bytes_received, bytes_sent);
        add!(self, stats: early_closes, timeouts, reused);
        add_classes(&mut self.requests, &stats.requests);
        self.time_to_head.merge(&stats.time_to_head.snapshot());
    }
}

fn add_classes(to: &mut [u64; 6], from: &Classes) {
    for (to, from) in to.iter_mut().zip(&from.0) {
        *to += from.read();
    }
}
