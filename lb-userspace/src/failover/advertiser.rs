//! Who owns a VIP group among routers that speak VRRP or CARP: only the owner advertises. A pure state machine.
//!
//! RFC 9568 §6.4 and OpenBSD's CARP, with the differences that real networks ask for:
//! - an advertisement of our own that comes back is no advertisement: equal to ourselves, it would make us step down every
//!   three intervals, or be answered at line rate;
//! - a losing rival is answered at once and the addresses are announced again, but never more often than we advertise anyway;
//! - what is dropped (checksum, TTL, foreign group) never comes here, so that no forged packet moves a timer;
//! - an owner that stood still longer than others wait steps down before it advertises, once it has ever heard another
//!   router; a router that knows of no other holds its addresses.
//!
//! Owns timers and the role. Never judges authenticity: `vrrp` and `carp` did. Driven by the failover thread.

use std::{
    cmp::Ordering,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    carp,
    election::{Changes, Reason, Rival, Role, not_listened},
    vrrp,
};

mod dialect;

pub use self::dialect::{Dialect, Offer};

/// How a group takes part; `offer` is what distinguishes its routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Protocol, and what this router offers.
    pub dialect: Dialect,
    /// Whether a better router takes over from an owner that works.
    pub preempt: bool,
    /// How long it waits before it does.
    pub preempt_delay: Duration,
    /// Whether other routers are configured (unicast), so that there is somebody to take over.
    pub has_peers: bool,
}

/// What happens to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It takes part from now on.
    Start,
    /// The same, and it goes on owning: the program before in this process did, and knew of no other router.
    Resume,
    /// It leaves: gracefully, at once.
    Stop,
    /// Time has passed.
    Tick,
    /// An authentic advertisement of this group.
    Heard {
        /// Its source.
        from: IpAddr,
        /// What it offers.
        offer: Offer,
    },
    /// Why this router should not own; `None`: it is well.
    Fault(Option<String>),
    /// An operator moves the group away: it resigns, and waits until another router has had time to take over.
    Move,
    /// Somebody else claims an address of ours (ARP, neighbour discovery).
    Claimed,
    /// New settings.
    Configured(Settings),
}

/// One group on one router.
#[derive(Clone, Debug)]
pub struct Advertiser {
    own: IpAddr,
    settings: Settings,
    role: Role,
    fault: Option<String>,
    /// Interval of the owner that was heard last.
    learnt: Option<Duration>,
    /// Backup: when the owner counts as dead. Active: when to advertise next.
    due: Instant,
    /// When we last looked at the clock.
    looked: Instant,
    /// Since when a better one could take over.
    settled_since: Instant,
    asserted: Option<Instant>,
    ever_heard: bool,
}

impl Advertiser {
    /// A group that takes no part yet; `own` is the address that advertisements come from.
    #[must_use]
    pub fn new(own: IpAddr, settings: Settings, now: Instant) -> Self {
        Self {
            own,
            settings,
            role: Role::Idle,
            fault: None,
            learnt: None,
            due: now,
            looked: now,
            settled_since: now,
            asserted: None,
            ever_heard: false,
        }
    }

    /// The role now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether another router was ever heard, or is configured.
    #[must_use]
    pub fn knows_others(&self) -> bool {
        self.ever_heard || self.settings.has_peers
    }

    /// What this router's advertisements offer.
    #[must_use]
    pub fn offer(&self) -> Offer {
        self.settings.dialect.offer(self.fault.is_some())
    }

    /// When `Tick` is due; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.role {
            Role::Idle => None,
            Role::Backup => Some(self.due.min(self.looked + self.owners_interval())),
            Role::Active => Some(self.due),
        }
    }

    /// Takes one event. [`Changes::send`] advertises [`Self::offer`], or resigns when `say_last` is set.
    pub fn apply(&mut self, event: Event, now: Instant) -> Changes {
        let mut changes = self.wake(now);
        match event {
            Event::Start => self.start(now),
            Event::Resume if self.role == Role::Idle => {
                self.start(now);
                self.take(&mut changes, Reason::Resumed, now);
            }
            Event::Resume => {}
            Event::Stop => self.stop(&mut changes),
            Event::Tick => {}
            Event::Heard { from, offer } => self.hear(from, offer, &mut changes, now),
            Event::Fault(fault) => {
                self.fault = fault;
                self.settled_since = now;
            }
            Event::Move => self.resign(&mut changes, now),
            Event::Claimed if self.role == Role::Active => {
                changes.alarm = Some(super::election::Alarm::AddressClaimed);
                self.assert(&mut changes, now);
            }
            Event::Claimed => {}
            Event::Configured(settings) => self.settings = settings,
        }
        if self.role != Role::Idle && now >= self.due {
            self.expire(&mut changes, now);
        }
        changes
    }

    /// Notices that this router stood still; see the election's rule of the same name.
    fn wake(&mut self, now: Instant) -> Changes {
        let gap = now.saturating_duration_since(self.looked);
        self.looked = now;
        let mut changes = Changes::default();
        if self.role == Role::Idle || gap <= self.down_time() {
            if self.role == Role::Backup {
                self.due += not_listened(gap, self.owners_interval());
            }
            return changes;
        }
        self.settled_since = now;
        if self.role == Role::Active && self.knows_others() {
            self.yield_role(&mut changes, Reason::StoodStill(gap), now);
        } else if self.role == Role::Backup {
            self.due = now + self.down_time();
        }
        changes
    }

    fn start(&mut self, now: Instant) {
        if self.role == Role::Idle {
            self.role = Role::Backup;
            self.learnt = None;
            self.settled_since = now;
            self.due = now + self.down_time();
        }
    }

    fn stop(&mut self, changes: &mut Changes) {
        if self.role == Role::Active {
            changes.lower = true;
            changes.send = true;
            changes.say_last = true;
            changes.reason = Some(Reason::Stopped);
        }
        self.role = Role::Idle;
    }

    fn hear(&mut self, from: IpAddr, offer: Offer, changes: &mut Changes, now: Instant) {
        if from == self.own {
            changes.alarm = Some(super::election::Alarm::LoopedBack);
            return;
        }
        self.ever_heard = true;
        match self.role {
            Role::Idle => {}
            Role::Backup => self.hear_owner(from, offer, changes, now),
            Role::Active => self.hear_rival(from, offer, changes, now),
        }
    }

    fn hear_owner(&mut self, from: IpAddr, offer: Offer, changes: &mut Changes, now: Instant) {
        if offer.is_resignation() {
            self.due = match self.settings.dialect {
                // RFC 9568 §6.4.2: after the skew, so that the best of several backups comes first.
                Dialect::Vrrp { .. } => now + self.skew(),
                Dialect::Carp { .. } => now,
            };
            if now >= self.due {
                self.take(changes, Reason::Resigned(Rival::Address(from)), now);
            }
            return;
        }
        let worse = self.compare(from, offer) == Ordering::Less && self.fault.is_none();
        if worse && self.settings.preempt {
            let at = self.settled_since + self.settings.preempt_delay;
            match self.settings.dialect {
                // It counts as nobody: the timer runs on.
                Dialect::Vrrp { .. } if now >= at => return,
                Dialect::Carp { .. } if now >= at => return self.take(changes, Reason::Failback, now),
                Dialect::Vrrp { .. } | Dialect::Carp { .. } => {}
            }
        }
        self.learnt = Some(offer.interval());
        self.due = now + self.down_time();
    }

    fn hear_rival(&mut self, from: IpAddr, offer: Offer, changes: &mut Changes, now: Instant) {
        if offer.is_resignation() {
            // RFC 9568 §6.4.3: whoever waits shall know at once that we are here.
            self.assert(changes, now);
        } else if self.compare(from, offer) == Ordering::Greater {
            self.learnt = Some(offer.interval());
            self.yield_role(changes, Reason::BetterOwner(Rival::Address(from)), now);
        } else {
            changes.alarm = Some(super::election::Alarm::SecondOwner(Rival::Address(from)));
            self.assert(changes, now);
        }
    }

    /// The other's offer against ours: `Greater` owns. Equal offers are told apart by address.
    fn compare(&self, from: IpAddr, offer: Offer) -> Ordering {
        offer.cmp_with(&self.offer()).then_with(|| self.settings.dialect.compare_addresses(from, self.own))
    }

    fn assert(&mut self, changes: &mut Changes, now: Instant) {
        let interval = self.offer().interval();
        if self.asserted.is_none_or(|at| now.saturating_duration_since(at) >= interval) {
            self.asserted = Some(now);
            changes.announce = true;
            changes.send = true;
            self.due = now + interval;
        }
    }

    fn resign(&mut self, changes: &mut Changes, now: Instant) {
        if self.role != Role::Active {
            changes.alarm = Some(super::election::Alarm::NotOwner);
            return;
        }
        changes.send = true;
        changes.say_last = true;
        self.yield_role(changes, Reason::Stopped, now);
        // Preemption would bring it straight back.
        self.settled_since = now;
    }

    fn expire(&mut self, changes: &mut Changes, now: Instant) {
        match self.role {
            Role::Idle => {}
            Role::Backup => self.take(changes, Reason::Silence, now),
            Role::Active => {
                changes.send = true;
                self.due = now + self.offer().interval();
            }
        }
    }

    fn take(&mut self, changes: &mut Changes, reason: Reason, now: Instant) {
        self.role = Role::Active;
        self.asserted = None;
        self.due = now + self.offer().interval();
        changes.raise = true;
        changes.announce = true;
        changes.send = true;
        changes.reason = Some(reason);
    }

    fn yield_role(&mut self, changes: &mut Changes, reason: Reason, now: Instant) {
        self.role = Role::Backup;
        self.settled_since = now;
        self.due = now + self.down_time();
        changes.lower = true;
        changes.reason = Some(reason);
    }

    /// Silence after which the owner counts as dead; a router with a fault leaves others time to be first.
    fn down_time(&self) -> Duration {
        match self.settings.dialect {
            Dialect::Vrrp { .. } => self.owners_interval() * 3 + self.skew(),
            Dialect::Carp { advbase, advskew } => {
                let skew = carp::interval(0, if self.fault.is_some() { dialect::CARP_FAULT } else { advskew });
                Duration::from_secs(u64::from(advbase.max(1)) * 3) + skew
            }
        }
    }

    /// Between two advertisements of the owner, as far as it is known.
    fn owners_interval(&self) -> Duration {
        self.learnt.unwrap_or_else(|| self.offer().interval())
    }

    /// RFC 9568 §6.1: `((256 - priority) * interval) / 256`.
    fn skew(&self) -> Duration {
        let interval = self.owners_interval();
        match self.offer() {
            Offer::Vrrp { priority, .. } => interval * (256 - u32::from(priority.max(vrrp::RESIGN + 1))) / 256,
            Offer::Carp { .. } => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
