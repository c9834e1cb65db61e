//! What the checks look at: interfaces, neighbours, routes and addresses, read once from the kernel, beside the names of
//! the data path.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};

use crate::{
    control::{
        plan::{Admission, Forwarding},
        query::QueryError,
    },
    dataplane::{
        names::Names,
        netlink::{Netlink, NetlinkError},
        network::Network,
    },
};

/// An address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalAddress {
    pub(super) interface: String,
    pub(super) loopback: bool,
    pub(super) address: IpAddr,
    /// Length of its network's prefix.
    pub(super) prefix: u32,
}

/// A node of a pool, once for each way that it is forwarded to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) pool: String,
    pub(super) node: String,
    pub(super) address: IpAddr,
    /// Direct server return: it must be on the link.
    pub(super) dsr: bool,
}

impl Target {
    /// As findings call it.
    pub(super) fn label(&self) -> String {
        format!("{}/{} ({})", self.pool, self.node, self.address)
    }
}

/// The network around the data path.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) names: Arc<Names>,
    pub(super) network: Network,
    /// Names of all interfaces.
    pub(super) links: BTreeMap<u32, String>,
    /// The addresses, or why they are not known.
    pub(super) addresses: Result<Vec<LocalAddress>, String>,
    /// Nodes, and whether they take anything.
    pub(super) targets: BTreeMap<Target, bool>,
}

impl Surroundings {
    /// Asks the kernel.
    pub(super) fn read(names: Arc<Names>) -> Result<Self, QueryError> {
        let failed = |error: NetlinkError| QueryError::Failed(format!("the network cannot be looked at: {error}"));
        let targets = targets(&names);
        let mut netlink = Netlink::open().map_err(failed)?;
        let links = netlink.links().map_err(failed)?;
        let mut routes = HashMap::new();
        for target in targets.keys() {
            routes.insert(target.address, netlink.route(target.address).map_err(failed)?);
        }
        let mut around = Self {
            names,
            links: links.iter().map(|link| (link.ifindex, link.name.clone())).collect(),
            addresses: addresses().map_err(|error| error.to_string()),
            targets,
            network: Network::default(),
        };
        around.network.set_links(links);
        around.network.set_neighbours(netlink.neighbours().map_err(failed)?);
        around.network.set_routes(routes);
        Ok(around)
    }

    /// The name of an interface.
    pub(super) fn link_name(&self, ifindex: u32) -> String {
        self.links.get(&ifindex).cloned().unwrap_or_else(|| format!("interface {ifindex}"))
    }

    /// Whether the program is attached to an interface.
    pub(super) fn is_attached(&self, ifindex: u32) -> bool {
        self.names.interfaces.iter().any(|interface| interface.ifindex == ifindex && interface.mode.is_some())
    }
}

/// Every node of the plan.
pub(super) fn targets(names: &Names) -> BTreeMap<Target, bool> {
    let mut targets = BTreeMap::new();
    for server in names.plan.virtual_servers.values() {
        for node in &server.nodes {
            let target = Target {
                pool: node.pool.clone(),
                node: node.name.clone(),
                address: node.address.ip(),
                dsr: server.forwarding == Forwarding::Dsr,
            };
            *targets.entry(target).or_insert(false) |= node.admission != Admission::Nothing;
        }
    }
    targets
}

fn addresses() -> nix::Result<Vec<LocalAddress>> {
    let found = getifaddrs()?.filter_map(|entry| {
        let address = ip(entry.address.as_ref()?)?;
        Some(LocalAddress {
            interface: entry.interface_name,
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            address,
            prefix: prefix(ip(entry.netmask.as_ref()?)?),
        })
    });
    Ok(found.collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Length of a network mask.
fn prefix(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    }
}
