//! The control state as the admin API shows it, merged with the data path's counters. Pure.

use std::collections::BTreeMap;

use super::{State, derive, facts::Facts};
use crate::{
    config::{self, Node, Pool},
    control::{
        plan::{Admission, Forwarding, VirtualServer},
        query::{Counters, NodeCounters, Nodes},
        view::{Health, InterfaceView, NodeView, PoolView, Status, Traffic, VirtualServerView},
    },
};

/// Fill of a flow table, in percent, at which operators should look at it (THREATS D4).
const TABLE_ALARM_PERCENT: u64 = 70;

/// What virtual servers do with a node.
#[derive(Default)]
struct Use<'s> {
    /// The most that one of them gives it.
    admission: Option<Admission>,
    /// Its counters in each of them.
    counters: Vec<&'s NodeCounters>,
}

/// By pool and node.
type Uses<'s> = BTreeMap<(&'s str, &'s str), Use<'s>>;

/// Counters by virtual server, pool and node.
type Counted<'c> = BTreeMap<(&'c str, &'c str, &'c str), &'c NodeCounters>;

impl State {
    /// All virtual servers, by name.
    #[must_use]
    pub fn virtual_servers(&self, counters: &Counters, nodes: Nodes) -> Vec<VirtualServerView> {
        self.servers_of(counters, nodes, |_| true)
    }

    /// The one of a name, if there is one.
    #[must_use]
    pub fn virtual_server(&self, name: &str, counters: &Counters) -> Option<VirtualServerView> {
        self.servers_of(counters, Nodes::Shown, |other| other == name).pop()
    }

    fn servers_of(
        &self,
        counters: &Counters,
        nodes: Nodes,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Vec<VirtualServerView> {
        let counted = counters.nodes.iter().filter(|((server, ..), _)| is_wanted(server));
        let counted = counted.map(|((server, pool, node), c)| ((server.as_str(), pool.as_str(), node.as_str()), c));
        let counted: Counted<'_> = counted.collect();
        let servers = self.config.virtual_servers.iter().filter(|(name, _)| is_wanted(name));
        let mut views: Vec<_> = servers
            .map(|(name, server)| {
                let flood_limited = counters.flood_limited.get(name).copied().unwrap_or(0);
                VirtualServerView { flood_limited, ..self.server_view(name, server, &counted, nodes) }
            })
            .collect();
        views.extend(self.proxy_servers(&counters.proxy, nodes, is_wanted));
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn server_view(
        &self,
        name: &str,
        server: &config::VirtualServer,
        counted: &Counted<'_>,
        nodes: Nodes,
    ) -> VirtualServerView {
        let mut view = empty_view(name, &server.pool, derive::without_nodes(self, server));
        for (pool_name, pool) in self.config.pool_chain(&server.pool) {
            let (facts, in_use) = (self.facts(pool_name), pool_name == view.pool_in_use);
            view.nodes_total += if in_use { pool.nodes.len() } else { 0 };
            for (node_name, node) in &pool.nodes {
                let admission = derive::admission(&facts, node_name, node, in_use);
                view.nodes_available += usize::from(admission == Admission::All);
                let counted = counted.get(&(name, pool_name, node_name.as_str())).copied();
                if let Some(counted) = counted {
                    view.active = view.active.saturating_add(counted.active);
                    view.connections = view.connections.saturating_add(counted.connections);
                    view.forward = sum([view.forward, counted.forward].iter());
                    view.reply = sum([view.reply, counted.reply].iter());
                }
                if nodes == Nodes::Shown {
                    view.nodes.push(node_view((pool_name, &facts), node_name, node, admission, counted.into_iter()));
                }
            }
        }
        view
    }

    /// All pools, by name.
    #[must_use]
    pub fn pools(&self, counters: &Counters, nodes: Nodes) -> Vec<PoolView> {
        self.pools_of(counters, nodes, |_| true)
    }

    /// The one of a name, if there is one.
    #[must_use]
    pub fn pool(&self, name: &str, counters: &Counters) -> Option<PoolView> {
        self.pools_of(counters, Nodes::Shown, |other| other == name).pop()
    }

    fn pools_of(&self, counters: &Counters, nodes: Nodes, is_wanted: impl Fn(&str) -> bool) -> Vec<PoolView> {
        let users = self.config.users();
        let uses = self.uses(counters, &is_wanted);
        let pools = self.config.pools.iter().filter(|(name, _)| is_wanted(name));
        let mut views: Vec<_> = pools
            .map(|(name, pool)| {
                let users = users.get(name.as_str()).into_iter().flatten().map(|(name, _)| (*name).to_owned());
                self.pool_view(name, pool, users.collect(), &uses, nodes)
            })
            .collect();
        views.extend(self.proxy_pools(&counters.proxy, nodes, is_wanted));
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn pool_view(
        &self,
        name: &str,
        pool: &Pool,
        virtual_servers: Vec<String>,
        uses: &Uses<'_>,
        nodes: Nodes,
    ) -> PoolView {
        let facts = self.facts(name);
        let mut view = PoolView {
            name: name.to_owned(),
            forwarding: self.forwarding(name).unwrap_or(pool.forwarding).into(),
            forwarding_overridden: self.overrides.pools.contains_key(name),
            scheduler: word(&pool.scheduler),
            on_node_failure: Some(pool.on_node_failure),
            refusal: Some(pool.refusal),
            failure_pool: pool.failure_pool.clone(),
            monitors: pool.monitors.clone(),
            virtual_servers,
            nodes_available: 0,
            nodes_total: pool.nodes.len(),
            active: 0,
            connections: 0,
            nodes: Vec::new(),
            proxy: None,
        };
        for (node_name, node) in &pool.nodes {
            let used = uses.get(&(name, node_name.as_str()));
            let admission = used.and_then(|used| used.admission);
            let admission = admission.unwrap_or_else(|| facts.admission(node_name, node.state));
            view.nodes_available += usize::from(admission == Admission::All);
            let counters = used.iter().flat_map(|used| used.counters.iter().copied());
            for counted in counters.clone() {
                view.active = view.active.saturating_add(counted.active);
                view.connections = view.connections.saturating_add(counted.connections);
            }
            if nodes == Nodes::Shown {
                view.nodes.push(node_view((name, &facts), node_name, node, admission, counters));
            }
        }
        view
    }

    /// What virtual servers do with each node of some pools, together.
    fn uses<'s>(&'s self, counters: &'s Counters, is_wanted: impl Fn(&str) -> bool) -> Uses<'s> {
        let mut uses = Uses::new();
        for ((_, pool, node), counted) in counters.nodes.iter().filter(|((_, pool, _), _)| is_wanted(pool)) {
            uses.entry((pool.as_str(), node.as_str())).or_default().counters.push(counted);
        }
        for server in self.config.virtual_servers.values() {
            let mut chain = self.config.pool_chain(&server.pool);
            chain.retain(|(name, _)| is_wanted(name));
            if chain.is_empty() {
                continue;
            }
            let (in_use, _) = derive::pool_in_use(self, &server.pool);
            for (pool_name, pool) in chain {
                let facts = self.facts(pool_name);
                for (name, node) in &pool.nodes {
                    let admission = derive::admission(&facts, name, node, pool_name == in_use);
                    let used = uses.entry((pool_name, name)).or_default();
                    used.admission = used.admission.into_iter().chain([admission]).min_by_key(openness);
                }
            }
        }
        uses
    }

    /// What the control state knows of the daemon; version, process, uptime, file and data path are left to the caller.
    #[must_use]
    pub fn status(&self, counters: &Counters) -> Status {
        let absent = |name: &&String| counters.interfaces.iter().all(|interface| interface.name != **name);
        let absent = self.config.interfaces.keys().filter(absent).map(|name| InterfaceView {
            name: name.clone(),
            mode: "absent".to_owned(),
            ..InterfaceView::default()
        });
        let mut status = Status {
            config_generation: self.generation,
            config_revision: None,
            config_error: self.config_error.clone(),
            interfaces: counters.interfaces.iter().cloned().chain(absent).collect(),
            tables: counters.tables.clone(),
            ..Status::default()
        };
        status.warnings = self.warnings(&status);
        status
    }

    /// What an operator should look at, the worst first.
    fn warnings(&self, status: &Status) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.config_error.is_some() {
            warnings.push("the last reload was refused: the configuration in force is an older one".to_owned());
        }
        for (name, server) in &self.config.virtual_servers {
            let (other, pool) = derive::pool_in_use(self, &server.pool);
            let (own, facts) = (&server.pool, self.facts(other));
            if pool.nodes.iter().all(|(name, node)| facts.admission(name, node.state) != Admission::All) {
                warnings.push(format!("virtual server {name:?}: no node takes new connections"));
            } else if other != own {
                warnings
                    .push(format!("virtual server {name:?}: failure pool {other:?} serves, no node of {own:?} can"));
            }
        }
        warnings.extend(self.proxy_warnings());
        for (pool, nodes) in self.config.node_names() {
            let facts = self.facts(pool);
            for node in nodes.filter(|node| facts.health(node) == Health::Down) {
                let reason = facts.reason(node).unwrap_or_default();
                warnings.push(format!("node {pool}/{node} is down: {reason}"));
            }
        }
        for interface in status.interfaces.iter().filter(|interface| interface.mode != "native") {
            warnings.push(match interface.mode.as_str() {
                "absent" => format!("interface {:?} does not exist: packets there are not balanced", interface.name),
                mode => format!("interface {:?}: the program runs in {mode} mode, which is slow", interface.name),
            });
        }
        for (name, table) in &status.tables {
            let percent = (table.used.saturating_mul(100)).checked_div(table.capacity).unwrap_or(0);
            if percent >= TABLE_ALARM_PERCENT {
                warnings.push(format!("table {name} is {percent} % full"));
            }
        }
        for (pool, set) in &self.overrides.pools {
            let (value, configured) = (forwarding_name(set.value), forwarding_name(set.configured));
            warnings.push(format!(
                "pool {pool:?} forwards by {value}, set at run time; the configuration says {configured}"
            ));
        }
        warnings
    }
}

fn node_view<'a>(
    (pool, facts): (&str, &Facts<'_>),
    name: &str,
    node: &Node,
    admission: Admission,
    counters: impl Iterator<Item = &'a NodeCounters>,
) -> NodeView {
    let mut view = NodeView {
        pool: pool.to_owned(),
        name: name.to_owned(),
        address: match node.port {
            Some(port) => std::net::SocketAddr::new(node.address, port).to_string(),
            None => node.address.to_string(),
        },
        weight: facts.weight(name, node.weight),
        state: facts.state(name, node.state),
        state_overridden: facts.set(name).is_some_and(|set| set.state.is_some()),
        health: facts.health(name),
        health_reason: facts.reason(name),
        admission,
        mac: None,
        interface: None,
        active: 0,
        connections: 0,
        rescheduled: 0,
        evicted: 0,
        forward: Traffic::default(),
        reply: Traffic::default(),
        proxy: None,
    };
    for counted in counters {
        add(&mut view, counted);
    }
    view
}

/// As the configuration and the API call it.
fn forwarding_name(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Dsr => "dsr",
        Forwarding::Nat => "nat",
        Forwarding::NatSource => "nat_source",
    }
}

/// The word that the configuration has for a value.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Smaller is more.
fn openness(admission: &Admission) -> u8 {
    match admission {
        Admission::All => 0,
        Admission::Tracked => 1,
        Admission::Nothing => 2,
    }
}

fn add(view: &mut NodeView, counted: &NodeCounters) {
    view.active = view.active.saturating_add(counted.active);
    view.connections = view.connections.saturating_add(counted.connections);
    view.rescheduled = view.rescheduled.saturating_add(counted.rescheduled);
    view.evicted = view.evicted.saturating_add(counted.evicted);
    view.forward = sum([view.forward, counted.forward].iter());
    view.reply = sum([view.reply, counted.reply].iter());
    view.mac = view.mac.take().or_else(|| counted.mac.clone());
    view.interface = view.interface.take().or_else(|| counted.interface.clone());
}

fn sum<'a>(parts: impl Iterator<Item = &'a Traffic>) -> Traffic {
    parts.fold(Traffic::default(), |total, part| Traffic {
        packets: total.packets.saturating_add(part.packets),
        bytes: total.bytes.saturating_add(part.bytes),
    })
}

/// A virtual server of which nothing is counted yet.
fn empty_view(name: &str, own_pool: &str, plan: VirtualServer) -> VirtualServerView {
    VirtualServerView {
        name: name.to_owned(),
        pool: own_pool.to_owned(),
        nodes_available: 0,
        nodes_total: 0,
        active: 0,
        connections: 0,
        forward: Traffic::default(),
        reply: Traffic::default(),
        flood_limited: 0,
        nodes: Vec::new(),
        proxy: None,
        addresses: plan.addresses,
        protocol: word(&plan.protocol),
        ports: plan.ports,
        pool_in_use: plan.pool,
        forwarding: plan.forwarding.into(),
        scheduler: word(&plan.scheduler),
    }
}
