//! What the admin API shows and `lbctl` prints: plain values, serialised as they are. Field names are the JSON keys.

mod alerts;
mod vips;

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

mod proxy;

pub use self::alerts::{AlertCounts, AlertView};
pub use self::proxy::{
    CLASSES, CertificateView, ProxyNodeView, ProxyPoolView, ProxyServerView, Requests, Way, WorkerView,
};
pub use self::vips::{
    ClusterView, HeartbeatCounters, MachineView, NeighborState, NeighborView, RouterCounters, SharingMachine,
    SharingView, VipState, VipView, VipsView,
};
use super::plan::{Admission, Forwarding, OnNodeFailure, Protocol, Refusal};

/// Configured state of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Takes new connections.
    #[default]
    Active,
    /// Keeps its connections, takes no new ones.
    Draining,
    /// Takes nothing; its connections are treated like those of a failed node.
    Disabled,
}

/// What the monitors say of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not checked yet, or no monitor: treated as up.
    #[default]
    Unknown,
    /// Answers.
    Up,
    /// Does not.
    Down,
}

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Status {
    /// lbd's version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The file the running configuration came from.
    pub config_file: String,
    /// Number of configurations accepted since the start; the first is 1.
    pub config_generation: u64,
    /// The revision in force; `None`: it could not be written to the history.
    #[serde(default)]
    pub config_revision: Option<u64>,
    /// Why the last reload was refused, when it was.
    pub config_error: Option<String>,
    /// How lbd found the data path: `created` or `adopted`.
    pub data_path: String,
    /// Interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// Records in use and room, by table (`FLOWS`, `PENDING`, `AFFINITY`, `FRAGMENTS`).
    pub tables: BTreeMap<String, TableUse>,
    /// The worker of the L7 proxy; `None`: nothing is configured for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerView>,
    /// How often this process has replaced its program (`lbctl upgrade`).
    #[serde(default)]
    pub upgrades: u64,
    /// Why the last upgrade failed, when it did: the program before it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_error: Option<String>,
    /// What an operator should look at: one sentence each.
    pub warnings: Vec<String>,
}

/// Fill of a flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TableUse {
    /// Live records.
    pub used: u64,
    /// Places.
    pub capacity: u64,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InterfaceView {
    /// Name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// `native`, `generic`, or `absent` when the interface does not exist now.
    pub mode: String,
    /// Packets and bytes by reason name (see `lb_common::reason`), zero ones left out.
    pub reasons: BTreeMap<String, Traffic>,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

/// `GET /api/v1/virtual_servers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VirtualServerView {
    /// Name.
    pub name: String,
    /// VIP addresses.
    pub addresses: Vec<IpAddr>,
    /// Protocol, as the configuration calls it.
    pub protocol: String,
    /// Port ranges, inclusive.
    pub ports: Vec<(u16, u16)>,
    /// Configured pool; empty when rules alone answer (L7).
    pub pool: String,
    /// The pool in use: another one when the failure pool serves.
    pub pool_in_use: String,
    /// How new connections are forwarded.
    pub forwarding: Way,
    /// How they choose, as the configuration calls it.
    pub scheduler: String,
    /// Nodes that take new connections now.
    pub nodes_available: usize,
    /// All nodes.
    pub nodes_total: usize,
    /// Active connections.
    pub active: u64,
    /// Connections since the data path was created, or the worker started (L7).
    pub connections: u64,
    /// Client → node.
    pub forward: Traffic,
    /// Node → client (NAT only: DSR answers do not pass here).
    pub reply: Traffic,
    /// New connections placed by the ring because `flood_limit` was exceeded.
    pub flood_limited: u64,
    /// Its nodes, with the counters of this virtual server alone; left out where the list was asked for without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeView>,
    /// More of the L7 proxy; `None`: packets are forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyServerView>,
}

/// `GET /api/v1/pools`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PoolView {
    /// Name.
    pub name: String,
    /// How new connections are forwarded.
    pub forwarding: Way,
    /// Whether that was changed at run time (`lbctl pool set`), and a reload to other settings will undo it.
    pub forwarding_overridden: bool,
    /// How they choose, as the configuration calls it.
    pub scheduler: String,
    /// Connections of failed nodes; `None` for the L7 proxy, as the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_node_failure: Option<OnNodeFailure>,
    /// TCP packets that cannot be placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The pool that serves when this one has no live node.
    pub failure_pool: Option<String>,
    /// Monitors.
    pub monitors: Vec<String>,
    /// Virtual servers that use it.
    pub virtual_servers: Vec<String>,
    /// Nodes that take new connections now.
    #[serde(default)]
    pub nodes_available: usize,
    /// All nodes.
    #[serde(default)]
    pub nodes_total: usize,
    /// Active connections.
    #[serde(default)]
    pub active: u64,
    /// Connections since the data path was created, or the worker started (L7).
    #[serde(default)]
    pub connections: u64,
    /// Its nodes, counters summed over virtual servers; left out where the list was asked for without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeView>,
    /// More of the L7 proxy; `None`: packets are forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyPoolView>,
}

/// A node of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeView {
    /// Pool.
    pub pool: String,
    /// Name.
    pub name: String,
    /// `address:port`, or the address alone when the port is the virtual server's.
    pub address: String,
    /// Share of new connections.
    pub weight: u32,
    /// State in force.
    pub state: NodeState,
    /// Whether the state was set at run time (`lbctl node drain`).
    pub state_overridden: bool,
    /// What the monitors say.
    pub health: Health,
    /// Why it is down: the monitor's last words.
    pub health_reason: Option<String>,
    /// What it takes, after all that.
    pub admission: Admission,
    /// MAC address of the next hop; `None`: unresolved.
    pub mac: Option<String>,
    /// Interface towards it.
    pub interface: Option<String>,
    /// Active connections.
    pub active: u64,
    /// Connections since the data path was created.
    pub connections: u64,
    /// Connections moved here from failed nodes.
    pub rescheduled: u64,
    /// Brief and long silent DSR connections that were taken out of the full table.
    #[serde(default)]
    pub evicted: u64,
    /// Client → node.
    pub forward: Traffic,
    /// Node → client (NAT only).
    pub reply: Traffic,
    /// More of the L7 proxy; `None`: packets are forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyNodeView>,
}

/// `GET /api/v1/connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ConnectionView {
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// Client `address:port`.
    pub client: String,
    /// VIP `address:port`.
    pub vip: String,
    /// Virtual server.
    pub virtual_server: String,
    /// Pool.
    pub pool: String,
    /// Node.
    pub node: String,
    /// The node's `address:port` as rewritten; DSR: the node's address.
    pub node_address: String,
    /// How this connection is forwarded, whatever the pool does with new ones.
    pub forwarding: Forwarding,
    /// Source NAT: the `address:port` the node sees.
    pub source: Option<String>,
    /// `conntrack::State::name`.
    pub state: String,
    /// Seconds since it began.
    pub age_s: u64,
    /// Seconds since its last packet.
    pub idle_s: u64,
    /// Seconds until it is forgotten when no packet comes.
    pub expires_s: u64,
}

/// `GET /api/v1/maps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MapView {
    /// Name, as in `lb-ebpf/src/maps.rs`.
    pub name: String,
    /// Kernel map type.
    pub map_type: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value (per CPU for per-CPU maps).
    pub value_size: u32,
    /// Elements.
    pub max_entries: u32,
    /// Kernel memory, bytes.
    pub memory: u64,
    /// What it is for.
    pub purpose: String,
}

/// What `lbctl map dump` prints: decoded, by map. The rows are tables of strings with named columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MapDump {
    /// Name of the map.
    pub name: String,
    /// Column names.
    pub columns: Vec<String>,
    /// A row an element; elements that are all zero are left out.
    pub rows: Vec<Vec<String>>,
    /// Rows that were left out because the caller's limit was reached.
    pub more: u64,
}

/// One line of `lbctl map dump maglev --vs NAME`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RingShare {
    /// Node.
    pub node: String,
    /// Slots of the ring.
    pub slots: u32,
    /// Share of the ring, 0..1.
    pub share: f64,
    /// Share its weight asks for.
    pub expected: f64,
}

/// `POST /api/v1/trace`: a flow to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TraceRequest {
    /// Protocol.
    pub protocol: Protocol,
    /// Client `address:port`.
    pub source: String,
    /// Destination `address:port`.
    pub destination: String,
    /// Interface it would come in by; the first one of the configuration when not said.
    pub interface: Option<String>,
    /// TCP flags as letters (`S`, `A`, `F`, `R`); default `S`.
    pub flags: Option<String>,
}

/// What the loaded program says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TraceView {
    /// `send`, `pass` or `drop`.
    pub action: String,
    /// `Reason::name`.
    pub reason: String,
    /// `Reason::meaning`.
    pub meaning: String,
    /// Steps taken, in order, one sentence each.
    pub steps: Vec<String>,
    /// Virtual server.
    pub virtual_server: Option<String>,
    /// Pool.
    pub pool: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// Forwarding of this connection.
    pub forwarding: Option<Forwarding>,
    /// What is rewritten, `field: old -> new`, from the packet that came out.
    pub rewrites: Vec<String>,
    /// Next hop: MAC and interface.
    pub next_hop: Option<String>,
    /// What to do when it is not forwarded.
    pub advice: Option<String>,
}

/// How bad a finding of `lbctl doctor` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could, or could not be checked.
    Warning,
    /// Packets are lost because of it.
    Problem,
}

/// A finding of `lbctl doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// What was checked: `driver_mode`, `xdp_peer`, `offloads`, `mtu`, `rp_filter`, `forwarding`, `neighbour`, `pins`,
    /// `dsr_arp`, `dsr_syn`, …
    pub check: String,
    /// What it was checked on: an interface, a node.
    pub subject: String,
    /// How bad.
    pub severity: Severity,
    /// What was found.
    pub finding: String,
    /// What to do, as a command where there is one.
    pub advice: Option<String>,
}
