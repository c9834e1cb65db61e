//! What the probes of a DSR node's answers say.

use super::{
    super::tests::{N1, N2, OUR_MAC, VIP, around, ip, mac_of, route, routes, server},
    *,
};
use crate::{control::view::Severity, dataplane::network::Route};

fn severities(findings: &[Finding]) -> Vec<(&str, Severity)> {
    findings.iter().map(|finding| (finding.check.as_str(), finding.severity)).collect()
}

#[test]
fn every_vip_is_asked_of_every_node_of_its_family_and_once_of_the_link() {
    let questions = questions(&around(server(Forwarding::Dsr)));
    let owner = OwnerQuestion { ifindex: 7, vip: ip(VIP), mac: OUR_MAC, source: ip("10.0.0.1") };
    assert_eq!(questions.owners, BTreeSet::from([owner]));
    let knock = |node: &str, number| Knock {
        ifindex: 7,
        node: node.to_owned(),
        node_mac: mac_of(number),
        mac: OUR_MAC,
        source: ip("10.0.0.1"),
        vip: SocketAddr::new(ip(VIP), 80),
        open: true,
    };
    let expected = [knock("web/n1 (10.0.0.11)", 0x11), knock("web/n2 (10.0.0.12)", 0x12)];
    assert_eq!(questions.knocks, BTreeSet::from(expected));
    assert!(questions.unasked.is_empty());
}

#[test]
fn translated_pools_are_not_asked() {
    for forwarding in [Forwarding::Nat, Forwarding::NatSource] {
        let questions = questions(&around(server(forwarding)));
        assert!(questions.owners.is_empty() && questions.knocks.is_empty() && questions.unasked.is_empty());
    }
}

#[test]
fn who_cannot_be_asked_is_said() {
    let mut server = server(Forwarding::Dsr);
    server.nodes[0].admission = Admission::Nothing;
    let mut around = around(server);
    let router = Route { gateway: Some(ip("10.0.0.254")), ..route(7) };
    routes(&mut around, &[(N1, Some(route(7))), (N2, Some(router))]);
    let questions = questions(&around);
    assert!(questions.knocks.is_empty());
    let findings = judge(&around, &questions, &Observed::default());
    assert_eq!(severities(&findings), [("dsr_syn", Severity::Warning); 2]);
    assert!(findings[0].finding.contains("down or disabled"), "{findings:?}");
    assert!(findings[1].finding.contains("behind router 10.0.0.254"), "{findings:?}");
    let mut homeless = super::super::tests::around(super::super::tests::server(Forwarding::Dsr));
    let nowhere = Route { source: None, ..route(7) };
    routes(&mut homeless, &[(N1, Some(nowhere.clone())), (N2, Some(nowhere))]);
    assert_eq!(super::questions(&homeless).unasked.len(), 2);
}

#[test]
fn the_port_to_knock_at() {
    let mut web = server(Forwarding::Dsr);
    let rows = [
        (Protocol::Tcp, vec![(8000, 8100), (80, 80)], (80, true)),
        (Protocol::Tcp, vec![(1, 65_535)], (1, false)),
        (Protocol::Udp, vec![(53, 53)], (53, false)),
    ];
    for (protocol, ports, expected) in rows {
        web.protocol = protocol;
        web.ports.clone_from(&ports);
        assert_eq!(port(&web), expected, "{protocol:?} {ports:?}");
    }
}

#[test]
fn who_may_answer_for_a_vip() {
    let question = OwnerQuestion { ifindex: 7, vip: ip(VIP), mac: OUR_MAC, source: ip("10.0.0.1") };
    let nodes = BTreeMap::from([((7, mac_of(0x11)), BTreeSet::from(["web/n1 (10.0.0.11)".to_owned()]))]);
    let rows = [
        ("nobody", vec![], true, Severity::Ok),
        ("we ourselves", vec![OUR_MAC], true, Severity::Ok),
        ("a node", vec![OUR_MAC, mac_of(0x11)], true, Severity::Problem),
        ("a node, and the VIP is not here", vec![mac_of(0x11)], false, Severity::Problem),
        ("a stranger", vec![mac_of(0x99)], true, Severity::Problem),
        ("a stranger, and the VIP is not here", vec![mac_of(0x99)], false, Severity::Ok),
    ];
    for (name, owners, local, expected) in rows {
        let findings = judge_owners("x", &question, &owners.into_iter().collect(), &nodes, local);
        assert_eq!(findings.iter().map(|finding| finding.severity).max(), Some(expected), "{name}: {findings:?}");
    }
    let found = judge_owners("x", &question, &BTreeSet::from([mac_of(0x11)]), &nodes, true);
    assert!(found[0].advice.as_ref().unwrap().contains("arp_ignore=1"), "{found:?}");
    assert!(found[0].finding.contains("web/n1"), "{found:?}");
}

#[test]
fn what_an_answer_to_a_syn_means() {
    let rows = [
        (Outcome::Accepted, true, Severity::Ok, "accepts"),
        (Outcome::Refused, true, Severity::Problem, "nothing listens"),
        (Outcome::Silent, true, Severity::Problem, "does not own"),
        (Outcome::Accepted, false, Severity::Ok, "owns"),
        (Outcome::Refused, false, Severity::Ok, "owns"),
        (Outcome::Silent, false, Severity::Warning, "does not answer"),
        (Outcome::NotSent("no permission".to_owned()), true, Severity::Warning, "no permission"),
    ];
    let asked = questions(&around(server(Forwarding::Dsr)));
    let knock = asked.knocks.first().unwrap();
    for (outcome, open, expected, words) in rows {
        let finding = judge_knock(&Knock { open, ..knock.clone() }, &outcome);
        assert_eq!(finding.severity, expected, "{outcome:?} {open}");
        assert!(finding.finding.contains(words), "{finding:?}");
    }
}

#[test]
fn a_question_that_could_not_be_sent_is_said() {
    let around = around(server(Forwarding::Dsr));
    let questions = questions(&around);
    let owners = questions.owners.iter().map(|question| (question.clone(), Err("no permission".to_owned())));
    let observed = Observed { owners: owners.collect(), knocks: BTreeMap::new() };
    let findings = judge(&around, &questions, &observed);
    assert_eq!(findings[0].severity, Severity::Warning);
    assert!(findings[0].finding.contains("no permission"), "{findings:?}");
}
