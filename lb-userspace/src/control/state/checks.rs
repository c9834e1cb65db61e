//! Which checks the monitors are to run, and against what. Pure; called by [`super::State::monitors`].

use std::net::SocketAddr;

use super::{Check, Probe};
use crate::config::{Config, Monitor, MonitorKind, Node, Pool, common_port};

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let users = config.users();
    let mut checks = Vec::new();
    for (name, pool) in &config.pools {
        let common_port = users.get(name.as_str()).and_then(|users| common_port(users));
        for node in &pool.nodes {
            checks.extend(of_node(config, (name, pool), node, common_port));
        }
    }
    checks
}

fn of_node(
    config: &Config,
    (pool_name, pool): (&str, &Pool),
    (node_name, node): (&String, &Node),
    common_port: Option<u16>,
) -> Vec<Check> {
    let check = |(name, monitor): (&String, &Monitor)| {
        let probe = match monitor.kind {
            MonitorKind::Ping => Probe::Ping(node.address),
            // Without a port there is nothing to connect to; only the pool of no virtual server comes to that.
            MonitorKind::Tcp { port } => Probe::Tcp(SocketAddr::new(node.address, port.or(node.port).or(common_port)?)),
        };
        Some(Check {
            pool: pool_name.to_owned(),
            node: node_name.clone(),
            monitor: name.clone(),
            probe,
            delay: monitor.delay,
            timeout: monitor.timeout,
            failures: monitor.failures,
            successes: monitor.successes,
        })
    };
    pool.monitors.iter().filter_map(|name| config.monitors.get_key_value(name)).filter_map(check).collect()
}
