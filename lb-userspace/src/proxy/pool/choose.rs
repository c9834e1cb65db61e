//! One choice: the client's own node if it has one, else the scheduler's.

use std::{rc::Rc, time::Duration};

use super::{
    Lease, NoNode, Pool,
    node::{Node, NodeId, NodeSet},
    persist::{self, Asked, Known, Persistence},
    queue::Ticket,
    ready::Ready,
    schedule::{self, Order},
};
use crate::{
    control::{
        plan::Admission,
        proxy::pool::{NodeGone, Scheduler},
    },
    proxy::facts::Facts,
};

/// What a choice depends on.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) facts: &'a dyn Facts,
    pub(super) tried: &'a NodeSet,
    pub(super) now: Duration,
    pub(super) random: u64,
    /// It waited in this pool's queue and was called.
    pub(super) queued: bool,
}

/// What became of the attempt to keep a client on its node.
enum Kept {
    Lease(Lease),
    /// It has to wait, or cannot be served.
    NoNode(NoNode),
    /// Another node serves this request, and the client keeps its own for the next.
    Elsewhere,
    /// Its node is gone for good: another becomes its node.
    Anew,
}

impl Pool {
    /// Chooses a node for a request.
    pub(super) fn choose(self: &Rc<Self>, request: &Request<'_>) -> Result<Lease, NoNode> {
        if request.tried.is_empty() && !request.queued {
            self.state.budget.borrow_mut().count(request.now);
        }
        let Some(persistence) = &self.persistence else { return self.schedule(request, None) };
        let asked = persistence.ask(self, request.facts, request.now);
        let address_key = Some(persist::address_key(request.facts));
        let remember = match self.keep(persistence, &asked, request, address_key) {
            Kept::Lease(lease) => return Ok(lease),
            Kept::NoNode(none) => return Err(none),
            Kept::Elsewhere => false,
            Kept::Anew => true,
        };
        let mut lease = self.schedule(request, address_key)?;
        lease.lesson = if remember {
            persistence.chosen(&asked, lease.node(), request.now)
        } else {
            persistence.lesson_of_known()
        };
        Ok(lease)
    }

    /// Keeps a client on the node that it has.
    fn keep(
        self: &Rc<Self>,
        persistence: &Persistence,
        asked: &Asked,
        request: &Request<'_>,
        address_key: Option<u64>,
    ) -> Kept {
        let moves = persistence.node_gone == NodeGone::ChooseAnew;
        let gone = || if moves { Kept::Anew } else { Kept::NoNode(NoNode::Gone(persistence.node_gone)) };
        let id = match asked.known {
            Known::Stranger => return Kept::Anew,
            Known::Gone => return gone(),
            Known::Node(id) => id,
        };
        let node = &self.nodes[id.index()];
        // Draining keeps the clients that a node has.
        if node.admission == Admission::Nothing || node.addresses.is_empty() {
            return gone();
        }
        if node.state.shared.is_out() && !self.may_probe(node, request.now) {
            return gone();
        }
        if request.tried.contains(id) {
            return if moves { Kept::Elsewhere } else { Kept::NoNode(NoNode::AllTried) };
        }
        if (request.queued || node.has_room_for_any())
            && let Some(mut lease) = Lease::take(self, node, address_key)
        {
            lease.lesson = persistence.lesson_of_known();
            return Kept::Lease(lease);
        }
        if node.state.shared.is_out() {
            return gone();
        }
        self.wait_for(node, moves, request)
    }

    /// A client's own node has as many connections as it may.
    fn wait_for(&self, node: &Node, moves: bool, request: &Request<'_>) -> Kept {
        if request.queued {
            return Kept::NoNode(NoNode::Busy(None));
        }
        let limits = (self.settings.queue, self.settings.queue_timeout);
        match Ticket::take(&self.shared, Some(&node.state.shared), limits, request.now) {
            None if moves => Kept::Elsewhere,
            ticket => Kept::NoNode(NoNode::Busy(ticket)),
        }
    }

    /// Whether a node that is out may be tried.
    fn may_probe(&self, node: &Node, now: Duration) -> bool {
        self.with_ready(now, |ready| ready.place(node.id.index()).is_some())
            || (node.admission == Admission::Tracked && now >= node.state.shared.out_until())
    }

    /// Chooses by the scheduler.
    fn schedule(self: &Rc<Self>, request: &Request<'_>, address_key: Option<u64>) -> Result<Lease, NoNode> {
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
        self.with_ready(request.now, |ready| {
            // Who came before goes before.
            let waits = !request.queued && self.settings.queue > 0 && self.shared.queue.waiting_for_any() > 0;
            let mut skip = request.tried.of(self.id);
            let Request { now, random, queued, .. } = *request;
            while let Some(id) = schedule::pick(self, ready, &Order { skip: &skip, key, now, random, queued }) {
                if waits {
                    self.shared.queue.call_first_if_none_is();
                    break;
                }
                match Lease::take(self, &self.nodes[id.index()], key.or(address_key)) {
                    Some(lease) => return Ok(lease),
                    None => skip.insert(id),
                }
            }
            Err(self.none_left(ready, request))
        })
    }

    /// Why no node could be picked.
    #[cold]
    fn none_left(&self, ready: &Ready, request: &Request<'_>) -> NoNode {
        if ready.members.is_empty() {
            return NoNode::Down;
        }
        let tried = request.tried.of(self.id);
        let untried = || ready.members.iter().map(|member| member.id).filter(|id| !tried.contains(*id));
        // A node that is out takes one request at a time, and none waits for it.
        let is_live = |id: NodeId| !self.nodes[id.index()].state.shared.is_out();
        if !untried().any(is_live) {
            return if tried.is_empty() { NoNode::Down } else { NoNode::AllTried };
        }
        let limits = (self.settings.queue, self.settings.queue_timeout);
        NoNode::Busy(if request.queued { None } else { Ticket::take(&self.shared, None, limits, request.now) })
    }

    /// Calls the first that waits if some node has room. It may be of no use to it: then it calls the next.
    pub(super) fn call_if_room(&self) {
        let has_room =
            |node: &Node| node.admission != Admission::Nothing && node.has_room() && !node.state.shared.is_out();
        if self.shared.queue.waiting() > 0 && self.nodes.iter().any(has_room) {
            self.shared.queue.call_first();
        }
    }

    /// Names of the nodes that may be chosen now.
    pub(in crate::proxy) fn candidates(&self, now: Duration) -> Vec<&str> {
        self.with_ready(now, |ready| ready.members.iter().map(|member| self.nodes[member.id.index()].name()).collect())
    }

    /// What may be chosen from now.
    #[inline]
    pub(super) fn with_ready<T>(&self, now: Duration, use_it: impl FnOnce(&Ready) -> T) -> T {
        let mut ready = self.ready.borrow_mut();
        if ready.is_stale(&self.shared, now) {
            ready.refresh(self, now);
        }
        use_it(&ready)
    }
}
