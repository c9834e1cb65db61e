//! BGP as a configuration says it: how VIP groups with `mode = "everywhere"` are announced.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::proxy::FileRef;

/// The port of BGP (RFC 4271 §1.1).
pub const PORT: u16 = 179;

/// The longest password of TCP MD5 signatures that Linux takes, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 80;

/// `[bgp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// This machine's autonomous system.
    pub asn: u32,
    /// BGP identifier; `None`: the own IPv4 address of the session.
    pub router_id: Option<Ipv4Addr>,
    /// Whole seconds, 3 or more.
    pub hold_time: Duration,
    /// What is said of every route.
    pub communities: Vec<Community>,
    /// Multi-exit discriminator.
    pub med: Option<u32>,
    /// How often the own autonomous system is repeated.
    pub prepend: u8,
    /// Whom VIPs are announced to, by name.
    pub neighbors: BTreeMap<String, Neighbor>,
}

/// `[bgp.neighbor.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its autonomous system.
    pub asn: u32,
    /// Password of TCP MD5 signatures.
    pub password: Option<FileRef>,
    /// Own address.
    pub source_address: Option<IpAddr>,
    /// Where IPv4 packets are to be sent.
    pub next_hop: Option<Ipv4Addr>,
    /// Where IPv6 packets are to be sent.
    pub next_hop6: Option<Ipv6Addr>,
    /// Whether it must be on the same segment (RFC 5082).
    pub ttl_security: bool,
}

/// A community that routes are marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Community {
    /// RFC 1997: autonomous system and number.
    Plain(u16, u16),
    /// RFC 8092.
    Large(u32, u32, u32),
}

/// When a VIP group with `mode = "everywhere"` is announced, as far as its virtual servers are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnnounceWhen {
    /// At least one of the virtual servers of the group has a node that takes connections.
    #[default]
    Any,
    /// Each of them has one.
    All,
    /// Whatever their nodes do.
    Always,
}
