//! What the kernel knows of the network around us, and what follows for nodes: the next hop of each. Pure: events in, next
//! hops out; `netlink` asks the kernel and delivers the events.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
};

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's generic path.
    Generic,
}

impl Mode {
    /// As `lbctl` shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        }
    }
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// How it is attached.
    pub mode: Mode,
    /// Id of the program.
    pub program: u32,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Kernel index, never reused while the system is up.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// MAC address; `None` for what is no Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Index of the bridge, bond or team that it is a port of.
    pub controller: Option<u32>,
    /// Of a VLAN device: where it stands and in which VLAN.
    pub vlan: Option<Vlan>,
    /// Kind of virtual interface: `veth`, `bridge`, …
    pub kind: Option<String>,
    /// The XDP program on it.
    pub xdp: Option<Xdp>,
}

/// A VLAN device's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the interface that it stands on; `None`: one of another network namespace.
    pub parent: Option<u32>,
    /// Id.
    pub id: u16,
    /// An 802.1ad (service) VLAN.
    pub service: bool,
}

/// What a neighbour entry's state means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Its MAC address was confirmed lately, or is set by hand.
    Confirmed,
    /// Its MAC address was right some time ago.
    Believed,
    /// The kernel is asking for it.
    Asking,
    /// It did not answer.
    Failed,
}

/// A neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface.
    pub ifindex: u32,
    /// Address.
    pub address: IpAddr,
    /// MAC address.
    pub mac: Option<[u8; 6]>,
    /// What it is worth.
    pub reachability: Reachability,
}

/// A route that was looked up for one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Interface.
    pub ifindex: u32,
    /// Router; `None`: on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that we would use.
    pub source: Option<IpAddr>,
    /// MTU of the route, where it says one.
    pub mtu: Option<u32>,
    /// The destination is this machine, or no unicast address.
    pub local: bool,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface appeared or changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// A neighbour entry appeared or changed.
    Neighbour(Neighbour),
    /// A neighbour entry is gone.
    NeighbourGone {
        /// Interface.
        ifindex: u32,
        /// Address.
        address: IpAddr,
    },
    /// Routes or addresses changed: each may have been anybody's.
    Routes,
    /// Events were lost: all is to be read anew.
    Overrun,
}

/// Where frames to a node go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// MAC address of the node, or of the router to it.
    pub mac: [u8; 6],
    /// MAC address of our interface.
    pub source_mac: [u8; 6],
    /// Our interface. Of a VLAN device the one below: the program redirects to devices that drive a link.
    pub ifindex: u32,
    /// VLAN; 0: untagged.
    pub vlan: u16,
    /// Bytes of an IP packet that fit.
    pub mtu: u16,
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// No route.
    NoRoute,
    /// The address is our own, or no unicast address.
    Local,
    /// The interface of the route is down, gone, or no Ethernet.
    Interface(u32),
    /// The interface of the route is a VLAN device that cannot be reached with one 802.1Q tag: 802.1ad, VLAN on VLAN, or on
    /// an interface of another namespace.
    Vlan(u32),
    /// DSR needs the node on the link: a router would send the VIP's packets back.
    BehindRouter(IpAddr),
    /// Source NAT has no address of ours to use towards it.
    NoSource,
    /// The next hop did not answer yet.
    Asking(IpAddr),
    /// The next hop does not answer.
    Silent(IpAddr),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unresolved::NoRoute => f.write_str("no route leads to it"),
            Unresolved::Local => f.write_str("the address is this machine's own, or no unicast address"),
            Unresolved::Interface(ifindex) => write!(f, "interface {ifindex} towards it is down or no Ethernet"),
            Unresolved::Vlan(ifindex) => write!(
                f,
                "interface {ifindex} towards it is a VLAN device that is not 802.1Q, on another VLAN device, or on an \
                 interface that is not here"
            ),
            Unresolved::BehindRouter(router) => {
                write!(f, "it is behind router {router}: DSR needs nodes on a directly connected network; use nat")
            }
            Unresolved::NoSource => f.write_str("this machine has no address towards it that source NAT could use"),
            Unresolved::Asking(hop) => write!(f, "{hop} has not answered ARP or neighbour discovery yet"),
            Unresolved::Silent(hop) => write!(f, "{hop} does not answer ARP or neighbour discovery"),
        }
    }
}

/// The network as last heard of.
#[derive(Clone, Debug, Default)]
pub struct Network {
    links: BTreeMap<u32, Link>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    routes: HashMap<IpAddr, Option<Route>>,
}

impl Network {
    /// Replaces all interfaces.
    pub fn set_links(&mut self, links: Vec<Link>) {
        self.links = links.into_iter().map(|link| (link.ifindex, link)).collect();
    }

    /// Replaces all neighbour entries.
    pub fn set_neighbours(&mut self, neighbours: Vec<Neighbour>) {
        self.neighbours = neighbours.into_iter().map(|n| ((n.ifindex, n.address), n)).collect();
    }

    /// Replaces the routes: one for each destination that matters.
    pub fn set_routes(&mut self, routes: HashMap<IpAddr, Option<Route>>) {
        self.routes = routes;
    }

    /// Takes over the route to a destination; `None`: there is none. Says whether it is another than before.
    pub fn set_route(&mut self, destination: IpAddr, route: Option<Route>) -> bool {
        let before = self.routes.insert(destination, route);
        before.as_ref() != self.routes.get(&destination)
    }

    /// Forgets the routes to all other destinations.
    pub fn keep_routes(&mut self, destinations: &BTreeSet<IpAddr>) {
        self.routes.retain(|destination, _| destinations.contains(destination));
    }

    /// Whether a route was looked up for this destination.
    #[must_use]
    pub fn knows_route(&self, destination: IpAddr) -> bool {
        self.routes.contains_key(&destination)
    }

    /// Takes over a change of an interface or neighbour entry. Says whether next hops may have changed by it.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Link(link) => self.links.insert(link.ifindex, link.clone()).as_ref() != Some(link),
            Event::LinkGone(ifindex) => {
                self.neighbours.retain(|(index, _), _| index != ifindex);
                self.links.remove(ifindex).is_some()
            }
            Event::Neighbour(neighbour) => {
                let before = self.neighbours.insert((neighbour.ifindex, neighbour.address), neighbour.clone());
                before.as_ref() != Some(neighbour)
            }
            Event::NeighbourGone { ifindex, address } => self.neighbours.remove(&(*ifindex, *address)).is_some(),
            Event::Routes | Event::Overrun => true,
        }
    }

    /// An interface by name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// An interface by index.
    #[must_use]
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The address that we use towards `node`, by the route.
    #[must_use]
    pub fn source(&self, node: IpAddr) -> Option<IpAddr> {
        self.routes.get(&node)?.as_ref()?.source
    }

    /// Where frames to `node` go. `on_link_only`: a router in between is no next hop (DSR).
    ///
    /// # Errors
    /// Why there is none.
    pub fn next_hop(&self, node: IpAddr, on_link_only: bool) -> Result<NextHop, Unresolved> {
        let (route, hop) = self.hop(node)?;
        if on_link_only && let Some(router) = route.gateway {
            return Err(Unresolved::BehindRouter(router));
        }
        let link = self.links.get(&route.ifindex).filter(|link| link.up && !link.loopback);
        let Some((link, source_mac)) = link.and_then(|link| Some((link, link.mac?))) else {
            return Err(Unresolved::Interface(route.ifindex));
        };
        let (ifindex, vlan) = self.segment(link)?;
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let neighbour = self.neighbours.get(&(route.ifindex, hop)).ok_or(Unresolved::Asking(hop))?;
        match (neighbour.reachability, neighbour.mac) {
            (Reachability::Confirmed | Reachability::Believed, Some(mac)) => {
                Ok(NextHop { mac, source_mac, ifindex, vlan, mtu: u16::try_from(mtu).unwrap_or(u16::MAX) })
            }
            (Reachability::Failed, _) => Err(Unresolved::Silent(hop)),
            (Reachability::Confirmed | Reachability::Believed | Reachability::Asking, _) => {
                Err(Unresolved::Asking(hop))
            }
        }
    }

    /// The interface that the kernel itself sends to `node` by: of a VLAN the VLAN device.
    #[must_use]
    pub fn device(&self, node: IpAddr) -> Option<u32> {
        self.routes.get(&node)?.as_ref().map(|route| route.ifindex)
    }

    /// The interface that drives a link, and the tag on it. A VLAN device with an XDP program of its own is a link itself: that
    /// program sees no tags.
    fn segment(&self, link: &Link) -> Result<(u32, u16), Unresolved> {
        let Some(vlan) = link.vlan.filter(|_| link.xdp.is_none()) else { return Ok((link.ifindex, 0)) };
        let parent = vlan.parent.and_then(|parent| self.links.get(&parent)).filter(|parent| parent.vlan.is_none());
        let Some(parent) = parent.filter(|_| !vlan.service) else { return Err(Unresolved::Vlan(link.ifindex)) };
        if parent.up { Ok((parent.ifindex, vlan.id)) } else { Err(Unresolved::Interface(parent.ifindex)) }
    }

    fn hop(&self, node: IpAddr) -> Result<(&Route, IpAddr), Unresolved> {
        let route = self.routes.get(&node).and_then(Option::as_ref).ok_or(Unresolved::NoRoute)?;
        if route.local {
            return Err(Unresolved::Local);
        }
        Ok((route, route.gateway.unwrap_or(node)))
    }

    /// The next hops of `nodes` that the kernel should be asked to find or confirm. `all`: also those that it believes to
    /// know, which is what keeps them true, as forwarded packets never confirm them.
    #[must_use]
    pub fn to_probe(&self, nodes: impl IntoIterator<Item = IpAddr>, all: bool) -> BTreeSet<(u32, IpAddr)> {
        let mut targets = BTreeSet::new();
        for node in nodes {
            let Ok((route, hop)) = self.hop(node) else { continue };
            if !self.links.get(&route.ifindex).is_some_and(|link| link.up && !link.loopback) {
                continue;
            }
            let wanted = match self.neighbours.get(&(route.ifindex, hop)).map(|n| n.reachability) {
                None | Some(Reachability::Failed) => true,
                Some(Reachability::Believed) => all,
                Some(Reachability::Confirmed | Reachability::Asking) => false,
            };
            if wanted {
                targets.insert((route.ifindex, hop));
            }
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));
    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 11];
    const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn network(gateway: Option<IpAddr>) -> Network {
        let mut network = Network::default();
        network.set_links(vec![Link {
            ifindex: 7,
            name: "eth0".to_owned(),
            mac: Some(OUR_MAC),
            mtu: 1500,
            up: true,
            ..Link::default()
        }]);
        let route = Route { ifindex: 7, gateway, ..Route::default() };
        network.set_routes(HashMap::from([(NODE, Some(route))]));
        network
    }

    fn neighbour(address: IpAddr, reachability: Reachability, mac: Option<[u8; 6]>) -> Event {
        Event::Neighbour(Neighbour { ifindex: 7, address, mac, reachability })
    }

    #[test]
    fn a_node_is_reached_by_its_own_mac_while_the_kernel_believes_it() {
        let mut network = network(None);
        assert_eq!(network.next_hop(NODE, true), Err(Unresolved::Asking(NODE)));
        assert!(network.apply(&neighbour(NODE, Reachability::Believed, Some(MAC))));
        let hop = NextHop { mac: MAC, source_mac: OUR_MAC, ifindex: 7, vlan: 0, mtu: 1500 };
        assert_eq!(network.next_hop(NODE, true), Ok(hop));
        assert!(!network.apply(&neighbour(NODE, Reachability::Believed, Some(MAC))), "nothing new");
        assert!(network.apply(&neighbour(NODE, Reachability::Believed, Some([2, 0, 0, 0, 0, 99]))));
        assert_eq!(network.next_hop(NODE, true).map(|hop| hop.mac), Ok([2, 0, 0, 0, 0, 99]));
        network.apply(&neighbour(NODE, Reachability::Failed, None));
        assert_eq!(network.next_hop(NODE, true), Err(Unresolved::Silent(NODE)));
    }

    #[test]
    fn a_node_behind_a_vlan_device_is_reached_by_the_interface_below_with_a_tag() {
        let parent = Link { ifindex: 5, name: "trunk".to_owned(), up: true, ..Link::default() };
        let vlan = Vlan { parent: Some(5), id: 100, service: false };
        let device = |vlan| Link {
            ifindex: 7,
            name: "trunk.100".to_owned(),
            mac: Some(OUR_MAC),
            mtu: 1496,
            up: true,
            vlan: Some(vlan),
            ..Link::default()
        };
        let stacked = Link { vlan: Some(Vlan { parent: Some(4), id: 2, service: false }), ..parent.clone() };
        let own = Link { xdp: Some(Xdp { mode: Mode::Generic, program: 1 }), ..device(vlan) };
        let rows = [
            ("vlan device", parent.clone(), device(vlan), Ok((5, 100))),
            ("with a program of its own", parent.clone(), own, Ok((7, 0))),
            ("802.1ad", parent.clone(), device(Vlan { service: true, ..vlan }), Err(Unresolved::Vlan(7))),
            ("vlan on vlan", stacked, device(vlan), Err(Unresolved::Vlan(7))),
            ("elsewhere", parent.clone(), device(Vlan { parent: None, ..vlan }), Err(Unresolved::Vlan(7))),
            ("below is down", Link { up: false, ..parent }, device(vlan), Err(Unresolved::Interface(5))),
        ];
        for (name, parent, device, expected) in rows {
            let mut network = network(None);
            network.apply(&neighbour(NODE, Reachability::Confirmed, Some(MAC)));
            network.apply(&Event::Link(parent));
            network.apply(&Event::Link(device));
            let hop = network.next_hop(NODE, true);
            assert_eq!(hop.map(|hop| (hop.ifindex, hop.vlan)), expected, "{name}");
            assert!(hop.is_err() || hop.is_ok_and(|hop| hop.mtu == 1496 && hop.source_mac == OUR_MAC), "{name}");
        }
    }

    #[test]
    fn a_router_is_a_next_hop_for_nat_only() {
        let mut network = network(Some(ROUTER));
        network.apply(&neighbour(ROUTER, Reachability::Confirmed, Some(MAC)));
        assert_eq!(network.next_hop(NODE, false).map(|hop| hop.mac), Ok(MAC));
        assert_eq!(network.next_hop(NODE, true), Err(Unresolved::BehindRouter(ROUTER)));
    }

    #[test]
    fn nothing_leads_through_an_interface_that_is_down_or_gone() {
        for gone in [Event::LinkGone(7), Event::Link(Link { ifindex: 7, name: "eth0".to_owned(), ..Link::default() })] {
            let mut network = network(None);
            network.apply(&neighbour(NODE, Reachability::Confirmed, Some(MAC)));
            network.apply(&gone);
            assert_eq!(network.next_hop(NODE, false), Err(Unresolved::Interface(7)));
            assert!(network.to_probe([NODE], true).is_empty());
        }
    }

    #[test]
    fn silent_hops_are_probed_always_and_believed_ones_in_turn() {
        let rows = [
            ("unknown", None, true, true),
            ("failed", Some(Reachability::Failed), true, true),
            ("asking", Some(Reachability::Asking), false, false),
            ("believed", Some(Reachability::Believed), false, true),
            ("confirmed", Some(Reachability::Confirmed), false, false),
        ];
        for (name, state, often, in_turn) in rows {
            let mut network = network(None);
            if let Some(state) = state {
                network.apply(&neighbour(NODE, state, Some(MAC)));
            }
            assert_eq!(!network.to_probe([NODE], false).is_empty(), often, "{name}");
            assert_eq!(!network.to_probe([NODE], true).is_empty(), in_turn, "{name}");
        }
    }

    #[test]
    fn a_smaller_route_mtu_counts() {
        let mut network = network(None);
        let route = Route { ifindex: 7, mtu: Some(1400), ..Route::default() };
        network.set_routes(HashMap::from([(NODE, Some(route))]));
        network.apply(&neighbour(NODE, Reachability::Confirmed, Some(MAC)));
        assert_eq!(network.next_hop(NODE, true).map(|hop| hop.mtu), Ok(1400));
    }
}
