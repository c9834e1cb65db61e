//! What comes out of a cluster: what is to be done, what happened, and how things stand.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::failover::{
    bgp::NeighborStatus,
    election::{Alarm, MachineId, Reason, Role},
    heartbeat::{Malformed, Refused},
    routers,
};

/// What is to be done, in the order of the fields: a group that moves is raised here before the old owner hears of it, and
/// an owner that yields says so before its addresses are gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Groups whose addresses are to be raised.
    pub raise: Vec<String>,
    /// Datagrams for every peer.
    pub send: Vec<Vec<u8>>,
    /// Groups whose addresses are to be announced: now, and again later.
    pub announce: Vec<String>,
    /// Groups whose addresses are to be taken down.
    pub lower: Vec<String>,
    /// What happened.
    pub incidents: Vec<Incident>,
    /// A heartbeat is to be written; never set in what the caller gets.
    pub(super) send_due: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A group has another role.
    Transition {
        /// Which.
        group: String,
        /// Its role now.
        role: Role,
        /// Why.
        reason: Reason,
    },
    /// Something an operator should know.
    Alarm {
        /// Of which group.
        group: String,
        /// What.
        alarm: Alarm,
    },
    /// A group that every machine has is announced to routers from now on, or not any more.
    Announcement {
        /// Which.
        group: String,
        /// Whether it is.
        announced: bool,
        /// Why.
        why: String,
    },
    /// A datagram was no heartbeat of this cluster.
    Malformed(Malformed),
    /// A heartbeat was not believed.
    Refused {
        /// Whose it says it is.
        from: MachineId,
        /// Why.
        refused: Refused,
    },
}

impl Incident {
    /// The alarm, when it is one.
    #[must_use]
    pub fn alarm(&self) -> Option<Alarm> {
        match self {
            Incident::Alarm { alarm, .. } => Some(alarm.clone()),
            Incident::Transition { .. }
            | Incident::Announcement { .. }
            | Incident::Malformed(_)
            | Incident::Refused { .. } => None,
        }
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incident::Transition { group, role, reason } => write!(f, "VIP group {group} is {role:?}: {reason}"),
            Incident::Alarm { group, alarm } => write!(f, "VIP group {group}: {alarm}"),
            Incident::Announcement { group, announced: true, why } => {
                write!(f, "VIP group {group} is announced: {why}")
            }
            Incident::Announcement { group, announced: false, why } => {
                write!(f, "VIP group {group} is withdrawn: {why}")
            }
            Incident::Malformed(malformed) => write!(f, "a datagram at the port of heartbeats is refused: {malformed}"),
            Incident::Refused { from, refused } => write!(f, "a heartbeat of {from} is refused: {refused}"),
        }
    }
}

/// Names of machines, for people.
#[derive(Clone, Debug, Default)]
pub struct Names(pub BTreeMap<MachineId, String>);

impl Names {
    /// A text with machines' names where it has their ids.
    #[must_use]
    pub fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (id, name)| text.replace(&id.to_string(), name))
    }
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Heartbeats that were believed.
    pub heard: u64,
    /// This machine's own heartbeats that came back.
    pub looped_back: u64,
    /// Heartbeats that came by another path before.
    pub copies: u64,
    /// Repeated or overtaken heartbeats.
    pub stale: u64,
    /// Heartbeats that may have been recordings.
    pub unproven: u64,
    /// Heartbeats with a wrong authentication.
    pub forged: u64,
    /// Datagrams that are something else.
    pub malformed: u64,
    /// Claims of others to addresses that this machine owned.
    pub claims: u64,
    /// Changes of a role.
    pub transitions: u64,
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The groups.
    pub groups: Vec<GroupStatus>,
    /// BGP neighbours.
    pub neighbors: Vec<NeighborStatus>,
    /// The other machines.
    pub machines: Vec<MachineStatus>,
    /// Counters.
    pub counters: Counters,
    /// Counters of VRRP and CARP.
    pub wire: routers::Counters,
    /// Why this machine should own nothing.
    pub fault: Option<String>,
    /// Whether it takes part at all.
    pub in_maintenance: bool,
}

/// A group on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Name.
    pub name: String,
    /// Role of this machine.
    pub role: Role,
    /// For how long.
    pub since: Duration,
    /// Why.
    pub why: String,
    /// Changes of the role since the start.
    pub transitions: u64,
    /// Whether this machine owns it and another one can take it.
    pub is_replaceable: bool,
    /// Name of the machine that owns it, where one is heard.
    pub owner: Option<String>,
}

/// Another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineStatus {
    /// Name, or id.
    pub name: String,
    /// Time since it was heard.
    pub silent_for: Duration,
    /// Whether it counts as alive.
    pub alive: bool,
    /// Whether it hears this machine.
    pub hears_us: bool,
}
