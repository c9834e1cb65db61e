//! What is found about nodes, and said.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::tests::{N1, N2, around, ip, route, routes, server},
    *,
};
use crate::{
    control::plan::{Admission, Forwarding},
    dataplane::{
        names::{Names, SlotInfo},
        network::{Event, Link, Neighbour, Reachability, Route, Vlan},
    },
};

/// What was found of node n1, by check.
fn found(around: &Surroundings, check: &str) -> Finding {
    let findings = super::check(around);
    let found = findings.iter().find(|finding| finding.check == check && finding.subject.starts_with("web/n1 "));
    found.unwrap_or_else(|| panic!("no {check} in {findings:?}")).clone()
}

#[test]
fn nodes_that_are_reached_are_fine() {
    for forwarding in [Forwarding::Dsr, Forwarding::Nat, Forwarding::NatSource] {
        let findings = check(&around(server(forwarding)));
        assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:?}");
        let neighbours = findings.iter().filter(|finding| finding.check == "neighbour").count();
        assert_eq!(neighbours, 2, "{findings:?}");
    }
}

#[test]
fn a_node_that_is_not_reached_says_why_and_what_to_do() {
    let router = Route { gateway: Some(ip("10.0.0.254")), ..route(7) };
    let local = Route { local: true, ..route(7) };
    let rows = [
        ("no route", None, Severity::Problem, "ip route get"),
        ("dsr behind a router", Some(router), Severity::Problem, "forwarding = \"nat\""),
        ("our own address", Some(local), Severity::Problem, "correct the node's address"),
        ("a dead interface", Some(route(99)), Severity::Problem, "ip link set"),
        ("not answered yet", Some(route(8)), Severity::Problem, "ip neigh show"),
    ];
    for (name, route, severity, advice) in rows {
        let mut around = around(server(Forwarding::Dsr));
        routes(&mut around, &[(N1, route), (N2, None)]);
        let finding = found(&around, "neighbour");
        assert_eq!(finding.severity, severity, "{name}: {finding:?}");
        assert!(finding.advice.as_ref().unwrap().contains(advice), "{name}: {finding:?}");
    }
}

#[test]
fn a_silent_node_is_a_problem_only_while_it_should_take_something() {
    for (admission, expected) in [(Admission::All, Severity::Problem), (Admission::Nothing, Severity::Warning)] {
        let mut server = server(Forwarding::Dsr);
        server.nodes[0].admission = admission;
        let mut around = around(server);
        let failed = Neighbour { ifindex: 7, address: ip(N1), mac: None, reachability: Reachability::Failed };
        around.network.apply(&Event::Neighbour(failed));
        let finding = found(&around, "neighbour");
        assert_eq!(finding.severity, expected, "{admission:?}: {finding:?}");
        assert!(finding.advice.unwrap().contains("arping 10.0.0.11"));
    }
}

#[test]
fn answers_of_translated_connections_need_the_program_where_they_come_in() {
    let mut around = around(server(Forwarding::Nat));
    routes(&mut around, &[(N1, Some(route(8))), (N2, Some(route(7)))]);
    let neighbour = Neighbour { ifindex: 8, address: ip(N1), mac: Some([2; 6]), reachability: Reachability::Confirmed };
    around.network.apply(&Event::Neighbour(neighbour));
    let finding = found(&around, "reply_path");
    assert_eq!(finding.severity, Severity::Problem);
    assert_eq!(finding.advice.as_deref(), Some("add [interface.eth1] to the configuration"));
}

#[test]
fn answers_out_of_a_vlan_need_the_vlan_to_be_served() {
    for (forwarding, expected) in [(Forwarding::Nat, Severity::Problem), (Forwarding::Dsr, Severity::Ok)] {
        let mut around = around(server(forwarding));
        routes(&mut around, &[(N1, Some(route(12))), (N2, Some(route(7)))]);
        let vlan = Some(Vlan { parent: Some(7), id: 100, service: false });
        let device = Link {
            ifindex: 12,
            name: "eth0.100".to_owned(),
            mac: Some([2; 6]),
            mtu: 1500,
            up: true,
            vlan,
            ..Link::default()
        };
        around.network.apply(&Event::Link(device));
        let (address, reachability) = (ip(N1), Reachability::Confirmed);
        around.network.apply(&Event::Neighbour(Neighbour { ifindex: 12, address, mac: Some([2; 6]), reachability }));
        let finding = found(&around, "vlan");
        assert_eq!(finding.severity, expected, "{finding:?}");
        let advice = (expected == Severity::Problem).then_some("add 100 to vlans of [interface.eth0]");
        assert_eq!(finding.advice.as_deref(), advice);
    }
}

#[test]
fn a_narrower_way_is_named_with_the_wider_ones() {
    let mut around = around(server(Forwarding::Nat));
    let narrow = Route { mtu: Some(1400), ..route(7) };
    routes(&mut around, &[(N1, Some(narrow)), (N2, Some(route(7)))]);
    let finding = found(&around, "mtu");
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.finding.contains("1400 bytes by eth0, but more on eth0 (1500)"), "{finding:?}");
    let wide = Link { ifindex: 7, name: "eth0".to_owned(), mac: Some([2; 6]), mtu: 1400, up: true, ..Link::default() };
    around.network.apply(&Event::Link(wide));
    assert_eq!(found(&around, "mtu").severity, Severity::Ok);
}

#[test]
fn a_node_that_the_data_path_does_not_reach_is_a_problem_whatever_the_kernel_says() {
    let mut around = around(server(Forwarding::NatSource));
    let slot = SlotInfo {
        virtual_server: "web".to_owned(),
        pool: "web".to_owned(),
        node: "n1".to_owned(),
        address: (ip(N1), 0).into(),
        source: None,
        generation: 1,
        admission: Admission::All,
        unresolved: Some("no address for source NAT".to_owned()),
    };
    let names = Names { slots: BTreeMap::from([(1, slot)]), ..Names::clone(&around.names) };
    around.names = Arc::new(names);
    let finding = found(&around, "neighbour");
    assert_eq!(finding.severity, Severity::Problem);
    assert!(finding.finding.contains("no address for source NAT"), "{finding:?}");
}
