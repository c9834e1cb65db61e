//! Schedulers: who gets how much.

use super::*;

/// Weights 1, 2, 5 for n01, n02, n03.
fn weighted(scheduler: Scheduler) -> PlanPool {
    let mut pool = plan_pool(scheduler, 3);
    for (name, weight) in [("n02", 2), ("n03", 5)] {
        pool.nodes.get_mut(name).unwrap().weight = weight;
    }
    pool
}

/// Node of each of `keys` client addresses.
fn nodes_by_key(bench: &mut Bench, keys: u32) -> Vec<String> {
    (0..keys)
        .map(|key| {
            bench.request = TestRequest::from((0x0a00_0000 + key * 7).to_be_bytes());
            bench.choose().unwrap().node().name().to_owned()
        })
        .collect()
}

#[test]
fn round_robin_goes_in_turn_and_threads_begin_apart() {
    let mut bench = Bench::new(weighted(Scheduler::RoundRobin));
    assert_eq!(bench.names(6), ["n01", "n02", "n03", "n01", "n02", "n03"], "weights do not count");
    let firsts: Vec<_> = (0..3)
        .map(|index| {
            let thread = Thread { index, count: 3 };
            let pools = Pools::compile(&bench.plan, bench.pools.shared(), None, thread, START);
            let lease = pools.choose(bench.web(), &bench.request, &NodeSet::default(), START, 0).unwrap();
            lease.node().name().to_owned()
        })
        .collect();
    assert_eq!(firsts, ["n01", "n02", "n03"]);
}

#[test]
fn weighted_round_robin_is_exact_and_smooth() {
    let mut bench = Bench::new(weighted(Scheduler::WeightedRoundRobin));
    assert_eq!(bench.names(8), ["n03", "n02", "n03", "n01", "n03", "n03", "n02", "n03"]);
    assert_eq!(bench.shares(800), BTreeMap::from([("n01".into(), 100), ("n02".into(), 200), ("n03".into(), 500)]));
    let pools = Pools::compile(&bench.plan, bench.pools.shared(), None, Thread { index: 1, count: 2 }, START);
    let lease = pools.choose(bench.web(), &bench.request, &NodeSet::default(), START, 0).unwrap();
    assert_eq!(lease.node().name(), "n02", "another thread begins elsewhere in the sequence");
}

#[test]
fn least_connections_takes_the_fewest_and_equals_in_turn() {
    let mut bench = Bench::new(plan_pool(Scheduler::LeastConnections, 3));
    assert_eq!(bench.names(4), ["n01", "n02", "n03", "n01"], "equals in turn");
    let mut held: Vec<Lease> = (0..6).map(|_| bench.choose().unwrap()).collect();
    held.retain(|lease| lease.node().name() != "n02");
    assert_eq!(bench.choose().unwrap().node().name(), "n02");
    assert_eq!(bench.choose().unwrap().node().name(), "n02", "the first was given back");
}

#[test]
fn weighted_least_connections_fills_by_weight() {
    for scheduler in [Scheduler::WeightedLeastConnections, Scheduler::RandomOfTwo] {
        let mut bench = Bench::new(weighted(scheduler.clone()));
        let held: Vec<Lease> = (0..800).map(|_| bench.choose().unwrap()).collect();
        let count = |name: &str| held.iter().filter(|lease| lease.node().name() == name).count();
        for (name, expected) in [("n01", 100), ("n02", 200), ("n03", 500)] {
            let got = count(name);
            assert!(got.abs_diff(expected) <= expected / 10, "{scheduler:?} {name}: {got}");
        }
    }
}

#[test]
fn two_random_choices_beat_one() {
    let mut bench = Bench::new(plan_pool(Scheduler::RandomOfTwo, 20));
    let held: Vec<Lease> = (0..2000).map(|_| bench.choose().unwrap()).collect();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for lease in &held {
        *open.entry(lease.node().name()).or_default() += 1;
    }
    assert_eq!(open.len(), 20);
    // One random choice spreads by about ±3 × √100.
    assert!(open.values().all(|count| (95..=105).contains(count)), "{open:?}");
}

#[test]
fn the_fastest_serves_until_it_is_not() {
    let mut bench = Bench::new(plan_pool(Scheduler::FastestResponse, 3));
    let time = |name: &str| {
        ms(match name {
            "n01" => 30,
            "n02" => 10,
            _ => 20,
        })
    };
    let answer = |bench: &mut Bench| {
        let lease = bench.choose().unwrap();
        let name = lease.node().name().to_owned();
        lease.responded(200, time(&name), bench.now);
        name
    };
    let mut first: Vec<_> = (0..3).map(|_| answer(&mut bench)).collect();
    first.sort();
    assert_eq!(first, ["n01", "n02", "n03"], "each is asked before any is compared");
    assert!((0..20).all(|_| answer(&mut bench) == "n02"));
    bench.choose_but(&NodeSet::default()).unwrap().responded(200, ms(500), bench.now);
    assert_eq!(answer(&mut bench), "n03", "one slow answer counts at once");
    let mut asked_again = false;
    for _ in 0..600 {
        bench.after(ms(100));
        asked_again |= answer(&mut bench) == "n02";
    }
    assert!(asked_again, "its figure fades");
}

#[test]
fn a_node_that_never_answered_is_not_flooded() {
    for scheduler in [Scheduler::FastestResponse, Scheduler::Perceptive] {
        let mut bench = Bench::new(plan_pool(scheduler.clone(), 2));
        for _ in 0..2 {
            bench.choose().unwrap().responded(200, ms(5), bench.now);
        }
        bench.change(|pool| {
            pool.nodes.insert("n03".to_owned(), plan_node(3));
        });
        let held: Vec<Lease> = (0..10).map(|_| bench.choose().unwrap()).collect();
        let new = held.iter().filter(|lease| lease.node().name() == "n03").count();
        assert_eq!(new, 1, "{scheduler:?}: one request until it answers");
    }
}

#[test]
fn perceptive_weighs_time_by_open_requests() {
    let mut bench = Bench::new(plan_pool(Scheduler::Perceptive, 2));
    for _ in 0..2 {
        let lease = bench.choose().unwrap();
        let time = if lease.node().name() == "n01" { ms(10) } else { ms(40) };
        lease.responded(200, time, bench.now);
    }
    let held: Vec<Lease> = (0..100).map(|_| bench.choose().unwrap()).collect();
    let fast = held.iter().filter(|lease| lease.node().name() == "n01").count();
    assert!((78..=82).contains(&fast), "four times as fast, four times as many: {fast}");
}

#[test]
fn consistent_hash_is_stable_over_threads_and_machines() {
    let mut bench = Bench::new(plan_pool(BY_ADDRESS, 10));
    let here = nodes_by_key(&mut bench, 500);
    assert_eq!(here, nodes_by_key(&mut bench.sibling(3), 500), "another thread");
    assert_eq!(here, nodes_by_key(&mut Bench::new(plan_pool(BY_ADDRESS, 10)), 500), "another machine");
    let mut plan = plan_of([("web", plan_pool(BY_ADDRESS, 10))]);
    plan.secret = Secret([8; 32]);
    assert_ne!(here, nodes_by_key(&mut Bench::of(plan), 500), "who does not know the secret cannot steer keys");
}

#[test]
fn consistent_hash_follows_weights() {
    let mut bench = Bench::new(weighted(BY_ADDRESS));
    let nodes = nodes_by_key(&mut bench, 16_000);
    for (name, expected) in [("n01", 2_000usize), ("n02", 4_000), ("n03", 10_000)] {
        let got = nodes.iter().filter(|node| *node == name).count();
        assert!(got.abs_diff(expected) <= expected / 15, "{name}: {got}");
    }
}

#[test]
fn consistent_hash_moves_only_the_keys_of_a_lost_node() {
    let mut bench = Bench::new(plan_pool(BY_ADDRESS, 10));
    let before = nodes_by_key(&mut bench, 5_000);
    bench.change(|pool| pool.nodes.get_mut("n04").unwrap().admission = Admission::Nothing);
    let down = nodes_by_key(&mut bench, 5_000);
    assert!(before.iter().zip(&down).all(|(b, d)| b == d || b == "n04"), "down: no other key moves");
    let heirs: std::collections::BTreeSet<_> =
        before.iter().zip(&down).filter(|(b, _)| *b == "n04").map(|(_, d)| d).collect();
    assert_eq!(heirs.len(), 9, "its keys spread over all others");
    bench.change(|pool| {
        pool.nodes.remove("n04");
    });
    let removed = nodes_by_key(&mut bench, 5_000);
    let moved = before.iter().zip(&removed).filter(|(b, r)| b != r && *b != "n04").count();
    assert!(moved < 100, "removed: {moved} of 5000 other keys move");
}

#[test]
fn requests_without_the_key_go_in_turn() {
    let mut bench = Bench::new(plan_pool(Scheduler::ConsistentHash(Key::Header("x-user".to_owned())), 3));
    assert_eq!(bench.names(3), ["n01", "n02", "n03"]);
    bench.request = bench.request.clone().with("x-user", "anna");
    let names = bench.names(5);
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[test]
fn bounded_load_moves_a_hot_key_on() {
    let mut bench = Bench::new(plan_pool(BY_ADDRESS, 4));
    bench.change(|pool| pool.hash_load_percent = 125);
    let held: Vec<Lease> = (0..100).map(|_| bench.choose().unwrap()).collect();
    for node in bench.pools.pool(bench.web()).unwrap().nodes() {
        assert!(node.open() <= 32, "one key: {} has {}", node.name(), node.open());
    }
    drop(held);
    let names = bench.names(10);
    assert!(names.iter().all(|name| *name == names[0]), "without load the key has one node: {names:?}");
}

#[test]
fn a_new_node_starts_slowly() {
    let cases = [
        (Scheduler::RoundRobin, 1),
        (Scheduler::WeightedRoundRobin, 1),
        (BY_ADDRESS, 2),
        (Scheduler::WeightedLeastConnections, 0),
    ];
    for (scheduler, kind) in cases {
        let mut bench = Bench::new(plan_pool(scheduler.clone(), 3));
        bench.change(|pool| pool.slow_start = Duration::from_secs(32));
        assert!(bench.shares(300).len() == 3 || kind == 2, "{scheduler:?}: nodes that were there have their share");
        bench.change(|pool| {
            pool.nodes.insert("n04".to_owned(), plan_node(4));
        });
        let mut last = 0;
        for (at, expected) in [(ms(0), 8), (ms(8_000), 80), (ms(24_000), 200), (ms(33_000), 250)] {
            bench.now = START + at;
            let share = match kind {
                1 => *bench.shares(1000).get("n04").unwrap_or(&0),
                2 => nodes_by_key(&mut bench, 1000).iter().filter(|name| *name == "n04").count(),
                _ => {
                    let held: Vec<Lease> = (0..1000).map(|_| bench.choose().unwrap()).collect();
                    held.iter().filter(|lease| lease.node().name() == "n04").count()
                }
            };
            assert!(share.abs_diff(expected) <= 20 + expected / 5, "{scheduler:?} after {at:?}: {share}");
            assert!(share >= last, "{scheduler:?}: it grows");
            last = share;
        }
    }
}

#[test]
fn priority_groups_join_until_enough_are_live() {
    // Priorities: n01 and n02 3, n03 2, n04 1.
    let cases: [(u32, &[&str], &[&str]); 8] = [
        (0, &[], &["n01", "n02", "n03", "n04"]),
        (1, &[], &["n01", "n02"]),
        (2, &[], &["n01", "n02"]),
        (3, &[], &["n01", "n02", "n03"]),
        (1, &["n01"], &["n02"]),
        (2, &["n01"], &["n02", "n03"]),
        (1, &["n01", "n02"], &["n03"]),
        (9, &["n03"], &["n01", "n02", "n04"]),
    ];
    for (least, down, expected) in cases {
        let mut pool = plan_pool(Scheduler::RoundRobin, 4);
        pool.min_live_nodes = least;
        for (name, priority) in [("n01", 3), ("n02", 3), ("n03", 2)] {
            pool.nodes.get_mut(name).unwrap().priority = priority;
        }
        for name in down {
            pool.nodes.get_mut(*name).unwrap().admission = Admission::Nothing;
        }
        let shares = Bench::new(pool).shares(40);
        assert_eq!(shares.keys().map(String::as_str).collect::<Vec<_>>(), expected, "least {least}, down {down:?}");
    }
}
