//! The L7 proxy as the admin API shows it: configuration, run-time state, and what the worker counted. Pure.

use std::net::IpAddr;

use super::State;
use crate::{
    config::proxy::{self as config, Host, Proxy},
    control::{
        plan::Admission,
        proxy::{
            pool::{Failure, NodeChange},
            stats::{NodeSnapshot, PoolSnapshot, Snapshot, VirtualServerSnapshot},
        },
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
        is_wanted: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = VirtualServerView> {
        let servers = self.config.proxy.virtual_servers.iter().filter(move |(name, _)| is_wanted(name));
        servers.map(|(name, server)| self.proxy_server_view(name, server, counted))
    }

    pub(super) fn proxy_pools(
        &self,
        counted: &Snapshot,
        is_wanted: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = PoolView> {
        let users = self.config.proxy.users();
        self.config.proxy.pools.iter().filter(move |(name, _)| is_wanted(name)).map(move |(name, pool)| PoolView {
            name: name.clone(),
            forwarding: Way::Proxy,
            forwarding_overridden: false,
            scheduler: pool.settings.scheduler.name().to_owned(),
            on_node_failure: None,
            refusal: None,
            failure_pool: pool.settings.failure_pool.clone(),
            monitors: pool.monitors.clone(),
            virtual_servers: users.get(name.as_str()).into_iter().flatten().map(|name| (*name).to_owned()).collect(),
            nodes: self.proxy_nodes(name, pool, counted),
            proxy: Some(pool_view(counted.pools.get(name).unwrap_or(&PoolSnapshot::default()))),
        })
    }

    /// Warnings of the L7 proxy, the worst first.
    pub(super) fn proxy_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let nothing = Snapshot::default();
        for (name, server) in &self.config.proxy.virtual_servers {
            for own in Proxy::named_pools(server) {
                match self.proxy_pool_in_use(own, &nothing) {
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
        for ((pool, node), change) in &self.passive {
            let reason = out_reason(*change);
            warnings.push(format!("node {pool}/{node} is out by passive monitoring: {reason}"));
        }
        warnings
    }

    fn proxy_server_view(&self, name: &str, server: &config::VirtualServer, counted: &Snapshot) -> VirtualServerView {
        let nothing = VirtualServerSnapshot::default();
        let count = counted.virtual_servers.get(name).unwrap_or(&nothing);
        let own = server.settings.pool.clone().unwrap_or_default();
        let in_use = self.proxy_pool_in_use(&own, counted).unwrap_or(&own).to_owned();
        let mut pools: Vec<&str> = Proxy::named_pools(server);
        pools.extend((!in_use.is_empty() && !pools.contains(&in_use.as_str())).then_some(in_use.as_str()));
        let of_pool = |pool: &str| {
            let settings = self.config.proxy.pools.get(pool);
            settings.map(|settings| self.proxy_nodes(pool, settings, counted)).unwrap_or_default()
        };
        let nodes: Vec<NodeView> = pools.iter().flat_map(|pool| of_pool(pool)).collect();
        let serving = || nodes.iter().filter(|node| node.pool == in_use || own.is_empty());
        let scheduler = self.config.proxy.pools.get(&in_use).map_or("", |pool| pool.settings.scheduler.name());
        VirtualServerView {
            name: name.to_owned(),
            addresses: addresses(server),
            protocol: server.protocol.name().to_owned(),
            ports: ports(server),
            nodes_available: serving().filter(|node| takes_requests(node)).count(),
            nodes_total: serving().count(),
            pool: own,
            pool_in_use: in_use,
            forwarding: Way::Proxy,
            scheduler: scheduler.to_owned(),
            active: count.connections,
            connections: count.accepted,
            forward: Traffic::default(),
            reply: Traffic::default(),
            flood_limited: 0,
            nodes,
            proxy: Some(server_view(name, server, count, counted)),
        }
    }

    /// The first pool of a chain of which a node takes requests.
    pub(super) fn proxy_pool_in_use(&self, own: &str, counted: &Snapshot) -> Option<&str> {
        let chain = self.config.proxy.pool_chain(own).into_iter();
        let mut serving = chain.filter(|(name, pool)| self.proxy_nodes(name, pool, counted).iter().any(takes_requests));
        // Names live as long as the configuration.
        let (name, _) = serving.next()?;
        self.config.proxy.pools.get_key_value(name).map(|(name, _)| name.as_str())
    }

    /// Whether a node of this very pool takes requests.
    pub(super) fn proxy_pool_serves(&self, name: &str, counted: &Snapshot) -> bool {
        let pool = self.config.proxy.pools.get(name);
        pool.is_some_and(|pool| self.proxy_nodes(name, pool, counted).iter().any(takes_requests))
    }

    fn proxy_nodes(&self, pool: &str, settings: &config::Pool, counted: &Snapshot) -> Vec<NodeView> {
        let counts = counted.nodes.get(pool);
        let count = |name: &String| counts.and_then(|nodes| nodes.get(name));
        settings.nodes.iter().map(|(name, node)| self.proxy_node_view(pool, name, node, count(name))).collect()
    }

    fn proxy_node_view(&self, pool: &str, name: &str, node: &config::Node, count: Option<&NodeSnapshot>) -> NodeView {
        let nothing = NodeSnapshot::default();
        let count = count.unwrap_or(&nothing);
        let (health, health_reason) = match self.passive.get(&(pool.to_owned(), name.to_owned())) {
            Some(change) => (Health::Down, Some(format!("passive monitoring: {}", out_reason(*change)))),
            None if self.node_addresses(node).is_empty() => {
                (Health::Down, Some("its name has no address yet".to_owned()))
            }
            None => self.node_health(pool, name),
        };
        let admission = match self.node_admission(pool, name, node.state) {
            Admission::All | Admission::Tracked if health == Health::Down => Admission::Nothing,
            other @ (Admission::All | Admission::Tracked | Admission::Nothing) => other,
        };
        NodeView {
            pool: pool.to_owned(),
            name: name.to_owned(),
            address: match &node.host {
                Host::Ip(address) => std::net::SocketAddr::new(*address, node.port).to_string(),
                Host::Name(name) => format!("{name}:{}", node.port),
            },
            weight: self.node_weight(pool, name, node.weight),
            state: self.node_state(pool, name, node.state),
            state_overridden: self.overrides.node(pool, name).is_some_and(|set| set.state.is_some()),
            health,
            health_reason,
            admission,
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

fn takes_requests(node: &NodeView) -> bool {
    node.admission == Admission::All
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
