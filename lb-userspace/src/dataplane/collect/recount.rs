//! Whether the counters of connections in `NODE_LOADS` agree with the flow records. Pure.
//!
//! Whoever removes a record subtracts it from its node's counters a moment later. A daemon that is killed in between leaves
//! them one too high for ever, so every pass of the collector counts the records again. It cannot stop the traffic
//! meanwhile: a difference is believed only when it is the same in two passes one after the other, no counter moved in
//! either (but by the collector's own removals), and no connection began in the second. A node that never rests that long
//! keeps its difference, which is small, until it does.

use std::collections::BTreeMap;

use lb_common::{
    flow::flag,
    node::{NodeLoad, NodeStats},
};

/// Connections of a node slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Active ones.
    pub active: u64,
    /// Half-open ones.
    pub pending: u64,
}

impl Load {
    /// What a record with these flags adds.
    #[must_use]
    pub fn of_flags(flags: u8) -> Self {
        Self { active: u64::from(flags & flag::ACTIVE != 0), pending: u64::from(flags & flag::PENDING != 0) }
    }

    fn add(&mut self, other: Self) {
        self.active = self.active.wrapping_add(other.active);
        self.pending = self.pending.wrapping_add(other.pending);
    }

    fn subtract(&mut self, other: Self) {
        self.active = self.active.wrapping_sub(other.active);
        self.pending = self.pending.wrapping_sub(other.pending);
    }
}

impl From<NodeLoad> for Load {
    fn from(load: NodeLoad) -> Self {
        Self { active: load.active, pending: load.pending }
    }
}

/// What is to be added to the counters of a slot, so that they are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Node slot.
    pub slot: u16,
    /// To the active connections.
    pub active: i64,
    /// To the half-open ones.
    pub pending: i64,
}

/// The counting of one pass, and what the last one made suspicious.
#[derive(Clone, Debug, Default)]
pub struct Recount {
    /// Counters at the start of the pass, less what was removed since, by slot.
    expected: Vec<Load>,
    /// Records found, by slot.
    counted: Vec<Load>,
    /// Differences found in the last pass, with `NodeStats::connections` at its end.
    suspects: BTreeMap<u16, (Correction, u64)>,
}

impl Recount {
    /// A pass begins with these counters.
    pub fn begin(&mut self, loads: impl Iterator<Item = Load>) {
        self.expected.clear();
        self.expected.extend(loads);
        self.counted.clear();
        self.counted.resize(self.expected.len(), Load::default());
    }

    /// A live record of a slot was found.
    pub fn found(&mut self, slot: u16, load: Load) {
        if let Some(counted) = self.counted.get_mut(usize::from(slot)) {
            counted.add(load);
        }
    }

    /// The collector removed a record of a slot, and subtracted it.
    pub fn removed(&mut self, slot: u16, load: Load) {
        if let Some(expected) = self.expected.get_mut(usize::from(slot)) {
            expected.subtract(load);
        }
    }

    /// The pass is over, with these counters now. `connections`: of a slot, ever.
    pub fn end(
        &mut self,
        loads: impl Iterator<Item = Load>,
        mut connections: impl FnMut(u16) -> Option<u64>,
    ) -> Vec<Correction> {
        let before = std::mem::take(&mut self.suspects);
        let mut corrections = Vec::new();
        let slots = (0u16..).zip(self.expected.iter().zip(&self.counted).zip(loads));
        for (slot, ((expected, counted), load)) in slots.skip(1) {
            if load == *counted || load != *expected {
                continue;
            }
            let difference = |counted: u64, load: u64| counted.wrapping_sub(load).cast_signed();
            let active = difference(counted.active, load.active);
            let correction = Correction { slot, active, pending: difference(counted.pending, load.pending) };
            let Some(connections) = connections(slot) else { continue };
            if before.get(&slot) == Some(&(correction, connections)) {
                corrections.push(correction);
            } else {
                self.suspects.insert(slot, (correction, connections));
            }
        }
        corrections
    }
}

/// `NodeStats::connections` of all CPUs together.
#[must_use]
pub fn connections(stats: &[NodeStats]) -> u64 {
    stats.iter().map(|stats| stats.connections).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u16 = 1;

    /// One pass over a single slot: counter before, records found, removed by us, counter after, connections ever.
    fn pass(recount: &mut Recount, before: u64, found: u64, removed: u64, after: u64, ever: u64) -> Vec<i64> {
        let loads = |active| [Load::default(), Load { active, pending: 0 }].into_iter();
        recount.begin(loads(before));
        for _ in 0..found {
            recount.found(SLOT, Load::of_flags(flag::ACTIVE));
        }
        for _ in 0..removed {
            recount.removed(SLOT, Load::of_flags(flag::ACTIVE));
        }
        recount.end(loads(after), |_| Some(ever)).iter().map(|correction| correction.active).collect()
    }

    #[test]
    fn a_lasting_difference_is_corrected_and_noise_is_not() {
        type Pass = (u64, u64, u64, u64, u64);
        let rows: [(&str, Pass, Pass, &[i64]); 9] = [
            ("right", (2, 2, 0, 2, 9), (2, 2, 0, 2, 9), &[]),
            ("one too many", (3, 2, 0, 3, 9), (3, 2, 0, 3, 9), &[-1]),
            ("one too few", (1, 2, 0, 1, 9), (1, 2, 0, 1, 9), &[1]),
            ("below zero", (u64::MAX, 0, 0, u64::MAX, 9), (u64::MAX, 0, 0, u64::MAX, 9), &[1]),
            ("removals of our own do not matter", (5, 2, 2, 3, 9), (3, 1, 1, 2, 9), &[-1]),
            ("another difference the second time", (3, 2, 0, 3, 9), (3, 1, 0, 3, 9), &[]),
            ("a connection began in the second pass", (3, 2, 0, 3, 9), (3, 2, 0, 3, 10), &[]),
            ("the counter moved in the first", (3, 2, 0, 4, 9), (4, 3, 0, 4, 9), &[]),
            ("the counter moved in the second", (3, 2, 0, 3, 9), (3, 2, 0, 2, 9), &[]),
        ];
        for (name, first, second, expected) in rows {
            let mut recount = Recount::default();
            assert_eq!(pass(&mut recount, first.0, first.1, first.2, first.3, first.4), [0i64; 0], "{name}: first");
            let found = pass(&mut recount, second.0, second.1, second.2, second.3, second.4);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn half_open_connections_are_corrected_too_and_slot_zero_never_is() {
        let mut recount = Recount::default();
        let loads = || [Load { active: 7, pending: 7 }, Load { active: 0, pending: 4 }].into_iter();
        for round in 0..2 {
            recount.begin(loads());
            recount.found(SLOT, Load::of_flags(flag::PENDING | flag::NAT));
            recount.found(9, Load::of_flags(flag::PENDING));
            let found = recount.end(loads(), |_| Some(0));
            let expected = [Correction { slot: SLOT, active: 0, pending: -3 }];
            assert_eq!(found, &expected[..round], "round {round}");
        }
    }
}
