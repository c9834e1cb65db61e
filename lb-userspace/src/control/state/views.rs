//! The control state as the admin API shows it, merged with the data path's counters. Pure.

use std::collections::BTreeMap;

use super::{State, derive};
use crate::{
    config::{Node, Pool},
    control::{
        plan::{Admission, Forwarding, VirtualServer},
        query::{Counters, NodeCounters},
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

impl State {
    /// All virtual servers, by name.
    #[must_use]
    pub fn virtual_servers(&self, counters: &Counters) -> Vec<VirtualServerView> {
        self.servers_of(counters, |_| true)
    }

    /// The one of a name, if there is one.
    #[must_use]
    pub fn virtual_server(&self, name: &str, counters: &Counters) -> Option<VirtualServerView> {
        self.servers_of(counters, |other| other == name).pop()
    }

    fn servers_of(&self, counters: &Counters, is_wanted: impl Fn(&str) -> bool) -> Vec<VirtualServerView> {
        let servers = self.config.virtual_servers.iter().filter(|(name, _)| is_wanted(name));
        let mut views: Vec<_> = servers
            .map(|(name, server)| {
                let plan = derive::virtual_server(self, server);
                let nodes = plan.nodes.iter().map(|planned| {
                    let id = (name.clone(), planned.pool.clone(), planned.name.clone());
                    let node = &self.config.pools[&planned.pool].nodes[&planned.name];
                    self.node_view(
                        &planned.pool,
                        &planned.name,
                        node,
                        planned.admission,
                        counters.nodes.get(&id).into_iter(),
                    )
                });
                let nodes = nodes.collect();
                let flood_limited = counters.flood_limited.get(name).copied().unwrap_or(0);
                virtual_server_view(name, &server.pool, plan, nodes, flood_limited)
            })
            .collect();
        views.extend(self.proxy_servers(&counters.proxy, is_wanted));
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// All pools, by name.
    #[must_use]
    pub fn pools(&self, counters: &Counters) -> Vec<PoolView> {
        self.pools_of(counters, |_| true)
    }

    /// The one of a name, if there is one.
    #[must_use]
    pub fn pool(&self, name: &str, counters: &Counters) -> Option<PoolView> {
        self.pools_of(counters, |other| other == name).pop()
    }

    fn pools_of(&self, counters: &Counters, is_wanted: impl Fn(&str) -> bool) -> Vec<PoolView> {
        let users = self.config.users();
        let uses = self.uses(counters, &is_wanted);
        let node_view = |pool: &String, name: &String, node: &Node| {
            let used = uses.get(&(pool.as_str(), name.as_str()));
            let admission = used.and_then(|used| used.admission);
            let admission = admission.unwrap_or_else(|| self.node_admission(pool, name, node.state));
            self.node_view(pool, name, node, admission, used.iter().flat_map(|used| used.counters.iter().copied()))
        };
        let view = |(name, pool): (&String, &Pool)| PoolView {
            name: name.clone(),
            forwarding: self.forwarding(name).unwrap_or(pool.forwarding).into(),
            forwarding_overridden: self.overrides.pools.contains_key(name),
            scheduler: word(&pool.scheduler),
            on_node_failure: Some(pool.on_node_failure),
            refusal: Some(pool.refusal),
            failure_pool: pool.failure_pool.clone(),
            monitors: pool.monitors.clone(),
            virtual_servers: users
                .get(name.as_str())
                .into_iter()
                .flatten()
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            nodes: pool.nodes.iter().map(|(node_name, node)| node_view(name, node_name, node)).collect(),
            proxy: None,
        };
        let mut views: Vec<_> = self.config.pools.iter().filter(|(name, _)| is_wanted(name)).map(view).collect();
        views.extend(self.proxy_pools(&counters.proxy, is_wanted));
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// What virtual servers do with each node of some pools, together.
    fn uses<'s>(
        &'s self,
        counters: &'s Counters,
        is_wanted: impl Fn(&str) -> bool,
    ) -> BTreeMap<(&'s str, &'s str), Use<'s>> {
        let mut uses: BTreeMap<_, Use<'_>> = BTreeMap::new();
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
                for (name, node) in &pool.nodes {
                    let admission = derive::admission(self, pool_name, name, node, pool_name == in_use);
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
            let plan = derive::virtual_server(self, server);
            if plan.nodes.iter().all(|node| node.admission != Admission::All) {
                warnings.push(format!("virtual server {name:?}: no node takes new connections"));
            } else if plan.pool != server.pool {
                let (own, other) = (&server.pool, &plan.pool);
                warnings
                    .push(format!("virtual server {name:?}: failure pool {other:?} serves, no node of {own:?} can"));
            }
        }
        warnings.extend(self.proxy_warnings());
        for (pool, node) in self.config.all_nodes() {
            if let (Health::Down, reason) = self.node_health(pool, node) {
                warnings.push(format!("node {pool}/{node} is down: {}", reason.unwrap_or_default()));
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

    fn node_view<'a>(
        &self,
        pool: &str,
        name: &str,
        node: &Node,
        admission: Admission,
        counters: impl Iterator<Item = &'a NodeCounters>,
    ) -> NodeView {
        let (health, health_reason) = self.node_health(pool, name);
        let mut view = NodeView {
            pool: pool.to_owned(),
            name: name.to_owned(),
            address: match node.port {
                Some(port) => std::net::SocketAddr::new(node.address, port).to_string(),
                None => node.address.to_string(),
            },
            weight: self.node_weight(pool, name, node.weight),
            state: self.node_state(pool, name, node.state),
            state_overridden: self.overrides.node(pool, name).is_some_and(|set| set.state.is_some()),
            health,
            health_reason,
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

fn virtual_server_view(
    name: &str,
    own_pool: &str,
    plan: VirtualServer,
    nodes: Vec<NodeView>,
    flood_limited: u64,
) -> VirtualServerView {
    let in_use = |node: &&NodeView| node.pool == plan.pool;
    VirtualServerView {
        name: name.to_owned(),
        pool: own_pool.to_owned(),
        nodes_available: nodes.iter().filter(|node| node.admission == Admission::All).count(),
        nodes_total: nodes.iter().filter(in_use).count(),
        active: nodes.iter().map(|node| node.active).sum(),
        connections: nodes.iter().map(|node| node.connections).sum(),
        forward: sum(nodes.iter().map(|node| &node.forward)),
        reply: sum(nodes.iter().map(|node| &node.reply)),
        flood_limited,
        nodes,
        proxy: None,
        addresses: plan.addresses,
        protocol: word(&plan.protocol),
        ports: plan.ports,
        pool_in_use: plan.pool,
        forwarding: plan.forwarding.into(),
        scheduler: word(&plan.scheduler),
    }
}
