//! Which checks the monitors are to run, and against what. Pure; called by [`super::State::monitors`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{Check, Probe};
use crate::config::{
    Config, Monitor, MonitorKind, common_port,
    proxy::{self, Host},
};

/// `names`: what DNS names stand for; a node without an address is not checked.
pub(super) fn checks(config: &Config, names: &BTreeMap<String, Vec<IpAddr>>) -> Vec<Check> {
    let users = config.users();
    let mut checks = Vec::new();
    for (name, pool) in &config.pools {
        let common_port = users.get(name.as_str()).and_then(|users| common_port(users));
        for node in &pool.nodes {
            let (node_name, node) = node;
            checks.extend(of_node(config, (name, &pool.monitors), node_name, (node.address, node.port), common_port));
        }
    }
    for (name, pool) in &config.proxy.pools {
        for (node_name, node) in &pool.nodes {
            // Of several addresses the first one speaks for the node; passive monitoring sees the others.
            let Some(address) = first_address(node, names) else { continue };
            checks.extend(of_node(config, (name, &pool.monitors), node_name, (address, Some(node.port)), None));
        }
    }
    checks
}

fn first_address(node: &proxy::Node, names: &BTreeMap<String, Vec<IpAddr>>) -> Option<IpAddr> {
    match &node.host {
        Host::Ip(address) => Some(*address),
        Host::Name(name) => names.get(name)?.first().copied(),
    }
}

fn of_node(
    config: &Config,
    (pool_name, monitors): (&str, &[String]),
    node_name: &str,
    (address, port): (IpAddr, Option<u16>),
    common_port: Option<u16>,
) -> Vec<Check> {
    let check = |(name, monitor): (&String, &Monitor)| {
        let probe = match monitor.kind {
            MonitorKind::Ping => Probe::Ping(address),
            // Without a port there is nothing to connect to; only the pool of no virtual server comes to that.
            MonitorKind::Tcp { port: to } => Probe::Tcp(SocketAddr::new(address, to.or(port).or(common_port)?)),
        };
        Some(Check {
            pool: pool_name.to_owned(),
            node: node_name.to_owned(),
            monitor: name.clone(),
            probe,
            delay: monitor.delay,
            timeout: monitor.timeout,
            failures: monitor.failures,
            successes: monitor.successes,
        })
    };
    monitors.iter().filter_map(|name| config.monitors.get_key_value(name)).filter_map(check).collect()
}
