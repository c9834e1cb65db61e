//! Sessions of persistence as lbd knows them: numbered in the order in which they were heard of, so that whoever tells them on
//! asks for those after the last one. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use crate::control::proxy::memory::Session;

/// Most sessions; the one that was not heard of for longest gives way.
const MOST: usize = 1 << 17;

/// Sessions past their time that each new one takes away.
const SWEEP: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    places: HashMap<Key, Place>,
    order: BTreeMap<u64, Key>,
    last: u64,
}

/// Kind, pool and id.
type Key = (u8, u64, u128);

#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    node: u64,
    until: Instant,
    /// Clients of this machine used it last.
    is_ours: bool,
}

impl Place {
    fn session(&self, (kind, pool, id): Key, now: Instant) -> Option<Session> {
        let left = self.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some(Session { kind, pool, id, node: self.node, left })
    }
}

impl Sessions {
    /// Takes in what was heard of, from the own worker or another machine. Returns what was news.
    pub(super) fn learn(&mut self, sessions: &[Session], is_ours: bool, now: Instant) -> Vec<Session> {
        sessions.iter().filter(|session| self.learn_one(session, is_ours, now)).copied().collect()
    }

    fn learn_one(&mut self, session: &Session, is_ours: bool, now: Instant) -> bool {
        // A time that no clock has is nobody's session.
        let Some(until) = now.checked_add(session.left) else { return false };
        let key = (session.kind, session.pool, session.id);
        if let Some(known) = self.places.get(&key) {
            if !is_ours && known.until >= until {
                return false;
            }
            self.order.remove(&known.number);
        }
        self.last += 1;
        self.places.insert(key, Place { number: self.last, node: session.node, until, is_ours });
        self.order.insert(self.last, key);
        for _ in 0..SWEEP {
            let oldest = self.order.first_key_value().and_then(|(_, key)| self.places.get(key));
            if oldest.is_some_and(|place| place.until <= now || self.places.len() > MOST)
                && let Some((_, key)) = self.order.pop_first()
            {
                self.places.remove(&key);
            }
        }
        true
    }

    /// Those of ours among the next `most` that came after a number, oldest first, and the number to go on with: the same one
    /// when there is nothing after it.
    pub(super) fn since(&self, since: u64, most: usize, now: Instant) -> (Vec<Session>, u64) {
        let (mut found, mut last) = (Vec::new(), since);
        // Others' count, too: they are many on a machine that owns little, and everybody waits meanwhile.
        for (number, key) in self.order.range(since + 1..).take(most) {
            last = *number;
            found.extend(self.places.get(key).filter(|place| place.is_ours).and_then(|place| place.session(*key, now)));
        }
        (found, last)
    }

    /// How many there are, those past their time included.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// All, in order, and whether they are ours.
    pub(super) fn all(&self, now: Instant) -> Vec<(Session, bool)> {
        let place = |key: &Key| self.places.get(key).and_then(|p| Some((p.session(*key, now)?, p.is_ours)));
        self.order.values().filter_map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn session(id: u128, node: u64, left: u64) -> Session {
        Session { kind: 1, pool: 7, id, node, left: Duration::from_secs(left) }
    }

    #[test]
    fn each_is_told_once_and_again_when_it_is_used() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        sessions.learn(&[session(1, 10, 60), session(2, 20, 60), session(3, 30, 60)], true, now);
        let (first, at) = sessions.since(0, 2, now);
        assert_eq!(first, [session(1, 10, 60), session(2, 20, 60)]);
        let (rest, at) = sessions.since(at, 2, now);
        assert_eq!(rest, [session(3, 30, 60)]);
        assert_eq!(sessions.since(at, 2, now), (vec![], at));
        sessions.learn(&[session(1, 11, 60)], true, now);
        assert_eq!(sessions.since(at, 2, now).0, [session(1, 11, 60)]);
        let later = now + Duration::from_secs(60);
        assert_eq!(sessions.since(0, 9, later).0, [], "their time is over");
        sessions.learn(&[session(4, 40, 60)], true, later);
        assert_eq!(sessions.places.len(), 2, "each new one takes two away");
    }

    #[test]
    fn what_was_heard_is_not_told_on_and_the_last_use_counts() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        assert_eq!(sessions.learn(&[session(1, 10, 60)], false, now).len(), 1);
        assert_eq!(sessions.since(0, 9, now), (vec![], 1));
        assert_eq!(sessions.since(1, 9, now), (vec![], 1), "there is nothing more");
        assert_eq!(sessions.all(now), [(session(1, 10, 60), false)], "but a worker is given it");
        assert_eq!(sessions.learn(&[session(1, 11, 50)], false, now), [], "an older use");
        assert_eq!(sessions.learn(&[session(1, 11, 70)], false, now).len(), 1);
        sessions.learn(&[session(1, 12, 60)], true, now);
        assert_eq!(sessions.since(0, 9, now).0, [session(1, 12, 60)], "the client came here");
    }

    #[test]
    fn there_is_an_end_to_it() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        for id in 0..MOST as u128 + 100 {
            sessions.learn(&[session(id, 1, 60)], true, now);
        }
        assert_eq!((sessions.places.len(), sessions.order.len()), (MOST, MOST));
        assert_eq!(sessions.since(0, 1, now).0, [session(100, 1, 60)]);
        sessions.learn(&[session(100, 2, 90)], false, now);
        sessions.learn(&[session(0, 3, 90)], true, now);
        let (last, all) = (sessions.last, sessions.since(0, MOST, now));
        assert_eq!((all.0.len(), all.1), (MOST - 1, last));
        assert_eq!(sessions.since(last - 2, 1, now), (vec![], last - 1), "one of others counts as looked at");
        assert_eq!(sessions.learn(&[Session { left: Duration::MAX, ..session(1, 1, 1) }], true, now), []);
    }
}
