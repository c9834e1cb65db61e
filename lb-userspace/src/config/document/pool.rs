//! Pools as they are written, of both kinds. Text for operators, as in [`super`].

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::conntrack::{State, Timeouts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Named,
    proxy::{NodeTimeoutsTable, NodeTls, PassiveTable, RetryTable},
};
use crate::{
    config::{
        at::At,
        text::{KeyText, NodeAddress, Period, Seconds},
    },
    control::{
        plan::{OnNodeFailure, Refusal},
        proxy::pool::{NodeGone, NodeProtocol, ProxyVersion},
        view::NodeState,
    },
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Pool {
    /// How packets reach the nodes.
    #[schemars(required)]
    pub(in crate::config) forwarding: Option<At<ForwardingWord>>,
    /// With `nat`: also replace the client's address by the balancer's, so that answers come back without a route. Nodes
    /// then do not see the client's address.
    #[serde(default)]
    pub(in crate::config) source_nat: At<bool>,
    /// With `source_nat`: the balancer's address towards IPv4 nodes; by default the first one of the interface that leads
    /// there.
    pub(in crate::config) source_address: Option<At<Ipv4Addr>>,
    /// The same towards IPv6 nodes.
    pub(in crate::config) source_address6: Option<At<Ipv6Addr>>,
    /// How a new connection, or a request, chooses its node; by default `maglev`, and with `proxy` `round_robin`.
    pub(in crate::config) scheduler: Option<At<SchedulerWord>>,
    /// With `consistent_hash`: what is hashed, as the `key` of `[rate_class.NAME]`; by default `client_address`.
    pub(in crate::config) hash_key: Option<At<KeyText>>,
    /// With `consistent_hash`: the most open requests of a node, in percent of the mean; a key whose node has more goes to
    /// another. By default any number.
    #[schemars(range(min = 101, max = 10_000))]
    pub(in crate::config) hash_load: Option<At<u32>>,
    /// Keeps a client on one node; without, each connection, or request, is scheduled anew.
    pub(in crate::config) persistence: Option<Persistence>,
    /// What becomes of connections whose node failed or was disabled.
    #[serde(default)]
    pub(in crate::config) on_node_failure: At<OnNodeFailure>,
    /// What becomes of a TCP packet that cannot be placed: no node takes it, or it belongs to no known connection.
    #[serde(default)]
    pub(in crate::config) refusal: At<Refusal>,
    /// Name of the pool that serves while no node of this one takes new connections.
    pub(in crate::config) failure_pool: Option<At<String>>,
    /// Names of the monitors that check every node. All of them must succeed; a pool without is always up.
    #[serde(default)]
    pub(in crate::config) monitors: Vec<At<String>>,
    /// L7: what is spoken with nodes.
    pub(in crate::config) protocol: Option<At<NodeProtocol>>,
    /// L7: TLS with nodes; `tls = {}` verifies them against the system's store. By default none.
    pub(in crate::config) tls: Option<NodeTls>,
    /// L7: version of the PROXY protocol that tells nodes of the client; by default none.
    pub(in crate::config) proxy_protocol: Option<At<ProxyVersion>>,
    /// L7: nodes see the client's address as source. Their answers must be routed back through this machine.
    pub(in crate::config) transparent: Option<At<bool>>,
    /// L7: nodes of the highest priority serve; those of lower ones join until this many are live. 0: all serve.
    pub(in crate::config) min_live_nodes: Option<At<u32>>,
    /// L7: how long a node that came up takes to get its full share; by default none.
    pub(in crate::config) slow_start: Option<At<Period>>,
    /// L7: idle connections kept per node and thread; by default 32.
    #[schemars(range(min = 0, max = 10_000))]
    pub(in crate::config) keep_alive: Option<At<u32>>,
    /// L7: how long an idle connection is kept; by default 1 m.
    pub(in crate::config) keep_alive_timeout: Option<At<Period>>,
    /// L7: how long nodes may take.
    pub(in crate::config) timeouts: Option<NodeTimeoutsTable>,
    /// L7: attempts after failures. Only what cannot have been executed, or is idempotent and replayable, is tried again.
    pub(in crate::config) retry: Option<RetryTable>,
    /// L7: passive monitoring: real requests that fail take a node out at once.
    pub(in crate::config) passive: Option<PassiveTable>,
    /// L7: requests that wait for a node when all have `max_connections`; by default none waits.
    pub(in crate::config) queue: Option<At<u32>>,
    /// L7: how long they wait; by default 5 s.
    pub(in crate::config) queue_timeout: Option<At<Period>>,
    /// A server of the pool.
    #[serde(default)]
    pub(in crate::config) node: Named<Node>,
}

/// How a new connection chooses its node, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum SchedulerWord {
    /// Each node in turn.
    RoundRobin,
    /// Each node in turn, as often as its weight says, spread evenly.
    WeightedRoundRobin,
    /// The node with the fewest connections; L7: open requests.
    LeastConnections,
    /// The node with the fewest connections, or open requests, per weight.
    WeightedLeastConnections,
    /// By the client's address: the same client, the same node.
    SourceHash,
    /// L4: consistent hash of the connection: balancers with the same ring seed agree without talking.
    Maglev,
    /// L4: a random node, by weight.
    Random,
    /// L7: the node that answered fastest lately.
    FastestResponse,
    /// L7: least product of open requests and response time.
    Perceptive,
    /// L7: the better of two random nodes by open requests per weight.
    RandomOfTwo,
    /// L7: consistent hash of `hash_key`.
    ConsistentHash,
}

/// How packets reach the nodes, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ForwardingWord {
    /// Direct server return: only MAC addresses change; the node owns the VIP and answers the client itself.
    Dsr,
    /// Destination address and port are translated; answers pass the balancer.
    Nat,
    /// L7: the proxy makes connections of its own to the nodes.
    Proxy,
}

/// Persistence.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Persistence {
    /// What tells clients apart.
    #[schemars(required)]
    pub(in crate::config) r#type: Option<At<PersistenceWord>>,
    /// Clients with the same first bits of their IPv4 address share a node.
    #[serde(default = "default_prefix")]
    #[schemars(range(min = 1, max = 32))]
    pub(in crate::config) prefix: At<u8>,
    /// The same for IPv6.
    #[serde(default = "default_prefix6")]
    #[schemars(range(min = 1, max = 128))]
    pub(in crate::config) prefix6: At<u8>,
    /// How long after its last new connection, or request, a client keeps its node.
    #[serde(default = "default_persistence_timeout")]
    pub(in crate::config) timeout: At<Seconds>,
    /// With `application_cookie`, `header` and `query`: name of the cookie, field or parameter. With `cookie` by default `lb`.
    pub(in crate::config) name: Option<At<String>>,
    /// With `cookie`: its attributes; by default `Path=/; HttpOnly; SameSite=Lax`, and `Secure` with `https`.
    pub(in crate::config) attributes: Option<At<String>>,
    /// L7: clients that are remembered; the oldest gives way. By default 65536.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub(in crate::config) max_entries: Option<At<u32>>,
    /// L7: what happens when the client's node is gone; by default `choose_anew`.
    pub(in crate::config) node_gone: Option<At<NodeGone>>,
}

/// What tells clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum PersistenceWord {
    /// Their source address.
    SourceAddress,
    /// L7: a signed cookie of lb's, which names the node and tells no address.
    Cookie,
    /// L7: a cookie of the application, learnt when a node sets it.
    ApplicationCookie,
    /// L7: a request header field, learnt at its first use.
    Header,
    /// L7: a parameter of the query, learnt at its first use.
    Query,
    /// L7: `JSESSIONID` as cookie or `;jsessionid=` in the path.
    Jsession,
    /// L7: ASP.NET's session, as cookie or in the path.
    AspNet,
    /// L7: the TLS session.
    TlsSession,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Node {
    /// Address, and port where the node's differs from the virtual server's (`nat` only). With `proxy`: address and port, or a
    /// DNS name and port, whose addresses are looked up and followed while lbd runs.
    #[schemars(required)]
    pub(in crate::config) address: Option<At<NodeAddress>>,
    /// Share of new connections, for the schedulers that weigh.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 65_535))]
    pub(in crate::config) weight: At<u32>,
    /// What it takes. `lbctl node drain` and the like change it at run time.
    #[serde(default)]
    pub(in crate::config) state: At<NodeState>,
    /// L7: its priority group; the highest one serves (`min_live_nodes`). By default 0.
    pub(in crate::config) priority: Option<At<u32>>,
    /// L7: connections at a time; by default any number.
    pub(in crate::config) max_connections: Option<At<u32>>,
}

fn default_prefix() -> At<u8> {
    At::default_of(32)
}

fn default_prefix6() -> At<u8> {
    At::default_of(128)
}

fn default_persistence_timeout() -> At<Seconds> {
    At::default_of(Seconds(Timeouts::default().0[State::Affinity as usize]))
}

fn default_weight() -> At<u32> {
    At::default_of(1)
}
