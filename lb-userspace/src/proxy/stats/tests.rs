//! Counters added up over threads, kept over plans, and shown.

use super::*;

#[test]
fn threads_are_added_up() {
    let stats = Stats::new(2);
    for (thread, status) in [(0, 200), (0, 204), (1, 503), (1, 0), (1, 799)] {
        let thread = stats.thread(thread).unwrap();
        thread.virtual_server("web").finish(status, Duration::from_millis(3), 100, 1000);
        thread.pool("app").requests.add(status);
        thread.node("app", "a").time_to_head.record(Duration::from_millis(2));
    }
    stats.thread(0).unwrap().virtual_server("web").connections.enter();
    stats.thread(1).unwrap().virtual_server("web").connections.enter();
    stats.thread(1).unwrap().virtual_server("web").connections.leave();
    stats.thread(1).unwrap().virtual_server("web").refuse(Refused::Rate);
    stats.thread(0).unwrap().virtual_server("web").refuse(Refused::Internal);
    let snapshot = stats.snapshot();
    let web = &snapshot.virtual_servers["web"];
    assert_eq!((web.requests, web.bytes_received, web.bytes_sent), ([2, 0, 2, 0, 0, 1], 500, 5000));
    assert_eq!((web.duration.count(), web.connections), (5, 1));
    assert_eq!(web.refused, BTreeMap::from([("rate".to_owned(), 1), ("internal".to_owned(), 1)]));
    assert_eq!(snapshot.pools["app"].requests, [2, 0, 2, 0, 0, 1]);
    assert_eq!(snapshot.nodes["app"]["a"].time_to_head.count(), 5);
    assert!(stats.thread(2).is_none());
}

#[test]
fn of_a_scope_only_what_is_in_it_is_told() {
    let stats = Stats::new(2);
    for thread in [0, 1].map(|thread| stats.thread(thread).unwrap()) {
        for name in ["a", "b"] {
            thread.virtual_server(name).accepted.add(1);
            thread.pool(name).retries.add(1);
            thread.node(name, "n").connected.add(1);
            thread.rules(name, ["r"].into_iter())[0].add(1);
        }
    }
    let all = stats.snapshot();
    assert_eq!(all.nodes["b"]["n"].connected, 2);
    let one = |of: &str| [of.to_owned()].into();
    let part = stats.snapshot_of(&Scope::Of { virtual_servers: one("a"), pools: one("b") });
    assert_eq!(part.virtual_servers, BTreeMap::from([("a".to_owned(), all.virtual_servers["a"].clone())]));
    assert_eq!(part.rules, BTreeMap::from([("a".to_owned(), all.rules["a"].clone())]));
    assert_eq!(part.pools, BTreeMap::from([("b".to_owned(), all.pools["b"].clone())]));
    assert_eq!(part.nodes, BTreeMap::from([("b".to_owned(), all.nodes["b"].clone())]));
    let servers = stats.snapshot_of(&Scope::VirtualServers);
    assert_eq!((&servers.virtual_servers, &servers.rules), (&all.virtual_servers, &all.rules));
    assert!(servers.pools.is_empty() && servers.nodes.is_empty());
    // What is known already stays when a part is told anew.
    let thread = stats.thread(0).unwrap();
    thread.virtual_server("a").accepted.add(1);
    thread.node("b", "n").connected.add(1);
    let mut known = all;
    known.update(&stats.snapshot_of(&Scope::Of { virtual_servers: one("a"), pools: one("b") }));
    assert_eq!(known, stats.snapshot());
}

#[test]
fn rules_keep_their_counters_when_others_come_and_go() {
    let stats = Stats::new(1);
    let thread = stats.thread(0).unwrap();
    let before = thread.rules("web", ["a", "b"].into_iter());
    before[1].add(3);
    let after = thread.rules("web", ["new", "b"].into_iter());
    after[1].add(1);
    assert_eq!(stats.snapshot().rules["web"]["b"], 4);
    assert_eq!(thread.rules("other", ["b"].into_iter())[0].read(), 0);
}

#[test]
fn what_is_not_in_the_plan_is_forgotten() {
    let stats = Stats::new(1);
    let thread = stats.thread(0).unwrap();
    let held = thread.virtual_server("gone");
    let _ = (thread.pool("gone"), thread.node("gone", "a"), thread.rules("gone", ["r"].into_iter()));
    stats.retain(&ProxyPlan::default());
    held.accepted.add(1);
    assert_eq!(stats.snapshot(), Snapshot::default());
}

#[test]
fn every_refusal_has_its_own_counter_and_word() {
    let stats = VirtualServerStats::default();
    let mut words = BTreeSet::new();
    for (position, why) in Refused::ALL.iter().enumerate() {
        stats.refuse(*why);
        assert_eq!(stats.refused[position].read(), 1, "{why:?}");
        assert!(words.insert(why.name()), "{why:?}");
    }
}
