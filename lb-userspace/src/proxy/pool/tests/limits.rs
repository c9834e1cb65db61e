//! Limits of connections over threads, and the queue before them.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    task::{Context, Poll, Wake, Waker},
    thread,
};

use super::*;
use crate::control::proxy::pool::{NodeGone, Persistence, PersistenceKind};

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Whether the ticket is called; `bell` rings when it is later.
fn is_called(ticket: &mut Ticket, bell: &Arc<Bell>) -> bool {
    let waker = Waker::from(Arc::clone(bell));
    pin!(ticket).poll(&mut Context::from_waker(&waker)) == Poll::Ready(())
}

/// Nodes with `most` connections each, and room for `queue` that wait.
fn limited(nodes: u8, most: u32, queue: u32) -> PlanPool {
    let mut pool = plan_pool(Scheduler::RoundRobin, nodes);
    pool.nodes.values_mut().for_each(|node| node.max_connections = most);
    pool.queue = queue;
    pool
}

fn ticket(chosen: Result<Lease, NoNode>) -> Ticket {
    match chosen {
        Err(NoNode::Busy(Some(ticket))) => ticket,
        other => panic!("no ticket: {other:?}"),
    }
}

fn choose_with(bench: &mut Bench, ticket: Ticket) -> Result<Lease, NoNode> {
    let random = bench.random();
    bench.pools.choose_with(ticket, bench.web(), &bench.request, &NodeSet::default(), bench.now, random)
}

#[test]
fn limits_hold_over_threads() {
    let mut bench = Bench::new(limited(2, 3, 0));
    let mut other = bench.sibling(1);
    let mut held: Vec<Lease> = (0..4).map(|_| bench.choose().unwrap()).collect();
    held.extend((0..2).map(|_| other.choose().unwrap()));
    assert!(matches!(bench.choose(), Err(NoNode::Busy(None))));
    assert!(matches!(other.choose(), Err(NoNode::Busy(None))));
    let freed = held.swap_remove(0).node().name().to_owned();
    assert_eq!(other.choose().unwrap().node().name(), freed);
}

#[test]
fn a_limit_that_is_new_does_not_count_old_leases() {
    let mut bench = Bench::new(limited(1, 0, 0));
    let old = bench.choose().unwrap();
    bench.change(|pool| pool.nodes.get_mut("n01").unwrap().max_connections = 1);
    let new = bench.choose().unwrap();
    drop(old);
    assert!(matches!(bench.choose(), Err(NoNode::Busy(None))), "an old lease gives back nothing that it did not take");
    drop(new);
    assert!(bench.choose().is_ok());
}

#[test]
fn who_waits_is_served_in_order() {
    let mut bench = Bench::new(limited(1, 1, 2));
    let held = bench.choose().unwrap();
    let (mut first, mut second) = (ticket(bench.choose()), ticket(bench.choose()));
    assert!(matches!(bench.choose(), Err(NoNode::Busy(None))), "the queue is full");
    assert_eq!(first.deadline(), START + ms(5000));
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    assert!(!is_called(&mut first, &bells[0]) && !is_called(&mut second, &bells[1]));
    drop(held);
    assert_eq!((bells[0].0.load(SeqCst), bells[1].0.load(SeqCst)), (1, 0));
    assert!(is_called(&mut first, &bells[0]));
    assert!(matches!(bench.choose(), Err(NoNode::Busy(_))), "who comes now does not go before");
    let lease = choose_with(&mut bench, first).unwrap();
    assert!(!is_called(&mut second, &bells[1]));
    drop(lease);
    assert!(is_called(&mut second, &bells[1]));
    drop(choose_with(&mut bench, second).unwrap());
    assert!(bench.choose().is_ok(), "the queue is empty");
}

#[test]
fn a_call_that_nobody_answers_goes_on() {
    let mut bench = Bench::new(limited(1, 1, 9));
    let held = bench.choose().unwrap();
    let tickets: Vec<Ticket> = (0..3).map(|_| ticket(bench.choose())).collect();
    drop(held);
    let mut tickets = tickets.into_iter();
    let bell = Arc::new(Bell::default());
    drop(tickets.next());
    drop(tickets.next());
    let mut last = tickets.next().unwrap();
    assert!(is_called(&mut last, &bell));
    assert!(choose_with(&mut bench, last).is_ok());
}

#[test]
fn a_ticket_keeps_its_place_when_another_was_quicker() {
    let mut bench = Bench::new(limited(1, 1, 9));
    let held = bench.choose().unwrap();
    let (mut first, mut second) = (ticket(bench.choose()), ticket(bench.choose()));
    let bell = Arc::new(Bell::default());
    assert!(!is_called(&mut first, &bell));
    // Nothing is free: a wake-up without reason.
    let mut first = ticket(choose_with(&mut bench, first));
    assert!(!is_called(&mut first, &bell));
    second = ticket(choose_with(&mut bench, second));
    drop(held);
    assert!(is_called(&mut first, &bell) && !is_called(&mut second, &bell));
}

#[test]
fn nodes_that_come_back_serve_who_waits() {
    let mut bench = Bench::new(limited(2, 1, 9));
    bench.change(|pool| pool.nodes.get_mut("n02").unwrap().admission = Admission::Nothing);
    let _held = bench.choose().unwrap();
    let mut first = ticket(bench.choose());
    let bell = Arc::new(Bell::default());
    bench.pools.tick();
    assert!(!is_called(&mut first, &bell), "nothing is free");
    bench.change(|pool| pool.nodes.get_mut("n02").unwrap().admission = Admission::All);
    assert!(is_called(&mut first, &bell), "a new plan calls");
    let lease = choose_with(&mut bench, first).unwrap();
    assert_eq!(lease.node().name(), "n02");
}

#[test]
fn a_persistent_client_waits_for_its_node_and_others_pass() {
    let mut pool = limited(2, 1, 2);
    let kind = PersistenceKind::SourceAddress { prefix4: 32, prefix6: 64 };
    pool.persistence =
        Some(Persistence { kind, timeout: ms(60_000), max_entries: 100, node_gone: NodeGone::ChooseAnew });
    let mut bench = Bench::new(pool);
    let client = |last: u8| TestRequest::from([10, 0, 0, last]);
    bench.request = client(1);
    let held = bench.choose().unwrap();
    let own = held.node().name().to_owned();
    let mut waits = ticket(bench.choose());
    bench.request = client(2);
    let other = bench.choose().unwrap();
    assert_ne!(other.node().name(), own);
    let mut any = ticket({
        bench.request = client(3);
        bench.choose()
    });
    let bell = Arc::new(Bell::default());
    drop(other);
    assert!(!is_called(&mut waits, &bell), "not its node");
    assert!(is_called(&mut any, &bell), "behind it, but it can use the node");
    let _any = choose_with(&mut bench, any).unwrap();
    drop(held);
    assert!(is_called(&mut waits, &bell));
    bench.request = client(4);
    drop(ticket(bench.choose()));
    bench.request = client(1);
    let lease = choose_with(&mut bench, waits).unwrap();
    assert_eq!(lease.node().name(), own, "a newcomer did not take it");
    let _full = (ticket(bench.choose()), ticket(bench.choose()));
    assert!(matches!(bench.choose(), Err(NoNode::Busy(None))), "no room to wait, and none elsewhere");
}

#[test]
fn strangers_who_came_first_go_before_persistent_clients() {
    let mut pool = limited(1, 1, 9);
    let kind = PersistenceKind::SourceAddress { prefix4: 32, prefix6: 64 };
    pool.persistence =
        Some(Persistence { kind, timeout: ms(60_000), max_entries: 100, node_gone: NodeGone::ChooseAnew });
    let mut bench = Bench::new(pool);
    let (known, stranger) = (TestRequest::from([10, 0, 0, 1]), TestRequest::from([10, 0, 0, 2]));
    bench.request = known.clone();
    let held = bench.choose().unwrap();
    bench.request = stranger;
    let mut first = ticket(bench.choose());
    bench.request = known;
    let mut second = ticket(bench.choose());
    drop(held);
    let bell = Arc::new(Bell::default());
    assert!(is_called(&mut first, &bell) && !is_called(&mut second, &bell));
    bench.request = TestRequest::from([10, 0, 0, 2]);
    let lease = choose_with(&mut bench, first).unwrap();
    drop(lease);
    assert!(is_called(&mut second, &bell));
}

#[test]
fn a_full_queue_sends_persistent_clients_elsewhere_for_once() {
    let mut pool = limited(2, 1, 0);
    let kind = PersistenceKind::SourceAddress { prefix4: 32, prefix6: 64 };
    pool.persistence =
        Some(Persistence { kind, timeout: ms(60_000), max_entries: 100, node_gone: NodeGone::ChooseAnew });
    let mut bench = Bench::new(pool);
    let held = bench.choose().unwrap();
    let own = held.node().name().to_owned();
    assert_ne!(bench.choose().unwrap().node().name(), own);
    drop(held);
    assert_eq!(bench.choose().unwrap().node().name(), own, "it keeps its node");
}

#[test]
fn of_many_that_take_at_once_only_as_many_as_may_get_one() {
    let shared = Shared::new();
    let node = shared.node(&shared.pool("web"), "n01");
    let got: usize = thread::scope(|scope| {
        let take = || (0..1000).filter(|_| node.take(5)).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(got, 5);
    node.give_back();
    assert!(node.take(5) && !node.take(5));
}

/// Threads that take and give back nodes as fast as they can: limits are never passed, and nobody waits forever.
#[test]
fn threads_keep_limits_and_lose_no_call() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 3_000;
    let plan = plan_of([("web", limited(2, 1, 100))]);
    let shared = Shared::new();
    let busy: [AtomicU32; 2] = Default::default();
    thread::scope(|scope| {
        for index in 0..THREADS {
            let (plan, shared, busy) = (&plan, &shared, &busy);
            scope.spawn(move || {
                let thread = Thread { index, count: THREADS };
                let pools = Pools::compile(plan, shared, None, thread, START);
                let (id, request, none) =
                    (pools.id("web").unwrap(), TestRequest::from([1, 2, 3, 4]), NodeSet::default());
                let waker = Waker::from(Arc::new(Parked(thread::current())));
                for round in 0..ROUNDS {
                    let mut chosen = pools.choose(id, &request, &none, START, round as u64);
                    let lease = loop {
                        match chosen {
                            Ok(lease) => break lease,
                            Err(NoNode::Busy(Some(mut ticket))) => {
                                let mut waits = 0;
                                while pin!(&mut ticket).poll(&mut Context::from_waker(&waker)).is_pending() {
                                    // Wakers may ring once too often; a call that is lost never comes.
                                    waits += 1;
                                    assert!(waits < 5, "no call");
                                    thread::park_timeout(Duration::from_secs(20));
                                }
                                chosen = pools.choose_with(ticket, id, &request, &none, START, round as u64);
                            }
                            Err(other) => panic!("{other:?}"),
                        }
                    };
                    let node = &busy[lease.node().id().index()];
                    assert_eq!(node.fetch_add(1, SeqCst), 0, "two at a node that takes one");
                    node.fetch_sub(1, SeqCst);
                }
            });
        }
    });
    let pool = shared.pool("web");
    assert_eq!((pool.queue.waiting(), pool.queue.waiting_for_any()), (0, 0));
}

struct Parked(thread::Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
