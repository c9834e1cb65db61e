//! What the configuration says of the L7 proxy: as `control::proxy` says it, save what is in files, what DNS names stand for,
//! and what operators and monitors decide. `control::state` adds these.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use super::{Config, Place, files::Files};
pub use super::{document::ProtocolWord, text::Host};
use crate::control::{
    proxy::{self, BandwidthClass, RateClass, pool},
    view::NodeState,
};

/// The L7 half of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Threads of the worker; `None`: one for each CPU.
    pub threads: Option<u32>,
    /// The user that the worker runs as.
    pub user: String,
    /// L7 virtual servers, by name. No L4 virtual server has one of these names.
    pub virtual_servers: BTreeMap<String, VirtualServer>,
    /// Pools with `forwarding = "proxy"`, by name. No other pool has one of these names.
    pub pools: BTreeMap<String, Pool>,
    /// Certificates, by name.
    pub certificates: BTreeMap<String, Certificate>,
    /// Rate classes, by name.
    pub rate_classes: BTreeMap<String, RateClass>,
    /// Bandwidth classes, by name.
    pub bandwidth_classes: BTreeMap<String, BandwidthClass>,
    /// Contents of the files that are named; empty until [`Config::read_files`].
    pub files: Files,
}

/// A file that the configuration names. Compared by its path: its content is no part of the configuration.
#[derive(Clone, Debug, Default)]
pub struct FileRef {
    /// Absolute.
    pub path: PathBuf,
    /// Where it is named.
    pub place: Option<Place>,
}

impl PartialEq for FileRef {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for FileRef {}

/// An L7 virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServer {
    /// What it speaks, as it is written.
    pub protocol: ProtocolWord,
    /// Names of its VIP groups.
    pub vips: Vec<String>,
    /// All of it but the content of files.
    pub settings: proxy::VirtualServer,
    /// Body of its own error page.
    pub error_page: Option<FileRef>,
    /// Who may sign clients' certificates.
    pub client_ca: Option<FileRef>,
    /// Which of these were revoked.
    pub client_crl: Option<FileRef>,
    /// Key of session tickets.
    pub ticket_key: Option<FileRef>,
}

/// A pool of the L7 proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// All of it but the nodes and the content of files.
    pub settings: pool::Pool,
    /// Who may sign nodes' certificates; `None`: the system's store.
    pub ca: Option<FileRef>,
    /// Which of these were revoked.
    pub crl: Option<FileRef>,
    /// Names of the monitors that check each node.
    pub monitors: Vec<String>,
    /// Nodes, by name; at least one.
    pub nodes: BTreeMap<String, Node>,
}

/// A node of the L7 proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is.
    pub host: Host,
    /// Port.
    pub port: u16,
    /// Share of new requests, 1..=65535.
    pub weight: u32,
    /// Configured state.
    pub state: NodeState,
    /// Priority group.
    pub priority: u32,
    /// Connections at a time; 0: any.
    pub max_connections: u32,
}

/// A certificate, by its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM: the certificate, then its intermediates.
    pub chain: FileRef,
    /// PEM: the private key.
    pub key: FileRef,
    /// DER: the OCSP response.
    pub ocsp: Option<FileRef>,
}

impl Proxy {
    /// The pools that may serve after a pool, in the order of choice: itself, its failure pool, and so on.
    #[must_use]
    pub fn pool_chain<'a>(&'a self, first: &str) -> Vec<(&'a str, &'a Pool)> {
        let mut chain: Vec<(&str, &Pool)> = Vec::new();
        let mut next = self.pools.get_key_value(first);
        // A valid configuration has no cycle; one that is being checked may have.
        while let Some((name, pool)) = next.filter(|(name, _)| chain.iter().all(|(seen, _)| seen != name)) {
            chain.push((name, pool));
            next = pool.settings.failure_pool.as_ref().and_then(|name| self.pools.get_key_value(name));
        }
        chain
    }

    /// Names of the pools that a virtual server names: its own, those of its rules and of its server names.
    #[must_use]
    pub fn named_pools(server: &VirtualServer) -> Vec<&str> {
        server.settings.named_pools()
    }

    /// Virtual servers that a pool may serve, by pool.
    #[must_use]
    pub fn users(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, server) in &self.virtual_servers {
            for pool in Self::named_pools(server).into_iter().flat_map(|own| self.pool_chain(own)) {
                let of_pool = users.entry(pool.0).or_default();
                if of_pool.last() != Some(&name.as_str()) {
                    of_pool.push(name);
                }
            }
        }
        users
    }

    /// What all virtual servers listen on.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let servers = self.virtual_servers.iter();
        servers.flat_map(|(name, server)| server.settings.listen.iter().map(move |address| (name.as_str(), *address)))
    }

    /// DNS names of nodes, without repetition.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let nodes = self.pools.values().flat_map(|pool| pool.nodes.values());
        let names = nodes.filter_map(|node| match &node.host {
            Host::Name(name) => Some(name.as_str()),
            Host::Ip(_) => None,
        });
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Config {
    /// Configured state and weight of a node of a pool, of whichever kind.
    #[must_use]
    pub fn node(&self, pool: &str, node: &str) -> Option<(NodeState, u32)> {
        let l4 = self.pools.get(pool).and_then(|pool| pool.nodes.get(node)).map(|node| (node.state, node.weight));
        l4.or_else(|| self.proxy.pools.get(pool)?.nodes.get(node).map(|node| (node.state, node.weight)))
    }

    /// Names of the monitors of a pool, of whichever kind.
    #[must_use]
    pub fn monitors_of(&self, pool: &str) -> Option<&[String]> {
        let l4 = self.pools.get(pool).map(|pool| &pool.monitors[..]);
        l4.or_else(|| self.proxy.pools.get(pool).map(|pool| &pool.monitors[..]))
    }

    /// Names of all pools, of both kinds, each with those of its nodes.
    pub fn node_names(&self) -> impl Iterator<Item = (&str, Box<dyn Iterator<Item = &str> + '_>)> {
        fn names<N>(nodes: &BTreeMap<String, N>) -> Box<dyn Iterator<Item = &str> + '_> {
            Box::new(nodes.keys().map(String::as_str))
        }
        let l4 = self.pools.iter().map(|(pool, p)| (pool.as_str(), names(&p.nodes)));
        l4.chain(self.proxy.pools.iter().map(|(pool, p)| (pool.as_str(), names(&p.nodes))))
    }

    /// Names of all pools and their nodes, of both kinds.
    pub fn all_nodes(&self) -> impl Iterator<Item = (&str, &str)> {
        let l4 = self.pools.iter().flat_map(|(pool, p)| p.nodes.keys().map(move |node| (pool.as_str(), node.as_str())));
        let l7 = self.proxy.pools.iter();
        l4.chain(l7.flat_map(|(pool, p)| p.nodes.keys().map(move |node| (pool.as_str(), node.as_str()))))
    }
}
