//! From the control state to the plan of the data path. Pure; called by [`State::plan`] and the views. Names are looked up
//! by index: in a valid configuration every reference leads somewhere.

use std::net::{IpAddr, SocketAddr};

use lb_common::conntrack::State as Conntrack;

use super::{State, facts::Facts};
use crate::{
    config::{self, Pool},
    control::plan::{Admission, Node, Plan, VirtualServer},
};

pub(super) fn plan(state: &State) -> Plan {
    let servers = state.config.virtual_servers.iter();
    Plan {
        interfaces: state.config.interfaces.clone(),
        virtual_servers: servers.map(|(name, server)| (name.clone(), virtual_server(state, server))).collect(),
    }
}

/// How new connections are placed (forwarding, scheduler, persistence) is said by the pool in use; what happens when
/// that fails (`on_node_failure`, `refusal`) by the virtual server's own pool, whichever serves.
pub(super) fn virtual_server(state: &State, server: &config::VirtualServer) -> VirtualServer {
    let mut plan = without_nodes(state, server);
    let chain = state.config.pool_chain(&server.pool).into_iter();
    plan.nodes = chain.flat_map(|(name, _)| nodes(state, name, name == plan.pool)).collect();
    plan
}

/// All of it but its nodes.
pub(super) fn without_nodes(state: &State, server: &config::VirtualServer) -> VirtualServer {
    let config = &state.config;
    let own = &config.pools[&server.pool];
    let (name, pool) = pool_in_use(state, &server.pool);
    let mut timeouts = server.timeouts;
    if let Some(affinity) = pool.affinity {
        timeouts.0[Conntrack::Affinity as usize] = affinity.timeout_s;
    }
    VirtualServer {
        addresses: config.addresses(server),
        protocol: server.protocol,
        ports: server.ports.clone(),
        pool: name.to_owned(),
        forwarding: state.forwarding(name).unwrap_or(pool.forwarding),
        scheduler: pool.scheduler,
        affinity: pool.affinity,
        on_node_failure: own.on_node_failure,
        refusal: own.refusal,
        timeouts,
        flood_limit: config.dataplane.flood_limit,
        ring_seed: config.dataplane.ring_seed,
        source_ports: config.dataplane.source_ports,
        nodes: Vec::new(),
    }
}

/// The first pool of the chain with a node that takes new connections; the own pool when none has one.
pub(super) fn pool_in_use<'a>(state: &'a State, own: &'a str) -> (&'a str, &'a Pool) {
    let chain = state.config.pool_chain(own);
    let takes_new = |name: &str, pool: &Pool| {
        let facts = state.facts(name);
        pool.nodes.iter().any(|(node, n)| facts.admission(node, n.state) == Admission::All)
    };
    *chain.iter().find(|(name, pool)| takes_new(name, pool)).unwrap_or(&chain[0])
}

fn nodes(state: &State, pool_name: &str, in_use: bool) -> Vec<Node> {
    let (pool, facts) = (&state.config.pools[pool_name], state.facts(pool_name));
    let node = |(name, node): (&String, &config::Node)| Node {
        pool: pool_name.to_owned(),
        name: name.clone(),
        address: SocketAddr::new(node.address, node.port.unwrap_or(0)),
        weight: facts.weight(name, node.weight),
        admission: admission(&facts, name, node, in_use),
        source_address: match node.address {
            IpAddr::V4(_) => pool.source_address4.map(IpAddr::V4),
            IpAddr::V6(_) => pool.source_address6.map(IpAddr::V6),
        },
    };
    pool.nodes.iter().map(node).collect()
}

/// What a node takes from a virtual server that its pool serves, or could serve.
pub(super) fn admission(facts: &Facts<'_>, name: &str, node: &config::Node, in_use: bool) -> Admission {
    match facts.admission(name, node.state) {
        Admission::All if !in_use => Admission::Tracked,
        admission @ (Admission::All | Admission::Tracked | Admission::Nothing) => admission,
    }
}
