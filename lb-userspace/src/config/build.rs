//! From the document as it is written to the values by meaning. Refuses nothing: what is missing (and reported by others)
//! is left out or given a harmless value, so that the checks can look at the rest.

use std::{collections::BTreeMap, path::PathBuf};

use lb_common::conntrack::{State, Timeouts};

use super::{
    Config, Daemon, Dataplane, Monitor, MonitorKind, Node, Pool, VipGroup, VirtualServer,
    at::At,
    document::{self, Document, ForwardingWord, MonitorWord, Named},
    ring_seed,
    text::PortRange,
};
use crate::control::plan::{Forwarding, Interface, SourceAffinity};

pub(super) fn build(document: &Document) -> Config {
    Config {
        daemon: daemon(&document.daemon),
        dataplane: dataplane(&document.dataplane),
        interfaces: each(&document.interface, |i| Some(interface(i))),
        vips: each(&document.vip, |group| Some(vip_group(group, document))),
        virtual_servers: each(&document.virtual_server, virtual_server),
        pools: each(&document.pool, |p| Some(pool(p))),
        monitors: each(&document.monitor, monitor),
    }
}

fn each<T, U>(named: &Named<T>, build: impl Fn(&T) -> Option<U>) -> BTreeMap<String, U> {
    named.iter().filter_map(|(name, value)| Some((name.value.clone(), build(value)?))).collect()
}

fn daemon(raw: &document::Daemon) -> Daemon {
    Daemon {
        socket: raw.socket.value.0.clone(),
        state_dir: raw.state_dir.value.0.clone(),
        on_stop: raw.on_stop.value,
        shutdown_timeout: raw.shutdown_timeout.value.0,
    }
}

fn dataplane(raw: &document::Dataplane) -> Dataplane {
    let bpffs: PathBuf = raw.bpffs.value.0.clone();
    let PortRange(first, last) = raw.source_ports.value;
    Dataplane {
        pin_dir: raw.pin_dir.as_ref().map_or_else(|| bpffs.join("lb"), |dir| dir.value.0.clone()),
        bpffs,
        max_flows: raw.max_flows.value,
        max_half_open: raw.max_half_open.value,
        ring_seed: ring_seed(&raw.ring_seed.value),
        source_ports: (first, last),
        flood_limit: raw.flood_limit.value,
    }
}

fn interface(raw: &document::Interface) -> Interface {
    Interface { mode: raw.mode.value, vlans: raw.vlans.iter().map(|vlan| vlan.value).collect() }
}

fn vip_group(raw: &document::VipGroup, document: &Document) -> VipGroup {
    let mut interfaces = document.interface.keys();
    let only = interfaces.next().filter(|_| interfaces.next().is_none());
    VipGroup {
        addresses: raw.addresses.iter().flatten().map(|address| address.value).collect(),
        interface: raw.interface.as_ref().or(only).map(|name| name.value.clone()),
        raise: raw.raise.value,
    }
}

fn virtual_server(raw: &document::VirtualServer) -> Option<VirtualServer> {
    let mut ports: Vec<_> = raw.ports.as_ref()?.value.0.iter().map(|range| (range.value.0, range.value.1)).collect();
    ports.sort_unstable();
    Some(VirtualServer {
        vips: raw.vips.as_ref()?.iter().map(|name| name.value.clone()).collect(),
        protocol: raw.protocol.as_ref()?.value,
        ports,
        pool: raw.pool.as_ref()?.value.clone(),
        timeouts: timeouts(&raw.timeouts),
    })
}

fn timeouts(raw: &document::TimeoutsTable) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let mut set = |state: State, seconds: &At<super::text::Seconds>| timeouts.0[state as usize] = seconds.value.0;
    set(State::SynSent, &raw.syn_sent);
    set(State::SynReceived, &raw.syn_sent);
    set(State::Established, &raw.established);
    set(State::FinWait, &raw.fin_wait);
    set(State::TimeWait, &raw.time_wait);
    set(State::Closed, &raw.closed);
    set(State::UdpNew, &raw.udp_new);
    set(State::Udp, &raw.udp);
    timeouts
}

fn pool(raw: &document::Pool) -> Pool {
    Pool {
        forwarding: match (raw.forwarding.as_ref().map(|word| word.value), raw.source_nat.value) {
            (Some(ForwardingWord::Dsr), _) => Forwarding::Dsr,
            (Some(ForwardingWord::Nat) | None, false) => Forwarding::Nat,
            (Some(ForwardingWord::Nat) | None, true) => Forwarding::NatSource,
        },
        source_address4: raw.source_address.as_ref().map(|address| address.value),
        source_address6: raw.source_address6.as_ref().map(|address| address.value),
        scheduler: raw.scheduler.value,
        affinity: raw.persistence.as_ref().map(|persistence| SourceAffinity {
            prefix4: persistence.prefix.value,
            prefix6: persistence.prefix6.value,
            timeout_s: persistence.timeout.value.0,
        }),
        on_node_failure: raw.on_node_failure.value,
        refusal: raw.refusal.value,
        failure_pool: raw.failure_pool.as_ref().map(|name| name.value.clone()),
        monitors: raw.monitors.iter().map(|name| name.value.clone()).collect(),
        nodes: each(&raw.node, node),
    }
}

fn node(raw: &document::Node) -> Option<Node> {
    let address = raw.address.as_ref()?.value;
    Some(Node { address: address.ip, port: address.port, weight: raw.weight.value, state: raw.state.value })
}

fn monitor(raw: &document::Monitor) -> Option<Monitor> {
    Some(Monitor {
        kind: match raw.r#type.as_ref()?.value {
            MonitorWord::Tcp => MonitorKind::Tcp { port: raw.port.as_ref().map(|port| port.value) },
            MonitorWord::Ping => MonitorKind::Ping,
        },
        delay: raw.delay.value.0,
        timeout: raw.timeout.value.0,
        failures: raw.failures.value,
        successes: raw.successes.value,
    })
}
