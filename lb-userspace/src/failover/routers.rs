//! VIP groups that are shared with VRRP or CARP routers: this machine's part in all of them, as one pure state.
//!
//! Owns an [`Advertiser`] for each group and what is known of packets of protocol 112. Packets, commands and time go in;
//! packets, addresses to raise and lower, announcements and incidents come out. What is this machine's own, malformed, forged or
//! of a foreign group is counted before any state machine sees it, so that none of it moves a timer. No socket, clock or
//! randomness; driven by `cluster::thread` beside the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{
    advertiser::{Advertiser, Event, Offer, Settings},
    announce::Mac,
    carp,
    cluster::{GroupStatus, Incident},
    election::{Alarm, Changes, Role},
    vrrp::{self, Checksum, Version},
};

mod member;
#[cfg(test)]
mod tests;

use self::member::Member;

/// A group as this machine takes part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Name of the VIP group.
    pub name: String,
    /// Interface that it speaks on.
    pub interface: String,
    /// The VIPs, all of one family.
    pub addresses: Vec<IpAddr>,
    /// What it speaks.
    pub speaks: Speaks,
    /// How it takes part.
    pub settings: Settings,
    /// Routers that are believed; empty: all on the segment.
    pub peers: BTreeSet<IpAddr>,
    /// Whether advertisements go to these alone, and not to the multicast group.
    pub unicast: bool,
    /// Whether the VIPs are reached at the virtual router's MAC address, which advertisements come from, too.
    pub virtual_mac: bool,
}

/// A protocol and what its packets need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// VRRP.
    Vrrp {
        /// Version.
        version: Version,
        /// Virtual router id.
        vrid: u8,
        /// What the checksum of version 3 over IPv4 covers in what is sent.
        checksum: Checksum,
    },
    /// CARP.
    Carp {
        /// Virtual host id.
        vhid: u8,
        /// Passphrase.
        passphrase: Vec<u8>,
    },
}

/// An advertisement to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// By this interface.
    pub interface: String,
    /// From this address of it.
    pub source: IpAddr,
    /// To a router, or all of them.
    pub destination: IpAddr,
    /// What follows the IP header.
    pub payload: Vec<u8>,
    /// The MAC address that it comes from; `None`: the interface's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_mac: Option<Mac>,
}

/// A packet of protocol 112 that came.
#[derive(Clone, Copy, Debug)]
pub struct Received<'p> {
    /// By this interface.
    pub interface: &'p str,
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What follows the IP header.
    pub payload: &'p [u8],
}

/// What is to be done, in the order of the fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Groups whose addresses are to be raised.
    pub raise: Vec<String>,
    /// Advertisements.
    pub send: Vec<Packet>,
    /// Groups whose addresses are to be announced.
    pub announce: Vec<String>,
    /// Groups whose addresses are to be taken down.
    pub lower: Vec<String>,
    /// What happened.
    pub incidents: Vec<Incident>,
}

/// What was counted of packets of protocol 112 since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Advertisements that were believed.
    pub heard: u64,
    /// This machine's own that came back.
    pub looped_back: u64,
    /// Those of groups that are not configured here: normal on a segment with others.
    pub foreign: u64,
    /// Those of routers that are not among the peers.
    pub strangers: u64,
    /// Wrong checksum, length, TTL or version.
    pub malformed: u64,
    /// Wrong authentication (CARP), or another interval (VRRP version 2).
    pub forged: u64,
    /// Those that name other VIPs than are configured here; they are believed.
    pub other_addresses: u64,
}

/// Own addresses of an interface: where advertisements come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Primary {
    /// IPv4.
    pub v4: Option<IpAddr>,
    /// IPv6, link-local.
    pub v6: Option<IpAddr>,
}

/// All groups.
#[derive(Debug, Default)]
pub struct Routers {
    members: BTreeMap<String, Member>,
    /// Every address of this machine.
    own: BTreeSet<IpAddr>,
    primaries: BTreeMap<String, Primary>,
    counters: Counters,
    fault: Option<String>,
    in_maintenance: bool,
    /// First counter of CARP advertisements.
    seed: u64,
    /// Groups that the program before in this process owned, and nobody could take: they are owned from the start.
    resumes: BTreeSet<String>,
}

impl Routers {
    /// No group yet; `seed` is random. `resumes` are owned from the start.
    #[must_use]
    pub fn new(seed: u64, resumes: BTreeSet<String>) -> Self {
        Self { seed, resumes, ..Self::default() }
    }

    /// When [`Self::tick`] is due; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.members.values().filter_map(|member| member.advertiser.as_ref()?.deadline()).min()
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Interfaces that packets are to be heard on, with whether for IPv6.
    #[must_use]
    pub fn interfaces(&self) -> BTreeSet<(String, bool)> {
        let of = |member: &Member| (member.router.interface.clone(), member.router.is_ipv6());
        self.members.values().map(of).collect()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Output {
        let mut output = Output::default();
        self.all(&Event::Tick, &mut output, now);
        output
    }

    /// The groups from now on. Those that stay are not touched.
    pub fn configure(&mut self, routers: Vec<Router>, now: Instant) -> Output {
        let mut output = Output::default();
        let names: BTreeSet<&String> = routers.iter().map(|router| &router.name).collect();
        let gone: Vec<String> = self.members.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            self.step(&name, Event::Stop, &mut output, now);
            self.members.remove(&name);
        }
        for router in routers {
            match self.members.get_mut(&router.name) {
                Some(member) if member.router.differs_by_settings_alone(&router) => {
                    let (name, settings) = (router.name.clone(), router.settings);
                    member.router = router;
                    self.step(&name, Event::Configured(settings), &mut output, now);
                }
                Some(member) if member.router == router => {}
                found => {
                    if found.is_some() {
                        self.step(&router.name, Event::Stop, &mut output, now);
                    }
                    self.members.insert(router.name.clone(), Member::new(router, self.seed, now));
                }
            }
        }
        self.find_sources(&mut output, now);
        output
    }

    /// The addresses of this machine, and those that advertisements come from.
    pub fn addressed(&mut self, own: BTreeSet<IpAddr>, primaries: BTreeMap<String, Primary>, now: Instant) -> Output {
        let mut output = Output::default();
        (self.own, self.primaries) = (own, primaries);
        self.find_sources(&mut output, now);
        output
    }

    /// A packet of protocol 112 came.
    pub fn receive(&mut self, packet: Received<'_>, now: Instant) -> Output {
        let mut output = Output::default();
        // A machine that stood still looks at the time before it believes what piled up meanwhile.
        self.all(&Event::Tick, &mut output, now);
        if self.own.contains(&packet.source) {
            self.counters.looped_back += 1;
            for name in self.speaking_on(packet.interface) {
                output.incidents.push(Incident::Alarm { group: name, alarm: Alarm::LoopedBack });
            }
            return output;
        }
        let Some((name, offer)) = self.read(packet) else { return output };
        let Some(member) = self.members.get_mut(&name) else { return output };
        if !member.router.peers.is_empty() && !member.router.peers.contains(&packet.source) {
            self.counters.strangers += 1;
            return output;
        }
        self.counters.heard += 1;
        member.owner = Some(packet.source).filter(|_| !offer.is_resignation());
        self.step(&name, Event::Heard { from: packet.source, offer }, &mut output, now);
        output
    }

    /// Why this machine should own nothing; `None`: it is well.
    pub fn fault(&mut self, fault: Option<String>, now: Instant) -> Output {
        let mut output = Output::default();
        if fault != self.fault {
            self.fault.clone_from(&fault);
            self.all(&Event::Fault(fault), &mut output, now);
        }
        output
    }

    /// Leaves all groups, or takes part again.
    pub fn maintenance(&mut self, on: bool, now: Instant) -> Output {
        let mut output = Output::default();
        self.in_maintenance = on;
        self.all(if on { &Event::Stop } else { &Event::Start }, &mut output, now);
        output
    }

    /// Gives a group away; `false`: it is none of these.
    pub fn move_away(&mut self, group: &str, now: Instant) -> Option<Output> {
        let mut output = Output::default();
        self.members.contains_key(group).then(|| {
            self.step(group, Event::Move, &mut output, now);
            output
        })
    }

    /// Somebody else claims an address of a group; that was heard then.
    pub fn claimed(&mut self, group: &str, heard: Instant, now: Instant) -> Output {
        let mut output = Output::default();
        if self.members.get(group).is_some_and(|member| member.since < heard) {
            self.step(group, Event::Claimed, &mut output, now);
        }
        output
    }

    /// Groups that this machine owns and another router could take.
    #[must_use]
    pub fn replaceable(&self) -> BTreeSet<String> {
        self.members.iter().filter(|(_, member)| member.is_replaceable()).map(|(name, _)| name.clone()).collect()
    }

    /// Advertisements that give these groups away, for the guard to send when this machine cannot.
    pub fn last_words(&mut self, groups: &BTreeSet<String>) -> Vec<Packet> {
        let members = self.members.iter_mut().filter(|(name, _)| groups.contains(*name));
        members.flat_map(|(_, member)| member.packets(true)).collect()
    }

    /// How the groups stand.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<GroupStatus> {
        let status = |(name, member): (&String, &Member)| GroupStatus {
            name: name.clone(),
            role: member.role(),
            since: now.saturating_duration_since(member.since),
            why: member.why.clone(),
            transitions: member.transitions,
            is_replaceable: member.is_replaceable(),
            owner: match member.role() {
                Role::Active => member.source.map(|own| own.to_string()),
                Role::Backup | Role::Idle => member.owner.map(|owner| owner.to_string()),
            },
        };
        self.members.iter().map(status).collect()
    }

    fn speaking_on(&self, interface: &str) -> Vec<String> {
        let here = self.members.iter().filter(|(_, member)| member.router.interface == interface);
        here.map(|(name, _)| name.clone()).collect()
    }

    /// Which group a packet is of and what it offers; what is of none is counted.
    fn read(&mut self, packet: Received<'_>) -> Option<(String, Offer)> {
        if carp::is_carp(packet.payload) { self.read_carp(packet) } else { self.read_vrrp(packet) }
    }

    fn read_carp(&mut self, packet: Received<'_>) -> Option<(String, Offer)> {
        let of_vhid = |vhid: u8| {
            self.members.values().find(|member| {
                let same = matches!(member.router.speaks, Speaks::Carp { vhid: own, .. } if own == vhid);
                same && member.router.interface == packet.interface
            })
        };
        let mut name = None;
        let read = carp::Advertisement::read(packet.payload, packet.ttl, |vhid| {
            let member = of_vhid(vhid)?;
            name = Some(member.router.name.clone());
            member.key.as_ref()
        });
        match (read, name) {
            (Ok(Some(found)), Some(name)) => {
                let carp::Advertisement { advbase, advskew, demotion, .. } = found;
                return Some((name, Offer::Carp { advbase, advskew, demotion }));
            }
            (Ok(_), _) => self.counters.foreign += 1,
            (Err(carp::Malformed::Forged), _) => self.counters.forged += 1,
            (Err(carp::Malformed::Foreign | carp::Malformed::Ttl | carp::Malformed::Checksum), _) => {
                self.counters.malformed += 1;
            }
        }
        None
    }

    fn read_vrrp(&mut self, packet: Received<'_>) -> Option<(String, Offer)> {
        let read = vrrp::Advertisement::read(packet.payload, packet.source, packet.destination, packet.ttl);
        let Ok(found) = read else {
            self.counters.malformed += 1;
            return None;
        };
        let is_ours = |member: &&Member| {
            let Speaks::Vrrp { version, vrid, .. } = member.router.speaks else { return false };
            (version, vrid) == (found.version, found.vrid)
                && member.router.interface == packet.interface
                && member.router.is_ipv6() == packet.source.is_ipv6()
        };
        let Some(member) = self.members.values().find(is_ours) else {
            self.counters.foreign += 1;
            return None;
        };
        if found.version == Version::V2 && found.interval != member.router.settings.dialect.offer(false).interval() {
            self.counters.forged += 1;
            return None;
        }
        let sorted = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
        self.counters.other_addresses += u64::from(sorted(&found.addresses) != sorted(&member.router.addresses));
        Some((member.router.name.clone(), Offer::Vrrp { priority: found.priority, interval: found.interval }))
    }

    /// Lets every group speak from the address that its interface has now.
    fn find_sources(&mut self, output: &mut Output, now: Instant) {
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            let Some(member) = self.members.get(&name) else { continue };
            let primary = self.primaries.get(&member.router.interface).copied().unwrap_or_default();
            let source = if member.router.is_ipv6() { primary.v6 } else { primary.v4 };
            if source == member.source {
                continue;
            }
            // What was said from the other address is said no more.
            self.step(&name, Event::Stop, output, now);
            let Some(member) = self.members.get_mut(&name) else { continue };
            member.source = source;
            member.advertiser = source.map(|source| Advertiser::new(source, member.router.settings, now));
            let fault = self.fault.clone();
            if fault.is_some() {
                self.step(&name, Event::Fault(fault), output, now);
            }
            if !self.in_maintenance && source.is_some() {
                let event = if self.resumes.remove(&name) { Event::Resume } else { Event::Start };
                self.step(&name, event, output, now);
            }
        }
    }

    fn all(&mut self, event: &Event, output: &mut Output, now: Instant) {
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            self.step(&name, event.clone(), output, now);
        }
    }

    fn step(&mut self, name: &str, event: Event, output: &mut Output, now: Instant) {
        let Some(member) = self.members.get_mut(name) else { return };
        let Some(advertiser) = &mut member.advertiser else { return };
        let Changes { raise, lower, announce, send, say_last, reason, alarm } = advertiser.apply(event, now);
        if raise {
            output.raise.push(name.to_owned());
        }
        if announce {
            output.announce.push(name.to_owned());
        }
        if lower {
            output.lower.push(name.to_owned());
        }
        if let Some(alarm) = alarm {
            output.incidents.push(Incident::Alarm { group: name.to_owned(), alarm });
        }
        if let Some(reason) = reason {
            member.transitions += 1;
            (member.since, member.why) = (now, reason.to_string());
            output.incidents.push(Incident::Transition { group: name.to_owned(), role: member.role(), reason });
        }
        if send {
            output.send.extend(member.packets(say_last));
        }
    }
}

impl Router {
    fn is_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }

    fn virtual_mac(&self) -> Option<Mac> {
        let (Speaks::Vrrp { vrid: id, .. } | Speaks::Carp { vhid: id, .. }) = self.speaks;
        self.virtual_mac.then(|| vrrp::virtual_mac(id, self.is_ipv6()))
    }

    fn differs_by_settings_alone(&self, other: &Router) -> bool {
        self != other && *self == Router { settings: self.settings, ..other.clone() }
    }
}
