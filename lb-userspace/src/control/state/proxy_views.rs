//! The L7 proxy as the admin API shows it: configuration, run-time state, and what the worker counted. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use super::{State, facts::Facts};
use crate::{
    config::proxy::{self as config, Host, Proxy},
    control::{
        plan::Admission,
        proxy::{
            pool::{Failure, NodeChange},
            stats::{NodeSnapshot, PoolSnapshot, Snapshot, VirtualServerSnapshot},
        },
        query::Nodes,
        view::{
            Health, NodeView, PoolView, ProxyNodeView, ProxyPoolView, ProxyServerView, Requests, Traffic,
            VirtualServerView, Way,
        },
    },
};

impl State {
    pub(super) fn proxy_servers(
        &self,
        counted: &Snapshot,
        nodes: Nodes,
        is_wanted: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = VirtualServerView> {
        let servers = self.config.proxy.virtual_servers.iter().filter(move |(name, _)| is_wanted(name));
        servers.map(move |(name, server)| self.proxy_server_view(name, server, counted, nodes))
    }

    pub(super) fn proxy_pools(
        &self,
        counted: &Snapshot,
        nodes: Nodes,
        is_wanted: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = PoolView> {
        let users = self.config.proxy.users();
        self.config.proxy.pools.iter().filter(move |(name, _)| is_wanted(name)).map(move |(name, pool)| {
            let count = counted.nodes.get(name);
            let together = |of: fn(&NodeSnapshot) -> u64| count.into_iter().flat_map(BTreeMap::values).map(of).sum();
            PoolView {
                name: name.clone(),
                forwarding: Way::Proxy,
                forwarding_overridden: false,
                scheduler: pool.settings.scheduler.name().to_owned(),
                on_node_failure: None,
                refusal: None,
                failure_pool: pool.settings.failure_pool.clone(),
                monitors: pool.monitors.clone(),
                virtual_servers: users.get(name.as_str()).into_iter().flatten().map(|n| (*n).to_owned()).collect(),
                nodes_available: self.proxy_nodes_available(name, pool),
                nodes_total: pool.nodes.len(),
                active: together(|node| node.connections),
                connections: together(|node| node.connected),
                nodes: nodes.of(|| self.proxy_nodes(name, pool, counted)),
                proxy: Some(pool_view(counted.pools.get(name).unwrap_or(&PoolSnapshot::default()))),
            }
        })
    }

    /// Warnings of the L7 proxy, the worst first.
    pub(super) fn proxy_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, server) in &self.config.proxy.virtual_servers {
            for own in Proxy::named_pools(server) {
                match self.proxy_pool_in_use(own) {
                    None => warnings.push(format!("virtual server {name:?}: no node of pool {own:?} takes requests")),
                    Some(other) if other != own => {
                        warnings.push(format!(
                            "virtual server {name:?}: failure pool {other:?} serves, no node of {own:?} can"
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        for (pool, nodes) in &self.passive {
            for (node, change) in nodes {
                let reason = out_reason(*change);
                warnings.push(format!("node {pool}/{node} is out by passive monitoring: {reason}"));
            }
        }
        warnings
    }

    fn proxy_server_view(
        &self,
        name: &str,
        server: &config::VirtualServer,
        counted: &Snapshot,
        nodes: Nodes,
    ) -> VirtualServerView {
        let nothing = VirtualServerSnapshot::default();
        let count = counted.virtual_servers.get(name).unwrap_or(&nothing);
        let own = server.settings.pool.clone().unwrap_or_default();
        let in_use = self.proxy_pool_in_use(&own).unwrap_or(&own).to_owned();
        let mut pools: Vec<&str> = Proxy::named_pools(server);
        pools.extend((!in_use.is_empty() && !pools.contains(&in_use.as_str())).then_some(in_use.as_str()));
        let pools: Vec<_> = pools.iter().filter_map(|pool| self.config.proxy.pools.get_key_value(*pool)).collect();
        let serving = || pools.iter().filter(|(pool, _)| **pool == in_use || own.is_empty());
        let shown = || pools.iter().flat_map(|(pool, settings)| self.proxy_nodes(pool, settings, counted)).collect();
        let scheduler = self.config.proxy.pools.get(&in_use).map_or("", |pool| pool.settings.scheduler.name());
        VirtualServerView {
            name: name.to_owned(),
            addresses: addresses(server),
            protocol: server.protocol.name().to_owned(),
            ports: ports(server),
            nodes_available: serving().map(|(name, pool)| self.proxy_nodes_available(name, pool)).sum(),
            nodes_total: serving().map(|(_, pool)| pool.nodes.len()).sum(),
            nodes: nodes.of(shown),
            pool: own,
            pool_in_use: in_use,
            forwarding: Way::Proxy,
            scheduler: scheduler.to_owned(),
            active: count.connections,
            connections: count.accepted,
            forward: Traffic::default(),
            reply: Traffic::default(),
            flood_limited: 0,
            proxy: Some(server_view(name, server, count, counted)),
        }
    }

    /// The first pool of a chain of which a node takes requests.
    pub(super) fn proxy_pool_in_use(&self, own: &str) -> Option<&str> {
        let chain = self.config.proxy.pool_chain(own).into_iter();
        let mut serving = chain.filter(|(name, pool)| self.proxy_pool_serves(name, pool));
        serving.next().map(|(name, _)| name)
    }

    /// Whether a node of this very pool takes requests.
    pub(super) fn proxy_pool_serves(&self, name: &str, pool: &config::Pool) -> bool {
        let facts = self.facts(name);
        pool.nodes.iter().any(|(name, node)| self.proxy_admission(&facts, name, node) == Admission::All)
    }

    fn proxy_nodes_available(&self, name: &str, pool: &config::Pool) -> usize {
        let facts = self.facts(name);
        pool.nodes.iter().filter(|(name, node)| self.proxy_admission(&facts, name, node) == Admission::All).count()
    }

    /// What a node takes, after passive monitoring and DNS, too.
    fn proxy_admission(&self, facts: &Facts<'_>, name: &str, node: &config::Node) -> Admission {
        if facts.out(name).is_some() || self.has_no_address(node) {
            return Admission::Nothing;
        }
        facts.admission(name, node.state)
    }

    fn has_no_address(&self, node: &config::Node) -> bool {
        match &node.host {
            Host::Ip(_) => false,
            Host::Name(name) => self.names.get(name).is_none_or(Vec::is_empty),
        }
    }

    fn proxy_nodes(&self, pool: &str, settings: &config::Pool, counted: &Snapshot) -> Vec<NodeView> {
        let counts = counted.nodes.get(pool);
        let facts = self.facts(pool);
        let count = |name: &String| counts.and_then(|nodes| nodes.get(name));
        settings
            .nodes
            .iter()
            .map(|(name, node)| self.proxy_node_view((pool, &facts), name, node, count(name)))
            .collect()
    }

    fn proxy_node_view(
        &self,
        (pool, facts): (&str, &Facts<'_>),
        name: &str,
        node: &config::Node,
        count: Option<&NodeSnapshot>,
    ) -> NodeView {
        let nothing = NodeSnapshot::default();
        let count = count.unwrap_or(&nothing);
        let (health, health_reason) = match facts.out(name) {
            Some(change) => (Health::Down, Some(format!("passive monitoring: {}", out_reason(change)))),
            None if self.has_no_address(node) => (Health::Down, Some("its name has no address yet".to_owned())),
            None => (facts.health(name), facts.reason(name)),
        };
        NodeView {
            pool: pool.to_owned(),
            name: name.to_owned(),
            address: match &node.host {
                Host::Ip(address) => std::net::SocketAddr::new(*address, node.port).to_string(),
                Host::Name(name) => format!("{name}:{}", node.port),
            },
            weight: facts.weight(name, node.weight),
            state: facts.state(name, node.state),
            state_overridden: facts.set(name).is_some_and(|set| set.state.is_some()),
            health,
            health_reason,
            admission: self.proxy_admission(facts, name, node),
            mac: None,
            interface: None,
            active: count.connections,
            connections: count.connected,
            rescheduled: 0,
            evicted: 0,
            forward: Traffic::default(),
            reply: Traffic::default(),
            proxy: Some(ProxyNodeView {
                requests: Requests::new(&count.requests, count.requests_active, &count.time_to_head),
                reused: count.reused,
                connect_failures: count.connect_failures,
                early_closes: count.early_closes,
                timeouts: count.timeouts,
                bytes_received: count.bytes_received,
                bytes_sent: count.bytes_sent,
            }),
        }
    }
}

/// Why passive monitoring took a node out.
pub(super) fn out_reason(change: NodeChange) -> String {
    let NodeChange::Out { reason, in_a_row } = change else { return "back".to_owned() };
    let what = match reason {
        Failure::Connect => "failed connects",
        Failure::EarlyClose => "connections closed before a response",
        Failure::ReplyTimeout => "replies that did not come in time",
        Failure::Status => "responses with a bad status",
    };
    format!("{in_a_row} {what} in a row")
}

fn addresses(server: &config::VirtualServer) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = server.settings.listen.iter().map(std::net::SocketAddr::ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn ports(server: &config::VirtualServer) -> Vec<(u16, u16)> {
    let mut ports: Vec<(u16, u16)> = server.settings.listen.iter().map(|at| (at.port(), at.port())).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn server_view(
    name: &str,
    server: &config::VirtualServer,
    count: &VirtualServerSnapshot,
    counted: &Snapshot,
) -> ProxyServerView {
    ProxyServerView {
        listen: server.settings.listen.clone(),
        certificates: server.settings.tls.as_ref().map(|tls| tls.certificates.clone()).unwrap_or_default(),
        requests: Requests::new(&count.requests, count.requests_active, &count.duration),
        bytes_received: count.bytes_received,
        bytes_sent: count.bytes_sent,
        tls_full: count.tls_full,
        tls_resumed: count.tls_resumed,
        tls_failed: count.tls_failed,
        refused: count.refused.clone(),
        rules: counted.rules.get(name).cloned().unwrap_or_default(),
    }
}

fn pool_view(count: &PoolSnapshot) -> ProxyPoolView {
    ProxyPoolView {
        requests: Requests::new(&count.requests, 0, &count.time_to_head),
        retries: count.retries,
        queue: count.queue,
        queued: count.queued,
        queue_timeouts: count.queue_timeouts,
        no_node: count.no_node,
    }
}
