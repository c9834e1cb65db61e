//! What the L7 proxy is to do: the immutable snapshot that lbd gives its worker, whole, at every change.
//!
//! Built from the configuration and the run-time state by `config` and `control::state`; sent over the worker's socketpair
//! as JSON; used by `proxy`. Everything in it was checked: names refer to what is there, regular expressions compile, keys
//! fit their certificates. File contents (certificates, pages) are inside, because the worker can open no file of root's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub mod http;
pub mod log;
pub mod memory;
pub mod pool;
pub mod recent;
pub mod rule;
pub mod stats;
pub mod template;
pub mod tls;
pub mod trace;

/// Everything the worker does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyPlan {
    /// Grows by one with each plan of this lbd.
    pub generation: u64,
    /// L7 virtual servers, by name.
    pub virtual_servers: BTreeMap<String, VirtualServer>,
    /// Pools with `forwarding = "proxy"`, by name.
    pub pools: BTreeMap<String, pool::Pool>,
    /// Certificates with their keys, by name.
    pub certificates: BTreeMap<String, tls::Certificate>,
    /// Rate classes, by name: shared by every rule that names them.
    pub rate_classes: BTreeMap<String, RateClass>,
    /// Bandwidth classes, by name.
    pub bandwidth_classes: BTreeMap<String, BandwidthClass>,
    /// Signs cookies, and hides sessions: derived from the cluster's secret, or 32 random bytes made by lbd at its first start and
    /// kept in its state directory.
    pub secret: Secret,
}

/// 32 secret bytes; not printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An L7 virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualServer {
    /// What it listens on; wildcard addresses listen on all. lbd holds one listening socket for each address and thread.
    pub listen: Vec<SocketAddr>,
    /// What it speaks with clients.
    pub service: Service,
    /// TLS with clients; `None`: plain.
    pub tls: Option<tls::ServerTls>,
    /// PROXY protocol from clients (v1 or v2), taken only from these networks; connections of others are closed.
    pub proxy_protocol: Option<Vec<Network>>,
    /// The pool that serves what no rule sends elsewhere; `None`: only rules answer.
    pub pool: Option<String>,
    /// The bandwidth class that all of its transfers count in.
    pub bandwidth: Option<String>,
    /// Limits of the client side.
    pub limits: Limits,
    /// Timeouts of the client side.
    pub timeouts: ClientTimeouts,
    /// Access log.
    pub access_log: Option<log::AccessLog>,
    /// How many finished requests or connections are remembered for `lbctl conn ls --l7`.
    pub recent: u32,
}

impl ProxyPlan {
    /// Names of the pools that may serve a virtual server, failure pools among them.
    #[must_use]
    pub fn pools_of(&self, virtual_server: &str) -> BTreeSet<&str> {
        let mut pools = BTreeSet::new();
        for named in self.virtual_servers.get(virtual_server).into_iter().flat_map(VirtualServer::named_pools) {
            let mut next = Some(named);
            while let Some(name) = next.filter(|name| pools.insert(*name)) {
                next = self.pools.get(name).and_then(|pool| pool.failure_pool.as_deref());
            }
        }
        pools
    }
}

impl VirtualServer {
    /// Names of the pools that it names: its own, those of its rules and of its server names.
    #[must_use]
    pub fn named_pools(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.pool.iter().map(String::as_str).collect();
        match &self.service {
            Service::Http(http) => {
                let rules = http.rules.request.iter().flat_map(|rule| &rule.actions);
                names.extend(rules.filter_map(|action| {
                    if let rule::Action::Pool(name) = action { Some(name.as_str()) } else { None }
                }));
            }
            Service::Stream(stream) => names.extend(stream.by_server_name.values().map(String::as_str)),
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What a virtual server speaks with clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// HTTP/1.1 and HTTP/2 (ALPN with TLS, prior knowledge without).
    Http(Box<http::Http>),
    /// Bytes both ways, whoever speaks first; half-close is kept. With TLS it is terminated here.
    Stream(Stream),
}

/// Generic TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// TLS pass-through: pools by the server name of the ClientHello, which is read and not touched. Lower case, `*.` in
    /// front matches one label; no match: the virtual server's own pool.
    pub by_server_name: BTreeMap<String, String>,
    /// Whether a ClientHello is expected and read first (`protocol = "tls_passthrough"`).
    pub peek: bool,
}

/// Limits of the client side. 0: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections of the virtual server at a time.
    pub connections: u32,
    /// Connections of one client address at a time.
    pub connections_per_client: u32,
    /// New requests (connections, where there are none) per second of one client address.
    pub requests_per_client: u32,
    /// TLS handshakes per second of one client address.
    pub handshakes_per_client: u32,
}

/// Timeouts of the client side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTimeouts {
    /// From accept to the end of the TLS handshake (and PROXY header).
    pub handshake: Duration,
    /// From accept, or from its first byte on a kept connection, to the end of a request's head: absolute.
    pub request_head: Duration,
    /// Between requests on a kept connection.
    pub keep_alive: Duration,
    /// Without a byte either way, for bodies, upgrades and generic TCP.
    pub idle: Duration,
    /// Least rate of a request body in bytes per second, once it has run for `body_grace`. 0: none.
    pub body_rate: u32,
    /// See `body_rate`.
    pub body_grace: Duration,
    /// How long a write to the client may make no progress.
    pub write_stall: Duration,
    /// A whole request with its response; zero: none.
    pub transaction: Duration,
    /// How long open requests and upgrades may go on when the worker drains.
    pub drain: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            body_rate: 500,
            body_grace: Duration::from_secs(10),
            write_stall: Duration::from_secs(30),
            transaction: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

/// What the worker tells lbd, which logs it and shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyEvent {
    /// Passive monitoring took a node out, or back in.
    Node(pool::NodeEvent),
    /// A rule's action `log` or `event`.
    Rule(rule::RuleEvent),
}

/// An IP network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// Leading bits that count: up to 32 or 128.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` lies in it; IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                u32::from(own).checked_shr(shift) == u32::from(other).checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                u128::from(own).checked_shr(shift) == u128::from(other).checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A limit of requests per second, kept for each value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateClass {
    /// Requests per second.
    pub rate: u32,
    /// Requests that may come at once beyond.
    pub burst: u32,
    /// What is limited each for itself.
    pub key: pool::Key,
}

/// A limit of bytes per second, shared by everything that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthClass {
    /// Bytes per second, both directions together.
    pub bytes_per_s: u64,
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn networks_contain_their_addresses() {
        let cases = [
            ("10.0.0.0", 8, "10.255.0.1", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("0.0.0.0", 0, "11.0.0.1", true),
            ("10.0.0.1", 32, "10.0.0.2", false),
            ("10.0.0.0", 8, "::ffff:10.1.1.1", true),
            ("2001:db8::", 32, "2001:db8:1::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("::", 0, "2001:db9::1", true),
            ("::", 0, "10.0.0.1", false),
        ];
        for (address, prefix, other, expected) in cases {
            let network = Network { address: address.parse().unwrap(), prefix };
            assert_eq!(network.contains(other.parse().unwrap()), expected, "{other} in {address}/{prefix}");
        }
    }
}
