//! Writing a plan into the maps as a difference to what stands there. [`Tables`] is the one writer; it knows what the maps
//! hold, because it read them when they were adopted and wrote everything since.
//!
//! Order: nodes and names, then filter bits, then rings and records into free places, then keys are switched to the new
//! records, then what no key leads to any more is given back. No packet sees a half-written virtual server.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use aya::{maps::MapError, maps::PerCpuValues, util::nr_cpus};
use lb_common::{
    conntrack::Timeouts,
    maps::{Name, NodeNames},
    node::NodeLoad,
    vip::{Cursor, ServiceKey},
};

use super::{
    filter::Filter,
    maps::{Maps, MapsError, Writer},
    records::Records,
    services::{self, Keys, ServicesError},
    slots::{Assignment, Ids, SlotKey, Slots, SlotsError, Wanted, name},
};
use crate::control::plan::{self, Forwarding, Plan};

/// Why a plan could not be written. `Slots`, `Services` and `Rings`: nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Not enough node slots or ids.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// Keys that contradict each other, or too many.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// No room for the rings.
    #[error(
        "the rings of {virtual_servers} virtual servers (IPv4 and IPv6 counted apart) need {needed} elements, {capacity} exist: set [dataplane] max_rings and make the data path anew (on_stop = \"withdraw\", then restart lbd)"
    )]
    Rings {
        /// Virtual servers, by family.
        virtual_servers: usize,
        /// Elements of `RINGS`.
        needed: u64,
        /// How many there are.
        capacity: u32,
    },
    /// A map could not be opened.
    #[error(transparent)]
    Open(#[from] MapsError),
    /// The kernel refused a write; the maps are read anew before the next one.
    #[error("map {map}: {source}")]
    Map {
        /// Map.
        map: &'static str,
        /// Why.
        source: MapError,
    },
}

pub(super) fn failed(map: &'static str) -> impl Fn(MapError) -> ApplyError {
    move |source| ApplyError::Map { map, source }
}

/// A node of the plan and its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedNode {
    /// Slot.
    pub slot: u16,
    /// Id of the virtual server.
    pub virtual_server: u16,
    /// Address.
    pub address: IpAddr,
    /// What it takes.
    pub admission: plan::Admission,
    /// Whether it must be on a directly connected network (DSR).
    pub on_link_only: bool,
    /// Source NAT: where our address towards it comes from.
    pub source: Source,
}

/// Where the source address of source NAT comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// There is none: the node sees the client.
    Client,
    /// The plan names it.
    Plan,
    /// The route to the node.
    Route,
}

/// What an application did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rings that were built.
    pub rings_built: usize,
    /// Records of virtual servers that were written.
    pub records_written: usize,
    /// Node slots given to new nodes.
    pub slots_taken: usize,
    /// Node slots given back.
    pub slots_released: usize,
    /// Interfaces whose program was attached or replaced.
    pub interfaces: Vec<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// The maps as their one writer knows them.
#[derive(Debug)]
pub(super) struct Tables {
    maps: Arc<Maps>,
    writer: Writer,
    slots: Slots,
    ids: Ids,
    records: Records,
    keys: Keys,
    filter: Filter,
    timeouts: HashMap<u16, Timeouts>,
    /// Slots that have or may have translated connections, whatever the plan says now.
    translated: BTreeSet<u16>,
}

impl Tables {
    /// Reads what stands in the maps.
    pub(super) fn adopt(maps: Arc<Maps>, writer: Writer) -> Result<Self, ApplyError> {
        let names = array(&maps.virtual_server_names, "VIRTUAL_SERVER_NAMES")?;
        let slot_names = array(&maps.node_names, "NODE_NAMES")?;
        let nodes = (0u16..).zip(slot_names).map(|(slot, names)| (slot, names, maps.nodes.read(u32::from(slot))));
        let slots = Slots::adopt(nodes);
        let filter = Filter::from_words(array(&maps.filter, "FILTER")?);
        let translated =
            slots.iter().filter(|(_, slot)| filter.has_source(slot.key.address.ip())).map(|(slot, _)| slot).collect();
        let keys = read_keys(&maps)?;
        Ok(Self {
            ids: Ids::adopt((0u16..).zip(names.iter().copied())),
            records: Records::adopt(Arc::clone(&maps), &keys, &names)?,
            timeouts: HashMap::new(),
            maps,
            writer,
            slots,
            keys,
            filter,
            translated,
        })
    }

    /// Reads the maps again, after a write failed half-way.
    pub(super) fn read_again(&mut self) -> Result<(), ApplyError> {
        let writer = Writer::open(&self.maps.directory)?;
        *self = Self::adopt(Arc::clone(&self.maps), writer)?;
        Ok(())
    }

    /// Names of virtual servers by id.
    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Node slots.
    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Whether a plan can be written at all. Changes nothing.
    ///
    /// # Errors
    /// Every [`ApplyError`] but `Map` and `Open`.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), ApplyError> {
        services::keys(plan, &BTreeMap::new())?;
        self.records.check(plan)?;
        self.ids.clone().assign(plan.virtual_servers.keys())?;
        self.slots.clone().assign(&wanted(plan, |_| None))?;
        Ok(())
    }

    /// Writes a plan that was checked. `source`: our address towards a node, where the plan names none. `before_switch` brings nodes that
    /// gained something up to date; the caller does the same for those that lost something afterwards.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub(super) fn apply(
        &mut self,
        plan: &Plan,
        source: impl Fn(IpAddr) -> Option<IpAddr>,
        before_switch: impl FnOnce(&Slots, &[PlannedNode]),
    ) -> Result<(Applied, Vec<PlannedNode>), ApplyError> {
        let mut ids = self.ids.clone();
        let (new_ids, old_ids) = ids.assign(plan.virtual_servers.keys())?;
        let assignment = self.slots.assign(&wanted(plan, source))?;
        self.ids = ids;

        self.write_new_slots(&assignment)?;
        self.write_new_ids(&new_ids)?;
        self.write_timeouts(plan)?;
        let nodes = self.planned(plan, &assignment);
        self.write_weights(plan, &nodes);
        before_switch(&self.slots, &nodes);

        let mut applied = Applied {
            slots_taken: assignment.taken.len(),
            slots_released: assignment.released.len(),
            ..Applied::default()
        };
        let filter = self.wanted_filter(plan, &nodes);
        self.write_filter(self.filter.union(&filter))?;
        self.write_servers(plan, &nodes, &mut applied)?;
        self.write_filter(filter)?;
        self.clear_slots(&assignment.released)?;
        for id in old_ids {
            self.timeouts.remove(&id);
            let names = &mut self.writer.virtual_server_names;
            names.set(u32::from(id), Name::default(), 0).map_err(failed("VIRTUAL_SERVER_NAMES"))?;
        }
        Ok((applied, nodes))
    }

    /// Rings, records, and the keys that lead to them: at once, or in turns when there is no room for all rings beside those
    /// that they replace.
    fn write_servers(&mut self, plan: &Plan, nodes: &[PlannedNode], applied: &mut Applied) -> Result<(), ApplyError> {
        loop {
            let written = self.records.write(&mut self.writer, plan, &self.ids, nodes, applied)?;
            let index = self.records.index();
            let keys = if written.is_whole {
                services::keys(plan, &index)?
            } else {
                let mut keys = services::keys(&services::recorded(plan, &index), &index)?;
                // No address is given to the host's stack while its virtual servers wait.
                keys.vips.extend(&self.keys.vips);
                keys
            };
            self.switch_keys(keys)?;
            self.records.give_back(written.leftover);
            if written.is_whole {
                return Ok(());
            }
            self.records.wait_for_room()?;
        }
    }

    /// Every node of the plan with its slot, in the plan's order.
    fn planned(&self, plan: &Plan, assignment: &Assignment) -> Vec<PlannedNode> {
        let nodes = plan.virtual_servers.iter().flat_map(|(name, server)| {
            let id = self.ids.id(name).unwrap_or(0);
            server.nodes.iter().map(move |node| (id, server.forwarding, node))
        });
        nodes
            .zip(&assignment.slots)
            .map(|((virtual_server, forwarding, node), slot)| PlannedNode {
                slot: *slot,
                virtual_server,
                address: node.address.ip(),
                admission: node.admission,
                on_link_only: forwarding == Forwarding::Dsr,
                source: match (forwarding, node.source_address) {
                    (Forwarding::Dsr | Forwarding::Nat, _) => Source::Client,
                    (Forwarding::NatSource, Some(_)) => Source::Plan,
                    (Forwarding::NatSource, None) => Source::Route,
                },
            })
            .collect()
    }

    fn write_new_slots(&mut self, assignment: &Assignment) -> Result<(), ApplyError> {
        for number in &assignment.taken {
            let (Some(slot), index) = (self.slots.slot(*number), u32::from(*number)) else { continue };
            self.translated.remove(number);
            self.maps.nodes.store(index, 0, 0);
            self.maps.node_loads.write(index, &NodeLoad::default());
            self.writer.node_stats.set(index, zeros("NODE_STATS")?, 0).map_err(failed("NODE_STATS"))?;
            let SlotKey { virtual_server, pool, node, .. } = &slot.key;
            let names = NodeNames { virtual_server: name(virtual_server), pool: name(pool), node: name(node) };
            self.writer.node_names.set(index, names, 0).map_err(failed("NODE_NAMES"))?;
        }
        Ok(())
    }

    /// Makes given-up slots unusable: no flow record of their generation is believed any more.
    fn clear_slots(&mut self, released: &[u16]) -> Result<(), ApplyError> {
        for number in released {
            let index = u32::from(*number);
            let node = self.maps.nodes.read(index);
            let next = lb_common::node::Node { generation: node.generation.wrapping_add(1), flags: 0, ..node };
            super::nodes::write(&self.maps.nodes, index, &next);
            self.writer.node_names.set(index, NodeNames::default(), 0).map_err(failed("NODE_NAMES"))?;
            self.translated.remove(number);
        }
        Ok(())
    }

    fn write_new_ids(&mut self, new: &[u16]) -> Result<(), ApplyError> {
        for (text, id) in self.ids.iter().filter(|(_, id)| new.contains(id)) {
            let index = u32::from(id);
            let writer = &mut self.writer;
            writer.cursors.set(index, Cursor::default(), 0).map_err(failed("CURSORS"))?;
            writer.flood.set(index, zeros("FLOOD")?, 0).map_err(failed("FLOOD"))?;
            writer.virtual_server_names.set(index, name(text), 0).map_err(failed("VIRTUAL_SERVER_NAMES"))?;
        }
        Ok(())
    }

    fn write_timeouts(&mut self, plan: &Plan) -> Result<(), ApplyError> {
        for (text, server) in &plan.virtual_servers {
            let Some(id) = self.ids.id(text) else { continue };
            if self.timeouts.get(&id) != Some(&server.timeouts) {
                self.writer.timeouts.set(u32::from(id), server.timeouts, 0).map_err(failed("TIMEOUTS"))?;
                self.timeouts.insert(id, server.timeouts);
            }
        }
        Ok(())
    }

    fn write_weights(&self, plan: &Plan, nodes: &[PlannedNode]) {
        let weights = plan.virtual_servers.values().flat_map(|server| {
            server.nodes.iter().map(|node| super::rings::effective_weight(server.scheduler, node.weight))
        });
        for (node, weight) in nodes.iter().zip(weights) {
            self.maps.node_loads.set_weight(u32::from(node.slot), u64::from(weight));
        }
    }

    /// The bits that the plan and the connections that are left of earlier plans need.
    fn wanted_filter(&mut self, plan: &Plan, nodes: &[PlannedNode]) -> Filter {
        self.translated.extend(nodes.iter().filter(|node| !node.on_link_only).map(|node| node.slot));
        let mut filter = Filter::empty();
        for address in plan.virtual_servers.values().flat_map(|server| &server.addresses) {
            filter.insert_destination(*address);
        }
        for (number, slot) in self.slots.iter() {
            if let Some(source) = slot.source {
                filter.insert_destination(source);
            }
            if self.translated.contains(&number) {
                filter.insert_source(slot.key.address.ip());
            }
        }
        filter
    }

    /// Forgets which slots may have translated connections, but for those named and those that the plan translates.
    pub(super) fn keep_translated(
        &mut self,
        in_use: &BTreeSet<u16>,
        plan: &Plan,
        nodes: &[PlannedNode],
    ) -> Result<(), ApplyError> {
        self.translated.retain(|slot| in_use.contains(slot));
        let filter = self.wanted_filter(plan, nodes);
        self.write_filter(filter)
    }

    fn write_filter(&mut self, target: Filter) -> Result<(), ApplyError> {
        for (word, value) in self.filter.changes(&target) {
            self.writer.filter.set(word, value, 0).map_err(failed("FILTER"))?;
        }
        self.filter = target;
        Ok(())
    }

    /// Switches the keys, and says so to the data path, whatever comes of it: it remembers what it found.
    fn switch_keys(&mut self, target: Keys) -> Result<(), ApplyError> {
        let switched = self.write_keys(&target);
        let epoch = &mut self.writer.services_epoch;
        let next = epoch.get(&0, 0).map_err(failed("SERVICES_EPOCH"))?.wrapping_add(1);
        epoch.set(0, next, 0).map_err(failed("SERVICES_EPOCH"))?;
        switched?;
        self.keys = target;
        Ok(())
    }

    fn write_keys(&mut self, target: &Keys) -> Result<(), ApplyError> {
        let services = &mut self.writer.services;
        let ranges = &mut self.writer.port_ranges;
        for key in gone(&self.keys.vips, &target.vips) {
            services.remove(key).map_err(failed("SERVICES"))?;
        }
        for (key, value) in changed(&self.keys.services, &target.services) {
            services.insert(key, value, 0).map_err(failed("SERVICES"))?;
        }
        for (key, value) in changed(&self.keys.ranges, &target.ranges) {
            ranges.insert(key, value, 0).map_err(failed("PORT_RANGES"))?;
        }
        for key in gone(&self.keys.services, &target.services) {
            services.remove(key).map_err(failed("SERVICES"))?;
        }
        for key in gone(&self.keys.ranges, &target.ranges) {
            ranges.remove(key).map_err(failed("PORT_RANGES"))?;
        }
        for (key, value) in changed(&self.keys.vips, &target.vips) {
            services.insert(key, value, 0).map_err(failed("SERVICES"))?;
        }
        Ok(())
    }
}

/// What every node of the plan needs of its slot.
fn wanted(plan: &Plan, source: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<Wanted> {
    let nodes =
        plan.virtual_servers.iter().flat_map(|(name, server)| server.nodes.iter().map(move |n| (name, server, n)));
    nodes
        .map(|(name, server, node)| Wanted {
            key: SlotKey {
                virtual_server: name.clone(),
                pool: node.pool.clone(),
                node: node.name.clone(),
                address: node.address,
            },
            source: match server.forwarding {
                Forwarding::NatSource => node.source_address.or_else(|| source(node.address.ip())),
                Forwarding::Dsr | Forwarding::Nat => None,
            },
        })
        .collect()
}

fn array<V: aya::Pod>(map: &aya::maps::Array<aya::maps::MapData, V>, name: &'static str) -> Result<Vec<V>, ApplyError> {
    (0..map.len()).map(|index| map.get(&index, 0)).collect::<Result<_, _>>().map_err(failed(name))
}

fn read_keys(maps: &Maps) -> Result<Keys, ApplyError> {
    let mut keys = Keys::default();
    for entry in maps.services.iter() {
        let (key, index) = entry.map_err(failed("SERVICES"))?;
        let vip = key.port == 0 && key.protocol == 0;
        if vip { &mut keys.vips } else { &mut keys.services }.insert(key, index);
    }
    for entry in maps.port_ranges.iter() {
        let (key, ranges) = entry.map_err(failed("PORT_RANGES"))?;
        keys.ranges.insert(key, ranges);
    }
    Ok(keys)
}

fn gone<'a, V>(
    before: &'a HashMap<ServiceKey, V>,
    after: &'a HashMap<ServiceKey, V>,
) -> impl Iterator<Item = &'a ServiceKey> {
    before.keys().filter(|key| !after.contains_key(*key))
}

fn changed<'a, V: PartialEq>(
    before: &'a HashMap<ServiceKey, V>,
    after: &'a HashMap<ServiceKey, V>,
) -> impl Iterator<Item = (&'a ServiceKey, &'a V)> {
    after.iter().filter(|(key, value)| before.get(*key) != Some(*value))
}

/// Zero on every possible CPU.
pub(super) fn zeros<V: aya::Pod + Default>(map: &'static str) -> Result<PerCpuValues<V>, ApplyError> {
    nr_cpus()
        .map_err(|(_, error)| error)
        .and_then(|count| PerCpuValues::try_from(vec![V::default(); count]))
        .map_err(|error| ApplyError::Map { map, source: MapError::IoError(error) })
}
