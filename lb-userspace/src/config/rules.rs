//! Questions about a valid configuration that several subsystems ask. Pure.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{Config, Pool, VirtualServer};
use crate::control::plan::Protocol;

/// Why a pool cannot forward by DSR: a node's port that is not the port packets come with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DsrObstacle {
    /// The node.
    pub node: String,
    /// Its port.
    pub port: u16,
    /// The virtual server that the pool serves.
    pub virtual_server: String,
    /// The port of that, when it has just one.
    pub expected: Option<u16>,
}

impl fmt::Display for DsrObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, port, virtual_server, expected } = self;
        write!(f, "node {node:?} has port {port}, but virtual server {virtual_server:?} listens on ")?;
        match expected {
            Some(expected) => write!(f, "port {expected}")?,
            None => write!(f, "several ports")?,
        }
        write!(f, "; with dsr only MAC addresses change, so that nodes see the VIP and its port")
    }
}

impl Config {
    /// All VIP addresses of a virtual server, in the configured order.
    #[must_use]
    pub fn addresses(&self, virtual_server: &VirtualServer) -> Vec<IpAddr> {
        virtual_server.vips.iter().filter_map(|group| self.vips.get(group)).flat_map(|g| g.addresses.clone()).collect()
    }

    /// The pools that may serve a virtual server, in the order of choice: its own, that one's failure pool, and so on.
    #[must_use]
    pub fn pool_chain<'a>(&'a self, first: &str) -> Vec<(&'a str, &'a Pool)> {
        let mut chain: Vec<(&str, &Pool)> = Vec::new();
        let mut next = self.pools.get_key_value(first);
        // A valid configuration has no cycle; one that is being checked may have.
        while let Some((name, pool)) = next.filter(|(name, _)| chain.iter().all(|(seen, _)| seen != name)) {
            chain.push((name, pool));
            next = pool.failure_pool.as_ref().and_then(|name| self.pools.get_key_value(name));
        }
        chain
    }

    /// The virtual servers that a pool may serve, as their own pool or as a failure pool, by name.
    pub fn users_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = (&'a str, &'a VirtualServer)> {
        let servers = self.virtual_servers.iter().map(|(name, server)| (name.as_str(), server));
        servers.filter(move |(_, server)| self.pool_chain(&server.pool).iter().any(|(name, _)| *name == pool))
    }

    /// [`Config::users_of`] for all pools at once; pools without a user are left out.
    #[must_use]
    pub fn users(&self) -> Users<'_> {
        let mut users = Users::new();
        for (name, server) in &self.virtual_servers {
            for (pool, _) in self.pool_chain(&server.pool) {
                users.entry(pool).or_default().push((name.as_str(), server));
            }
        }
        users
    }

    /// What keeps a pool from forwarding by DSR: nothing when it can.
    #[must_use]
    pub fn dsr_obstacles(&self, pool: &str) -> Vec<DsrObstacle> {
        let users: Vec<_> = self.users_of(pool).collect();
        self.pools.get(pool).map(|pool| dsr_obstacles(pool, &users)).unwrap_or_default()
    }
}

/// Virtual servers that a pool may serve, by pool.
pub type Users<'c> = BTreeMap<&'c str, Vec<(&'c str, &'c VirtualServer)>>;

/// What keeps a pool of these users from forwarding by DSR.
pub(super) fn dsr_obstacles(pool: &Pool, users: &[(&str, &VirtualServer)]) -> Vec<DsrObstacle> {
    let ported: Vec<_> = pool.nodes.iter().filter_map(|(name, node)| node.port.map(|port| (name, port))).collect();
    let obstacles = users.iter().flat_map(|(server_name, server)| {
        let expected = server.single_port();
        ported.iter().filter(move |(_, port)| expected != Some(*port)).map(move |(node, port)| DsrObstacle {
            node: (*node).clone(),
            port: *port,
            virtual_server: (*server_name).to_owned(),
            expected,
        })
    });
    obstacles.collect()
}

/// The port that a monitor asks when neither it nor the node says one: that of the virtual servers of a protocol that the
/// pool serves, when they all have the same one.
#[must_use]
pub fn common_port(users: &[(&str, &VirtualServer)], protocol: Protocol) -> Option<u16> {
    let mut ports = users.iter().map(|(_, s)| s.single_port().filter(|_| s.protocol == protocol));
    let first = ports.next()??;
    ports.all(|port| port == Some(first)).then_some(first)
}
