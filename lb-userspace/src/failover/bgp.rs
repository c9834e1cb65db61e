//! BGP towards routers, or the FRR or BIRD of this machine: a speaker that only announces (RFC 4271, RFC 4760).
//!
//! Each neighbour has a TCP session of its own that lbd opens; nothing listens. What neighbours announce is not even read. The
//! sessions belong to lbd's process: when it ends, however, the kernel closes them and the neighbours withdraw the VIPs at
//! once, so that nothing else has to notice. There is no graceful restart for the same reason.
//!
//! `message` (bytes) and `session` (one session's state) are pure; `speaker` has the sockets and the clock. Driven by the
//! failover thread.

mod message;
mod session;
mod socket;
mod speaker;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

pub use self::{message::Community, session::Settings, speaker::Speakers};

/// A neighbour and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Own address; `None`: that of the route to it.
    pub source: Option<IpAddr>,
    /// Password of TCP MD5 signatures; empty: none.
    pub password: Vec<u8>,
    /// Whether its packets must have TTL 255 (RFC 5082).
    pub ttl_security: bool,
    /// Where IPv4 packets are to be sent; `None`: to the own address of an IPv4 session.
    pub next_hop4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub next_hop6: Option<Ipv6Addr>,
    /// BGP identifier; `None`: the own address of an IPv4 session.
    pub router_id: Option<Ipv4Addr>,
    /// What is said in the session, save what is taken from the connection.
    pub settings: Settings,
}

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborStatus {
    /// The neighbour's name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: u32,
    /// State.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// VIPs that are announced to it.
    pub announced: usize,
    /// Why the last session ended, or none came about.
    pub why: Option<String>,
}

/// State of a session (RFC 4271 §8.2.2), as far as an operator wants to know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There is no connection; it is tried again.
    #[default]
    Connecting,
    /// There is one, and both sides introduce themselves.
    Opening,
    /// VIPs are announced.
    Established,
}

/// How long a connection may take to come about, and to open.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
