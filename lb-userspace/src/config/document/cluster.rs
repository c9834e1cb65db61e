//! `[cluster]`, `[network.NAME]` and `[vip.NAME]` as they are written: see [`super`].

use std::{net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        at::At,
        bgp::AnnounceWhen,
        cluster::RouterProtocol,
        text::{AbsolutePath, FrontEndText, Period, SocketText},
    },
    Named,
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Cluster {
    /// This machine's name. Each machine of the cluster has another one.
    #[schemars(required)]
    pub(in crate::config) machine: Option<At<String>>,
    /// File with the secret that all machines share, 32 bytes or more, for its owner alone (mode 0600). One is made by
    /// `head -c 32 /dev/urandom > FILE`.
    #[schemars(required)]
    pub(in crate::config) key_file: Option<At<AbsolutePath>>,
    /// File with the secret before that one: heartbeats with it are still accepted, while the machines get the new one.
    pub(in crate::config) old_key_file: Option<At<AbsolutePath>>,
    /// Own addresses that heartbeats go out from and come in at, UDP; port 3780 where none is said. Two addresses on two
    /// interfaces are two paths to every other machine: one of them may fail.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) listen: Option<Vec<At<SocketText>>>,
    /// Time between heartbeats, the same on all machines. 10 ms to 10 s.
    #[serde(default = "default_interval")]
    pub(in crate::config) interval: At<Period>,
    /// A machine counts as dead when this many heartbeats are missing, and a quarter of an interval has passed beyond.
    #[serde(default = "default_misses")]
    #[schemars(range(min = 2, max = 100))]
    pub(in crate::config) misses: At<u32>,
    /// Addresses on the clients' side that answer pings, `"%gateway%"` for that of the default IPv4 route. When none of them
    /// answers, this machine gives its VIP groups to one that is well; when no machine is, they stay.
    #[serde(default)]
    pub(in crate::config) front_end: Vec<At<FrontEndText>>,
    /// Whether it does so as well when none of the nodes of L4 pools answers a ping, of which 64 are asked.
    #[serde(default)]
    pub(in crate::config) node_pings: At<bool>,
    /// Between two of these pings, which must be answered within that time; three in a row make a fault.
    #[serde(default = "default_check_interval")]
    pub(in crate::config) check_interval: At<Period>,
    /// Names of `[monitor.NAME]` that must succeed for this machine to own VIP groups: programs, and monitors with an `address`.
    /// While one of them fails, the machine gives its groups to one that is well.
    #[serde(default)]
    pub(in crate::config) monitors: Vec<At<String>>,
    /// Whether the other machines are told of NAT connections, of clients' nodes (persistence, L4 and L7) and of the keys of TLS
    /// tickets, so that these go on when a VIP group moves: encrypted, over TCP to the port of heartbeats, and never while that would
    /// take more than a twentieth of a processor.
    #[serde(default = "default_share")]
    pub(in crate::config) share_connections: At<bool>,
    /// Another machine of the cluster, by the name that it has there.
    #[serde(default)]
    pub(in crate::config) peer: Named<Peer>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Peer {
    /// Where it listens for heartbeats: what it says in its own `listen`.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) addresses: Option<Vec<At<SocketText>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Network {
    /// The interface that VIPs of this network are raised on.
    #[schemars(required)]
    pub(in crate::config) interface: Option<At<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct VipGroup {
    /// IPv4 and IPv6 addresses.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) addresses: Option<Vec<At<IpAddr>>>,
    /// The interface the addresses are raised on; by default that of the smallest `[network.NAME]` that an address lies in,
    /// or else the only `[interface]`, when there is one; with `everywhere` `lo`.
    pub(in crate::config) interface: Option<At<String>>,
    /// Whether lbd adds the addresses to the interface and announces them (gratuitous ARP, unsolicited neighbour
    /// advertisement): short for `mode = "static"`. Without either, something else must bring the packets here: a route, or
    /// the machine's own set-up.
    #[serde(default)]
    pub(in crate::config) raise: At<bool>,
    /// When lbd adds and announces the addresses.
    pub(in crate::config) mode: Option<At<VipModeWord>>,
    /// With `failover`: of the machines that can, the one with the greatest priority owns the group.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 1, max = 254))]
    pub(in crate::config) priority: At<u8>,
    /// With `failover`: whether this machine takes the group back from one with less priority that works.
    #[serde(default = "default_failback")]
    pub(in crate::config) failback: At<bool>,
    /// With `failover`: how long both must have been well before.
    #[serde(default = "default_failback_delay")]
    pub(in crate::config) failback_delay: At<Period>,
    /// With `everywhere`: when it is announced. Never while this machine has a fault or is in maintenance. Nodes that monitors have not
    /// answered for yet do not count.
    #[serde(default)]
    pub(in crate::config) announce_when: At<AnnounceWhen>,
    /// VRRP or CARP routers.
    pub(in crate::config) router: Option<Router>,
}

/// A group with `mode = "failover"` that is shared with VRRP or CARP routers, instead of machines of the cluster. With CARP, advskew
/// is 254 less the priority. Neither protocol stops a recorded advertisement from being sent again, and VRRP has no
/// authentication at all: whoever is on the segment can take the VIPs.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Router {
    /// What is spoken.
    #[schemars(required)]
    pub(in crate::config) protocol: Option<At<RouterProtocol>>,
    /// VRRP's virtual router id, CARP's vhid: the same on all routers of the group.
    #[schemars(required, range(min = 1, max = 255))]
    pub(in crate::config) id: Option<At<u8>>,
    /// Time between advertisements, 10 ms to 40 s; with `carp` (advbase) and `vrrp2` whole seconds, the same on all routers.
    #[serde(default = "default_advertisements")]
    pub(in crate::config) interval: At<Period>,
    /// With `vrrp` and IPv4: `true` when the checksum covers the packet alone (RFC 9568: Cisco, Arista), `false` for keepalived and
    /// FRR, which put a pseudo header in front. What comes is understood either way.
    #[serde(default)]
    pub(in crate::config) plain_checksum: At<bool>,
    /// Addresses of the other routers: advertisements of others are refused. By default all on the segment are believed.
    #[serde(default)]
    pub(in crate::config) peers: Vec<At<IpAddr>>,
    /// Whether advertisements go to `peers` one by one, and not to the multicast group.
    #[serde(default)]
    pub(in crate::config) unicast: At<bool>,
    /// Whether the VIPs are reached at the virtual router's own MAC address (RFC 9568 §7.3: 00:00:5e:00:01:ID, with IPv6
    /// 00:00:5e:00:02:ID), which moves with them, on an interface that lbd makes on theirs. Neighbours then need not learn another address at a
    /// failover. The other routers of the group must do the same (keepalived: `use_vmac`).
    #[serde(default)]
    pub(in crate::config) virtual_mac: At<bool>,
    /// With `carp`: file with the passphrase, of which 20 bytes count, for its owner alone (mode 0600).
    pub(in crate::config) passphrase_file: Option<At<AbsolutePath>>,
}

fn default_advertisements() -> At<Period> {
    At::default_of(Period(Duration::from_secs(1)))
}

/// When lbd raises addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum VipModeWord {
    /// From the start of lbd, as long as they are configured.
    Static,
    /// While this machine owns the group. Needs `[cluster]`, and the same group in the configuration of the other machines.
    Failover,
    /// On every machine at once, announced to routers by BGP (ECMP, anycast) while this machine serves them. Without neighbours in
    /// `[bgp]`, they are raised just then, for a routing daemon that announces the addresses of the interface.
    Everywhere,
}

fn default_interval() -> At<Period> {
    At::default_of(Period(Duration::from_millis(100)))
}

fn default_check_interval() -> At<Period> {
    At::default_of(Period(Duration::from_millis(500)))
}

fn default_share() -> At<bool> {
    At::default_of(true)
}

fn default_misses() -> At<u32> {
    At::default_of(3)
}

fn default_priority() -> At<u8> {
    At::default_of(100)
}

fn default_failback() -> At<bool> {
    At::default_of(true)
}

fn default_failback_delay() -> At<Period> {
    At::default_of(Period(Duration::from_secs(10)))
}
