//! The nodes that a pool chooses from now: admitted, not out, of the priority groups that serve, with what slow start
//! leaves of their share. Made anew when something changed, so that a choice itself looks at nothing else.

use std::{cmp::Reverse, sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Pool,
    node::{Node, NodeId},
    shared::SharedPool,
};
use crate::control::plan::Admission;

/// The unit of shares and scaled weights.
pub(super) const FULL: u32 = 1024;

/// Steps in which a node's share grows during slow start.
const SLOW_START_STEPS: u32 = 32;

/// Not in the list.
const NONE: u16 = u16::MAX;

/// The nodes to choose from.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// In order of their names.
    pub(super) members: Vec<Member>,
    /// Places in `members`, by node index.
    places: Vec<u16>,
    /// Whether every member has its full share.
    pub(super) all_full: bool,
    /// The pool's epoch when this was made; 0: never made.
    epoch: u64,
    /// When time alone changes it.
    until: Duration,
}

/// A node to choose from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) id: NodeId,
    /// What slow start leaves, of [`FULL`].
    pub(super) share: u32,
    /// Weight × share.
    pub(super) weight: u64,
    /// 1 / share, 1 at full share.
    pub(super) per_share: f64,
    /// 1 / (weight × share).
    pub(super) per_weight: f64,
}

impl Ready {
    /// Whether it has to be made anew.
    #[inline]
    pub(super) fn is_stale(&self, shared: &SharedPool, now: Duration) -> bool {
        self.epoch != shared.epoch.load(Relaxed) || now >= self.until
    }

    /// A node's place in `members`.
    #[inline]
    pub(super) fn place(&self, index: usize) -> Option<usize> {
        self.places.get(index).filter(|place| **place != NONE).map(|place| usize::from(*place))
    }

    /// Makes it anew, in the vectors it has.
    #[inline(never)]
    pub(super) fn refresh(&mut self, pool: &Pool, now: Duration) {
        // Read before the nodes: a change in between makes the list stale at once.
        self.epoch = pool.shared.epoch.load(Relaxed);
        self.until = Duration::MAX;
        self.members.clear();
        let floor = lowest_group(&pool.nodes, pool.settings.min_live_nodes);
        let nodes = || pool.nodes.iter().filter(|node| node.admission == Admission::All && !node.addresses.is_empty());
        for node in nodes().filter(|node| node.priority >= floor) {
            let out_until = node.state.shared.out_until();
            if now < out_until {
                self.until = self.until.min(out_until);
                continue;
            }
            self.admit(node, pool, now);
        }
        if self.members.is_empty() {
            self.last_resort(nodes(), pool, now);
        }
        self.all_full = self.members.iter().all(|member| member.share == FULL);
        self.places.clear();
        self.places.resize(pool.nodes.len(), NONE);
        for (place, member) in self.members.iter().enumerate() {
            self.places[member.id.index()] = place as u16;
        }
    }

    /// No node is live: those whose last failure is some time ago may be tried, by one request at a time.
    fn last_resort<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>, pool: &Pool, now: Duration) {
        for node in nodes {
            let at = node.state.shared.last_resort_at();
            if now < at {
                self.until = self.until.min(at);
            } else {
                self.admit(node, pool, now);
            }
        }
    }

    fn admit(&mut self, node: &Node, pool: &Pool, now: Duration) {
        let (share, next) = share(node.state.shared.up_since(), pool.settings.slow_start, now);
        self.until = self.until.min(next);
        let weight = u64::from(node.weight) * u64::from(share);
        self.members.push(Member {
            id: node.id,
            share,
            weight,
            per_share: f64::from(FULL) / f64::from(share),
            per_weight: 1.0 / weight as f64,
        });
    }
}

/// The lowest priority that serves: groups join from the highest on, until `least` of their nodes are live.
fn lowest_group(nodes: &[Node], least: u32) -> u32 {
    if least == 0 {
        return 0;
    }
    let mut live: Vec<u32> = nodes
        .iter()
        .filter(|node| node.admission == Admission::All && !node.addresses.is_empty() && !node.state.shared.is_out())
        .map(|node| node.priority)
        .collect();
    live.sort_unstable_by_key(|priority| Reverse(*priority));
    live.get(least as usize - 1).copied().unwrap_or(0)
}

/// What slow start leaves of a node's share, of [`FULL`], and when it grows.
fn share(up_since: Duration, slow_start: Duration, now: Duration) -> (u32, Duration) {
    let up_for = now.saturating_sub(up_since);
    if up_since.is_zero() || slow_start.is_zero() || up_for >= slow_start {
        return (FULL, Duration::MAX);
    }
    let step = slow_start / SLOW_START_STEPS;
    if step.is_zero() {
        return (FULL, up_since + slow_start);
    }
    let steps = (up_for.as_nanos() / step.as_nanos()) as u32 + 1;
    (FULL * steps.min(SLOW_START_STEPS) / SLOW_START_STEPS, up_since + step * steps)
}
