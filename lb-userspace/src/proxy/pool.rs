//! Pools of the L7 proxy: which node gets a request or a connection, what its outcome says of the node, and whether it is
//! tried again.
//!
//! [`Pools`] belongs to one worker thread and is compiled anew from each plan; what is known of nodes that stay (open
//! requests, response times, places in turn) goes on. What all threads must agree on (limits of connections, passive
//! monitoring, queues, persistence tables) lives in [`Shared`], of which a worker has one. Nothing here knows sockets or clocks: `now` is
//! any monotonic time that all threads share, randomness is an argument. The engine (`proxy::serve`, `proxy::upstream`)
//! calls [`Pools::choose`], reports what happened to the [`Lease`], and asks [`Pool::after_failure`] whether to go on.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use crate::{
    control::{
        plan::Admission,
        proxy::{self as plan, pool::Scheduler},
    },
    proxy::facts::Facts,
};

pub mod queue;
pub mod retry;

mod key;
mod latency;
mod lease;
mod node;
mod ready;
mod ring;
mod schedule;
mod shared;

#[cfg(test)]
mod tests;

pub use lease::Lease;
pub use node::{Node, NodeId, NodeSet};
pub use shared::Shared;

use key::Hashes;
use node::NodeState;
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
}

/// What a thread knows of a pool from one plan to the next.
#[derive(Debug)]
struct PoolState {
    turn: Turn,
    budget: RefCell<Budget>,
}

impl Pools {
    /// The pools of `plan` for one thread. Of nodes and pools that `previous` has too, what was learnt goes on; a node that
    /// was not live there starts slowly.
    #[must_use]
    pub fn compile(
        plan: &plan::ProxyPlan,
        shared: &Arc<Shared>,
        previous: Option<&Pools>,
        thread: Thread,
        now: Duration,
    ) -> Self {
        let place = |name: &String| plan.pools.keys().position(|other| other == name).map(|i| PoolId(i as u16));
        let hashes = Hashes::new(&plan.secret);
        let mut pools = Vec::with_capacity(plan.pools.len());
        for (i, (name, settings)) in plan.pools.iter().enumerate() {
            let before = previous.and_then(|pools| pools.pool(pools.id(name)?));
            let failure_pool = settings.failure_pool.as_ref().and_then(place);
            pools.push(Rc::new(Pool::compile(
                (PoolId(i as u16), name),
                settings,
                failure_pool,
                (shared, before),
                hashes,
                thread,
                now,
            )));
        }
        let pools = Self { pools, shared: Arc::clone(shared), thread };
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

    /// To be called about once a second: lets requests that wait use nodes that came back meanwhile.
    pub fn tick(&self) {
        for pool in &self.pools {
            pool.call_if_room();
        }
    }
}

/// What a choice depends on.
#[derive(Clone, Copy)]
struct Request<'a> {
    facts: &'a dyn Facts,
    tried: &'a NodeSet,
    now: Duration,
    random: u64,
    /// It waited in this pool's queue and was called.
    queued: bool,
}

impl Pool {
    fn compile(
        (id, name): (PoolId, &str),
        settings: &plan::pool::Pool,
        failure_pool: Option<PoolId>,
        (shared, before): (&Arc<Shared>, Option<&Rc<Pool>>),
        hashes: Hashes,
        thread: Thread,
        now: Duration,
    ) -> Self {
        let shared_pool = shared.pool(name);
        let mut nodes = Vec::with_capacity(settings.nodes.len());
        for (i, (node_name, node)) in settings.nodes.iter().enumerate() {
            let old = before.and_then(|pool| pool.nodes.iter().find(|old| old.name == *node_name));
            let state = match old {
                Some(old) => Rc::clone(&old.state),
                None => Rc::new(NodeState::new(shared.node(&shared_pool, node_name))),
            };
            let was_live = old.is_some_and(|old| old.admission == Admission::All);
            if before.is_some() && !was_live && node.admission == Admission::All {
                state.shared.came_up(now);
            }
            nodes.push(Node::new(NodeId::new(id, i), node_name, node, hashes.text(node_name), state));
        }
        let state = before.map_or_else(
            || Rc::new(PoolState { turn: Turn::new(thread, nodes.len()), budget: RefCell::default() }),
            |pool| Rc::clone(&pool.state),
        );
        let hash = matches!(settings.scheduler, Scheduler::ConsistentHash(_));
        let ring = hash.then(|| shared_pool.ring.ring(&nodes));
        Self {
            id,
            name: name.to_owned(),
            settings: settings.clone(),
            nodes,
            ready: RefCell::default(),
            state,
            shared: shared_pool,
            failure_pool,
            hashes,
            ring,
        }
    }

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

    fn choose(self: &Rc<Self>, request: &Request<'_>) -> Result<Lease, NoNode> {
        if request.tried.is_empty() && !request.queued {
            self.state.budget.borrow_mut().count(request.now);
        }
        self.schedule(request)
    }

    /// Chooses by the scheduler.
    fn schedule(self: &Rc<Self>, request: &Request<'_>) -> Result<Lease, NoNode> {
        let mut ready = self.ready.borrow_mut();
        if ready.is_stale(&self.shared, request.now) {
            ready.refresh(self, request.now);
        }
        if ready.members.is_empty() {
            return Err(NoNode::Down);
        }
        let first_come = !request.queued && self.settings.queue > 0 && self.shared.queue.waiting_for_any() > 0;
        let mut skip = request.tried.of(self.id);
        let key = match &self.settings.scheduler {
            Scheduler::ConsistentHash(key) => self.hashes.key(key, request.facts),
            Scheduler::RoundRobin
            | Scheduler::WeightedRoundRobin
            | Scheduler::LeastConnections
            | Scheduler::WeightedLeastConnections
            | Scheduler::FastestResponse
            | Scheduler::Perceptive
            | Scheduler::RandomOfTwo => None,
        };
        while let Some(id) = schedule::pick(self, &ready, &skip, key, request.now, request.random) {
            if first_come {
                self.shared.queue.call_first();
                break;
            }
            let node = &self.nodes[id.index()];
            if let Some(lease) = Lease::take(self, node, key) {
                return Ok(lease);
            }
            skip.insert(id);
        }
        Err(self.none_left(&ready, request))
    }

    /// Why no node could be picked.
    fn none_left(&self, ready: &Ready, request: &Request<'_>) -> NoNode {
        let tried = request.tried.of(self.id);
        let mut untried = ready.members.iter().filter(|member| !tried.contains(member.id));
        if untried.clone().next().is_none() {
            return NoNode::AllTried;
        }
        // A node on probation takes one request at a time, and none waits for it.
        if untried.all(|member| self.nodes[member.id.index()].state.shared.is_out()) {
            return if tried.is_empty() { NoNode::Down } else { NoNode::AllTried };
        }
        let limits = (self.settings.queue, self.settings.queue_timeout);
        NoNode::Busy(if request.queued { None } else { Ticket::take(&self.shared, None, limits, request.now) })
    }

    /// Calls the first that waits if some node has room. It may be of no use to it: then it calls the next.
    fn call_if_room(&self) {
        let has_room =
            |node: &Node| node.admission != Admission::Nothing && node.has_room() && !node.state.shared.is_out();
        if self.shared.queue.waiting() > 0 && self.nodes.iter().any(has_room) {
            self.shared.queue.call_first();
        }
    }
}
