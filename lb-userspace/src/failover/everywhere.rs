//! VIP groups that every machine has at once, and that routers send to those machines that announce them (ECMP, anycast).
//!
//! Says which of them are announced and which addresses are up; pure. With BGP neighbours the addresses stay up while nothing
//! is announced: packets that are on their way are still served. Without, a routing daemon announces the addresses of an
//! interface, so that they are up just while they are to be announced. Driven by `cluster::thread`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use super::{
    RaisedVip,
    cluster::{GroupStatus, Incident},
    election::Role,
};

/// A group, as far as its virtual servers are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its addresses.
    pub vips: BTreeSet<RaisedVip>,
    /// Why it is not to be announced; `None`: its virtual servers serve.
    pub withheld: Option<String>,
}

/// All such groups.
#[derive(Debug, Default)]
pub(super) struct Everywhere {
    groups: BTreeMap<String, Member>,
    has_neighbors: bool,
}

#[derive(Debug)]
struct Member {
    group: Group,
    is_announced: bool,
    since: Instant,
    why: String,
    transitions: u64,
}

impl Everywhere {
    /// The groups from now on, and whether lbd announces them itself. Nothing changes before [`Self::follow`].
    pub(super) fn configure(&mut self, groups: BTreeMap<String, Group>, has_neighbors: bool, now: Instant) {
        self.has_neighbors = has_neighbors;
        self.groups.retain(|name, _| groups.contains_key(name));
        for (name, group) in groups {
            let fresh = || Member {
                group: Group::default(),
                is_announced: false,
                since: now,
                why: "started".to_owned(),
                transitions: 0,
            };
            self.groups.entry(name).or_insert_with(fresh).group = group;
        }
    }

    /// Decides anew; `unfit`: why this machine should serve nothing at all. What has changed.
    pub(super) fn follow(&mut self, unfit: Option<&str>, now: Instant) -> Vec<Incident> {
        let mut incidents = Vec::new();
        for (name, member) in &mut self.groups {
            let why = unfit.or(member.group.withheld.as_deref());
            if member.is_announced == why.is_none() {
                // Kept up to date: the first reason may be gone.
                if let Some(why) = why.filter(|why| *why != member.why) {
                    why.clone_into(&mut member.why);
                }
                continue;
            }
            member.is_announced = why.is_none();
            member.why = why.unwrap_or("it is served").to_owned();
            member.since = now;
            member.transitions += 1;
            let (announced, why) = (member.is_announced, member.why.clone());
            incidents.push(Incident::Announcement { group: name.clone(), announced, why });
        }
        incidents
    }

    /// The addresses that are announced.
    pub(super) fn announced(&self) -> BTreeSet<IpAddr> {
        self.announced_groups().flat_map(|(_, member)| &member.group.vips).map(|vip| vip.address).collect()
    }

    /// The addresses that are up.
    pub(super) fn raised(&self) -> BTreeSet<RaisedVip> {
        let up = self.groups.values().filter(|member| self.has_neighbors || member.is_announced);
        up.flat_map(|member| &member.group.vips).cloned().collect()
    }

    /// What must be taken down when lbd dies: groups and addresses that a routing daemon would go on announcing.
    pub(super) fn guarded(&self) -> (BTreeSet<String>, BTreeSet<RaisedVip>) {
        if self.has_neighbors {
            return Default::default();
        }
        (self.announced_groups().map(|(name, _)| name.clone()).collect(), self.raised())
    }

    pub(super) fn status(&self, now: Instant) -> impl Iterator<Item = GroupStatus> {
        self.groups.iter().map(move |(name, member)| GroupStatus {
            name: name.clone(),
            role: if member.is_announced { Role::Active } else { Role::Idle },
            since: now.saturating_duration_since(member.since),
            why: member.why.clone(),
            transitions: member.transitions,
            owner: None,
            // Whoever else has the group serves it all the while.
            is_replaceable: false,
        })
    }

    fn announced_groups(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.groups.iter().filter(|(_, member)| member.is_announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(address: &str) -> RaisedVip {
        RaisedVip { address: address.parse().unwrap(), interface: "lo".to_owned(), virtual_mac: None }
    }

    fn groups(withheld: Option<&str>) -> BTreeMap<String, Group> {
        let group = |address: &str, withheld: Option<&str>| Group {
            vips: [vip(address)].into(),
            withheld: withheld.map(str::to_owned),
        };
        [("dns".to_owned(), group("192.0.2.53", None)), ("web".to_owned(), group("192.0.2.80", withheld))].into()
    }

    fn announced(everywhere: &Everywhere) -> Vec<String> {
        everywhere.announced().iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn a_group_is_announced_while_machine_and_virtual_servers_are_well() {
        let now = Instant::now();
        let mut everywhere = Everywhere::default();
        everywhere.configure(groups(Some("no node")), true, now);
        assert_eq!(announced(&everywhere), [""; 0], "nothing before it was looked at");
        assert_eq!(everywhere.follow(None, now).len(), 1);
        assert_eq!(announced(&everywhere), ["192.0.2.53"]);
        assert_eq!(everywhere.raised().len(), 2, "with BGP the addresses are up in any case");
        assert_eq!(everywhere.guarded().0.len(), 0, "and the end of the session withdraws them");

        everywhere.configure(groups(None), true, now);
        everywhere.follow(None, now);
        assert_eq!(announced(&everywhere), ["192.0.2.53", "192.0.2.80"]);
        assert_eq!(everywhere.follow(None, now), [], "said once");

        assert_eq!(everywhere.follow(Some("front end: no answer"), now).len(), 2);
        assert_eq!(announced(&everywhere), [""; 0]);
        everywhere.follow(Some("maintenance"), now);
        let whys: Vec<String> = everywhere.status(now).map(|status| status.why).collect();
        assert_eq!(whys, ["maintenance"; 2]);
        assert_eq!(everywhere.status(now).map(|status| status.transitions).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn without_neighbours_addresses_are_up_just_while_they_are_announced_and_guarded() {
        let now = Instant::now();
        let mut everywhere = Everywhere::default();
        everywhere.configure(groups(Some("no node")), false, now);
        everywhere.follow(None, now);
        assert_eq!(everywhere.raised(), [vip("192.0.2.53")].into());
        assert_eq!(everywhere.guarded(), (["dns".to_owned()].into(), [vip("192.0.2.53")].into()));
        everywhere.configure(BTreeMap::new(), false, now);
        assert_eq!((everywhere.raised().len(), everywhere.guarded().0.len()), (0, 0));
    }
}
