//! What is remembered between packets.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    rc::Rc,
};

use super::{hash, parse::Tuple, ring};
use crate::{
    packet::Mac,
    rig::world::{Mode, Server, World},
};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// SYN seen.
    SynSent,
    /// SYN-ACK seen.
    SynReceived,
    /// Both ways proven.
    Established,
    /// One FIN.
    FinWait,
    /// Two FINs.
    TimeWait,
    /// RST.
    Closed,
    /// One datagram.
    UdpNew,
    /// More.
    Udp,
}

impl Phase {
    /// Counts as an active connection of its node.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Phase::Established | Phase::Udp)
    }

    /// Known from one side alone.
    #[must_use]
    pub fn is_half_open(self) -> bool {
        matches!(self, Phase::SynSent | Phase::SynReceived | Phase::UdpNew)
    }

    /// An end was announced: when its node fails, nothing is left to be moved.
    #[must_use]
    pub fn is_closing(self) -> bool {
        matches!(self, Phase::FinWait | Phase::TimeWait | Phase::Closed)
    }

    /// The number that records have.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Phase::SynSent => 2,
            Phase::SynReceived => 3,
            Phase::Established => 4,
            Phase::FinWait => 5,
            Phase::TimeWait => 6,
            Phase::Closed => 7,
            Phase::UdpNew => 8,
            Phase::Udp => 9,
        }
    }
}

/// A connection, by its client's tuple.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Node slot.
    pub node: u16,
    /// Generation of the slot.
    pub generation: u16,
    /// Virtual server.
    pub server: u16,
    /// Forwarding it began in.
    pub mode: Mode,
    /// Where it stands.
    pub phase: Phase,
    /// Client and node have sent FIN.
    pub fins: (bool, bool),
    /// NAT: the port that the node sees.
    pub nat_port: u16,
    /// NAT: the tuple of the node's answers.
    pub answer: Option<Tuple>,
    /// Where the client's packets have come from, router and VLAN: its answers go to one of these.
    pub hops: Vec<(Mac, u16)>,
    /// Nothing was seen of it for some seconds.
    pub silent: bool,
    /// Counted as half-open load.
    pub counts_pending: bool,
    /// Tells apart connections that have had the same tuple.
    pub number: u64,
}

/// Who a datagram's later fragments belong to, by addresses, identification and protocol.
#[derive(Clone, Debug)]
pub enum Note {
    /// To this node.
    ToNode {
        /// Slot.
        node: u16,
        /// Its generation.
        generation: u16,
        /// Forwarding.
        mode: Mode,
    },
    /// To the client of the connection with this number, which is answered by this tuple.
    ToClient(Tuple, u64),
}

/// A datagram.
pub type Datagram = (IpAddr, IpAddr, u32, u8);

/// Everything remembered, and the configuration.
#[derive(Clone, Debug)]
pub struct State {
    /// The configuration.
    pub world: World,
    /// Its VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// By client → VIP.
    pub connections: HashMap<Tuple, Connection>,
    /// Node → client or source address, to client → VIP.
    pub answers: HashMap<Tuple, Tuple>,
    /// Fragmented datagrams.
    pub notes: HashMap<Datagram, Note>,
    /// (Server, masked client) → (node, generation).
    pub affinity: HashMap<(u16, IpAddr), (u16, u16)>,
    /// Turns of round robin taken.
    pub turns: HashMap<u16, u64>,
    /// (active, half-open) connections of node slots.
    pub loads: HashMap<u16, (i64, i64)>,
    /// Connections so far.
    pub opened: u64,
    rings: HashMap<u16, Rc<Ring>>,
}

/// Ring, sequence and keys of a server.
#[derive(Debug)]
pub(crate) struct Ring {
    members: Vec<ring::Member>,
    seed: u64,
    pub(crate) slots: Vec<u16>,
    pub(crate) sequence: Vec<u16>,
    pub(crate) keys: [u32; 10],
}

impl State {
    /// Nothing remembered.
    #[must_use]
    pub fn new(world: World) -> Self {
        let mut state = Self {
            world: World::default(),
            vips: BTreeSet::new(),
            connections: HashMap::new(),
            answers: HashMap::new(),
            notes: HashMap::new(),
            affinity: HashMap::new(),
            turns: HashMap::new(),
            loads: HashMap::new(),
            opened: 0,
            rings: HashMap::new(),
        };
        state.configure(world);
        state
    }

    /// Another configuration; connections stay. A slot that is given to another node counts from zero.
    pub fn configure(&mut self, world: World) {
        let old = &self.world.nodes;
        self.loads.retain(|slot, _| {
            old.get(slot).map(|node| node.generation) == world.nodes.get(slot).map(|node| node.generation)
        });
        for server in &world.servers {
            let members: Vec<ring::Member> = server
                .members
                .iter()
                .map(|slot| (hash::finish(u64::from(*slot) + 1), *slot, world.nodes[slot].weight))
                .collect();
            let known = self.rings.values().find(|ring| ring.members == members && ring.seed == server.seed).cloned();
            let ring = known.unwrap_or_else(|| {
                Rc::new(Ring {
                    slots: ring::ring(&members, server.seed),
                    sequence: ring::sequence(&members),
                    keys: hash::keys(server.seed),
                    seed: server.seed,
                    members,
                })
            });
            self.rings.insert(server.id, ring);
        }
        self.vips = world.vips();
        self.world = world;
    }

    /// Forgets all connections.
    pub fn forget(&mut self) {
        self.connections.clear();
        self.answers.clear();
        self.notes.clear();
        self.affinity.clear();
        self.turns.clear();
        self.loads.clear();
    }

    pub(crate) fn ring_of(&self, server: u16) -> Rc<Ring> {
        self.rings[&server].clone()
    }

    /// The server of a destination: its single port, else the narrowest range.
    #[must_use]
    pub fn server_of(&self, tuple: &Tuple) -> Option<&Server> {
        let candidates = || {
            let has = |s: &&Server| s.protocol == tuple.protocol && s.vips.contains(&tuple.destination);
            self.world.servers.iter().filter(has)
        };
        let port = tuple.ports.1;
        candidates().find(|server| server.ports.contains(&port)).or_else(|| {
            let width =
                |s: &&Server| s.ranges.iter().filter(|(a, b)| (*a..=*b).contains(&port)).map(|(a, b)| b - a).min();
            candidates().filter(|s| width(s).is_some()).min_by_key(|s| width(s))
        })
    }

    /// Whether tracked connections may be forwarded to this node.
    #[must_use]
    pub fn believes(&self, node: u16, generation: u16) -> bool {
        self.world.nodes.get(&node).is_some_and(|n| n.usable && n.generation == generation)
    }

    /// Takes a connection out, with its answers and load.
    pub fn remove(&mut self, tuple: &Tuple) -> Option<Connection> {
        let connection = self.connections.remove(tuple)?;
        if let Some(answer) = &connection.answer {
            self.answers.remove(answer);
        }
        self.count(&connection, Some(connection.phase), None);
        Some(connection)
    }

    /// A connection moves on.
    pub(crate) fn set_phase(&mut self, tuple: &Tuple, phase: Phase) {
        let Some(mut connection) = self.connections.remove(tuple) else { return };
        self.count(&connection, Some(connection.phase), Some(phase));
        connection.phase = phase;
        self.connections.insert(*tuple, connection);
    }

    /// Changes the load of a connection's node. A slot that is another node's by now has a load of its own.
    pub(crate) fn count(&mut self, connection: &Connection, before: Option<Phase>, after: Option<Phase>) {
        if self.world.nodes.get(&connection.node).is_none_or(|n| n.generation != connection.generation) {
            return;
        }
        let active = |phase: Option<Phase>| i64::from(phase.is_some_and(Phase::is_active));
        let half_open = |phase: Option<Phase>| i64::from(phase.is_some_and(Phase::is_half_open));
        let load = self.loads.entry(connection.node).or_default();
        load.0 += active(after) - active(before);
        load.1 += if connection.counts_pending { half_open(after) - half_open(before) } else { 0 };
    }
}
