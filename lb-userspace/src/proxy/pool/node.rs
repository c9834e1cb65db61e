//! A node as one thread sees it: its part of the plan, and what the thread learnt of it.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc};

use super::{PoolId, latency::Latency, shared::SharedNode};
use crate::control::{plan::Admission, proxy::pool as plan};

/// The most nodes of a pool: the configuration refuses more.
pub(super) const MAX_NODES: usize = lb_common::maglev::MAX_POOL_NODES;

/// A node's place in its pool: means nothing in the pools of another plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    pool: PoolId,
    index: u16,
}

impl NodeId {
    pub(super) fn new(pool: PoolId, index: usize) -> Self {
        Self { pool, index: index as u16 }
    }

    /// Its place in [`super::Pool::nodes`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.index)
    }

    /// Its pool: a failure pool, if that served.
    #[must_use]
    pub fn pool(self) -> PoolId {
        self.pool
    }
}

/// Nodes of one pool: what a request has tried. Nodes of another pool than those in it replace them, as it happens when
/// a failure pool takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSet {
    pool: PoolId,
    words: [u64; MAX_NODES / 64],
}

impl NodeSet {
    /// Adds a node.
    pub fn insert(&mut self, node: NodeId) {
        if self.pool != node.pool {
            *self = Self { pool: node.pool, ..Self::default() };
        }
        if let Some(word) = self.words.get_mut(node.index() / 64) {
            *word |= 1 << (node.index() % 64);
        }
    }

    /// Whether the node is in it.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        let word = self.words.get(node.index() / 64).copied().unwrap_or(u64::MAX);
        self.pool == node.pool && word & 1 << (node.index() % 64) != 0
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == [0; MAX_NODES / 64]
    }

    /// How many it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Those of one pool.
    pub(super) fn of(&self, pool: PoolId) -> Self {
        if self.pool == pool { *self } else { Self { pool, ..Self::default() } }
    }
}

/// A node of a pool.
#[derive(Debug)]
pub struct Node {
    pub(super) id: NodeId,
    pub(super) name: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) weight: u32,
    pub(super) priority: u32,
    pub(super) admission: Admission,
    /// 0: any.
    pub(super) max_connections: u32,
    /// Hash of its name: the same on every thread and machine.
    pub(super) identity: u64,
    pub(super) state: Rc<NodeState>,
}

impl Node {
    pub(super) fn new(id: NodeId, name: &str, node: &plan::Node, identity: u64, state: Rc<NodeState>) -> Self {
        Self {
            id,
            name: name.to_owned(),
            addresses: node.addresses.clone(),
            weight: node.weight.max(1),
            priority: node.priority,
            admission: node.admission,
            max_connections: node.max_connections,
            identity,
            state,
        }
    }

    /// Its place.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Open requests of this thread.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.state.open.get()
    }

    /// Whether idle connections to `address` may still be used: an address that DNS no longer gives, and those of a node
    /// that takes nothing, are left.
    #[must_use]
    pub fn serves(&self, address: SocketAddr) -> bool {
        self.admission != Admission::Nothing && self.addresses.contains(&address)
    }

    /// Whether it is below its limit of connections.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.max_connections == 0 || self.state.shared.has_room(self.max_connections)
    }

    /// Whether it has room for a request that could go elsewhere: none waits for it in particular.
    #[inline]
    pub(super) fn has_room_for_any(&self) -> bool {
        self.max_connections == 0
            || (self.state.shared.has_room(self.max_connections) && !self.state.shared.is_wanted())
    }

    /// Its next address, or the same for each `key`.
    pub(super) fn address(&self, key: Option<u64>) -> Option<SocketAddr> {
        let [first, _, ..] = self.addresses[..] else { return self.addresses.first().copied() };
        let Some(key) = key else {
            let next = self.state.next_address.get();
            self.state.next_address.set(next.wrapping_add(1));
            return Some(self.addresses.get(next as usize % self.addresses.len()).copied().unwrap_or(first));
        };
        // The highest of hashes of key and address: another address that comes or goes moves no other key.
        self.addresses.iter().copied().max_by_key(|address| super::key::address_score(key, *address))
    }
}

/// What a thread knows of a node from one plan to the next.
#[derive(Debug)]
pub(super) struct NodeState {
    /// Leases of this thread.
    pub(super) open: Cell<u32>,
    pub(super) latency: Latency,
    /// Of smooth weighted round robin.
    pub(super) credit: Cell<i64>,
    next_address: Cell<u32>,
    pub(super) shared: Arc<SharedNode>,
}

impl NodeState {
    pub(super) fn new(shared: Arc<SharedNode>) -> Self {
        Self {
            open: Cell::new(0),
            latency: Latency::default(),
            credit: Cell::new(0),
            next_address: Cell::new(0),
            shared,
        }
    }
}
