//! This machine among its peers: every VIP group's election, fed by heartbeats, as one pure state.
//!
//! Owns the elections, what is known of the other machines and this machine's own heartbeat. Datagrams, commands and time go
//! in; datagrams, addresses to raise and lower, announcements and events come out. No socket, clock or randomness; driven by
//! `thread`, which carries out an [`Output`] in the order of its fields.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant},
};

use super::{
    election::{Alarm, Changes, Election, Event, MachineId, Role, Says, Settings},
    heartbeat::{Boot, Freshness, GroupId, Heartbeat, Key, MAX_ENTRIES, Malformed, Path, Refused},
};

mod addresses;
mod output;
#[cfg(test)]
mod tests;
mod thread;

pub(super) use self::{
    addresses::Addresses,
    thread::{Asking, Order, Task, open, terms},
};
pub use self::{
    output::{Counters, GroupStatus, Incident, MachineStatus, Names, Output, Status},
    thread::{INCIDENTS, Paths},
};

/// A machine is forgotten by `status` when it was not heard for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// How far ahead of this machine's heartbeats the guard's are numbered: more than are ever sent, 13 years of them at 10 a
/// second.
const LAST_WORDS_AHEAD: u64 = 1 << 32;

/// Who this machine is, and its cluster.
#[derive(Debug)]
pub struct Machine {
    /// Its id: the same over restarts, different on every machine.
    pub id: MachineId,
    /// New at every start.
    pub boot: Boot,
    /// Keys of the cluster: the first one signs, all are accepted.
    pub keys: Vec<Key>,
    /// Names of machines, for people.
    pub names: BTreeMap<MachineId, String>,
    /// Time between heartbeats.
    pub interval: Duration,
    /// Heartbeats that may be missing before a machine counts as dead.
    pub misses: u32,
    /// Groups that the program before in this process owned, and nobody could take: they are owned from the start.
    pub resumes: BTreeSet<String>,
}

/// A VIP group as this machine takes part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// This machine's priority, 1 to 255.
    pub priority: u8,
    /// Whether a better machine takes the group back.
    pub failback: bool,
    /// How long it waits before.
    pub failback_delay: Duration,
}

/// What an operator, or another part of lbd, asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The groups from now on. Those that stay are not touched.
    Groups(Vec<Group>),
    /// Why this machine should own nothing, as one of several watchers sees it; `None`: to that one, it is well.
    Fault {
        /// Who says so: `front end`, `nodes`, `worker`, `heartbeats`.
        watcher: &'static str,
        /// Why.
        why: Option<String>,
    },
    /// Moves a group, by name, to a machine or to the best other one.
    Move {
        /// Which.
        group: String,
        /// Where to.
        to: Option<MachineId>,
    },
    /// Somebody else claims an address of this group.
    Claimed {
        /// Which.
        group: String,
        /// When that was heard: a group that has changed since was on its way from or to another machine.
        heard: Instant,
    },
    /// The guard has given these groups away while this machine stood still.
    Deposed(BTreeSet<String>),
    /// Leaves all groups, or takes part again.
    Maintenance(bool),
}

#[derive(Debug)]
struct Member {
    group: Group,
    election: Election,
    since: Instant,
    why: String,
    transitions: u64,
}

#[derive(Debug)]
struct Seen {
    heard: Instant,
    hears_us: bool,
    groups: Vec<(GroupId, Says)>,
}

/// This machine among its peers.
#[derive(Debug)]
pub struct Cluster {
    machine: Machine,
    freshness: Freshness,
    members: BTreeMap<GroupId, Member>,
    /// Groups that were removed, and in how many more heartbeats peers are told so.
    removed: BTreeMap<GroupId, u32>,
    seen: BTreeMap<MachineId, Seen>,
    counters: Counters,
    faults: BTreeMap<&'static str, String>,
    in_maintenance: bool,
    sequence: u64,
    next_heartbeat: Instant,
}

impl Cluster {
    /// Whether a group is one of the cluster's.
    pub(in crate::failover) fn has(&self, group: &str) -> bool {
        self.members.contains_key(&GroupId::of_name(group))
    }

    /// A machine that takes part in no group yet.
    #[must_use]
    pub fn new(machine: Machine, now: Instant) -> Self {
        Self {
            freshness: Freshness::new(machine.id, machine.boot),
            machine,
            members: BTreeMap::new(),
            removed: BTreeMap::new(),
            seen: BTreeMap::new(),
            counters: Counters::default(),
            faults: BTreeMap::new(),
            in_maintenance: false,
            sequence: 0,
            next_heartbeat: now,
        }
    }

    /// When [`Self::tick`] is due at the latest.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Instant {
        let elections = self.members.values().filter_map(|member| member.election.deadline(now));
        elections.fold(self.next_heartbeat, Instant::min)
    }

    /// Groups whose addresses this machine is to have.
    pub fn owned(&self) -> impl Iterator<Item = &str> {
        let owned = |member: &&Member| member.election.role() == Role::Active;
        self.members.values().filter(owned).map(|member| member.group.name.as_str())
    }

    /// Time has passed; `wall_ms` is the wall clock in ms since 1970.
    pub fn tick(&mut self, now: Instant, wall_ms: u64) -> Output {
        let mut output = Output::default();
        let mut last_words = Vec::new();
        for id in self.ids() {
            self.step(id, Event::Tick, &mut output, &mut last_words, now);
        }
        if now >= self.next_heartbeat {
            output.send_due = true;
            // Not `+=`: after a pause the missed ones are not made up for.
            self.next_heartbeat = now + self.machine.interval;
        }
        self.finish(output, &last_words, now, wall_ms)
    }

    /// A datagram came, by this path.
    pub fn receive(&mut self, datagram: &[u8], path: Path, now: Instant, wall_ms: u64) -> Output {
        let mut output = Output::default();
        let mut last_words = Vec::new();
        // A machine that stood still looks at the time before it believes what piled up meanwhile.
        for id in self.ids() {
            self.step(id, Event::Tick, &mut output, &mut last_words, now);
        }
        match Heartbeat::read(datagram, &self.machine.keys) {
            Err(malformed) => self.count_malformed(malformed, &mut output),
            Ok(heartbeat) => match self.freshness.accept(&heartbeat, path, now, wall_ms) {
                Err(refused) => self.count_refused(refused, heartbeat.sender, &mut output),
                Ok(()) => self.hear(heartbeat, &mut output, &mut last_words, now),
            },
        }
        self.finish(output, &last_words, now, wall_ms)
    }

    /// Another key, other names or times; id and boot stay. What is owned stays owned.
    pub fn reconfigure(&mut self, machine: Machine, now: Instant, wall_ms: u64) -> Output {
        let (mut output, mut last_words) = (Output::default(), Vec::new());
        let Machine { keys, names, interval, misses, .. } = machine;
        (self.machine.keys, self.machine.names) = (keys, names);
        (self.machine.interval, self.machine.misses) = (interval, misses);
        self.next_heartbeat = now;
        let settings: Vec<_> = self.members.iter().map(|(id, member)| (*id, self.settings(&member.group))).collect();
        for (id, settings) in settings {
            self.step(id, Event::Configured(settings), &mut output, &mut last_words, now);
        }
        self.finish(output, &last_words, now, wall_ms)
    }

    /// Takes a command.
    pub fn command(&mut self, command: Command, now: Instant, wall_ms: u64) -> Output {
        let mut output = Output::default();
        let mut last_words = Vec::new();
        match command {
            Command::Groups(groups) => self.set_groups(groups, &mut output, &mut last_words, now),
            Command::Fault { watcher, why } => {
                match why {
                    Some(why) => self.faults.insert(watcher, why),
                    None => self.faults.remove(watcher),
                };
                for id in self.ids() {
                    self.step(id, Event::Fault(self.fault()), &mut output, &mut last_words, now);
                }
            }
            Command::Move { group, to } => {
                self.step(GroupId::of_name(&group), Event::Move(to), &mut output, &mut last_words, now);
            }
            Command::Claimed { group, heard } => {
                let id = GroupId::of_name(&group);
                if self.members.get(&id).is_some_and(|member| member.since < heard) {
                    self.step(id, Event::Claimed, &mut output, &mut last_words, now);
                }
            }
            Command::Deposed(groups) => {
                // Beyond what the guard has said, so that this machine is believed again.
                self.sequence += LAST_WORDS_AHEAD;
                for group in groups {
                    self.step(GroupId::of_name(&group), Event::Deposed, &mut output, &mut last_words, now);
                }
            }
            Command::Maintenance(on) => {
                self.in_maintenance = on;
                for id in self.ids() {
                    let event = if on { Event::Stop } else { Event::Start };
                    self.step(id, event, &mut output, &mut last_words, now);
                }
            }
        }
        self.finish(output, &last_words, now, wall_ms)
    }

    /// Owned groups that another machine can take now.
    #[must_use]
    pub fn replaceable(&self, now: Instant) -> BTreeSet<String> {
        let replaceable = self.members.values().filter(|member| member.election.is_replaceable(now));
        replaceable.map(|member| member.group.name.clone()).collect()
    }

    /// Heartbeats that give these groups away, for the guard to send when this machine cannot.
    #[must_use]
    pub fn last_words(&self, groups: &BTreeSet<String>, now: Instant, wall_ms: u64) -> Vec<Vec<u8>> {
        let idle = Says { role: Role::Idle, priority: 0, successor: None };
        let says: Vec<_> = groups.iter().map(|name| (GroupId::of_name(name), idle)).collect();
        if says.is_empty() { Vec::new() } else { self.write(&says, self.sequence + LAST_WORDS_AHEAD, now, wall_ms) }
    }

    /// What an operator wants to know.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let name = |id: &MachineId| self.machine.names.get(id).cloned().unwrap_or_else(|| id.to_string());
        let owner = |group: &GroupId| {
            let owns = |seen: &Seen| seen.groups.iter().any(|(id, says)| id == group && says.role == Role::Active);
            let dead_after = self.machine.interval * (self.machine.misses + 1);
            let mut owners = self
                .seen
                .iter()
                .filter(|(_, seen)| now.saturating_duration_since(seen.heard) < dead_after && owns(seen));
            owners.next().map(|(id, _)| name(id))
        };
        let group = |(id, member): (&GroupId, &Member)| GroupStatus {
            name: member.group.name.clone(),
            role: member.election.role(),
            since: now.saturating_duration_since(member.since),
            why: member.why.clone(),
            transitions: member.transitions,
            is_replaceable: member.election.is_replaceable(now),
            owner: if member.election.role() == Role::Active { Some(name(&self.machine.id)) } else { owner(id) },
        };
        let lately = |(_, seen): &(&MachineId, &Seen)| now.saturating_duration_since(seen.heard) < FORGOTTEN_AFTER;
        let machine = |(id, seen): (&MachineId, &Seen)| MachineStatus {
            name: name(id),
            silent_for: now.saturating_duration_since(seen.heard),
            alive: now.saturating_duration_since(seen.heard) < self.machine.interval * (self.machine.misses + 1),
            hears_us: seen.hears_us,
        };
        Status {
            groups: self.members.iter().map(group).collect(),
            neighbors: Vec::new(),
            wire: crate::failover::routers::Counters::default(),
            machines: self.seen.iter().filter(lately).map(machine).collect(),
            counters: self.counters,
            fault: self.fault(),
            in_maintenance: self.in_maintenance,
        }
    }

    /// All that is wrong with this machine, in one sentence.
    pub(in crate::failover) fn fault(&self) -> Option<String> {
        let faults: Vec<String> = self.faults.iter().map(|(watcher, why)| format!("{watcher}: {why}")).collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }

    /// Whether this machine leaves everything to others because an operator said so.
    pub(in crate::failover) fn is_in_maintenance(&self) -> bool {
        self.in_maintenance
    }

    fn ids(&self) -> Vec<GroupId> {
        self.members.keys().copied().collect()
    }

    fn hear(&mut self, heartbeat: Heartbeat, output: &mut Output, last_words: &mut Vec<GroupId>, now: Instant) {
        self.counters.heard += 1;
        let (from, hears_us) = (heartbeat.sender, heartbeat.hears(self.machine.id, self.machine.boot));
        for (group, says) in &heartbeat.groups {
            self.step(*group, Event::Heard { from, says: *says, hears_us }, output, last_words, now);
        }
        self.seen.insert(from, Seen { heard: now, hears_us, groups: heartbeat.groups });
    }

    fn set_groups(&mut self, groups: Vec<Group>, output: &mut Output, last_words: &mut Vec<GroupId>, now: Instant) {
        let wanted: BTreeMap<GroupId, Group> =
            groups.into_iter().map(|group| (GroupId::of_name(&group.name), group)).collect();
        for id in self.ids() {
            if !wanted.contains_key(&id) {
                self.step(id, Event::Stop, output, last_words, now);
                self.members.remove(&id);
                self.removed.insert(id, self.machine.misses);
            }
        }
        for (id, group) in wanted {
            self.removed.remove(&id);
            let settings = self.settings(&group);
            if let Some(member) = self.members.get_mut(&id) {
                if member.group != group {
                    member.group = group;
                    self.step(id, Event::Configured(settings), output, last_words, now);
                }
                continue;
            }
            let mut election = Election::new(self.machine.id, settings, now);
            election.apply(Event::Fault(self.fault()), now);
            let resumes = self.machine.resumes.remove(&group.name);
            self.members.insert(id, Member { group, election, since: now, why: "started".to_owned(), transitions: 0 });
            if !self.in_maintenance {
                let event = if resumes { Event::Resume } else { Event::Start };
                self.step(id, event, output, last_words, now);
            }
        }
    }

    fn settings(&self, group: &Group) -> Settings {
        Settings {
            interval: self.machine.interval,
            misses: self.machine.misses,
            priority: group.priority.max(1),
            failback: group.failback,
            failback_delay: group.failback_delay,
        }
    }

    fn step(&mut self, id: GroupId, event: Event, output: &mut Output, last_words: &mut Vec<GroupId>, now: Instant) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Changes { raise, lower, announce, send, say_last, reason, alarm } = member.election.apply(event, now);
        let name = || member.group.name.clone();
        output.send_due |= send;
        if say_last {
            last_words.push(id);
        }
        if raise {
            output.raise.push(name());
        }
        if announce {
            output.announce.push(name());
        }
        if lower {
            output.lower.push(name());
        }
        if let Some(alarm) = alarm {
            self.counters.claims += u64::from(alarm == Alarm::AddressClaimed);
            output.incidents.push(Incident::Alarm { group: name(), alarm });
        }
        if let Some(reason) = reason {
            self.counters.transitions += 1;
            member.transitions += 1;
            let why = Names(self.machine.names.clone()).put_into(&reason.to_string());
            (member.since, member.why) = (now, why);
            output.incidents.push(Incident::Transition { group: name(), role: member.election.role(), reason });
        }
    }

    fn count_malformed(&mut self, malformed: Malformed, output: &mut Output) {
        match malformed {
            Malformed::Foreign | Malformed::Format => self.counters.malformed += 1,
            Malformed::Forged => self.counters.forged += 1,
        }
        output.incidents.push(Incident::Malformed(malformed));
    }

    fn count_refused(&mut self, refused: Refused, from: MachineId, output: &mut Output) {
        match refused {
            // One comes by every path but the fastest.
            Refused::Copy => return self.counters.copies += 1,
            Refused::Own => self.counters.looped_back += 1,
            Refused::Stale => self.counters.stale += 1,
            Refused::Unproven | Refused::TooMany => self.counters.unproven += 1,
        }
        output.incidents.push(Incident::Refused { from, refused });
    }

    /// Writes the heartbeats that are due.
    fn finish(&mut self, mut output: Output, last_words: &[GroupId], now: Instant, wall_ms: u64) -> Output {
        if !mem::take(&mut output.send_due) {
            return output;
        }
        let says = |(id, member): (&GroupId, &Member)| {
            let mut says = member.election.says();
            if last_words.contains(id) {
                says.role = Role::Active;
            }
            (*id, says)
        };
        let idle = Says { role: Role::Idle, priority: 0, successor: None };
        let left = self.removed.keys().map(|id| (*id, idle));
        let groups: Vec<_> = self.members.iter().map(says).chain(left).collect();
        self.removed.retain(|_, times| {
            *times -= 1;
            *times > 0
        });
        output.send = self.write(&groups, self.sequence, now, wall_ms);
        self.sequence += output.send.len() as u64;
        output
    }

    /// Heartbeats that say this of groups, numbered from the one after `sequence`.
    fn write(&self, groups: &[(GroupId, Says)], sequence: u64, now: Instant, wall_ms: u64) -> Vec<Vec<u8>> {
        let Some(key) = self.machine.keys.first() else { return Vec::new() };
        let alive = self.machine.interval * (self.machine.misses + 1);
        let echoes: Vec<_> = self.freshness.echoes(now, alive).collect();
        let room = MAX_ENTRIES.saturating_sub(echoes.len()).max(1);
        // A machine without groups is heard as well: it may be asked to take one.
        let parts: Vec<&[_]> = if groups.is_empty() { vec![&[]] } else { groups.chunks(room).collect() };
        let heartbeat = |(part, sequence): (&&[(GroupId, Says)], u64)| {
            let heartbeat = Heartbeat {
                sender: self.machine.id,
                boot: self.machine.boot,
                sequence,
                sent_ms: wall_ms,
                interval_ms: u16::try_from(self.machine.interval.as_millis()).unwrap_or(u16::MAX),
                echoes: echoes.clone(),
                groups: part.to_vec(),
            };
            let mut datagram = Vec::new();
            heartbeat.write(key, &mut datagram);
            datagram
        };
        parts.iter().zip(sequence + 1..).map(heartbeat).collect()
    }
}
