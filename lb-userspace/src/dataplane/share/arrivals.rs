//! What another machine says of its connections, put into the own flow tables. Everything is looked up anew here: a node by its
//! address, a virtual server by VIP and port, interfaces by the VIP's.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use lb_common::{
    conntrack::State,
    flow::{ClientHop, Control, FlowKey, FlowRecord, HashKeys, flag},
};

use super::{Owned, bytes, family, key, key_of, places::Places};
use crate::{
    control::{
        plan::Plan,
        shared::{Client, Connection, Ends, Shared},
    },
    dataplane::{
        clock::now,
        collect::pass::half,
        inspect::Context,
        maps::{Maps, MapsError},
        names::{Names, SharedNames, SlotInfo},
    },
};

/// The interface that each VIP is on.
pub type Interfaces = BTreeMap<IpAddr, String>;

/// What became of something that another machine said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is in the tables now.
    Installed,
    /// It was, and is what it should be.
    Refreshed,
    /// It was taken out, or was not there.
    Ended,
    /// It is about a VIP that this machine owns: it knows better.
    Owned,
    /// No such virtual server or node is configured here, or it has another source address.
    Unknown,
    /// There is no room for it.
    NoRoom,
    /// Another connection has its port at the node.
    PortTaken,
}

impl Fate {
    /// All of them, with their words.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Installed, "installed"),
        (Self::Refreshed, "refreshed"),
        (Self::Ended, "ended"),
        (Self::Owned, "owned"),
        (Self::Unknown, "unknown"),
        (Self::NoRoom, "no_room"),
        (Self::PortTaken, "port_taken"),
    ];
}

/// Puts in what others say.
#[derive(Debug)]
pub struct Arrivals {
    maps: Arc<Maps>,
    names: SharedNames,
    keys: HashKeys,
    flow_mask: u32,
    affinity_mask: u32,
}

/// Where a connection would be placed here.
struct Target<'n> {
    virtual_server: u16,
    slot: u16,
    info: &'n SlotInfo,
}

impl Arrivals {
    /// Into the tables of this data plane.
    ///
    /// # Errors
    /// When the maps do not say how their keys are hashed.
    pub fn new(context: &Context) -> Result<Self, MapsError> {
        let meta = context.maps.meta.get(&0, 0).map_err(|source| MapsError::Open { name: "META", source })?;
        Ok(Self {
            maps: Arc::clone(&context.maps),
            names: context.names.clone(),
            keys: HashKeys(meta.table_keys),
            flow_mask: meta.flow_mask,
            affinity_mask: meta.affinity_mask,
        })
    }

    /// Takes what another machine says; of VIPs that this one owns it believes nothing.
    pub fn take(&self, shared: &Shared, owned: &Owned, interfaces: &Interfaces) -> Fate {
        match shared {
            Shared::Connection(connection) if owned.contains(&connection.ends.vip.ip()) => Fate::Owned,
            Shared::Ended(ends) if owned.contains(&ends.vip.ip()) => Fate::Owned,
            Shared::Connection(connection) => self.connection(connection, interfaces),
            Shared::Ended(ends) => self.end(ends),
            Shared::Client(client) => self.client(client, owned),
            // The L7 proxy's, which never come here.
            Shared::Session(_) | Shared::TicketKey(_) => Fate::Unknown,
        }
    }

    fn flows(&self) -> Places<'_> {
        Places { table: &self.maps.flows, digests: Some(&self.maps.digests), keys: self.keys, mask: self.flow_mask }
    }

    fn connection(&self, connection: &Connection, interfaces: &Interfaces) -> Fate {
        let state = State::from_number(connection.state);
        if !(state.is_active() || state.is_closing()) {
            return Fate::Unknown;
        }
        let names = self.names.snapshot();
        let Some(target) = target(&names, connection) else { return Fate::Unknown };
        let now = now();
        let flows = self.flows();
        let record = self.record(connection, &target, state, now);
        if let Some((index, found)) = flows.find(&record.key) {
            if is_same(&found, &record) {
                return self.refresh(index, &found, &record);
            }
            self.unlink(index, &found);
        }
        let hop = client_hop(connection, &names, interfaces);
        let answer = answer(connection, &target, &record, hop, now);
        if let Some((index, found)) = flows.find(&answer.key)
            && !self.sweep(index, &found, now)
        {
            return Fate::PortTaken;
        }
        let Some(home) = flows.claim(&record.key, now) else { return Fate::NoRoom };
        let Some(back) = flows.claim(&answer.key, now) else {
            flows.release(home);
            return Fate::NoRoom;
        };
        if record.control.flags & flag::ACTIVE != 0 {
            self.maps.node_loads.add_active(target.slot.into(), 1);
        }
        flows.publish(back, &FlowRecord { peer: home + 1, ..answer });
        flows.publish(home, &FlowRecord { peer: back + 1, ..record });
        Fate::Installed
    }

    /// The connection's own record, but for where its other half is.
    fn record(&self, connection: &Connection, target: &Target<'_>, state: State, now: u32) -> FlowRecord {
        let source = if connection.source.is_some() { flag::SOURCE_NAT } else { 0 };
        let active = if state.is_active() { flag::ACTIVE } else { 0 };
        let fins = connection.fins & (flag::FIN_CLIENT | flag::FIN_NODE);
        FlowRecord {
            key: key_of(&connection.ends),
            control: Control {
                seen: now.wrapping_sub(connection.idle),
                state: state as u8,
                flags: flag::NAT | source | active | fins,
                generation: target.info.generation,
            },
            node: target.slot,
            virtual_server: target.virtual_server,
            nat_port: connection.port.to_be(),
            timeout: self.timeout(target.virtual_server, state),
            peer: 0,
            created: now.wrapping_sub(connection.age),
        }
    }

    fn timeout(&self, virtual_server: u16, state: State) -> u16 {
        self.maps.timeouts.get(&virtual_server.into(), 0).unwrap_or_default().0[state as usize]
    }

    /// The same connection with another age or state.
    fn refresh(&self, index: u32, found: &FlowRecord, new: &FlowRecord) -> Fate {
        let flows = self.flows();
        if flows.table.exchange_control(index, found.control, new.control) {
            flows.table.set_timeout(index, new.timeout);
            let was = i64::from(found.control.flags & flag::ACTIVE != 0);
            let is = i64::from(new.control.flags & flag::ACTIVE != 0);
            if was != is {
                self.maps.node_loads.add_active(found.node.into(), is - was);
            }
            self.maps.digests.doubt(index);
        }
        Fate::Refreshed
    }

    fn end(&self, ends: &Ends) -> Fate {
        if let Some((index, found)) = self.flows().find(&key_of(ends))
            && found.control.flags & (flag::NAT | flag::REPLY) == flag::NAT
        {
            self.unlink(index, &found);
        }
        Fate::Ended
    }

    /// Frees a connection and its answering half.
    fn unlink(&self, index: u32, record: &FlowRecord) {
        let flows = self.flows();
        let half = half(flows.table, index, record);
        if !flows.free(index, record.control) {
            return;
        }
        if record.control.flags & flag::ACTIVE != 0 && self.is_current(record) {
            self.maps.node_loads.add_active(record.node.into(), -1);
        }
        if let Some((at, control)) = half {
            flows.free(at, control);
        }
    }

    /// Frees an answering half whose connection is gone. Says whether its key is free now.
    fn sweep(&self, index: u32, found: &FlowRecord, now: u32) -> bool {
        if found.control.flags & flag::REPLY == 0 {
            return false;
        }
        let flows = self.flows();
        let connection = found.peer.checked_sub(1).filter(|peer| *peer < flows.table.len());
        let connection = connection.and_then(|at| Some((at, flows.table.snapshot(at)?)));
        match connection.filter(|(_, record)| record.peer == index + 1) {
            Some((_, record)) if !record.is_expired(now) => return false,
            Some((at, record)) => self.unlink(at, &record),
            None => drop(flows.free(index, found.control)),
        }
        flows.find(&found.key).is_none()
    }

    fn is_current(&self, record: &FlowRecord) -> bool {
        let names = self.names.snapshot();
        names.slots.get(&record.node).is_some_and(|info| info.generation == record.control.generation)
    }

    fn client(&self, client: &Client, owned: &Owned) -> Fate {
        let names = self.names.snapshot();
        let Some(server) = names.plan.virtual_servers.get(&client.virtual_server) else { return Fate::Unknown };
        if server.addresses.iter().any(|vip| owned.contains(vip)) {
            return Fate::Owned;
        }
        let Some(target) = slot(&names, &client.virtual_server, |info| info.address == client.node) else {
            return Fate::Unknown;
        };
        let now = now();
        let family = family(client.client);
        let key = FlowKey::from_parts(family, bytes(client.client), [0; 16], target.virtual_server, 0, 0);
        let control = Control {
            seen: now.wrapping_sub(client.idle),
            state: State::Affinity as u8,
            flags: 0,
            generation: target.info.generation,
        };
        let record = FlowRecord {
            key,
            control,
            node: target.slot,
            virtual_server: target.virtual_server,
            timeout: self.timeout(target.virtual_server, State::Affinity),
            created: now,
            ..FlowRecord::default()
        };
        let (table, mask) = (&self.maps.affinity, self.affinity_mask);
        let places = Places { table, digests: None, keys: self.keys, mask };
        if let Some((index, found)) = places.find(&key) {
            if found.node == record.node && places.table.exchange_control(index, found.control, control) {
                return Fate::Refreshed;
            }
            places.free(index, found.control);
        }
        let Some(index) = places.claim(&key, now) else { return Fate::NoRoom };
        places.publish(index, &record);
        Fate::Installed
    }
}

/// The node slot of a connection: of the virtual server that serves its VIP and port, the node with its address.
fn target<'n>(names: &'n Names, connection: &Connection) -> Option<Target<'n>> {
    let server = virtual_server(&names.plan, &connection.ends)?;
    let is_it = |info: &SlotInfo| {
        info.address == connection.node && connection.source.is_none_or(|source| info.source == Some(source))
    };
    slot(names, server, is_it)
}

/// Of several virtual servers the one with the smallest range of ports serves.
fn virtual_server<'p>(plan: &'p Plan, ends: &Ends) -> Option<&'p str> {
    let port = ends.vip.port();
    let width = |ranges: &[(u16, u16)]| {
        let around = ranges.iter().filter(|(first, last)| (*first..=*last).contains(&port));
        around.map(|(first, last)| last - first).min()
    };
    let serving = plan.virtual_servers.iter().filter_map(|(name, server)| {
        let serves = server.protocol.number() == ends.protocol && server.addresses.contains(&ends.vip.ip());
        Some((width(&server.ports).filter(|_| serves)?, name.as_str()))
    });
    serving.min().map(|(_, name)| name)
}

fn slot<'n>(names: &'n Names, server: &str, is_it: impl Fn(&SlotInfo) -> bool) -> Option<Target<'n>> {
    let (id, _) = names.virtual_servers.iter().find(|(_, name)| *name == server)?;
    let (slot, info) = names.slots.iter().find(|(_, info)| info.virtual_server == server && is_it(info))?;
    Some(Target { virtual_server: *id, slot: *slot, info })
}

fn is_same(found: &FlowRecord, new: &FlowRecord) -> bool {
    const HOW: u8 = flag::NAT | flag::SOURCE_NAT | flag::REPLY;
    let how =
        |record: &FlowRecord| (record.node, record.control.generation, record.nat_port, record.control.flags & HOW);
    how(found) == how(new)
}

/// The half that recognises the node's answers.
fn answer(connection: &Connection, target: &Target<'_>, record: &FlowRecord, hop: ClientHop, now: u32) -> FlowRecord {
    let Ends { client, vip, protocol } = connection.ends;
    let mut node = target.info.address;
    if node.port() == 0 {
        node.set_port(vip.port());
    }
    let towards = (connection.source.unwrap_or(client.ip()), connection.port).into();
    let ClientHop(word) = hop;
    let parts = [word, word >> 16, word >> 32, word >> 48].map(|part| part as u16);
    FlowRecord {
        key: key(node, towards, protocol).answering(&record.key),
        control: Control { seen: now, flags: flag::NAT | flag::REPLY, ..record.control },
        node: parts[0],
        virtual_server: parts[1],
        nat_port: parts[2],
        timeout: parts[3],
        peer: 0,
        created: now,
    }
}

/// Where answers go until the client's next packet says so itself.
fn client_hop(connection: &Connection, names: &Names, interfaces: &Interfaces) -> ClientHop {
    let wanted = interfaces.get(&connection.ends.vip.ip());
    let named = names.interfaces.iter().find(|interface| Some(&interface.name) == wanted);
    let slot = named.or(names.interfaces.first()).map_or(0, |interface| interface.slot);
    let [a, b, c, d, e, f] = connection.client_mac;
    ClientHop::new(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]), slot, connection.client_vlan & 0xfff)
}
