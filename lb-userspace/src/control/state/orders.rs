//! Operators' orders: finds what they name, refuses what cannot be and says why. Called by [`State::apply`] alone.

use super::State;
use crate::{
    config::{Config, Node},
    control::{
        plan::Forwarding,
        query::{Order, QueryError},
    },
};

/// The greatest weight of a node, as in the configuration.
const MAX_WEIGHT: u32 = 65_535;

impl State {
    pub(super) fn order(&mut self, order: Order) -> Result<(), QueryError> {
        match order {
            Order::SetNodeState { pool, node, state } => {
                let (pool, name, node) = find_node(&self.config, pool.as_deref(), &node)?;
                self.overrides.set_state(pool, name, node.state, state);
                Ok(())
            }
            Order::SetNodeWeight { pool, node, weight } => {
                let (pool, name, node) = find_node(&self.config, pool.as_deref(), &node)?;
                if !(1..=MAX_WEIGHT).contains(&weight) {
                    return Err(QueryError::Invalid(format!(
                        "weight {weight} of node {pool}/{name} is not within 1 to {MAX_WEIGHT}; \
                         to send it no new connections, drain it: lbctl node drain {pool}/{name}"
                    )));
                }
                self.overrides.set_weight(pool, name, node.weight, weight);
                Ok(())
            }
            Order::SetForwarding { pool, forwarding } => {
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
            Order::Reload => {
                Err(QueryError::Invalid("a reload is not for the control state: send the new config".into()))
            }
        }
    }
}

/// Finds a node by `pool` and `node`, by `pool/node` in one word, or by a name that only one pool has.
fn find_node<'a>(
    config: &'a Config,
    pool: Option<&str>,
    node: &str,
) -> Result<(&'a str, &'a str, &'a Node), QueryError> {
    let (pool, node) = match (pool, node.split_once('/')) {
        (None, Some((pool, node))) => (Some(pool), node),
        (pool, _) => (pool, node),
    };
    if let Some(pool) = pool {
        let Some((pool, found)) = config.pools.get_key_value(pool) else { return Err(no_pool(config, pool)) };
        let Some((name, value)) = found.nodes.get_key_value(node) else {
            let there = list(found.nodes.keys());
            return Err(QueryError::NotFound(format!("pool {pool:?} has no node {node:?}; its nodes: {there}")));
        };
        return Ok((pool, name, value));
    }
    let everywhere = config.pools.iter().filter_map(|(pool, p)| {
        let (name, value) = p.nodes.get_key_value(node)?;
        Some((pool.as_str(), name.as_str(), value))
    });
    let found: Vec<_> = everywhere.collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let all =
                config.pools.iter().flat_map(|(pool, p)| p.nodes.keys().map(move |node| format!("{pool}/{node}")));
            Err(QueryError::NotFound(format!("no pool has a node {node:?}; nodes: {}", list(all))))
        }
        [..] => {
            let names = list(found.iter().map(|(pool, name, _)| format!("{pool}/{name}")));
            Err(QueryError::Invalid(format!("several pools have a node {node:?}: say which of {names}")))
        }
    }
}

fn no_pool(config: &Config, pool: &str) -> QueryError {
    QueryError::NotFound(format!("there is no pool {pool:?}; pools: {}", list(config.pools.keys())))
}

/// At most this many names are listed in an error.
const MAX_LISTED: usize = 20;

fn list<T: ToString>(names: impl Iterator<Item = T>) -> String {
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
