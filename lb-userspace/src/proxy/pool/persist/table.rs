//! A table of sessions: which node each was given. Shared by all threads and by all pools of a kind; bounded, the session
//! that was used longest ago gives way; exported and imported for listing and for peers.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv6Addr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lb_common::flow::mix64;
use serde::{Deserialize, Serialize};

use super::super::shared::lock;
use crate::control::proxy::pool::PersistenceKind;

/// Parts with a lock of their own. A table's size is rounded up to a multiple of it.
const SHARDS: usize = 16;

/// Sessions of a shard that lbd is yet to be told of; those that find no room are told when they are used next.
const UNTOLD: usize = 4096;

/// Sessions past their time that each new one takes away.
const SWEEP: usize = 2;

/// No entry.
const NONE: u32 = u32::MAX;

/// The kinds of persistence that need a table: one table each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// By client address.
    SourceAddress,
    /// By the application's cookie.
    ApplicationCookie,
    /// By a header field.
    Header,
    /// By a parameter of the query.
    Query,
    /// By a servlet container's session.
    Jsession,
    /// By ASP.NET's session.
    AspNet,
    /// By TLS session.
    TlsSession,
}

impl TableKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SourceAddress,
        Self::ApplicationCookie,
        Self::Header,
        Self::Query,
        Self::Jsession,
        Self::AspNet,
        Self::TlsSession,
    ];

    /// The table of a kind of persistence; `None`: the client remembers.
    #[must_use]
    pub fn of(kind: &PersistenceKind) -> Option<Self> {
        Some(match kind {
            PersistenceKind::SourceAddress { .. } => Self::SourceAddress,
            PersistenceKind::Cookie { .. } => return None,
            PersistenceKind::ApplicationCookie(_) => Self::ApplicationCookie,
            PersistenceKind::Header(_) => Self::Header,
            PersistenceKind::Query(_) => Self::Query,
            PersistenceKind::Jsession => Self::Jsession,
            PersistenceKind::AspNet => Self::AspNet,
            PersistenceKind::TlsSession => Self::TlsSession,
        })
    }
}

impl TableKind {
    /// A session's id for people: a session that an application made stays its secret.
    pub(in super::super) fn show(self, id: u128) -> String {
        match self {
            Self::SourceAddress => Ipv6Addr::from(id).to_canonical().to_string(),
            Self::ApplicationCookie | Self::Header | Self::Query | Self::Jsession | Self::AspNet | Self::TlsSession => {
                format!("{id:032x}")
            }
        }
    }
}

/// A session of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session {
    /// Hash of the pool's name under the plan's secret.
    pub pool: u64,
    /// An IPv6 or mapped IPv4 network, a TLS session, or the hash of the application's id under the plan's secret.
    pub id: u128,
}

/// A session and its node, as they are exported: the same on every machine that has the plan's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// The session.
    pub session: Session,
    /// Hash of the node's name under the plan's secret.
    pub node: u64,
    /// How long it is still remembered if it is not used.
    pub left: Duration,
}

/// A table of sessions.
#[derive(Debug)]
pub struct Table {
    shards: [Mutex<Shard>; SHARDS],
    /// Most entries of a shard.
    most: AtomicUsize,
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), most: AtomicUsize::new(0) }
    }
}

impl Table {
    /// Sets its size. What has no room any more is forgotten, longest unused first.
    pub(in super::super) fn set_size(&self, entries: u32) {
        let most = (entries as usize).div_ceil(SHARDS);
        if self.most.swap(most, Relaxed) == most {
            return;
        }
        for shard in &self.shards {
            let mut shard = lock(shard);
            while shard.places.len() > most {
                shard.remove_oldest();
            }
            if most == 0 {
                *shard = Shard::default();
            }
        }
    }

    /// The node of a session, which is then remembered for another `timeout`.
    pub(super) fn find(&self, session: Session, timeout: Duration, now: Duration) -> Option<u64> {
        let mut shard = lock(self.shard(session));
        let place = *shard.places.get(&session)?;
        if shard.entries[place as usize].until <= now {
            shard.remove(place);
            return None;
        }
        let entry = &mut shard.entries[place as usize];
        entry.until = now + timeout;
        let (node, is_due) = (entry.node, entry.is_due(timeout, now));
        if is_due {
            shard.tell(place, now);
        }
        shard.touch(place);
        Some(node)
    }

    /// Remembers a session's node.
    pub(super) fn learn(&self, session: Session, node: u64, timeout: Duration, now: Duration) {
        let most = self.most.load(Relaxed);
        if most == 0 {
            return;
        }
        let mut shard = lock(self.shard(session));
        let known = shard.places.get(&session).map(|place| &shard.entries[*place as usize]);
        let is_news = known.is_none_or(|entry| entry.node != node || entry.is_due(timeout, now));
        let place = shard.put(session, node, now + timeout, (most, now));
        if is_news {
            shard.tell(place, now);
        }
    }

    /// Adds up to `most` sessions that were learnt, or used a quarter of their time after they were told last, since the call before.
    pub(in super::super) fn take_untold(&self, most: usize, now: Duration, out: &mut Vec<Record>) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let room = most.saturating_sub(out.len()).min(shard.untold.len());
            let taken: Vec<_> = shard.untold.drain(..room).collect();
            out.extend(taken.iter().filter_map(|session| shard.record(*session, now)));
        }
    }

    /// How many sessions it holds, those past their time included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).places.len()).sum()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all sessions.
    pub fn clear(&self) {
        for shard in &self.shards {
            *lock(shard) = Shard::default();
        }
    }

    /// Up to `most` sessions, in no order. Threads are held up for one shard at a time.
    #[must_use]
    pub fn export(&self, most: usize, now: Duration) -> Vec<Record> {
        let mut records = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let live = shard.places.values().map(|place| &shard.entries[*place as usize]).filter(|e| e.until > now);
            let record = |e: &Entry| Record { session: e.session, node: e.node, left: e.until.saturating_sub(now) };
            records.extend(live.take(most - records.len()).map(record));
        }
        records
    }

    /// Takes in what another machine, or an earlier worker, exported. Of what is known here, too, that which was used last stays.
    pub fn import(&self, records: &[Record], now: Duration) {
        let most = self.most.load(Relaxed);
        if most == 0 {
            return;
        }
        for record in records {
            let mut shard = lock(self.shard(record.session));
            let until = now + record.left;
            let known = shard.places.get(&record.session).map(|place| shard.entries[*place as usize].until);
            if known.is_none_or(|known| known < until) {
                let place = shard.put(record.session, record.node, until, (most, now));
                // Whoever exported it has told of it.
                shard.entries[place as usize].told = now;
            }
        }
    }

    fn shard(&self, session: Session) -> &Mutex<Shard> {
        let hash = mix64(session.id as u64 ^ mix64((session.id >> 64) as u64 ^ session.pool));
        &self.shards[hash as usize % SHARDS]
    }
}

/// A part of a table: entries in a slab, linked from the one used last to the one unused longest.
#[derive(Debug)]
struct Shard {
    places: HashMap<Session, u32>,
    entries: Vec<Entry>,
    /// Head of the list of free places, linked by `older`.
    free: u32,
    newest: u32,
    oldest: u32,
    /// What lbd is yet to be told of, oldest first.
    untold: VecDeque<Session>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    session: Session,
    node: u64,
    until: Duration,
    /// When it was put among what is told.
    told: Duration,
    newer: u32,
    older: u32,
}

impl Entry {
    /// Whether lbd is to be told again that it is used.
    fn is_due(&self, timeout: Duration, now: Duration) -> bool {
        now.saturating_sub(self.told) > timeout / 4
    }
}

impl Default for Shard {
    fn default() -> Self {
        let (places, entries, untold) = (HashMap::new(), Vec::new(), VecDeque::new());
        Self { places, entries, free: NONE, newest: NONE, oldest: NONE, untold }
    }
}

impl Shard {
    fn oldest(&self) -> Option<&Entry> {
        self.entries.get(self.oldest as usize)
    }

    /// Remembers a session's node as the one used last, in a shard of at most `most` sessions. Returns its place.
    fn put(&mut self, session: Session, node: u64, until: Duration, (most, now): (usize, Duration)) -> u32 {
        if let Some(place) = self.places.get(&session).copied() {
            let entry = &mut self.entries[place as usize];
            (entry.node, entry.until) = (node, until);
            self.touch(place);
            return place;
        }
        for _ in 0..SWEEP {
            if self.oldest().is_some_and(|entry| entry.until <= now) {
                self.remove_oldest();
            }
        }
        if self.places.len() >= most {
            self.remove_oldest();
        }
        self.insert(session, node, until)
    }

    /// Has lbd told of a session, when there is room.
    fn tell(&mut self, place: u32, now: Duration) {
        if self.untold.len() < UNTOLD {
            let entry = &mut self.entries[place as usize];
            entry.told = now;
            self.untold.push_back(entry.session);
        }
    }

    /// A session, unless it has been forgotten, or its time is over.
    fn record(&self, session: Session, now: Duration) -> Option<Record> {
        let entry = &self.entries[*self.places.get(&session)? as usize];
        (entry.until > now).then(|| Record { session, node: entry.node, left: entry.until.saturating_sub(now) })
    }

    fn insert(&mut self, session: Session, node: u64, until: Duration) -> u32 {
        let entry = Entry { session, node, until, told: Duration::ZERO, newer: NONE, older: NONE };
        let place = if self.free == NONE {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let place = self.free;
            self.free = self.entries[place as usize].older;
            self.entries[place as usize] = entry;
            place
        };
        self.places.insert(session, place);
        self.link(place);
        place
    }

    fn remove_oldest(&mut self) {
        if self.oldest != NONE {
            self.remove(self.oldest);
        }
    }

    fn remove(&mut self, place: u32) {
        self.unlink(place);
        let entry = &mut self.entries[place as usize];
        entry.older = self.free;
        self.free = place;
        let session = entry.session;
        self.places.remove(&session);
    }

    fn touch(&mut self, place: u32) {
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Puts an entry before all others.
    fn link(&mut self, place: u32) {
        let next = self.newest;
        self.entries[place as usize].newer = NONE;
        self.entries[place as usize].older = next;
        match self.entries.get_mut(next as usize) {
            Some(next) => next.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, .. } = self.entries[place as usize];
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}
