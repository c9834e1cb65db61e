//! Writes a [`World`] into the maps, as the daemon does: records and rings first, then the keys that lead to them.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, DevMapHash, HashMap, MapData},
};
use lb_common::{
    conntrack::Timeouts,
    flow::{FAMILY_V4, FAMILY_V6, HashKeys, mix64},
    maglev::{CHUNK_SLOTS, Member, RING_CHUNKS, RING_SLOTS, RingChunk, fill, fill_sequence, sequence_len},
    maps::VLAN_WORDS,
    node::{Interface, Node, node_flag},
    vip::{Cursor, PortRange, PortRanges, ServiceKey, VirtualServer, filter, scheduler, vs_flag},
    virtual_router,
};

use super::{
    array, map, take,
    world::{self, BRIDGE_MAC, IFINDEX, IFINDEX2, LB_MAC, LB2_MAC, Mode, SLOT, SLOT2, Server, VIRTUAL_MAC, World},
};
use lb::dataplane::table::Table;

/// Elements of `RINGS` in a rig.
pub(super) const RING_ELEMENTS: u32 = 40 * REGION;
/// Elements that a server's ring, sequence and members take at most.
const REGION: u32 = RING_CHUNKS + 64;

/// The maps that the daemon writes.
pub(super) struct Writer {
    nodes: Table<Node>,
    services: HashMap<MapData, ServiceKey, u32>,
    services_epoch: Array<MapData, u64>,
    port_ranges: HashMap<MapData, ServiceKey, PortRanges>,
    virtual_servers: Array<MapData, VirtualServer>,
    timeouts: Array<MapData, Timeouts>,
    cursors: Array<MapData, Cursor>,
    rings: Array<MapData, RingChunk>,
    filter: Array<MapData, u64>,
    filter_words: Vec<u64>,
    vlans: Array<MapData, u64>,
    lease: Table<u64>,
    leased: HashMap<MapData, ServiceKey, u32>,
}

impl Writer {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let mut interfaces: Array<MapData, Interface> = array(ebpf, "INTERFACES")?;
        for (slot, mac, ifindex) in [(SLOT, LB_MAC, IFINDEX), (SLOT2, LB2_MAC, IFINDEX2)] {
            let interface = Interface { controller_mac: BRIDGE_MAC, ..Interface::with_mac(ifindex, mac) };
            interfaces.set(slot, interface, 0)?;
        }
        let routers: Table<u64> = map(ebpf, "VIRTUAL_ROUTERS", size_of::<u64>())?;
        let [a, b, c, d, e, f] = VIRTUAL_MAC;
        let place = virtual_router::position(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        let (word, bit) = place.context("a virtual router's address")?;
        routers.store(word, 0, 1 << bit);
        // A test run redirects nowhere; the key must exist and lead to some device. Index 1 is the loopback device.
        let mut devices: DevMapHash<MapData> = take(ebpf, "DEVICES")?.try_into()?;
        devices.insert(IFINDEX2, 1, None, 0)?;
        Ok(Self {
            nodes: map(ebpf, "NODES", size_of::<Node>())?,
            services: take(ebpf, "SERVICES")?.try_into()?,
            services_epoch: array(ebpf, "SERVICES_EPOCH")?,
            port_ranges: take(ebpf, "PORT_RANGES")?.try_into()?,
            virtual_servers: array(ebpf, "VIRTUAL_SERVERS")?,
            timeouts: array(ebpf, "TIMEOUTS")?,
            cursors: array(ebpf, "CURSORS")?,
            rings: array(ebpf, "RINGS")?,
            filter: array(ebpf, "FILTER")?,
            filter_words: Vec::new(),
            vlans: array(ebpf, "VLANS")?,
            lease: map(ebpf, "LEASE", size_of::<u64>())?,
            leased: take(ebpf, "LEASED")?.try_into()?,
        })
    }

    pub(super) fn lease(&mut self, until: u64, vips: &[IpAddr]) -> Result<()> {
        self.lease.store(0, 0, until);
        Ok(vips.iter().try_for_each(|vip| self.leased.insert(key(*vip, 0, 0), 0, 0))?)
    }

    pub(super) fn write(&mut self, old: &World, new: &World) -> Result<()> {
        for slot in old.nodes.keys().filter(|slot| !new.nodes.contains_key(slot)) {
            self.nodes.write(u32::from(*slot), &Node::default());
        }
        for server in &new.servers {
            for slot in world_slots(new, server) {
                self.nodes.write(u32::from(slot), &node_value(&new.nodes[&slot], server.id));
            }
            if old.servers.iter().find(|s| s.id == server.id).is_none_or(|s| needs_ring(old, s, new, server)) {
                self.write_ring(new, server)?;
            }
            self.virtual_servers.set(u32::from(server.id), server_value(new, server), 0)?;
            self.timeouts.set(u32::from(server.id), server.timeouts, 0)?;
        }
        self.write_filter(new)?;
        self.write_vlans(new)?;
        self.write_services(old, new)
    }

    fn write_ring(&mut self, world: &World, server: &Server) -> Result<()> {
        let members = members_of(world, server);
        let mut slots = vec![0; RING_CHUNKS as usize * CHUNK_SLOTS];
        let (next, credit) = (&mut vec![0; members.len()], &mut vec![0; members.len()]);
        fill(&mut slots[..RING_SLOTS as usize], &members, server.seed, next, credit);
        let mut sequence = vec![0; sequence_len(&members) as usize];
        fill_sequence(&mut sequence, &members, &mut vec![0; members.len()]);
        ensure!(sequence.len() <= 32 * CHUNK_SLOTS && members.len() <= 32 * CHUNK_SLOTS, "too large for a rig");
        sequence.resize(32 * CHUNK_SLOTS, 0);
        slots.extend(sequence);
        slots.extend(members.iter().map(|member| member.slot));
        for (chunk, part) in (region_of(server)..).zip(slots.chunks(CHUNK_SLOTS)) {
            let mut value = RingChunk::default();
            value.0[..part.len()].copy_from_slice(part);
            self.rings.set(chunk, value, 0)?;
        }
        Ok(())
    }

    fn write_filter(&mut self, world: &World) -> Result<()> {
        let mut words = vec![0u64; 2 * filter::WORDS as usize];
        let mut mark = |base: u32, address: IpAddr| {
            let (word, bit) = position(address);
            words[(base + word) as usize] |= 1 << bit;
        };
        for vip in world.vips() {
            mark(filter::DESTINATION, vip);
        }
        // Records of a server that has gone over to DSR are still answered: every node and source address counts.
        for node in world.nodes.values().filter(|node| node.port != 0) {
            mark(filter::SOURCE, node.address);
            mark(filter::DESTINATION, node.source_address);
        }
        self.filter_words.resize(words.len(), 0);
        for (index, (word, known)) in words.iter().zip(&mut self.filter_words).enumerate() {
            if word != known {
                self.filter.set(index as u32, word, 0)?;
                *known = *word;
            }
        }
        Ok(())
    }

    fn write_vlans(&mut self, world: &World) -> Result<()> {
        for word in 0..VLAN_WORDS {
            let ids = world.vlans.iter().filter(|id| u32::from(**id) / 64 == word);
            let bits = ids.fold(0, |bits, id| bits | 1u64 << (id % 64));
            self.vlans.set(SLOT * VLAN_WORDS + word, bits, 0)?;
        }
        Ok(())
    }

    fn write_services(&mut self, old: &World, new: &World) -> Result<()> {
        let (old, new) = (keys(old), keys(new));
        for (key, _) in old.services.iter().filter(|(key, _)| !new.services.iter().any(|(k, _)| k == key)) {
            self.services.remove(key)?;
        }
        for (key, _) in old.ranges.iter().filter(|(key, _)| !new.ranges.iter().any(|(k, _)| k == key)) {
            self.port_ranges.remove(key)?;
        }
        for (key, ranges) in &new.ranges {
            self.port_ranges.insert(key, ranges, 0)?;
        }
        for (key, index) in &new.services {
            self.services.insert(key, index, 0)?;
        }
        let epoch = self.services_epoch.get(&0, 0)?;
        Ok(self.services_epoch.set(0, epoch + 1, 0)?)
    }

    pub(super) fn reset_cursors(&mut self, world: &World) -> Result<()> {
        for server in &world.servers {
            self.cursors.set(u32::from(server.id), Cursor::default(), 0)?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Keys {
    services: Vec<(ServiceKey, u32)>,
    ranges: Vec<(ServiceKey, PortRanges)>,
}

fn keys(world: &World) -> Keys {
    let mut keys = Keys::default();
    for server in &world.servers {
        let index = u32::from(server.id);
        for vip in &server.vips {
            for port in &server.ports {
                keys.services.push((key(*vip, *port, server.protocol), index));
            }
            if server.owns_fragments {
                keys.services.push((key(*vip, 0, server.protocol), index));
            }
            for (first, last) in &server.ranges {
                let range = PortRange { first: *first, last: *last, config: index };
                let key = key(*vip, 0, server.protocol);
                let at = keys.ranges.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
                    keys.ranges.push((key, PortRanges::default()));
                    keys.ranges.len() - 1
                });
                let ranges = &mut keys.ranges[at].1.ranges;
                let free = ranges.iter().position(|r| r.config == 0).unwrap_or(0);
                ranges[free] = range;
                ranges[..=free].sort_by_key(|r| r.last - r.first);
            }
        }
    }
    keys.services.extend(world.vips().into_iter().map(|vip| (key(vip, 0, 0), 0)));
    keys
}

fn key(address: IpAddr, port: u16, protocol: u8) -> ServiceKey {
    let family = if address.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    ServiceKey { address: sixteen(address), port, protocol, family, padding: [0; 4] }
}

fn sixteen(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    let octets = crate::packet::sum::octets(address);
    bytes[..octets.len()].copy_from_slice(&octets);
    bytes
}

fn position(address: IpAddr) -> (u32, u32) {
    let bytes = sixteen(address);
    let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    match address {
        IpAddr::V4(_) => filter::position4(word(0)),
        IpAddr::V6(_) => filter::position6([word(0), word(4), word(8), word(12)]),
    }
}

/// The identity that a node slot has in rings: some number that is its own.
#[must_use]
pub(crate) fn identity(slot: u16) -> u64 {
    mix64(u64::from(slot) + 1)
}

fn members_of(world: &World, server: &Server) -> Vec<Member> {
    let member = |slot: &u16| Member { identity: identity(*slot), slot: *slot, weight: world.nodes[slot].weight };
    server.members.iter().map(member).collect()
}

fn needs_ring(old: &World, before: &Server, new: &World, server: &Server) -> bool {
    before.seed != server.seed || members_of(old, before) != members_of(new, server)
}

fn region_of(server: &Server) -> u32 {
    u32::from(server.id - 1) * REGION + 1
}

fn world_slots(world: &World, server: &Server) -> BTreeSet<u16> {
    let own = world.nodes.keys().copied().filter(|slot| slot / 8 == server.id);
    own.collect()
}

fn server_value(world: &World, server: &Server) -> VirtualServer {
    let region = region_of(server);
    let flags = [
        (server.mode != Mode::Dsr, vs_flag::NAT),
        (server.mode == Mode::SourceNat, vs_flag::SOURCE_NAT),
        (server.resets_on_failure, vs_flag::RESET_ON_FAILURE),
        (server.resets, vs_flag::RESET_UNKNOWN),
        (server.persistence.is_some(), vs_flag::AFFINITY),
        (server.counts_pending, vs_flag::COUNT_PENDING),
    ];
    let members = members_of(world, server);
    VirtualServer {
        id: server.id,
        flags: flags.iter().filter(|(set, _)| *set).fold(0, |sum, (_, flag)| sum | flag),
        scheduler: server.scheduler,
        affinity_prefix4: server.persistence.unwrap_or(0),
        affinity_prefix6: server.persistence.unwrap_or(0),
        padding: 0,
        ring: if members.is_empty() { 0 } else { region },
        sequence: region + RING_CHUNKS,
        sequence_len: match server.scheduler {
            scheduler::SEQUENCE | scheduler::RANDOM => sequence_len(&members),
            _ => 0,
        },
        members: region + RING_CHUNKS + 32,
        members_len: members.len() as u32,
        flood_limit: server.flood_limit,
        nat_port_first: server.nat_ports.0,
        nat_port_count: server.nat_ports.1,
        ring_keys: HashKeys::from_seed(server.seed).0,
    }
}

fn node_value(node: &world::Node, virtual_server: u16) -> Node {
    let usable = if node.usable { node_flag::USABLE } else { 0 };
    let resolved = if node.resolved { node_flag::RESOLVED } else { 0 };
    Node {
        mac: node.mac,
        flags: usable | resolved | if node.vlan == 0 { 0 } else { node_flag::TAGGED },
        source_mac: node.source_mac,
        mtu: node.mtu,
        ifindex: node.ifindex,
        virtual_server,
        generation: node.generation,
        address: sixteen(node.address),
        source_address: sixteen(node.source_address),
        port: node.port.to_be(),
        vlan: node.vlan,
        padding: [0; 4],
    }
}
