//! What `trace` says of a verdict.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use lb_common::{
    conntrack::{State, Timeouts},
    explain::step,
    flow::FlowKey,
};

use super::*;
use crate::{
    control::plan::{Admission, Node, OnNodeFailure, Plan, Protocol, Refusal, Scheduler, VirtualServer},
    dataplane::{names::SlotInfo, network::Mode},
};

const CLIENT: &str = "192.0.2.7:40000";
const VIP: &str = "198.51.100.1:80";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server() -> VirtualServer {
    VirtualServer {
        addresses: vec![address(VIP).ip()],
        protocol: Protocol::Tcp,
        ports: vec![(80, 80), (8000, 8100)],
        pool: "web".to_owned(),
        forwarding: Forwarding::Dsr,
        scheduler: Scheduler::RoundRobin,
        affinity: None,
        on_node_failure: OnNodeFailure::Reschedule,
        refusal: Refusal::Reset,
        timeouts: Timeouts::default(),
        flood_limit: 1,
        ring_seed: 1,
        source_ports: (1024, 32_767),
        nodes: vec![Node {
            pool: "web".to_owned(),
            name: "n1".to_owned(),
            address: address("10.0.0.11:0"),
            weight: 1,
            admission: Admission::Nothing,
            source_address: None,
        }],
    }
}

fn names() -> Names {
    let interface = |name: &str, ifindex, slot| InterfaceInfo {
        name: name.to_owned(),
        ifindex,
        slot,
        mode: (ifindex != 0).then_some(Mode::Native),
    };
    let slot = SlotInfo {
        virtual_server: "web".to_owned(),
        pool: "web".to_owned(),
        node: "n1".to_owned(),
        address: address("10.0.0.11:0"),
        source: None,
        generation: 1,
        admission: Admission::All,
        unresolved: Some("10.0.0.11 does not answer ARP".to_owned()),
    };
    Names {
        slots: BTreeMap::from([(3, slot)]),
        virtual_servers: BTreeMap::from([(1, "web".to_owned())]),
        interfaces: vec![interface("eth0", 7, 0), interface("eth1", 8, 1), interface("gone", 0, 2)],
        links: BTreeMap::from([(7, "eth0".to_owned()), (9, "eth9".to_owned())]),
        plan: Arc::new(Plan { virtual_servers: BTreeMap::from([("web".to_owned(), server())]), ..Plan::default() }),
        ..Names::default()
    }
}

fn question(flags: &str) -> Question {
    let request = TraceRequest {
        protocol: Protocol::Tcp,
        source: CLIENT.to_owned(),
        destination: VIP.to_owned(),
        interface: None,
        flags: Some(flags.to_owned()),
    };
    Question::read(&request).unwrap()
}

fn key() -> FlowKey {
    FlowKey::v4([192, 0, 2, 7], [198, 51, 100, 1], 40_000, 80, 6)
}

fn frame(destination_mac: [u8; 6]) -> Vec<u8> {
    let question = question("S");
    let Question { source, destination, transport } = question;
    Draft { source_mac: NEIGHBOUR, destination_mac, source, destination, transport }.frame()
}

fn run(reason: Reason, returned: u32, explanation: Explanation) -> Run {
    Run {
        before: frame([2, 0, 0, 0, 0, 1]),
        after: frame([2, 0, 0, 0, 0, 0x11]),
        returned,
        explanation: Explanation { reason: reason as u8, ..explanation },
    }
}

#[test]
fn a_new_connection_is_told_from_filter_to_next_hop() {
    let names = names();
    let explanation = Explanation {
        key: key(),
        steps: step::FILTER_HIT | step::SERVICE_HIT | step::SCHEDULED,
        virtual_server: 1,
        node: 3,
        state: State::SynSent as u8,
        ifindex: 7,
        ..Explanation::default()
    };
    let run = run(Reason::ForwardedDsr, 4, explanation);
    let view = view(&question("S"), &run, &names.interfaces[0], &names).unwrap();
    let expected = TraceView {
        action: "send".to_owned(),
        reason: "forwarded_dsr".to_owned(),
        meaning: Reason::ForwardedDsr.meaning().to_owned(),
        steps: vec![
            "198.51.100.1 is a VIP".to_owned(),
            "neither FLOWS nor PENDING has a record of it".to_owned(),
            "virtual server \"web\" serves tcp 198.51.100.1:80".to_owned(),
            "scheduler round_robin chooses node \"n1\" of pool \"web\" (whose turn it is now: each new connection moves on)"
                .to_owned(),
            "sent back out of eth0, where it came in (XDP_TX)".to_owned(),
        ],
        virtual_server: Some("web".to_owned()),
        pool: Some("web".to_owned()),
        node: Some("n1".to_owned()),
        forwarding: Some(Forwarding::Dsr),
        rewrites: vec!["destination MAC: 02:00:00:00:00:01 -> 02:00:00:00:00:11".to_owned()],
        next_hop: Some("02:00:00:00:00:11 by eth0".to_owned()),
        advice: None,
    };
    assert_eq!(view, expected);
}

#[test]
fn the_common_case_and_answers_are_told_without_a_key() {
    let names = names();
    let established = Explanation {
        node: 3,
        virtual_server: 1,
        flow_flags: flag::NAT | flag::SOURCE_NAT,
        state: State::Established as u8,
        ifindex: 8,
        ..Explanation::default()
    };
    let told = view(&question("A"), &run(Reason::ForwardedNat, 4, established), &names.interfaces[0], &names).unwrap();
    let expected = [
        "the address filter says: look closer",
        "FLOWS has a record of it, in state established",
        "it belongs to node \"n1\" of pool \"web\"",
        "redirected to eth1 (XDP_REDIRECT)",
    ];
    assert_eq!(told.steps, expected);
    assert_eq!(told.forwarding, Some(Forwarding::NatSource));
    let answer = Explanation { steps: step::REPLY, ifindex: 7, ..established };
    let told = view(&question("A"), &run(Reason::ForwardedReply, 3, answer), &names.interfaces[1], &names).unwrap();
    assert_eq!(told.steps[2], "it is a node's answer: addresses and ports are restored");
    assert_eq!(told.steps[4], "redirected to eth0 (XDP_REDIRECT)", "the client is behind eth0");
}

#[test]
fn every_step_has_its_sentence() {
    let names = names();
    let all = [
        (step::FLOW_HIT, "FLOWS has a record"),
        (step::PENDING_HIT, "PENDING, the table of half-open connections, has a record"),
        (step::STALE, "not used any more"),
        (step::SERVICE_HIT, "virtual server"),
        (step::AFFINITY_HIT, "AFFINITY has the node"),
        (step::SCHEDULED, "scheduler round_robin"),
        (step::STATELESS, "by the ring, without a record"),
        (step::FLOOD | step::SCHEDULED, "flood_limit is exceeded"),
        (step::REPLY, "it is a node's answer: addresses"),
        (step::FRAGMENT_HIT, "first fragment"),
        (step::FILTER_HIT, "198.51.100.1 is a VIP"),
    ];
    for (bit, expected) in all {
        let explanation = Explanation { key: key(), steps: bit, node: 3, virtual_server: 1, ..Explanation::default() };
        let told = steps::sentences(&question("S"), &explanation, Reason::ForwardedDsr, &names);
        assert!(told.iter().any(|sentence| sentence.contains(expected)), "{bit}: {told:?}");
        let without = Explanation { steps: 0, ..explanation };
        let told = steps::sentences(&question("S"), &without, Reason::NotVirtual, &names);
        assert!(!told.iter().any(|sentence| sentence.contains(expected)), "{bit}: {told:?}");
    }
}

#[test]
fn what_is_not_sent_has_no_next_hop_but_advice() {
    let names = names();
    let explanation = Explanation { key: key(), steps: step::FILTER_HIT, ..Explanation::default() };
    let run = run(Reason::NoVirtualServer, 2, explanation);
    let view = view(&question("S"), &run, &names.interfaces[0], &names).unwrap();
    assert_eq!((view.action.as_str(), view.next_hop, view.rewrites), ("pass", None, Vec::new()));
    assert_eq!(view.steps, ["198.51.100.1 is a VIP", "neither FLOWS nor PENDING has a record of it"]);
    let advice = view.advice.unwrap();
    assert!(advice.contains("served there: web (tcp 80, 8000-8100)") && advice.contains("lbctl vs ls"), "{advice}");
}

#[test]
fn the_actions_must_agree() {
    assert_eq!(action(Reason::ForwardedDsr, 3), Ok(Action::Send));
    assert_eq!(action(Reason::ForwardedDsr, 4), Ok(Action::Send));
    assert_eq!(action(Reason::NotVirtual, 2), Ok(Action::Pass));
    assert_eq!(action(Reason::NoNode, 1), Ok(Action::Drop));
    for returned in [0, 1, 2, 5] {
        assert!(action(Reason::ForwardedDsr, returned).is_err(), "{returned}");
    }
    let explanation = Explanation { reason: 200, ..Explanation::default() };
    let run = Run { before: Vec::new(), after: Vec::new(), returned: 2, explanation };
    assert!(view(&question("S"), &run, &names().interfaces[0], &names()).is_err());
}

#[test]
fn every_reason_that_is_not_forwarding_says_what_to_do_or_is_known_not_to() {
    let silent = [
        Reason::ForwardedDsr,
        Reason::ForwardedNat,
        Reason::ForwardedReply,
        Reason::AnsweredEcho,
        Reason::AnsweredTooBig,
        Reason::ForwardedIcmpError,
        Reason::NotIp,
        Reason::NotForUs,
        Reason::UdpWithoutChecksum,
        Reason::SourceRouted,
        Reason::IcmpMtuTooSmall,
    ];
    for reason in Reason::ALL {
        for virtual_server in [None, Some("web"), Some("unheard-of")] {
            let text = advice::advice(*reason, &question("S"), virtual_server, &names());
            assert_eq!(text.is_none(), silent.contains(reason), "{}: {text:?}", reason.name());
        }
    }
}

#[test]
fn advice_names_what_is_there() {
    let names = names();
    let of = |reason, flags: &str| advice::advice(reason, &question(flags), Some("web"), &names).unwrap();
    assert!(of(Reason::NoNode, "S").contains("n1: down or disabled"));
    assert!(of(Reason::AnsweredReset, "S").contains("lbctl pool show web"));
    assert!(of(Reason::AnsweredReset, "A").contains("lbctl conn ls --client 192.0.2.7"));
    assert!(of(Reason::NextHopUnresolved, "S").contains("node \"n1\" (10.0.0.11): 10.0.0.11 does not answer ARP"));
    assert!(of(Reason::Loop, "S").contains("ip addr add 198.51.100.1/32 dev lo"));
    let elsewhere = Question { destination: address("203.0.113.9:80"), ..question("S") };
    let text = advice::advice(Reason::NotVirtual, &elsewhere, None, &names).unwrap();
    assert!(text.contains("VIPs of this family: 198.51.100.1"), "{text}");
    let answer = Question { source: address("10.0.0.11:80"), ..elsewhere };
    let text = advice::advice(Reason::NotVirtual, &answer, None, &names).unwrap();
    assert!(text.contains("10.0.0.11 is a node"), "{text}");
}

#[test]
fn the_interface_is_the_first_that_is_there_or_the_one_named() {
    let names = names();
    assert_eq!(interface(&names, None).unwrap().name, "eth0");
    assert_eq!(interface(&names, Some("eth1")).unwrap().name, "eth1");
    assert!(matches!(interface(&names, Some("gone")), Err(QueryError::Conflict(_))));
    assert!(matches!(interface(&names, Some("eth7")), Err(QueryError::NotFound(text)) if text.contains("eth0, eth1")));
    assert!(matches!(interface(&Names::default(), None), Err(QueryError::Conflict(_))));
}
