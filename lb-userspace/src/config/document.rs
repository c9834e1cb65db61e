//! The configuration as it is written. The doc comments here are the text of `docs/config.md` and of "missing" errors:
//! they are for operators. What a key is, its range and its default are said here once; `schema` checks documents
//! against it and `reference` prints it. References between sections are not looked at here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use lb_common::conntrack::{State, Timeouts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DEFAULT_RING_SEED, OnStop,
    at::At,
    ports::Ports,
    text::{AbsolutePath, NodeAddress, Period, PortRange, Seconds},
};
use crate::control::{
    plan::{AttachMode, OnNodeFailure, Protocol, Refusal, Scheduler},
    view::NodeState,
};

/// Named tables with the place of each name.
pub(super) type Named<T> = BTreeMap<At<String>, T>;

/// The whole document. `version = 1` is checked apart from the rest.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Document {
    /// The daemon itself.
    #[serde(default)]
    pub(super) daemon: Daemon,
    /// The data path as a whole.
    #[serde(default)]
    pub(super) dataplane: Dataplane,
    /// An interface where the XDP program is attached: one that clients' packets come in by, or, with `nat`, nodes'
    /// answers. At least one is needed for virtual servers to be served.
    #[serde(default)]
    pub(super) interface: Named<Interface>,
    /// A VIP group: addresses that clients connect to, and that move together between machines.
    #[serde(default)]
    pub(super) vip: Named<VipGroup>,
    /// A virtual server: what is balanced. Where virtual servers overlap, the one with the smaller range of ports serves.
    #[serde(default)]
    pub(super) virtual_server: Named<VirtualServer>,
    /// A pool: the nodes, how one is chosen, how packets reach it.
    #[serde(default)]
    pub(super) pool: Named<Pool>,
    /// A monitor: an active health check, used by any number of pools.
    #[serde(default)]
    pub(super) monitor: Named<Monitor>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct Daemon {
    /// The unix socket of the admin API, which `lbctl` talks to.
    pub(super) socket: At<AbsolutePath>,
    /// Where lbd keeps what must survive a restart, such as nodes that were drained at run time.
    pub(super) state_dir: At<AbsolutePath>,
    /// What a graceful stop (SIGTERM) does to the data path. A crash always leaves it forwarding.
    pub(super) on_stop: At<OnStop>,
    /// The longest a graceful stop takes; what is not done by then is left.
    pub(super) shutdown_timeout: At<Period>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct Dataplane {
    /// Where the BPF file system is mounted.
    pub(super) bpffs: At<AbsolutePath>,
    /// Where programs, links and maps are pinned, below `bpffs`; by default its directory `lb`. Two lbds on one machine
    /// need two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pin_dir: Option<At<AbsolutePath>>,
    /// Room for tracked connections; one with `nat` takes two places. The tables have twice as many places, 128 bytes for
    /// each connection in all. Takes effect when the maps are created.
    #[schemars(range(min = 1024, max = 134_217_728))]
    pub(super) max_flows: At<u32>,
    /// Room for half-open connections: TCP connections of which only the client's SYN was seen, UDP flows of one datagram.
    /// They never displace tracked ones. Takes effect when the maps are created.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub(super) max_half_open: At<u32>,
    /// Text that seeds the Maglev ring. Balancers that serve the same VIPs need the same one, to choose the same nodes
    /// without talking to each other. Choose a secret one, so that nobody outside can aim at a node.
    pub(super) ring_seed: At<String>,
    /// Source ports that source NAT takes. They must lie outside `net.ipv4.ip_local_port_range`, where the machine's own
    /// connections are.
    pub(super) source_ports: At<PortRange>,
    /// New connections per second, CPU and virtual server above which the ring places them, whatever the scheduler: a SYN
    /// flood then costs little and the choice stays stable.
    #[schemars(range(min = 1))]
    pub(super) flood_limit: At<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Interface {
    /// How the program is attached.
    #[serde(default)]
    pub(super) mode: At<AttachMode>,
    /// VLAN ids that are served beside untagged frames. Frames of other VLANs pass untouched.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 4094)))]
    pub(super) vlans: Vec<At<u16>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct VipGroup {
    /// IPv4 and IPv6 addresses.
    #[schemars(required, length(min = 1))]
    pub(super) addresses: Option<Vec<At<IpAddr>>>,
    /// The interface the addresses are raised on; by default the only `[interface]`, when there is one.
    pub(super) interface: Option<At<String>>,
    /// Whether lbd adds the addresses to the interface and announces them (gratuitous ARP, unsolicited neighbour
    /// advertisement). Without, something else must bring the packets here: a route, or the machine's own set-up.
    #[serde(default)]
    pub(super) raise: At<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct VirtualServer {
    /// Names of VIP groups.
    #[schemars(required, length(min = 1))]
    pub(super) vips: Option<Vec<At<String>>>,
    /// Transport protocol.
    #[schemars(required)]
    pub(super) protocol: Option<At<Protocol>>,
    /// One port, a list of ports and ranges, or `"all"`.
    #[schemars(required)]
    pub(super) ports: Option<At<Ports>>,
    /// Name of the pool that serves.
    #[schemars(required)]
    pub(super) pool: Option<At<String>>,
    /// Timeouts of its connections.
    #[serde(default)]
    pub(super) timeouts: TimeoutsTable,
}

/// Time without a packet after which a connection is forgotten, by its state.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct TimeoutsTable {
    /// TCP, half-open: a SYN was seen, the client's answer to the node's SYN-ACK was not.
    pub(super) syn_sent: At<Seconds>,
    /// TCP, established.
    pub(super) established: At<Seconds>,
    /// TCP, one side has closed. With `dsr` only the client's side is seen.
    pub(super) fin_wait: At<Seconds>,
    /// TCP, both sides have closed.
    pub(super) time_wait: At<Seconds>,
    /// TCP, after a reset. It is not forgotten at once, because a reset may be forged.
    pub(super) closed: At<Seconds>,
    /// UDP, one datagram was seen.
    pub(super) udp_new: At<Seconds>,
    /// UDP, more than one.
    pub(super) udp: At<Seconds>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Pool {
    /// How packets reach the nodes.
    #[schemars(required)]
    pub(super) forwarding: Option<At<ForwardingWord>>,
    /// With `nat`: also replace the client's address by the balancer's, so that answers come back without a route. Nodes
    /// then do not see the client's address.
    #[serde(default)]
    pub(super) source_nat: At<bool>,
    /// With `source_nat`: the balancer's address towards IPv4 nodes; by default the first one of the interface that leads
    /// there.
    pub(super) source_address: Option<At<Ipv4Addr>>,
    /// The same towards IPv6 nodes.
    pub(super) source_address6: Option<At<Ipv6Addr>>,
    /// How a new connection chooses its node.
    #[serde(default)]
    pub(super) scheduler: At<Scheduler>,
    /// Keeps a client on one node; without, each connection is scheduled anew.
    pub(super) persistence: Option<Persistence>,
    /// What becomes of connections whose node failed or was disabled.
    #[serde(default)]
    pub(super) on_node_failure: At<OnNodeFailure>,
    /// What becomes of a TCP packet that cannot be placed: no node takes it, or it belongs to no known connection.
    #[serde(default)]
    pub(super) refusal: At<Refusal>,
    /// Name of the pool that serves while no node of this one takes new connections.
    pub(super) failure_pool: Option<At<String>>,
    /// Names of the monitors that check every node. All of them must succeed; a pool without is always up.
    #[serde(default)]
    pub(super) monitors: Vec<At<String>>,
    /// A server of the pool.
    #[serde(default)]
    pub(super) node: Named<Node>,
}

/// How packets reach the nodes, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ForwardingWord {
    /// Direct server return: only MAC addresses change; the node owns the VIP and answers the client itself.
    Dsr,
    /// Destination address and port are translated; answers pass the balancer.
    Nat,
}

/// Source-address persistence.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Persistence {
    /// What tells clients apart.
    #[schemars(required)]
    #[expect(dead_code, reason = "there is only one kind, which the schema requires")]
    pub(super) r#type: Option<At<PersistenceWord>>,
    /// Clients with the same first bits of their IPv4 address share a node.
    #[serde(default = "default_prefix")]
    #[schemars(range(min = 1, max = 32))]
    pub(super) prefix: At<u8>,
    /// The same for IPv6.
    #[serde(default = "default_prefix6")]
    #[schemars(range(min = 1, max = 128))]
    pub(super) prefix6: At<u8>,
    /// How long after its last new connection a client keeps its node.
    #[serde(default = "default_persistence_timeout")]
    pub(super) timeout: At<Seconds>,
}

/// What tells clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PersistenceWord {
    /// Their source address.
    SourceAddress,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Node {
    /// Address, and port where the node's differs from the virtual server's (`nat` only).
    #[schemars(required)]
    pub(super) address: Option<At<NodeAddress>>,
    /// Share of new connections, for the schedulers that weigh.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 65_535))]
    pub(super) weight: At<u32>,
    /// What it takes. `lbctl node drain` and the like change it at run time.
    #[serde(default)]
    pub(super) state: At<NodeState>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Monitor {
    /// What it does.
    #[schemars(required)]
    pub(super) r#type: Option<At<MonitorWord>>,
    /// From the start of a check to the start of the next one.
    #[serde(default = "default_delay")]
    pub(super) delay: At<Period>,
    /// A check without an answer fails after this.
    #[serde(default = "default_timeout")]
    pub(super) timeout: At<Period>,
    /// A node goes down after this many failed checks in a row.
    #[serde(default = "default_failures")]
    #[schemars(range(min = 1, max = 100))]
    pub(super) failures: At<u32>,
    /// A node comes up after this many successful checks in a row.
    #[serde(default = "default_successes")]
    #[schemars(range(min = 1, max = 100))]
    pub(super) successes: At<u32>,
    /// With `tcp`: the port; by default the node's, or else the virtual server's.
    #[schemars(range(min = 1, max = 65_535))]
    pub(super) port: Option<At<u16>>,
}

/// What a monitor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum MonitorWord {
    /// Opens a TCP connection to the node's own address.
    Tcp,
    /// Sends an ICMP echo request to the node's own address.
    Ping,
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

fn default_delay() -> At<Period> {
    At::default_of(Period(Duration::from_secs(5)))
}

fn default_timeout() -> At<Period> {
    At::default_of(Period(Duration::from_secs(10)))
}

fn default_failures() -> At<u32> {
    At::default_of(3)
}

fn default_successes() -> At<u32> {
    At::default_of(1)
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            socket: path("/run/lb/admin.sock"),
            state_dir: path("/var/lib/lb"),
            on_stop: At::default(),
            shutdown_timeout: At::default_of(Period(Duration::from_secs(10))),
        }
    }
}

impl Default for Dataplane {
    fn default() -> Self {
        Self {
            bpffs: path("/sys/fs/bpf"),
            pin_dir: None,
            max_flows: At::default_of(1_048_576),
            max_half_open: At::default_of(65_536),
            ring_seed: At::default_of(DEFAULT_RING_SEED.to_owned()),
            source_ports: At::default_of(PortRange(1024, 32_767)),
            flood_limit: At::default_of(20_000),
        }
    }
}

impl Default for TimeoutsTable {
    fn default() -> Self {
        let of = |state: State| At::default_of(Seconds(Timeouts::default().0[state as usize]));
        Self {
            syn_sent: of(State::SynSent),
            established: of(State::Established),
            fin_wait: of(State::FinWait),
            time_wait: of(State::TimeWait),
            closed: of(State::Closed),
            udp_new: of(State::UdpNew),
            udp: of(State::Udp),
        }
    }
}

fn path(path: &str) -> At<AbsolutePath> {
    At::default_of(AbsolutePath(PathBuf::from(path)))
}
