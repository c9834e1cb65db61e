//! The journal: the last events, in a ring of bounded size. Pure: the time comes in as an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{Entry, Events, Fact, Filter, Name};

/// Events that are kept; the oldest one goes when there are more. About a mebibyte at most, as most are short.
pub const KEPT: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Journal {
    kept: VecDeque<Arc<Entry>>,
    room: usize,
    newest: u64,
    counts: BTreeMap<Name, u64>,
}

impl Journal {
    /// An empty one that keeps so many.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { kept: VecDeque::new(), room, newest: 0, counts: BTreeMap::new() }
    }

    /// One that goes on after these, the oldest first. They are not counted: counts begin with lbd.
    #[must_use]
    pub fn going_on(room: usize, before: Vec<Entry>) -> Self {
        let newest = before.last().map_or(0, |entry| entry.number);
        let kept = before.into_iter().map(Arc::new).collect();
        Self { kept, newest, ..Self::new(room) }
    }

    /// Adds what happened now, in milliseconds since 1970.
    pub fn add(&mut self, Fact { name, object, text }: Fact, at_ms: u64) -> Arc<Entry> {
        self.newest += 1;
        *self.counts.entry(name).or_default() += 1;
        let entry = Arc::new(Entry { number: self.newest, at_ms, name, severity: name.severity(), object, text });
        while self.kept.len() >= self.room {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::clone(&entry));
        entry
    }

    /// Those that match, the oldest first; of more than the limit the newest.
    #[must_use]
    pub fn list(&self, filter: &Filter) -> Events {
        let matching = self.kept.iter().rev().filter(|entry| filter.passes(entry));
        let mut events: Vec<Entry> =
            matching.take(filter.limit.unwrap_or(KEPT)).map(|entry| Entry::clone(entry)).collect();
        events.reverse();
        Events { events, newest: self.newest }
    }

    /// Number of the newest event; 0: there is none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// How often each happened.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Name, u64> {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Severity, *};

    fn filled() -> Journal {
        let mut journal = Journal::new(3);
        let facts =
            [(Name::NodeDown, "web/n1"), (Name::NodeUp, "web/n1"), (Name::PoolDown, "web"), (Name::Started, "")];
        for (time, (name, object)) in facts.into_iter().enumerate() {
            journal.add(Fact::new(name, object, "words"), time as u64);
        }
        journal
    }

    #[test]
    fn the_oldest_go_and_numbers_stay() {
        let journal = filled();
        let numbers = |filter: Filter| journal.list(&filter).events.iter().map(|e| e.number).collect::<Vec<_>>();
        assert_eq!(numbers(Filter::default()), [2, 3, 4]);
        assert_eq!(numbers(Filter { after: Some(2), ..Filter::default() }), [3, 4]);
        assert_eq!(numbers(Filter { limit: Some(1), ..Filter::default() }), [4]);
        assert_eq!(numbers(Filter { name: Some(Name::NodeDown), ..Filter::default() }), [0; 0]);
        assert_eq!(numbers(Filter { severity: Some(Severity::Warning), ..Filter::default() }), [3]);
        assert_eq!(numbers(Filter { object: Some("web/n1".into()), ..Filter::default() }), [2]);
        assert_eq!(
            journal.list(&Filter { after: Some(9), ..Filter::default() }),
            Events { events: Vec::new(), newest: 4 }
        );
        assert_eq!(journal.counts()[&Name::NodeDown], 1, "counted also when it is gone");
    }
}
