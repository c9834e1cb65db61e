//! Operators' orders: finds what they name, refuses what cannot be and says why. Called by [`State::apply`] alone.

use super::State;
use crate::{
    config::Config,
    control::{
        plan::Forwarding,
        query::{Order, QueryError},
        view::{Health, NodeState},
    },
};

/// The greatest weight of a node, as in the configuration.
const MAX_WEIGHT: u32 = 65_535;

impl State {
    pub(super) fn order(&mut self, order: Order) -> Result<(), QueryError> {
        match order {
            Order::SetNodeState { pool, node, state } => {
                let (pool, name, node) = find_node(&self.config, pool.as_deref(), &node)?;
                self.overrides.set_state(&pool, &name, node.0, state);
                Ok(())
            }
            Order::TakeNodeIn { pool, node } => self.take_in(pool.as_deref(), &node),
            Order::SetNodeWeight { pool, node, weight } => {
                let (pool, name, node) = find_node(&self.config, pool.as_deref(), &node)?;
                if !(1..=MAX_WEIGHT).contains(&weight) {
                    return Err(QueryError::Invalid(format!(
                        "weight {weight} of node {pool}/{name} is not within 1 to {MAX_WEIGHT}; \
                         to send it no new connections, drain it: lbctl node drain {pool}/{name}"
                    )));
                }
                self.overrides.set_weight(&pool, &name, node.1, weight);
                Ok(())
            }
            Order::SetForwarding { pool, forwarding } => {
                if self.config.proxy.pools.contains_key(&pool) {
                    return Err(QueryError::Invalid(format!(
                        "pool {pool:?} is one of the proxy's: its connections are not packets that could be forwarded otherwise"
                    )));
                }
                let Some((name, configured)) = self.config.pools.get_key_value(&pool) else {
                    return Err(no_pool(&self.config, &pool));
                };
                if forwarding == Forwarding::Dsr
                    && let Some(obstacle) = self.config.dsr_obstacles(name).first()
                {
                    return Err(QueryError::Invalid(format!("pool {name:?} cannot forward by dsr: {obstacle}")));
                }
                // `nat` means as the pool is configured to do NAT.
                let forwarding = match (forwarding, configured.forwarding) {
                    (Forwarding::Nat, Forwarding::NatSource) => Forwarding::NatSource,
                    (asked, _) => asked,
                };
                self.overrides.set_forwarding(name, configured.forwarding, forwarding);
                Ok(())
            }
            Order::Until(order, until) => self.order_until(*order, until),
            Order::MoveVip { group, to } => self.check_move(&group, to.as_deref()),
            Order::Maintenance(on) => self.set_maintenance(on),
            Order::Upgrade => Err(QueryError::Invalid("an upgrade is not for the control state".into())),
        }
    }
}

impl State {
    /// Carries an order out that is undone at a time.
    fn order_until(&mut self, order: Order, until: u64) -> Result<(), QueryError> {
        match &order {
            Order::SetNodeState { pool, node, .. } | Order::SetNodeWeight { pool, node, .. } => {
                let (pool, name, _) = find_node(&self.config, pool.as_deref(), node)?;
                let is_weight = matches!(order, Order::SetNodeWeight { .. });
                self.order(order)?;
                self.overrides.limit_node(&pool, &name, until, is_weight);
            }
            Order::SetForwarding { pool, .. } => {
                let pool = pool.clone();
                self.order(order)?;
                self.overrides.limit_pool(&pool, until);
            }
            Order::TakeNodeIn { .. }
            | Order::Until(..)
            | Order::MoveVip { .. }
            | Order::Maintenance(_)
            | Order::Upgrade => {
                return Err(QueryError::Invalid("this order cannot be undone by itself".to_owned()));
            }
        }
        Ok(())
    }

    /// Takes in a node that a monitor with manual recovery took out, when its checks succeed.
    fn take_in(&mut self, pool: Option<&str>, node: &str) -> Result<(), QueryError> {
        let (pool, name, _) = find_node(&self.config, pool, node)?;
        let held = self.overrides.held(&pool, &name).into_iter().flatten();
        for (monitor, _) in held {
            let found = self.findings.get(&pool).and_then(|nodes| nodes.get(&name)?.get(monitor));
            if let Some(found) = found.filter(|found| found.health == Health::Down) {
                let why = found.reason.as_deref().unwrap_or_default();
                return Err(QueryError::Invalid(format!(
                    "monitor {monitor:?} still says of node {pool}/{name}: {why}; say lbctl node up when that is mended, or let \
                     it be without its monitor"
                )));
            }
        }
        if self.overrides.release(&pool, &name) {
            return Ok(());
        }
        Err(QueryError::Invalid(format!(
            "node {pool}/{name} does not wait to be taken in; one that was drained or disabled comes back by: lbctl node enable \
             {pool}/{name}"
        )))
    }
}

/// Finds a node by `pool` and `node`, by `pool/node` in one word, or by a name that only one pool has: pool, name, and its
/// configured state and weight.
fn find_node(
    config: &Config,
    pool: Option<&str>,
    node: &str,
) -> Result<(String, String, (NodeState, u32)), QueryError> {
    let (pool, node) = match (pool, node.split_once('/')) {
        (None, Some((pool, node))) => (Some(pool), node),
        (pool, _) => (pool, node),
    };
    if let Some(pool) = pool {
        if config.monitors_of(pool).is_none() {
            return Err(no_pool(config, pool));
        }
        let Some(found) = config.node(pool, node) else {
            let there = list(config.all_nodes().filter(|(of, _)| *of == pool).map(|(_, node)| node));
            return Err(QueryError::NotFound(format!("pool {pool:?} has no node {node:?}; its nodes: {there}")));
        };
        return Ok((pool.to_owned(), node.to_owned(), found));
    }
    let everywhere = config.all_nodes().filter(|(_, name)| *name == node);
    let found: Vec<_> = everywhere.filter_map(|(pool, name)| Some((pool, name, config.node(pool, name)?))).collect();
    match found[..] {
        [(pool, name, node)] => Ok((pool.to_owned(), name.to_owned(), node)),
        [] => {
            let all = config.all_nodes().map(|(pool, node)| format!("{pool}/{node}"));
            Err(QueryError::NotFound(format!("no pool has a node {node:?}; nodes: {}", list(all))))
        }
        [..] => {
            let names = list(found.iter().map(|(pool, name, _)| format!("{pool}/{name}")));
            Err(QueryError::Invalid(format!("several pools have a node {node:?}: say which of {names}")))
        }
    }
}

fn no_pool(config: &Config, pool: &str) -> QueryError {
    QueryError::NotFound(format!(
        "there is no pool {pool:?}; pools: {}",
        list(config.pools.keys().chain(config.proxy.pools.keys()))
    ))
}

/// At most this many names are listed in an error.
const MAX_LISTED: usize = 20;

pub(super) fn list<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown = names.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(MAX_LISTED) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}
