//! From configuration and orders to the VIPs that are raised. Pure; called by [`State`] alone.

use std::{net::IpAddr, time::Duration};

use super::{State, orders::list};
use crate::{
    config::{
        Config,
        cluster::{Router, VipMode},
    },
    control::query::QueryError,
};

/// The VIPs of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipPlan {
    /// Up as long as lbd runs, in a stable order.
    pub fixed: Vec<RaisedVip>,
    /// Up while this machine owns their group.
    pub groups: Vec<FailoverGroup>,
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

pub(super) fn plan(config: &Config, in_maintenance: bool) -> VipPlan {
    let mut plan = VipPlan { in_maintenance, ..VipPlan::default() };
    for (name, group) in &config.vips {
        let place = |address: &IpAddr| {
            let interface = group.interfaces.get(address)?.clone();
            Some(RaisedVip { group: name.clone(), address: *address, interface })
        };
        let vips = group.addresses.iter().filter_map(place);
        match group.mode {
            VipMode::External => {}
            VipMode::Static => plan.fixed.extend(vips),
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
        let moves = self.config.vips.values().any(|group| group.mode == VipMode::Failover);
        if on && self.config.cluster.is_none() && !moves {
            return Err(QueryError::Invalid(
                "there is no [cluster] and no VIP group that moves: no other machine could take the VIPs of this one"
                    .to_owned(),
            ));
        }
        self.overrides.in_maintenance = on;
        Ok(())
    }
}
