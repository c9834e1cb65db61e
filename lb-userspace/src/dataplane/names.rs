//! What the numbers in the maps mean, for those who read them: a snapshot that the owner of the data plane replaces whole.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use super::{load::TableSizes, network::Mode};
use crate::control::plan::{Admission, Plan};

/// A node slot in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Virtual server.
    pub virtual_server: String,
    /// Pool.
    pub pool: String,
    /// Node.
    pub node: String,
    /// Address; port 0: the packet's stays.
    pub address: SocketAddr,
    /// Source address of connections with source NAT.
    pub source: Option<IpAddr>,
    /// Generation of the slot: flow records of another one are not this node's.
    pub generation: u16,
    /// What it takes.
    pub admission: Admission,
    /// Why frames cannot be sent to it; `None`: they can.
    pub unresolved: Option<String>,
}

/// An interface of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Name.
    pub name: String,
    /// Kernel index; 0: absent.
    pub ifindex: u32,
    /// Slot in `REASONS`, `VLANS` and `INTERFACES`.
    pub slot: u32,
    /// How the program is attached; `None`: absent.
    pub mode: Option<Mode>,
}

/// The whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Node slots.
    pub slots: BTreeMap<u16, SlotInfo>,
    /// Virtual servers by id.
    pub virtual_servers: BTreeMap<u16, String>,
    /// Interfaces, by name.
    pub interfaces: Vec<InterfaceInfo>,
    /// Names of interfaces that next hops lead through, by ifindex.
    pub links: BTreeMap<u32, String>,
    /// The plan in force.
    pub plan: Arc<Plan>,
    /// What an operator should look at: one sentence each.
    pub warnings: Vec<String>,
    /// Whether the maps were found (`adopted`) or made (`created`).
    pub adopted: bool,
    /// The flow tables' sizes that the configuration asks for.
    pub sizes: TableSizes,
}

/// The newest snapshot, shared.
#[derive(Clone, Debug, Default)]
pub struct SharedNames(Arc<RwLock<Arc<Names>>>);

impl SharedNames {
    /// The newest.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Names> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, names: Names) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }
}
