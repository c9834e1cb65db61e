//! What the threads of a worker share of pools: limits, passive monitoring, queues. Relaxed atomics on cache lines of their
//! own; locks only where threads are made, plans change, or a request has to wait.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    events::Events,
    persist::table::{self, Record, Table, TableKind},
    queue::Queue,
    ring::RingCache,
};
use crate::control::proxy::{
    ProxyEvent, ProxyPlan,
    memory::Session,
    pool::{Failure, NodeChange, NodeEvent, Passive},
    rule::RuleEvent,
};

/// While no node of a pool is live, nodes that passive monitoring took out are tried this long after their last failure,
/// though `node_fail_time` is not over.
pub(super) const LAST_RESORT: Duration = Duration::from_secs(1);

/// What a worker's threads share of its pools. One per worker.
#[derive(Debug, Default)]
pub struct Shared {
    pools: Mutex<BTreeMap<String, Weak<SharedPool>>>,
    nodes: Mutex<BTreeMap<(String, String), Weak<SharedNode>>>,
    tables: [Arc<Table>; TableKind::ALL.len()],
    events: Arc<Events>,
}

impl Shared {
    /// For a worker that starts.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What passive monitoring did and what rules had to say since the last call, oldest first; and how many events had no
    /// room.
    pub fn take_events(&self) -> (Vec<ProxyEvent>, u64) {
        self.events.take()
    }

    /// Keeps what a rule has to say until lbd takes it.
    pub(in crate::proxy) fn tell(&self, event: RuleEvent) {
        self.events.push(ProxyEvent::Rule(event));
    }

    /// Takes a node that passive monitoring took out back in: an operator's word. Whether it was out.
    pub fn bring_back(&self, pool: &str, node: &str, now: Duration) -> bool {
        let node = lock(&self.nodes).get(&(pool.to_owned(), node.to_owned())).and_then(Weak::upgrade);
        node.is_some_and(|node| node.back(now))
    }

    /// The persistence table of a kind.
    #[must_use]
    pub fn table(&self, kind: TableKind) -> &Arc<Table> {
        &self.tables[kind as usize]
    }

    /// Up to about `most` sessions that lbd has not been told of as they are now.
    #[must_use]
    pub fn take_sessions(&self, most: usize, now: Duration) -> Vec<Session> {
        let (mut sessions, mut records) = (Vec::new(), Vec::new());
        for (kind, table) in (0..).zip(&self.tables) {
            table.take_untold(most - sessions.len(), now, &mut records);
            sessions.extend(records.drain(..).map(|record| Session {
                kind,
                pool: record.session.pool,
                id: record.session.id,
                node: record.node,
                left: record.left,
            }));
        }
        sessions
    }

    /// Takes in sessions of another machine, or of an earlier worker. Those whose kind no pool has are dropped.
    pub fn import(&self, sessions: &[Session], now: Duration) {
        for (kind, table) in (0_u8..).zip(&self.tables) {
            let of_kind = sessions.iter().filter(|session| session.kind == kind);
            let records = of_kind.map(|session| Record {
                session: table::Session { pool: session.pool, id: session.id },
                node: session.node,
                left: session.left,
            });
            table.import(&records.collect::<Vec<_>>(), now);
        }
    }

    /// Gives each table the size of the largest that a pool of the plan asks for. To be called once for each plan, before threads
    /// are told of it.
    pub fn size_tables(&self, plan: &ProxyPlan) {
        let mut sizes = [0; TableKind::ALL.len()];
        for persistence in plan.pools.values().filter_map(|pool| pool.persistence.as_ref()) {
            if let Some(kind) = TableKind::of(&persistence.kind) {
                sizes[kind as usize] = persistence.max_entries.max(sizes[kind as usize]);
            }
        }
        for (table, size) in self.tables.iter().zip(sizes) {
            table.set_size(size);
        }
    }

    pub(super) fn pool(&self, name: &str) -> Arc<SharedPool> {
        let make = || SharedPool {
            name: name.to_owned(),
            epoch: AtomicU64::new(1),
            queue: Queue::default(),
            ring: RingCache::default(),
            events: Arc::clone(&self.events),
        };
        entry(&mut lock(&self.pools), name.to_owned(), make)
    }

    pub(super) fn node(&self, pool: &Arc<SharedPool>, name: &str) -> Arc<SharedNode> {
        let make = || SharedNode::new(Arc::clone(pool), name);
        entry(&mut lock(&self.nodes), (pool.name.clone(), name.to_owned()), make)
    }
}

/// The value at `key`, which is made when no thread holds it any more; what none holds is forgotten.
fn entry<K: Ord, V>(map: &mut BTreeMap<K, Weak<V>>, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    if let Some(value) = map.get(&key).and_then(Weak::upgrade) {
        return value;
    }
    map.retain(|_, value| value.strong_count() > 0);
    let value = Arc::new(make());
    map.insert(key, Arc::downgrade(&value));
    value
}

/// What is behind the lock: no code that holds one of these panics half-way through a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What threads share of a pool.
#[derive(Debug)]
pub(super) struct SharedPool {
    name: String,
    /// Grows when passive monitoring changes which nodes are live.
    pub(super) epoch: AtomicU64,
    pub(super) queue: Queue,
    pub(super) ring: RingCache,
    events: Arc<Events>,
}

/// What threads share of a node.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct SharedNode {
    /// When it is tried again, in nanoseconds; 0: it is in.
    out_until: AtomicU64,
    /// When it last failed while out.
    failed_at: AtomicU64,
    /// Whether a request is trying it now.
    probing: AtomicBool,
    /// Failures in a row, by `Failure`.
    in_a_row: [AtomicU32; 4],
    /// When it came up, in nanoseconds; 0: it was up from the start.
    up_since: AtomicU64,
    /// Leases while it has `max_connections`.
    in_use: AtomicU32,
    /// Requests that wait for this node and no other.
    pub(super) wanted: AtomicU32,
    pub(super) pool: Arc<SharedPool>,
    name: String,
}

impl SharedNode {
    fn new(pool: Arc<SharedPool>, name: &str) -> Self {
        Self {
            out_until: AtomicU64::new(0),
            failed_at: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            in_a_row: Default::default(),
            up_since: AtomicU64::new(0),
            in_use: AtomicU32::new(0),
            wanted: AtomicU32::new(0),
            pool,
            name: name.to_owned(),
        }
    }

    /// Whether passive monitoring took it out, or has it on probation.
    #[inline]
    pub(super) fn is_out(&self) -> bool {
        self.out_until.load(Relaxed) != 0
    }

    /// When a request may try it: zero when it is in.
    pub(super) fn out_until(&self) -> Duration {
        Duration::from_nanos(self.out_until.load(Relaxed))
    }

    /// When a request may try it though its time is not over, because no node of the pool is live.
    pub(super) fn last_resort_at(&self) -> Duration {
        (Duration::from_nanos(self.failed_at.load(Relaxed)) + LAST_RESORT).min(self.out_until())
    }

    /// When it came up; zero: long ago.
    pub(super) fn up_since(&self) -> Duration {
        Duration::from_nanos(self.up_since.load(Relaxed))
    }

    /// It is up from `now` on: it starts slowly.
    pub(super) fn came_up(&self, now: Duration) {
        self.up_since.fetch_max(nanos(now), Relaxed);
        self.pool.epoch.fetch_add(1, Relaxed);
    }

    /// Makes the caller the one request that tries it; [`Self::probed`] ends that.
    pub(super) fn start_probe(&self) -> bool {
        !self.probing.swap(true, Relaxed)
    }

    /// The request that tried it is over.
    pub(super) fn probed(&self) {
        self.probing.store(false, Relaxed);
    }

    /// A failure. `probe`: of the request that tried it while out.
    pub(super) fn failed(&self, failure: Failure, passive: &Passive, probe: bool, now: Duration) {
        if passive.node_fail_time.is_zero() {
            return;
        }
        let (most, counter) = self.limit(failure, passive);
        if most == 0 {
            return;
        }
        let until = nanos(now + passive.node_fail_time).max(1);
        if probe {
            self.failed_at.store(nanos(now), Relaxed);
            self.out_until.store(until, Relaxed);
            self.pool.epoch.fetch_add(1, Relaxed);
            return;
        }
        let in_a_row = counter.fetch_add(1, Relaxed) + 1;
        if in_a_row < most || self.out_until.compare_exchange(0, until, Relaxed, Relaxed).is_err() {
            return;
        }
        self.failed_at.store(nanos(now), Relaxed);
        self.pool.epoch.fetch_add(1, Relaxed);
        self.tell(NodeChange::Out { reason: failure, in_a_row });
    }

    /// Something worked: failures of this kind are no longer in a row.
    #[inline]
    pub(super) fn worked(&self, failure: Failure) {
        let counter = &self.in_a_row[failure as usize];
        // Read first: the line stays shared while all is well.
        if counter.load(Relaxed) != 0 {
            counter.store(0, Relaxed);
        }
    }

    /// It serves again. Whether it was out.
    pub(super) fn back(&self, now: Duration) -> bool {
        for counter in &self.in_a_row {
            counter.store(0, Relaxed);
        }
        if self.out_until.swap(0, Relaxed) == 0 {
            return false;
        }
        self.came_up(now);
        self.tell(NodeChange::Back);
        self.pool.queue.call_first();
        true
    }

    fn limit(&self, failure: Failure, passive: &Passive) -> (u32, &AtomicU32) {
        let most = match failure {
            Failure::Connect => passive.connect_failures,
            Failure::EarlyClose => passive.early_closes,
            Failure::ReplyTimeout => passive.reply_timeouts,
            Failure::Status => passive.status_failures,
        };
        (most, &self.in_a_row[failure as usize])
    }

    fn tell(&self, change: NodeChange) {
        let event = NodeEvent { pool: self.pool.name.clone(), node: self.name.clone(), change };
        self.pool.events.push(ProxyEvent::Node(event));
    }

    /// Whether it has fewer connections than `most`.
    #[inline]
    pub(super) fn has_room(&self, most: u32) -> bool {
        self.in_use.load(Relaxed) < most
    }

    /// Whether a request waits for it in particular.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed) != 0
    }

    /// Takes one of `most` connections.
    pub(super) fn take(&self, most: u32) -> bool {
        self.in_use.fetch_update(Relaxed, Relaxed, |used| (used < most).then_some(used + 1)).is_ok()
    }

    /// Gives a connection back, to who waits for it.
    pub(super) fn give_back(&self) {
        self.in_use.fetch_sub(1, Relaxed);
        self.pool.queue.call(self);
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
