//! Pools of the L7 proxy: nodes, schedulers, persistence, timeouts and retries of the node side.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::tls::ClientTls;
use crate::control::plan::Admission;

/// A pool with `forwarding = "proxy"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Nodes, by name.
    pub nodes: BTreeMap<String, Node>,
    /// How a request, or a connection of generic TCP, chooses its node.
    pub scheduler: Scheduler,
    /// Consistent hash with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018): the most open requests a node may have, in
    /// percent of the mean of the live nodes; a key whose node has more goes to another. At least 101; 0: no bound.
    pub hash_load_percent: u32,
    /// Nodes of the highest priority group serve; lower ones join until this many are live. 0: no groups.
    pub min_live_nodes: u32,
    /// How long a node that came up takes to get its full share; zero: at once.
    pub slow_start: Duration,
    /// Keeps a client on its node.
    pub persistence: Option<Persistence>,
    /// Pool that serves while no node of this one is live.
    pub failure_pool: Option<String>,
    /// What is spoken with nodes.
    pub protocol: NodeProtocol,
    /// TLS with nodes; `None`: plain.
    pub tls: Option<ClientTls>,
    /// PROXY protocol to nodes.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Whether nodes see the client's address as source (`IP_TRANSPARENT`).
    pub transparent: bool,
    /// Idle connections kept per node and thread.
    pub keep_alive: u32,
    /// How long an idle connection is kept.
    pub keep_alive_timeout: Duration,
    /// Timeouts of the node side.
    pub timeouts: NodeTimeouts,
    /// Attempts after failures.
    pub retry: Retry,
    /// What takes a node out at once.
    pub passive: Passive,
    /// Requests that wait for a node with `max_connections`; 0: none waits.
    pub queue: u32,
    /// How long they wait.
    pub queue_timeout: Duration,
}

/// A node of an L7 pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Addresses: one, or what its DNS name stands for now.
    pub addresses: Vec<SocketAddr>,
    /// Share, at least 1.
    pub weight: u32,
    /// Priority group: the highest serves.
    pub priority: u32,
    /// What it takes now, by configuration, operators and monitors: `Tracked` keeps persistent clients.
    pub admission: Admission,
    /// Connections at a time, over all threads; 0: any.
    pub max_connections: u32,
}

/// How a node is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// Each node in turn.
    #[default]
    RoundRobin,
    /// Each node in turn, as often as its weight says, spread evenly.
    WeightedRoundRobin,
    /// The node with the fewest open requests.
    LeastConnections,
    /// The node with the fewest open requests per weight.
    WeightedLeastConnections,
    /// The node that answered fastest (peak EWMA of the time to the response's head).
    FastestResponse,
    /// Least product of open requests and response time.
    Perceptive,
    /// The better of two random nodes by open requests per weight.
    RandomOfTwo,
    /// Consistent hash of a key (Maglev ring of [`lb_common::maglev`]).
    ConsistentHash(Key),
}

impl Scheduler {
    /// The word of the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobin => "weighted_round_robin",
            Self::LeastConnections => "least_connections",
            Self::WeightedLeastConnections => "weighted_least_connections",
            Self::FastestResponse => "fastest_response",
            Self::Perceptive => "perceptive",
            Self::RandomOfTwo => "random_of_two",
            Self::ConsistentHash(_) => "consistent_hash",
        }
    }
}

/// What a request is told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The client's address, its first bits.
    ClientAddress {
        /// Bits of IPv4.
        prefix4: u8,
        /// Bits of IPv6.
        prefix6: u8,
    },
    /// A request header field, lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
    /// The path, normalised.
    Path,
    /// The host, lower case, without port.
    Host,
}

/// Keeps a client on its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// How a client is known again.
    pub kind: PersistenceKind,
    /// How long without a request it is remembered (tables only).
    pub timeout: Duration,
    /// Entries of the table (tables only); the oldest gives way.
    pub max_entries: u32,
    /// What happens when its node is gone.
    pub node_gone: NodeGone,
}

/// How a client is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersistenceKind {
    /// By its address.
    SourceAddress {
        /// Bits of IPv4.
        prefix4: u8,
        /// Bits of IPv6.
        prefix6: u8,
    },
    /// By a cookie of ours: pool and node, signed; no address inside.
    Cookie {
        /// Its name.
        name: String,
        /// Further attributes, such as `Path=/; HttpOnly; SameSite=Lax`.
        attributes: String,
    },
    /// By a cookie of the application, learnt when a node sets it.
    ApplicationCookie(String),
    /// By a request header field, learnt at its first use.
    Header(String),
    /// By a parameter of the query, learnt at its first use.
    Query(String),
    /// `JSESSIONID` as cookie or `;jsessionid=` in the path.
    Jsession,
    /// ASP.NET's session: its cookie or `(S(…))` in the path.
    AspNet,
    /// The TLS session.
    TlsSession,
}

/// What happens when a client's node is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeGone {
    /// Another node is chosen, and remembered.
    #[default]
    ChooseAnew,
    /// The connection is closed.
    Close,
    /// The error page is sent.
    Page,
}

/// What is spoken with nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    Http2,
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// Timeouts of the node side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTimeouts {
    /// Until the connection, and TLS, stand.
    pub connect: Duration,
    /// From the end of the request to the end of the response's head.
    pub reply: Duration,
    /// Without a byte within a body.
    pub idle: Duration,
}

impl Default for NodeTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), reply: Duration::from_secs(30), idle: Duration::from_secs(60) }
    }
}

/// Attempts after failures. Only what cannot have been executed, or is idempotent and replayable, is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// Attempts that may time out waiting for the reply, the first one included.
    pub timed_out_attempts: u32,
    /// Statuses of a node that are tried elsewhere (idempotent requests only).
    pub statuses: Vec<u16>,
    /// Retries may make up this share of requests, in percent of the last 10 s; some are always allowed.
    pub budget_percent: u8,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, timed_out_attempts: 2, statuses: vec![503], budget_percent: 20 }
    }
}

/// What takes a node out at once, without waiting for monitors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passive {
    /// How long it is out; zero: passive monitoring is off.
    pub node_fail_time: Duration,
    /// Failed connects in a row.
    pub connect_failures: u32,
    /// Connections closed before a response, in a row.
    pub early_closes: u32,
    /// Replies that timed out, in a row.
    pub reply_timeouts: u32,
    /// Statuses that count as failure.
    pub statuses: Vec<u16>,
    /// How many of these in a row.
    pub status_failures: u32,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            node_fail_time: Duration::from_secs(10),
            connect_failures: 1,
            early_closes: 3,
            reply_timeouts: 3,
            statuses: Vec::new(),
            status_failures: 3,
        }
    }
}

/// What passive monitoring did to a node: the worker tells lbd, which logs it and shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEvent {
    /// Name of the pool.
    pub pool: String,
    /// Name of the node.
    pub node: String,
    /// What became of it.
    pub change: NodeChange,
}

/// What became of a node under passive monitoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeChange {
    /// Out for `node_fail_time`, and then for as long as the requests that try it fail.
    Out {
        /// What failed.
        reason: Failure,
        /// How many times in a row.
        in_a_row: u32,
    },
    /// A request that tried it succeeded: it serves again.
    Back,
}

/// What passive monitoring counts as failure of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The connection was refused, or did not stand in time (TLS included).
    Connect,
    /// The connection was closed, or spoke nonsense, before a response.
    EarlyClose,
    /// No reply in time.
    ReplyTimeout,
    /// One of the pool's `statuses`.
    Status,
}
