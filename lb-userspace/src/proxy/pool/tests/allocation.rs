//! A choice allocates nothing, whatever the scheduler and where the client comes from.

use super::*;
use crate::control::proxy::pool::{NodeGone, Persistence, PersistenceKind};

/// Allocations of a thousand requests that succeed, after the first few.
fn allocations(bench: &mut Bench) -> u64 {
    let serve = |bench: &mut Bench| {
        for _ in 0..1000 {
            let lease = bench.choose().unwrap();
            lease.connected();
            lease.responded(200, ms(3), bench.now);
            assert_eq!(
                lease.learn(["sid=abc"], None, bench.now).is_some(),
                lease.watches_response() && is_cookie(bench)
            );
        }
    };
    serve(bench);
    allocation_counter::measure(|| serve(bench)).count_total
}

fn is_cookie(bench: &Bench) -> bool {
    let persistence = bench.plan.pools["web"].persistence.as_ref();
    persistence.is_some_and(|persistence| matches!(persistence.kind, PersistenceKind::Cookie { .. }))
}

#[test]
fn choices_allocate_nothing() {
    let kinds = [
        PersistenceKind::SourceAddress { prefix4: 32, prefix6: 64 },
        PersistenceKind::Cookie { name: "lb".to_owned(), attributes: String::new() },
        PersistenceKind::ApplicationCookie("sid".to_owned()),
        PersistenceKind::Jsession,
        PersistenceKind::Header("x-user".to_owned()),
    ];
    for scheduler in SCHEDULERS {
        let mut pool = plan_pool(scheduler.clone(), 10);
        pool.nodes.values_mut().for_each(|node| node.max_connections = 100);
        assert_eq!(allocations(&mut Bench::new(pool)), 0, "{scheduler:?}");
    }
    for kind in kinds {
        let mut pool = plan_pool(Scheduler::RoundRobin, 10);
        let timeout = Duration::from_secs(600);
        pool.persistence =
            Some(Persistence { kind: kind.clone(), timeout, max_entries: 1000, node_gone: NodeGone::ChooseAnew });
        let mut bench = Bench::new(pool);
        bench.request = bench.request.clone().with("cookie", "sid=abc; JSESSIONID=1.n03").with("x-user", "anna");
        assert_eq!(allocations(&mut bench), 0, "{kind:?}");
    }
}
