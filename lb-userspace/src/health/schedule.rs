//! All checks together: which are due, how many may hold a connection, what a new set of targets changes.
//!
//! Owns the machines. Never reads a clock or a socket. Driven by `engine`, which starts what [`Step::starts`] says, ends
//! what [`Step::abandoned`] says, and sends [`Step::reports`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Kind, Report, Target,
    machine::{Changes, Event, Machine, Outcome, Verdict},
};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Comes back with the outcome.
    pub attempt: Attempt,
    /// What to send.
    pub kind: Kind,
    /// The node's own address.
    pub address: SocketAddr,
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

/// All checks.
#[derive(Debug)]
pub struct Schedule {
    checks: BTreeMap<CheckId, Check>,
    names: BTreeMap<Key, CheckId>,
    wakeups: BTreeSet<(Instant, CheckId)>,
    /// Due checks that wait for a connection, longest first; removed ones are passed over when their turn comes.
    held: VecDeque<CheckId>,
    connections: usize,
    max_connections: usize,
    next_id: u64,
}

#[derive(Debug)]
struct Check {
    target: Target,
    machine: Machine,
    /// Its place in `wakeups`.
    wakeup: Instant,
    /// In `held` instead.
    is_held: bool,
    holds_connection: bool,
}

impl Schedule {
    /// Nothing to check yet. At most `max_connections` checks hold a connection at a time; pings hold none.
    pub fn new(max_connections: usize) -> Self {
        Self {
            checks: BTreeMap::new(),
            names: BTreeMap::new(),
            wakeups: BTreeSet::new(),
            held: VecDeque::new(),
            connections: 0,
            max_connections: max_connections.max(1),
            next_id: 0,
        }
    }

    /// When [`Schedule::tick`] has something to do next.
    pub fn wakeup(&self) -> Option<Instant> {
        self.wakeups.first().map(|(at, _)| *at)
    }

    /// Due checks that wait for one of `max_connections`, and how long the first has waited.
    pub fn held(&self, now: Instant) -> (usize, Duration) {
        let first = self.held.front().and_then(|id| self.checks.get(id));
        (self.held.len(), first.map_or(Duration::ZERO, |check| now.saturating_duration_since(check.wakeup)))
    }

    /// Replaces the targets; of two with the same names the later counts.
    pub fn set(&mut self, targets: Vec<Target>, now: Instant) -> Step {
        let mut step = Step::default();
        let wanted: BTreeMap<Key, Target> = targets.into_iter().map(|target| (key(&target), target)).collect();
        let gone: Vec<Key> = self.names.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            self.remove(&name, &mut step);
            step.removed.push(name);
        }
        for (name, target) in wanted {
            self.set_one(name, target, now, &mut step);
        }
        step
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
        while self.connections < self.max_connections
            && let Some(id) = self.held.pop_front()
        {
            self.checks.entry(id).and_modify(|check| check.is_held = false);
            self.apply(id, Event::Tick, now, &mut step);
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
        let Some(check) = self.checks.get_mut(&id) else { return };
        let starts = check.machine.attempt().is_none();
        let room = self.connections < self.max_connections && self.held.is_empty();
        if starts && needs_connection(check.target.settings.kind) && !room {
            check.is_held = true;
            self.held.push_back(id);
        } else {
            self.apply(id, Event::Tick, now, step);
        }
    }

    fn set_one(&mut self, name: Key, target: Target, now: Instant, step: &mut Step) {
        if let Some(&id) = self.names.get(&name)
            && let Some(check) = self.checks.get_mut(&id)
        {
            if check.target.address == target.address {
                let settings = target.settings;
                check.target = target;
                return self.apply(id, Event::Configured(settings), now, step);
            }
            if *check.machine.verdict() != Verdict::default() {
                step.reports.push(report(&target, Verdict::default()));
            }
            self.remove(&name, step);
        }
        let id = CheckId(self.next_id);
        self.next_id += 1;
        let machine = Machine::new(target.settings, identity(&target), now);
        let wakeup = machine.wakeup();
        self.wakeups.insert((wakeup, id));
        self.names.insert(name, id);
        self.checks.insert(id, Check { target, machine, wakeup, is_held: false, holds_connection: false });
    }

    fn remove(&mut self, name: &Key, step: &mut Step) {
        let Some(id) = self.names.remove(name) else { return };
        let Some(check) = self.checks.remove(&id) else { return };
        self.wakeups.remove(&(check.wakeup, id));
        self.connections -= usize::from(check.holds_connection);
        step.abandoned.extend(check.machine.attempt().map(|number| Attempt { check: id, number }));
    }

    fn apply(&mut self, id: CheckId, event: Event, now: Instant, step: &mut Step) {
        let Some(check) = self.checks.get_mut(&id) else { return };
        let Changes { start, abandon, untested, verdict } = check.machine.apply(event, now);
        step.untested = untested.or(step.untested.take());
        let attempt = |number| Attempt { check: id, number };
        step.abandoned.extend(abandon.map(attempt));
        let (kind, address) = (check.target.settings.kind, check.target.address);
        step.starts.extend(start.map(|number| Start { attempt: attempt(number), kind, address }));
        if let Some(verdict) = verdict {
            step.reports.push(report(&check.target, verdict));
        }
        let holds = check.machine.attempt().is_some() && needs_connection(kind);
        self.connections = self.connections + usize::from(holds) - usize::from(check.holds_connection);
        check.holds_connection = holds;
        self.wakeups.remove(&(check.wakeup, id));
        check.wakeup = check.machine.wakeup();
        if !check.is_held {
            self.wakeups.insert((check.wakeup, id));
        }
    }
}

fn needs_connection(kind: Kind) -> bool {
    match kind {
        Kind::Tcp { .. } => true,
        Kind::Ping => false,
    }
}

fn key(target: &Target) -> Key {
    (target.pool.clone(), target.node.clone(), target.monitor.clone())
}

fn report(target: &Target, Verdict { health, reason }: Verdict) -> Report {
    let (pool, node, monitor) = key(target);
    Report { pool, node, monitor, health, reason }
}

/// The same for the same target on every machine and at every start; `DefaultHasher::new` has no random key.
fn identity(target: &Target) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&target.pool, &target.node, &target.monitor, target.address).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
