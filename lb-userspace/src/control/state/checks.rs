//! Which checks the monitors are to run, and against what. Pure; called by [`super::State::monitors`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Check, State};
use crate::{
    config::{
        Config, Monitor, Via, VirtualServer, common_port,
        proxy::{self, Host},
    },
    control::{
        plan::{Forwarding, Protocol},
        probe::{Kind, VipPort},
    },
};

/// Virtual servers by name.
type Servers<'c> = [(&'c str, &'c VirtualServer)];

/// A node without an address is not checked.
pub(super) fn checks(state: &State) -> Vec<Check> {
    let config = &state.config;
    let users = config.users();
    let mut checks = Vec::new();
    for (name, pool) in &config.pools {
        let users = users.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        let about = About { config, pool: name, monitors: &pool.monitors, users, forwarding: state.forwarding(name) };
        for (node_name, node) in &pool.nodes {
            checks.extend(about.node(node_name, node.address, node.port));
        }
    }
    for (name, pool) in &config.proxy.pools {
        let about = About { config, pool: name, monitors: &pool.monitors, users: &[], forwarding: None };
        for (node_name, node) in &pool.nodes {
            // Of several addresses the first one speaks for the node; passive monitoring sees the others.
            let Some(address) = first_address(node, &state.names) else { continue };
            checks.extend(about.node(node_name, address, Some(node.port)));
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

/// A pool, and what its nodes have in common.
struct About<'c> {
    config: &'c Config,
    pool: &'c str,
    monitors: &'c [String],
    users: &'c Servers<'c>,
    /// How it forwards now; `None`: it does not.
    forwarding: Option<Forwarding>,
}

impl About<'_> {
    fn node(&self, node: &str, address: IpAddr, port: Option<u16>) -> Vec<Check> {
        let check = |(name, monitor): (&String, &Monitor)| {
            let (address, kind) = self.ask(monitor, address, port)?;
            Some(Check {
                pool: self.pool.to_owned(),
                node: node.to_owned(),
                monitor: name.clone(),
                address,
                kind,
                delay: monitor.delay,
                timeout: monitor.timeout,
                failures: monitor.failures,
                successes: monitor.successes,
            })
        };
        self.monitors.iter().filter_map(|name| self.config.monitors.get_key_value(name)).filter_map(check).collect()
    }

    /// Whom to ask what. `None`: there is no port to ask; only the pool of no virtual server comes to that.
    fn ask(&self, monitor: &Monitor, node: IpAddr, port: Option<u16>) -> Option<(SocketAddr, Kind)> {
        if monitor.via == Via::Vip && self.forwarding == Some(Forwarding::Dsr) {
            let vips = self.vips(monitor, node);
            return (!vips.is_empty()).then(|| (SocketAddr::new(node, 0), Kind::Vip(vips)));
        }
        let address = monitor.address.unwrap_or(node);
        let port = match monitor.kind {
            Kind::Ping => 0,
            Kind::Program(_) => self.port(monitor, port).unwrap_or(0),
            Kind::Tcp
            | Kind::Vip(_)
            | Kind::Http(_)
            | Kind::Greeting(..)
            | Kind::Dns(_)
            | Kind::Udp(_)
            | Kind::Transaction(_) => self.port(monitor, port)?,
        };
        Some((SocketAddr::new(address, port), monitor.kind.clone()))
    }

    fn port(&self, monitor: &Monitor, node: Option<u16>) -> Option<u16> {
        monitor.port(node, |protocol| common_port(self.users, protocol))
    }

    /// The VIPs that the node must own. Where it is not known which port is open, a refusal shows it as well.
    fn vips(&self, monitor: &Monitor, node: IpAddr) -> Arc<[VipPort]> {
        let of_server = |(_, server): &(&str, &VirtualServer)| {
            let single = server.single_port().filter(|_| server.protocol == Protocol::Tcp);
            let any = server.ports.first().map_or(1, |(first, _)| *first);
            let open = monitor.port.or(single);
            let addresses = self.config.addresses(server).into_iter().filter(|vip| vip.is_ipv4() == node.is_ipv4());
            let vips =
                addresses.map(|vip| VipPort { vip: SocketAddr::new(vip, open.unwrap_or(any)), open: open.is_some() });
            vips.collect::<Vec<_>>()
        };
        let mut vips: Vec<VipPort> = self.users.iter().flat_map(of_server).collect();
        vips.sort_unstable();
        vips.dedup();
        vips.into()
    }
}
