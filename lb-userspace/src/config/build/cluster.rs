//! The cluster and VIP groups: from what is written to their meaning.

use std::net::{IpAddr, SocketAddr};

use super::{Building, each};
use crate::{
    config::{
        VipGroup,
        at::At,
        cluster::{Cluster, DEFAULT_PORT, Router, VipMode},
        document::{
            Document,
            cluster::{self as written, VipModeWord},
        },
        text::{NetworkText, SocketText, Text},
    },
    control::proxy::Network,
};

pub(super) fn cluster(building: &Building<'_>) -> Option<Cluster> {
    let raw = building.document.cluster.as_ref()?;
    Some(Cluster {
        machine: raw.machine.as_ref()?.value.clone(),
        key: building.file(raw.key_file.as_ref()?),
        old_key: raw.old_key_file.as_ref().map(|path| building.file(path)),
        listen: sockets(raw.listen.as_deref()),
        interval: raw.interval.value.0,
        misses: raw.misses.value,
        front_end: raw.front_end.iter().map(|at| at.value.0).collect(),
        node_pings: raw.node_pings.value,
        check_interval: raw.check_interval.value.0,
        monitors: raw.monitors.iter().map(|name| name.value.clone()).collect(),
        share_connections: raw.share_connections.value,
        peers: each(&raw.peer, |peer| Some(sockets(peer.addresses.as_deref()))),
    })
}

fn sockets(written: Option<&[At<SocketText>]>) -> Vec<SocketAddr> {
    written.into_iter().flatten().map(|at| at.value.with_default(DEFAULT_PORT)).collect()
}

pub(super) fn vip_group(raw: &written::VipGroup, building: &Building<'_>) -> VipGroup {
    let document = building.document;
    let mut interfaces = document.interface.keys();
    let only = interfaces.next().filter(|_| interfaces.next().is_none()).map(|name| &name.value);
    let explicit = raw.interface.as_ref().map(|name| &name.value);
    let addresses: Vec<IpAddr> = raw.addresses.iter().flatten().map(|address| address.value).collect();
    let mode = match (raw.mode.as_ref().map(|mode| mode.value), raw.raise.value) {
        (Some(VipModeWord::Everywhere), _) => VipMode::Everywhere,
        (Some(VipModeWord::Failover), _) => VipMode::Failover,
        (Some(VipModeWord::Static), _) | (None, true) => VipMode::Static,
        (None, false) => VipMode::External,
    };
    let loopback = "lo".to_owned();
    let by_default = if mode == VipMode::Everywhere { Some(&loopback) } else { only };
    let place = |address: &IpAddr| {
        let interface = explicit.or_else(|| of_network(document, *address)).or(by_default)?;
        Some((*address, interface.clone()))
    };
    VipGroup {
        interfaces: addresses.iter().filter_map(place).collect(),
        addresses,
        mode,
        announce_when: raw.announce_when.value,
        priority: raw.priority.value,
        failback: raw.failback.value,
        failback_delay: raw.failback_delay.value.0,
        router: raw.router.as_ref().and_then(|raw| router(raw, building)),
    }
}

fn router(raw: &written::Router, building: &Building<'_>) -> Option<Router> {
    Some(Router {
        protocol: raw.protocol.as_ref()?.value,
        id: raw.id.as_ref()?.value,
        interval: raw.interval.value.0,
        plain_checksum: raw.plain_checksum.value,
        peers: raw.peers.iter().map(|peer| peer.value).collect(),
        unicast: raw.unicast.value,
        virtual_mac: raw.virtual_mac.value,
        passphrase: raw.passphrase_file.as_ref().map(|path| building.file(path)),
    })
}

/// The interface of the smallest network that has the address.
fn of_network(document: &Document, address: IpAddr) -> Option<&String> {
    let network = |name: &str| NetworkText::read(name).ok().map(|text| text.0);
    let read = document.network.iter().filter_map(|(name, table)| Some((network(&name.value)?, table)));
    let around = read.filter(|(network, _): &(Network, _)| network.contains(address));
    let (_, smallest) = around.max_by_key(|(network, _)| network.prefix)?;
    smallest.interface.as_ref().map(|interface| &interface.value)
}
