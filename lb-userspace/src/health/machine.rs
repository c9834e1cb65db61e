//! One check of one node, as a pure state machine: when it starts, when it has failed, and what its results say.
//!
//! Owns rise and fall counting and the timing of one check. Never reads a clock or a socket. Driven by `schedule`.

use std::{
    mem,
    time::{Duration, Instant},
};

use super::Settings;
use crate::control::view::Health;

/// The first check begins within this time: a node that is down is noticed soon after the start.
const FIRST_CHECK_WITHIN: Duration = Duration::from_secs(1);

/// A deadline noticed this much too late says that this machine stood still, and nothing of the node.
const STALL: Duration = Duration::from_secs(1);

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node answered.
    Answered,
    /// The node did not, or said no.
    Failed(String),
    /// This machine could not ask (no file descriptor, no permission): says nothing of the node.
    Untested(String),
}

/// What a machine reacts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// A check ended.
    Ended {
        /// The number its [`Changes::start`] had.
        attempt: u64,
        /// How.
        outcome: Outcome,
    },
    /// The monitor was reconfigured.
    Configured(Settings),
}

/// What a machine says of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Health.
    pub health: Health,
    /// Why, when it is not `Up`.
    pub reason: Option<String>,
}

/// What is to be done after an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Begin a check, under this number.
    pub start: Option<u64>,
    /// Nobody waits for this attempt any longer.
    pub abandon: Option<u64>,
    /// The check ended and says nothing of the node: why.
    pub untested: Option<String>,
    /// The verdict changed.
    pub verdict: Option<Verdict>,
}

/// One check of one node.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    identity: u64,
    verdict: Verdict,
    /// Results in a row that contradict the verdict.
    streak: u32,
    /// Number of the newest check.
    attempt: u64,
    /// The next check is the second since the machine was made or got another kind of check.
    spread_next: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { due: Instant },
    Checking { since: Instant },
}

impl Machine {
    /// A machine that knows nothing yet. `identity` sets its place in time, so that many checks spread out.
    pub fn new(settings: Settings, identity: u64, now: Instant) -> Self {
        let phase = Phase::Waiting { due: first_check(&settings, identity, now) };
        Self { settings, identity, verdict: Verdict::default(), streak: 0, attempt: 0, spread_next: true, phase }
    }

    /// A machine for a part of what this one checked, which goes its own way from here and knows the same.
    #[must_use]
    pub fn fork(&self, settings: Settings, identity: u64, now: Instant) -> Self {
        Self { verdict: self.verdict.clone(), streak: self.streak, ..Self::new(settings, identity, now) }
    }

    /// When the next [`Event::Tick`] does something.
    pub fn wakeup(&self) -> Instant {
        match self.phase {
            Phase::Waiting { due } => due,
            Phase::Checking { since } => since + self.settings.timeout,
        }
    }

    /// The attempt under way.
    pub fn attempt(&self) -> Option<u64> {
        matches!(self.phase, Phase::Checking { .. }).then_some(self.attempt)
    }

    /// What it says of the node.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Takes one step.
    pub fn apply(&mut self, event: Event, now: Instant) -> Changes {
        match (event, self.phase) {
            (Event::Tick, Phase::Waiting { due }) if now >= due => self.begin(now),
            (Event::Tick, Phase::Checking { since }) if now >= since + self.settings.timeout => {
                let abandon = self.attempt();
                Changes { abandon, ..self.conclude(self.expiry(since, now), since, now) }
            }
            (Event::Tick, _) => Changes::default(),
            (Event::Ended { attempt, outcome }, Phase::Checking { since }) if attempt == self.attempt => {
                let late = now >= since + self.settings.timeout;
                let outcome = if late { self.expiry(since, now) } else { outcome };
                self.conclude(outcome, since, now)
            }
            (Event::Ended { .. }, _) => Changes::default(),
            (Event::Configured(settings), phase) => self.configure(settings, phase, now),
        }
    }

    fn begin(&mut self, now: Instant) -> Changes {
        self.attempt += 1;
        self.phase = Phase::Checking { since: now };
        Changes { start: Some(self.attempt), ..Changes::default() }
    }

    /// What a check that reached its deadline says.
    fn expiry(&self, since: Instant, now: Instant) -> Outcome {
        let late = now.saturating_duration_since(since + self.settings.timeout);
        if late >= STALL {
            return Outcome::Untested(format!("this machine stood still for {late:.1?}"));
        }
        Outcome::Failed(format!("no answer within {:?}", self.settings.timeout))
    }

    fn conclude(&mut self, outcome: Outcome, since: Instant, now: Instant) -> Changes {
        let spread = mem::replace(&mut self.spread_next, false);
        let gap = if spread { self.half_to_full_delay() } else { self.settings.delay };
        self.phase = Phase::Waiting { due: (since + gap).max(now) };
        let before = self.verdict.clone();
        let mut untested = None;
        match outcome {
            Outcome::Answered => self.count_success(),
            Outcome::Failed(reason) => self.count_failure(reason),
            Outcome::Untested(reason) => {
                untested = Some(reason.clone());
                if self.verdict.health == Health::Unknown {
                    self.verdict.reason = Some(reason);
                }
            }
        }
        let verdict = (self.verdict != before).then(|| self.verdict.clone());
        Changes { untested, verdict, ..Changes::default() }
    }

    fn count_success(&mut self) {
        match self.verdict.health {
            Health::Up => self.streak = 0,
            Health::Unknown => self.settle(Health::Up, None),
            Health::Down => {
                self.streak = self.streak.saturating_add(1);
                if self.streak >= self.settings.successes.max(1) {
                    self.settle(Health::Up, None);
                }
            }
        }
    }

    fn count_failure(&mut self, reason: String) {
        match self.verdict.health {
            Health::Down => self.settle(Health::Down, Some(reason)),
            Health::Up | Health::Unknown => {
                self.streak = self.streak.saturating_add(1);
                if self.streak >= self.settings.failures.max(1) {
                    self.settle(Health::Down, Some(reason));
                }
            }
        }
    }

    fn settle(&mut self, health: Health, reason: Option<String>) {
        self.streak = 0;
        self.verdict = Verdict { health, reason };
    }

    /// Keeps the verdict and the count. A check of another kind starts anew; one under way goes on to its new deadline.
    fn configure(&mut self, settings: Settings, phase: Phase, now: Instant) -> Changes {
        let old = mem::replace(&mut self.settings, settings);
        if old.kind != self.settings.kind {
            let abandon = self.attempt();
            self.spread_next = true;
            self.phase = Phase::Waiting { due: first_check(&self.settings, self.identity, now) };
            return Changes { abandon, ..Changes::default() };
        }
        if let Phase::Waiting { due } = phase
            && self.settings.delay < old.delay
        {
            self.phase = Phase::Waiting { due: due.min(now + self.half_to_full_delay()) };
        }
        Changes::default()
    }

    /// The first checks lie close together; this gap, different for each node, spreads the later ones.
    fn half_to_full_delay(&self) -> Duration {
        let half = self.settings.delay / 2;
        half + spread(self.identity.rotate_left(32), half)
    }
}

fn first_check(settings: &Settings, identity: u64, now: Instant) -> Instant {
    now + spread(identity, settings.delay.min(FIRST_CHECK_WITHIN))
}

/// A point in `0..window`, always the same for the same identity.
fn spread(identity: u64, window: Duration) -> Duration {
    let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
    // The high half of the product is below `nanos`.
    Duration::from_nanos(((u128::from(identity) * u128::from(nanos)) >> 64) as u64)
}

#[cfg(test)]
mod tests;
