//! What operators set at run time, over what the configuration says. Each override remembers the configured value that it
//! covers: when the configuration changes that value, the configuration has the last word again. This holds over a
//! reload and over a restart alike. Used by `control::state` alone; the caller may keep it in a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    control::{plan::Forwarding, view::NodeState},
};

/// A value set at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override<T> {
    /// What is in force.
    pub value: T,
    /// What the configuration said when it was set.
    pub configured: T,
    /// When it is undone: seconds since 1970; `None`: when the configuration says something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What was set of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeOverride {
    /// State.
    pub state: Option<Override<NodeState>>,
    /// Weight.
    pub weight: Option<Override<u32>>,
}

/// Everything that was set at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// Of nodes, by pool and node.
    pub nodes: BTreeMap<String, BTreeMap<String, NodeOverride>>,
    /// Forwarding, by pool.
    pub pools: BTreeMap<String, Override<Forwarding>>,
    /// Nodes that a monitor with manual recovery took out, until somebody takes them in again: pool, node, monitor, and what
    /// it said last.
    pub held: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    /// Whether this machine leaves all VIP groups to the others.
    pub in_maintenance: bool,
}

impl Overrides {
    /// What was set of a node.
    #[must_use]
    pub fn node(&self, pool: &str, node: &str) -> Option<&NodeOverride> {
        self.nodes.get(pool)?.get(node)
    }

    pub(super) fn set_state(&mut self, pool: &str, node: &str, configured: NodeState, value: NodeState) {
        self.change(pool, node, |o| o.state = Override::unless_same(value, configured));
    }

    pub(super) fn set_weight(&mut self, pool: &str, node: &str, configured: u32, value: u32) {
        self.change(pool, node, |o| o.weight = Override::unless_same(value, configured));
    }

    pub(super) fn set_forwarding(&mut self, pool: &str, configured: Forwarding, value: Forwarding) {
        match Override::unless_same(value, configured) {
            Some(set) => self.pools.insert(pool.to_owned(), set),
            None => self.pools.remove(pool),
        };
    }

    /// Why a node is held down, by monitor.
    #[must_use]
    pub fn held(&self, pool: &str, node: &str) -> Option<&BTreeMap<String, String>> {
        self.held.get(pool)?.get(node)
    }

    pub(super) fn hold(&mut self, pool: &str, node: &str, monitor: &str, why: &str) {
        let of_node = self.held.entry(pool.to_owned()).or_default().entry(node.to_owned()).or_default();
        of_node.insert(monitor.to_owned(), why.to_owned());
    }

    /// Whether it was held.
    pub(super) fn release(&mut self, pool: &str, node: &str) -> bool {
        let released = self.held.get_mut(pool).and_then(|nodes| nodes.remove(node)).is_some();
        self.forget_empty();
        released
    }

    /// What was set of a node ends then.
    pub(super) fn limit_node(&mut self, pool: &str, node: &str, until: u64, is_weight: bool) {
        self.change(pool, node, |set| match is_weight {
            true => set.weight = set.weight.map(|weight| Override { until: Some(until), ..weight }),
            false => set.state = set.state.map(|state| Override { until: Some(until), ..state }),
        });
    }

    /// What was set of a pool ends then.
    pub(super) fn limit_pool(&mut self, pool: &str, until: u64) {
        if let Some(set) = self.pools.get_mut(pool) {
            set.until = Some(until);
        }
    }

    /// Whether something has come to its end at `now`.
    #[must_use]
    pub fn has_ended(&self, now: u64) -> bool {
        let ended = |until: Option<u64>| until.is_some_and(|until| until <= now);
        let of_node = |set: &NodeOverride| {
            ended(set.state.and_then(|state| state.until)) || ended(set.weight.and_then(|weight| weight.until))
        };
        self.pools.values().any(|set| ended(set.until)) || self.nodes.values().flat_map(BTreeMap::values).any(of_node)
    }

    /// Undoes what has come to its end.
    pub(super) fn end(&mut self, now: u64) {
        let goes_on = |until: Option<u64>| until.is_none_or(|until| until > now);
        self.pools.retain(|_, set| goes_on(set.until));
        for set in self.nodes.values_mut().flat_map(BTreeMap::values_mut) {
            set.state = set.state.filter(|state| goes_on(state.until));
            set.weight = set.weight.filter(|weight| goes_on(weight.until));
        }
        self.forget_empty();
    }

    /// Forgets what covers a value that the configuration does not have (any more), and what it rules out.
    pub(super) fn retain_valid(&mut self, config: &Config) {
        for (pool, nodes) in &mut self.nodes {
            for (name, set) in nodes.iter_mut() {
                let node = config.node(pool, name);
                set.state = set.state.filter(|o| node.is_some_and(|(state, _)| state == o.configured));
                set.weight = set.weight.filter(|o| node.is_some_and(|(_, weight)| weight == o.configured));
            }
        }
        self.pools.retain(|name, set| {
            let same = config.pools.get(name).is_some_and(|pool| pool.forwarding == set.configured);
            same && (set.value != Forwarding::Dsr || config.dsr_obstacles(name).is_empty())
        });
        for (pool, nodes) in &mut self.held {
            nodes.retain(|node, _| config.node(pool, node).is_some());
            for monitors in nodes.values_mut() {
                monitors.retain(|monitor, _| config.recovers_manually(pool, monitor));
            }
        }
        self.forget_empty();
    }

    fn change(&mut self, pool: &str, node: &str, change: impl FnOnce(&mut NodeOverride)) {
        change(self.nodes.entry(pool.to_owned()).or_default().entry(node.to_owned()).or_default());
        self.forget_empty();
    }

    fn forget_empty(&mut self) {
        for nodes in self.nodes.values_mut() {
            nodes.retain(|_, set| *set != NodeOverride::default());
        }
        self.nodes.retain(|_, nodes| !nodes.is_empty());
        for nodes in self.held.values_mut() {
            nodes.retain(|_, monitors| !monitors.is_empty());
        }
        self.held.retain(|_, nodes| !nodes.is_empty());
    }
}

impl<T: PartialEq> Override<T> {
    fn unless_same(value: T, configured: T) -> Option<Self> {
        (value != configured).then_some(Self { value, configured, until: None })
    }
}
