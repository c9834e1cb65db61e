//! The cluster of a configuration, and how VIP groups take part in it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::proxy::FileRef;

/// The port of heartbeats where none is said.
pub const DEFAULT_PORT: u16 = 3780;

/// The shortest secret that machines may share, in bytes.
pub const MIN_KEY_BYTES: usize = 32;

/// `[cluster]`: this machine and the others that its VIP groups may move to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// This machine's name.
    pub machine: String,
    /// The shared secret: signs.
    pub key: FileRef,
    /// The one before it: still accepted.
    pub old_key: Option<FileRef>,
    /// Own addresses of heartbeats.
    pub listen: Vec<SocketAddr>,
    /// Time between heartbeats.
    pub interval: Duration,
    /// Heartbeats that may be missing before a machine counts as dead.
    pub misses: u32,
    /// Whom this machine asks whether it reaches its clients; one that answers is enough.
    pub front_end: Vec<FrontEnd>,
    /// Whether it asks its nodes as well.
    pub node_pings: bool,
    /// Between two questions.
    pub check_interval: Duration,
    /// Monitors that must succeed for it to own anything.
    pub monitors: Vec<String>,
    /// Whether the others are told of NAT connections and persistence.
    pub share_connections: bool,
    /// The other machines, by name, with their addresses.
    pub peers: BTreeMap<String, Vec<SocketAddr>>,
}

/// `[vip.NAME.router]`: a group that is shared with VRRP or CARP routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// What it speaks.
    pub protocol: RouterProtocol,
    /// VRID or vhid, 1..=255.
    pub id: u8,
    /// Time between advertisements; CARP and VRRP version 2: whole seconds.
    pub interval: Duration,
    /// VRRP over IPv4: whether the checksum covers the packet alone.
    pub plain_checksum: bool,
    /// Routers that are believed; empty: all on the segment.
    pub peers: Vec<IpAddr>,
    /// Whether advertisements go to these alone.
    pub unicast: bool,
    /// Whether the VIPs are reached at the virtual router's MAC address, and not at that of the interface.
    pub virtual_mac: bool,
    /// CARP's passphrase.
    pub passphrase: Option<FileRef>,
}

/// What is spoken with other routers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouterProtocol {
    /// VRRP version 3 (RFC 9568): keepalived, FRR, routers.
    #[default]
    Vrrp,
    /// VRRP version 2 (RFC 3768), IPv4 and whole seconds.
    Vrrp2,
    /// CARP version 2: OpenBSD, FreeBSD, ucarp.
    Carp,
}

/// Whom a machine asks whether it reaches its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEnd {
    /// The gateway of the default IPv4 route.
    Gateway,
    /// An address.
    Address(IpAddr),
}

/// When lbd raises the addresses of a VIP group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VipMode {
    /// Never: something else brings the packets here.
    #[default]
    External,
    /// Always.
    Static,
    /// While this machine owns the group.
    Failover,
    /// On every machine, announced to routers while this one serves them.
    Everywhere,
}
