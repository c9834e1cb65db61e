//! What the kernel is asked of the network, and how seldom: a route is looked up when its destination is new, and again when
//! something may have changed it. With 10,000 nodes all of them take longer than all the rest of a change.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Dataplane, DataplaneError};
use crate::{
    control::plan::Plan,
    dataplane::{apply::Source, network::Event},
};

/// Routes are looked up again at most this often, however fast they change.
const PAUSE: Duration = Duration::from_millis(200);
/// And for at most one part in so many of the time, however many nodes there are.
const SHARE: u32 = 5;
/// Destinations that are looked up again with every tick, in turn: rules, and what was found out of a path's MTU, change
/// without a word.
const RECHECKED: usize = 50;

/// What was asked, and what is to be asked again.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Whether the kernel tells what changes: what is known then holds until it does.
    told: bool,
    /// Routes may have changed since they were looked up.
    pub(super) stale: bool,
    /// When all of them were looked up, and how long that took.
    read: Option<(Instant, Duration)>,
    /// Whose turn was last.
    last: Option<IpAddr>,
}

impl Survey {
    /// Whether all routes may be looked up again.
    fn rested(&self, now: Instant) -> bool {
        self.read.is_none_or(|(at, took)| now.saturating_duration_since(at) >= PAUSE.max(took * SHARE))
    }

    /// The next ones in turn.
    fn turn(&mut self, all: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut turn: Vec<IpAddr> = all.range((after, Bound::Unbounded)).take(RECHECKED).copied().collect();
        let more = RECHECKED.min(all.len()).saturating_sub(turn.len());
        turn.extend(all.iter().take(more));
        self.last = turn.last().copied();
        turn
    }
}

impl Dataplane {
    /// Says whether [`Dataplane::on_network`] is told from now on what changes. What happened before is read anew.
    ///
    /// # Errors
    /// As [`Dataplane::on_network`].
    pub fn listen(&mut self, told: bool) -> Result<(), DataplaneError> {
        if told {
            self.on_network(&[Event::Overrun])?;
        }
        self.survey.told = told;
        Ok(())
    }

    /// Reads interfaces and neighbours anew. When that fails, nothing is believed any more.
    pub(super) fn read_surroundings(&mut self) -> Result<(), DataplaneError> {
        let told = std::mem::take(&mut self.survey.told);
        self.network.set_links(self.netlink.links()?);
        self.network.set_neighbours(self.netlink.neighbours()?);
        self.survey.told = told;
        Ok(())
    }

    /// Brings interfaces, neighbours and the routes to the nodes of `plan` up to date, as far as the kernel does not tell.
    pub(super) fn read_network(&mut self, plan: &Plan) -> Result<(), DataplaneError> {
        let servers = plan.virtual_servers.values();
        let nodes = servers.flat_map(|server| server.nodes.iter().map(|node| node.address.ip())).collect();
        if self.survey.told && !self.survey.stale {
            self.network.keep_routes(&nodes);
            let new: Vec<IpAddr> = nodes.iter().filter(|node| !self.network.knows_route(**node)).copied().collect();
            return self.look_up(new).map(drop);
        }
        self.read_surroundings()?;
        self.read_routes(&nodes)
    }

    fn read_routes(&mut self, nodes: &BTreeSet<IpAddr>) -> Result<(), DataplaneError> {
        let start = Instant::now();
        self.network.keep_routes(nodes);
        self.look_up(nodes.iter().copied())?;
        self.survey.stale = false;
        let now = Instant::now();
        self.survey.read = Some((now, now.saturating_duration_since(start)));
        Ok(())
    }

    /// Looks these routes up. Says whether one is another than before.
    fn look_up(&mut self, nodes: impl IntoIterator<Item = IpAddr>) -> Result<bool, DataplaneError> {
        let mut changed = false;
        for node in nodes {
            let route = self.netlink.route(node)?;
            changed |= self.network.set_route(node, route);
        }
        Ok(changed)
    }

    /// Looks routes up again if they may have changed and were not looked up a moment ago.
    pub(super) fn look_up_routes(&mut self, now: Instant) -> Result<bool, DataplaneError> {
        if !self.survey.stale || !self.survey.rested(now) {
            return Ok(false);
        }
        self.read_routes(&self.destinations())?;
        self.take_new_sources()?;
        Ok(true)
    }

    /// Looks a few routes up of which nothing was heard. Says whether one is another than before.
    pub(super) fn recheck_routes(&mut self) -> Result<bool, DataplaneError> {
        let turn = self.survey.turn(&self.destinations());
        let changed = self.look_up(turn)?;
        if changed {
            self.take_new_sources()?;
        }
        Ok(changed)
    }

    fn destinations(&self) -> BTreeSet<IpAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Applies the plan again when a route now says another source address for source NAT than a slot has.
    fn take_new_sources(&mut self) -> Result<(), DataplaneError> {
        let has_new = self.nodes.iter().filter(|node| node.source == Source::Route).any(|node| {
            let has = self.tables.slots().slot(node.slot).and_then(|slot| slot.source);
            let says = self.network.source(node.address);
            says.is_some() && says != has
        });
        if has_new {
            let plan = Arc::clone(&self.plan);
            self.apply(&plan)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u8) -> BTreeSet<IpAddr> {
        (0..count).map(|last| IpAddr::from([10, 0, 0, last])).collect()
    }

    #[test]
    fn everybody_has_a_turn_and_few_at_a_time() {
        let (all, mut survey) = (addresses(120), Survey::default());
        let turns: Vec<Vec<IpAddr>> = (0..3).map(|_| survey.turn(&all)).collect();
        assert!(turns.iter().all(|turn| turn.len() == RECHECKED));
        assert_eq!(turns.concat().into_iter().collect::<BTreeSet<_>>(), all);
        assert_eq!(survey.turn(&addresses(2)), [IpAddr::from([10, 0, 0, 0]), IpAddr::from([10, 0, 0, 1])]);
        assert!(survey.turn(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn many_routes_rest_longer() {
        let (start, took) = (Instant::now(), Duration::from_millis(100));
        let survey = |took| Survey { read: Some((start, took)), ..Survey::default() };
        assert!(Survey::default().rested(start));
        assert!(!survey(Duration::ZERO).rested(start + PAUSE / 2) && survey(Duration::ZERO).rested(start + PAUSE));
        assert!(!survey(took).rested(start + PAUSE) && survey(took).rested(start + took * SHARE));
    }
}
