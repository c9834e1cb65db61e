//! One walk over all flow tables, in slices: removes the dead, counts the living.
//!
//! Half-open connections come first: a connection moves from `PENDING` to `FLOWS` and never back, so one that exists all the
//! time is seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::offset_of,
    ops::Range,
    sync::Arc,
};

use lb_common::{
    conntrack::State,
    flow::{Control, FlowRecord, flag},
    node::Node,
};

use super::{
    fate::{self, Fate, Named},
    recount::{Load, Recount, connections},
};
use crate::{
    control::view::TableUse,
    dataplane::{maps::Maps, table::Table},
};

/// The tables in the order of the walk.
const TABLES: [(&str, Kind); 5] = [
    ("PROOFS", Kind::Proofs),
    ("PENDING", Kind::HalfOpen),
    ("FLOWS", Kind::Connections),
    ("AFFINITY", Kind::Entries),
    ("FRAGMENTS", Kind::Entries),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Which nobody removes: they are only counted.
    Proofs,
    HalfOpen,
    Connections,
    Entries,
}

/// In `FLOWS`, one of so many answering halves is compared with its connection in a pass: that costs a cache miss, and
/// orphans are rare there, because whoever removes a connection removes both halves. `PENDING` evicts, and is small.
const ORPHAN_PASSES: u32 = 16;

/// Neighbouring places that are looked at in the same pass.
const ORPHAN_PLACES: u32 = 1024;

/// Word of a record with node slot and timeout, and word with its peer.
const NODE_WORD: usize = offset_of!(FlowRecord, node) / 8;
const PEER_WORD: usize = offset_of!(FlowRecord, peer) / 8;
/// Word of a node with its generation, and where in it.
const GENERATION_WORD: usize = offset_of!(Node, generation) / 8;
const GENERATION_SHIFT: usize = offset_of!(Node, generation) % 8 * 8;

/// Places of a table.
fn length(maps: &Maps, name: &str) -> u32 {
    if name == "PROOFS" { maps.proofs.len() } else { table(maps, name).len() }
}

fn table<'m>(maps: &'m Maps, name: &str) -> &'m Table<FlowRecord> {
    match name {
        "PENDING" => &maps.pending,
        "AFFINITY" => &maps.affinity,
        "FRAGMENTS" => &maps.fragments,
        _ => &maps.flows,
    }
}

/// What a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Live records and places, by table.
    pub tables: BTreeMap<String, TableUse>,
    /// Node slots with translated connections.
    pub translated: BTreeSet<u16>,
    /// Records that were removed.
    pub removed: u64,
}

/// A walk under way.
#[derive(Debug)]
pub struct Pass {
    maps: Arc<Maps>,
    /// Which of [`TABLES`].
    table: usize,
    /// The next record in it.
    index: u32,
    /// Live records in it so far.
    live: u64,
    /// Which passes were before this one.
    number: u32,
    /// Whether a node slot has translated connections.
    translated: Vec<bool>,
    findings: Findings,
    recount: Recount,
}

impl Pass {
    /// At the start.
    #[must_use]
    pub fn new(maps: Arc<Maps>) -> Self {
        let (findings, recount) = (Findings::default(), Recount::default());
        let translated = vec![false; maps.nodes.len() as usize];
        let mut pass = Self { maps, table: 0, index: 0, live: 0, number: 0, translated, findings, recount };
        pass.begin();
        pass
    }

    fn begin(&mut self) {
        (self.table, self.index, self.live) = (0, 0, 0);
        self.findings = Findings::default();
        self.translated.fill(false);
        self.recount.begin(loads(&self.maps));
    }

    /// All places of all tables.
    #[must_use]
    pub fn places(&self) -> u64 {
        TABLES.iter().map(|(name, _)| u64::from(length(&self.maps, name))).sum()
    }

    /// Walks over the next places, at most so many. Says what was found once the walk is over; the next call begins anew.
    pub fn advance(&mut self, places: u32, now: u32) -> Option<Findings> {
        let mut left = places;
        while left > 0 {
            let Some((name, kind)) = TABLES.get(self.table) else { return Some(self.end()) };
            let maps = Arc::clone(&self.maps);
            let (table, length) = (table(&maps, name), length(&maps, name));
            let end = length.min(self.index.saturating_add(left));
            match kind {
                Kind::Proofs => self.live += maps.live_proofs(self.index..end, now),
                Kind::HalfOpen => self.connections(table, self.index..end, now, |_| true),
                Kind::Connections => {
                    let turn = self.number % ORPHAN_PASSES;
                    let suspects = |index: u32| index / ORPHAN_PLACES % ORPHAN_PASSES == turn;
                    self.connections(table, self.index..end, now, suspects);
                }
                Kind::Entries => self.entries(table, self.index..end, now),
            }
            left -= end - self.index;
            self.index = end;
            if end == length {
                let used = TableUse { used: self.live, capacity: u64::from(end) };
                self.findings.tables.insert((*name).to_owned(), used);
                (self.table, self.index, self.live) = (self.table + 1, 0, 0);
            }
        }
        (self.table == TABLES.len()).then(|| self.end())
    }

    fn end(&mut self) -> Findings {
        let stats = |slot: u16| Some(connections(&self.maps.node_stats.get(&slot.into(), 0).ok()?));
        for correction in self.recount.end(loads(&self.maps), stats) {
            tracing::info!(?correction, "the connections of a node slot were miscounted");
            self.maps.node_loads.add_active(correction.slot.into(), correction.active);
            self.maps.node_loads.add_pending(correction.slot.into(), correction.pending);
        }
        let mut findings = std::mem::take(&mut self.findings);
        let translated = (0u16..).zip(&self.translated).filter(|(_, translated)| **translated);
        findings.translated = translated.map(|(slot, _)| slot).collect();
        self.number = self.number.wrapping_add(1);
        self.begin();
        findings
    }

    /// In `FLOWS` and `PENDING`. `suspects`: where answering halves are compared with their connections.
    fn connections(&mut self, table: &Table<FlowRecord>, range: Range<u32>, now: u32, suspects: impl Fn(u32) -> bool) {
        for index in range {
            let control = table.control(index);
            if control.state == State::Free as u8 {
                continue;
            }
            let half = control.flags & flag::REPLY != 0 && control.state > State::Claimed as u8;
            if half && !suspects(index) {
                self.live += 1;
                continue;
            }
            let record = without_key(table, index, control);
            match fate::of_connection(&record, index, now, |peer| named(table, peer)) {
                Fate::Free | Fate::Claimed => {}
                Fate::Keep => self.note(&record),
                Fate::Remove => {
                    // Else it came back to life under our hands.
                    if !self.remove(table, index, &record) {
                        self.note(&record);
                    }
                }
            }
        }
    }

    /// In `AFFINITY` and `FRAGMENTS`.
    fn entries(&mut self, table: &Table<FlowRecord>, range: Range<u32>, now: u32) {
        for index in range {
            let control = table.control(index);
            if control.state == State::Free as u8 {
                continue;
            }
            let record = without_key(table, index, control);
            match fate::of_entry(&record, now) {
                Fate::Free | Fate::Claimed => {}
                Fate::Keep => self.live += 1,
                Fate::Remove => {
                    self.findings.removed += u64::from(table.exchange_control(index, control, Control::default()));
                }
            }
        }
    }

    /// A live record.
    fn note(&mut self, record: &FlowRecord) {
        self.live += 1;
        if record.control.flags & flag::REPLY != 0 || !self.is_current(record) {
            return;
        }
        self.recount.found(record.node, Load::of_flags(record.control.flags));
        if record.control.flags & flag::NAT != 0 {
            self.translated[usize::from(record.node)] = true;
        }
    }

    /// Whether the record's node slot is still the node's that it was placed on.
    fn is_current(&self, record: &FlowRecord) -> bool {
        let slot = u32::from(record.node);
        let nodes = &self.maps.nodes;
        slot < nodes.len()
            && (nodes.load(slot, GENERATION_WORD) >> GENERATION_SHIFT) as u16 == record.control.generation
    }

    /// Frees a record if it still is as it was read, and says whether it was. With a connection goes its answering half, which
    /// may have been counted among the living already.
    fn remove(&mut self, table: &Table<FlowRecord>, index: u32, record: &FlowRecord) -> bool {
        // Looked at before the connection is freed: afterwards its place, and so the number, may be another one's.
        let half = half(table, index, record);
        if !table.exchange_control(index, record.control, Control::default()) {
            return false;
        }
        self.doubt(table, index);
        self.findings.removed += 1;
        let is_connection = record.control.flags & flag::REPLY == 0 && record.control.state > State::Claimed as u8;
        if is_connection && self.is_current(record) {
            self.forget(record);
        }
        // The exchange fails when the data path was faster.
        if let Some((at, control)) = half
            && table.exchange_control(at, control, Control::default())
        {
            self.doubt(table, at);
            self.findings.removed += 1;
            self.live = self.live.saturating_sub(u64::from(at < index));
        }
        true
    }

    /// A record is free: nothing is forwarded by its digest any more. (Another flow that has its place already only looks at
    /// its own record once more.)
    fn doubt(&self, table: &Table<FlowRecord>, index: u32) {
        if std::ptr::eq(table, &raw const self.maps.flows) {
            self.maps.digests.doubt(index);
        }
    }

    /// Takes a removed connection out of its node's loads. Those of a node that has left its slot were dropped with it.
    fn forget(&mut self, record: &FlowRecord) {
        let load = Load::of_flags(record.control.flags);
        if load.active != 0 {
            self.maps.node_loads.add_active(record.node.into(), -1);
        }
        if load.pending != 0 {
            self.maps.node_loads.add_pending(record.node.into(), -1);
        }
        self.recount.removed(record.node, load);
    }
}

fn loads(maps: &Maps) -> impl Iterator<Item = Load> + '_ {
    (0..maps.node_loads.len()).map(|slot| maps.node_loads.read(slot).into())
}

/// What matters of a record. The control word was read first: when it is still the same at the exchange, the rest belongs
/// to it.
fn without_key(table: &Table<FlowRecord>, index: u32, control: Control) -> FlowRecord {
    let [n0, n1, v0, v1, p0, p1, t0, t1] = table.load(index, NODE_WORD).to_ne_bytes();
    FlowRecord {
        control,
        node: u16::from_ne_bytes([n0, n1]),
        virtual_server: u16::from_ne_bytes([v0, v1]),
        nat_port: u16::from_ne_bytes([p0, p1]),
        timeout: u16::from_ne_bytes([t0, t1]),
        peer: table.load(index, PEER_WORD) as u32,
        ..FlowRecord::default()
    }
}

/// The record that a `peer` names.
fn named(table: &Table<FlowRecord>, peer: u32) -> Option<Named> {
    let index = peer.checked_sub(1).filter(|index| *index < table.len())?;
    let control = table.control(index);
    Some(Named { control, peer: table.load(index, PEER_WORD) as u32 })
}

/// Where the answering half of a translated connection is, and its control word.
pub(in crate::dataplane) fn half(table: &Table<FlowRecord>, index: u32, record: &FlowRecord) -> Option<(u32, Control)> {
    if record.control.flags & (flag::NAT | flag::REPLY) != flag::NAT {
        return None;
    }
    let half = named(table, record.peer)?;
    let answers = half.control.flags & flag::REPLY != 0 && half.control.state > State::Claimed as u8;
    (answers && half.peer == index + 1).then_some((record.peer - 1, half.control))
}
