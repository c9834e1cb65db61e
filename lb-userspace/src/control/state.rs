//! The control state: configuration, what operators set at run time, and what the monitors found.
//!
//! Owns the rules that turn these into a [`Plan`] and into the views of the admin API. Changes only through
//! [`State::apply`]; has no clock, socket, lock or randomness. Called by the control task in `daemon`, its one writer.

mod checks;
mod derive;
mod facts;
mod orders;
mod overrides;
mod picture;
mod proxy;
mod proxy_views;
mod views;
mod vips;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use self::{
    overrides::{NodeOverride, Override, Overrides},
    picture::Picture,
    vips::{AnnouncedGroup, FailoverGroup, RaisedVip, VipPlan},
};
use super::{
    plan::{Forwarding, Plan},
    probe::Kind,
    proxy::pool::{NodeChange, NodeEvent},
    query::{Order, QueryError},
    view::Health,
};
use crate::config::Config;

/// What the control task knows. The same events in the same order make the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Shared: the state is copied before each change, to go back to.
    config: Arc<Config>,
    /// All nodes of the configuration, by pool and name.
    known: Arc<BTreeSet<(String, String)>>,
    generation: u64,
    config_error: Option<String>,
    overrides: Overrides,
    /// By pool, node and monitor.
    findings: BTreeMap<String, BTreeMap<String, BTreeMap<String, Finding>>>,
    /// What DNS names of nodes stand for, as far as they were looked up.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Nodes that the proxy's passive monitoring took out, by pool and name. Shown only: the worker itself leaves them out,
    /// and tries them again.
    passive: BTreeMap<String, BTreeMap<String, NodeChange>>,
}

/// What changes the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A configuration was read. Overrides of values that it changes or no longer has are forgotten, the others stay;
    /// so does what the monitors found, where they check the same thing as before.
    NewConfig(Box<Config>),
    /// A configuration was read and refused, with these words. The one in force stays.
    ConfigRefused(String),
    /// An operator's order. `Reload` is not for the state: the caller reads the file and sends `NewConfig`.
    Order(Order),
    /// It is that time (seconds since 1970): what was set until then is undone.
    Time(u64),
    /// A DNS name of nodes was looked up. Never empty: the last known addresses are kept when there is no answer.
    Resolved {
        /// The name, as the configuration has it.
        name: String,
        /// What it stands for now.
        addresses: Vec<IpAddr>,
    },
    /// The proxy's passive monitoring took a node out, or back.
    Passive(NodeEvent),
    /// A worker of the proxy serves that knows nothing of nodes yet.
    FreshWorker,
    /// A monitor made up its mind about a node. Findings about what no longer exists are ignored: they may be late.
    Health {
        /// Pool.
        pool: String,
        /// Node.
        node: String,
        /// Monitor.
        monitor: String,
        /// What it found.
        health: Health,
        /// Its words, when the node is down.
        reason: Option<String>,
    },
}

/// The reason of a finding that has none.
const NO_REASON: &str = "check failed";

/// Whom a finding is about: pool, node, monitor.
pub type CheckId = (String, String, String);

/// What a monitor found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Finding {
    health: Health,
    reason: Option<String>,
}

/// A check to run, over and over: one monitor on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Pool.
    pub pool: String,
    /// Node.
    pub node: String,
    /// Monitor.
    pub monitor: String,
    /// Whom to ask; port 0 where there is none.
    pub address: SocketAddr,
    /// What to do.
    pub kind: Kind,
    /// From the start of a check to the start of the next one.
    pub delay: Duration,
    /// A check without an answer fails after this.
    pub timeout: Duration,
    /// Failed checks in a row that bring the node down.
    pub failures: u32,
    /// Successful checks in a row that bring it up.
    pub successes: u32,
}

impl State {
    /// The state at the start: configuration generation 1, nothing set at run time, nothing checked.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            known: Arc::new(all_names(&config)),
            config: Arc::new(config),
            generation: 1,
            config_error: None,
            overrides: Overrides::default(),
            findings: BTreeMap::new(),
            names: BTreeMap::new(),
            passive: BTreeMap::new(),
        }
    }

    /// Takes over what operators set before a restart, as far as the configuration still is what they changed.
    #[must_use]
    pub fn with_overrides(mut self, overrides: Overrides) -> Self {
        self.overrides = overrides;
        self.overrides.retain_valid(&self.config);
        self
    }

    /// Changes the state by an event. After an error the state is as before.
    ///
    /// # Errors
    /// Of orders: `NotFound` for an unknown name (says what exists), `Invalid` for what cannot be, with the reason.
    pub fn apply(&mut self, event: Event) -> Result<(), QueryError> {
        match event {
            Event::NewConfig(config) => {
                self.replace_config(*config);
                Ok(())
            }
            Event::ConfigRefused(why) => {
                self.config_error = Some(why);
                Ok(())
            }
            Event::Order(order) => self.order(order),
            Event::Time(now) => {
                self.overrides.end(now);
                Ok(())
            }
            Event::Resolved { name, addresses } => {
                self.names.insert(name, addresses);
                Ok(())
            }
            Event::Passive(NodeEvent { pool, node, change }) => {
                match change {
                    NodeChange::Back => {
                        if let Some(nodes) = self.passive.get_mut(&pool) {
                            nodes.remove(&node);
                        }
                    }
                    NodeChange::Out { .. } if self.config.node(&pool, &node).is_some() => {
                        self.passive.entry(pool).or_default().insert(node, change);
                    }
                    NodeChange::Out { .. } => {}
                }
                Ok(())
            }
            Event::FreshWorker => {
                self.passive.clear();
                Ok(())
            }
            Event::Health { pool, node, monitor, health, reason } => {
                self.find((pool, node, monitor), Finding { health, reason });
                Ok(())
            }
        }
    }

    /// What the data path is to do now.
    #[must_use]
    pub fn plan(&self) -> Plan {
        derive::plan(self)
    }

    /// The checks to run now, in a stable order.
    #[must_use]
    pub fn monitors(&self) -> Vec<Check> {
        checks::checks(self)
    }

    /// The VIPs to raise: always, or while this machine owns their group.
    #[must_use]
    pub fn vips(&self) -> VipPlan {
        vips::plan(self)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What DNS names of nodes stand for: for the caller to keep over a restart.
    #[must_use]
    pub fn names(&self) -> &BTreeMap<String, Vec<IpAddr>> {
        &self.names
    }

    /// How many configurations were accepted; the first is 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What operators set at run time: for the caller to keep over a restart.
    #[must_use]
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// How a pool forwards new connections now.
    #[must_use]
    pub fn forwarding(&self, pool: &str) -> Option<Forwarding> {
        let configured = self.config.pools.get(pool)?.forwarding;
        Some(self.overrides.pools.get(pool).map_or(configured, |o| o.value))
    }

    fn replace_config(&mut self, config: Config) {
        let before = asked(self.monitors());
        self.known = Arc::new(all_names(&config));
        self.config = Arc::new(config);
        self.generation += 1;
        self.config_error = None;
        self.overrides.retain_valid(&self.config);
        let config = &self.config;
        self.passive.retain(|pool, nodes| {
            nodes.retain(|node, _| config.node(pool, node).is_some());
            !nodes.is_empty()
        });
        let after = asked(self.monitors());
        for (pool, nodes) in &mut self.findings {
            for (node, found) in nodes.iter_mut() {
                found.retain(|monitor, _| {
                    let id = (pool.clone(), node.clone(), monitor.clone());
                    after.contains_key(&id) && before.get(&id) == after.get(&id)
                });
            }
            nodes.retain(|_, found| !found.is_empty());
        }
        self.findings.retain(|_, nodes| !nodes.is_empty());
    }

    fn find(&mut self, id: CheckId, finding: Finding) {
        let (pool, node, monitor) = &id;
        let monitored = self.config.monitors_of(pool).is_some_and(|monitors| monitors.contains(monitor));
        if monitored && self.config.node(pool, node).is_some() {
            if finding.health == Health::Down && self.config.recovers_manually(pool, monitor) {
                self.overrides.hold(pool, node, monitor, finding.reason.as_deref().unwrap_or(NO_REASON));
            }
            let (pool, node, monitor) = id;
            self.findings.entry(pool).or_default().entry(node).or_default().insert(monitor, finding);
        }
    }
}

/// The nodes of a configuration, by pool and name.
fn all_names(config: &Config) -> BTreeSet<(String, String)> {
    config.all_nodes().map(|(pool, node)| (pool.to_owned(), node.to_owned())).collect()
}

/// What each check asks whom.
fn asked(checks: Vec<Check>) -> BTreeMap<CheckId, (SocketAddr, Kind)> {
    checks.into_iter().map(|check| ((check.pool, check.node, check.monitor), (check.address, check.kind))).collect()
}
