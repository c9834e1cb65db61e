//! What of the state is told when it changes: a [`Picture`] before and one after give the [`Fact`]s between. Pure; called by
//! the control task, which may take in several events between two pictures.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{State, derive, proxy_views::out_reason};
use crate::{
    config::proxy::Proxy,
    control::{
        event::{Fact, Name},
        plan::Admission,
        view::{Health, NodeState},
    },
};

/// The state as it is told. Only what is not as it should be is in it, so that it stays small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// What nodes exist: one that is new or gone has not changed. Shared with the state.
    known: Arc<BTreeSet<(String, String)>>,
    /// Nodes that are down, with the monitors' words.
    down: BTreeMap<(String, String), String>,
    /// Nodes that are not active.
    states: BTreeMap<(String, String), NodeState>,
    /// Nodes that passive monitoring took out.
    out: BTreeMap<(String, String), String>,
    /// Pools of which no node takes new connections.
    pools_down: BTreeSet<String>,
    /// Virtual servers that nobody serves (`None`), or their failure pool.
    servers: BTreeMap<String, Option<String>>,
}

impl State {
    /// The state as it is told.
    #[must_use]
    pub fn picture(&self) -> Picture {
        let mut picture = Picture { known: Arc::clone(&self.known), ..Picture::default() };
        for (name, pool) in &self.config.pools {
            self.picture_nodes(&mut picture, name, pool.nodes.iter().map(|(name, node)| (name, node.state)));
        }
        for (name, pool) in &self.config.proxy.pools {
            self.picture_nodes(&mut picture, name, pool.nodes.iter().map(|(name, node)| (name, node.state)));
        }
        for (pool, nodes) in &self.passive {
            let out = nodes.iter().map(|(node, change)| ((pool.clone(), node.clone()), out_reason(*change)));
            picture.out.extend(out);
        }
        self.picture_servers(&mut picture);
        picture
    }

    fn picture_nodes<'s>(
        &self,
        picture: &mut Picture,
        pool: &str,
        nodes: impl Iterator<Item = (&'s String, NodeState)>,
    ) {
        let facts = self.facts(pool);
        for (node, configured) in nodes {
            let id = || (pool.to_owned(), node.clone());
            if facts.health(node) == Health::Down {
                picture.down.insert(id(), facts.reason(node).unwrap_or_default());
            }
            let state = facts.state(node, configured);
            if state != NodeState::Active {
                picture.states.insert(id(), state);
            }
        }
    }

    fn picture_servers(&self, picture: &mut Picture) {
        for (name, pool) in &self.config.pools {
            let facts = self.facts(name);
            let takes = |(node, n): (&String, &crate::config::Node)| facts.admission(node, n.state) == Admission::All;
            if !pool.nodes.iter().any(takes) {
                picture.pools_down.insert(name.clone());
            }
        }
        for (name, pool) in &self.config.proxy.pools {
            if !self.proxy_pool_serves(name, pool) {
                picture.pools_down.insert(name.clone());
            }
        }
        for (name, server) in &self.config.virtual_servers {
            let (in_use, _) = derive::pool_in_use(self, &server.pool);
            let serving = if picture.pools_down.contains(in_use) { None } else { Some(in_use.to_owned()) };
            if serving.as_ref() != Some(&server.pool) {
                picture.servers.insert(name.clone(), serving);
            }
        }
        for (name, server) in &self.config.proxy.virtual_servers {
            for own in Proxy::named_pools(server) {
                let serving = self.proxy_pool_in_use(own).map(str::to_owned);
                if serving.as_deref() != Some(own) {
                    picture.servers.insert(name.clone(), serving);
                    break;
                }
            }
        }
    }
}

impl Picture {
    /// Nodes that are drained, by pool and name.
    #[must_use]
    pub fn draining(&self) -> BTreeSet<(String, String)> {
        let draining = self.states.iter().filter(|(_, state)| **state == NodeState::Draining);
        draining.map(|(id, _)| id.clone()).collect()
    }

    /// What happened between two pictures: causes before what they bring about.
    #[must_use]
    pub fn until(&self, after: &Self) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.node_states(after, &mut facts);
        self.node_health(after, &mut facts);
        for pool in after.pools_down.difference(&self.pools_down) {
            facts.push(Fact::new(Name::PoolDown, pool, format!("no node of pool {pool} takes new connections")));
        }
        for pool in self.pools_down.difference(&after.pools_down) {
            let still_there = after.known.iter().any(|(own, _)| own == pool);
            if still_there {
                facts.push(Fact::new(Name::PoolUp, pool, format!("pool {pool} has a live node again")));
            }
        }
        self.servers(after, &mut facts);
        facts
    }

    fn node_states(&self, after: &Self, facts: &mut Vec<Fact>) {
        for id in changed(&self.states, &after.states) {
            if !self.known.contains(id) || !after.known.contains(id) {
                continue;
            }
            let node = named(id);
            facts.push(match after.states.get(id) {
                Some(NodeState::Draining) => {
                    Fact::new(Name::NodeDraining, &node, format!("node {node} takes no new connections"))
                }
                Some(NodeState::Disabled) => {
                    Fact::new(Name::NodeDisabled, &node, format!("node {node} gets no packets any more"))
                }
                Some(NodeState::Active) | None => {
                    Fact::new(Name::NodeEnabled, &node, format!("node {node} is active again"))
                }
            });
        }
    }

    fn node_health(&self, after: &Self, facts: &mut Vec<Fact>) {
        for (id, why) in after.down.iter().filter(|(id, _)| !self.down.contains_key(*id)) {
            let node = named(id);
            facts.push(Fact::new(Name::NodeDown, &node, format!("node {node} is down: {why}")));
        }
        for id in self.down.keys().filter(|id| !after.down.contains_key(*id) && after.known.contains(*id)) {
            let node = named(id);
            facts.push(Fact::new(Name::NodeUp, &node, format!("node {node} is up again")));
        }
        for (id, why) in after.out.iter().filter(|(id, _)| !self.out.contains_key(*id)) {
            let node = named(id);
            let text = format!("passive monitoring took node {node} out: {why}");
            facts.push(Fact::new(Name::NodeOut, &node, text));
        }
        for id in self.out.keys().filter(|id| !after.out.contains_key(*id) && after.known.contains(*id)) {
            let node = named(id);
            facts.push(Fact::new(Name::NodeBack, &node, format!("node {node}, which was out, serves again")));
        }
    }

    fn servers(&self, after: &Self, facts: &mut Vec<Fact>) {
        for name in changed(&self.servers, &after.servers) {
            facts.push(match after.servers.get(name) {
                Some(None) => {
                    let text = format!("virtual server {name} is not served: no node takes new connections");
                    Fact::new(Name::VirtualServerDown, name, text)
                }
                Some(Some(pool)) => {
                    let text = format!("virtual server {name} is served by failure pool {pool}");
                    Fact::new(Name::VirtualServerFailedOver, name, text)
                }
                None => {
                    let text = format!("virtual server {name} is served by its own pool again");
                    Fact::new(Name::VirtualServerUp, name, text)
                }
            });
        }
    }
}

/// Keys whose value differs, or is in one of the two alone.
fn changed<'p, K: Ord, V: PartialEq>(before: &'p BTreeMap<K, V>, after: &'p BTreeMap<K, V>) -> BTreeSet<&'p K> {
    before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key)).collect()
}

fn named((pool, node): &(String, String)) -> String {
    format!("{pool}/{node}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        control::{
            proxy::pool::{Failure, NodeChange, NodeEvent},
            query::Order,
            state::Event,
        },
    };

    const CONFIG: &str = r#"
version = 1
[interface.eth0]
[vip.web]
addresses = ["192.0.2.10"]
[virtual_server.web]
vips = ["web"]
protocol = "tcp"
ports = [80]
pool = "web"
[pool.web]
forwarding = "nat"
monitors = ["tcp"]
failure_pool = "sorry"
[pool.web.node.n1]
address = "10.0.0.11:80"
[pool.web.node.n2]
address = "10.0.0.12:80"
[pool.sorry]
forwarding = "nat"
monitors = ["tcp"]
[pool.sorry.node.s1]
address = "10.0.0.13:80"
[virtual_server.site]
vips = ["web"]
protocol = "http"
ports = [8080]
pool = "app"
[pool.app]
forwarding = "proxy"
[pool.app.node.a1]
address = "10.0.0.21:80"
[monitor.tcp]
type = "tcp"
"#;

    /// What is told of the events, one after the other.
    fn told(events: &[Event]) -> Vec<String> {
        let mut state = State::new(Config::parse("lb.toml", CONFIG).unwrap());
        let mut told = Vec::new();
        for event in events {
            let before = state.picture();
            state.apply(event.clone()).unwrap();
            let facts = before.until(&state.picture());
            told.extend(facts.into_iter().map(|fact| format!("{} {}", fact.name.word(), fact.object)));
        }
        told
    }

    fn health(pool: &str, node: &str, health: Health) -> Event {
        let (pool, node, monitor) = (pool.to_owned(), node.to_owned(), "tcp".to_owned());
        Event::Health { pool, node, monitor, health, reason: Some("refused".to_owned()) }
    }

    #[test]
    fn causes_are_told_before_what_they_bring_about() {
        let down = |pool, node| health(pool, node, Health::Down);
        let up = |pool, node| health(pool, node, Health::Up);
        let events = [
            up("web", "n1"),
            down("web", "n1"),
            down("web", "n1"),
            down("web", "n2"),
            down("sorry", "s1"),
            up("sorry", "s1"),
            up("web", "n2"),
        ];
        let expected = [
            "node_down web/n1",
            "node_down web/n2",
            "pool_down web",
            "virtual_server_failed_over web",
            "node_down sorry/s1",
            "pool_down sorry",
            "virtual_server_down web",
            "node_up sorry/s1",
            "pool_up sorry",
            "virtual_server_failed_over web",
            "node_up web/n2",
            "pool_up web",
            "virtual_server_up web",
        ];
        assert_eq!(told(&events), expected);
    }

    #[test]
    fn orders_and_passive_monitoring_are_told() {
        let order =
            |state| Event::Order(Order::SetNodeState { pool: Some("web".to_owned()), node: "n1".to_owned(), state });
        let passive = |change| Event::Passive(NodeEvent { pool: "app".to_owned(), node: "a1".to_owned(), change });
        let events = [
            order(NodeState::Draining),
            order(NodeState::Draining),
            order(NodeState::Disabled),
            order(NodeState::Active),
            passive(NodeChange::Out { reason: Failure::Connect, in_a_row: 3 }),
            passive(NodeChange::Back),
        ];
        let expected = [
            "node_draining web/n1",
            "node_disabled web/n1",
            "node_enabled web/n1",
            "node_out app/a1",
            "pool_down app",
            "virtual_server_down site",
            "node_back app/a1",
            "pool_up app",
            "virtual_server_up site",
        ];
        assert_eq!(told(&events), expected);
    }

    #[test]
    fn what_a_configuration_adds_or_takes_away_has_not_changed() {
        let without = CONFIG.replace("[pool.web.node.n1]\naddress = \"10.0.0.11:80\"\n", "");
        let with_another = without.replace(
            "[pool.sorry]",
            "[pool.web.node.n3]\naddress = \"10.0.0.14:80\"\nstate = \"draining\"\n[pool.sorry]",
        );
        let config = |text: &str| Event::NewConfig(Box::new(Config::parse("lb.toml", text).unwrap()));
        let events = [health("web", "n1", Health::Down), config(&without), config(&with_another)];
        assert_eq!(told(&events), ["node_down web/n1"]);
    }
}
