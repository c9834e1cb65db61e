//! Pools of the L7 proxy: which node gets a request or a connection, what its outcome says of the node, and whether it is
//! tried again.
//!
//! [`Pools`] belongs to one worker thread and is compiled anew from each plan; what is known of nodes that stay (open
//! requests, response times, places in turn) goes on. What all threads must agree on (limits of connections, passive
//! monitoring, queues, persistence tables) lives in [`Shared`], of which a worker has one. Nothing here knows sockets or clocks: `now` is
//! any monotonic time that all threads share, randomness is an argument. The engine (`proxy::serve`, `proxy::upstream`)
//! calls [`Pools::choose`], reports what happened to the [`Lease`], and asks [`Pool::after_failure`] whether to go on.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use crate::{control::proxy as plan, proxy::facts::Facts};

pub mod queue;
pub mod retry;

mod choose;
mod compile;
mod events;
mod key;
mod latency;
mod lease;
mod node;
mod persist;
mod ready;
mod ring;
mod schedule;
mod shared;

#[cfg(test)]
mod tests;

pub use lease::Lease;
pub use node::{Node, NodeId, NodeSet};
pub use persist::table::{Record, Session, Table, TableKind};
pub use shared::Shared;

use choose::Request;
use key::Hashes;
use persist::Persistence;
use queue::Ticket;
use ready::Ready;
use retry::Budget;
use schedule::Turn;
use shared::SharedPool;

/// Failure pools of failure pools that are followed.
const MAX_FAILURE_POOLS: usize = 8;

/// A pool's place in one [`Pools`]: means nothing in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(u16);

impl PoolId {
    /// Its place in [`Pools::iter`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The pool at that position of the plan that the `Pools` is compiled from: for rules, which are compiled from it, too.
    #[must_use]
    pub(super) fn at(position: u16) -> Self {
        Self(position)
    }
}

/// One of the worker's threads.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

/// Why no node was chosen.
#[derive(Debug)]
pub enum NoNode {
    /// No node of the pool, nor of its failure pools, is live.
    Down,
    /// Every live node was tried for this request and failed.
    AllTried,
    /// Every live node has as many connections as it may; with a ticket the request may wait for one that becomes free:
    /// await it until [`Ticket::deadline`], then [`Pools::choose_with`].
    Busy(Option<Ticket>),
    /// The client's node is gone and the pool does not choose another.
    Gone(plan::pool::NodeGone),
}

/// A session of a persistence table, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KnownSession {
    /// Its pool.
    pub pool: String,
    /// The client's network, or a hash that stands for the application's id.
    pub id: String,
    /// Its node; `None`: the pool has it no longer.
    pub node: Option<String>,
    /// How long it is still remembered if it is not used.
    pub left: Duration,
}

/// The pools of one thread. Ids and names hold for this value only: a request keeps the `Rc<Pools>` it began with.
#[derive(Debug)]
pub struct Pools {
    /// Sorted by name.
    pools: Vec<Rc<Pool>>,
    shared: Arc<Shared>,
    thread: Thread,
}

/// A pool of one thread.
#[derive(Debug)]
pub struct Pool {
    id: PoolId,
    name: String,
    settings: plan::pool::Pool,
    nodes: Vec<Node>,
    ready: RefCell<Ready>,
    state: Rc<PoolState>,
    shared: Arc<SharedPool>,
    failure_pool: Option<PoolId>,
    hashes: Hashes,
    /// Of consistent hash.
    ring: Option<Arc<Vec<u16>>>,
    persistence: Option<Persistence>,
}

/// What a thread knows of a pool from one plan to the next.
#[derive(Debug)]
struct PoolState {
    turn: Turn,
    budget: RefCell<Budget>,
}

impl Pools {
    /// The pools of `plan` for one thread. Of nodes and pools that `previous` has too, what was learnt goes on; a node that
    /// was not live there starts slowly. Tables of sessions have their sizes already ([`Shared::size_tables`]): a thread that is
    /// late must not give them those of a plan that is over.
    #[must_use]
    pub fn compile(
        plan: &plan::ProxyPlan,
        shared: &Arc<Shared>,
        previous: Option<&Pools>,
        thread: Thread,
        now: Duration,
    ) -> Self {
        let source = compile::Source { plan, shared, hashes: Hashes::new(&plan.secret), thread, now };
        let pools = plan.pools.keys().enumerate().map(|(i, name)| {
            let before = previous.and_then(|pools| pools.pool(pools.id(name)?));
            Rc::new(source.pool(PoolId(i as u16), name, before))
        });
        let pools = Self { pools: pools.collect(), shared: Arc::clone(shared), thread };
        // A change may have made room.
        pools.tick();
        pools
    }

    /// The pool of that name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<PoolId> {
        self.pools.binary_search_by(|pool| pool.name.as_str().cmp(name)).ok().map(|i| PoolId(i as u16))
    }

    /// A pool by its id; `None` if the id is another `Pools`'.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&Rc<Pool>> {
        self.pools.get(usize::from(id.0))
    }

    /// Every pool, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Pool>> {
        self.pools.iter()
    }

    /// What all threads share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The thread these are for.
    #[must_use]
    pub fn thread(&self) -> Thread {
        self.thread
    }

    /// Chooses the node of a new request (or connection of generic TCP). `tried` are the nodes that failed it before.
    /// A failure pool is used, and named by [`Lease::pool`], when no node of the pool is live.
    ///
    /// # Errors
    /// When there is none: [`NoNode`].
    pub fn choose(
        &self,
        pool: PoolId,
        facts: &dyn Facts,
        tried: &NodeSet,
        now: Duration,
        random: u64,
    ) -> Result<Lease, NoNode> {
        self.choose_along(pool, Request { facts, tried, now, random, queued: false }, None)
    }

    /// Chooses again for a request that waited, when its ticket is ready. If another was quicker, the ticket comes back
    /// in [`NoNode::Busy`] and keeps its place.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn choose_with(
        &self,
        ticket: Ticket,
        pool: PoolId,
        facts: &dyn Facts,
        tried: &NodeSet,
        now: Duration,
        random: u64,
    ) -> Result<Lease, NoNode> {
        match self.choose_along(pool, Request { facts, tried, now, random, queued: false }, Some(&ticket)) {
            // No new ticket: this one is of the pool that is busy.
            Err(NoNode::Busy(None)) => {
                ticket.wait_on();
                Err(NoNode::Busy(Some(ticket)))
            }
            Ok(lease) => {
                ticket.served();
                lease.pool().call_if_room();
                Ok(lease)
            }
            other => other,
        }
    }

    /// Chooses in the pool, or the first of its failure pools that has a live node.
    fn choose_along(&self, pool: PoolId, request: Request<'_>, ticket: Option<&Ticket>) -> Result<Lease, NoNode> {
        let mut pool = self.pool(pool).ok_or(NoNode::Down)?;
        for _ in 0..MAX_FAILURE_POOLS {
            let queued = ticket.is_some_and(|ticket| ticket.is_of(&pool.shared));
            match pool.choose(&Request { queued, ..request }) {
                Err(NoNode::Down) => pool = pool.failure_pool.and_then(|id| self.pool(id)).ok_or(NoNode::Down)?,
                other => return other,
            }
        }
        Err(NoNode::Down)
    }

    /// Up to `most` sessions of a persistence table whose pool is still there, in no order.
    #[must_use]
    pub fn sessions(&self, kind: TableKind, most: usize, now: Duration) -> Vec<KnownSession> {
        let name = |record: &Record| {
            let pool = self.pools.iter().find(|pool| {
                pool.persistence.as_ref().is_some_and(|persistence| persistence.is_in(kind, record.session.pool))
            })?;
            let node = pool.nodes.iter().find(|node| node.identity == record.node);
            Some(KnownSession {
                pool: pool.name.clone(),
                id: kind.show(record.session.id),
                node: node.map(|node| node.name.clone()),
                left: record.left,
            })
        };
        self.shared.table(kind).export(most, now).iter().filter_map(name).collect()
    }

    /// To be called about once a second: lets requests that wait use nodes that came back meanwhile.
    pub fn tick(&self) {
        for pool in &self.pools {
            pool.call_if_room();
        }
    }
}

impl Pool {
    /// Its place in [`Pools`].
    #[must_use]
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its part of the plan: timeouts, protocol, TLS and what else the engine obeys.
    #[must_use]
    pub fn settings(&self) -> &plan::pool::Pool {
        &self.settings
    }

    /// Its nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether a failed request is tried again: [`retry::decide`], and the budget of retries has some left (which this
    /// call then takes). Without another node to go to, the choice that follows says [`NoNode::AllTried`].
    #[must_use]
    pub fn after_failure(&self, attempt: &retry::Attempt, now: Duration) -> retry::Decision {
        let decision = retry::decide(attempt, &self.settings.retry);
        if !decision.needs_budget() || self.state.budget.borrow_mut().take(now, self.settings.retry.budget_percent) {
            return decision;
        }
        retry::Decision::GiveUp(retry::GiveUp::Budget)
    }
}
