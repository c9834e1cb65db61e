//! Failover's pure parts: what comes from the network.

pub mod bgp;
pub mod carp;
pub mod election;
pub mod heartbeat;
pub mod share;
pub mod vrrp;
