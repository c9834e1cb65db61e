//! Choosing at all: every scheduler serves, nodes that take nothing get nothing, failure pools take over.

use super::*;

#[test]
fn every_scheduler_serves_and_keeps_to_admission_and_tried_nodes() {
    for scheduler in SCHEDULERS {
        let mut bench = Bench::new(plan_pool(scheduler.clone(), 5));
        bench.change(|pool| {
            pool.nodes.get_mut("n02").unwrap().admission = Admission::Nothing;
            pool.nodes.get_mut("n04").unwrap().admission = Admission::Tracked;
        });
        let mut tried = NodeSet::default();
        let mut names = Vec::new();
        let end = loop {
            match bench.choose_but(&tried) {
                Ok(lease) => {
                    tried.insert(lease.node().id());
                    names.push(lease.node().name().to_owned());
                }
                Err(none) => break none,
            }
        };
        names.sort();
        assert_eq!(names, ["n01", "n03", "n05"], "{scheduler:?}: each live node once");
        assert!(matches!(end, NoNode::AllTried), "{scheduler:?}: {end:?}");
    }
}

#[test]
fn open_requests_are_counted_and_given_back() {
    let mut bench = Bench::new(plan_pool(Scheduler::LeastConnections, 2));
    let leases: Vec<Lease> = (0..5).map(|_| bench.choose().unwrap()).collect();
    let open =
        |bench: &Bench| -> Vec<u32> { bench.pools.pool(bench.web()).unwrap().nodes().iter().map(Node::open).collect() };
    assert_eq!(open(&bench), [3, 2]);
    bench.change(|_| ());
    assert_eq!(open(&bench), [3, 2], "a new plan forgets nothing");
    drop(leases);
    assert_eq!(open(&bench), [0, 0], "leases of the old plan count in the new one");
}

#[test]
fn failure_pools_serve_while_no_node_is_live() {
    let mut web = plan_pool(Scheduler::RoundRobin, 1);
    web.failure_pool = Some("sorry".to_owned());
    let mut sorry = plan_pool(Scheduler::RoundRobin, 0);
    sorry.nodes.insert("s".to_owned(), plan_node(99));
    sorry.failure_pool = Some("web".to_owned());
    let mut bench = Bench::of(plan_of([("web", web), ("sorry", sorry)]));
    assert_eq!(bench.choose().unwrap().pool().name(), "web");
    bench.change(|pool| pool.nodes.get_mut("n01").unwrap().admission = Admission::Nothing);
    let lease = bench.choose().unwrap();
    assert_eq!((lease.pool().name(), lease.node().name()), ("sorry", "s"));
    bench.plan.pools.get_mut("sorry").unwrap().nodes.clear();
    bench.change(|_| ());
    assert!(matches!(bench.choose(), Err(NoNode::Down)), "pools that fail over to each other end");
}
