//! What is known of the nodes of one pool: findings of monitors, words of operators, what passive monitoring took out. A site may
//! have ten thousand nodes: what a pool's nodes share is looked up once, and an answer that needs no words makes none. Pure.

use std::collections::BTreeMap;

use super::{Finding, NO_REASON, NodeOverride, State};
use crate::control::{
    plan::Admission,
    proxy::pool::NodeChange,
    view::{Health, NodeState},
};

/// Findings of a node, by monitor.
type OfNode = BTreeMap<String, Finding>;

/// See the module. Of a pool that does not exist nothing is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'s> {
    pool: &'s str,
    monitors: &'s [String],
    found: Option<&'s BTreeMap<String, OfNode>>,
    set: Option<&'s BTreeMap<String, NodeOverride>>,
    held: Option<&'s BTreeMap<String, BTreeMap<String, String>>>,
    out: Option<&'s BTreeMap<String, NodeChange>>,
}

impl State {
    /// What is known of a pool's nodes.
    pub(super) fn facts<'s>(&'s self, pool: &'s str) -> Facts<'s> {
        Facts {
            pool,
            monitors: self.config.monitors_of(pool).unwrap_or_default(),
            found: self.findings.get(pool),
            set: self.overrides.nodes.get(pool),
            held: self.overrides.held.get(pool),
            out: self.passive.get(pool),
        }
    }
}

impl Facts<'_> {
    /// Whether nobody checks its nodes.
    pub(super) fn is_unchecked(&self) -> bool {
        self.monitors.is_empty()
    }

    /// What operators set of a node.
    pub(super) fn set(&self, node: &str) -> Option<&NodeOverride> {
        self.set?.get(node)
    }

    pub(super) fn state(&self, node: &str, configured: NodeState) -> NodeState {
        self.set(node).and_then(|set| set.state).map_or(configured, |set| set.value)
    }

    pub(super) fn weight(&self, node: &str, configured: u32) -> u32 {
        self.set(node).and_then(|set| set.weight).map_or(configured, |set| set.value)
    }

    /// Why passive monitoring took it out, if it did.
    pub(super) fn out(&self, node: &str) -> Option<NodeChange> {
        self.out?.get(node).copied()
    }

    /// What the monitors say of a node together: down when one says so, or said so and is not to take it back by itself; up
    /// when all of them do.
    pub(super) fn health(&self, node: &str) -> Health {
        let mut health = if self.monitors.is_empty() { Health::Unknown } else { Health::Up };
        for (_, found, held) in self.said(node) {
            let found = found.map_or(Health::Unknown, |found| found.health);
            if found == Health::Down || held.is_some() {
                return Health::Down;
            }
            if found == Health::Unknown {
                health = Health::Unknown;
            }
        }
        health
    }

    /// Why it is down: the monitors' words.
    pub(super) fn reason(&self, node: &str) -> Option<String> {
        let pool = self.pool;
        let words = self.said(node).filter_map(|(monitor, found, held)| {
            match (found.map_or(Health::Unknown, |found| found.health), held) {
                (Health::Down, _) => {
                    let reason = found.and_then(|found| found.reason.as_deref()).unwrap_or(NO_REASON);
                    Some(format!("{monitor}: {reason}"))
                }
                (Health::Up, Some(why)) => {
                    Some(format!("{monitor}: {why}; it answers again and waits for: lbctl node up {pool}/{node}"))
                }
                (Health::Unknown, Some(why)) => Some(format!("{monitor}: {why}; not checked since")),
                (Health::Up | Health::Unknown, None) => None,
            }
        });
        let words: Vec<String> = words.collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// What a node takes when its pool is in use.
    pub(super) fn admission(&self, node: &str, configured: NodeState) -> Admission {
        match (self.state(node, configured), self.health(node)) {
            (NodeState::Disabled, _) | (_, Health::Down) => Admission::Nothing,
            (NodeState::Draining, _) => Admission::Tracked,
            (NodeState::Active, Health::Up | Health::Unknown) => Admission::All,
        }
    }

    /// Of each monitor what it found, and why it holds the node down.
    fn said(&self, node: &str) -> impl Iterator<Item = (&str, Option<&Finding>, Option<&str>)> {
        let found = self.found.and_then(|nodes| nodes.get(node));
        let held = self.held.and_then(|nodes| nodes.get(node));
        self.monitors.iter().map(move |monitor| {
            let why = held.and_then(|held| held.get(monitor)).map(String::as_str);
            (monitor.as_str(), found.and_then(|found| found.get(monitor)), why)
        })
    }
}
