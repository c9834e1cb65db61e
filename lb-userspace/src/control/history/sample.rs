//! From two looks at the counters to the values of a second. Pure.

use std::{collections::BTreeMap, time::Duration};

use lb_common::reason::{Action, Reason};

use crate::control::query::Counters;

/// Sums of a virtual server.
#[derive(Clone, Copy, Debug, Default)]
struct Server {
    active: u64,
    connections: u64,
    requests: Option<u64>,
    errors: Option<u64>,
    received: u64,
    sent: u64,
}

/// The values between two looks: totals first, then virtual servers by name.
#[must_use]
pub fn sample(before: &Counters, now: &Counters, time: Duration) -> Vec<(String, f32)> {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return Vec::new();
    }
    let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / seconds) as f32;
    let mut values = Vec::new();
    for (name, wanted) in [("sent", Action::Send), ("passed", Action::Pass), ("dropped", Action::Drop)] {
        values.push((format!("packets.{name}"), rate(packets(before, wanted), packets(now, wanted))));
    }
    for (name, table) in &now.tables {
        let share = table.used as f64 / table.capacity.max(1) as f64;
        values.push((format!("table.{name}"), share as f32));
    }
    let earlier = servers(before);
    for (name, server) in servers(now) {
        // One that is new has no rates yet.
        let Some(before) = earlier.get(name) else { continue };
        let mut put = |what: &str, value: f32| values.push((format!("virtual_server.{name}.{what}"), value));
        put("active", server.active as f32);
        put("connections", rate(before.connections, server.connections));
        put("bits_in", 8.0 * rate(before.received, server.received));
        put("bits_out", 8.0 * rate(before.sent, server.sent));
        if let (Some(earlier), Some(now)) = (before.requests, server.requests) {
            put("requests", rate(earlier, now));
        }
        if let (Some(earlier), Some(now)) = (before.errors, server.errors) {
            put("errors", rate(earlier, now));
        }
    }
    values
}

fn packets(counters: &Counters, wanted: Action) -> u64 {
    let is_wanted = |name: &str| Reason::ALL.iter().any(|reason| reason.name() == name && reason.action() == wanted);
    let of_interfaces = counters.interfaces.iter().flat_map(|interface| &interface.reasons);
    of_interfaces.filter(|(reason, _)| is_wanted(reason)).map(|(_, traffic)| traffic.packets).sum()
}

fn servers(counters: &Counters) -> BTreeMap<&str, Server> {
    let mut servers: BTreeMap<&str, Server> = BTreeMap::new();
    for ((name, _, _), node) in &counters.nodes {
        let server = servers.entry(name).or_default();
        server.active += node.active;
        server.connections += node.connections;
        server.received += node.forward.bytes;
        server.sent += node.reply.bytes;
    }
    /// The place of 5xx among the classes of responses.
    const ERRORS: usize = 5;
    for (name, proxied) in &counters.proxy.virtual_servers {
        servers.insert(
            name,
            Server {
                active: proxied.connections,
                connections: proxied.accepted,
                requests: Some(proxied.requests.iter().sum()),
                errors: Some(proxied.requests[ERRORS]),
                received: proxied.bytes_received,
                sent: proxied.bytes_sent,
            },
        );
    }
    servers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::{
        proxy::stats::{Snapshot, VirtualServerSnapshot},
        query::NodeCounters,
        view::{InterfaceView, TableUse, Traffic},
    };

    fn counters(count: u64) -> Counters {
        let traffic = Traffic { packets: count, bytes: count * 100 };
        let reasons = [("forwarded_dsr".to_owned(), traffic), ("no_virtual_server".to_owned(), traffic)].into();
        let interface = InterfaceView { reasons, ..InterfaceView::default() };
        let node = NodeCounters { active: 3, connections: count, forward: traffic, ..NodeCounters::default() };
        let site =
            VirtualServerSnapshot { requests: [0, 0, count, 0, 0, count / 2], accepted: count, ..Default::default() };
        let id = |node: &str| ("web".to_owned(), "p".to_owned(), node.to_owned());
        Counters {
            interfaces: vec![interface.clone(), interface],
            tables: [("FLOWS".to_owned(), TableUse { used: 50, capacity: 200 })].into(),
            nodes: [(id("n1"), node.clone()), (id("n2"), node)].into(),
            proxy: Arc::new(Snapshot { virtual_servers: [("site".to_owned(), site)].into(), ..Snapshot::default() }),
            ..Counters::default()
        }
    }

    #[test]
    fn rates_are_differences_over_the_time() {
        let values: BTreeMap<String, f32> =
            sample(&counters(100), &counters(300), Duration::from_secs(2)).into_iter().collect();
        for (name, expected) in [
            ("packets.sent", 200.0),
            ("packets.passed", 200.0),
            ("packets.dropped", 0.0),
            ("table.FLOWS", 0.25),
            ("virtual_server.web.active", 6.0),
            ("virtual_server.web.connections", 200.0),
            ("virtual_server.web.bits_in", 160_000.0),
            ("virtual_server.site.requests", 150.0),
            ("virtual_server.site.errors", 50.0),
        ] {
            assert_eq!(values.get(name), Some(&expected), "{name} of {values:?}");
        }
        assert!(!values.contains_key("virtual_server.web.requests"), "packets have no requests");
    }

    #[test]
    fn counters_that_begin_anew_and_new_virtual_servers_have_no_rates() {
        let values = sample(&counters(300), &counters(10), Duration::from_secs(1));
        assert!(values.iter().all(|(name, value)| name.contains("active") || name.contains("table") || *value == 0.0));
        let values = sample(&Counters::default(), &counters(10), Duration::from_secs(1));
        assert!(values.iter().all(|(name, _)| !name.starts_with("virtual_server")), "{values:?}");
        assert_eq!(sample(&counters(1), &counters(2), Duration::ZERO), []);
    }
}
