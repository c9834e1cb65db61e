//! What the admin API asks and orders: the traits that the composition root connects to the control task and the data
//! plane, so that `admin` knows neither.

use std::{collections::BTreeMap, future::Future, net::IpAddr, pin::Pin, sync::Arc};

use super::{
    capture::{CaptureRequest, Packets},
    event::{self, Events},
    history::{self, HistoryView},
    plan::{Forwarding, Protocol},
    proxy::{
        recent::{Filter, Record},
        stats::Snapshot,
        trace::{UrlTraceRequest, UrlTraceView},
    },
    view::{
        AlertView, CertificateView, ConnectionView, Finding, InterfaceView, MapDump, MapView, NodeState, PoolView,
        RingShare, Status, TableUse, TraceRequest, TraceView, Traffic, VipsView, VirtualServerView,
    },
};

/// Why a question could not be answered or an order not be carried out. The text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The named thing does not exist; says which, and what is there instead.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense as it is.
    #[error("{0}")]
    Invalid(String),
    /// It makes sense, but not now or not with this configuration.
    #[error("{0}")]
    Conflict(String),
    /// The configuration is not valid: every mistake, with its place.
    #[error("{0}")]
    ConfigInvalid(String),
    /// Another revision is in force than the one that the request builds on.
    #[error("{0}")]
    Stale(String),
    /// The kernel or our own state refused.
    #[error("{0}")]
    Failed(String),
}

/// Which connections to list. Empty fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Virtual server.
    pub virtual_server: Option<String>,
    /// Pool.
    pub pool: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// Client address.
    pub client: Option<IpAddr>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// `conntrack::State::name`.
    pub state: Option<String>,
    /// `dsr`, `nat`, `nat_source`.
    pub forwarding: Option<Forwarding>,
    /// At most this many (default 1000 in the API); half-open ones are listed last.
    pub limit: Option<usize>,
}

/// Connections found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Connections {
    /// Those within the limit.
    pub connections: Vec<ConnectionView>,
    /// All that match.
    pub total: u64,
}

/// Counters of one node slot, summed over CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Active connections.
    pub active: u64,
    /// Connections ever.
    pub connections: u64,
    /// Of these, moved from failed nodes.
    pub rescheduled: u64,
    /// Brief and long silent DSR connections that were taken out of the full table.
    pub evicted: u64,
    /// Client → node.
    pub forward: Traffic,
    /// Node → client.
    pub reply: Traffic,
    /// MAC address of the next hop.
    pub mac: Option<String>,
    /// Interface towards it.
    pub interface: Option<String>,
}

/// Whose counters: virtual server, pool, node.
pub type NodeId = (String, String, String);

/// All counters of the data path at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// Tables.
    pub tables: BTreeMap<String, TableUse>,
    /// Node slots.
    pub nodes: BTreeMap<NodeId, NodeCounters>,
    /// Flood-limited new connections by virtual server.
    pub flood_limited: BTreeMap<String, u64>,
    /// What the L7 proxy counted.
    pub proxy: Arc<Snapshot>,
}

/// Whose counters are wanted: a site may have ten thousand nodes, and a question be about one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Everything.
    All,
    /// Interfaces and tables, which every answer has.
    Machine,
    /// All virtual servers, too, added up: of the L7 proxy without pools and nodes.
    VirtualServers,
    /// Nodes of a pool, too.
    Pool(&'a str),
    /// Nodes of a virtual server, too.
    VirtualServer(&'a str),
}

/// Whether lists of virtual servers and pools have their nodes: of a large site, most of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Each with its nodes.
    Shown,
    /// Numbers alone.
    Counted,
}

impl Nodes {
    /// Them, if they are shown.
    pub fn of<T>(self, nodes: impl FnOnce() -> Vec<T>) -> Vec<T> {
        match self {
            Self::Shown => nodes(),
            Self::Counted => Vec::new(),
        }
    }
}

/// What the data plane answers. Implemented by `dataplane`; may block for milliseconds.
pub trait DataPath: Send + Sync + std::fmt::Debug {
    /// Counters now.
    ///
    /// # Errors
    /// `Failed` when a map cannot be read.
    fn counters(&self) -> Result<Counters, QueryError>;
    /// Counters now, of a part at least.
    ///
    /// # Errors
    /// As [`DataPath::counters`].
    fn counters_of(&self, _part: Part<'_>) -> Result<Counters, QueryError> {
        self.counters()
    }
    /// Connections that match.
    ///
    /// # Errors
    /// `Invalid` for an unknown state name.
    fn connections(&self, filter: &ConnectionFilter) -> Result<Connections, QueryError>;
    /// Our BPF maps.
    ///
    /// # Errors
    /// `Failed` when the kernel does not tell.
    fn maps(&self) -> Result<Vec<MapView>, QueryError>;
    /// A map, decoded.
    ///
    /// # Errors
    /// `NotFound` for an unknown name.
    fn dump_map(&self, name: &str, limit: usize) -> Result<MapDump, QueryError>;
    /// The Maglev ring of a virtual server.
    ///
    /// # Errors
    /// `NotFound` for an unknown name.
    fn ring(&self, virtual_server: &str) -> Result<Vec<RingShare>, QueryError>;
    /// What the loaded program would do with a packet.
    ///
    /// # Errors
    /// `Invalid` when the request cannot be parsed, `Failed` when the kernel refuses the test run.
    fn trace(&self, request: &TraceRequest) -> Result<TraceView, QueryError>;
    /// What keeps packets from flowing. Sends probes (ARP, SYN) to nodes of DSR pools; may take seconds.
    ///
    /// # Errors
    /// `Failed` when not even the checks could be started.
    fn doctor(&self) -> Result<Vec<Finding>, QueryError>;
}

/// Packets, as the data path decides about them. Implemented by `dataplane`.
pub trait CapturePath: Send + Sync + std::fmt::Debug {
    /// Begins to capture; it ends by itself, or when what is answered is dropped. Blocks for a second at most.
    ///
    /// # Errors
    /// `Invalid` when the request makes no sense, `NotFound` for an unknown interface, `Conflict` while somebody else
    /// captures, `Failed` when the kernel refuses.
    fn capture(&self, request: &CaptureRequest) -> Result<Packets, QueryError>;
}

/// What the L7 proxy answers. Implemented by `daemon`; may wait for the worker, for seconds at most.
pub trait ProxyPath: Send + Sync + std::fmt::Debug {
    /// Counters now, of a part at least; of a worker that does not answer, those of its last answer.
    fn counted(&self, part: Part<'_>) -> Arc<Snapshot>;
    /// Requests that ended lately, newest first.
    ///
    /// # Errors
    /// `Failed` when the worker does not answer.
    fn recent(&self, filter: &Filter) -> Result<Vec<Record>, QueryError>;
    /// What would become of a request.
    ///
    /// # Errors
    /// `Invalid` when it makes no sense, `NotFound` when no virtual server takes it.
    fn trace_url(&self, request: &UrlTraceRequest) -> Result<UrlTraceView, QueryError>;
}

/// The journal of events. Implemented by `daemon`; answers at once.
pub trait EventPath: Send + Sync + std::fmt::Debug {
    /// Events that match.
    fn events(&self, filter: &event::Filter) -> Events;
    /// Is done once there is an event with a greater number.
    fn newer(&self, than: u64) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// How often each happened since lbd started.
    fn counts(&self) -> BTreeMap<event::Name, u64>;
    /// Events that the alerts did not get because they were behind.
    fn lost(&self) -> u64;
}

/// The histories. Implemented by `daemon`; answers at once.
pub trait HistoryPath: Send + Sync + std::fmt::Debug {
    /// Those that were asked for.
    fn history(&self, question: &history::Question) -> HistoryView;
}

/// The alerts. Implemented by `alerts`.
pub trait AlertPath: Send + Sync + std::fmt::Debug {
    /// All of them, by name.
    fn alerts(&self) -> Vec<AlertView>;
    /// Tells a test now, and waits until it was told; blocks.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `Failed` with the reason when it could not be told.
    fn test(&self, name: &str) -> Result<(), QueryError>;
}

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Change a node's state at run time, until it is set again.
    SetNodeState {
        /// Pool; `None` when the node's name is unique.
        pool: Option<String>,
        /// Node.
        node: String,
        /// State.
        state: NodeState,
    },
    /// Take in a node that a monitor with manual recovery took out.
    TakeNodeIn {
        /// Pool; `None` when the node's name is unique.
        pool: Option<String>,
        /// Node.
        node: String,
    },
    /// Change a node's weight at run time.
    SetNodeWeight {
        /// Pool; `None` when the node's name is unique.
        pool: Option<String>,
        /// Node.
        node: String,
        /// At least 1.
        weight: u32,
    },
    /// Change how a pool forwards new connections.
    SetForwarding {
        /// Pool.
        pool: String,
        /// New way.
        forwarding: Forwarding,
    },
    /// One of the orders above, undone at that time (seconds since 1970).
    Until(Box<Order>, u64),
    /// Give a VIP group away: to that machine, or to the best other one. Changes nothing of the state.
    MoveVip {
        /// VIP group.
        group: String,
        /// Machine.
        to: Option<String>,
    },
    /// Leave all VIP groups to the other machines, until it is switched off: also over a restart.
    Maintenance(bool),
    /// Replace lbd by the program that is installed now.
    Upgrade,
}

/// What a page of metrics is made of.
#[derive(Clone, Debug)]
pub struct Everything {
    /// The daemon.
    pub status: Status,
    /// By name, without their nodes.
    pub virtual_servers: Vec<VirtualServerView>,
    /// By name.
    pub pools: Vec<PoolView>,
    /// What the L7 proxy counted.
    pub proxy: Arc<Snapshot>,
}

/// What the control task answers.
pub trait Control: Send + Sync + std::fmt::Debug {
    /// Whether everything that the configuration says is in force: packets are forwarded, and the L7 proxy serves.
    ///
    /// # Errors
    /// When lbd is stopping.
    fn ready(&self) -> Result<bool, QueryError>;
    /// The daemon.
    ///
    /// # Errors
    /// As the data path's.
    fn status(&self) -> Result<Status, QueryError>;
    /// All virtual servers, by name.
    ///
    /// # Errors
    /// As the data path's.
    fn virtual_servers(&self, nodes: Nodes) -> Result<Vec<VirtualServerView>, QueryError>;
    /// The one of a name, if there is one.
    ///
    /// # Errors
    /// As the data path's.
    fn virtual_server(&self, name: &str) -> Result<Option<VirtualServerView>, QueryError> {
        Ok(self.virtual_servers(Nodes::Shown)?.into_iter().find(|server| server.name == name))
    }
    /// All pools, by name.
    ///
    /// # Errors
    /// As the data path's.
    fn pools(&self, nodes: Nodes) -> Result<Vec<PoolView>, QueryError>;
    /// The one of a name, if there is one.
    ///
    /// # Errors
    /// As the data path's.
    fn pool(&self, name: &str) -> Result<Option<PoolView>, QueryError> {
        Ok(self.pools(Nodes::Shown)?.into_iter().find(|pool| pool.name == name))
    }
    /// The daemon, all virtual servers without their nodes and all pools with theirs, of one moment.
    ///
    /// # Errors
    /// As the data path's.
    fn everything(&self) -> Result<Everything, QueryError>;
    /// The certificates of the configuration, by name.
    ///
    /// # Errors
    /// When lbd is stopping.
    fn certificates(&self) -> Result<Vec<CertificateView>, QueryError>;
    /// VIP groups and the machines they move between.
    ///
    /// # Errors
    /// When lbd is stopping.
    fn vips(&self) -> Result<VipsView, QueryError>;
    /// Carry out an order; returns once the data path does it.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (with the reason, e.g. DSR with a port mapping), `Failed`.
    fn order(&self, order: Order) -> Result<(), QueryError>;
}
