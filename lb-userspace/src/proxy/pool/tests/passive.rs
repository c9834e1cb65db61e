//! Passive monitoring: what takes a node out, and how it comes back.

use super::*;
use crate::control::proxy::{
    ProxyEvent,
    pool::{Failure, NodeChange, NodeEvent},
    rule::RuleEvent,
};

/// One way to fail.
fn fail(lease: &Lease, failure: Failure, now: Duration) {
    match failure {
        Failure::Connect => lease.connect_failed(ms(1), now),
        Failure::EarlyClose => lease.early_close(now),
        Failure::ReplyTimeout => lease.reply_timeout(ms(1), now),
        Failure::Status => lease.responded(500, ms(1), now),
    }
}

const FAILURES: [Failure; 4] = [Failure::Connect, Failure::EarlyClose, Failure::ReplyTimeout, Failure::Status];

/// Two nodes; each kind of failure takes a node out at the second in a row.
fn pool() -> PlanPool {
    let mut pool = plan_pool(Scheduler::RoundRobin, 2);
    pool.passive = Passive {
        node_fail_time: Duration::from_secs(10),
        connect_failures: 2,
        early_closes: 2,
        reply_timeouts: 2,
        statuses: vec![500, 502],
        status_failures: 2,
    };
    pool
}

/// A lease of that node.
fn of(bench: &mut Bench, name: &str) -> Lease {
    (0..100).map(|_| bench.choose().unwrap()).find(|lease| lease.node().name() == name).unwrap()
}

/// Takes n01 out.
fn take_out(bench: &mut Bench) {
    for _ in 0..2 {
        of(bench, "n01").connect_failed(ms(1), bench.now);
    }
    assert_eq!(bench.shares(10), BTreeMap::from([("n02".into(), 10)]));
}

#[test]
fn each_kind_counts_in_a_row_and_for_all_threads() {
    for failure in FAILURES {
        let mut bench = Bench::new(pool());
        let mut other = bench.sibling(1);
        fail(&of(&mut bench, "n01"), failure, START);
        assert_eq!(bench.shares(10).len(), 2, "{failure:?}: once is not enough");
        let lease = of(&mut bench, "n01");
        lease.connected();
        lease.responded(200, ms(1), START);
        fail(&of(&mut bench, "n01"), failure, START);
        assert_eq!(bench.shares(10).len(), 2, "{failure:?}: not in a row");
        fail(&of(&mut other, "n01"), failure, START);
        for bench in [&mut bench, &mut other] {
            assert_eq!(bench.shares(10), BTreeMap::from([("n02".into(), 10)]), "{failure:?}: out");
        }
        let out = NodeChange::Out { reason: failure, in_a_row: 2 };
        let event = NodeEvent { pool: "web".into(), node: "n01".into(), change: out };
        assert_eq!(bench.pools.shared().take_events(), (vec![ProxyEvent::Node(event)], 0), "{failure:?}");
    }
}

#[test]
fn kinds_do_not_add_up_and_can_be_off() {
    let mut bench = Bench::new(pool());
    let lease = of(&mut bench, "n01");
    for failure in FAILURES {
        fail(&lease, failure, START);
    }
    drop(lease);
    assert_eq!(bench.shares(10).len(), 2, "each once");
    for (name, change) in [
        ("time zero", Passive { node_fail_time: Duration::ZERO, ..pool().passive }),
        ("count zero", Passive { connect_failures: 0, ..pool().passive }),
    ] {
        let mut bench = Bench::new(PlanPool { passive: change, ..pool() });
        for _ in 0..10 {
            of(&mut bench, "n01").connect_failed(ms(1), START);
        }
        assert_eq!(bench.shares(10).len(), 2, "{name}");
    }
    let mut bench = Bench::new(pool());
    for _ in 0..10 {
        of(&mut bench, "n01").responded(503, ms(1), START);
    }
    assert_eq!(bench.shares(10).len(), 2, "a status that is not listed is an answer");
}

#[test]
fn after_its_time_one_request_tries_it() {
    let mut bench = Bench::new(pool());
    let mut other = bench.sibling(1);
    take_out(&mut bench);
    bench.after(ms(9_999));
    assert_eq!(bench.shares(10).len(), 1);
    bench.after(ms(1));
    other.now = bench.now;
    let probe = of(&mut bench, "n01");
    assert_eq!(bench.shares(10).len(), 1, "one at a time");
    assert_eq!(other.shares(10).len(), 1, "over all threads");
    probe.early_close(bench.now);
    drop(probe);
    assert_eq!(bench.shares(10).len(), 1, "one failure is enough on probation");
    bench.after(ms(10_000));
    let gave_up = of(&mut bench, "n01");
    drop(gave_up);
    let probe = of(&mut bench, "n01");
    probe.connected();
    assert_eq!(bench.shares(10).len(), 1, "a connection is no answer");
    probe.responded(200, ms(1), bench.now);
    assert_eq!(bench.shares(10).len(), 2, "it serves again while the probe is still open");
    drop(probe);
    assert_eq!(other.shares(10).len(), 2);
    let (events, _) = bench.pools.shared().take_events();
    let changes: Vec<_> = events
        .iter()
        .map(|event| match event {
            ProxyEvent::Node(event) => event.change,
            ProxyEvent::Rule(_) => unreachable!("no rule spoke"),
        })
        .collect();
    assert_eq!(
        changes,
        [NodeChange::Out { reason: Failure::Connect, in_a_row: 2 }, NodeChange::Back],
        "told once each"
    );
}

#[test]
fn without_a_live_node_those_that_are_out_are_tried_every_second() {
    let mut bench = Bench::new(pool());
    for name in ["n01", "n02"] {
        for _ in 0..2 {
            of(&mut bench, name).connect_failed(ms(1), bench.now);
        }
    }
    assert!(matches!(bench.choose(), Err(NoNode::Down)));
    bench.after(ms(1000));
    let probes = [bench.choose().unwrap(), bench.choose().unwrap()];
    assert!(matches!(bench.choose(), Err(NoNode::Down)), "one request for each node");
    probes[0].connect_failed(ms(1), bench.now);
    probes[1].responded(200, ms(1), bench.now);
    let (failed, well) = (probes[0].node().name().to_owned(), probes[1].node().name().to_owned());
    drop(probes);
    assert_eq!(
        bench.shares(10),
        BTreeMap::from([(well, 10)]),
        "back at once, and no longer a last resort for the other"
    );
    bench.after(ms(1000));
    assert_eq!(bench.shares(10).get(&failed), None);
}

#[test]
fn operators_and_monitors_bring_a_node_back() {
    let mut bench = Bench::new(pool());
    take_out(&mut bench);
    let shared = Arc::clone(bench.pools.shared());
    assert!(shared.bring_back("web", "n01", bench.now));
    assert!(!shared.bring_back("web", "n01", bench.now) && !shared.bring_back("web", "no", bench.now));
    assert_eq!(bench.shares(10).len(), 2, "an operator");
    take_out(&mut bench);
    bench.change(|pool| pool.nodes.get_mut("n01").unwrap().admission = Admission::Nothing);
    bench.change(|pool| pool.nodes.get_mut("n01").unwrap().admission = Admission::All);
    assert_eq!(bench.shares(10).len(), 2, "a monitor that saw it down and up");
    take_out(&mut bench);
    bench.change(|pool| pool.min_live_nodes = 1);
    assert_eq!(bench.shares(10).len(), 1, "any other change leaves it out");
}

#[test]
fn a_node_that_comes_back_starts_slowly() {
    let mut bench = Bench::new(pool());
    bench.change(|pool| pool.slow_start = Duration::from_secs(32));
    take_out(&mut bench);
    bench.after(ms(10_000));
    of(&mut bench, "n01").responded(200, ms(1), bench.now);
    let share = bench.shares(1000).get("n01").copied().unwrap_or(0);
    assert!(share < 60, "{share}");
    bench.after(ms(33_000));
    assert_eq!(bench.shares(1000)["n01"], 500);
}

#[test]
fn events_are_bounded() {
    let mut bench = Bench::new(pool());
    for _ in 0..600 {
        take_out(&mut bench);
        bench.pools.shared().bring_back("web", "n01", bench.now);
    }
    let (events, lost) = bench.pools.shared().take_events();
    assert_eq!((events.len(), lost), (1024, 176));
    assert_eq!(bench.pools.shared().take_events(), (vec![], 0));
    let event = RuleEvent {
        is_event: true,
        virtual_server: "site".into(),
        rule: "r".into(),
        request_id: String::new(),
        text: String::new(),
    };
    for _ in 0..1100 {
        bench.pools.shared().tell(event.clone());
    }
    take_out(&mut bench);
    let (events, lost) = bench.pools.shared().take_events();
    assert_eq!((events.len(), lost), (1025, 76), "rules that talk keep no node's event out");
    assert!(matches!(events.last(), Some(ProxyEvent::Node(_))));
}
