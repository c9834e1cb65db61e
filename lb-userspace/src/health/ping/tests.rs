//! Which answers belong to which pings.

use super::*;

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));
const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const ATTEMPT: Attempt = Attempt { check: crate::health::schedule::CheckId(3), number: 5 };

#[test]
fn only_the_node_or_a_router_that_quotes_the_request_answers() {
    let reply = Answer { identifier: 1, sequence: 9, token: [7; 16], quoted: None, unreachable: None };
    let gone = Answer { quoted: Some(NODE), unreachable: Some("no route to host"), ..reply };
    let failed = Outcome::Failed("no route to host".into());
    let cases = [
        ("reply", reply, NODE, Some(Outcome::Answered)),
        ("reply from another address", reply, ROUTER, None),
        ("reply to another request", Answer { sequence: 8, ..reply }, NODE, None),
        ("reply with another token", Answer { token: [8; 16], ..reply }, NODE, None),
        ("unreachable, says a router", gone, ROUTER, Some(failed)),
        ("unreachable, about another address", Answer { quoted: Some(ROUTER), ..gone }, ROUTER, None),
        ("unreachable, token guessed", Answer { token: [8; 16], ..gone }, ROUTER, None),
    ];
    for (name, answer, from, expected) in cases {
        let mut pending = HashMap::from([(9, Pending { attempt: ATTEMPT, address: NODE, token: [7; 16] })]);
        let accepted = accept(&mut pending, answer, from);
        assert_eq!(pending.is_empty(), expected.is_some(), "{name}: waits on after a wrong answer only");
        assert_eq!(accepted, expected.map(|outcome| (ATTEMPT, outcome)), "{name}");
    }
}

#[test]
fn a_sequence_number_in_use_is_passed_over() {
    let mut family = Family { next_sequence: u16::MAX, ..Family::default() };
    let pending = Pending { attempt: ATTEMPT, address: NODE, token: [0; 16] };
    family.pending.insert(u16::MAX, pending);
    family.pending.insert(0, pending);
    assert_eq!(family.free_sequence(), Some(1));
    family.pending.extend((0..=u16::MAX).map(|sequence| (sequence, pending)));
    assert_eq!(family.free_sequence(), None);
}
