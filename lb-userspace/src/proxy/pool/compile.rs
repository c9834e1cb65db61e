//! From the plan to the pools of one thread.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use super::{
    Pool, PoolId, PoolState, Shared, Thread,
    key::Hashes,
    node::{Node, NodeId, NodeSet, NodeState},
    persist::Persistence,
    schedule::{self, Order, Turn},
    shared::SharedPool,
};
use crate::control::{
    plan::Admission,
    proxy::{self as plan, pool::Scheduler},
};

/// What pools are compiled from.
pub(super) struct Source<'a> {
    pub(super) plan: &'a plan::ProxyPlan,
    pub(super) shared: &'a Shared,
    pub(super) hashes: Hashes,
    pub(super) thread: Thread,
    pub(super) now: Duration,
}

impl Source<'_> {
    /// A pool of the plan. What `before` learnt goes on.
    pub(super) fn pool(&self, id: PoolId, name: &str, before: Option<&Rc<Pool>>) -> Pool {
        let settings = self.plan.pools[name].clone();
        let shared = self.shared.pool(name);
        let nodes = self.nodes(id, &settings, &shared, before);
        let state = before.map_or_else(
            || Rc::new(PoolState { turn: Turn::new(self.thread, nodes.len()), budget: RefCell::default() }),
            |pool| Rc::clone(&pool.state),
        );
        let place = |name: &String| self.plan.pools.keys().position(|other| other == name);
        let persistence =
            Persistence::compile(&settings, (name, self.hashes.text(name)), &nodes, &self.plan.secret, self.shared);
        let is_hash = matches!(settings.scheduler, Scheduler::ConsistentHash(_));
        let pool = Pool {
            id,
            name: name.to_owned(),
            failure_pool: settings.failure_pool.as_ref().and_then(place).map(|i| PoolId(i as u16)),
            ring: is_hash.then(|| shared.ring.ring(&nodes)),
            settings,
            nodes,
            ready: RefCell::default(),
            state,
            shared,
            hashes: self.hashes,
            persistence,
        };
        if before.is_none() && pool.settings.scheduler == Scheduler::WeightedRoundRobin {
            // Threads begin at different places of the sequence.
            let turns = self.thread.index * pool.nodes.len() / self.thread.count.max(1);
            pool.with_ready(self.now, |ready| {
                let order = Order { skip: &NodeSet::default(), key: None, now: self.now, random: 0, queued: false };
                for _ in 0..turns {
                    schedule::pick(&pool, ready, &order);
                }
            });
        }
        pool
    }

    fn nodes(
        &self,
        pool: PoolId,
        settings: &plan::pool::Pool,
        shared: &Arc<SharedPool>,
        before: Option<&Rc<Pool>>,
    ) -> Vec<Node> {
        let old: BTreeMap<&str, &Node> =
            before.iter().flat_map(|pool| &pool.nodes).map(|node| (node.name.as_str(), node)).collect();
        let compile = |(i, (name, node)): (usize, (&String, &plan::pool::Node))| {
            let old = old.get(name.as_str());
            let state = match old {
                Some(old) => Rc::clone(&old.state),
                None => Rc::new(NodeState::new(self.shared.node(shared, name))),
            };
            let was_live = old.is_some_and(|old| old.admission == Admission::All && !old.addresses.is_empty());
            if before.is_some() && !was_live && node.admission == Admission::All && !node.addresses.is_empty() {
                // Monitors or operators say that it is well, and they looked after the requests that failed.
                if !state.shared.back(self.now) {
                    state.shared.came_up(self.now);
                }
            }
            Node::new(NodeId::new(pool, i), name, node, self.hashes.text(name), state)
        };
        settings.nodes.iter().enumerate().map(compile).collect()
    }
}
