//! Which checks the monitors are to run, and against what. Pure; called by [`super::State::monitors`].

use std::net::SocketAddr;

use super::{Check, Probe};
use crate::config::{Config, MonitorKind, Node, Pool};

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let nodes =
        config.pools.iter().flat_map(|(name, pool)| pool.nodes.iter().map(move |(node, n)| (name, pool, node, n)));
    nodes.flat_map(|(pool_name, pool, node_name, node)| of_node(config, pool_name, pool, node_name, node)).collect()
}

fn of_node(config: &Config, pool_name: &str, pool: &Pool, node_name: &str, node: &Node) -> Vec<Check> {
    let monitors = pool.monitors.iter().filter_map(|name| config.monitors.get_key_value(name));
    let check = |(name, monitor): (&String, &crate::config::Monitor)| {
        let probe = match monitor.kind {
            MonitorKind::Ping => Probe::Ping(node.address),
            // Without a port there is nothing to connect to; only the pool of no virtual server comes to that.
            MonitorKind::Tcp { port } => {
                Probe::Tcp(SocketAddr::new(node.address, config.monitored_port(port, pool_name, node)?))
            }
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
    monitors.filter_map(check).collect()
}
