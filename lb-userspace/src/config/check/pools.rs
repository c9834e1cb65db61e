//! Pools that cannot serve the virtual servers that use them: no nodes, wrong ports, wrong address family.

use std::net::IpAddr;

use super::Checker;
use crate::config::{
    VirtualServer,
    document::{ForwardingWord, Pool},
    error::Problem,
    rules::dsr_obstacles,
    source::Span,
};

/// The most nodes of a pool.
const MAX_POOL_NODES: usize = 256;

impl Checker<'_> {
    pub(super) fn pools(&mut self) {
        let document = self.document;
        for (name, pool) in &document.pool {
            let (name, span) = (name.value.as_str(), &name.span);
            if pool.node.is_empty() {
                self.report(
                    Problem::new(span, format!("pool {name:?} has no nodes"), "no nodes")
                        .help(format!("add one: [pool.{name}.node.NAME] with address = \"10.0.0.11\"")),
                );
            }
            if pool.node.len() > MAX_POOL_NODES {
                let message = format!("pool {name:?} has {} nodes; {MAX_POOL_NODES} are the most", pool.node.len());
                self.report(Problem::new(span, message, "too many nodes").help("divide it into several pools"));
            }
            match pool.forwarding.as_ref().map(|word| word.value) {
                Some(ForwardingWord::Dsr) => self.dsr_ports(name),
                Some(ForwardingWord::Nat) => self.nat_ports(name, pool),
                Some(ForwardingWord::Proxy) | None => {}
            }
            self.unused_families(name, pool);
        }
        for (name, server) in &self.config.virtual_servers {
            self.missing_families(name, server);
        }
    }

    /// A port mapping cannot be had with DSR.
    fn dsr_ports(&mut self, pool: &str) {
        let users = self.users_of(pool);
        let obstacles = self.config.pools.get(pool).map(|p| dsr_obstacles(p, &users)).unwrap_or_default();
        for obstacle in obstacles {
            let Some(span) = self.node_address(pool, &obstacle.node) else { continue };
            let instead = match obstacle.expected {
                Some(port) => format!("let the node listen on port {port} and remove the port here"),
                None => "remove the port: nodes get packets on the port that clients send them to".to_owned(),
            };
            let problem = Problem::new(&span, format!("pool {pool:?} forwards by dsr: {obstacle}"), "port mapping")
                .related(&self.server_ports(&obstacle.virtual_server), "the ports that clients use")
                .help(format!("{instead}, or use forwarding = \"nat\""));
            self.report(problem);
        }
    }

    /// With NAT, several ports cannot become one: answers could not be told apart.
    fn nat_ports(&mut self, name: &str, pool: &Pool) {
        let mut users = self.users_of(name);
        users.retain(|(_, server)| server.single_port().is_none());
        for (node_name, node) in &pool.node {
            let Some((address, port)) = node.address.as_ref().and_then(|a| Some((a, a.value.port?))) else { continue };
            for (server, _) in &users {
                let message = format!(
                    "node {:?} of pool {name:?} has port {port}, but virtual server {server:?} listens on several ports",
                    node_name.value
                );
                self.report(
                    Problem::new(&address.span, message, "which of the ports would this be?")
                        .related(&self.server_ports(server), "several ports")
                        .help(
                            "two connections of a client to different ports would become one; remove the port (it then \
                               stays as it is), or make a virtual server for each port",
                        ),
                );
            }
        }
    }

    /// Each address family of the VIPs needs a node, in every pool that may serve.
    fn missing_families(&mut self, server_name: &str, server: &VirtualServer) {
        let vips = self.config.addresses(server);
        for (name, pool) in self.config.pool_chain(&server.pool) {
            let Some(raw) = self.document.pool.get(name) else { continue };
            let unknown = raw.node.is_empty() || raw.node.values().any(|node| node.address.is_none());
            for (family, is_of) in FAMILIES {
                let wanted = vips.iter().any(is_of) && !pool.nodes.values().any(|node| is_of(&node.address));
                if !wanted || unknown {
                    continue;
                }
                let span = self.server_pool(server_name);
                let message =
                    format!("virtual server {server_name:?} has {family} VIPs, but pool {name:?} no {family} node");
                self.report(
                    Problem::new(&span, message, format!("has no {family} node"))
                        .related(&self.pool_span(name), "the pool")
                        .help(format!(
                            "addresses are not translated between families: add {family} nodes, or a virtual \
                                       server with {family} VIPs and a pool of its own"
                        )),
                );
            }
        }
    }

    /// A node of a family that no VIP has would never be used.
    fn unused_families(&mut self, name: &str, pool: &Pool) {
        let users = self.users_of(name);
        let vips: Vec<_> = users.iter().flat_map(|(_, server)| self.config.addresses(server)).collect();
        if vips.is_empty() || self.pruned {
            return;
        }
        for (node_name, node) in &pool.node {
            let Some(address) = &node.address else { continue };
            for (family, is_of) in FAMILIES {
                if address.value.ip().is_some_and(|ip| is_of(&ip)) && !vips.iter().any(is_of) {
                    let node = &node_name.value;
                    let message =
                        format!("node {node:?} of pool {name:?} is {family}, but the pool serves no {family} VIP");
                    self.report(Problem::new(&address.span, message, "would never be used").help(format!(
                        "addresses are not translated between families: add an {family} VIP, or remove the node"
                    )));
                }
            }
        }
    }

    fn node_address(&self, pool: &str, node: &str) -> Option<Span> {
        Some(self.document.pool.get(pool)?.node.get(node)?.address.as_ref()?.span.clone())
    }

    fn server_ports(&self, server: &str) -> Span {
        let ports = self.document.virtual_server.get(server).and_then(|s| s.ports.as_ref());
        ports.map_or(0..0, |ports| ports.span.clone())
    }

    fn server_pool(&self, server: &str) -> Span {
        let pool = self.document.virtual_server.get(server).and_then(|s| s.pool.as_ref());
        pool.map_or(0..0, |pool| pool.span.clone())
    }
}

type Family = (&'static str, fn(&IpAddr) -> bool);

const FAMILIES: [Family; 2] = [("IPv4", |address| address.is_ipv4()), ("IPv6", |address| address.is_ipv6())];
