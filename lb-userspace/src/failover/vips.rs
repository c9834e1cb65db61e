//! Which addresses to add, remove and announce: the state of all static VIPs, without a socket or a clock.
//!
//! Driven by `engine`. The state it is given is always whole (what is wanted, what the kernel has), so that a lost
//! notification costs time and nothing else. After it asked for a change of addresses it waits for a new observation.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    RaisedVip, Wanted,
    announce::Mac,
    record::Own,
    routers::Primary,
    virtual_mac::{Arp, LinkChanges, VirtualLink, VirtualMac, VirtualMacs, name},
};

/// How often a VIP that has come up is announced.
const ANNOUNCEMENTS: u8 = 5;

/// Between announcements of a VIP that stays: switches forget an address sooner than neighbours do, and flood from then on.
const REFRESH: Duration = Duration::from_secs(60);

/// Between two announcements, and between two tries to add or remove an address.
const SPACING: Duration = Duration::from_secs(1);

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Hardware address; `None`: not Ethernet, nobody to announce to.
    pub mac: Option<Mac>,
    /// Up, with carrier.
    pub is_running: bool,
    /// How often the carrier came back: tells of a loss too short to be seen.
    pub carrier_ups: u32,
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Interfaces by name.
    pub links: BTreeMap<String, Link>,
    /// Interface index, address and prefix length.
    pub addresses: BTreeSet<(u32, IpAddr, u8)>,
    /// The macvlans of lbd's, which are not among `links`: by the index of the interface that they stand on and their address.
    pub virtuals: BTreeMap<(u32, Mac), VirtualLink>,
    /// How interfaces answer ARP.
    pub arp: BTreeMap<String, Arp>,
}

/// What others want to know of the kernel's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Interfaces that are down or without carrier.
    pub silent: BTreeSet<String>,
    /// Every address of this machine.
    pub own: BTreeSet<IpAddr>,
    /// Addresses that VRRP and CARP speak from, by interface.
    pub primaries: BTreeMap<String, Primary>,
    /// Networks that this machine has an address in.
    pub segments: Vec<Segment>,
    /// Virtual MAC addresses that are up.
    pub virtual_macs: BTreeSet<Mac>,
    /// Why virtual MAC addresses cannot be had, a sentence each.
    pub unmade: Vec<String>,
}

/// A network on an Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the interface.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// This machine's address there.
    pub own: IpAddr,
    /// Length of the network's prefix.
    pub prefix: u8,
}

impl Segment {
    /// Whether an address is of this network.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.own, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// What is to be there.
    Wanted(Wanted),
    /// The state of the kernel, as it is now.
    Observed(Snapshot),
    /// An address asked for was there already: it is not ours.
    WasThere(RaisedVip),
    /// Somebody else may have answered for these VIPs: those that are up are announced anew.
    Announce(BTreeSet<RaisedVip>),
    /// Time has passed.
    Tick,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub vip: RaisedVip,
    /// Index of the interface.
    pub index: u32,
}

/// A VIP to announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Which.
    pub vip: RaisedVip,
    /// Index of the interface.
    pub index: u32,
    /// The hardware address that it is reached at.
    pub mac: Mac,
    /// Name of the interface that has it.
    pub carrier: String,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keep on disk what is ours, before any of it is changed.
    pub record: Option<Own>,
    /// Take down, once virtual MAC addresses are down and before they are deleted.
    pub remove: Vec<Place>,
    /// Virtual MAC addresses.
    pub links: LinkChanges,
    /// Raise.
    pub add: Vec<Place>,
    /// Announce once.
    pub announce: Vec<Announce>,
}

/// All static VIPs.
#[derive(Debug)]
pub struct Vips {
    /// `None`: not said yet, so that nothing is taken down by mistake.
    wanted: Option<BTreeSet<RaisedVip>>,
    /// Added by lbd, now or in an earlier run; what is being added counts.
    ours: BTreeSet<RaisedVip>,
    /// `None`: changes were asked for since, or nothing was observed yet.
    observed: Option<Snapshot>,
    /// When an address was last added or removed.
    tried: BTreeMap<RaisedVip, Instant>,
    announced: BTreeMap<RaisedVip, Announced>,
    macs: VirtualMacs,
}

/// How far the announcements of a VIP have come. Another link state begins them anew.
#[derive(Clone, Copy, Debug)]
struct Announced {
    link: Link,
    mac: Mac,
    left: u8,
    due: Instant,
}

impl Vips {
    /// Nothing is wanted yet; `own` is what an earlier run recorded.
    pub fn new(own: Own) -> Self {
        Self {
            wanted: None,
            ours: own.raised,
            observed: None,
            tried: BTreeMap::new(),
            announced: BTreeMap::new(),
            macs: VirtualMacs::new(own.arp),
        }
    }

    /// Takes one step.
    pub fn apply(&mut self, event: Event, now: Instant) -> Changes {
        let before = self.own();
        match event {
            Event::Wanted(Wanted { vips, virtual_macs }) => {
                self.wanted = Some(vips);
                self.tried.clear();
                self.macs.want(virtual_macs);
            }
            Event::Observed(snapshot) => self.observed = Some(snapshot),
            Event::WasThere(vip) => {
                self.ours.remove(&vip);
            }
            Event::Announce(vips) => {
                for state in self.announced.iter_mut().filter_map(|(vip, state)| vips.contains(vip).then_some(state)) {
                    (state.left, state.due) = (ANNOUNCEMENTS, now);
                }
            }
            Event::Tick => {}
        }
        let mut changes = self.observed.take().map(|snapshot| self.reconcile(snapshot, now)).unwrap_or_default();
        self.announce_due(&mut changes, now);
        changes.record = Some(self.own()).filter(|own| *own != before);
        changes
    }

    fn own(&self) -> Own {
        Own { raised: self.ours.clone(), arp: self.macs.arp.clone() }
    }

    /// When the next [`Event::Tick`] does something.
    pub fn wakeup(&self) -> Option<Instant> {
        let announcement = self.announced.values().filter(|state| state.left > 0).map(|state| state.due).min();
        let retry = self.tried.values().min().map(|tried| *tried + SPACING);
        announcement.into_iter().chain(retry).chain(self.macs.wakeup()).min()
    }

    /// Whether it waits for [`Event::Observed`].
    pub fn is_blind(&self) -> bool {
        self.observed.is_none()
    }

    /// Addresses that are ours.
    pub fn ours(&self) -> &BTreeSet<RaisedVip> {
        &self.ours
    }

    /// Whether the kernel has of this VIP what it should have; `None` while blind.
    pub fn is_settled(&self, vip: &RaisedVip) -> Option<bool> {
        let is_wanted = self.wanted.as_ref().is_some_and(|wanted| wanted.contains(vip));
        self.observed.as_ref().map(|snapshot| if is_wanted { snapshot.has(vip) } else { !self.ours.contains(vip) })
    }

    /// Wanted VIPs whose interface does not exist, as last observed.
    pub fn without_interface(&self) -> impl Iterator<Item = &RaisedVip> {
        let links = self.observed.as_ref().map(|snapshot| &snapshot.links);
        self.wanted.iter().flatten().filter(move |vip| links.is_some_and(|links| !links.contains_key(&vip.interface)))
    }

    fn reconcile(&mut self, snapshot: Snapshot, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let Some(wanted) = &self.wanted else {
            self.observed = Some(snapshot);
            return changes;
        };
        self.tried.retain(|_, tried| now < *tried + SPACING);
        // An address that has left with its interface, or was removed by others after its VIP had gone, is no longer ours.
        self.ours.retain(|vip| {
            snapshot.is_raised(vip) || wanted.contains(vip) && snapshot.links.contains_key(&vip.interface)
        });
        self.announced.retain(|vip, _| wanted.contains(vip) && snapshot.has(vip));
        let up: BTreeSet<VirtualMac> = wanted.iter().filter_map(RaisedVip::virtual_mac).collect();
        changes.links = self.macs.reconcile(&snapshot, &up, now);

        for vip in self.ours.difference(wanted) {
            changes.remove.extend(snapshot.place(vip).filter(|_| !self.tried.contains_key(vip)));
        }
        for vip in wanted {
            let Some(carrier) = snapshot.carrier(vip) else { continue };
            if snapshot.has(vip) {
                note_link(&mut self.announced, vip, carrier, now);
            } else if !self.tried.contains_key(vip) {
                changes.add.push(Place { vip: vip.clone(), index: carrier.index });
            }
        }
        self.ours.extend(changes.add.iter().map(|place| place.vip.clone()));
        let touched = changes.add.iter().chain(&changes.remove).map(|place| (place.vip.clone(), now));
        self.tried.extend(touched);
        if changes.add.is_empty() && changes.remove.is_empty() && changes.links.is_empty() {
            self.observed = Some(snapshot);
        }
        changes
    }

    fn announce_due(&mut self, changes: &mut Changes, now: Instant) {
        for (vip, state) in self.announced.iter_mut().filter(|(_, state)| state.left > 0 && state.due <= now) {
            (state.left, state.due) = match state.left {
                0 | 1 => (1, now + REFRESH),
                more => (more - 1, now + SPACING),
            };
            let (index, mac) = (state.link.index, state.mac);
            // By the interface below: a macvlan that is lowered this moment says nothing any more.
            let carrier = vip.virtual_mac.map_or_else(|| vip.interface.clone(), |mac| name(index, mac));
            changes.announce.push(Announce { vip: vip.clone(), index, mac, carrier });
        }
    }
}

/// Begins the announcements when the VIP has come up, its carrier has come back, or its hardware address is another.
fn note_link(announced: &mut BTreeMap<RaisedVip, Announced>, vip: &RaisedVip, carrier: Carrier, now: Instant) {
    let link = carrier.link;
    let Some(mac) = carrier.mac.filter(|_| link.is_running) else {
        announced.remove(vip);
        return;
    };
    if announced.get(vip).is_none_or(|state| state.link != link) {
        announced.insert(vip.clone(), Announced { link, mac, left: ANNOUNCEMENTS, due: now });
    }
}

impl Snapshot {
    /// What others want to know of it.
    pub fn surroundings(&self) -> Surroundings {
        let silent = self.links.iter().filter(|(_, link)| !link.is_running).map(|(name, _)| name.clone());
        let of = |link: &Link, is_primary: fn(&(u32, IpAddr, u8)) -> bool| {
            let on_link = self.addresses.iter().filter(|(index, _, _)| *index == link.index);
            on_link.filter(|address| is_primary(address)).map(|(_, address, _)| *address).min()
        };
        let primary = |link: &Link| Primary {
            // VIPs have no network with them.
            v4: of(link, |(_, address, prefix)| address.is_ipv4() && *prefix < 32),
            v6: of(link, |(_, address, _)| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())),
        };
        let segment = |&(index, own, prefix): &(u32, IpAddr, u8)| {
            let mac = self.links.values().find(|link| link.index == index)?.mac?;
            (prefix < host_prefix(own)).then_some(Segment { index, mac, own, prefix })
        };
        Surroundings {
            silent: silent.collect(),
            own: self.addresses.iter().map(|(_, address, _)| *address).collect(),
            virtual_macs: self.virtuals.iter().filter(|(_, link)| link.is_up).map(|((_, mac), _)| *mac).collect(),
            primaries: self.links.iter().map(|(name, link)| (name.clone(), primary(link))).collect(),
            segments: self.addresses.iter().filter_map(segment).collect(),
            unmade: Vec::new(),
        }
    }

    /// What carries a VIP; `None`: it is not there.
    fn carrier(&self, vip: &RaisedVip) -> Option<Carrier> {
        let &link = self.links.get(&vip.interface)?;
        let Some(mac) = vip.virtual_mac else { return Some(Carrier { index: link.index, mac: link.mac, link }) };
        let found = self.virtuals.get(&(link.index, mac))?;
        Some(Carrier { index: found.index, mac: Some(mac).filter(|_| found.is_up), link })
    }

    /// The address is on its interface, with whatever prefix.
    fn has(&self, vip: &RaisedVip) -> bool {
        let Some(Carrier { index, .. }) = self.carrier(vip) else { return false };
        let on_link = (index, vip.address, 0)..=(index, vip.address, u8::MAX);
        self.addresses.range(on_link).next().is_some()
    }

    /// The address is on its interface in the form in which lbd raises it.
    fn is_raised(&self, vip: &RaisedVip) -> bool {
        self.place(vip).is_some()
    }

    fn place(&self, vip: &RaisedVip) -> Option<Place> {
        let index = self.carrier(vip)?.index;
        let is_there = self.addresses.contains(&(index, vip.address, host_prefix(vip.address)));
        is_there.then(|| Place { vip: vip.clone(), index })
    }
}

/// An interface that has, or is to have, a VIP.
#[derive(Clone, Copy, Debug)]
struct Carrier {
    index: u32,
    /// The address that the VIP is reached at; `None`: it is not reached.
    mac: Option<Mac>,
    /// The interface on the segment: the same, or the one below.
    link: Link,
}

/// The prefix VIPs are raised with: one address, no route.
pub fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests;
