//! What the data path is to do: derived whole from configuration, operator overrides and health, then applied by the
//! data plane as a difference to what it does now.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::conntrack::Timeouts;
use serde::{Deserialize, Serialize};

/// Everything the data path does, by name, in a stable order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Interfaces that get the program, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Virtual servers, by name.
    pub virtual_servers: BTreeMap<String, VirtualServer>,
}

/// An interface with the XDP program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// How to attach.
    pub mode: AttachMode,
    /// VLAN ids that are served beside untagged frames.
    pub vlans: Vec<u16>,
}

/// How the XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttachMode {
    /// In the driver; when the driver cannot, in the generic path, with a warning and a mark in `lbctl status`.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic path: slow, for drivers without XDP.
    Generic,
}

/// Transport protocol of a virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
}

impl Protocol {
    /// IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// How packets reach the nodes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// Direct server return: only the MAC addresses change; the node owns the VIP and answers the client itself.
    Dsr,
    /// Destination address and port are translated; nodes route back through the balancer and see the client.
    Nat,
    /// As `nat`, and the client's address is replaced by the balancer's (one-arm). Config: `nat` + `source_nat = true`.
    NatSource,
}

/// How a new connection chooses its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// Each node in turn.
    RoundRobin,
    /// Each node in turn, as often as its weight says, spread evenly.
    WeightedRoundRobin,
    /// The node with the fewest connections.
    LeastConnections,
    /// The node with the fewest connections per weight.
    WeightedLeastConnections,
    /// By the client's address: the same client, the same node.
    SourceHash,
    /// Consistent hash of the connection: balancers with the same ring seed agree without talking.
    #[default]
    Maglev,
    /// A random node, by weight.
    Random,
}

/// What happens to a tracked connection whose node failed or was disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNodeFailure {
    /// It is moved to another node (which answers a TCP segment it does not know with a reset).
    #[default]
    Reschedule,
    /// The client gets a TCP reset at its next packet.
    Reset,
}

/// What happens to a TCP packet that cannot be placed: no node takes it, or it belongs to no known connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A TCP reset is sent back, so that the client learns at once.
    #[default]
    Reset,
    /// It is dropped.
    Drop,
}

/// Source-address persistence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAffinity {
    /// Clients with the same first bits of their IPv4 address share a node.
    pub prefix4: u8,
    /// The same for IPv6.
    pub prefix6: u8,
    /// Seconds after the last new connection; also in [`Timeouts`].
    pub timeout_s: u16,
}

/// A virtual server with the pool that serves it now (its own, or the failure pool when that has no live node).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServer {
    /// VIP addresses.
    pub addresses: Vec<IpAddr>,
    /// Protocol.
    pub protocol: Protocol,
    /// Ranges of ports, inclusive; all ports: `[(1, 65535)]`.
    pub ports: Vec<(u16, u16)>,
    /// The pool that takes new connections.
    pub pool: String,
    /// How new connections are forwarded.
    pub forwarding: Forwarding,
    /// How new connections choose.
    pub scheduler: Scheduler,
    /// Persistence.
    pub affinity: Option<SourceAffinity>,
    /// Connections of failed nodes.
    pub on_node_failure: OnNodeFailure,
    /// TCP packets that cannot be placed.
    pub refusal: Refusal,
    /// Timeouts of its flow records.
    pub timeouts: Timeouts,
    /// New connections per second and CPU above which the ring places them without state of the scheduler.
    pub flood_limit: u32,
    /// 64-bit seed of the Maglev ring and its hash, the same on all balancers.
    pub ring_seed: u64,
    /// First and last source port of source NAT.
    pub source_ports: (u16, u16),
    /// Every node that may own a connection: of the pool, and of the failure pool when there is one.
    pub nodes: Vec<Node>,
}

/// A node within a virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Pool it is of.
    pub pool: String,
    /// Its name there.
    pub name: String,
    /// Address and, for NAT, port (0: the packet's port stays).
    pub address: SocketAddr,
    /// Share of new connections, at least 1.
    pub weight: u32,
    /// What it takes.
    pub admission: Admission,
    /// Source NAT: the balancer's address towards it; `None`: the primary address of the interface that leads there.
    pub source_address: Option<IpAddr>,
}

/// What a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// New connections and its tracked ones: active, not down, and of the pool in use.
    All,
    /// Its tracked connections only: draining, or of the pool not in use.
    Tracked,
    /// Nothing: down or disabled.
    Nothing,
}
