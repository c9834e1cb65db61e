//! What the proxy counts: per virtual server, pool, node and rule, for each thread by itself.
//!
//! A thread adds to its own counters only (a plain load and store, no locked instruction) and readers add the threads up.
//! Counters live as long as the thing they count is in the plan: a new plan goes on with them. Names are looked up when a
//! plan is compiled; the hot path holds the `Arc`s. Called by the engine, and for snapshots by whoever speaks with lbd.

mod collect;
mod counter;
mod histogram;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use counter::{Counter, Entered, Gauge};
pub use histogram::Histogram;

use crate::control::proxy::{
    ProxyPlan, Service,
    stats::{Scope, Snapshot},
};

/// The counters of all threads.
#[derive(Debug)]
pub struct Stats {
    threads: Box<[ThreadStats]>,
}

/// The counters of one thread, by name.
#[derive(Debug, Default)]
pub struct ThreadStats {
    /// Of the thread as a whole.
    pub own: OwnStats,
    named: Mutex<Named>,
}

#[derive(Debug, Default)]
struct Named {
    virtual_servers: BTreeMap<String, Arc<VirtualServerStats>>,
    pools: BTreeMap<String, Arc<PoolStats>>,
    nodes: BTreeMap<(String, String), Arc<NodeStats>>,
    rules: BTreeMap<(String, String), Arc<Counter>>,
}

/// Counters of a thread that belong to nothing in the configuration.
#[derive(Debug, Default)]
pub struct OwnStats {
    /// Lines of access logs that were dropped because their writer was behind.
    pub log_lines_dropped: Counter,
    /// Recent requests that were not remembered because somebody was reading.
    pub recent_skipped: Counter,
    /// Panics that ended a connection.
    pub panics: Counter,
    /// Tenths of a second in which no connection was accepted because descriptors were short.
    pub accept_pauses: Counter,
}

/// Counters of a virtual server.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct VirtualServerStats {
    /// Open connections of clients.
    pub connections: Gauge,
    /// Connections of clients.
    pub accepted: Counter,
    /// Requests in progress.
    pub requests_active: Gauge,
    /// Responses to clients by class.
    pub requests: Classes,
    /// From the first byte of a request to the end of its response.
    pub duration: Histogram,
    /// Bytes from clients.
    pub bytes_received: Counter,
    /// Bytes to clients.
    pub bytes_sent: Counter,
    /// What was refused or failed, by why.
    pub refused: [Counter; Refused::COUNT],
    /// Full TLS handshakes.
    pub tls_full: Counter,
    /// TLS handshakes that resumed a session.
    pub tls_resumed: Counter,
    /// TLS handshakes that failed.
    pub tls_failed: Counter,
    /// Bytes of bodies before compression by us.
    pub compressed_in: Counter,
    /// Bytes of bodies after it.
    pub compressed_out: Counter,
}

/// Counters of a pool.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PoolStats {
    /// Responses of its nodes by class.
    pub requests: Classes,
    /// From the request to the head of the response.
    pub time_to_head: Histogram,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Requests that waited for a node.
    pub queued: Counter,
    /// Requests that wait now.
    pub queue: Gauge,
    /// Requests that waited in vain.
    pub queue_timeouts: Counter,
    /// Requests for which there was no node.
    pub no_node: Counter,
}

/// Counters of a node.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct NodeStats {
    /// Open connections, idle ones included.
    pub connections: Gauge,
    /// Connections made.
    pub connected: Counter,
    /// Connections that could not be made.
    pub connect_failures: Counter,
    /// Requests in progress.
    pub requests_active: Gauge,
    /// Responses by class.
    pub requests: Classes,
    /// From the request to the head of the response.
    pub time_to_head: Histogram,
    /// Bytes from the node.
    pub bytes_received: Counter,
    /// Bytes to the node.
    pub bytes_sent: Counter,
    /// Connections that it closed before it answered.
    pub early_closes: Counter,
    /// Replies that did not come in time.
    pub timeouts: Counter,
    /// Requests that went over a connection that was open already.
    pub reused: Counter,
}

/// Counts an open connection to a node as long as it lives.
#[derive(Debug)]
pub struct ConnectionToNode(Arc<NodeStats>);

impl ConnectionToNode {
    /// One more, by the owning thread.
    #[must_use]
    pub fn new(node: &Arc<NodeStats>) -> Self {
        node.connections.enter();
        Self(Arc::clone(node))
    }
}

impl Drop for ConnectionToNode {
    fn drop(&mut self) {
        self.0.connections.leave();
    }
}

/// Counts of responses by the first digit of the status; 0: there was none.
#[derive(Debug, Default)]
pub struct Classes([Counter; 6]);

impl Classes {
    /// Counts a response; `status` 0: the connection ended without one.
    #[inline]
    pub fn add(&self, status: u16) {
        let class = usize::from(status / 100);
        self.0[if class < 6 { class } else { 0 }].add(1);
    }
}

/// Declares [`Refused`] with the words of its variants.
macro_rules! refused {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal;)*) => {
        /// Why we refused a request or failed to serve it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refused {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Refused {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for logs and metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

refused! {
    /// The connection limit of the virtual server.
    Connections = "connections";
    /// The connection limit of the client.
    ConnectionsPerClient = "connections_per_client";
    /// The request rate of the client.
    RequestsPerClient = "requests_per_client";
    /// The handshake rate of the client.
    HandshakesPerClient = "handshakes_per_client";
    /// No or a bad PROXY header, or a sender that may not send one.
    ProxyProtocol = "proxy_protocol";
    /// The TLS handshake failed.
    Handshake = "handshake";
    /// The request could be read in two ways, or not at all.
    Malformed = "malformed";
    /// The request's head is too large (431, 414).
    HeadTooLarge = "head_too_large";
    /// The request's body is too large (413).
    BodyTooLarge = "body_too_large";
    /// The request's head did not come in time (408).
    HeadTimeout = "head_timeout";
    /// The request's body came too slowly (408).
    BodyTimeout = "body_timeout";
    /// The client took nothing of its response.
    WriteStall = "write_stall";
    /// The whole request took too long.
    Transaction = "transaction";
    /// There is hardly any memory left (503).
    Memory = "memory";
    /// Another site than the connection's certificate is for (421).
    Misdirected = "misdirected";
    /// A rule answered, redirected or dropped.
    Rule = "rule";
    /// A rule's rate class (429).
    Rate = "rate";
    /// A rule's requests at a time (503).
    RuleConnections = "rule_connections";
    /// A rule's text would have put control characters into a head.
    RuleText = "rule_text";
    /// No node is live.
    NoNode = "no_node";
    /// No node became free in time.
    QueueTimeout = "queue_timeout";
    /// The node could not be connected to.
    Connect = "connect";
    /// The node closed before it answered.
    EarlyClose = "early_close";
    /// The node's head did not come in time (504).
    ReplyTimeout = "reply_timeout";
    /// The node's response could be read in two ways, or not at all (502).
    BadResponse = "bad_response";
    /// The node stopped within a body.
    Truncated = "truncated";
    /// HTTP/2 misbehaviour.
    Http2 = "http2";
    /// The client went away.
    ClientGone = "client_gone";
    /// Memory or file descriptors are short.
    Overload = "overload";
    /// A fault of ours.
    Internal = "internal";
}

impl VirtualServerStats {
    /// Counts a refusal.
    pub fn refuse(&self, why: Refused) {
        // In range: COUNT is the number of variants.
        self.refused[why as usize].add(1);
    }

    /// Counts a finished request.
    #[inline]
    pub fn finish(&self, status: u16, duration: Duration, bytes_received: u64, bytes_sent: u64) {
        self.requests.add(status);
        self.duration.record(duration);
        self.bytes_received.add(bytes_received);
        self.bytes_sent.add(bytes_sent);
    }
}

impl Stats {
    /// Counters for so many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: (0..threads).map(|_| ThreadStats::default()).collect() }
    }

    /// Those of a thread; `None` if there are fewer.
    #[must_use]
    pub fn thread(&self, index: usize) -> Option<&ThreadStats> {
        self.threads.get(index)
    }

    /// Forgets what `plan` has not. Who still holds counters may go on adding; nobody reads them any more.
    pub fn retain(&self, plan: &ProxyPlan) {
        let rules: BTreeSet<_> =
            plan.virtual_servers.iter().flat_map(|(name, server)| rule_names(name, server)).collect();
        for thread in &self.threads {
            let mut named = thread.named();
            named.virtual_servers.retain(|name, _| plan.virtual_servers.contains_key(name));
            named.pools.retain(|name, _| plan.pools.contains_key(name));
            named
                .nodes
                .retain(|(pool, node), _| plan.pools.get(pool).is_some_and(|pool| pool.nodes.contains_key(node)));
            named.rules.retain(|key, _| rules.contains(key));
        }
    }

    /// Everything, added up over the threads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_of(&Scope::All)
    }

    /// What is in the scope, added up over the threads.
    #[must_use]
    pub fn snapshot_of(&self, scope: &Scope) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for thread in &self.threads {
            snapshot.add_thread(thread, scope);
        }
        snapshot
    }
}

fn rule_names<'a>(
    name: &'a str,
    server: &'a crate::control::proxy::VirtualServer,
) -> impl Iterator<Item = (String, String)> + 'a {
    let http = match &server.service {
        Service::Http(http) => Some(http),
        Service::Stream(_) => None,
    };
    let rules = http.into_iter().flat_map(|http| [&http.rules.request, &http.rules.response, &http.rules.completion]);
    rules.flatten().map(move |rule| (name.to_owned(), rule.name.clone()))
}

impl ThreadStats {
    /// Counters of a virtual server.
    #[must_use]
    pub fn virtual_server(&self, name: &str) -> Arc<VirtualServerStats> {
        Arc::clone(self.named().virtual_servers.entry(name.to_owned()).or_default())
    }

    /// Counters of a pool.
    #[must_use]
    pub fn pool(&self, name: &str) -> Arc<PoolStats> {
        Arc::clone(self.named().pools.entry(name.to_owned()).or_default())
    }

    /// Counters of a node.
    #[must_use]
    pub fn node(&self, pool: &str, name: &str) -> Arc<NodeStats> {
        Arc::clone(self.named().nodes.entry((pool.to_owned(), name.to_owned())).or_default())
    }

    /// Counters of the rules of a virtual server, in the order of `rules::RuleId`.
    #[must_use]
    pub fn rules<'a>(&self, virtual_server: &str, names: impl Iterator<Item = &'a str>) -> Arc<[Arc<Counter>]> {
        let names: Vec<&str> = names.collect();
        let mut named = self.named();
        names
            .iter()
            .map(|name| {
                let key = (virtual_server.to_owned(), (*name).to_owned());
                named.rules.entry(key).or_default().clone()
            })
            .collect()
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
