//! Who owns a VIP group, decided among our own machines without a quorum: a pure state machine per group.
//!
//! Every machine says in each heartbeat, per group, which role and priority it has; the owner also names a successor when it
//! hands over. From what was heard and how long ago, each machine decides for itself, and all decide alike: the greatest
//! (priority, machine id) owns. Never reads a clock or a socket and never judges whether a heartbeat is genuine: `freshness`
//! did before. Driven by the failover thread, which raises, lowers and announces the addresses as [`Changes`] say.
//!
//! Rules that are not obvious, with the failure they prevent:
//! - the new owner raises the addresses before the old one lowers them (a planned move loses nothing);
//! - an owner that stood still longer than its peers wait steps down before it says anything (two owners after SIGSTOP);
//! - time in which a machine that waits did not look is no silence (a takeover from an owner whose heartbeats wait to be read);
//! - an owner that a second one lastingly does not hear yields, whatever its priority: the other never would;
//! - who wins announces the addresses again, and who loses says so at once (neighbours that learnt the wrong MAC);
//! - a machine with a fault gives its VIPs away only when a machine without one is there to take them (never none).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

mod changes;
pub use self::changes::{Alarm, Changes, Reason, Rival};

/// Tells machines apart. The same over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub u64);

impl MachineId {
    /// Of a machine's name: 64-bit FNV-1a, mixed. Stable for ever: machines of different versions must agree. Never 0, which
    /// heartbeats have for "none".
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(lb_common::flow::mix64(name.bytes().fold(0xcbf2_9ce4_8422_2325, step)).max(1))
    }
}

/// How a group is elected; the same on all machines but for `priority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between heartbeats.
    pub interval: Duration,
    /// Heartbeats that may be missing before an owner counts as dead.
    pub misses: u32,
    /// 1 to 255: the greatest owns.
    pub priority: u8,
    /// Whether a better machine takes over from an owner that works.
    pub failback: bool,
    /// How long both must have been well before it does.
    pub failback_delay: Duration,
}

impl Settings {
    /// Silence after which an owner counts as dead: the missing heartbeats, and a quarter for the delay of the next.
    fn dead_after(&self) -> Duration {
        self.interval * self.misses + self.interval / 4
    }
}

/// What a machine is to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes no part: not started, stopped, or in maintenance.
    #[default]
    Idle,
    /// Waits.
    Backup,
    /// Owns the addresses.
    Active,
}

/// What a machine says of a group in its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Says {
    /// Its role.
    pub role: Role,
    /// Its priority; 0: it has a fault and wants not to own.
    pub priority: u8,
    /// Whom it hands over to.
    pub successor: Option<MachineId>,
}

/// What happens to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It takes part from now on.
    Start,
    /// The same, and it goes on owning: the program before in this process did, and nobody could take over.
    Resume,
    /// It leaves: gracefully, at once.
    Stop,
    /// Time has passed.
    Tick,
    /// A peer's heartbeat.
    Heard {
        /// Who.
        from: MachineId,
        /// What it says of this group.
        says: Says,
        /// Whether it hears us.
        hears_us: bool,
    },
    /// Why this machine should not own; `None`: it is well.
    Fault(Option<String>),
    /// An operator moves the group: to that machine, or to the best other one.
    Move(Option<MachineId>),
    /// Somebody else claims an address of ours (ARP, neighbour discovery).
    Claimed,
    /// The guard has taken the addresses down and said that this machine leaves.
    Deposed,
    /// New settings.
    Configured(Settings),
}

/// A peer as this group sees it.
#[derive(Clone, Copy, Debug)]
struct Peer {
    says: Says,
    hears_us: bool,
    heard: Instant,
    /// Since when it owns beside us and does not hear us.
    deaf_since: Option<Instant>,
}

/// One group on one machine.
#[derive(Clone, Debug)]
pub struct Election {
    own: MachineId,
    settings: Settings,
    role: Role,
    fault: Option<String>,
    peers: BTreeMap<MachineId, Peer>,
    /// When an owner was last heard, or the waiting began.
    quiet_since: Instant,
    /// When we last looked at the clock.
    looked: Instant,
    /// Since when this machine is well and an owner is heard: for the delay of failback.
    settled_since: Instant,
    /// Whom we hand over to, and since when.
    successor: Option<(MachineId, Instant)>,
    /// When we last answered a rival.
    asserted: Option<Instant>,
}

impl Election {
    /// A group that takes no part yet.
    #[must_use]
    pub fn new(own: MachineId, settings: Settings, now: Instant) -> Self {
        Self {
            own,
            settings,
            role: Role::Idle,
            fault: None,
            peers: BTreeMap::new(),
            quiet_since: now,
            looked: now,
            settled_since: now,
            successor: None,
            asserted: None,
        }
    }

    /// The role now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What the next heartbeat says.
    #[must_use]
    pub fn says(&self) -> Says {
        let priority = if self.fault.is_some() || self.role == Role::Idle { 0 } else { self.settings.priority };
        Says { role: self.role, priority, successor: self.successor.map(|(machine, _)| machine) }
    }

    /// Whether this machine owns and another one without a fault could take over now.
    #[must_use]
    pub fn is_replaceable(&self, now: Instant) -> bool {
        self.role == Role::Active && self.best(now).is_some()
    }

    /// When `Tick` is due at the latest, heartbeats aside.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.role {
            Role::Idle => None,
            Role::Backup => {
                Some(self.takeover_at(now).min(self.failback_at(now).unwrap_or(now + self.settings.interval)))
            }
            Role::Active => Some(now + self.settings.interval),
        }
    }

    /// Takes one event.
    pub fn apply(&mut self, event: Event, now: Instant) -> Changes {
        let mut changes = self.wake(now);
        match event {
            Event::Start => self.start(now),
            Event::Resume if self.role == Role::Idle => {
                self.start(now);
                self.take(&mut changes, Reason::Resumed);
            }
            Event::Resume => {}
            Event::Stop => self.stop(&mut changes, now),
            Event::Tick => {}
            Event::Heard { from, says, hears_us } => self.hear(from, says, hears_us, &mut changes, now),
            Event::Fault(fault) => {
                if fault.is_some() != self.fault.is_some() {
                    self.settled_since = now;
                }
                self.fault = fault;
            }
            Event::Move(to) => self.move_to(to, &mut changes, now),
            Event::Claimed => {
                if self.role == Role::Active {
                    changes.alarm = Some(Alarm::AddressClaimed);
                    self.assert(&mut changes, now);
                }
            }
            Event::Deposed => {
                if self.role == Role::Active {
                    self.yield_role(&mut changes, Reason::LeaseEnded);
                    changes.send = true;
                }
            }
            Event::Configured(settings) => self.settings = settings,
        }
        self.consider(&mut changes, now);
        changes
    }

    /// Notices that this machine stood still. An owner whose peers have had to take over by now steps down first.
    fn wake(&mut self, now: Instant) -> Changes {
        let gap = now.saturating_duration_since(self.looked);
        let (stood_still, had_peers) = (gap > self.settings.dead_after(), self.any_alive(self.looked));
        self.looked = now;
        let mut changes = Changes::default();
        if self.role == Role::Backup && !stood_still {
            self.quiet_since += not_listened(gap, self.settings.interval);
        }
        if !stood_still || self.role == Role::Idle {
            return changes;
        }
        // What was heard before the pause says nothing of now: everybody gets the full time to be heard again.
        self.quiet_since = now;
        self.settled_since = now;
        if self.role == Role::Active && had_peers {
            self.yield_role(&mut changes, Reason::StoodStill(gap));
        }
        changes
    }

    fn start(&mut self, now: Instant) {
        if self.role == Role::Idle {
            self.role = Role::Backup;
            self.quiet_since = now;
            self.settled_since = now;
        }
    }

    fn stop(&mut self, changes: &mut Changes, now: Instant) {
        if self.role == Role::Active {
            self.yield_role(changes, Reason::Stopped);
        }
        if self.role != Role::Idle {
            self.role = Role::Idle;
            self.quiet_since = now;
            changes.send = true;
        }
        self.successor = None;
    }

    fn hear(&mut self, from: MachineId, says: Says, hears_us: bool, changes: &mut Changes, now: Instant) {
        if from == self.own {
            // Our own heartbeat came back: a loop or a mirror in the network. It says nothing.
            changes.alarm = Some(Alarm::LoopedBack);
            return;
        }
        let deaf = self.role == Role::Active && says.role == Role::Active && !hears_us;
        let deaf_since = self.peers.get(&from).and_then(|peer| peer.deaf_since).or(Some(now)).filter(|_| deaf);
        let before = self.peers.insert(from, Peer { says, hears_us, heard: now, deaf_since });
        let was_owner = before.is_some_and(|peer| peer.says.role == Role::Active);
        match (self.role, says.role) {
            (Role::Idle, _) => {}
            (Role::Backup, Role::Active) => {
                if !was_owner {
                    self.settled_since = now;
                }
                self.quiet_since = now;
                if says.successor == Some(self.own) {
                    self.take(changes, Reason::HandedOver(from));
                }
            }
            // It was the owner and says that it no longer is: the best of the others follows at once.
            (Role::Backup, Role::Idle | Role::Backup) => {
                let others = || self.alive(now).any(|(_, peer)| peer.says.role == Role::Active);
                if was_owner && !others() && self.rank(now) == 0 {
                    self.take(changes, Reason::Resigned(Rival::Machine(from)));
                }
            }
            (Role::Active, Role::Active) => self.meet(from, says, deaf_since, changes, now),
            (Role::Active, Role::Idle | Role::Backup) => {}
        }
    }

    /// Another owner is heard.
    fn meet(&mut self, from: MachineId, says: Says, deaf_since: Option<Instant>, changes: &mut Changes, now: Instant) {
        if self.successor.is_some_and(|(machine, _)| machine == from) {
            self.yield_role(changes, Reason::HandedOverTo(from));
            return;
        }
        if says.successor == Some(self.own) {
            // It hands over to us and lowers as soon as it hears that we own.
            changes.send = true;
            return;
        }
        let better = (says.priority, from) > (self.says().priority, self.own);
        // After a cut heals neither knows yet that it is heard again: that takes one heartbeat each way.
        let deaf = deaf_since.is_some_and(|since| now.saturating_duration_since(since) > self.settings.dead_after());
        if better || deaf {
            let reason = if better { Reason::BetterOwner(Rival::Machine(from)) } else { Reason::Unheard(from) };
            self.yield_role(changes, reason);
            // Says that it lost before the addresses are gone, so that the winner announces them again.
            changes.send = true;
            changes.say_last = true;
            self.quiet_since = now;
        } else {
            changes.alarm = Some(Alarm::SecondOwner(Rival::Machine(from)));
            self.assert(changes, now);
        }
    }

    /// Tells neighbours and rivals who owns; at most once per interval, or two machines would answer each other for ever.
    fn assert(&mut self, changes: &mut Changes, now: Instant) {
        let recently = self.asserted.is_some_and(|at| now.saturating_duration_since(at) < self.settings.interval);
        if !recently {
            self.asserted = Some(now);
            changes.announce = true;
            changes.send = true;
        }
    }

    fn move_to(&mut self, to: Option<MachineId>, changes: &mut Changes, now: Instant) {
        if self.role != Role::Active {
            changes.alarm = Some(Alarm::NotOwner);
            return;
        }
        match to.filter(|to| self.is_candidate(*to, now)).or_else(|| to.is_none().then(|| self.best(now)).flatten()) {
            Some(machine) => self.hand_over(machine, changes, now),
            None => changes.alarm = Some(Alarm::NoSuccessor),
        }
    }

    fn hand_over(&mut self, machine: MachineId, changes: &mut Changes, now: Instant) {
        self.successor = Some((machine, now));
        changes.send = true;
    }

    /// What time alone brings.
    fn consider(&mut self, changes: &mut Changes, now: Instant) {
        match self.role {
            Role::Idle => {}
            Role::Backup => {
                if now >= self.takeover_at(now) {
                    self.take(changes, Reason::Silence);
                } else if self.failback_at(now).is_some_and(|at| now >= at) {
                    self.take(changes, Reason::Failback);
                }
            }
            Role::Active => self.consider_leaving(changes, now),
        }
    }

    fn consider_leaving(&mut self, changes: &mut Changes, now: Instant) {
        if let Some((machine, since)) = self.successor
            && now.saturating_duration_since(since) > self.settings.dead_after()
        {
            self.successor = None;
            changes.alarm = Some(Alarm::HandoverUnanswered(machine));
        }
        if self.fault.is_some()
            && self.successor.is_none()
            && changes.alarm.is_none()
            && let Some(machine) = self.best(now)
        {
            self.hand_over(machine, changes, now);
        }
    }

    fn take(&mut self, changes: &mut Changes, reason: Reason) {
        self.role = Role::Active;
        self.successor = None;
        self.asserted = None;
        changes.raise = true;
        changes.announce = true;
        changes.send = true;
        changes.reason = Some(reason);
    }

    fn yield_role(&mut self, changes: &mut Changes, reason: Reason) {
        self.role = Role::Backup;
        self.successor = None;
        self.settled_since = self.looked;
        self.quiet_since = self.looked;
        changes.lower = true;
        changes.reason = Some(reason);
    }

    /// When this machine takes over if no owner is heard until then.
    fn takeover_at(&self, now: Instant) -> Instant {
        let mut wait = self.settings.dead_after();
        // The next best one waits until it would have heard the best.
        wait += self.settings.interval / 2 * self.rank(now);
        if self.fault.is_some() {
            wait += self.settings.dead_after();
        }
        self.quiet_since + wait
    }

    /// When this machine takes the group back from an owner that works; `None`: it does not.
    fn failback_at(&self, now: Instant) -> Option<Instant> {
        let owner = self.alive(now).find(|(_, peer)| peer.says.role == Role::Active)?.1;
        let better = self.settings.failback && self.fault.is_none() && self.settings.priority > owner.says.priority;
        // An owner that cannot hear us would not notice; one with a fault gives the group away by itself.
        (better && owner.hears_us && owner.says.priority > 0 && self.rank(now) == 0)
            .then(|| self.settled_since + self.settings.failback_delay)
    }

    /// How many machines are better candidates.
    fn rank(&self, now: Instant) -> u32 {
        let own = (if self.fault.is_some() { 0 } else { self.settings.priority }, self.own);
        let better =
            |(id, peer): &(MachineId, &Peer)| peer.says.role == Role::Backup && (peer.says.priority, *id) > own;
        u32::try_from(self.alive(now).filter(better).count()).unwrap_or(u32::MAX).min(16)
    }

    /// The best other machine without a fault.
    fn best(&self, now: Instant) -> Option<MachineId> {
        let candidates = self.alive(now).filter(|(id, _)| self.is_candidate(*id, now));
        candidates.max_by_key(|(id, peer)| (peer.says.priority, *id)).map(|(id, _)| id)
    }

    fn is_candidate(&self, machine: MachineId, now: Instant) -> bool {
        self.alive(now).any(|(id, peer)| {
            id == machine && peer.says.role == Role::Backup && peer.says.priority > 0 && peer.hears_us
        })
    }

    fn alive(&self, now: Instant) -> impl Iterator<Item = (MachineId, &Peer)> {
        let within = self.settings.dead_after();
        let alive = move |peer: &Peer| now.saturating_duration_since(peer.heard) <= within;
        self.peers.iter().filter(move |(_, peer)| alive(peer)).map(|(id, peer)| (*id, peer))
    }

    fn any_alive(&self, now: Instant) -> bool {
        self.alive(now).any(|(_, peer)| peer.says.role != Role::Idle)
    }
}

/// How much of the time since the last look says nothing about others: what came meanwhile waits to be read. Whoever waits looks
/// at least once in an interval; a quarter more is usual on a machine that is busy.
pub(super) fn not_listened(gap: Duration, interval: Duration) -> Duration {
    if gap > interval + interval / 4 { gap - interval } else { Duration::ZERO }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
