//! A network for the tests of all checks: `eth0` (7) with the program, `eth1` (8) without, a server "web" with two nodes.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::conntrack::Timeouts;

use super::surroundings::{LocalAddress, Surroundings, targets};
use crate::{
    control::plan::{Admission, Forwarding, Node, OnNodeFailure, Plan, Protocol, Refusal, Scheduler, VirtualServer},
    dataplane::{
        names::{InterfaceInfo, Names},
        network::{Link, Mode, Neighbour, Network, Reachability, Route},
    },
};

pub(super) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const N1: &str = "10.0.0.11";
pub(super) const N2: &str = "10.0.0.12";
pub(super) const VIP: &str = "192.0.2.10";

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn mac_of(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

pub(super) fn node(name: &str, address: &str) -> Node {
    Node {
        pool: "web".to_owned(),
        name: name.to_owned(),
        address: SocketAddr::new(ip(address), 0),
        weight: 1,
        admission: Admission::All,
        source_address: None,
    }
}

pub(super) fn server(forwarding: Forwarding) -> VirtualServer {
    VirtualServer {
        addresses: vec![ip(VIP), ip("2001:db8::10")],
        protocol: Protocol::Tcp,
        ports: vec![(8000, 8100), (80, 80)],
        pool: "web".to_owned(),
        forwarding,
        scheduler: Scheduler::Maglev,
        affinity: None,
        on_node_failure: OnNodeFailure::Reschedule,
        refusal: Refusal::Reset,
        timeouts: Timeouts::default(),
        flood_limit: 1,
        ring_seed: 1,
        source_ports: (1024, 32_767),
        nodes: vec![node("n1", N1), node("n2", N2)],
    }
}

/// Both nodes on the link of `eth0`, resolved.
pub(super) fn around(server: VirtualServer) -> Surroundings {
    let link = |ifindex, name: &str| Link {
        ifindex,
        name: name.to_owned(),
        mac: Some(OUR_MAC),
        mtu: 1500,
        up: true,
        ..Link::default()
    };
    let mut network = Network::default();
    network.set_links(vec![link(7, "eth0"), link(8, "eth1")]);
    let nodes = [(N1, 0x11), (N2, 0x12)];
    network.set_neighbours(
        nodes
            .iter()
            .map(|(address, number)| Neighbour {
                ifindex: 7,
                address: ip(address),
                mac: Some(mac_of(*number)),
                reachability: Reachability::Confirmed,
            })
            .collect(),
    );
    network.set_routes(nodes.iter().map(|(address, _)| (ip(address), Some(route(7)))).collect());
    let names = Names {
        interfaces: vec![InterfaceInfo { name: "eth0".to_owned(), ifindex: 7, slot: 0, mode: Some(Mode::Native) }],
        plan: Arc::new(Plan { virtual_servers: BTreeMap::from([("web".to_owned(), server)]), ..Plan::default() }),
        ..Names::default()
    };
    Surroundings {
        targets: targets(&names),
        names: Arc::new(names),
        network,
        links: BTreeMap::from([(7, "eth0".to_owned()), (8, "eth1".to_owned())]),
        addresses: Ok(vec![LocalAddress {
            interface: "eth0".to_owned(),
            loopback: false,
            address: ip(VIP),
            prefix: 32,
        }]),
    }
}

pub(super) fn route(ifindex: u32) -> Route {
    Route { ifindex, source: Some(ip("10.0.0.1")), ..Route::default() }
}

pub(super) fn routes(around: &mut Surroundings, routes: &[(&str, Option<Route>)]) {
    let routes: HashMap<IpAddr, Option<Route>> =
        routes.iter().map(|(address, route)| (ip(address), route.clone())).collect();
    around.network.set_routes(routes);
}
