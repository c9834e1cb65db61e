//! A plan as a thread serves by it: names resolved to places, pools with what the thread learnt of their nodes.

use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use crate::{
    control::proxy::{self as plan, ProxyPlan},
    proxy::{
        access_log::AccessLog,
        limit::{Bandwidth, ServerLimits},
        pool::{Node, NodeId, Pool, PoolId, Pools, Shared, Thread},
        recent::Ring,
        rules::RuleSet,
        stats::{Counter, NodeStats, PoolStats, VirtualServerStats},
        tls::{ClientSetup, ServerSetup},
        transparent::Stock,
        upstream::{idle::Idle, millis},
    },
};

use super::{prepared::Prepared, records::Records, thread::now};

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
    /// What this thread counts of pools and nodes, by their places.
    counts: Vec<PoolCounts>,
    records: Arc<Records>,
}

/// Counters of a pool and its nodes.
#[derive(Debug)]
struct PoolCounts {
    pool: Arc<PoolStats>,
    nodes: Vec<Arc<NodeStats>>,
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
    /// Its limits.
    pub(crate) limits: Arc<ServerLimits>,
    /// Its rules; `None`: they could not be compiled, and nothing is served.
    pub(crate) rules: Option<RuleSet>,
    /// Counters of its rules.
    pub(crate) hits: Arc<[Arc<Counter>]>,
    /// What this thread counts of it.
    pub(crate) stats: Arc<VirtualServerStats>,
    /// Bandwidth classes that all of its connections count in.
    pub(crate) bandwidth: Vec<Arc<Bandwidth>>,
    /// Its access log.
    pub(crate) log: Option<AccessLog>,
    /// Where its recent requests are remembered.
    pub(crate) ring: Option<Arc<Ring>>,
    watched: bool,
}

impl VirtualServer {
    fn new(
        name: &str,
        settings: &plan::VirtualServer,
        pool: Option<PoolId>,
        prepared: &Prepared,
        records: &Records,
        thread: usize,
    ) -> Self {
        let counts = records.stats.thread(thread).expect("there are counters for every thread");
        let rules = prepared.rules.get(name).cloned();
        let log = settings.access_log.as_ref().and_then(|log| {
            let compiled = AccessLog::compile(log, &records.logs);
            compiled.inspect_err(|error| tracing::error!(virtual_server = name, %error, "no access log")).ok()
        });
        let ring = records.recent.ring(name, thread, settings.recent);
        let watched = log.is_some() || ring.is_some() || rules.as_ref().is_some_and(RuleSet::looks_at_completion);
        let hits = counts.rules(name, rules.iter().flat_map(RuleSet::names));
        Self {
            name: name.to_owned(),
            settings: settings.clone(),
            pool,
            tls: prepared.servers.get(name).cloned(),
            limits: prepared.limits.server(name),
            rules,
            hits,
            stats: counts.virtual_server(name),
            bandwidth: settings.bandwidth.iter().filter_map(|class| prepared.limits.bandwidth(class)).collect(),
            log,
            ring,
            watched,
        }
    }

    /// Whether somebody is told of its requests when they are over.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }
}

impl Compiled {
    /// Of no plan: before the first one.
    pub(super) fn empty(shared: &Arc<Shared>, records: Arc<Records>, thread: Thread) -> Self {
        let pools = Pools::compile(&ProxyPlan::default(), shared, None, thread, now());
        Self {
            servers: Vec::new(),
            places: BTreeMap::new(),
            pools: Rc::new(pools),
            idle: Vec::new(),
            node_tls: Vec::new(),
            counts: Vec::new(),
            records,
        }
    }

    /// The plan that follows.
    pub(super) fn next(&self, prepared: &Prepared) -> Self {
        let plan = &*prepared.plan;
        let pools = Pools::compile(plan, self.pools.shared(), Some(&self.pools), self.pools.thread(), now());
        let mut places = self.places.clone();
        let mut servers = vec![None; places.len()];
        let index = self.pools.thread().index;
        for (name, settings) in &plan.virtual_servers {
            let fresh = places.len();
            let place = *places.entry(name.clone()).or_insert(fresh);
            if place == servers.len() {
                servers.push(None);
            }
            let pool = settings.pool.as_ref().and_then(|pool| pools.id(pool));
            servers[place] = Some(Rc::new(VirtualServer::new(name, settings, pool, prepared, &self.records, index)));
        }
        let idle =
            pools.iter().map(|pool| pool.nodes().iter().map(|node| self.idle_of(pool, node)).collect()).collect();
        let node_tls = pools.iter().map(|pool| prepared.pools.get(pool.name()).cloned()).collect();
        let counts = self.records.stats.thread(index).expect("there are counters for every thread");
        let count = |pool: &Rc<Pool>| PoolCounts {
            pool: counts.pool(pool.name()),
            nodes: pool.nodes().iter().map(|node| counts.node(pool.name(), node.name())).collect(),
        };
        let counts = pools.iter().map(count).collect();
        Self { servers, places, pools: Rc::new(pools), idle, node_tls, counts, records: Arc::clone(&self.records) }
    }

    /// Closes the idle connections that `next` has not: of nodes that are gone, or that are connected to in another way now.
    /// Requests that hold this plan for long must not keep them.
    pub(super) fn leave(&self, next: &Self) {
        let kept: HashSet<*const Idle> = next.idle.iter().flatten().map(Rc::as_ptr).collect();
        for idle in self.idle.iter().flatten().filter(|idle| !kept.contains(&Rc::as_ptr(idle))) {
            idle.close();
        }
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

    /// What is counted of a pool.
    ///
    /// # Panics
    /// When the pool is another plan's; the same holds for the nodes below.
    pub(crate) fn pool_stats(&self, pool: PoolId) -> &PoolStats {
        &self.counts[pool.index()].pool
    }

    /// What is counted of a node.
    pub(crate) fn node_stats(&self, node: NodeId) -> &Arc<NodeStats> {
        &self.counts[node.pool().index()].nodes[node.index()]
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

    /// Sockets for connections from clients' addresses.
    pub(crate) fn sockets(&self) -> &Stock {
        &self.records.sockets
    }

    /// The place of a virtual server.
    pub(super) fn id(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// All virtual servers with their places.
    pub(super) fn servers(&self) -> impl Iterator<Item = (usize, &Rc<VirtualServer>)> {
        self.servers.iter().enumerate().filter_map(|(place, server)| Some((place, server.as_ref()?)))
    }

    /// The virtual server of a place; `None` when it is gone.
    pub(crate) fn server(&self, id: usize) -> Option<&Rc<VirtualServer>> {
        self.servers.get(id)?.as_ref()
    }
}
