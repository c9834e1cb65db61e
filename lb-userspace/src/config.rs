//! Configuration: one TOML document (and `conf.d/*.toml` beside it) parsed into a valid, immutable [`Config`].
//!
//! Owns the format, its checks and its reference (`docs/config.md`). What comes out refers only to things that exist and
//! stays as it is; nothing is checked again later. All mistakes are reported at once, each with its place and a way out.
//! It must never look at the machine (interfaces, addresses, files other than the configuration): the same text is valid
//! or not on every machine. Called by `daemon` (start, reload, `--check`); the types are used by every subsystem.

mod advice;
pub mod alert;
pub mod api;
mod at;
pub mod bgp;
mod build;
pub mod changes;
mod check;
pub mod cluster;
mod document;
pub mod edit;
mod error;
pub mod files;
pub mod import;
mod kinds;
mod monitor;
mod ports;
pub mod proxy;
mod read;
pub mod reference;
mod rule;
mod rules;
mod schema;
mod source;
mod text;
mod warnings;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use lb_common::conntrack::Timeouts;

pub use self::{
    error::{ConfigError, ConfigErrors, Place},
    monitor::{Monitor, MonitorFiles, Recovery, Via},
    rules::{DsrObstacle, Users, common_port},
};
pub use crate::control::plan::Interface;
use crate::control::{
    plan::{Forwarding, OnNodeFailure, Protocol, Refusal, Scheduler, SourceAffinity},
    revision::Texts,
    view::NodeState,
};

/// Where the files are that complement the configuration file at `path`.
#[must_use]
pub fn fragments_of(path: &Path) -> PathBuf {
    source::fragments_of(path)
}

/// The ring seed of balancers that configure none. Balancers that share a VIP must agree on it; a secret one of one's own
/// keeps outsiders from choosing the node they reach (THREATS D3).
pub const DEFAULT_RING_SEED: &str = "lb";

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The daemon itself.
    pub daemon: Daemon,
    /// The admin API over the network, its users and its audit log.
    pub api: api::Api,
    /// The data path as a whole.
    pub dataplane: Dataplane,
    /// Interfaces that get the XDP program, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// The machines that VIP groups move between; `None`: this one is alone.
    pub cluster: Option<cluster::Cluster>,
    /// How VIP groups are announced to routers; `None`: not by lbd.
    pub bgp: Option<bgp::Bgp>,
    /// VIP groups, by name.
    pub vips: BTreeMap<String, VipGroup>,
    /// L4 virtual servers, by name.
    pub virtual_servers: BTreeMap<String, VirtualServer>,
    /// Pools that forward packets, by name.
    pub pools: BTreeMap<String, Pool>,
    /// Monitors, by name.
    pub monitors: BTreeMap<String, Monitor>,
    /// The socket of the machine's SNMP agent, where lbd answers for it.
    pub agentx: Option<PathBuf>,
    /// Which events are told to whom.
    pub alerts: alert::Alerts,
    /// What the L7 proxy serves: its virtual servers and pools are not among those above.
    pub proxy: proxy::Proxy,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The admin API's unix socket.
    pub socket: PathBuf,
    /// Where state that survives a restart is kept.
    pub state_dir: PathBuf,
    /// How many revisions of the configuration are kept.
    pub history_revisions: u32,
    /// How long.
    pub history_age: Duration,
    /// The programs that monitors may run.
    pub monitor_dir: PathBuf,
    /// The user that they run as.
    pub monitor_user: String,
    /// What a graceful stop does to the data path.
    pub on_stop: OnStop,
    /// The longest a graceful stop takes.
    pub shutdown_timeout: Duration,
}

/// What a graceful stop does to the data path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// It goes on forwarding as it is, without health checks.
    #[default]
    Keep,
    /// The programs are detached and the VIPs removed.
    Withdraw,
}

/// `[dataplane]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// Where the BPF file system is mounted.
    pub bpffs: PathBuf,
    /// Where our programs, links and maps are pinned; below `bpffs`.
    pub pin_dir: PathBuf,
    /// Room for tracked connections.
    pub max_flows: u32,
    /// Room for half-open connections.
    pub max_half_open: u32,
    /// Room for rings; `None`: for those that the configuration needs.
    pub max_rings: Option<u32>,
    /// Seed of the Maglev ring and its hash: [`ring_seed`] of the configured text.
    pub ring_seed: u64,
    /// First and last source port of source NAT.
    pub source_ports: (u16, u16),
    /// New connections per second, CPU and virtual server above which the ring places them.
    pub flood_limit: u32,
}

/// `[vip.NAME]`: addresses that move together between machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipGroup {
    /// The addresses, in the configured order.
    pub addresses: Vec<IpAddr>,
    /// The interface that each is raised on; all of them are there when `mode` raises them.
    pub interfaces: BTreeMap<IpAddr, String>,
    /// When lbd adds the addresses to their interfaces and announces them.
    pub mode: cluster::VipMode,
    /// With `everywhere`: when they are announced.
    pub announce_when: bgp::AnnounceWhen,
    /// With failover: the machine with the greatest one owns, 1..=254.
    pub priority: u8,
    /// With failover: whether this machine takes the group back from one with less priority.
    pub failback: bool,
    /// With failover: how long both must have been well before.
    pub failback_delay: Duration,
    /// With failover: the VRRP or CARP routers it is shared with; `None`: the machines of the cluster.
    pub router: Option<cluster::Router>,
}

/// `[virtual_server.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServer {
    /// Names of its VIP groups.
    pub vips: Vec<String>,
    /// Protocol.
    pub protocol: Protocol,
    /// Ranges of ports, inclusive; all ports: `[(1, 65535)]`.
    pub ports: Vec<(u16, u16)>,
    /// Name of its pool.
    pub pool: String,
    /// Timeouts of its flow records, except that of persistence, which is its pool's.
    pub timeouts: Timeouts,
}

impl VirtualServer {
    /// The port, when there is exactly one.
    #[must_use]
    pub fn single_port(&self) -> Option<u16> {
        match self.ports[..] {
            [(first, last)] if first == last => Some(first),
            _ => None,
        }
    }
}

/// `[pool.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How packets reach the nodes.
    pub forwarding: Forwarding,
    /// Source NAT: our address towards IPv4 nodes; `None`: the primary address of the interface that leads there.
    pub source_address4: Option<Ipv4Addr>,
    /// The same towards IPv6 nodes.
    pub source_address6: Option<Ipv6Addr>,
    /// How new connections choose a node.
    pub scheduler: Scheduler,
    /// Persistence.
    pub affinity: Option<SourceAffinity>,
    /// Connections of failed nodes.
    pub on_node_failure: OnNodeFailure,
    /// TCP packets that cannot be placed.
    pub refusal: Refusal,
    /// Name of the pool that serves when no node of this one takes new connections.
    pub failure_pool: Option<String>,
    /// Names of the monitors that check each node; all of them must succeed.
    pub monitors: Vec<String>,
    /// Nodes, by name; at least one.
    pub nodes: BTreeMap<String, Node>,
}

/// `[pool.NAME.node.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Address.
    pub address: IpAddr,
    /// Port; `None`: the packet's port stays. With DSR it never differs from the virtual server's.
    pub port: Option<u16>,
    /// Share of new connections, 1..=65535.
    pub weight: u32,
    /// Configured state.
    pub state: NodeState,
}

impl Config {
    /// Rings that the L4 virtual servers need: one for each of their VIPs' address families.
    #[must_use]
    pub fn rings(&self) -> u32 {
        let families = |server: &VirtualServer| {
            let groups = server.vips.iter().filter_map(|name| self.vips.get(name));
            groups.flat_map(|group| &group.addresses).map(IpAddr::is_ipv4).collect::<BTreeSet<bool>>().len() as u32
        };
        self.virtual_servers.values().map(families).sum()
    }

    /// Reads and checks a configuration file and the files `conf.d/*.toml` beside it, in the order of their names.
    ///
    /// # Errors
    /// Every mistake in them, or the files that cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::of(path, &Self::texts(path)?)
    }

    /// The text of a configuration file and of the files `conf.d/*.toml` beside it, unchecked.
    ///
    /// # Errors
    /// The files that cannot be read.
    pub fn texts(path: &Path) -> Result<Texts, ConfigErrors> {
        source::texts(path)
    }

    /// Checks texts that are, or are to be, those of the file at `path` and of the files beside it.
    ///
    /// # Errors
    /// Every mistake in them.
    pub fn of(path: &Path, texts: &Texts) -> Result<Self, ConfigErrors> {
        check::check(&source::Sources::of_texts(path, texts))
    }

    /// Reads the files that the configuration names, such as certificates, into it, and checks them.
    ///
    /// # Errors
    /// Every file that cannot be read or used.
    pub fn read_files(mut self) -> Result<Self, ConfigErrors> {
        let files = files::Files::read(&self)?;
        files.check_certificates(&self)?;
        self.proxy.files = files;
        self.read_monitors();
        Ok(self)
    }

    /// Checks one document. `source_name` is how errors call it.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, ConfigErrors> {
        check::check(&source::Sources::of_text(source_name, text))
    }
}

/// The number that the ring is seeded with for a configured text: 64-bit FNV-1a of its bytes, finished by
/// `lb_common::flow::mix64`. Stable for ever: balancers of different versions must agree.
#[must_use]
pub fn ring_seed(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    lb_common::flow::mix64(fnv)
}

#[cfg(test)]
mod tests;
