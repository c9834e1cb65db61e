//! Knocks at VIPs on single nodes for the monitors that want to know whether a DSR node owns them: the same frames as those
//! of `dsr`, asked for by an address and judged by the monitor.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::{
    dsr::{Knock, Questions},
    probes::{self, Outcome},
};
use crate::dataplane::{
    netlink::{Netlink, NetlinkError},
    network::{Network, Unresolved},
};

/// Knocks at a time: each holds a port of this machine for two seconds.
pub const MAX_KNOCKS: usize = 512;

/// What came of knocking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knocked {
    /// SYN-ACK.
    Accepted,
    /// RST.
    Refused,
    /// Nothing.
    Silent,
    /// It was not asked: this machine could not, or knows no way.
    NotSent(String),
    /// It was not asked: the node does not answer ARP or neighbour discovery.
    Unknown(String),
}

/// Knocks at these VIPs on these nodes, at most [`MAX_KNOCKS`], and waits for the answers: up to two seconds. In the same
/// order.
#[must_use]
pub fn knock(wanted: &[(IpAddr, SocketAddr)]) -> Vec<Knocked> {
    let network = match network(wanted) {
        Ok(network) => network,
        Err(error) => return wanted.iter().map(|_| Knocked::NotSent(error.to_string())).collect(),
    };
    let mut questions = Questions::default();
    let asked: Vec<Result<Knock, Knocked>> = wanted.iter().map(|(node, vip)| question(&network, *node, *vip)).collect();
    questions.knocks.extend(asked.iter().flatten().take(MAX_KNOCKS).cloned());
    let mut answers: BTreeMap<Knock, Outcome> = probes::run(&questions).knocks;
    let answer = |asked: Result<Knock, Knocked>| {
        let knock = match asked {
            Ok(knock) => knock,
            Err(knocked) => return knocked,
        };
        match answers.remove(&knock) {
            Some(Outcome::Accepted) => Knocked::Accepted,
            Some(Outcome::Refused) => Knocked::Refused,
            Some(Outcome::Silent) => Knocked::Silent,
            Some(Outcome::NotSent(why)) => Knocked::NotSent(why),
            None => Knocked::NotSent(format!("only {MAX_KNOCKS} are asked at a time, and each once")),
        }
    };
    asked.into_iter().map(answer).collect()
}

fn network(wanted: &[(IpAddr, SocketAddr)]) -> Result<Network, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let mut network = Network::default();
    network.set_links(netlink.links()?);
    network.set_neighbours(netlink.neighbours()?);
    let mut routes = HashMap::new();
    for (node, _) in wanted {
        if !routes.contains_key(node) {
            routes.insert(*node, netlink.route(*node)?);
        }
    }
    network.set_routes(routes);
    Ok(network)
}

fn question(network: &Network, node: IpAddr, vip: SocketAddr) -> Result<Knock, Knocked> {
    let hop = network.next_hop(node, true).map_err(|why| match why {
        Unresolved::Silent(_) | Unresolved::Asking(_) => Knocked::Unknown(why.to_string()),
        Unresolved::NoRoute
        | Unresolved::Local
        | Unresolved::Interface(_)
        | Unresolved::Vlan(_)
        | Unresolved::BehindRouter(_)
        | Unresolved::NoSource => Knocked::NotSent(why.to_string()),
    })?;
    let Some(source) = network.source(node) else {
        return Err(Knocked::NotSent("this machine has no address on the network that leads to it".to_owned()));
    };
    // Sent by the kernel's way: into a VLAN by its device.
    let ifindex = network.device(node).unwrap_or(hop.ifindex);
    Ok(Knock { ifindex, node: node.to_string(), node_mac: hop.mac, mac: hop.source_mac, source, vip, open: true })
}
