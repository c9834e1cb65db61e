//! When checks start, and how many at a time.

use std::collections::HashMap;

use super::*;
use crate::{control::view::Health, health::Settings};

const SETTINGS: Settings = Settings {
    kind: Kind::Ping,
    delay: Duration::from_secs(5),
    timeout: Duration::from_secs(2),
    failures: 1,
    successes: 1,
};
const TCP: Settings = Settings { kind: Kind::Tcp { port: None }, ..SETTINGS };

fn target(node: usize, settings: Settings) -> Target {
    let address = SocketAddr::from(([10, 0, (node >> 8) as u8, node as u8], 80));
    Target { pool: "web".into(), node: format!("n{node}"), address, monitor: "m".into(), settings }
}

/// The first check of each target begins within a second.
fn started(targets: Vec<Target>, max_connections: usize, now: Instant) -> (Schedule, Step) {
    assert!(targets.len() <= TICK_LIMIT);
    let mut schedule = Schedule::new(max_connections);
    assert_eq!(schedule.set(targets, now), Step::default());
    let step = schedule.tick(now + Duration::from_secs(1));
    (schedule, step)
}

#[test]
fn ten_thousand_checks_spread_out_and_none_is_late() {
    let begin = Instant::now();
    let mut schedule = Schedule::new(10_000);
    schedule.set((0..10_000).map(|node| target(node, SETTINGS)).collect(), begin);
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
                assert!(gap >= SETTINGS.delay && gap < SETTINGS.delay.mul_f64(1.1), "{:?}: {gap:?}", start.attempt);
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
    let mut targets: Vec<Target> = (0..4).map(|node| target(node, TCP)).collect();
    targets.push(target(4, SETTINGS));
    let (mut schedule, step) = started(targets, 2, now - Duration::from_secs(1));
    let tcp: Vec<Attempt> =
        step.starts.iter().filter(|start| start.kind == TCP.kind).map(|start| start.attempt).collect();
    assert_eq!((tcp.len(), step.starts.len()), (2, 3), "two connections and the ping, which needs none");
    assert_eq!(schedule.held(now).0, 2);

    schedule.end(tcp[0], Outcome::Answered, now);
    let next = schedule.tick(now).starts;
    assert_eq!(next.len(), 1);
    // Both that are left time out; the last held one begins, and the first ones are not due yet.
    let step = schedule.tick(now + SETTINGS.timeout);
    let abandoned: Vec<Attempt> = step.abandoned.clone();
    assert!(abandoned.contains(&tcp[1]) && abandoned.contains(&next[0].attempt), "{abandoned:?}");
    assert_eq!(step.starts.len(), 1);
    assert_eq!(schedule.held(now).0, 0);
}

#[test]
fn a_held_check_that_is_removed_does_not_hold_up_the_others() {
    let now = Instant::now();
    let (mut schedule, step) = started((0..3).map(|node| target(node, TCP)).collect(), 1, now);
    let running = step.starts[0].attempt;
    let first_held = *schedule.held.front().expect("two are held");
    let kept: Vec<Target> =
        schedule.checks.iter().filter(|(id, _)| **id != first_held).map(|(_, check)| check.target.clone()).collect();
    let now = now + Duration::from_secs(1);
    schedule.set(kept, now);
    schedule.end(running, Outcome::Answered, now);
    assert_eq!(schedule.tick(now).starts.len(), 1);
}

#[test]
fn a_removed_check_gives_its_connection_back() {
    let now = Instant::now();
    let (mut schedule, step) = started(vec![target(1, TCP)], 1, now);
    let running = step.starts[0].attempt;
    let step = schedule.set(vec![target(2, TCP)], now);
    assert_eq!(step.abandoned, [running]);
    assert_eq!(step.removed, [("web".to_owned(), "n1".to_owned(), "m".to_owned())]);
    assert_eq!(schedule.tick(now + Duration::from_secs(1)).starts.len(), 1);
    assert_eq!(schedule.end(running, Outcome::Failed("late".into()), now), Step::default(), "its result is ignored");
}

#[test]
fn a_target_that_stays_keeps_what_is_known_of_it() {
    let now = Instant::now();
    let (mut schedule, step) = started(vec![target(1, SETTINGS)], 1, now);
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

    let slower = Settings { failures: 5, ..SETTINGS };
    assert_eq!(schedule.set(vec![target(1, slower), target(2, SETTINGS)], now), Step::default());

    let moved = Target { address: SocketAddr::from(([10, 9, 9, 9], 80)), ..target(1, slower) };
    let step = schedule.set(vec![moved, target(2, SETTINGS)], now);
    assert_eq!(step.reports, [report(Health::Unknown, None)], "another server: nothing is known of it");
    assert_eq!(step.removed, []);
}

#[test]
fn another_kind_of_check_begins_anew_and_keeps_the_verdict() {
    let now = Instant::now();
    let (mut schedule, step) = started(vec![target(1, TCP)], 1, now);
    let running = step.starts[0].attempt;
    let other_port = Settings { kind: Kind::Tcp { port: Some(81) }, ..TCP };
    assert_eq!(schedule.set(vec![target(1, other_port)], now).abandoned, [running]);
    let starts = schedule.tick(now + Duration::from_secs(1)).starts;
    assert_eq!(starts[0].kind, other_port.kind);
    assert_ne!(starts[0].attempt, running);
}
