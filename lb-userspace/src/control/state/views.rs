//! The control state as the admin API shows it, merged with the data path's counters. Pure.

use super::{State, derive};
use crate::{
    config::Node,
    control::{
        plan::{Admission, Forwarding, Plan, VirtualServer},
        query::{Counters, NodeCounters},
        view::{Health, InterfaceView, NodeView, PoolView, Status, Traffic, VirtualServerView},
    },
};

/// Fill of a flow table, in percent, at which operators should look at it (THREATS D4).
const TABLE_ALARM_PERCENT: u64 = 70;

impl State {
    /// All virtual servers, by name.
    #[must_use]
    pub fn virtual_servers(&self, counters: &Counters) -> Vec<VirtualServerView> {
        let servers = self.config.virtual_servers.iter();
        servers
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
            .collect()
    }

    /// All pools, by name.
    #[must_use]
    pub fn pools(&self, counters: &Counters) -> Vec<PoolView> {
        let plan = self.plan();
        let pools = self.config.pools.iter();
        pools
            .map(|(name, pool)| PoolView {
                name: name.clone(),
                forwarding: self.forwarding(name).unwrap_or(pool.forwarding),
                forwarding_overridden: self.overrides.pools.contains_key(name),
                scheduler: pool.scheduler,
                on_node_failure: pool.on_node_failure,
                refusal: pool.refusal,
                failure_pool: pool.failure_pool.clone(),
                monitors: pool.monitors.clone(),
                virtual_servers: self.config.users_of(name).map(|(server, _)| server.to_owned()).collect(),
                nodes: pool.nodes.iter().map(|(node, n)| self.pool_node_view(&plan, name, node, n, counters)).collect(),
            })
            .collect()
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
        for (pool, node) in self.config.pools.iter().flat_map(|(pool, p)| p.nodes.keys().map(move |node| (pool, node)))
        {
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

    fn pool_node_view(&self, plan: &Plan, pool: &str, name: &str, node: &Node, counters: &Counters) -> NodeView {
        let planned = plan.virtual_servers.values().flat_map(|server| &server.nodes);
        let admissions = planned.filter(|n| n.pool == pool && n.name == name).map(|n| n.admission);
        let admission = admissions.min_by_key(|a| *a as u8).unwrap_or_else(|| self.node_admission(pool, name, node));
        let own = counters.nodes.iter().filter(|((_, p, n), _)| p == pool && n == name).map(|(_, counters)| counters);
        self.node_view(pool, name, node, admission, own)
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
            weight: self.node_weight(pool, name, node),
            state: self.node_state(pool, name, node),
            state_overridden: self.overrides.node(pool, name).is_some_and(|set| set.state.is_some()),
            health,
            health_reason,
            admission,
            mac: None,
            interface: None,
            active: 0,
            connections: 0,
            rescheduled: 0,
            forward: Traffic::default(),
            reply: Traffic::default(),
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

fn add(view: &mut NodeView, counted: &NodeCounters) {
    view.active = view.active.saturating_add(counted.active);
    view.connections = view.connections.saturating_add(counted.connections);
    view.rescheduled = view.rescheduled.saturating_add(counted.rescheduled);
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
        addresses: plan.addresses,
        protocol: plan.protocol,
        ports: plan.ports,
        pool_in_use: plan.pool,
        forwarding: plan.forwarding,
        scheduler: plan.scheduler,
    }
}
