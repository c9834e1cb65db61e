//! BGP, from the configuration to the failover thread, and back to those who look.

use std::{net::IpAddr, time::Instant};

use crate::{
    config::{Config, bgp as configured},
    control::view::{NeighborState, NeighborView},
    failover::bgp::{Community, Neighbor, NeighborStatus, Settings, State},
};

/// The neighbours that VIPs are announced to.
pub(super) fn neighbors(config: &Config) -> Vec<Neighbor> {
    let Some(bgp) = &config.bgp else { return Vec::new() };
    let neighbor = |(name, neighbor): (&String, &configured::Neighbor)| {
        let password = neighbor.password.as_ref().map(|file| config.proxy.files.bytes(file)).unwrap_or_default();
        Neighbor {
            name: name.clone(),
            address: neighbor.address,
            port: neighbor.port,
            source: neighbor.source_address,
            password: password.trim_ascii_end().to_vec(),
            ttl_security: neighbor.ttl_security,
            next_hop4: neighbor.next_hop,
            next_hop6: neighbor.next_hop6,
            router_id: bgp.router_id,
            settings: Settings {
                own_as: bgp.asn,
                peer_as: neighbor.asn,
                hold_time: bgp.hold_time,
                communities: bgp.communities.iter().copied().map(community).collect(),
                med: bgp.med,
                prepend: bgp.prepend,
            },
        }
    };
    bgp.neighbors.iter().map(neighbor).collect()
}

fn community(community: configured::Community) -> Community {
    match community {
        configured::Community::Plain(a, b) => Community::Plain(a, b),
        configured::Community::Large(a, b, c) => Community::Large(a, b, c),
    }
}

pub(super) fn view(status: &NeighborStatus) -> NeighborView {
    let NeighborStatus { name, asn, announced, why, .. } = status;
    let address: IpAddr = status.address;
    NeighborView {
        name: name.clone(),
        address,
        asn: *asn,
        state: match status.state {
            State::Connecting => NeighborState::Connecting,
            State::Opening => NeighborState::Opening,
            State::Established => NeighborState::Established,
        },
        since_s: Instant::now().saturating_duration_since(status.since).as_secs(),
        announced: *announced as u64,
        why: why.clone(),
    }
}
