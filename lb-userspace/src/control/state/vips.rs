//! From configuration and orders to the VIPs that are raised. Pure; called by [`State`] alone.

use std::{net::IpAddr, time::Duration};

use super::{State, facts::Facts, orders::list};
use crate::{
    config::{
        bgp::AnnounceWhen,
        cluster::{Router, VipMode},
        proxy::Proxy,
    },
    control::{
        plan::Admission,
        query::QueryError,
        view::{Health, NodeState},
    },
};

/// The VIPs of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipPlan {
    /// Up as long as lbd runs, in a stable order.
    pub fixed: Vec<RaisedVip>,
    /// Up while this machine owns their group.
    pub groups: Vec<FailoverGroup>,
    /// Up on every machine, and announced while this one serves them.
    pub everywhere: Vec<AnnouncedGroup>,
    /// Whether it is to own none.
    pub in_maintenance: bool,
}

/// A VIP address that lbd raises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaisedVip {
    /// VIP group.
    pub group: String,
    /// Address.
    pub address: IpAddr,
    /// The interface it is added to and announced on.
    pub interface: String,
}

/// A VIP group that moves between machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverGroup {
    /// Name.
    pub name: String,
    /// The machine with the greatest one owns.
    pub priority: u8,
    /// Whether this machine takes it back from one with less.
    pub failback: bool,
    /// How long both must have been well before.
    pub failback_delay: Duration,
    /// Its addresses.
    pub vips: Vec<RaisedVip>,
    /// The VRRP or CARP routers it is shared with; `None`: the machines of the cluster.
    pub router: Option<Router>,
}

/// A VIP group that routers send to every machine that announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedGroup {
    /// Name.
    pub name: String,
    /// Its addresses.
    pub vips: Vec<RaisedVip>,
    /// Why its virtual servers keep it from being announced; `None`: they serve.
    pub withheld: Option<String>,
}

pub(super) fn plan(state: &State) -> VipPlan {
    let config = &state.config;
    let mut plan = VipPlan { in_maintenance: state.overrides.in_maintenance, ..VipPlan::default() };
    for (name, group) in &config.vips {
        let place = |address: &IpAddr| {
            let interface = group.interfaces.get(address)?.clone();
            Some(RaisedVip { group: name.clone(), address: *address, interface })
        };
        let vips = group.addresses.iter().filter_map(place);
        match group.mode {
            VipMode::External => {}
            VipMode::Static => plan.fixed.extend(vips),
            VipMode::Everywhere => plan.everywhere.push(AnnouncedGroup {
                name: name.clone(),
                vips: vips.collect(),
                withheld: withheld(state, name, group.announce_when),
            }),
            VipMode::Failover => plan.groups.push(FailoverGroup {
                name: name.clone(),
                priority: group.priority,
                failback: group.failback,
                failback_delay: group.failback_delay,
                vips: vips.collect(),
                router: group.router.clone(),
            }),
        }
    }
    plan
}

/// Why a group is not to be announced, as far as its virtual servers are concerned.
fn withheld(state: &State, group: &str, when: AnnounceWhen) -> Option<String> {
    let servers: Vec<(&str, bool)> = servers(state, group).collect();
    let without = || servers.iter().filter(|(_, serves)| !serves).map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    match when {
        AnnounceWhen::Always => None,
        _ if servers.is_empty() => Some("no virtual server uses it".to_owned()),
        AnnounceWhen::Any if servers.iter().any(|(_, serves)| *serves) => None,
        AnnounceWhen::All if servers.iter().all(|(_, serves)| *serves) => None,
        AnnounceWhen::Any | AnnounceWhen::All => Some(format!("no node is known to serve {}", without())),
    }
}

/// The virtual servers of a group, and whether each has a node that takes connections.
fn servers<'s>(state: &'s State, group: &'s str) -> impl Iterator<Item = (&'s str, bool)> {
    let config = &state.config;
    let uses = move |vips: &[String]| vips.iter().any(|vip| vip == group);
    let l4 = config.virtual_servers.iter().filter(move |(_, server)| uses(&server.vips));
    let l4 = l4.map(|(name, server)| {
        let mut pools = config.pool_chain(&server.pool).into_iter();
        let serves = pools.any(|(pool, p)| {
            let facts = state.facts(pool);
            p.nodes.iter().any(|(node, n)| facts.is_known_to_serve(node, n.state))
        });
        (name.as_str(), serves)
    });
    let l7 = config.proxy.virtual_servers.iter().filter(move |(_, server)| uses(&server.vips));
    let l7 = l7.map(|(name, server)| {
        let named = Proxy::named_pools(server);
        let mut pools = named.iter().flat_map(|pool| config.proxy.pool_chain(pool));
        let serves = pools.any(|(pool, p)| {
            let facts = state.facts(pool);
            p.nodes.iter().any(|(node, n)| facts.is_known_to_serve(node, n.state))
        });
        // Without a pool its rules answer.
        (name.as_str(), named.is_empty() || serves)
    });
    l4.chain(l7)
}

impl Facts<'_> {
    /// Whether a node takes connections for all that is known. One that monitors have not answered for yet does not: a machine
    /// that has just started draws clients only when it can serve them.
    fn is_known_to_serve(&self, node: &str, configured: NodeState) -> bool {
        self.admission(node, configured) == Admission::All
            && (self.is_unchecked() || self.health(node) == Health::Up)
            && self.out(node).is_none()
    }
}

impl State {
    /// Whether a group can be asked to move there; whether it does is for the machines to agree on.
    pub(super) fn check_move(&self, group: &str, to: Option<&str>) -> Result<(), QueryError> {
        let moving = |mode: VipMode| mode == VipMode::Failover;
        let names = || self.config.vips.iter().filter(|(_, group)| moving(group.mode)).map(|(name, _)| name);
        match self.config.vips.get(group) {
            None => {
                return Err(QueryError::NotFound(format!(
                    "there is no VIP group {group:?}; those that move: {}",
                    list(names())
                )));
            }
            Some(found) if !moving(found.mode) => {
                return Err(QueryError::Invalid(format!(
                    "VIP group {group:?} does not move between machines: its mode is not \"failover\""
                )));
            }
            Some(_) => {}
        }
        if let (Some(to), Some(_)) = (to, &self.config.vips[group].router) {
            return Err(QueryError::Invalid(format!(
                "VIP group {group:?} is shared by VRRP or CARP: which router takes it is theirs to say, so leave out --to {to}"
            )));
        }
        let (Some(to), Some(cluster)) = (to, &self.config.cluster) else { return Ok(()) };
        if to != cluster.machine && !cluster.peers.contains_key(to) {
            let others = list(cluster.peers.keys());
            return Err(QueryError::NotFound(format!("there is no machine {to:?}; the others: {others}")));
        }
        Ok(())
    }

    pub(super) fn set_maintenance(&mut self, on: bool) -> Result<(), QueryError> {
        let of_others = |mode: VipMode| matches!(mode, VipMode::Failover | VipMode::Everywhere);
        let shared = self.config.vips.values().any(|group| of_others(group.mode));
        if on && self.config.cluster.is_none() && !shared {
            return Err(QueryError::Invalid(
                "there is no [cluster] and no VIP group that moves or is announced: no other machine could take the VIPs of this one"
                    .to_owned(),
            ));
        }
        self.overrides.in_maintenance = on;
        Ok(())
    }
}
