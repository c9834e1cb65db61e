//! VIP groups and machines as the admin API shows them.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::config::cluster::VipMode;

/// `GET /api/v1/vips`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VipsView {
    /// This machine and the others; `None`: there is no cluster.
    pub cluster: Option<ClusterView>,
    /// BGP neighbours, by name.
    #[serde(default)]
    pub neighbors: Vec<NeighborView>,
    /// All VIP groups, by name.
    pub groups: Vec<VipView>,
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NeighborView {
    /// Name.
    pub name: String,
    /// Address.
    pub address: IpAddr,
    /// Autonomous system.
    #[serde(rename = "as")]
    pub asn: u32,
    /// How the session stands.
    pub state: NeighborState,
    /// Seconds since that changed.
    pub since_s: u64,
    /// VIPs that are announced to it.
    pub announced: u64,
    /// Why the last session ended, or none came about.
    pub why: Option<String>,
}

/// How a BGP session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeighborState {
    /// There is no connection; it is tried again.
    #[default]
    Connecting,
    /// Both sides introduce themselves.
    Opening,
    /// VIPs are announced.
    Established,
}

/// This machine among the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ClusterView {
    /// Its name.
    pub machine: String,
    /// Whether it leaves all groups to the others because an operator said so.
    pub in_maintenance: bool,
    /// Why it should own nothing; `None`: it is well.
    pub fault: Option<String>,
    /// The others: those that are configured, and those that were heard.
    pub machines: Vec<MachineView>,
    /// Connections and persistence that machines tell each other of; `None`: they do not.
    #[serde(default)]
    pub sharing: Option<SharingView>,
    /// Claims of others to addresses that this machine owned.
    #[serde(default)]
    pub claims: u64,
    /// What was counted since lbd started.
    pub counters: HeartbeatCounters,
    /// The same of VRRP and CARP.
    #[serde(default)]
    pub router_counters: RouterCounters,
}

/// What machines tell each other of connections and persistence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SharingView {
    /// Those that are told, by name.
    pub machines: Vec<SharingMachine>,
    /// What became of all that others told, since lbd started.
    pub fates: BTreeMap<String, u64>,
    /// Callers that were refused: strangers, or with another key.
    pub refused: u64,
}

/// A machine that is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SharingMachine {
    /// Name.
    pub name: String,
    /// Whether it takes what it is told.
    pub is_connected: bool,
    /// Connections and clients of this machine that it knows.
    pub told: u64,
    /// Messages that went there since lbd started.
    pub sent: u64,
    /// Messages that came from there.
    pub received: u64,
    /// Why it is not connected.
    pub why: Option<String>,
}

/// Another machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MachineView {
    /// Name, or its number where no name is configured.
    pub name: String,
    /// Milliseconds since it was heard; `None`: never.
    pub silent_ms: Option<u64>,
    /// Whether it counts as alive.
    pub alive: bool,
    /// Whether it hears this machine.
    pub hears_us: bool,
}

/// Counters of heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HeartbeatCounters {
    /// Believed.
    pub heard: u64,
    /// This machine's own that came back: a loop or a mirror in the network.
    pub looped_back: u64,
    /// Ones that came by another path before, as they should.
    #[serde(default)]
    pub copies: u64,
    /// Repeated or overtaken ones, and recordings.
    pub stale: u64,
    /// Ones that may have been recordings.
    pub unproven: u64,
    /// With a wrong authentication.
    pub forged: u64,
    /// Datagrams that are something else.
    pub malformed: u64,
}

/// Counters of VRRP and CARP advertisements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RouterCounters {
    /// Believed.
    pub heard: u64,
    /// This machine's own that came back.
    pub looped_back: u64,
    /// Of groups that are not configured here.
    pub foreign: u64,
    /// Of routers that are not among the peers.
    pub strangers: u64,
    /// With a wrong checksum, length, TTL or version.
    pub malformed: u64,
    /// With a wrong authentication (CARP), or another interval (VRRP version 2).
    pub forged: u64,
    /// Believed, though they name other VIPs than are configured here.
    pub other_addresses: u64,
}

/// A VIP group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VipView {
    /// Name.
    pub name: String,
    /// When its addresses are raised.
    pub mode: VipMode,
    /// Its addresses, with the interface of each.
    pub addresses: Vec<(IpAddr, Option<String>)>,
    /// What this machine is to it.
    pub state: VipState,
    /// With failover: the machine that owns it, where one is heard.
    pub owner: Option<String>,
    /// With failover and everywhere: seconds since the state changed.
    pub since_s: Option<u64>,
    /// With failover and everywhere: why it did.
    pub why: Option<String>,
    /// With failover: this machine's priority.
    pub priority: Option<u8>,
    /// With failover and everywhere: changes of this machine's state since lbd started.
    pub transitions: Option<u64>,
    /// With failover: whether this machine owns it and another one can take it. Then its VIPs are forwarded only while lbd's
    /// failover thread lives.
    #[serde(default)]
    pub replaceable: Option<bool>,
    /// With VRRP or CARP: the virtual MAC address that its addresses are reached at; `None`: that of the interface.
    #[serde(default)]
    pub virtual_mac: Option<String>,
}

/// What a machine is to a VIP group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VipState {
    /// lbd does not raise it.
    #[default]
    External,
    /// It is raised always.
    Static,
    /// This machine owns it.
    Active,
    /// It waits.
    Backup,
    /// It takes no part: maintenance, or not started yet.
    Idle,
    /// Every machine has it, and this one announces it to routers.
    Announced,
    /// Every machine has it, and this one does not announce it.
    Withdrawn,
}

impl VipState {
    /// Those of groups that move, with their words.
    pub const MOVING: [(Self, &'static str); 5] = [
        (Self::Active, "active"),
        (Self::Backup, "backup"),
        (Self::Idle, "idle"),
        (Self::Announced, "announced"),
        (Self::Withdrawn, "withdrawn"),
    ];
}
