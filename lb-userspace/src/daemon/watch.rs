//! Looks at the counters every second, on a thread of its own, for what has no event: flow tables that fill up, drained nodes
//! whose last connection has ended; and gives them to the histories. The rules are pure; called by `daemon`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::sync::watch;

use super::{histories::Histories, journal::Teller};
use crate::control::{
    event::{Fact, Name},
    query::{Counters, DataPath, Part, ProxyPath},
    view::TableUse,
};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Fill of a flow table, in percent, that is told (THREATS D4), and the one below which it is well again.
const PRESSURE: u64 = 70;
/// See [`PRESSURE`].
const RELIEF: u64 = 60;

/// Pool and node.
pub(super) type NodeName = (String, String);

/// Watches as long as somebody may drain a node.
///
/// # Errors
/// When the kernel refuses the thread.
pub(super) fn start(
    data_path: Arc<dyn DataPath>,
    proxy: Arc<dyn ProxyPath>,
    draining: watch::Receiver<BTreeSet<NodeName>>,
    (teller, histories): (Teller, Histories),
) -> std::io::Result<()> {
    let look = move || {
        let mut watched = Watched::default();
        // The sender is gone when lbd is.
        while draining.has_changed().is_ok() {
            thread::sleep(EVERY);
            // What cannot be read now is looked at again.
            let Ok(counters) = data_path.counters() else { continue };
            let counters = Counters { proxy: proxy.counted(Part::All), ..counters };
            let draining = draining.borrow().clone();
            watched.look(&counters, &draining).into_iter().for_each(|fact| teller.tell(fact));
            histories.take(counters);
        }
    };
    thread::Builder::new().name("watch".to_owned()).spawn(look).map(drop)
}

/// What was seen before.
#[derive(Debug, Default)]
struct Watched {
    full: BTreeSet<String>,
    /// Drained nodes that had no connection: told.
    empty: BTreeSet<NodeName>,
}

impl Watched {
    fn look(&mut self, counters: &Counters, draining: &BTreeSet<NodeName>) -> Vec<Fact> {
        let mut facts = self.tables(&counters.tables);
        self.empty.retain(|node| draining.contains(node));
        for node in draining {
            if !self.empty.contains(node) && connections(counters, node) == 0 {
                let name = format!("{}/{}", node.0, node.1);
                let text = format!("node {name} is drained: it has no connections any more");
                facts.push(Fact::new(Name::NodeDrained, &name, text));
                self.empty.insert(node.clone());
            }
        }
        facts
    }

    fn tables(&mut self, tables: &BTreeMap<String, TableUse>) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (name, table) in tables {
            let percent = table.used.saturating_mul(100).checked_div(table.capacity).unwrap_or(0);
            let was_full = self.full.contains(name);
            if !was_full && percent >= PRESSURE {
                self.full.insert(name.clone());
                facts.push(Fact::new(Name::MapPressure, name, format!("flow table {name} is {percent} % full")));
            } else if was_full && percent < RELIEF {
                self.full.remove(name);
                let text = format!("flow table {name} has room again: {percent} % full");
                facts.push(Fact::new(Name::MapRelieved, name, text));
            }
        }
        facts
    }
}

/// Of a node, in all virtual servers.
fn connections(counters: &Counters, (pool, node): &NodeName) -> u64 {
    let forwarded = counters.nodes.iter().filter(|((_, p, n), _)| p == pool && n == node).map(|(_, c)| c.active);
    let proxied = counters.proxy.nodes.get(pool).and_then(|nodes| nodes.get(node));
    forwarded.sum::<u64>() + proxied.map_or(0, |node| node.connections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::query::NodeCounters;

    fn told(watched: &mut Watched, used: u64, active: u64, draining: &[&str]) -> Vec<(Name, String)> {
        let node = NodeCounters { active, ..NodeCounters::default() };
        let counters = Counters {
            tables: [("FLOWS".to_owned(), TableUse { used, capacity: 200 })].into(),
            nodes: [(("vs".to_owned(), "web".to_owned(), "n1".to_owned()), node)].into(),
            ..Counters::default()
        };
        let draining = draining.iter().map(|node| ("web".to_owned(), (*node).to_owned())).collect();
        watched.look(&counters, &draining).into_iter().map(|fact| (fact.name, fact.object)).collect()
    }

    #[test]
    fn pressure_is_told_once_and_relief_with_a_margin() {
        let mut watched = Watched::default();
        let mut tables = |used| told(&mut watched, used, 1, &[]);
        assert_eq!(tables(139), []);
        assert_eq!(tables(140), [(Name::MapPressure, "FLOWS".to_owned())]);
        assert_eq!(tables(200), []);
        assert_eq!(tables(125), [], "between the two");
        assert_eq!(tables(119), [(Name::MapRelieved, "FLOWS".to_owned())]);
        assert_eq!(tables(119), []);
    }

    #[test]
    fn the_last_connection_of_a_drained_node_is_told_once() {
        let mut watched = Watched::default();
        assert_eq!(told(&mut watched, 0, 0, &[]), []);
        assert_eq!(told(&mut watched, 0, 2, &["n1"]), []);
        assert_eq!(told(&mut watched, 0, 0, &["n1"]), [(Name::NodeDrained, "web/n1".to_owned())]);
        assert_eq!(told(&mut watched, 0, 0, &["n1"]), []);
        assert_eq!(told(&mut watched, 0, 0, &[]), []);
        assert_eq!(told(&mut watched, 0, 0, &["n1"]), [(Name::NodeDrained, "web/n1".to_owned())], "drained anew");
    }
}
