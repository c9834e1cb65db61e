//! Node slots and ids of virtual servers: who has which number in the maps. Pure. The maps themselves keep the names, so a
//! restarted daemon finds every slot and id again ([`Slots::adopt`], [`Ids::adopt`]).
//!
//! A slot belongs to one (virtual server, pool, node, address, port). Given up, its generation is raised at once, so that
//! no flow record of the old node is believed; it is reused last of all free slots.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    maps::{MAX_NODES, MAX_VIRTUAL_SERVERS, NAME_BYTES, Name, NodeNames},
    node::Node,
};

/// A number that could not be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// Too many nodes.
    #[error("{wanted} node slots are needed (one for each node of each virtual server), {} exist", MAX_NODES - 1)]
    Nodes {
        /// How many the plan needs.
        wanted: usize,
    },
    /// Too many virtual servers.
    #[error("{wanted} virtual servers, {} are possible", MAX_VIRTUAL_SERVERS - 1)]
    VirtualServers {
        /// How many the plan needs.
        wanted: usize,
    },
}

/// What a slot is given for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// Virtual server.
    pub virtual_server: String,
    /// Pool.
    pub pool: String,
    /// Node.
    pub node: String,
    /// The node's address; port 0: the packet's stays.
    pub address: SocketAddr,
}

/// A slot in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// For what.
    pub key: SlotKey,
    /// The balancer's address towards the node, where connections with source NAT were or are opened.
    pub source: Option<IpAddr>,
    /// As in the map.
    pub generation: u16,
}

/// What is wanted of a node's slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// For what.
    pub key: SlotKey,
    /// The source address of new connections with source NAT; `None`: there will be none.
    pub source: Option<IpAddr>,
}

/// What an assignment changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The slot of each that was wanted, in that order.
    pub slots: Vec<u16>,
    /// Slots that were given to a new node, counters to be cleared.
    pub taken: Vec<u16>,
    /// Slots that were given up.
    pub released: Vec<u16>,
}

/// All node slots.
#[derive(Clone, Debug)]
pub struct Slots {
    used: BTreeMap<u16, Slot>,
    index: HashMap<SlotKey, u16>,
    /// Free slots with the generation that the next owner gets, the longest-free first.
    free: VecDeque<(u16, u16)>,
}

impl Slots {
    /// No slot in use.
    #[must_use]
    pub fn new() -> Self {
        Self::adopt(std::iter::empty())
    }

    /// The slots as the maps have them; those that are not mentioned are free and new.
    pub fn adopt(entries: impl IntoIterator<Item = (u16, NodeNames, Node)>) -> Self {
        let mut slots = Self { used: BTreeMap::new(), index: HashMap::new(), free: VecDeque::new() };
        let mut generations = BTreeMap::new();
        for (number, names, node) in entries {
            generations.insert(number, node.generation);
            let Some(slot) = slot_of(&names, &node) else { continue };
            // Two slots for one node cannot be, unless a daemon died between two writes: the later one is given up.
            if number != 0 && !slots.index.contains_key(&slot.key) {
                slots.index.insert(slot.key.clone(), number);
                slots.used.insert(number, slot);
            }
        }
        let (never, before): (Vec<u16>, Vec<u16>) = (1..MAX_NODES as u16)
            .filter(|number| !slots.used.contains_key(number))
            .partition(|number| generations.get(number).is_none_or(|generation| *generation == 0));
        let next = |number: u16| (number, generations.get(&number).map_or(1, |generation| generation.wrapping_add(1)));
        slots.free = never.into_iter().chain(before).map(next).collect();
        slots
    }

    /// Gives every wanted node its slot, and takes back the slots of all others. Changes nothing when there are too few.
    ///
    /// A slot whose source address was never set takes the wanted one; another source address needs another slot, because
    /// connections of the old one are still translated by it.
    ///
    /// # Errors
    /// `Nodes`.
    pub fn assign(&mut self, wanted: &[Wanted]) -> Result<Assignment, SlotsError> {
        let kept: Vec<Option<u16>> = wanted.iter().map(|want| self.matching(want)).collect();
        let mut keep: Vec<u16> = kept.iter().flatten().copied().collect();
        keep.sort_unstable();
        if wanted.len() - keep.len() > self.free.len() {
            return Err(SlotsError::Nodes { wanted: wanted.len() });
        }
        let mut assignment = Assignment::default();
        let released: Vec<u16> =
            self.used.keys().copied().filter(|number| keep.binary_search(number).is_err()).collect();
        let mut given_up = Vec::new();
        for number in released {
            given_up.extend(self.release(number));
            assignment.released.push(number);
        }
        for (want, kept) in wanted.iter().zip(kept) {
            let number = match kept {
                Some(number) => number,
                None => self.take(want).ok_or(SlotsError::Nodes { wanted: wanted.len() })?,
            };
            if let Some(slot) = self.used.get_mut(&number)
                && want.source.is_some()
            {
                slot.source = want.source;
            }
            if kept.is_none() {
                assignment.taken.push(number);
            }
            assignment.slots.push(number);
        }
        self.free.extend(given_up);
        Ok(assignment)
    }

    fn matching(&self, want: &Wanted) -> Option<u16> {
        let number = *self.index.get(&want.key)?;
        let has = self.used.get(&number)?.source;
        (has.is_none() || want.source.is_none() || has == want.source).then_some(number)
    }

    fn release(&mut self, number: u16) -> Option<(u16, u16)> {
        let slot = self.used.remove(&number)?;
        self.index.remove(&slot.key);
        Some((number, slot.generation.wrapping_add(1)))
    }

    fn take(&mut self, want: &Wanted) -> Option<u16> {
        let (number, generation) = self.free.pop_front()?;
        self.index.insert(want.key.clone(), number);
        self.used.insert(number, Slot { key: want.key.clone(), source: want.source, generation });
        Some(number)
    }

    /// The slot of a number.
    #[must_use]
    pub fn slot(&self, number: u16) -> Option<&Slot> {
        self.used.get(&number)
    }

    /// All slots in use.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.used.iter().map(|(number, slot)| (*number, slot))
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

fn slot_of(names: &NodeNames, node: &Node) -> Option<Slot> {
    let virtual_server = text(&names.virtual_server)?;
    // The maps do not say the family: an IPv6 address that is all zero after four bytes is no node's.
    let v4 = |bytes: [u8; 16]| bytes[4..].iter().all(|byte| *byte == 0);
    let ip = |bytes: [u8; 16]| {
        if v4(bytes) { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) } else { IpAddr::from(bytes) }
    };
    let address = SocketAddr::new(ip(node.address), u16::from_be(node.port));
    let source = (node.source_address != [0; 16]).then(|| ip(node.source_address));
    let key = SlotKey { virtual_server, pool: text(&names.pool)?, node: text(&names.node)?, address };
    Some(Slot { key, source, generation: node.generation })
}

/// An address as the maps hold it: IPv4 in the first four bytes.
#[must_use]
pub fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A name as the maps hold it; longer ones are cut (the configuration refuses them).
#[must_use]
pub fn name(text: &str) -> Name {
    let mut bytes = [0; NAME_BYTES];
    let length = text.len().min(NAME_BYTES);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    Name(bytes)
}

/// The text of a name in a map; `None` when it is empty.
#[must_use]
pub fn text(name: &Name) -> Option<String> {
    let length = name.0.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    (length > 0).then(|| String::from_utf8_lossy(&name.0[..length]).into_owned())
}

/// Ids of virtual servers.
#[derive(Clone, Debug)]
pub struct Ids {
    used: BTreeMap<String, u16>,
    free: VecDeque<u16>,
}

impl Ids {
    /// The ids as the map of names has them.
    pub fn adopt(entries: impl IntoIterator<Item = (u16, Name)>) -> Self {
        let mut used = BTreeMap::new();
        for (id, name) in entries {
            if let Some(text) = text(&name)
                && id != 0
            {
                used.entry(text).or_insert(id);
            }
        }
        let taken: Vec<u16> = used.values().copied().collect();
        let free = (1..MAX_VIRTUAL_SERVERS as u16).filter(|id| !taken.contains(id)).collect();
        Self { used, free }
    }

    /// Gives every name an id and takes back those of all others. Answers the ids that are new, and those given up.
    ///
    /// # Errors
    /// `VirtualServers`; then nothing is changed.
    pub fn assign<'a>(
        &mut self,
        names: impl Iterator<Item = &'a String> + Clone,
    ) -> Result<(Vec<u16>, Vec<u16>), SlotsError> {
        let missing: Vec<&String> = names.clone().filter(|name| !self.used.contains_key(*name)).collect();
        if missing.len() > self.free.len() {
            return Err(SlotsError::VirtualServers { wanted: names.count() });
        }
        let taken: Vec<u16> = self.free.drain(..missing.len()).collect();
        let gone: Vec<String> = {
            let wanted: std::collections::BTreeSet<&String> = names.collect();
            self.used.keys().filter(|name| !wanted.contains(name)).cloned().collect()
        };
        for (name, id) in missing.into_iter().zip(&taken) {
            self.used.insert(name.clone(), *id);
        }
        let released: Vec<u16> = gone.iter().filter_map(|name| self.used.remove(name)).collect();
        self.free.extend(&released);
        Ok((taken, released))
    }

    /// The id of a virtual server.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<u16> {
        self.used.get(name).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u16)> {
        self.used.iter().map(|(name, id)| (name.as_str(), *id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(node: &str, address: &str, source: Option<&str>) -> Wanted {
        Wanted {
            key: SlotKey {
                virtual_server: "web".to_owned(),
                pool: "p".to_owned(),
                node: node.to_owned(),
                address: address.parse().unwrap(),
            },
            source: source.map(|s| s.parse().unwrap()),
        }
    }

    /// What the maps would hold.
    fn image(slots: &Slots, number: u16) -> (u16, NodeNames, Node) {
        let slot = slots.slot(number).unwrap();
        let names = NodeNames {
            virtual_server: name(&slot.key.virtual_server),
            pool: name(&slot.key.pool),
            node: name(&slot.key.node),
        };
        let node = Node {
            address: address_bytes(slot.key.address.ip()),
            port: slot.key.address.port().to_be(),
            source_address: slot.source.map_or([0; 16], address_bytes),
            generation: slot.generation,
            ..Node::default()
        };
        (number, names, node)
    }

    #[test]
    fn the_same_node_keeps_its_slot_and_a_changed_address_gets_another() {
        let mut slots = Slots::new();
        let first = slots.assign(&[want("a", "10.0.0.1:80", None), want("b", "10.0.0.2:80", None)]).unwrap();
        assert_eq!((first.slots.as_slice(), first.released.len()), (&[1, 2][..], 0));
        let second = slots.assign(&[want("b", "10.0.0.2:80", None), want("a", "10.0.0.9:80", None)]).unwrap();
        assert_eq!(second, Assignment { slots: vec![2, 3], taken: vec![3], released: vec![1] });
    }

    #[test]
    fn a_slot_is_reused_last_and_with_a_raised_generation() {
        let mut slots = Slots::new();
        slots.assign(&[want("a", "10.0.0.1:80", None)]).unwrap();
        let generation = slots.slot(1).unwrap().generation;
        slots.assign(&[]).unwrap();
        for round in 0..MAX_NODES - 2 {
            let address = format!("10.1.{}.{}:80", round >> 8, round & 255);
            let slot = slots.assign(&[want("b", &address, None)]).unwrap().slots[0];
            assert_ne!(slot, 1);
        }
        assert_eq!(slots.assign(&[want("c", "10.2.0.1:80", None)]).unwrap().slots, [1]);
        assert_eq!(slots.slot(1).unwrap().generation, generation + 1);
    }

    #[test]
    fn a_source_address_is_added_in_place_and_replaced_in_another_slot() {
        let mut slots = Slots::new();
        slots.assign(&[want("a", "10.0.0.1:80", None)]).unwrap();
        let added = slots.assign(&[want("a", "10.0.0.1:80", Some("10.0.0.254"))]).unwrap();
        assert_eq!((added.slots.as_slice(), added.taken.len()), (&[1][..], 0));
        slots.assign(&[want("a", "10.0.0.1:80", None)]).unwrap();
        assert_eq!(slots.slot(1).unwrap().source, Some("10.0.0.254".parse().unwrap()), "old connections need it");
        let replaced = slots.assign(&[want("a", "10.0.0.1:80", Some("10.0.0.253"))]).unwrap();
        assert_eq!(replaced, Assignment { slots: vec![2], taken: vec![2], released: vec![1] });
    }

    #[test]
    fn what_the_maps_hold_is_found_again() {
        let wanted = [
            want("a", "10.0.0.1:80", Some("10.0.0.254")),
            want("b", "[2001:db8::1]:0", None),
            want("c", "10.0.0.3:1", None),
        ];
        let mut slots = Slots::new();
        slots.assign(&wanted).unwrap();
        slots.assign(&wanted[..2]).unwrap();
        let freed = (3, NodeNames::default(), Node { generation: 2, ..Node::default() });
        let mut adopted = Slots::adopt([image(&slots, 1), image(&slots, 2), freed]);
        let again = adopted.assign(&wanted[..2]).unwrap();
        assert_eq!(again, Assignment { slots: vec![1, 2], taken: vec![], released: vec![] });
        assert_eq!(adopted.assign(&wanted).unwrap().slots, [1, 2, 4], "a slot used before comes last");
    }

    #[test]
    fn too_many_nodes_change_nothing() {
        let mut slots = Slots::new();
        slots.assign(&[want("a", "10.0.0.1:80", None)]).unwrap();
        let many: Vec<Wanted> = (0..MAX_NODES).map(|i| want(&i.to_string(), "10.0.0.2:80", None)).collect();
        assert!(slots.assign(&many).is_err());
        assert_eq!(slots.slot(1).unwrap().key.node, "a");
    }

    #[test]
    fn ids_stay_with_their_names_across_a_restart() {
        let (web, dns) = ("web".to_owned(), "dns".to_owned());
        let mut ids = Ids::adopt([(5, name("web"))]);
        assert_eq!(ids.assign([&web, &dns].into_iter()), Ok((vec![1], vec![])));
        assert_eq!((ids.id("web"), ids.id("dns")), (Some(5), Some(1)));
        assert_eq!(ids.assign([&dns].into_iter()), Ok((vec![], vec![5])));
        assert_eq!(ids.id("web"), None);
    }
}
