//! The test networks: which machines there are, how they are wired, who has which address.
//!
//! One segment (the default), for direct server return and one-arm NAT:
//! ```text
//! c1 … ── br0 ── lb, n1, n2, …        all in 10.1.0.0/16 and fd00:1::/64
//! ```
//! where c1 also owns all of 10.1.128.0/17, to be many clients; with [`Topology::routed`], a router between client and
//! segment, the client in 10.9.0.0/16 and fd00:9::/64 and owning 10.9.128.0/17:
//! ```text
//! c1 ── r1 ── br0 ── lb, n1, n2, …    default route of lb and nodes: r1
//! ```
//! with [`Topology::two_arm`], the balancer between clients and nodes, for NAT without source NAT:
//! ```text
//! c1 … ── br0 ── lb ── br1 ── n1, n2, …   nodes in 10.2.0.0/16 and fd00:2::/64, default route: lb
//! ```
//! VIPs are 10.1.1.x and fd00:1::1:x. The bridges live in a namespace of their own (`sw`). Networks are built one at a
//! time in a process: tests that count packets must not lose them to each other's load.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Result;

use super::{
    balancer::Lb,
    host::Host,
    namespace::{PREFIX, sweep},
    xdp::PassProgram,
};

static EXCLUSIVE: Mutex<()> = Mutex::new(());
static SWEEP: Once = Once::new();
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The address of VIP `number`, IPv4.
#[must_use]
pub fn vip4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 1, number).into()
}

/// The address of VIP `number`, IPv6.
#[must_use]
pub fn vip6(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 1, number.into()).into()
}

/// A network to be built.
#[derive(Clone, Debug)]
pub struct Topology {
    name: String,
    clients: u8,
    nodes: u8,
    routed: bool,
    two_arm: bool,
    pair: bool,
    dsr_vips: Vec<IpAddr>,
}

/// A network that exists until it is dropped.
#[derive(Debug)]
pub struct Net {
    /// What it was named: also the prefix of temporary directories.
    pub name: String,
    /// `c1`, `c2`, …
    pub clients: Vec<Host>,
    /// `lb`.
    pub balancer: Host,
    /// `lb2`, in a pair.
    pub second: Option<Host>,
    /// `n1`, `n2`, …
    pub nodes: Vec<Host>,
    /// `r1`, when the clients are routed.
    pub router: Option<Host>,
    _peers: Vec<PassProgram>,
    switch: Host,
    _exclusive: MutexGuard<'static, ()>,
}

impl Topology {
    /// One segment with one client and no node.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, clients: 1, nodes: 0, routed: false, two_arm: false, pair: false, dsr_vips: Vec::new() }
    }

    /// How many clients.
    #[must_use]
    pub fn clients(mut self, clients: u8) -> Self {
        self.clients = clients;
        self
    }

    /// How many nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// A router between the first client and the segment.
    #[must_use]
    pub fn routed(mut self) -> Self {
        self.routed = true;
        self
    }

    /// The balancer is the nodes' router.
    #[must_use]
    pub fn two_arm(mut self) -> Self {
        self.two_arm = true;
        self
    }

    /// A second balancer beside the first one, and a network of their own between them: `eth1`, 10.2.0.0/16, for heartbeats.
    #[must_use]
    pub fn pair(mut self) -> Self {
        self.pair = true;
        self
    }

    /// The nodes are set up for direct server return of these VIPs.
    #[must_use]
    pub fn dsr(mut self, vips: &[IpAddr]) -> Self {
        self.dsr_vips = vips.to_vec();
        self
    }

    /// Makes it, once no other network of this process exists.
    ///
    /// # Errors
    /// Without root, or when a tool (`ip`, `ethtool`) is missing or refuses.
    pub fn build(&self) -> Result<Net> {
        let exclusive = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut swept = Ok(());
        SWEEP.call_once(|| swept = sweep());
        swept?;
        let id = COUNTER.fetch_add(1, Ordering::Relaxed);
        let wiring = Wiring { prefix: format!("{PREFIX}{}-{id}-", std::process::id()) };

        let switch = wiring.switch(self.two_arm || self.pair)?;
        let balancer = wiring.host("lb", [10, 1, 0, 2], 1, [0, 2])?;
        let mut peers = vec![wiring.plug(&switch, &balancer, "eth0", "br0")?];
        if self.two_arm {
            peers.push(wiring.plug(&switch, &balancer, "eth1", "br1")?);
            balancer.ip(&addresses("eth1", Ipv4Addr::new(10, 2, 0, 2), net6(2, [0, 2])))?;
            balancer.route_packets()?;
        }
        let second = self.pair.then(|| wiring.second(&switch, &balancer, &mut peers)).transpose()?;
        let mut clients = Vec::new();
        for number in 1..=self.clients {
            clients.push(wiring.client(&switch, number, self.routed)?);
        }
        let router = self.routed.then(|| wiring.router(&switch, &clients[0], &balancer)).transpose()?;
        if let (Some(second), true) = (&second, self.routed) {
            second.ip(&default_routes("10.1.0.1", "fd00:1::1"))?;
        }
        let mut nodes = Vec::new();
        for number in 1..=self.nodes {
            let node = wiring.node(&switch, number, self.two_arm, self.routed)?;
            if !self.dsr_vips.is_empty() {
                node.own_vips(&self.dsr_vips)?;
            }
            nodes.push(node);
        }
        Ok(Net {
            name: self.name.clone(),
            clients,
            balancer,
            second,
            nodes,
            router,
            _peers: peers,
            switch,
            _exclusive: exclusive,
        })
    }
}

impl Net {
    /// The first client.
    ///
    /// # Panics
    /// In a network without clients.
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }

    /// Where the bridges are: a port is named after machine and interface, `lb.eth0`.
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// Pulls a machine's network cable: from one moment to the next it neither sends nor answers.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn pull_cable(&self, machine: &str) -> Result<()> {
        self.switch.ip(&[format!("link set {machine}.eth0 down")])
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn plug_cable(&self, machine: &str) -> Result<()> {
        self.switch.ip(&[format!("link set {machine}.eth0 up")])
    }

    /// Takes a machine's port out of the bridge: frames get lost on both ways, and its carrier stays.
    ///
    /// # Errors
    /// When there is no such machine or interface.
    pub fn cut(&self, machine: &str, interface: &str) -> Result<()> {
        self.switch.ip(&[format!("link set {machine}.{interface} nomaster")])
    }

    /// Puts it back.
    ///
    /// # Errors
    /// When there is no such machine or interface.
    pub fn heal(&self, machine: &str, interface: &str) -> Result<()> {
        let bridge = if interface == "eth1" { "br1" } else { "br0" };
        self.switch.ip(&[format!("link set {machine}.{interface} master {bridge}")])
    }

    /// Takes both ports of one machine of a pair out at once: a [`Net::cut`] of one and then of the other would let heartbeats
    /// through by the second for as long as it takes to start a program, which is long on a busy machine.
    ///
    /// # Errors
    /// When there is no such machine, or it has one port.
    pub fn isolate(&self, machine: &str) -> Result<()> {
        self.switch.ip(&["eth0", "eth1"].map(|interface| format!("link set {machine}.{interface} nomaster")))
    }

    /// Puts both back.
    ///
    /// # Errors
    /// As [`Net::isolate`].
    pub fn rejoin(&self, machine: &str) -> Result<()> {
        let ports = [("eth0", "br0"), ("eth1", "br1")];
        self.switch.ip(&ports.map(|(interface, bridge)| format!("link set {machine}.{interface} master {bridge}")))
    }

    /// The bridge sends a machine's own frames back to it, as virtual switches in promiscuous mode do.
    ///
    /// # Errors
    /// When there is no such machine or interface.
    pub fn hairpin(&self, machine: &str, interface: &str, on: bool) -> Result<()> {
        let word = if on { "on" } else { "off" };
        self.switch.sh(&format!("bridge link set dev {machine}.{interface} hairpin {word}")).map(drop)
    }

    /// Starts lbd on the balancer and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time: with its log.
    pub fn start_lb(&self, config: &str) -> Result<Lb<'_>> {
        Lb::start(self, config)
    }
}

/// What the machines of one network have in common: the prefix of their names.
struct Wiring {
    prefix: String,
}

impl Wiring {
    fn host(&self, name: &str, v4: [u8; 4], net: u16, interface: [u16; 2]) -> Result<Host> {
        Host::create(&format!("{}{name}", self.prefix), name, v4.into(), net6(net, interface))
    }

    fn switch(&self, two_arm: bool) -> Result<Host> {
        let switch = self.host("sw", [0, 0, 0, 0], 0, [0, 0])?;
        switch.sysctls(&[("net/ipv6/conf/all/disable_ipv6", "1"), ("net/ipv6/conf/default/disable_ipv6", "1")])?;
        let bridges = if two_arm { &["br0", "br1"][..] } else { &["br0"] };
        let make = |bridge: &&str| {
            [
                format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
                format!("link set {bridge} up"),
            ]
        };
        switch.ip(&bridges.iter().flat_map(make).collect::<Vec<_>>())?;
        Ok(switch)
    }

    /// Connects an interface to a bridge by a veth; its switch port gets the XDP pass program when it is the balancer's.
    fn plug(&self, switch: &Host, host: &Host, interface: &str, bridge: &str) -> Result<PassProgram> {
        let port = format!("{}.{interface}", host.name);
        connect(host, interface, switch, &port)?;
        switch.ip(&[format!("link set {port} master {bridge}")])?;
        let peer = switch.run(|| PassProgram::attach(&port))?;
        if interface == "eth0" {
            host.ip(&addresses(interface, host.v4, host.v6))?;
        }
        Ok(peer)
    }

    /// As [`Self::plug`], for machines that send no frames by XDP.
    fn plug_plain(&self, switch: &Host, host: &Host, bridge: &str) -> Result<()> {
        let port = format!("{}.eth0", host.name);
        connect(host, "eth0", switch, &port)?;
        switch.ip(&[format!("link set {port} master {bridge}")])?;
        host.ip(&addresses("eth0", host.v4, host.v6))
    }

    /// The second balancer of a pair, and `eth1` of both.
    fn second(&self, switch: &Host, first: &Host, peers: &mut Vec<PassProgram>) -> Result<Host> {
        let second = self.host("lb2", [10, 1, 0, 3], 1, [0, 3])?;
        peers.push(self.plug(switch, &second, "eth0", "br0")?);
        for (host, number) in [(first, 2), (&second, 3)] {
            peers.push(self.plug(switch, host, "eth1", "br1")?);
            host.ip(&addresses("eth1", Ipv4Addr::new(10, 2, 0, number), net6(2, [0, number.into()])))?;
        }
        Ok(second)
    }

    fn client(&self, switch: &Host, number: u8, routed: bool) -> Result<Host> {
        let name = format!("c{number}");
        if routed {
            // Its cable ends at the router, which plugs it in.
            return self.host(&name, [10, 9, 0, number + 1], 9, [0, u16::from(number) + 1]);
        }
        let client = self.host(&name, [10, 1, 3, number], 1, [3, number.into()])?;
        self.plug_plain(switch, &client, "br0")?;
        if number == 1 {
            client.ip(&["route add local 10.1.128.0/17 dev lo".to_owned()])?;
        }
        Ok(client)
    }

    fn router(&self, switch: &Host, client: &Host, balancer: &Host) -> Result<Host> {
        let router = self.host("r1", [10, 1, 0, 1], 1, [0, 1])?;
        self.plug_plain(switch, &router, "br0")?;
        connect(client, "eth0", &router, "client")?;
        router.without_offloads("client")?;
        router.ip(&addresses("client", Ipv4Addr::new(10, 9, 0, 1), net6(9, [0, 1])))?;
        router.route_packets()?;
        let mut lines = addresses("eth0", client.v4, client.v6);
        lines.push("route add local 10.9.128.0/17 dev lo".into());
        lines.extend(["route add default via 10.9.0.1".into(), "route add ::/0 via fd00:9::1".into()]);
        client.ip(&lines)?;
        balancer.ip(&default_routes("10.1.0.1", "fd00:1::1"))?;
        Ok(router)
    }

    fn node(&self, switch: &Host, number: u8, two_arm: bool, routed: bool) -> Result<Host> {
        let (net, bridge) = if two_arm { (2, "br1") } else { (1, "br0") };
        let node = self.host(&format!("n{number}"), [10, net, 2, number], net.into(), [2, number.into()])?;
        self.plug_plain(switch, &node, bridge)?;
        if two_arm {
            node.ip(&default_routes("10.2.0.2", "fd00:2::2"))?;
        } else if routed {
            node.ip(&default_routes("10.1.0.1", "fd00:1::1"))?;
        }
        Ok(node)
    }
}

/// A veth from an interface of one machine to an interface of another, both up.
fn connect(host: &Host, interface: &str, peer: &Host, peer_interface: &str) -> Result<()> {
    super::command::ip_batch(
        None,
        &[format!(
            "link add {interface} netns {} type veth peer name {peer_interface} netns {}",
            host.namespace(),
            peer.namespace()
        )],
    )?;
    host.ip(&[format!("link set {interface} up")])?;
    peer.ip(&[format!("link set {peer_interface} up")])?;
    host.without_offloads(interface)
}

fn addresses(interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<String> {
    vec![format!("addr add {v4}/16 dev {interface}"), format!("addr add {v6}/64 dev {interface} nodad")]
}

fn default_routes(v4: &str, v6: &str) -> Vec<String> {
    vec![format!("route add default via {v4}"), format!("route add ::/0 via {v6}")]
}

/// `fd00:<net>::<interface>`.
fn net6(net: u16, [high, low]: [u16; 2]) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, high, low)
}
