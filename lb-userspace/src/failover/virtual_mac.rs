//! Interfaces with virtual MAC addresses (RFC 9568 §7.3, CARP): which are to be made, raised, lowered and deleted, and how the interface
//! below must answer ARP. Pure; part of [`super::vips::Vips`].
//!
//! A virtual MAC address is that of a macvlan that stands on the VIPs' interface: down while this machine is backup, so that it neither
//! answers nor hears, up while it owns. Its mode is `bridge`: in `private` mode the kernel would hide from the interface below what
//! another owner sends to everybody from the same address, and two owners would never hear of each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{announce::Mac, vips::Snapshot};

/// Between two tries to do the same.
const SPACING: Duration = Duration::from_secs(1);

/// With this an interface answers ARP for its own addresses alone, and not for those of the interfaces on it.
const IGNORE: i32 = 1;
/// With this it asks in its own name, and never in that of a VIP with the MAC address of its own.
const ANNOUNCE: i32 = 2;

/// A virtual MAC address on the segment of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtualMac {
    /// Interface that it stands on.
    pub interface: String,
    /// Address.
    pub mac: Mac,
}

/// A macvlan of lbd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualLink {
    /// Kernel index.
    pub index: u32,
    /// Whether it is up.
    pub is_up: bool,
}

/// How an interface deals with ARP for addresses of other interfaces (`net.ipv4.conf.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arp {
    /// `arp_ignore`.
    pub ignore: i32,
    /// `arp_announce`.
    pub announce: i32,
}

impl Arp {
    /// The same where a virtual MAC address stands on the interface.
    fn reserved(self) -> Self {
        Self { ignore: self.ignore.max(IGNORE), announce: self.announce.max(ANNOUNCE) }
    }
}

/// A macvlan to be made, which is down at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLink {
    /// Its address, and the interface that it stands on.
    pub address: VirtualMac,
    /// Index of that interface.
    pub below: u32,
    /// Its name.
    pub name: String,
}

/// What is to be done, in this order; addresses are removed before `delete`, and added after `raise`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChanges {
    /// Indices of macvlans to be set down.
    pub lower: Vec<u32>,
    /// To be deleted.
    pub delete: Vec<u32>,
    /// Interfaces that answer ARP in another way from now on.
    pub arp: Vec<(u32, Arp)>,
    /// To be made.
    pub create: Vec<NewLink>,
    /// To be set up.
    pub raise: Vec<u32>,
}

impl LinkChanges {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The name of the macvlan with this address on the interface with this index: `lbv4-3-42` is virtual router 42. By it lbd knows its own.
#[must_use]
pub fn name(below: u32, mac: Mac) -> String {
    let family = if is_ipv6(mac) { 6 } else { 4 };
    format!("lbv{family}-{below}-{}", mac[5])
}

/// Which address on which interface a macvlan has that lbd has named; `None`: it is somebody else's.
#[must_use]
pub fn of_name(text: &str) -> Option<(u32, Mac)> {
    let (family, rest) = text.strip_prefix("lbv")?.split_once('-')?;
    let (below, id) = rest.split_once('-')?;
    let number = match family {
        "4" => 1,
        "6" => 2,
        _ => return None,
    };
    let found = (below.parse().ok()?, [0, 0, 0x5e, 0, number, id.parse().ok()?]);
    (name(found.0, found.1) == text).then_some(found)
}

fn is_ipv6(mac: Mac) -> bool {
    mac[4] == 2
}

/// All virtual MAC addresses.
#[derive(Debug)]
pub(super) struct VirtualMacs {
    pub(super) wanted: BTreeSet<VirtualMac>,
    /// How interfaces answered before lbd changed it.
    pub(super) arp: BTreeMap<String, Arp>,
    /// When something was last tried.
    tried: BTreeMap<(Todo, (u32, Mac)), Instant>,
}

/// What is to be done with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Todo {
    Create,
    Raise,
    Lower,
    Delete,
}

impl VirtualMacs {
    /// None is wanted; `arp` is what an earlier run recorded.
    pub(super) fn new(arp: BTreeMap<String, Arp>) -> Self {
        Self { wanted: BTreeSet::new(), arp, tried: BTreeMap::new() }
    }

    /// Those that there are to be from now on.
    pub(super) fn want(&mut self, wanted: BTreeSet<VirtualMac>) {
        self.wanted = wanted;
        self.tried.clear();
    }

    /// When something is to be tried again.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.tried.values().min().map(|tried| *tried + SPACING)
    }

    /// What is missing; `up` are those that carry a VIP that is wanted.
    pub(super) fn reconcile(&mut self, snapshot: &Snapshot, up: &BTreeSet<VirtualMac>, now: Instant) -> LinkChanges {
        self.tried.retain(|_, tried| now < *tried + SPACING);
        let key = |address: &VirtualMac| Some((snapshot.links.get(&address.interface)?.index, address.mac));
        let wanted: BTreeMap<(u32, Mac), &VirtualMac> =
            self.wanted.iter().filter_map(|address| Some((key(address)?, address))).collect();
        let todo = |key: &(u32, Mac)| match (wanted.get(key), snapshot.virtuals.get(key)) {
            (Some(_), None) => Some(Todo::Create),
            (None, Some(_)) => Some(Todo::Delete),
            (Some(address), Some(link)) if up.contains(*address) != link.is_up => {
                Some(if link.is_up { Todo::Lower } else { Todo::Raise })
            }
            (Some(_), Some(_)) | (None, None) => None,
        };
        let mut changes = LinkChanges::default();
        let keys: BTreeSet<(u32, Mac)> = wanted.keys().chain(snapshot.virtuals.keys()).copied().collect();
        for key in keys {
            let Some(todo) = todo(&key).filter(|todo| !self.tried.contains_key(&(*todo, key))) else { continue };
            self.tried.insert((todo, key), now);
            let index = snapshot.virtuals.get(&key).map(|link| link.index);
            match todo {
                Todo::Create => changes.create.extend(wanted.get(&key).map(|address| NewLink {
                    address: (*address).clone(),
                    below: key.0,
                    name: name(key.0, key.1),
                })),
                Todo::Raise => changes.raise.extend(index),
                Todo::Lower => changes.lower.extend(index),
                Todo::Delete => changes.delete.extend(index),
            }
        }
        let over_ipv4: BTreeSet<String> = self
            .wanted
            .iter()
            .filter(|address| !is_ipv6(address.mac))
            .map(|address| address.interface.clone())
            .collect();
        changes.arp = self.answer(snapshot, &over_ipv4);
        changes
    }

    /// Lets these interfaces answer for their own addresses alone, and others as they did before.
    fn answer(&mut self, snapshot: &Snapshot, reserved: &BTreeSet<String>) -> Vec<(u32, Arp)> {
        let mut changes = Vec::new();
        let here = |interface: &String| Some((snapshot.links.get(interface)?.index, *snapshot.arp.get(interface)?));
        for interface in reserved {
            let Some((index, arp)) = here(interface) else { continue };
            if arp != arp.reserved() {
                self.arp.entry(interface.clone()).or_insert(arp);
                changes.push((index, arp.reserved()));
            }
        }
        self.arp.retain(|interface, before| {
            if reserved.contains(interface) {
                return true;
            }
            // What somebody has changed since is theirs.
            if let Some((index, arp)) = here(interface)
                && arp == before.reserved()
            {
                changes.push((index, *before));
            }
            false
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::vips::Link;

    const ETH0: Link = Link { index: 3, mac: Some([2, 0, 0, 0, 0, 1]), is_running: true, carrier_ups: 1 };
    const MAC: Mac = [0, 0, 0x5e, 0, 1, 42];

    fn address(mac: Mac) -> VirtualMac {
        VirtualMac { interface: "eth0".into(), mac }
    }

    fn snapshot(virtuals: &[(Mac, VirtualLink)], arp: Arp) -> Snapshot {
        Snapshot {
            links: [("eth0".to_owned(), ETH0)].into(),
            virtuals: virtuals.iter().map(|(mac, link)| ((3, *mac), *link)).collect(),
            arp: [("eth0".to_owned(), arp)].into(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn names_say_whose_an_interface_is() {
        assert_eq!(name(3, MAC), "lbv4-3-42");
        assert_eq!(name(65_535, [0, 0, 0x5e, 0, 2, 255]), "lbv6-65535-255");
        for mac in [MAC, [0, 0, 0x5e, 0, 2, 1], [0, 0, 0x5e, 0, 1, 255]] {
            assert_eq!(of_name(&name(7, mac)), Some((7, mac)));
        }
        for other in ["eth0", "lbv4", "lbv4-3", "lbv5-3-42", "lbv4-3-256", "lbv4-03-42", "lbv4-3-42-1", "vrrp.42"] {
            assert_eq!(of_name(other), None, "{other}");
        }
    }

    #[test]
    fn an_interface_is_made_raised_lowered_and_deleted_and_arp_is_as_it_was() {
        let (mut macs, mut now) = (VirtualMacs::new(BTreeMap::new()), Instant::now());
        let (nothing, up) = (BTreeSet::new(), BTreeSet::from([address(MAC)]));
        let before = Arp { ignore: 0, announce: 1 };
        let reserved = Arp { ignore: 1, announce: 2 };
        macs.want(up.clone());
        let made = macs.reconcile(&snapshot(&[], before), &nothing, now);
        let create = vec![NewLink { address: address(MAC), below: 3, name: "lbv4-3-42".into() }];
        assert_eq!(made, LinkChanges { create, arp: vec![(3, reserved)], ..LinkChanges::default() });
        assert_eq!(macs.arp, [("eth0".to_owned(), before)].into());
        let again = macs.reconcile(&snapshot(&[], reserved), &nothing, now);
        assert!(again.is_empty(), "not at once again: {again:?}");
        assert_eq!(macs.wakeup(), Some(now + SPACING));

        let (down, running) = (VirtualLink { index: 9, is_up: false }, VirtualLink { index: 9, is_up: true });
        assert!(macs.reconcile(&snapshot(&[(MAC, down)], reserved), &nothing, now).is_empty(), "a backup is down");
        now += Duration::from_millis(1);
        let raised = macs.reconcile(&snapshot(&[(MAC, down)], reserved), &up, now);
        assert_eq!(raised, LinkChanges { raise: vec![9], ..LinkChanges::default() });
        macs.want(up.clone());
        let lowered = macs.reconcile(&snapshot(&[(MAC, running)], reserved), &nothing, now);
        assert_eq!(lowered, LinkChanges { lower: vec![9], ..LinkChanges::default() });

        macs.want(nothing.clone());
        let deleted = macs.reconcile(&snapshot(&[(MAC, running)], reserved), &nothing, now);
        assert_eq!(deleted, LinkChanges { delete: vec![9], arp: vec![(3, before)], ..LinkChanges::default() });
        assert_eq!(macs.arp, BTreeMap::new());
    }

    #[test]
    fn what_others_say_of_arp_stays() {
        let (mut macs, now) = (VirtualMacs::new([("eth0".to_owned(), Arp::default())].into()), Instant::now());
        let theirs = Arp { ignore: 2, announce: 0 };
        assert!(macs.reconcile(&snapshot(&[], theirs), &BTreeSet::new(), now).is_empty(), "changed meanwhile");
        assert_eq!(macs.arp, BTreeMap::new());
        macs.want([address(MAC)].into());
        let strict = Arp { ignore: 8, announce: 2 };
        assert_eq!(macs.reconcile(&snapshot(&[], strict), &BTreeSet::new(), now).arp, []);
        assert_eq!(macs.arp, BTreeMap::new(), "nothing was changed, nothing is put back");
        macs.want([address([0, 0, 0x5e, 0, 2, 42])].into());
        assert_eq!(macs.reconcile(&snapshot(&[], Arp::default()), &BTreeSet::new(), now).arp, [], "IPv6 has no ARP");
    }
}
