//! What is to become of a record of a flow table: the collector's decision, without its deeds. Pure.

use lb_common::{
    conntrack::State,
    flow::{Control, FlowRecord, flag},
};

use crate::dataplane::clock::age;

/// Ticks that an answering half without a connection is left alone: the data path puts it in before the connection.
pub const ORPHAN_TICKS: u32 = 3;

/// Ticks after which a claimed place was abandoned: whoever claims one fills it within microseconds.
pub const CLAIMED_TICKS: u32 = 10;

/// What is to become of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is there.
    Free,
    /// Somebody is about to write it.
    Claimed,
    /// Live.
    Keep,
    /// To be freed.
    Remove,
}

/// The record that another one's `peer` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its control word.
    pub control: Control,
    /// Its own `peer`.
    pub peer: u32,
}

/// In `FLOWS` and `PENDING`: `index` is the record's own, `named` finds what a `peer` names, `now` is in ticks.
///
/// A connection's own record dies of silence. Its answering half lives exactly as long as the connection: it has no age
/// (the data path refreshes the connection alone) and no timeout (its field holds the client's interface).
pub fn of_connection(record: &FlowRecord, index: u32, now: u32, named: impl FnOnce(u32) -> Option<Named>) -> Fate {
    if let Some(fate) = of_unpublished(record.control, now) {
        return fate;
    }
    if record.control.flags & flag::REPLY == 0 {
        return if record.is_expired(now) { Fate::Remove } else { Fate::Keep };
    }
    let answers = named(record.peer).is_some_and(|named| {
        named.control.state > State::Claimed as u8 && named.control.flags & flag::REPLY == 0 && named.peer == index + 1
    });
    if answers || age(record.control.seen, now) < ORPHAN_TICKS { Fate::Keep } else { Fate::Remove }
}

/// In `AFFINITY` and `FRAGMENTS`, whose records stand alone.
pub fn of_entry(record: &FlowRecord, now: u32) -> Fate {
    of_unpublished(record.control, now).unwrap_or(if record.is_expired(now) { Fate::Remove } else { Fate::Keep })
}

/// Of a place that holds no live record.
fn of_unpublished(control: Control, now: u32) -> Option<Fate> {
    if control.state == State::Free as u8 {
        return Some(Fate::Free);
    }
    let abandoned = age(control.seen, now) > CLAIMED_TICKS;
    (control.state == State::Claimed as u8).then_some(if abandoned { Fate::Remove } else { Fate::Claimed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1000;
    const INDEX: u32 = 40;

    fn record(state: State, flags: u8, age: u32, timeout: u16) -> FlowRecord {
        let control = Control { seen: NOW.wrapping_sub(age), state: state as u8, flags, generation: 1 };
        FlowRecord { control, timeout, peer: 8, ..FlowRecord::default() }
    }

    fn named(state: State, flags: u8, peer: u32) -> Option<Named> {
        Some(Named { control: Control { state: state as u8, flags, ..Control::default() }, peer })
    }

    #[test]
    fn connections_die_of_silence_and_answering_halves_with_their_connection() {
        use State::{Claimed, Established as E, Free, SynSent, TimeWait};
        const NAT: u8 = flag::NAT;
        const HALF: u8 = flag::NAT | flag::REPLY;
        let ahead = u32::MAX; // seen one tick after now
        let connection = named(E, NAT, INDEX + 1);
        let rows = [
            ("a free place", record(Free, 0, 0, 0), None, Fate::Free),
            ("free, with an old word", record(Free, 0, 500, 0), None, Fate::Free),
            ("just claimed", record(Claimed, 0, 0, 0), None, Fate::Claimed),
            ("claimed, not yet given up", record(Claimed, 0, 10, 0), None, Fate::Claimed),
            ("claimed by one that never came back", record(Claimed, 0, 11, 0), None, Fate::Remove),
            ("claimed a tick ahead of us", record(Claimed, 0, ahead, 0), None, Fate::Claimed),
            ("busy", record(E, flag::ACTIVE, 0, 5), None, Fate::Keep),
            ("silent up to its timeout", record(E, flag::ACTIVE, 5, 5), None, Fate::Keep),
            ("silent beyond it", record(E, flag::ACTIVE, 6, 5), None, Fate::Remove),
            ("seen a tick ahead of us", record(E, flag::ACTIVE, ahead, 5), None, Fate::Keep),
            ("half-open, silent", record(SynSent, flag::PENDING, 6, 5), None, Fate::Remove),
            ("closing, silent", record(TimeWait, NAT, 64, 60), None, Fate::Remove),
            (
                "translated, silent: its half does not keep it",
                record(E, NAT, 6, 5),
                named(E, HALF, INDEX + 1),
                Fate::Remove,
            ),
            ("half of a live connection", record(E, HALF, 900, 3), connection, Fate::Keep),
            ("half of a silent one: the connection goes first", record(E, HALF, 900, 3), connection, Fate::Keep),
            ("half of a removed one", record(E, HALF, 3, 0), named(Free, 0, INDEX + 1), Fate::Remove),
            ("half of one being written", record(E, HALF, 3, 0), named(Claimed, 0, INDEX + 1), Fate::Remove),
            ("half whose place was taken over", record(E, HALF, 3, 0), named(E, NAT, INDEX + 2), Fate::Remove),
            ("half that names a half", record(E, HALF, 3, 0), named(E, HALF, INDEX + 1), Fate::Remove),
            ("half that names nothing", record(E, HALF, 3, 0), None, Fate::Remove),
            ("new half, connection to come", record(E, HALF, 2, 0), None, Fate::Keep),
            ("new half a tick ahead of us", record(E, HALF, ahead, 0), None, Fate::Keep),
        ];
        for (name, record, named, expected) in rows {
            let found = |peer| if peer == 8 { named } else { None };
            assert_eq!(of_connection(&record, INDEX, NOW, found), expected, "{name}");
        }
    }

    #[test]
    fn entries_die_by_age_alone() {
        const GRACE: u32 = 600 / 16;
        use State::{Affinity, Claimed, Fragment, Free};
        let rows = [
            ("free", record(Free, 0, 0, 0), Fate::Free),
            ("claimed", record(Claimed, 0, 1, 0), Fate::Claimed),
            ("abandoned", record(Claimed, 0, 11, 0), Fate::Remove),
            // Beyond the timeout comes its grace (`flow::grace`).
            ("client known", record(Affinity, 0, 600 + GRACE, 600), Fate::Keep),
            ("client forgotten", record(Affinity, 0, 601 + GRACE, 600), Fate::Remove),
            ("fragments of an answer", record(Fragment, flag::REPLY, 5, 5), Fate::Keep),
            ("late fragments of an answer", record(Fragment, flag::REPLY, 6, 5), Fate::Remove),
        ];
        for (name, record, expected) in rows {
            assert_eq!(of_entry(&record, NOW), expected, "{name}");
        }
    }
}
