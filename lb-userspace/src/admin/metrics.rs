//! `GET /metrics`: the counters in Prometheus' text format (version 0.0.4), collected when asked. No label grows
//! without bound: interfaces, reasons, virtual servers, pools and nodes are all configured.

mod proxy;

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    time::SystemTime,
};

use lb_common::reason::{Action, Reason};

use super::{Access, Backend};
use crate::{
    control::{
        event::Name,
        query::{Everything, QueryError},
        view::{
            AlertView, Health, InterfaceView, NeighborState, NodeView, PoolView, SharingMachine, SharingView, Status,
            TableUse, VipState, VipsView, VirtualServerView,
        },
    },
    telemetry,
};

/// Media type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric: name, type, help, and how to read it.
type Metric<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

/// All metrics now.
pub(super) fn collect(backend: &Backend) -> Result<String, QueryError> {
    let Everything { status, virtual_servers, pools, proxy } = backend.control.everything()?;
    let certificates = backend.control.certificates()?;
    let vips = backend.control.vips()?;
    let mut page = render(&status, &virtual_servers, &pools, &vips);
    proxy::certificates(&mut page, &certificates, now());
    proxy::proxy(&mut page, &proxy);
    events(&mut page, &backend.events.counts());
    alerts(&mut page, &backend.alerts.alerts(), backend.events.lost());
    access(&mut page, &backend.access);
    Ok(page.text)
}

fn render(status: &Status, virtual_servers: &[VirtualServerView], pools: &[PoolView], vips: &VipsView) -> Page {
    let mut page = Page::default();
    daemon(&mut page, status);
    interfaces(&mut page, &status.interfaces);
    tables(&mut page, status);
    for_virtual_servers(&mut page, virtual_servers);
    nodes(&mut page, &pools.iter().flat_map(|pool| &pool.nodes).collect::<Vec<_>>());
    failover(&mut page, vips);
    page
}

/// Requests of the admin API, who was refused, and what the audit log did not take.
fn access(page: &mut Page, access: &Access) {
    page.family("lb_api_requests_total", "counter", "Requests of the admin API, by class of their status.");
    for (class, count) in access.requests() {
        page.sample("lb_api_requests_total", &[("code_class", class)], count);
    }
    page.family("lb_api_refused_credentials_total", "counter", "Logins that failed, and tokens that were wrong.");
    page.sample("lb_api_refused_credentials_total", &[], access.refused());
    page.family("lb_audit_lost_total", "counter", "Changes that the audit log could not take.");
    page.sample("lb_audit_lost_total", &[], access.unaudited());
}

/// Also those that did not happen: a rate needs its zero.
fn events(page: &mut Page, counts: &BTreeMap<Name, u64>) {
    page.family("lb_events_total", "counter", "Events since lbd started.");
    for name in Name::ALL {
        let labels = [("event", name.word()), ("severity", name.severity().word())];
        page.sample("lb_events_total", &labels, counts.get(name).copied().unwrap_or(0));
    }
}

fn alerts(page: &mut Page, alerts: &[AlertView], lost: u64) {
    page.family("lb_alerts_total", "counter", "Notices of alerts by what became of them.");
    for AlertView { name, counts, .. } in alerts {
        let results = [
            ("sent", counts.sent),
            ("failed", counts.failed),
            ("held_back", counts.held_back),
            ("dropped", counts.dropped),
        ];
        for (result, count) in results {
            page.sample("lb_alerts_total", &[("alert", name), ("result", result)], count);
        }
    }
    page.family("lb_alert_events_lost_total", "counter", "Events that no alert got because all of them were behind.");
    page.sample("lb_alert_events_lost_total", &[], lost);
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs().cast_signed()
}

fn daemon(page: &mut Page, status: &Status) {
    page.family("lb_build_info", "gauge", "Version of lbd; always 1.");
    page.sample("lb_build_info", &[("version", &status.version)], 1);
    page.family("lb_uptime_seconds", "gauge", "Seconds since lbd started.");
    page.sample("lb_uptime_seconds", &[], status.uptime_s);
    page.family("lb_log_lost_lines_total", "counter", "Lines of lbd's log that were lost: nobody read them in time.");
    page.sample("lb_log_lost_lines_total", &[], telemetry::lost());
    page.family("lb_config_revision", "gauge", "Revision of the configuration in force; 0: it could not be recorded.");
    page.sample("lb_config_revision", &[], status.config_revision.unwrap_or(0));
    page.family("lb_config_accepted_total", "counter", "Configurations accepted since lbd started.");
    page.sample("lb_config_accepted_total", &[], status.config_generation);
    page.family("lb_config_reload_failed", "gauge", "1 when the last reload was refused.");
    page.sample("lb_config_reload_failed", &[], u64::from(status.config_error.is_some()));
}

fn interfaces(page: &mut Page, interfaces: &[InterfaceView]) {
    page.family("lb_xdp_attached", "gauge", "1 when the XDP program is on the interface.");
    for interface in interfaces {
        let attached = u64::from(interface.mode != "absent");
        page.sample("lb_xdp_attached", &[("interface", &interface.name), ("mode", &interface.mode)], attached);
    }
    for (name, help, value) in [
        ("lb_xdp_packets_total", "Packets by what became of them and why.", 0),
        ("lb_xdp_bytes_total", "Bytes of those packets.", 1),
    ] {
        page.family(name, "counter", help);
        for interface in interfaces {
            for (reason, traffic) in &interface.reasons {
                let labels = [("interface", interface.name.as_str()), ("action", action(reason)), ("reason", reason)];
                page.sample(name, &labels, [traffic.packets, traffic.bytes][value]);
            }
        }
    }
}

fn tables(page: &mut Page, status: &Status) {
    let metrics: [Metric<TableUse>; 2] = [
        ("lb_table_records", "gauge", "Live records of a flow table.", |table| table.used),
        ("lb_table_capacity", "gauge", "Places of a flow table.", |table| table.capacity),
    ];
    for (name, kind, help, value) in metrics {
        page.family(name, kind, help);
        for (table, fill) in &status.tables {
            page.sample(name, &[("table", table)], value(fill));
        }
    }
}

fn for_virtual_servers(page: &mut Page, virtual_servers: &[VirtualServerView]) {
    let all: [Metric<VirtualServerView>; 3] = [
        ("lb_virtual_server_connections_active", "gauge", "Active connections.", |vs| vs.active),
        ("lb_virtual_server_connections_total", "counter", "Connections.", |vs| vs.connections),
        ("lb_virtual_server_nodes_available", "gauge", "Nodes that take new connections.", |vs| {
            u64::try_from(vs.nodes_available).unwrap_or(u64::MAX)
        }),
    ];
    let of_packets: [Metric<VirtualServerView>; 5] = [
        ("lb_virtual_server_forward_packets_total", "counter", "Packets to nodes.", |vs| vs.forward.packets),
        ("lb_virtual_server_forward_bytes_total", "counter", "Bytes to nodes.", |vs| vs.forward.bytes),
        ("lb_virtual_server_reply_packets_total", "counter", "Packets of nodes (NAT).", |vs| vs.reply.packets),
        ("lb_virtual_server_reply_bytes_total", "counter", "Bytes of nodes (NAT).", |vs| vs.reply.bytes),
        ("lb_virtual_server_flood_limited_total", "counter", "New connections placed by the ring alone.", |vs| {
            vs.flood_limited
        }),
    ];
    let metrics = all.iter().map(|metric| (metric, true)).chain(of_packets.iter().map(|metric| (metric, false)));
    for ((name, kind, help, value), of_proxy) in metrics {
        page.family(name, kind, help);
        for vs in virtual_servers.iter().filter(|vs| of_proxy || vs.proxy.is_none()) {
            page.sample(name, &[("virtual_server", &vs.name)], value(vs));
        }
    }
}

fn nodes(page: &mut Page, nodes: &[&NodeView]) {
    let all: [Metric<NodeView>; 4] = [
        ("lb_node_up", "gauge", "0 when the monitors say it is down.", |n| u64::from(n.health != Health::Down)),
        ("lb_node_weight", "gauge", "Share of new connections.", |n| u64::from(n.weight)),
        ("lb_node_connections_active", "gauge", "Active connections.", |n| n.active),
        ("lb_node_connections_total", "counter", "Connections.", |n| n.connections),
    ];
    let of_packets: [Metric<NodeView>; 6] = [
        ("lb_node_rescheduled_total", "counter", "Connections moved here from failed nodes.", |n| n.rescheduled),
        ("lb_node_evicted_total", "counter", "Brief, silent connections taken out of the full table.", |n| n.evicted),
        ("lb_node_forward_packets_total", "counter", "Packets to the node.", |n| n.forward.packets),
        ("lb_node_forward_bytes_total", "counter", "Bytes to the node.", |n| n.forward.bytes),
        ("lb_node_reply_packets_total", "counter", "Packets of the node (NAT).", |n| n.reply.packets),
        ("lb_node_reply_bytes_total", "counter", "Bytes of the node (NAT).", |n| n.reply.bytes),
    ];
    let metrics = all.iter().map(|metric| (metric, true)).chain(of_packets.iter().map(|metric| (metric, false)));
    for ((name, kind, help, value), of_proxy) in metrics {
        page.family(name, kind, help);
        for node in nodes.iter().filter(|node| of_proxy || node.proxy.is_none()) {
            page.sample(name, &[("pool", &node.pool), ("node", &node.name)], value(node));
        }
    }
}

fn failover(page: &mut Page, vips: &VipsView) {
    let Some(cluster) = &vips.cluster else { return };
    let groups = || vips.groups.iter().filter_map(|group| Some((group, group.transitions?)));
    page.family("lb_failover_state", "gauge", "1 for the state of this machine in the VIP group.");
    for (group, _) in groups() {
        for (state, word) in VipState::MOVING {
            let labels = [("vip", group.name.as_str()), ("state", word)];
            page.sample("lb_failover_state", &labels, u64::from(group.state == state));
        }
    }
    page.family("lb_failover_transitions_total", "counter", "Changes of this machine's state in the VIP group.");
    for (group, transitions) in groups() {
        page.sample("lb_failover_transitions_total", &[("vip", &group.name)], transitions);
    }
    page.family("lb_bgp_session_up", "gauge", "1 while the BGP session with the neighbour is established.");
    for neighbor in &vips.neighbors {
        let is_up = neighbor.state == NeighborState::Established;
        page.sample("lb_bgp_session_up", &[("neighbor", &neighbor.name)], u64::from(is_up));
    }
    page.family("lb_bgp_announced", "gauge", "VIPs that are announced to the BGP neighbour.");
    for neighbor in &vips.neighbors {
        page.sample("lb_bgp_announced", &[("neighbor", &neighbor.name)], neighbor.announced);
    }
    page.family("lb_failover_fault", "gauge", "1 when this machine gives its VIPs away because something is wrong.");
    page.sample("lb_failover_fault", &[], u64::from(cluster.fault.is_some()));
    page.family("lb_failover_maintenance", "gauge", "1 in maintenance.");
    page.sample("lb_failover_maintenance", &[], u64::from(cluster.in_maintenance));
    page.family("lb_failover_claims_total", "counter", "Claims of others to addresses that this machine owned.");
    page.sample("lb_failover_claims_total", &[], cluster.claims);
    page.family("lb_failover_machine_alive", "gauge", "1 when the other machine is heard.");
    for machine in &cluster.machines {
        page.sample("lb_failover_machine_alive", &[("machine", &machine.name)], u64::from(machine.alive));
    }
    if let Some(sharing) = &cluster.sharing {
        shared(page, sharing);
    }
    page.family("lb_failover_heartbeats_total", "counter", "Heartbeats that came, by what became of them.");
    let counters = &cluster.counters;
    for (fate, count) in [
        ("heard", counters.heard),
        ("looped_back", counters.looped_back),
        ("stale", counters.stale),
        ("unproven", counters.unproven),
        ("forged", counters.forged),
        ("malformed", counters.malformed),
    ] {
        page.sample("lb_failover_heartbeats_total", &[("fate", fate)], count);
    }
    page.family(
        "lb_failover_advertisements_total",
        "counter",
        "VRRP and CARP advertisements that came, by what became of them.",
    );
    let counters = &cluster.router_counters;
    for (fate, count) in [
        ("heard", counters.heard),
        ("looped_back", counters.looped_back),
        ("foreign", counters.foreign),
        ("stranger", counters.strangers),
        ("malformed", counters.malformed),
        ("forged", counters.forged),
        ("other_addresses", counters.other_addresses),
    ] {
        page.sample("lb_failover_advertisements_total", &[("fate", fate)], count);
    }
}

fn shared(page: &mut Page, sharing: &SharingView) {
    type Value = fn(&SharingMachine) -> u64;
    let rows: [(&str, &str, &str, Value); 4] = [
        ("lb_share_up", "gauge", "1 while the machine takes what it is told of connections.", |m| {
            m.is_connected.into()
        }),
        ("lb_share_told", "gauge", "Connections and clients of this machine that the machine knows.", |m| m.told),
        ("lb_share_sent_total", "counter", "Messages on connections that went to the machine.", |m| m.sent),
        ("lb_share_received_total", "counter", "Messages on connections that came from the machine.", |m| m.received),
    ];
    for (name, kind, help, value) in rows {
        page.family(name, kind, help);
        for machine in &sharing.machines {
            page.sample(name, &[("machine", &machine.name)], value(machine));
        }
    }
    page.family("lb_share_fates_total", "counter", "What became of messages on others' connections and sessions.");
    for (fate, count) in &sharing.fates {
        page.sample("lb_share_fates_total", &[("fate", fate)], count);
    }
    page.family("lb_share_refused_total", "counter", "Callers that were refused: strangers, or with another key.");
    page.sample("lb_share_refused_total", &[], sharing.refused);
}

fn action(reason: &str) -> &'static str {
    match Reason::ALL.iter().find(|known| known.name() == reason).map(|known| known.action()) {
        Some(Action::Send) => "send",
        Some(Action::Pass) => "pass",
        Some(Action::Drop) => "drop",
        None => "unknown",
    }
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (position, (label, text)) in labels.iter().enumerate() {
            let separator = if position == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{separator}{label}=\"{}\"", escape(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::control::{
        proxy::stats::Snapshot,
        view::{ClusterView, Traffic},
    };

    #[test]
    fn samples_carry_their_labels_escaped() {
        let mut page = Page::default();
        page.sample("lb_x", &[("a", "1"), ("b", "say \"hi\"\\\n")], 7);
        page.sample("lb_y", &[], 8);
        assert_eq!(page.text, "lb_x{a=\"1\",b=\"say \\\"hi\\\"\\\\\\n\"} 7\nlb_y 8\n");
    }

    #[test]
    fn packets_are_labelled_by_interface_action_and_reason() {
        let reasons = [("forwarded_dsr".to_owned(), Traffic { packets: 3, bytes: 180 })].into();
        let interface = InterfaceView { name: "eth0".into(), ifindex: 2, mode: "native".into(), reasons };
        let status = Status { interfaces: vec![interface], ..Status::default() };
        let text = render(&status, &[], &[], &VipsView::default()).text;
        let line = "lb_xdp_packets_total{interface=\"eth0\",action=\"send\",reason=\"forwarded_dsr\"} 3\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("reason=\"forwarded_dsr\"} 180\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<u64>().is_ok()), "{line}");
        }
    }

    #[test]
    fn dashboard_and_alert_rules_name_only_what_there_is() {
        let vips = VipsView { cluster: Some(ClusterView::default()), ..VipsView::default() };
        let mut page = render(&Status::default(), &[], &[], &vips);
        proxy::certificates(&mut page, &[], 0);
        proxy::proxy(&mut page, &Snapshot::default());
        let families = page.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let families: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let mut seen = 0;
        for file in ["grafana/lb.json", "prometheus/lb.rules.yml"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/share").join(file);
            let text = fs::read_to_string(path).unwrap();
            for word in text.split(|c| !is_name(c)).filter(|word| word.starts_with("lb_")) {
                let family = word.strip_suffix("_bucket").unwrap_or(word);
                assert!(families.contains(family), "{file} has {word}, which /metrics has not");
                seen += 1;
            }
        }
        assert!(seen > 50, "only {seen} names were found");
    }
}
