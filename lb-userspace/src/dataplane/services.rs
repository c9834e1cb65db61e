//! Which keys of `SERVICES` and `PORT_RANGES` a plan needs, and the records that they lead to. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use lb_common::{
    flow::{FAMILY_V4, FAMILY_V6, HashKeys},
    maps::{MAX_RANGED_VIPS, MAX_SERVICES},
    vip::{MAX_PORT_RANGES, PortRange, PortRanges, ServiceKey, VirtualServer, vs_flag},
};

use super::{
    rings::{Layout, RingSpec, effective_weight, scheduler_number},
    slots::address_bytes,
};
use crate::control::plan::{self, Forwarding, OnNodeFailure, Plan, Refusal, Scheduler};

/// A plan that the maps cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServicesError {
    /// Two virtual servers claim the same.
    #[error("virtual server {second:?}: {address} port {port} is already served by {first:?}")]
    Taken {
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
        /// VIP.
        address: IpAddr,
        /// Port.
        port: u16,
    },
    /// Too many port ranges.
    #[error("VIP {address}: more than {MAX_PORT_RANGES} port ranges for one protocol")]
    Ranges {
        /// VIP.
        address: IpAddr,
    },
    /// Too many keys.
    #[error("{wanted} VIPs and ports, {most} fit")]
    Keys {
        /// Needed.
        wanted: usize,
        /// Possible.
        most: u32,
    },
}

/// IPv4 or IPv6: the VIPs and nodes of a virtual server that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// `flow::FAMILY_*`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Family::V4 => FAMILY_V4,
            Family::V6 => FAMILY_V6,
        }
    }
}

/// One record per virtual server and family.
pub type RecordKey = (String, Family);

/// The families that a virtual server has VIPs of.
pub fn families(server: &plan::VirtualServer) -> impl Iterator<Item = Family> + '_ {
    let has = |family: &Family| server.addresses.iter().any(|address| Family::of(*address) == *family);
    [Family::V4, Family::V6].into_iter().filter(has)
}

/// The records that a plan needs.
pub fn record_keys(plan: &Plan) -> impl Iterator<Item = RecordKey> + '_ {
    let servers = plan.virtual_servers.iter();
    servers.flat_map(|(name, server)| families(server).map(|family| (name.clone(), family)))
}

/// The part of a plan whose records are there.
#[must_use]
pub fn recorded(plan: &Plan, index: &BTreeMap<RecordKey, u32>) -> Plan {
    let mut part = plan.clone();
    part.virtual_servers
        .retain(|name, server| families(server).all(|family| index.contains_key(&(name.clone(), family))));
    part
}

/// The keys that a plan needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// `SERVICES` without the VIPs themselves; port 0 with a protocol: the owner of fragments without ports.
    pub services: HashMap<ServiceKey, u32>,
    /// `PORT_RANGES`.
    pub ranges: HashMap<ServiceKey, PortRanges>,
    /// The VIPs themselves: published last, removed first.
    pub vips: HashMap<ServiceKey, u32>,
}

impl Keys {
    /// The records that they lead to, with the family of the key.
    #[must_use]
    pub fn referenced(&self) -> BTreeSet<(Family, u32)> {
        let family = |key: &ServiceKey| if key.family == FAMILY_V4 { Family::V4 } else { Family::V6 };
        let single = self.services.iter().map(|(key, index)| (family(key), *index));
        let ranged =
            self.ranges.iter().flat_map(|(key, ranges)| ranges.ranges.map(|range| (family(key), range.config)));
        single.chain(ranged).filter(|(_, index)| *index != 0).collect()
    }
}

/// The key of a VIP itself.
#[must_use]
pub fn vip_key(address: IpAddr) -> ServiceKey {
    service_key(address, 0, 0)
}

/// The key of a service; port 0: of the port ranges.
#[must_use]
pub fn service_key(address: IpAddr, port: u16, protocol: u8) -> ServiceKey {
    let family = Family::of(address).number();
    ServiceKey { address: address_bytes(address), port, protocol, family, padding: [0; 4] }
}

/// The keys of a plan, each leading to the record that `index` names.
///
/// # Errors
/// When two virtual servers claim the same, or the maps are too small.
pub fn keys(plan: &Plan, index: &BTreeMap<RecordKey, u32>) -> Result<Keys, ServicesError> {
    let mut keys = Keys::default();
    let mut owners: HashMap<(ServiceKey, u16, u16), &str> = HashMap::new();
    let mut ranges: HashMap<ServiceKey, (IpAddr, Vec<PortRange>)> = HashMap::new();
    for (name, server) in &plan.virtual_servers {
        let protocol = server.protocol.number();
        for address in &server.addresses {
            let config = index.get(&(name.clone(), Family::of(*address))).copied().unwrap_or(0);
            keys.vips.insert(vip_key(*address), 0);
            for (first, last) in &server.ports {
                let any = service_key(*address, 0, protocol);
                if let Some(owner) = owners.insert((any, *first, *last), name) {
                    let (first_owner, second, port) = (owner.to_owned(), name.clone(), *first);
                    return Err(ServicesError::Taken { first: first_owner, second, address: *address, port });
                }
                if first == last {
                    keys.services.insert(service_key(*address, *first, protocol), config);
                } else {
                    let range = PortRange { first: *first, last: *last, config };
                    ranges.entry(any).or_insert((*address, Vec::new())).1.push(range);
                }
            }
        }
    }
    keys.services.extend(fragment_owners(plan, index));
    for (key, (address, list)) in ranges {
        keys.ranges.insert(key, sorted(list).ok_or(ServicesError::Ranges { address })?);
    }
    check_size(keys.services.len() + keys.vips.len(), MAX_SERVICES)?;
    check_size(keys.ranges.len(), MAX_RANGED_VIPS)?;
    Ok(keys)
}

/// Fragments without ports, out of order, can be given to a virtual server only when it is the only one of its VIP and
/// protocol, and forwards by DSR: its key has port 0.
fn fragment_owners(plan: &Plan, index: &BTreeMap<RecordKey, u32>) -> HashMap<ServiceKey, u32> {
    let mut owners: HashMap<ServiceKey, Option<u32>> = HashMap::new();
    for (name, server) in &plan.virtual_servers {
        for address in &server.addresses {
            let record = index.get(&(name.clone(), Family::of(*address))).copied().unwrap_or(0);
            let alone = (server.forwarding == Forwarding::Dsr).then_some(record);
            let key = service_key(*address, 0, server.protocol.number());
            owners.entry(key).and_modify(|owner| *owner = None).or_insert(alone);
        }
    }
    owners.into_iter().filter_map(|(key, owner)| Some((key, owner?))).collect()
}

fn check_size(wanted: usize, most: u32) -> Result<(), ServicesError> {
    if wanted > most as usize { Err(ServicesError::Keys { wanted, most }) } else { Ok(()) }
}

/// The smallest range first; `None` when there are too many.
fn sorted(mut list: Vec<PortRange>) -> Option<PortRanges> {
    list.sort_by_key(|range| (range.last - range.first, range.first));
    let mut ranges = PortRanges::default();
    ranges.ranges.get_mut(..list.len())?.copy_from_slice(&list);
    Some(ranges)
}

/// The ring that a virtual server needs for one family, by the slots of its nodes; `None` when no node takes new
/// connections.
#[must_use]
pub fn ring_spec(server: &plan::VirtualServer, slots: &[u16], family: Family) -> Option<RingSpec> {
    let mut members: Vec<_> = server
        .nodes
        .iter()
        .zip(slots)
        .filter(|(node, _)| node.admission == plan::Admission::All && Family::of(node.address.ip()) == family)
        .map(|(node, slot)| lb_common::maglev::Member {
            identity: super::rings::identity(node.address),
            slot: *slot,
            weight: effective_weight(server.scheduler, node.weight),
        })
        .filter(|member| member.weight > 0)
        .collect();
    members.sort_unstable_by_key(|member| (member.identity, member.slot));
    let scheduler = scheduler_number(server.scheduler);
    (!members.is_empty()).then_some(RingSpec { members, scheduler, seed: server.ring_seed })
}

/// The record of a virtual server. `region`: where its ring is and how it is laid out.
#[must_use]
pub fn record(server: &plan::VirtualServer, id: u16, region: Option<(u32, Layout)>) -> VirtualServer {
    let (first, last) = server.source_ports;
    let at = |part: fn(&Layout) -> (u32, u32)| {
        region.map_or((0, 0), |(start, layout)| match part(&layout) {
            (_, 0) => (0, 0),
            (offset, length) => (start + offset, length),
        })
    };
    let (sequence, sequence_len) = at(|layout| (layout.sequence, layout.sequence_len));
    let (members, members_len) = at(|layout| (layout.members, layout.members_len));
    VirtualServer {
        id,
        flags: flags(server),
        scheduler: scheduler_number(server.scheduler),
        affinity_prefix4: server.affinity.map_or(0, |affinity| affinity.prefix4),
        affinity_prefix6: server.affinity.map_or(0, |affinity| affinity.prefix6),
        padding: 0,
        ring: region.map_or(0, |(start, _)| start),
        sequence,
        sequence_len,
        members,
        members_len,
        flood_limit: server.flood_limit,
        nat_port_first: first,
        nat_port_count: last.saturating_sub(first).saturating_add(1),
        ring_keys: HashKeys::from_seed(server.ring_seed).0,
    }
}

fn flags(server: &plan::VirtualServer) -> u16 {
    let forwarding = match server.forwarding {
        Forwarding::Dsr => 0,
        Forwarding::Nat => vs_flag::NAT,
        Forwarding::NatSource => vs_flag::NAT | vs_flag::SOURCE_NAT,
    };
    let when = |condition: bool, flag: u16| if condition { flag } else { 0 };
    let least = matches!(server.scheduler, Scheduler::LeastConnections | Scheduler::WeightedLeastConnections);
    forwarding
        | when(server.on_node_failure == OnNodeFailure::Reset, vs_flag::RESET_ON_FAILURE)
        | when(server.refusal == Refusal::Reset, vs_flag::RESET_UNKNOWN)
        | when(server.affinity.is_some(), vs_flag::AFFINITY)
        | when(least, vs_flag::COUNT_PENDING)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::plan::{Admission, Node, Protocol};
    use lb_common::{conntrack::Timeouts, vip::scheduler};

    /// A virtual server with everything at its simplest.
    pub(crate) fn server(addresses: &[&str], ports: &[(u16, u16)], nodes: &[&str]) -> plan::VirtualServer {
        let node = |(i, address): (usize, &&str)| Node {
            pool: "p".to_owned(),
            name: format!("n{i}"),
            address: address.parse().unwrap(),
            weight: 1,
            admission: Admission::All,
            source_address: None,
        };
        plan::VirtualServer {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            protocol: Protocol::Tcp,
            ports: ports.to_vec(),
            pool: "p".to_owned(),
            forwarding: Forwarding::Nat,
            scheduler: Scheduler::Maglev,
            affinity: None,
            on_node_failure: OnNodeFailure::default(),
            refusal: Refusal::Drop,
            timeouts: Timeouts::default(),
            flood_limit: 10,
            ring_seed: 7,
            source_ports: (1024, 32767),
            nodes: nodes.iter().enumerate().map(node).collect(),
        }
    }

    fn plan(servers: Vec<(&str, plan::VirtualServer)>) -> Plan {
        let virtual_servers = servers.into_iter().map(|(name, server)| (name.to_owned(), server)).collect();
        Plan { virtual_servers, ..Plan::default() }
    }

    #[test]
    fn single_ports_are_services_and_ranges_are_sorted_by_size() {
        let plan = plan(vec![
            ("all", server(&["192.0.2.1"], &[(1, 65535)], &[])),
            ("web", server(&["192.0.2.1", "2001:db8::1"], &[(80, 80), (8000, 8100)], &[])),
        ]);
        let records: Vec<RecordKey> = record_keys(&plan).collect();
        let index: BTreeMap<RecordKey, u32> = records.into_iter().zip(1..).collect();
        assert_eq!(index.len(), 3);
        let keys = keys(&plan, &index).unwrap();
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!((keys.vips.len(), keys.vips.get(&vip_key(v4))), (2, Some(&0)));
        assert_eq!(keys.services.get(&service_key(v4, 80, 6)), Some(&2));
        assert_eq!(keys.services.get(&service_key(v6, 80, 6)), Some(&3));
        let ranges = &keys.ranges[&service_key(v4, 0, 6)].ranges;
        assert_eq!(ranges[0], PortRange { first: 8000, last: 8100, config: 2 });
        assert_eq!(ranges[1], PortRange { first: 1, last: 65535, config: 1 });
        assert_eq!(ranges[2], PortRange::default());
    }

    #[test]
    fn fragments_without_ports_belong_to_the_only_dsr_server_of_a_vip_and_protocol() {
        let dsr = |vip: &str, port| plan::VirtualServer {
            forwarding: Forwarding::Dsr,
            ..server(&[vip], &[(port, port)], &[])
        };
        let plan = plan(vec![
            ("alone", dsr("192.0.2.1", 80)),
            ("nat", server(&["192.0.2.2"], &[(80, 80)], &[])),
            ("one", dsr("192.0.2.3", 80)),
            ("two", dsr("192.0.2.3", 81)),
        ]);
        let index: BTreeMap<RecordKey, u32> = record_keys(&plan).zip(1..).collect();
        let keys = keys(&plan, &index).unwrap();
        let owner = |vip: &str| keys.services.get(&service_key(vip.parse().unwrap(), 0, 6)).copied();
        assert_eq!([owner("192.0.2.1"), owner("192.0.2.2"), owner("192.0.2.3")], [Some(1), None, None]);
    }

    #[test]
    fn what_the_maps_cannot_hold_is_an_error_that_names_it() {
        let both = plan(vec![
            ("a", server(&["192.0.2.1"], &[(80, 80)], &[])),
            ("b", server(&["192.0.2.1"], &[(80, 80)], &[])),
        ]);
        let error = keys(&both, &BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(error, "virtual server \"b\": 192.0.2.1 port 80 is already served by \"a\"");
        let ranges: Vec<(u16, u16)> = (1..=33).map(|i| (i * 10, i * 10 + 1)).collect();
        let many = plan(vec![("a", server(&["192.0.2.1"], &ranges, &[]))]);
        assert!(matches!(keys(&many, &BTreeMap::new()), Err(ServicesError::Ranges { .. })));
    }

    #[test]
    fn the_ring_has_the_nodes_of_its_family_that_take_new_connections_by_identity() {
        let nodes = ["10.0.0.1:80", "[2001:db8::1]:80", "10.0.0.2:80", "10.0.0.3:80"];
        let mut server = server(&["192.0.2.1"], &[(80, 80)], &nodes);
        server.nodes[2].admission = Admission::Tracked;
        let slots = [1, 2, 3, 4];
        let spec = ring_spec(&server, &slots, Family::V4).unwrap();
        let mut found: Vec<u16> = spec.members.iter().map(|member| member.slot).collect();
        assert!(spec.members.is_sorted_by_key(|member| member.identity));
        found.sort_unstable();
        assert_eq!(found, [1, 4]);
        server.nodes.reverse();
        let again = ring_spec(&server, &[4, 3, 2, 1], Family::V4);
        assert_eq!(again.as_ref(), Some(&spec), "the order of nodes does not matter");
        server.nodes.iter_mut().for_each(|node| node.admission = Admission::Nothing);
        assert_eq!(ring_spec(&server, &slots, Family::V4), None);
    }

    #[test]
    fn records_say_what_the_plan_says() {
        let mut server = server(&["192.0.2.1"], &[(80, 80)], &["10.0.0.1:80", "10.0.0.2:80"]);
        server.forwarding = Forwarding::NatSource;
        server.scheduler = Scheduler::WeightedLeastConnections;
        server.on_node_failure = OnNodeFailure::Reset;
        server.affinity = Some(plan::SourceAffinity { prefix4: 24, prefix6: 64, timeout_s: 9 });
        let spec = ring_spec(&server, &[1, 2], Family::V4).unwrap();
        let record = record(&server, 3, Some((100, spec.layout())));
        assert_eq!(
            record.flags,
            vs_flag::NAT | vs_flag::SOURCE_NAT | vs_flag::RESET_ON_FAILURE | vs_flag::AFFINITY | vs_flag::COUNT_PENDING
        );
        assert_eq!((record.id, record.scheduler, record.ring), (3, scheduler::LEAST, 100));
        assert_eq!((record.sequence, record.members, record.members_len), (0, 100 + spec.layout().members, 2));
        assert_eq!((record.nat_port_first, record.nat_port_count), (1024, 31744));
        let none = super::record(&server, 3, None);
        assert_eq!((none.ring, none.members_len, none.sequence_len), (0, 0, 0));
    }
}
