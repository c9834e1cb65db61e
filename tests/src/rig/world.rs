//! What a balancer is configured with in a verdict test: the same value is written into the maps (by the rig) and read by the
//! model. Addresses, MAC addresses and node slots have the names that test rows use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::{conntrack::Timeouts, vip::scheduler};

use crate::packet::{Mac, Packet};

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

/// The balancer's interface.
pub const LB_MAC: Mac = [2, 0, 0, 0, 0, 0xaa];
/// The balancer's second interface.
pub const LB2_MAC: Mac = [2, 0, 0, 0, 0, 0xab];
/// The bridge that the balancer's interface is a port of.
pub const BRIDGE_MAC: Mac = [2, 0, 0, 0, 0, 0xba];
/// A virtual router that the balancer is master of.
pub const VIRTUAL_MAC: Mac = [0, 0, 0x5e, 0, 1, 51];
/// Virtual routers that others are: beside it, with the same id over IPv6, in another word of the map.
pub const OTHER_VIRTUAL_MACS: [Mac; 3] = [[0, 0, 0x5e, 0, 1, 52], [0, 0, 0x5e, 0, 2, 51], [0, 0, 0x5e, 0, 1, 115]];
/// The router that clients are behind.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 0xc1];

/// A client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// A client.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);
/// A router on the way to a client.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// A router on the way to a client.
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
/// VIP of the DSR servers.
pub const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// VIP of the DSR servers.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
/// VIP of the NAT servers.
pub const VIP_NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// VIP of the NAT servers.
pub const VIP_NAT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 2);
/// VIP of the servers with source NAT.
pub const VIP_SNAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// VIP of the servers with source NAT.
pub const VIP_SNAT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 3);
/// No VIP.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 200);
/// No VIP.
pub const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0x200);
/// The address that nodes see with source NAT.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The address that nodes see with source NAT.
pub const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The port that NAT nodes listen on.
pub const NODE_PORT: u16 = 8080;

/// The interface that the program runs on: index and slot.
pub const IFINDEX: u32 = 101;
/// See [`IFINDEX`].
pub const SLOT: u32 = 1;
/// Another interface of the balancer.
pub const IFINDEX2: u32 = 102;
/// Its slot.
pub const SLOT2: u32 = 2;

/// A VLAN id that the interface serves.
pub const VLAN: u16 = 100;
/// Another one.
pub const VLAN2: u16 = 2000;
/// One that it does not serve.
pub const FOREIGN_VLAN: u16 = 101;

/// How packets reach nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Direct server return.
    Dsr,
    /// Destination translated.
    Nat,
    /// Source translated as well.
    SourceNat,
}

/// All of them.
pub const MODES: [Mode; 3] = [Mode::Dsr, Mode::Nat, Mode::SourceNat];

impl Mode {
    /// The VIP that servers of this mode have in [`World::standard`].
    #[must_use]
    pub fn vip(self, v4: bool) -> IpAddr {
        match (self, v4) {
            (Mode::Dsr, true) => VIP.into(),
            (Mode::Dsr, false) => VIP6.into(),
            (Mode::Nat, true) => VIP_NAT.into(),
            (Mode::Nat, false) => VIP_NAT6.into(),
            (Mode::SourceNat, true) => VIP_SNAT.into(),
            (Mode::SourceNat, false) => VIP_SNAT6.into(),
        }
    }
}

/// A client of a family.
#[must_use]
pub fn client(v4: bool) -> IpAddr {
    if v4 { CLIENT.into() } else { CLIENT6.into() }
}

/// The source-NAT address of a family.
#[must_use]
pub fn source(v4: bool) -> IpAddr {
    if v4 { SOURCE.into() } else { SOURCE6.into() }
}

/// Address of the `number`th machine that serves.
#[must_use]
pub fn node_address(v4: bool, number: u8) -> IpAddr {
    if v4 {
        Ipv4Addr::new(10, 0, 0, 10 + number).into()
    } else {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(number)).into()
    }
}

/// MAC address of the `number`th machine that serves.
#[must_use]
pub fn node_mac(number: u8) -> Mac {
    [2, 0, 0, 0, 1, number]
}

/// A node slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its MAC address, or that of the router to it.
    pub mac: Mac,
    /// Our MAC address towards it.
    pub source_mac: Mac,
    /// Interface towards it.
    pub ifindex: u32,
    /// VLAN towards it; 0: untagged.
    pub vlan: u16,
    /// MTU towards it; 0: no matter.
    pub mtu: u16,
    /// Address.
    pub address: IpAddr,
    /// NAT: its port; 0: as it comes.
    pub port: u16,
    /// Source NAT: what it sees.
    pub source_address: IpAddr,
    /// May be forwarded to.
    pub usable: bool,
    /// Next hop known.
    pub resolved: bool,
    /// Generation of the slot.
    pub generation: u16,
    /// Weight.
    pub weight: u32,
}

/// A virtual server of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Id: also its index in `VIRTUAL_SERVERS`.
    pub id: u16,
    /// VIPs.
    pub vips: Vec<IpAddr>,
    /// TCP or UDP.
    pub protocol: u8,
    /// Single ports.
    pub ports: Vec<u16>,
    /// Port ranges.
    pub ranges: Vec<(u16, u16)>,
    /// Forwarding of new connections.
    pub mode: Mode,
    /// `vip::scheduler`.
    pub scheduler: u8,
    /// Node slots that take new connections, in order of the schedule.
    pub members: Vec<u16>,
    /// Source-address persistence: prefix length.
    pub persistence: Option<u8>,
    /// Refused TCP is reset.
    pub resets: bool,
    /// Connections of failed nodes are reset.
    pub resets_on_failure: bool,
    /// Half-open connections count as load.
    pub counts_pending: bool,
    /// New connections per tick above which the ring places.
    pub flood_limit: u32,
    /// First source port of source NAT and how many there are.
    pub nat_ports: (u16, u16),
    /// Seed of the ring.
    pub seed: u64,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Whether fragments without ports can be attributed to it: the only server of its VIP and protocol.
    pub owns_fragments: bool,
}

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Node slots.
    pub nodes: BTreeMap<u16, Node>,
    /// Virtual servers.
    pub servers: Vec<Server>,
    /// Served VLANs.
    pub vlans: BTreeSet<u16>,
}

impl World {
    /// A server for each forwarding mode, family and protocol on port 80 of the mode's VIP, with one node each, the machine
    /// number 1. NAT nodes listen on [`NODE_PORT`].
    #[must_use]
    pub fn standard() -> Self {
        let mut world = World::empty();
        for mode in MODES {
            for v4 in [true, false] {
                for protocol in [TCP, UDP] {
                    world.add(mode, v4, protocol, 1);
                }
            }
        }
        world
    }

    /// No server. The interface serves [`VLAN`] and [`VLAN2`].
    #[must_use]
    pub fn empty() -> Self {
        World { vlans: [VLAN, VLAN2].into(), ..World::default() }
    }

    /// One server with `nodes` nodes.
    #[must_use]
    pub fn of(mode: Mode, v4: bool, protocol: u8, nodes: u8) -> Self {
        let mut world = World::empty();
        world.add(mode, v4, protocol, nodes);
        world
    }

    /// Adds a server on port 80 of the mode's VIP with machines 1 to `nodes`; the next free id.
    pub fn add(&mut self, mode: Mode, v4: bool, protocol: u8, nodes: u8) -> &mut Server {
        let id = self.servers.len() as u16 + 1;
        let members: Vec<u16> = (1..=nodes).map(|number| slot(id, number)).collect();
        for number in 1..=nodes {
            let node = Node {
                mac: node_mac(number),
                source_mac: LB_MAC,
                ifindex: IFINDEX,
                vlan: 0,
                mtu: 0,
                address: node_address(v4, number),
                port: if mode == Mode::Dsr { 0 } else { NODE_PORT },
                source_address: source(v4),
                usable: true,
                resolved: true,
                generation: 7,
                weight: 1,
            };
            self.nodes.insert(slot(id, number), node);
        }
        self.servers.push(Server {
            id,
            vips: vec![mode.vip(v4)],
            protocol,
            ports: vec![80],
            ranges: Vec::new(),
            mode,
            scheduler: scheduler::RING_FLOW,
            members,
            persistence: None,
            resets: false,
            resets_on_failure: false,
            counts_pending: false,
            flood_limit: u32::MAX,
            nat_ports: (1024, 31_744),
            seed: 0x5eed,
            timeouts: Timeouts::default(),
            owns_fragments: mode == Mode::Dsr,
        });
        self.servers.last_mut().expect("it was just pushed")
    }

    /// The server with this id.
    #[must_use]
    pub fn server(&self, id: u16) -> &Server {
        self.servers.iter().find(|server| server.id == id).expect("tests name servers that they added")
    }

    /// The same, to change it.
    pub fn server_mut(&mut self, id: u16) -> &mut Server {
        self.servers.iter_mut().find(|server| server.id == id).expect("tests name servers that they added")
    }

    /// Node `number` of server `id`, to change it.
    pub fn node_mut(&mut self, id: u16, number: u8) -> &mut Node {
        self.nodes.get_mut(&slot(id, number)).expect("tests name nodes that they added")
    }

    /// The server of a mode, family and protocol in [`World::standard`].
    #[must_use]
    pub fn find(&self, mode: Mode, v4: bool, protocol: u8) -> &Server {
        let fits = |s: &&Server| s.mode == mode && s.vips[0].is_ipv4() == v4 && s.protocol == protocol;
        self.servers.iter().find(fits).expect("the standard world has all combinations")
    }

    /// All VIPs.
    #[must_use]
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        self.servers.iter().flat_map(|server| server.vips.iter().copied()).collect()
    }
}

/// Slot of node `number` of server `id`.
#[must_use]
pub fn slot(id: u16, number: u8) -> u16 {
    id * 8 + u16::from(number)
}

/// The server of a slot.
#[must_use]
pub fn server_of(slot: u16) -> u16 {
    slot / 8
}

/// The number of the machine in a slot.
#[must_use]
pub fn number_of(slot: u16) -> u8 {
    (slot % 8) as u8
}

/// The packet as node `number` gets it: the documented rewrite of each mode, computed from scratch.
#[must_use]
pub fn to_node(packet: &Packet, mode: Mode, number: u8, nat_port: u16) -> Packet {
    let v4 = packet.network.source.is_some_and(|address| address.is_ipv4());
    let packet = packet.clone().macs(LB_MAC, node_mac(number)).retagged(0);
    let ttl = packet.network.ttl;
    match mode {
        Mode::Dsr => packet,
        Mode::Nat | Mode::SourceNat => {
            let translated = packet.ttl(ttl - 1).destination(node_address(v4, number)).ports(nat_port, NODE_PORT);
            if mode == Mode::SourceNat { translated.source(source(v4)) } else { translated }
        }
    }
}

/// A node's answer as it leaves the node, given the client's packet.
#[must_use]
pub fn from_node(request: &Packet, mode: Mode, number: u8, nat_port: u16) -> Packet {
    to_node(request, mode, number, nat_port).ttl(64).reversed()
}

/// That answer as the client's router gets it.
#[must_use]
pub fn to_client(request: &Packet, answer: &Packet) -> Packet {
    let (client_port, vip_port) = request.port_pair();
    let (client, vip) = (request.network.source, request.network.destination);
    let mut packet = answer.clone().macs(LB_MAC, CLIENT_MAC).ports(vip_port, client_port);
    packet.network.source = vip;
    packet.network.destination = client;
    packet.network.ttl -= 1;
    packet.retagged(request.outer_vlan())
}
