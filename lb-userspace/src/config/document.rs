//! The configuration as it is written. The doc comments here are the text of `docs/config.md` and of "missing" errors:
//! they are for operators. What a key is, its range and its default are said here once; `schema` checks documents
//! against it and `reference` prints it. References between sections are not looked at here.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use lb_common::conntrack::{State, Timeouts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DEFAULT_RING_SEED, OnStop,
    at::At,
    ports::Ports,
    rule::RuleList,
    text::{AbsolutePath, ByteRate, NetworkText, Period, PortRange, Seconds},
};
use crate::control::{plan::AttachMode, proxy::ClientTimeouts};

pub(super) mod alert;
pub(super) mod api;
pub(super) mod bgp;
pub(super) mod cluster;
mod monitor;
mod pool;
pub(super) mod proxy;

pub(super) use self::{
    monitor::{Monitor, MonitorTls, MonitorWord, Step},
    pool::{ForwardingWord, Node, Persistence, PersistenceWord, Pool, SchedulerWord},
};

use self::alert::{Alert, EventType, Snmp};
use self::api::Api;
use self::bgp::Bgp;
use self::cluster::{Cluster, Network, VipGroup};
use self::proxy::{
    AccessLog, BandwidthClass, Certificate, ErrorPage, Http, IdentityTable, Limits, Proxy, RateClass, ServerTls,
    TlsDefaults, period,
};

/// Named tables with the place of each name.
pub(super) type Named<T> = BTreeMap<At<String>, T>;

/// The whole document. `version = 1` is checked apart from the rest.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Document {
    /// The daemon itself.
    #[serde(default)]
    pub(super) daemon: Daemon,
    /// The admin API: over HTTPS as well, who may use it, and what is written down of it.
    #[serde(default)]
    pub(super) api: Api,
    /// The data path as a whole.
    #[serde(default)]
    pub(super) dataplane: Dataplane,
    /// An interface where the XDP program is attached: one that clients' packets come in by, or, with `nat`, nodes'
    /// answers. At least one is needed for virtual servers to be served.
    #[serde(default)]
    pub(super) interface: Named<Interface>,
    /// The machines that VIP groups with `mode = "failover"` move between. Each tells the others by heartbeats which groups
    /// it owns; there is no quorum, so that two machines are enough. Takes effect when lbd starts.
    pub(super) cluster: Option<Cluster>,
    /// BGP towards routers, or the FRR or BIRD of this machine: announces the VIPs of groups with `mode = "everywhere"` while this
    /// machine serves them. Routes of neighbours are not taken.
    pub(super) bgp: Option<Bgp>,
    /// A network, `[network."203.0.113.0/24"]`: on which interface its VIPs are raised. Needed for VIPs that do not belong
    /// to the network of the machine's only interface.
    #[serde(default)]
    pub(super) network: Named<Network>,
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
    /// Questions by SNMP: lbd answers them through the machine's own SNMP agent.
    #[serde(default)]
    pub(super) snmp: Snmp,
    /// A group of events, for the alerts that name it. Events and their meanings are listed in `docs/operations.md`.
    #[serde(default)]
    pub(super) event_type: Named<EventType>,
    /// An alert: events are told to somebody. `lbctl alert test NAME` tries it.
    #[serde(default)]
    pub(super) alert: Named<Alert>,
    /// The L7 proxy as a whole: it serves virtual servers with `protocol` `http`, `https`, `tcp_proxy`, `tls` or
    /// `tls_passthrough`, in a worker process without privileges.
    #[serde(default)]
    pub(super) proxy: Proxy,
    /// TLS with clients, where a virtual server says nothing else.
    #[serde(default)]
    pub(super) tls: TlsDefaults,
    /// A certificate with its key. The files are read when lbd starts and at each reload.
    #[serde(default)]
    pub(super) certificate: Named<Certificate>,
    /// A limit of requests, for the rules that name it: what is beyond is answered 429.
    #[serde(default)]
    pub(super) rate_class: Named<RateClass>,
    /// A limit of bytes per second, shared by everything that rules put into it.
    #[serde(default)]
    pub(super) bandwidth_class: Named<BandwidthClass>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct Daemon {
    /// The unix socket of the admin API, which `lbctl` talks to.
    pub(super) socket: At<AbsolutePath>,
    /// Where lbd keeps what must survive a restart, such as nodes that were drained at run time.
    pub(super) state_dir: At<AbsolutePath>,
    /// How many revisions of the configuration are kept there, the newest; those in force now and before always are.
    #[schemars(range(min = 2, max = 100_000))]
    pub(super) history_revisions: At<u32>,
    /// For how many days they are kept.
    #[schemars(range(min = 1, max = 36_500))]
    pub(super) history_days: At<u32>,
    /// The programs that monitors may run: each a plain file in this directory, which belongs to root and which nobody else
    /// can write to, as its files. Looked for when lbd starts.
    pub(super) monitor_dir: At<AbsolutePath>,
    /// The user that they run as; it needs no file. Takes effect when lbd is started again.
    pub(super) monitor_user: At<String>,
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
    /// Room for tracked connections; one with `nat` takes two places. The tables have twice as many places, 160 bytes for
    /// each connection in all. Takes effect when the maps are created.
    #[schemars(range(min = 1024, max = 134_217_728))]
    pub(super) max_flows: At<u32>,
    /// Room for half-open connections: TCP connections of which only the client's SYN was seen, UDP flows of one datagram.
    /// They never displace tracked ones. Takes effect when the maps are created.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub(super) max_half_open: At<u32>,
    /// Room for rings: each L4 virtual server has one for each of its address families. 257 KiB each, half of it for the ring
    /// that replaces it. By default 254, or as many as the configuration needs when the maps are created, if that is more.
    /// Up to twice as many fit, but then take turns to be replaced, a second each. Takes effect when the maps are created.
    #[schemars(range(min = 1, max = 8190))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_rings: Option<At<u32>>,
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
pub(super) struct VirtualServer {
    /// Names of VIP groups. Needed, except where `listen` says addresses.
    #[schemars(length(min = 1))]
    pub(super) vips: Option<Vec<At<String>>>,
    /// L7: addresses of the machine to listen on, beside those of `vips`; `"0.0.0.0"` and `"::"` are all of them.
    #[schemars(length(min = 1))]
    pub(super) listen: Option<Vec<At<IpAddr>>>,
    /// What is spoken with clients. `tcp` and `udp` are L4: packets are forwarded by XDP. The others are L7: the proxy ends the
    /// client's connection and makes one of its own to a node; their pools have `forwarding = "proxy"`.
    #[schemars(required)]
    pub(super) protocol: Option<At<ProtocolWord>>,
    /// One port, a list of ports and ranges, or `"all"`. L7: at most 64 ports.
    #[schemars(required)]
    pub(super) ports: Option<At<Ports>>,
    /// Name of the pool that serves. Needed, except where rules or server names say others.
    pub(super) pool: Option<At<String>>,
    /// Timeouts of its connections.
    #[serde(default)]
    pub(super) timeouts: TimeoutsTable,
    /// TLS with clients. Needed with `https` and `tls`.
    pub(super) tls: Option<ServerTls>,
    /// HTTP with clients.
    pub(super) http: Option<Http>,
    /// What nodes are told about the client, in header fields.
    pub(super) identity: Option<IdentityTable>,
    /// What is answered when no node can; by default a short page with the status of the failure.
    pub(super) error_page: Option<ErrorPage>,
    /// Limits of what clients may do.
    #[serde(default)]
    pub(super) limits: Limits,
    /// L7: name of the bandwidth class that all transfers with its clients count in, both directions together.
    pub(super) bandwidth: Option<At<String>>,
    /// A log of requests, or of connections where there are none; by default none.
    pub(super) access_log: Option<AccessLog>,
    /// L7: networks that speak the PROXY protocol (v1 or v2) in front of what they send; connections of others are closed.
    /// By default nobody speaks it.
    #[schemars(length(min = 1))]
    pub(super) proxy_protocol: Option<Vec<At<NetworkText>>>,
    /// With `tls_passthrough`: pools by the server name that the client asks for; `"*.example.com"` stands for one label more.
    #[serde(default)]
    pub(super) server_names: Named<At<String>>,
    /// L7: how many finished requests are remembered for `lbctl conn ls --l7`.
    #[schemars(range(min = 0, max = 100_000))]
    pub(super) recent: Option<At<u32>>,
    /// Rules, in order: see the end of this page.
    #[serde(default)]
    #[expect(dead_code, reason = "read by `rule` from the tree, with the place of each part")]
    pub(super) rule: RuleList,
}

/// What is spoken with clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolWord {
    /// L4: TCP, packet by packet.
    Tcp,
    /// L4: UDP, datagram by datagram.
    Udp,
    /// L7: HTTP/1.1 and HTTP/2, without TLS.
    Http,
    /// L7: the same with TLS.
    Https,
    /// L7: bytes both ways, whoever speaks first.
    TcpProxy,
    /// L7: the same with TLS, which ends here.
    Tls,
    /// L7: TLS that ends at the nodes; the pool is chosen by the server name of the ClientHello.
    TlsPassthrough,
}

/// L4: time without a packet after which a connection is forgotten, by its state. L7: how long clients may take.
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
    /// L7: from accept to the end of the TLS handshake, and of the PROXY header.
    pub(super) handshake: At<Period>,
    /// L7: from accept, or from the first byte on a kept connection, to the end of a request's head.
    pub(super) request_head: At<Period>,
    /// L7: between requests on a kept connection.
    pub(super) keep_alive: At<Period>,
    /// L7: without a byte either way, for bodies, upgrades and generic connections.
    pub(super) idle: At<Period>,
    /// L7: least rate of a request body once it has run for `body_grace`; `"0B/s"`: none.
    pub(super) body_rate: At<ByteRate>,
    /// L7: see `body_rate`.
    pub(super) body_grace: At<Period>,
    /// L7: how long a write to the client may make no progress.
    pub(super) write_stall: At<Period>,
    /// L7: a whole request with its response; by default any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction: Option<At<Period>>,
    /// L7: how long open requests and upgrades may go on when the worker drains.
    pub(super) drain: At<Period>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            socket: path("/run/lb/admin.sock"),
            state_dir: path("/var/lib/lb"),
            history_revisions: At::default_of(500),
            history_days: At::default_of(365),
            monitor_dir: path("/etc/lb/monitors"),
            monitor_user: At::default_of("lb-monitor".to_owned()),
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
            max_rings: None,
            ring_seed: At::default_of(DEFAULT_RING_SEED.to_owned()),
            source_ports: At::default_of(PortRange(1024, 32_767)),
            flood_limit: At::default_of(20_000),
        }
    }
}

impl Default for TimeoutsTable {
    fn default() -> Self {
        let of = |state: State| At::default_of(Seconds(Timeouts::default().0[state as usize]));
        let client = ClientTimeouts::default();
        Self {
            syn_sent: of(State::SynSent),
            established: of(State::Established),
            fin_wait: of(State::FinWait),
            time_wait: of(State::TimeWait),
            closed: of(State::Closed),
            udp_new: of(State::UdpNew),
            udp: of(State::Udp),
            handshake: period(client.handshake),
            request_head: period(client.request_head),
            keep_alive: period(client.keep_alive),
            idle: period(client.idle),
            body_rate: At::default_of(ByteRate(client.body_rate.into())),
            body_grace: period(client.body_grace),
            write_stall: period(client.write_stall),
            transaction: None,
            drain: period(client.drain),
        }
    }
}

fn path(path: &str) -> At<AbsolutePath> {
    At::default_of(AbsolutePath(PathBuf::from(path)))
}
