//! The schedulers: which of the nodes that are ready gets the next request. Nothing here allocates.

use std::{cell::Cell, time::Duration};

use lb_common::flow::mix64;

use super::{
    Pool, Thread,
    node::{Node, NodeId, NodeSet},
    ready::{FULL, Member, Ready},
};
use crate::control::proxy::pool::Scheduler;

/// Slots of the ring that a key tries before the choice falls back on a hash of key and node.
const RING_TRIES: u64 = 8;

/// Whose turn it is, per thread.
#[derive(Debug)]
pub(super) struct Turn(Cell<usize>);

impl Turn {
    /// Threads begin at different nodes, so that they do not move in lock step.
    pub(super) fn new(thread: Thread, nodes: usize) -> Self {
        Self(Cell::new(thread.index * nodes / thread.count.max(1)))
    }
}

/// What a pick depends on, beside the nodes.
pub(super) struct Order<'a> {
    /// Nodes that may not be picked.
    pub(super) skip: &'a NodeSet,
    /// Of consistent hash.
    pub(super) key: Option<u64>,
    pub(super) now: Duration,
    pub(super) random: u64,
    /// For a request that waited and was called: it need not leave room to those that wait for one node only.
    pub(super) queued: bool,
}

/// What a scheduler sees.
struct View<'a> {
    nodes: &'a [Node],
    ready: &'a Ready,
    turn: &'a Turn,
    order: &'a Order<'a>,
}

impl View<'_> {
    fn node(&self, member: &Member) -> &Node {
        &self.nodes[member.id.index()]
    }

    #[inline]
    fn is_free(&self, member: &Member) -> bool {
        let node = self.node(member);
        !self.order.skip.contains(member.id)
            && if self.order.queued { node.has_room() } else { node.has_room_for_any() }
    }
}

/// Picks one of the members of `ready` that may be picked and has room.
#[inline]
pub(super) fn pick(pool: &Pool, ready: &Ready, order: &Order<'_>) -> Option<NodeId> {
    let view = View { nodes: &pool.nodes, ready, turn: &pool.state.turn, order };
    let now = order.now;
    match &pool.settings.scheduler {
        Scheduler::RoundRobin => round_robin(&view),
        Scheduler::WeightedRoundRobin => weighted_round_robin(&view),
        Scheduler::LeastConnections => least(&view, |node, member| f64::from(node.open() + 1) * member.per_share),
        Scheduler::WeightedLeastConnections => {
            least(&view, |node, member| f64::from(node.open() + 1) * member.per_weight)
        }
        Scheduler::FastestResponse => {
            least(&view, |node, member| node.state.latency.expect(node.open(), now) * member.per_share)
        }
        Scheduler::Perceptive => least(&view, |node, member| {
            f64::from(node.open() + 1) * node.state.latency.expect(node.open(), now) * member.per_share
        }),
        Scheduler::RandomOfTwo => random_of_two(&view),
        Scheduler::ConsistentHash(_) => match (order.key, &pool.ring) {
            (Some(key), Some(ring)) => consistent_hash(&view, ring, key, pool.settings.hash_load_percent),
            // A request without the key belongs nowhere.
            _ => round_robin(&view),
        },
    }
}

/// Each in turn; one that starts slowly lets its turn pass as often as its share says.
fn round_robin(view: &View<'_>) -> Option<NodeId> {
    let members = &view.ready.members;
    let start = view.turn.0.get();
    let mut random = view.order.random;
    let mut take = |slowly: bool| {
        (0..members.len()).map(|step| (start + step) % members.len()).find(|place| {
            let member = &members[*place];
            random = if slowly { mix64(random.wrapping_add(1)) } else { random };
            view.is_free(member) && (!slowly || (random % u64::from(FULL)) < u64::from(member.share))
        })
    };
    let place = if view.ready.all_full { take(false) } else { take(true).or_else(|| take(false)) }?;
    view.turn.0.set((place + 1) % members.len());
    Some(members[place].id)
}

/// Smooth weighted round robin (nginx's): every run of choices follows the weights as closely as possible.
fn weighted_round_robin(view: &View<'_>) -> Option<NodeId> {
    let mut total = 0;
    let mut best: Option<(&Member, i64)> = None;
    for member in view.ready.members.iter().filter(|member| view.is_free(member)) {
        let credit = &view.node(member).state.credit;
        total += member.weight as i64;
        credit.set(credit.get() + member.weight as i64);
        if best.is_none_or(|(_, most)| credit.get() > most) {
            best = Some((member, credit.get()));
        }
    }
    let (member, credit) = best?;
    view.node(member).state.credit.set(credit - total);
    Some(member.id)
}

/// The one with the lowest score; among equals each in turn.
#[inline]
fn least(view: &View<'_>, score: impl Fn(&Node, &Member) -> f64) -> Option<NodeId> {
    let members = &view.ready.members;
    let start = view.turn.0.get().min(members.len());
    let mut best: Option<(usize, f64)> = None;
    for place in (start..members.len()).chain(0..start) {
        let member = &members[place];
        if !view.is_free(member) {
            continue;
        }
        let score = score(view.node(member), member);
        if best.is_none_or(|(_, least)| score < least) {
            best = Some((place, score));
        }
    }
    let (place, _) = best?;
    view.turn.0.set(place + 1);
    Some(members[place].id)
}

/// The better of two different nodes, by open requests per weight.
fn random_of_two(view: &View<'_>) -> Option<NodeId> {
    let members = &view.ready.members;
    let count = members.len() as u64;
    let free_from = |place: u64| {
        (0..count).map(|step| &members[((place + step) % count) as usize]).find(|member| view.is_free(member))
    };
    let first = scale(view.order.random as u32, count);
    let second =
        if count > 1 { (first + 1 + scale((view.order.random >> 32) as u32, count - 1)) % count } else { first };
    let (first, second) = (free_from(first)?, free_from(second)?);
    let load = |member: &Member| f64::from(view.node(member).open() + 1) * member.per_weight;
    Some(if load(second) < load(first) { second.id } else { first.id })
}

/// A random number below `count`, without division (Lemire 2019).
fn scale(random: u32, count: u64) -> u64 {
    (u64::from(random) * count) >> 32
}

/// The node of the key's slot. When it cannot be had, the key tries other slots, which are its own: the keys of a lost
/// node spread over all others, and no other key moves.
fn consistent_hash(view: &View<'_>, ring: &[u16], key: u64, load_percent: u32) -> Option<NodeId> {
    let bound = load_bound(view, load_percent);
    let fits = |member: &Member, hash: u64| {
        view.is_free(member)
            && view.node(member).open() < bound
            // During slow start a part of its keys goes elsewhere, always the same part.
            && (member.share == FULL || (mix64(!hash) % u64::from(FULL)) < u64::from(member.share))
    };
    let mut hash = key;
    for _ in 0..RING_TRIES {
        let slot = usize::from(ring[(hash % ring.len() as u64) as usize]);
        if let Some(place) = slot.checked_sub(1).and_then(|index| view.ready.place(index)) {
            let member = &view.ready.members[place];
            if fits(member, hash) {
                return Some(member.id);
            }
        }
        hash = mix64(hash ^ 0x9e37_79b9_7f4a_7c15);
    }
    highest(view, key, |member| view.node(member).open() < bound).or_else(|| highest(view, key, |_| true))
}

/// Rendezvous hashing: the free member with the highest hash of key and node.
fn highest(view: &View<'_>, key: u64, fits: impl Fn(&Member) -> bool) -> Option<NodeId> {
    let free = view.ready.members.iter().filter(|member| view.is_free(member) && fits(member));
    free.max_by_key(|member| mix64(key ^ view.node(member).identity)).map(|member| member.id)
}

/// Open requests from which on a node is full for consistent hash; `percent` of the mean, this request counted.
fn load_bound(view: &View<'_>, percent: u32) -> u32 {
    if percent == 0 {
        return u32::MAX;
    }
    let open: u64 = view.ready.members.iter().map(|member| u64::from(view.node(member).open())).sum();
    let most = ((open + 1) * u64::from(percent.max(101))).div_ceil(100 * view.ready.members.len().max(1) as u64);
    u32::try_from(most).unwrap_or(u32::MAX)
}
