//! From the document as it is written to the values by meaning. Refuses nothing: what is missing (and reported by others)
//! is left out or given a harmless value, so that the checks can look at the rest.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use lb_common::conntrack::{State, Timeouts};

use super::{
    Config, Daemon, Dataplane, Node, Pool, VirtualServer,
    at::At,
    document::{self, Document, ForwardingWord, Named, ProtocolWord, SchedulerWord},
    ports::Ports,
    ring_seed,
    rule::Written,
    source::Sources,
    text::PortRange,
};
use crate::control::plan::{Forwarding, Interface, Protocol, Scheduler, SourceAffinity};

mod alert;
mod api;
mod bgp;
mod cluster;
mod monitor;
mod proxy;

const DAY: Duration = Duration::from_hours(24);

/// What a configuration is built from.
pub(super) struct Building<'d> {
    pub(super) document: &'d Document,
    /// Rules of virtual servers, by name.
    pub(super) rules: &'d BTreeMap<String, Written>,
    pub(super) sources: &'d Sources,
}

pub(super) fn build(building: &Building<'_>) -> Config {
    let document = building.document;
    Config {
        proxy: proxy::build(building),
        daemon: daemon(&document.daemon),
        api: api::api(building),
        dataplane: dataplane(&document.dataplane),
        interfaces: each(&document.interface, |i| Some(interface(i))),
        cluster: cluster::cluster(building),
        bgp: bgp::bgp(building),
        vips: each(&document.vip, |group| Some(cluster::vip_group(group, building))),
        virtual_servers: each(&document.virtual_server, virtual_server),
        pools: each(&document.pool, pool),
        agentx: document.snmp.agentx.as_ref().map(|path| path.value.0.clone()),
        alerts: alert::alerts(building),
        monitors: each(&document.monitor, |raw| monitor::monitor(building, raw)),
    }
}

fn each<T, U>(named: &Named<T>, build: impl Fn(&T) -> Option<U>) -> BTreeMap<String, U> {
    named.iter().filter_map(|(name, value)| Some((name.value.clone(), build(value)?))).collect()
}

fn daemon(raw: &document::Daemon) -> Daemon {
    Daemon {
        socket: raw.socket.value.0.clone(),
        state_dir: raw.state_dir.value.0.clone(),
        history_revisions: raw.history_revisions.value,
        history_age: DAY * raw.history_days.value,
        monitor_dir: raw.monitor_dir.value.0.clone(),
        monitor_user: raw.monitor_user.value.clone(),
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
        max_rings: raw.max_rings.as_ref().map(|rings| rings.value),
        ring_seed: ring_seed(&raw.ring_seed.value),
        source_ports: (first, last),
        flood_limit: raw.flood_limit.value,
    }
}

fn interface(raw: &document::Interface) -> Interface {
    Interface { mode: raw.mode.value, vlans: raw.vlans.iter().map(|vlan| vlan.value).collect() }
}

fn virtual_server(raw: &document::VirtualServer) -> Option<VirtualServer> {
    let protocol = match raw.protocol.as_ref()?.value {
        ProtocolWord::Tcp => Protocol::Tcp,
        ProtocolWord::Udp => Protocol::Udp,
        ProtocolWord::Http
        | ProtocolWord::Https
        | ProtocolWord::TcpProxy
        | ProtocolWord::Tls
        | ProtocolWord::TlsPassthrough => return None,
    };
    let mut ports: Vec<_> = raw.ports.as_ref()?.value.0.iter().map(|range| (range.value.0, range.value.1)).collect();
    ports.sort_unstable();
    Some(VirtualServer {
        vips: raw.vips.as_ref()?.iter().map(|name| name.value.clone()).collect(),
        protocol,
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

/// Each port of a list of ports and ranges.
fn single_ports(ports: &Ports) -> impl Iterator<Item = u16> {
    /// More are refused; this bounds what is built before that.
    const MOST: usize = 1024;
    ports.0.iter().flat_map(|range| range.value.0..=range.value.1).take(MOST)
}

/// A pool that forwards packets. Without a word of forwarding there is a mistake elsewhere, and it counts as one.
fn pool(raw: &document::Pool) -> Option<Pool> {
    let forwarding = match (raw.forwarding.as_ref().map(|word| word.value), raw.source_nat.value) {
        (Some(ForwardingWord::Proxy), _) => return None,
        (Some(ForwardingWord::Dsr), _) => Forwarding::Dsr,
        (Some(ForwardingWord::Nat) | None, false) => Forwarding::Nat,
        (Some(ForwardingWord::Nat) | None, true) => Forwarding::NatSource,
    };
    Some(Pool {
        forwarding,
        source_address4: raw.source_address.as_ref().map(|address| address.value),
        source_address6: raw.source_address6.as_ref().map(|address| address.value),
        scheduler: raw.scheduler.as_ref().map_or(Scheduler::Maglev, |word| scheduler(word.value)),
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
    })
}

fn scheduler(word: SchedulerWord) -> Scheduler {
    match word {
        SchedulerWord::RoundRobin => Scheduler::RoundRobin,
        SchedulerWord::WeightedRoundRobin => Scheduler::WeightedRoundRobin,
        SchedulerWord::LeastConnections => Scheduler::LeastConnections,
        SchedulerWord::WeightedLeastConnections => Scheduler::WeightedLeastConnections,
        SchedulerWord::SourceHash => Scheduler::SourceHash,
        SchedulerWord::Random => Scheduler::Random,
        // Those that only the proxy has were taken out before.
        SchedulerWord::Maglev
        | SchedulerWord::FastestResponse
        | SchedulerWord::Perceptive
        | SchedulerWord::RandomOfTwo
        | SchedulerWord::ConsistentHash => Scheduler::Maglev,
    }
}

fn node(raw: &document::Node) -> Option<Node> {
    let address = &raw.address.as_ref()?.value;
    Some(Node { address: address.ip()?, port: address.port, weight: raw.weight.value, state: raw.state.value })
}
