//! All checks together: which are due, how many may run at a time, what a new set of targets changes.
//!
//! Targets that ask the same thing of the same address share one check, whatever pools they are of: it is made once, and its
//! result goes to all of them. Owns the machines. Never reads a clock or a socket. Driven by `engine`, which starts what
//! [`Step::starts`] says, ends what [`Step::abandoned`] says, and sends [`Step::reports`].

mod groups;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{BuildHasherDefault, DefaultHasher},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Report, Settings, Target,
    machine::{Changes, Event, Machine, Outcome, Verdict},
};
use crate::control::probe::Kind;

/// Checks looked at by one [`Schedule::tick`]: the answers to a burst must not overflow a socket before they are read.
pub const TICK_LIMIT: usize = 64;

/// Names a check; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(pub u64);

/// One check under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The check.
    pub check: CheckId,
    /// Which of its attempts.
    pub number: u64,
}

/// A check to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Comes back with the outcome.
    pub attempt: Attempt,
    /// What to do.
    pub kind: Kind,
    /// Whom to ask.
    pub address: SocketAddr,
    /// It will be given up after this.
    pub timeout: Duration,
}

/// Pool, node and monitor.
pub type Key = (String, String, String);

/// What the engine is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Checks to begin.
    pub starts: Vec<Start>,
    /// Attempts nobody waits for any longer.
    pub abandoned: Vec<Attempt>,
    /// Reports to send.
    pub reports: Vec<Report>,
    /// Why a check (the last, of several) said nothing of its node.
    pub untested: Option<String>,
    /// Targets that are gone: reports about them need no longer be sent.
    pub removed: Vec<Key>,
}

/// What checks take of this machine, of which there is only so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A socket of its own.
    Connection,
    /// A process.
    Process,
}

/// How many checks may hold each resource at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// [`Resource::Connection`].
    pub connections: usize,
    /// [`Resource::Process`].
    pub processes: usize,
}

/// What targets have in common that share a check.
type Group = (SocketAddr, Settings);

/// All checks.
#[derive(Debug)]
pub struct Schedule {
    checks: BTreeMap<CheckId, Check>,
    names: BTreeMap<Key, CheckId>,
    groups: HashMap<Group, CheckId, BuildHasherDefault<DefaultHasher>>,
    wakeups: BTreeSet<(Instant, CheckId)>,
    connections: Room,
    processes: Room,
    next_id: u64,
}

/// One resource.
#[derive(Debug)]
struct Room {
    taken: usize,
    most: usize,
    /// Due checks that wait for it, longest first; removed ones are passed over when their turn comes.
    held: VecDeque<CheckId>,
}

#[derive(Debug)]
struct Check {
    address: SocketAddr,
    settings: Settings,
    /// Whom the result is for; never empty.
    members: BTreeSet<Key>,
    machine: Machine,
    /// Its place in `wakeups`.
    wakeup: Instant,
    /// In `held` instead.
    is_held: bool,
    holds: Option<Resource>,
}

impl Schedule {
    /// Nothing to check yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            checks: BTreeMap::new(),
            names: BTreeMap::new(),
            groups: HashMap::default(),
            wakeups: BTreeSet::new(),
            connections: Room::new(limits.connections),
            processes: Room::new(limits.processes),
            next_id: 0,
        }
    }

    /// When [`Schedule::tick`] has something to do next.
    pub fn wakeup(&self) -> Option<Instant> {
        self.wakeups.first().map(|(at, _)| *at)
    }

    /// Due checks that wait for a resource, and how long the first of them has waited.
    pub fn held(&self, resource: Resource, now: Instant) -> (usize, Duration) {
        let held = &self.room(resource).held;
        let first = held.front().and_then(|id| self.checks.get(id));
        (held.len(), first.map_or(Duration::ZERO, |check| now.saturating_duration_since(check.wakeup)))
    }

    /// Starts what is due and ends what took too long, [`TICK_LIMIT`] checks at a time: as long as [`Schedule::wakeup`] is
    /// not later than `now`, there is more to do.
    pub fn tick(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        for _ in 0..TICK_LIMIT {
            let Some((at, id)) = self.wakeups.first().copied() else { break };
            if at > now {
                break;
            }
            self.wakeups.pop_first();
            self.tick_one(id, now, &mut step);
        }
        for resource in [Resource::Connection, Resource::Process] {
            while self.room(resource).has_room()
                && let Some(id) = self.room_mut(resource).held.pop_front()
            {
                self.checks.entry(id).and_modify(|check| check.is_held = false);
                self.apply(id, Event::Tick, now, &mut step);
            }
        }
        step
    }

    /// A check ended. Unknown and abandoned ones are ignored.
    pub fn end(&mut self, attempt: Attempt, outcome: Outcome, now: Instant) -> Step {
        let mut step = Step::default();
        self.apply(attempt.check, Event::Ended { attempt: attempt.number, outcome }, now, &mut step);
        step
    }

    fn tick_one(&mut self, id: CheckId, now: Instant, step: &mut Step) {
        let Some(check) = self.checks.get(&id) else { return };
        let starts = check.machine.attempt().is_none();
        if let Some(resource) = resource(&check.settings.kind).filter(|_| starts) {
            let room = self.room_mut(resource);
            if !room.has_room() || !room.held.is_empty() {
                room.held.push_back(id);
                self.checks.entry(id).and_modify(|check| check.is_held = true);
                return;
            }
        }
        self.apply(id, Event::Tick, now, step);
    }

    fn apply(&mut self, id: CheckId, event: Event, now: Instant, step: &mut Step) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        let Changes { start, abandon, untested, verdict } = check.machine.apply(event, now);
        step.untested = untested.or(step.untested.take());
        let attempt = |number| Attempt { check: id, number };
        step.abandoned.extend(abandon.map(attempt));
        step.starts.extend(start.map(|number| Start {
            attempt: attempt(number),
            kind: check.settings.kind.clone(),
            address: check.address,
            timeout: check.settings.timeout,
        }));
        if let Some(verdict) = verdict {
            step.reports.extend(check.members.iter().map(|member| report(member, &verdict)));
        }
        let holds = check.machine.attempt().and_then(|_| resource(&check.settings.kind));
        let held = std::mem::replace(&mut check.holds, holds);
        self.wakeups.remove(&(check.wakeup, id));
        check.wakeup = check.machine.wakeup();
        if !check.is_held {
            self.wakeups.insert((check.wakeup, id));
        }
        self.take(holds);
        self.give_back(held);
    }

    fn take(&mut self, resource: Option<Resource>) {
        if let Some(resource) = resource {
            self.room_mut(resource).taken += 1;
        }
    }

    fn give_back(&mut self, resource: Option<Resource>) {
        if let Some(resource) = resource {
            self.room_mut(resource).taken -= 1;
        }
    }

    fn room(&self, resource: Resource) -> &Room {
        match resource {
            Resource::Connection => &self.connections,
            Resource::Process => &self.processes,
        }
    }

    fn room_mut(&mut self, resource: Resource) -> &mut Room {
        match resource {
            Resource::Connection => &mut self.connections,
            Resource::Process => &mut self.processes,
        }
    }
}

impl Room {
    fn new(most: usize) -> Self {
        Self { taken: 0, most: most.max(1), held: VecDeque::new() }
    }

    fn has_room(&self) -> bool {
        self.taken < self.most
    }
}

/// What a check holds while it runs. Pings share a socket.
fn resource(kind: &Kind) -> Option<Resource> {
    match kind {
        Kind::Ping => None,
        Kind::Tcp
        | Kind::Vip(_)
        | Kind::Http(_)
        | Kind::Greeting(..)
        | Kind::Dns(_)
        | Kind::Udp(_)
        | Kind::Transaction(_) => Some(Resource::Connection),
        Kind::Program(_) => Some(Resource::Process),
    }
}

fn report(member: &Key, verdict: &Verdict) -> Report {
    let (pool, node, monitor) = member.clone();
    Report { pool, node, monitor, health: verdict.health, reason: verdict.reason.clone() }
}

#[cfg(test)]
mod tests;
