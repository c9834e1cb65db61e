//! How many notices an alert sends: at most so many in a while. What is held back is counted by name, and told with the next
//! notice or, when none comes, in one of its own. Pure: `now` is an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::control::event::Name;

/// See the module.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: usize,
    per: Duration,
    /// When notices were sent, within `per`.
    sent: VecDeque<Instant>,
    held: BTreeMap<Name, u64>,
}

impl Limiter {
    pub(super) fn new(limit: u32, per: Duration) -> Self {
        Self { limit: limit as usize, per, sent: VecDeque::new(), held: BTreeMap::new() }
    }

    /// Whether a notice may be sent now, and what was held back before it. Otherwise it is held back itself.
    pub(super) fn admit(&mut self, name: Name, now: Instant) -> Option<BTreeMap<Name, u64>> {
        if !self.has_room(now) {
            *self.held.entry(name).or_default() += 1;
            return None;
        }
        self.sent.push_back(now);
        Some(std::mem::take(&mut self.held))
    }

    /// When what is held back may be told; `None`: nothing is.
    pub(super) fn tells_at(&self) -> Option<Instant> {
        let oldest = self.sent.front().filter(|_| !self.held.is_empty())?;
        Some(*oldest + self.per)
    }

    /// What was held back, when it may be told now.
    pub(super) fn release(&mut self, now: Instant) -> Option<BTreeMap<Name, u64>> {
        if self.held.is_empty() || !self.has_room(now) {
            return None;
        }
        self.sent.push_back(now);
        Some(std::mem::take(&mut self.held))
    }

    fn has_room(&mut self, now: Instant) -> bool {
        while self.sent.front().is_some_and(|sent| now.saturating_duration_since(*sent) >= self.per) {
            self.sent.pop_front();
        }
        self.sent.len() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_told_later() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limiter = Limiter::new(2, Duration::from_secs(60));
        let none = BTreeMap::new();
        assert_eq!(limiter.admit(Name::NodeDown, at(0)), Some(none.clone()));
        assert_eq!(limiter.tells_at(), None);
        assert_eq!(limiter.admit(Name::NodeDown, at(10)), Some(none));
        assert_eq!(limiter.admit(Name::NodeDown, at(20)), None);
        assert_eq!(limiter.admit(Name::NodeDown, at(21)), None);
        assert_eq!(limiter.admit(Name::PoolDown, at(59)), None);
        assert_eq!(limiter.tells_at(), Some(at(60)));
        assert_eq!(limiter.release(at(59)), None);
        let held: BTreeMap<_, _> = [(Name::NodeDown, 2), (Name::PoolDown, 1)].into();
        assert_eq!(limiter.release(at(60)), Some(held));
        assert_eq!((limiter.tells_at(), limiter.release(at(61))), (None, None));
        assert_eq!(limiter.admit(Name::NodeUp, at(62)), None, "10 and 60 count");
        assert_eq!(limiter.admit(Name::NodeUp, at(70)), Some([(Name::NodeUp, 1)].into()), "told with the next one");
    }
}
