//! The control state: configuration, what operators set at run time, and what the monitors found.
//!
//! Owns the rules that turn these into a [`Plan`] and into the views of the admin API. Changes only through
//! [`State::apply`]; has no clock, socket, lock or randomness. Called by the control task in `daemon`, its one writer.

mod checks;
mod derive;
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
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use self::{
    overrides::{NodeOverride, Override, Overrides},
    picture::Picture,
    vips::{AnnouncedGroup, FailoverGroup, RaisedVip, VipPlan},
};
use super::{
    plan::{Admission, Forwarding, Plan},
    probe::Kind,
    proxy::pool::{NodeChange, NodeEvent},
    query::{Order, QueryError},
    view::{Health, NodeState},
};
use crate::config::Config;

/// What the control task knows. The same events in the same order make the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    config: Config,
    generation: u64,
    config_error: Option<String>,
    overrides: Overrides,
    findings: BTreeMap<CheckId, Finding>,
    /// What DNS names of nodes stand for, as far as they were looked up.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Nodes that the proxy's passive monitoring took out, by pool and name. Shown only: the worker itself leaves them out,
    /// and tries them again.
    passive: BTreeMap<(String, String), NodeChange>,
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
            config,
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
                    NodeChange::Back => drop(self.passive.remove(&(pool, node))),
                    NodeChange::Out { .. } if self.config.node(&pool, &node).is_some() => {
                        self.passive.insert((pool, node), change);
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
        self.config = config;
        self.generation += 1;
        self.config_error = None;
        self.overrides.retain_valid(&self.config);
        let nodes = &self.config;
        self.passive.retain(|(pool, node), _| nodes.node(pool, node).is_some());
        let after = asked(self.monitors());
        self.findings.retain(|id, _| after.contains_key(id) && before.get(id) == after.get(id));
    }

    fn find(&mut self, id: CheckId, finding: Finding) {
        let (pool, node, monitor) = &id;
        let monitored = self.config.monitors_of(pool).is_some_and(|monitors| monitors.contains(monitor));
        if monitored && self.config.node(pool, node).is_some() {
            if finding.health == Health::Down && self.config.recovers_manually(pool, monitor) {
                self.overrides.hold(pool, node, monitor, finding.reason.as_deref().unwrap_or(NO_REASON));
            }
            self.findings.insert(id, finding);
        }
    }

    fn node_state(&self, pool: &str, name: &str, configured: NodeState) -> NodeState {
        self.overrides.node(pool, name).and_then(|o| o.state).map_or(configured, |o| o.value)
    }

    fn node_weight(&self, pool: &str, name: &str, configured: u32) -> u32 {
        self.overrides.node(pool, name).and_then(|o| o.weight).map_or(configured, |o| o.value)
    }

    /// What the monitors say of a node together: down when one says so, or said so and is not to take it back by itself; up
    /// when all of them do.
    fn node_health(&self, pool: &str, name: &str) -> (Health, Option<String>) {
        let Some(monitors) = self.config.monitors_of(pool) else { return (Health::Unknown, None) };
        let held = self.overrides.held(pool, name);
        let mut words = Vec::new();
        let mut all_up = !monitors.is_empty();
        for monitor in monitors {
            let found = self.findings.get(&(pool.to_owned(), name.to_owned(), monitor.clone()));
            let health = found.map_or(Health::Unknown, |found| found.health);
            all_up &= health == Health::Up;
            let held = held.and_then(|held| held.get(monitor));
            match (health, held) {
                (Health::Down, _) => {
                    let reason = found.and_then(|found| found.reason.as_deref()).unwrap_or(NO_REASON);
                    words.push(format!("{monitor}: {reason}"));
                }
                (Health::Up, Some(why)) => {
                    words.push(format!("{monitor}: {why}; it answers again and waits for: lbctl node up {pool}/{name}"))
                }
                (Health::Unknown, Some(why)) => words.push(format!("{monitor}: {why}; not checked since")),
                (Health::Up | Health::Unknown, None) => {}
            }
        }
        if !words.is_empty() {
            return (Health::Down, Some(words.join("; ")));
        }
        (if all_up { Health::Up } else { Health::Unknown }, None)
    }

    /// What a node takes when its pool is in use.
    fn node_admission(&self, pool: &str, name: &str, configured: NodeState) -> Admission {
        match (self.node_state(pool, name, configured), self.node_health(pool, name).0) {
            (NodeState::Disabled, _) | (_, Health::Down) => Admission::Nothing,
            (NodeState::Draining, _) => Admission::Tracked,
            (NodeState::Active, Health::Up | Health::Unknown) => Admission::All,
        }
    }
}

/// What each check asks whom.
fn asked(checks: Vec<Check>) -> BTreeMap<CheckId, (SocketAddr, Kind)> {
    checks.into_iter().map(|check| ((check.pool, check.node, check.monitor), (check.address, check.kind))).collect()
}
