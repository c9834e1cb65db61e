//! A plan as a thread serves by it: names resolved to places, pools with what the thread learnt of their nodes.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use crate::{
    control::proxy::{self as plan, ProxyPlan},
    proxy::{
        pool::{Node, NodeId, Pool, PoolId, Pools, Shared, Thread},
        tls::{ClientSetup, ServerSetup},
        upstream::{idle::Idle, millis},
    },
};

use super::{prepared::Prepared, thread::now};

/// A thread's plan. Places of virtual servers stay the same from plan to plan: connections remember them.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// By place; `None` where one is gone.
    servers: Vec<Option<Rc<VirtualServer>>>,
    places: BTreeMap<String, usize>,
    /// The thread's pools.
    pub(crate) pools: Rc<Pools>,
    /// Idle connections, by the places of pool and node.
    idle: Vec<Vec<Rc<Idle>>>,
    /// TLS with nodes, by the places of pools.
    node_tls: Vec<Option<Arc<ClientSetup>>>,
}

/// A virtual server of a thread.
#[derive(Debug)]
pub(crate) struct VirtualServer {
    /// Its name.
    pub(crate) name: String,
    /// Its part of the plan.
    pub(crate) settings: plan::VirtualServer,
    /// The pool that serves what no rule sends elsewhere.
    pub(crate) pool: Option<PoolId>,
    /// Its TLS.
    pub(crate) tls: Option<Arc<ServerSetup>>,
}

impl Compiled {
    /// Of no plan: before the first one.
    pub(super) fn empty(shared: &Arc<Shared>, thread: Thread) -> Self {
        let pools = Pools::compile(&ProxyPlan::default(), shared, None, thread, now());
        Self {
            servers: Vec::new(),
            places: BTreeMap::new(),
            pools: Rc::new(pools),
            idle: Vec::new(),
            node_tls: Vec::new(),
        }
    }

    /// The plan that follows.
    pub(super) fn next(&self, prepared: &Prepared) -> Self {
        let plan = &*prepared.plan;
        let pools = Pools::compile(plan, self.pools.shared(), Some(&self.pools), self.pools.thread(), now());
        let mut places = self.places.clone();
        let mut servers = vec![None; places.len()];
        for (name, settings) in &plan.virtual_servers {
            let fresh = places.len();
            let place = *places.entry(name.clone()).or_insert(fresh);
            if place == servers.len() {
                servers.push(None);
            }
            let pool = settings.pool.as_ref().and_then(|pool| pools.id(pool));
            let tls = prepared.servers.get(name).cloned();
            servers[place] = Some(Rc::new(VirtualServer { name: name.clone(), settings: settings.clone(), pool, tls }));
        }
        let idle =
            pools.iter().map(|pool| pool.nodes().iter().map(|node| self.idle_of(pool, node)).collect()).collect();
        let node_tls = pools.iter().map(|pool| prepared.pools.get(pool.name()).cloned()).collect();
        Self { servers, places, pools: Rc::new(pools), idle, node_tls }
    }

    /// The idle connections of `pool` in the next plan: those of this one, if they would be made the same way.
    fn idle_of(&self, pool: &Pool, node: &Node) -> Rc<Idle> {
        let same = || {
            let old = self.pools.pool(self.pools.id(pool.name())?)?;
            let (before, after) = (old.settings(), pool.settings());
            let alike = before.tls == after.tls
                && before.protocol == after.protocol
                && before.proxy_protocol == after.proxy_protocol
                && before.transparent == after.transparent;
            let old_node = old.nodes().iter().find(|old| old.name() == node.name())?;
            alike.then(|| Rc::clone(self.idle(old_node.id())))
        };
        same().unwrap_or_default()
    }

    /// The idle connections to a node.
    ///
    /// # Panics
    /// When the node is another plan's.
    pub(crate) fn idle(&self, node: NodeId) -> &Rc<Idle> {
        &self.idle[node.pool().index()][node.index()]
    }

    /// TLS with the nodes of a pool.
    pub(crate) fn node_tls(&self, pool: PoolId) -> Option<&Arc<ClientSetup>> {
        self.node_tls.get(pool.index())?.as_ref()
    }

    /// To be called about once a second: closes idle connections that ended or are too old, and looks after queues.
    pub(super) fn tend(&self) {
        self.pools.tick();
        for (pool, idle) in self.pools.iter().zip(&self.idle) {
            let longest = millis(pool.settings().keep_alive_timeout);
            for (node, idle) in pool.nodes().iter().zip(idle) {
                idle.tend(longest, |address| node.serves(address));
            }
        }
    }

    /// The place of a virtual server.
    pub(super) fn id(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The virtual server of a place; `None` when it is gone.
    pub(crate) fn server(&self, id: usize) -> Option<&Rc<VirtualServer>> {
        self.servers.get(id)?.as_ref()
    }
}
