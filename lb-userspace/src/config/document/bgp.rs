//! `[bgp]` as it is written: see [`super`].

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    super::{
        at::At,
        bgp::PORT,
        text::{AbsolutePath, CommunityText, Period},
    },
    Named,
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Bgp {
    /// This machine's autonomous system. 64512 to 65534 and 4200000000 to 4294967294 are for private use.
    #[serde(rename = "as")]
    #[schemars(required, range(min = 1, max = 4_294_967_294_u32))]
    pub(in crate::config) asn: Option<At<u32>>,
    /// BGP identifier, another one on every machine; by default the address that a session goes out from, which must be IPv4 then.
    pub(in crate::config) router_id: Option<At<Ipv4Addr>>,
    /// A neighbour that hears nothing for so long withdraws what this machine announced: whole seconds, 3 s to 18 h. The shorter
    /// of both sides' counts. A machine that ends is noticed at once, whatever this says.
    #[serde(default = "default_hold_time")]
    pub(in crate::config) hold_time: At<Period>,
    /// Communities (RFC 1997, `"65001:100"`) and large ones (RFC 8092, `"65001:1:100"`) of what is announced; 64 at most.
    #[serde(default)]
    pub(in crate::config) communities: Vec<At<CommunityText>>,
    /// Multi-exit discriminator: of two machines in the same autonomous system, routers prefer the one with less. By default none, which
    /// leaves machines equal.
    pub(in crate::config) med: Option<At<u32>>,
    /// How often the own autonomous system is repeated in the path, so that routers prefer other machines.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub(in crate::config) prepend: At<u8>,
    /// A BGP neighbour: a router, or the FRR or BIRD of this machine.
    #[serde(default)]
    pub(in crate::config) neighbor: Named<Neighbor>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Neighbor {
    /// Its address. lbd connects; the neighbour may be passive.
    #[schemars(required)]
    pub(in crate::config) address: Option<At<IpAddr>>,
    /// Its autonomous system; the same as this machine's with iBGP.
    #[serde(rename = "as")]
    #[schemars(required, range(min = 1, max = 4_294_967_294_u32))]
    pub(in crate::config) asn: Option<At<u32>>,
    /// Its port, TCP.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub(in crate::config) port: At<u16>,
    /// File with the password of TCP MD5 signatures (RFC 2385), 1 to 80 bytes, for its owner alone (mode 0600).
    pub(in crate::config) password_file: Option<At<AbsolutePath>>,
    /// Own address of the session; by default that of the route to the neighbour.
    pub(in crate::config) source_address: Option<At<IpAddr>>,
    /// Where IPv4 packets for the VIPs are to be sent; by default the own address of an IPv4 session. Without one, IPv4 VIPs are
    /// not announced to this neighbour.
    pub(in crate::config) next_hop: Option<At<Ipv4Addr>>,
    /// The same for IPv6.
    pub(in crate::config) next_hop6: Option<At<Ipv6Addr>>,
    /// Whether packets of the neighbour must have come without a router between (RFC 5082): it must send with TTL 255. lbd always
    /// does.
    #[serde(default)]
    pub(in crate::config) ttl_security: At<bool>,
}

fn default_hold_time() -> At<Period> {
    At::default_of(Period(Duration::from_secs(3)))
}

fn default_port() -> At<u16> {
    At::default_of(PORT)
}
