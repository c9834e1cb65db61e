//! When checks start, and how many at a time.

use std::collections::HashMap;

use super::*;
use crate::control::{probe::Greeting, view::Health};

const DELAY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

fn settings(kind: Kind) -> Settings {
    Settings { kind, delay: DELAY, timeout: TIMEOUT, failures: 1, successes: 1 }
}

fn ping() -> Settings {
    settings(Kind::Ping)
}

fn tcp() -> Settings {
    settings(Kind::Tcp)
}

fn target(node: usize, settings: Settings) -> Target {
    let address = SocketAddr::from(([10, 0, (node >> 8) as u8, node as u8], 80));
    Target { pool: "web".into(), node: format!("n{node}"), address, monitor: "m".into(), settings }
}

fn key(target: &Target) -> Key {
    (target.pool.clone(), target.node.clone(), target.monitor.clone())
}

/// The first check of each target begins within a second.
fn started(targets: Vec<Target>, max_connections: usize, now: Instant) -> (Schedule, Step) {
    assert!(targets.len() <= TICK_LIMIT);
    let mut schedule = Schedule::new(Limits { connections: max_connections, processes: 1 });
    assert_eq!(schedule.set(targets, now), Step::default());
    let step = schedule.tick(now + Duration::from_secs(1));
    (schedule, step)
}

#[test]
fn ten_thousand_checks_spread_out_and_none_is_late() {
    let begin = Instant::now();
    let mut schedule = Schedule::new(Limits { connections: 10_000, processes: 1 });
    schedule.set((0..10_000).map(|node| target(node, ping())).collect(), begin);
    let mut last: HashMap<CheckId, Instant> = HashMap::new();
    let mut begun_in_slot = vec![0; 400];
    let mut under_way: VecDeque<(Instant, Attempt)> = VecDeque::new();
    let end = begin + Duration::from_secs(40);
    loop {
        let next_answer = under_way.front().map(|(at, _)| *at);
        let Some(now) = schedule.wakeup().into_iter().chain(next_answer).min().filter(|at| *at < end) else { break };
        while let Some((at, attempt)) = under_way.front().copied()
            && at <= now
        {
            under_way.pop_front();
            schedule.end(attempt, Outcome::Answered, now);
        }
        for start in schedule.tick(now).starts {
            under_way.push_back((now + Duration::from_millis(20), start.attempt));
            begun_in_slot[(now - begin).as_millis() as usize / 100] += 1;
            if let Some(before) = last.insert(start.attempt.check, now)
                && start.attempt.number > 2
            {
                let gap = now - before;
                assert!(gap >= DELAY && gap < DELAY.mul_f64(1.1), "{:?}: {gap:?}", start.attempt);
            }
        }
    }
    assert_eq!(begun_in_slot[..10].iter().sum::<usize>(), 10_000, "every node is looked at within a second");
    // Evenly spread there are 200 in each tenth of a second; all at once would be 10,000.
    let most = begun_in_slot[20..].iter().max();
    assert!(most < Some(&600), "{most:?} checks began within a tenth of a second");
}

#[test]
fn connections_are_bounded_and_held_checks_begin_in_turn() {
    let now = Instant::now() + Duration::from_secs(1);
    let mut targets: Vec<Target> = (0..4).map(|node| target(node, tcp())).collect();
    targets.push(target(4, ping()));
    let (mut schedule, step) = started(targets, 2, now - Duration::from_secs(1));
    let tcp: Vec<Attempt> =
        step.starts.iter().filter(|start| start.kind == Kind::Tcp).map(|start| start.attempt).collect();
    assert_eq!((tcp.len(), step.starts.len()), (2, 3), "two connections and the ping, which needs none");
    assert_eq!(schedule.held(Resource::Connection, now).0, 2);

    schedule.end(tcp[0], Outcome::Answered, now);
    let next = schedule.tick(now).starts;
    assert_eq!(next.len(), 1);
    // Both that are left time out; the last held one begins, and the first ones are not due yet.
    let step = schedule.tick(now + TIMEOUT);
    let abandoned: Vec<Attempt> = step.abandoned.clone();
    assert!(abandoned.contains(&tcp[1]) && abandoned.contains(&next[0].attempt), "{abandoned:?}");
    assert_eq!(step.starts.len(), 1);
    assert_eq!(schedule.held(Resource::Connection, now).0, 0);
}

#[test]
fn a_held_check_that_is_removed_does_not_hold_up_the_others() {
    let now = Instant::now();
    let (mut schedule, step) = started((0..3).map(|node| target(node, tcp())).collect(), 1, now);
    let running = step.starts[0].attempt;
    let first_held = *schedule.connections.held.front().expect("two are held");
    let kept: Vec<Target> =
        (0..3).map(|node| target(node, tcp())).filter(|target| schedule.names[&key(target)] != first_held).collect();
    let now = now + Duration::from_secs(1);
    schedule.set(kept, now);
    schedule.end(running, Outcome::Answered, now);
    assert_eq!(schedule.tick(now).starts.len(), 1);
}

#[test]
fn a_removed_check_gives_its_connection_back() {
    let now = Instant::now();
    let (mut schedule, step) = started(vec![target(1, tcp())], 1, now);
    let running = step.starts[0].attempt;
    let step = schedule.set(vec![target(2, tcp())], now);
    assert_eq!(step.abandoned, [running]);
    assert_eq!(step.removed, [("web".to_owned(), "n1".to_owned(), "m".to_owned())]);
    assert_eq!(schedule.tick(now + Duration::from_secs(1)).starts.len(), 1);
    assert_eq!(schedule.end(running, Outcome::Failed("late".into()), now), Step::default(), "its result is ignored");
}

#[test]
fn a_target_that_stays_keeps_what_is_known_of_it() {
    let now = Instant::now();
    let (mut schedule, step) = started(vec![target(1, ping())], 1, now);
    let now = now + Duration::from_secs(1);
    let down = schedule.end(step.starts[0].attempt, Outcome::Failed("connection refused".into()), now);
    let report = |health, reason: Option<&str>| Report {
        pool: "web".into(),
        node: "n1".into(),
        monitor: "m".into(),
        health,
        reason: reason.map(str::to_owned),
    };
    assert_eq!(down.reports, [report(Health::Down, Some("connection refused"))]);

    let slower = Settings { failures: 5, ..ping() };
    assert_eq!(schedule.set(vec![target(1, slower.clone()), target(2, ping())], now), Step::default());

    let moved = Target { address: SocketAddr::from(([10, 9, 9, 9], 80)), ..target(1, slower) };
    let step = schedule.set(vec![moved, target(2, ping())], now);
    assert_eq!(step.reports, [report(Health::Unknown, None)], "another server: nothing is known of it");
    assert_eq!(step.removed, []);
}

#[test]
fn another_kind_of_check_begins_anew_and_keeps_the_verdict() {
    let now = Instant::now();
    let (mut schedule, step) = started(vec![target(1, tcp())], 1, now);
    let running = step.starts[0].attempt;
    let other = settings(Kind::Greeting(Greeting::Smtp, None));
    assert_eq!(schedule.set(vec![target(1, other.clone())], now).abandoned, [running]);
    let starts = schedule.tick(now + Duration::from_secs(1)).starts;
    assert_eq!(starts[0].kind, other.kind);
    assert_ne!(starts[0].attempt, running);
}

/// A node of some pool at an address that it has in common with others.
fn tied(pool: &str, node: &str, settings: Settings) -> Target {
    let address = SocketAddr::from(([10, 0, 9, 9], 25));
    Target { pool: pool.into(), node: node.into(), address, monitor: "m".into(), settings }
}

fn said(step: &Step) -> Vec<(&str, &str, Health)> {
    step.reports.iter().map(|report| (report.pool.as_str(), report.node.as_str(), report.health)).collect()
}

#[test]
fn targets_that_ask_the_same_share_a_check_and_hear_the_same() {
    let now = Instant::now();
    let (mut schedule, step) =
        started(vec![tied("a", "n1", tcp()), tied("b", "n1", tcp()), tied("b", "n2", tcp())], 9, now);
    assert_eq!(step.starts.len(), 1, "one check for all of them");
    let now = now + Duration::from_secs(1);
    let step = schedule.end(step.starts[0].attempt, Outcome::Failed("connection refused".into()), now);
    let down = |pool, node| (pool, node, Health::Down);
    assert_eq!(said(&step), [down("a", "n1"), down("b", "n1"), down("b", "n2")]);

    // One that joins hears at once what is known; those that were there hear nothing.
    let all = || vec![tied("a", "n1", tcp()), tied("b", "n1", tcp()), tied("b", "n2", tcp()), tied("c", "n3", tcp())];
    assert_eq!(said(&schedule.set(all(), now)), [down("c", "n3")]);
    // The first one leaves: the check goes on for the others.
    let step = schedule.set(all().split_off(1), now);
    assert_eq!((step.removed.len(), step.abandoned.len(), step.reports.len()), (1, 0, 0));
    assert_eq!(schedule.checks.len(), 1);
}

#[test]
fn what_is_known_goes_with_those_that_part() {
    let now = Instant::now();
    let (mut schedule, step) = started(vec![tied("a", "n1", tcp()), tied("b", "n1", tcp())], 9, now);
    let now = now + Duration::from_secs(1);
    schedule.end(step.starts[0].attempt, Outcome::Failed("connection refused".into()), now);

    let slower = Settings { failures: 7, ..tcp() };
    let step = schedule.set(vec![tied("a", "n1", tcp()), tied("b", "n1", slower.clone())], now);
    assert_eq!((said(&step), schedule.checks.len()), (vec![], 2), "it is down still, and is checked by itself");
    // Together again, by the new settings: nothing is said, and one check is enough.
    let step = schedule.set(vec![tied("a", "n1", slower.clone()), tied("b", "n1", slower.clone())], now);
    assert_eq!((said(&step), schedule.checks.len(), schedule.groups.len()), (vec![], 1, 1));
    // All of them change: the check stays the same one.
    let before = *schedule.checks.keys().next().unwrap();
    let step = schedule.set(vec![tied("a", "n1", tcp()), tied("b", "n1", tcp())], now);
    assert_eq!((said(&step), schedule.checks.keys().copied().collect::<Vec<_>>()), (vec![], vec![before]));
    assert_eq!((schedule.groups.len(), schedule.wakeups.len()), (1, 1));
}

#[test]
fn programs_have_a_room_of_their_own() {
    let now = Instant::now();
    let program = |node| {
        let run = crate::control::probe::Program { name: "x".into(), arguments: vec![], environment: BTreeMap::new() };
        target(node, settings(Kind::Program(run.into())))
    };
    let targets = vec![program(1), program(2), target(3, tcp()), target(4, tcp())];
    let (schedule, step) = started(targets, 2, now);
    assert_eq!(step.starts.len(), 3, "one program at a time, and both connections");
    let now = now + Duration::from_secs(1);
    assert_eq!(schedule.held(Resource::Process, now).0, 1);
    assert_eq!(schedule.held(Resource::Connection, now).0, 0);
}
