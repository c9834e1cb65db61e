//! Every role against every event, and the rules one by one.

use std::time::{Duration, Instant};

use super::{Alarm, Changes, Election, Event, MachineId, Reason, Rival, Role, Says, Settings};

const OWN: MachineId = MachineId(1);
const PEER: MachineId = MachineId(2);
const SETTINGS: Settings = Settings {
    interval: Duration::from_millis(100),
    misses: 3,
    priority: 100,
    failback: true,
    failback_delay: Duration::from_secs(1),
};

fn says(role: Role, priority: u8) -> Says {
    Says { role, priority, successor: None }
}

fn heard(says: Says) -> Event {
    Event::Heard { from: PEER, says, hears_us: true }
}

fn ms(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// A machine in a role, with a peer that has said what fits it.
fn in_role(role: Role, peer_priority: u8, start: Instant) -> Election {
    let mut election = Election::new(OWN, SETTINGS, start);
    if role == Role::Idle {
        return election;
    }
    election.apply(Event::Start, start);
    if role == Role::Backup {
        election.apply(heard(says(Role::Active, peer_priority)), ms(start, 1));
    } else {
        for at in [100, 200, 300, 330] {
            election.apply(Event::Tick, ms(start, at));
        }
        election.apply(heard(says(Role::Backup, peer_priority)), ms(start, 331));
    }
    assert_eq!(election.role(), role);
    election
}

#[test]
fn every_role_meets_every_event() {
    let successor = |role| Says { role, priority: 200, successor: Some(OWN) };
    let (idle, backup, active) = (Role::Idle, Role::Backup, Role::Active);
    #[rustfmt::skip]
    let cases: [(&str, Event, [Role; 3]); 16] = [
        ("start", Event::Start, [backup, backup, active]),
        ("resume", Event::Resume, [active, backup, active]),
        ("stop", Event::Stop, [idle, idle, idle]),
        ("tick", Event::Tick, [idle, backup, active]),
        ("a better owner", heard(says(active, 200)), [idle, backup, backup]),
        ("a worse owner", heard(says(active, 50)), [idle, backup, active]),
        ("an owner with a fault", heard(says(active, 0)), [idle, backup, active]),
        ("the owner resigns", heard(says(backup, 0)), [idle, active, active]),
        ("the owner stops", heard(says(idle, 0)), [idle, active, active]),
        ("the owner hands over to us", heard(successor(active)), [idle, active, active]),
        ("somebody who owns nothing hands over", heard(successor(backup)), [idle, backup, active]),
        ("our own heartbeat", Event::Heard { from: OWN, says: says(active, 255), hears_us: true }, [idle, backup, active]),
        ("a fault", Event::Fault(Some("carrier".into())), [idle, backup, active]),
        ("a move", Event::Move(None), [idle, backup, active]),
        ("the guard has acted", Event::Deposed, [idle, backup, backup]),
        ("an address is claimed", Event::Claimed, [idle, backup, active]),
    ];
    for (name, event, expected) in cases {
        for (role, expected) in [idle, backup, active].into_iter().zip(expected) {
            let start = Instant::now();
            let mut election = in_role(role, 200, start);
            let changes = election.apply(event.clone(), ms(start, 332));
            assert_eq!(election.role(), expected, "{name} in {role:?}: {changes:?}");
            assert_eq!(changes.raise, role != active && election.role() == active, "{name} in {role:?}");
            assert_eq!(changes.lower, role == active && election.role() != active, "{name} in {role:?}");
            assert_eq!(changes.reason.is_some(), changes.raise || changes.lower, "{name} in {role:?}");
        }
    }
}

#[test]
fn silence_of_three_intervals_makes_an_owner_and_the_second_best_waits_longer() {
    let start = Instant::now();
    let mut election = in_role(Role::Backup, 200, start);
    for at in [100, 200, 300, 325] {
        assert_eq!(election.apply(Event::Tick, ms(start, at)), Changes::default());
    }
    assert_eq!(election.apply(Event::Tick, ms(start, 326)).reason, Some(Reason::Silence));

    let mut second = in_role(Role::Backup, 200, start);
    second.apply(Event::Tick, ms(start, 100));
    second.apply(Event::Heard { from: MachineId(3), says: says(Role::Backup, 150), hears_us: true }, ms(start, 200));
    for at in [300, 330] {
        assert_eq!(second.apply(Event::Tick, ms(start, at)), Changes::default());
    }
    assert_eq!(second.apply(Event::Tick, ms(start, 377)).reason, Some(Reason::Silence));
}

/// A machine that did not run for a while, whether it was stopped or too busy, finds the owner's heartbeats in its socket: after
/// it has looked at the time.
#[test]
fn silence_while_nobody_listened_is_no_silence() {
    for pause in [130, 200, 280, 320] {
        let start = Instant::now();
        let mut election = in_role(Role::Backup, 200, start);
        election.apply(Event::Tick, ms(start, 99));
        let awake = 99 + pause;
        assert_eq!(election.apply(Event::Tick, ms(start, awake)), Changes::default(), "after {pause} ms");
        assert_eq!(election.apply(heard(says(Role::Active, 200)), ms(start, awake)), Changes::default());

        // And one that is always late takes over in the end.
        let mut late = in_role(Role::Backup, 200, start);
        let taken = (1..).find(|round| late.apply(Event::Tick, ms(start, round * pause)).raise).expect("it has no end");
        assert!(taken <= 5, "after {taken} looks, {pause} ms apart");
    }
}

#[test]
fn an_owner_that_stood_still_steps_down_before_it_says_anything_but_not_without_peers() {
    let start = Instant::now();
    let mut election = in_role(Role::Active, 50, start);
    let changes = election.apply(Event::Tick, ms(start, 8_000));
    assert!(changes.lower && !changes.send && !changes.raise, "{changes:?}");
    assert_eq!(election.says().role, Role::Backup);

    let mut alone = Election::new(OWN, SETTINGS, start);
    alone.apply(Event::Start, start);
    for at in [100, 200, 300, 330] {
        alone.apply(Event::Tick, ms(start, at));
    }
    assert_eq!(alone.apply(Event::Tick, ms(start, 9_000)), Changes::default());
    assert_eq!(alone.role(), Role::Active);
}

#[test]
fn a_fault_gives_the_group_away_only_to_somebody_who_is_well() {
    let start = Instant::now();
    for (peer_priority, successor) in [(50, Some(PEER)), (0, None)] {
        let mut election = in_role(Role::Active, peer_priority, start);
        election.apply(Event::Fault(Some("gateway".into())), ms(start, 340));
        assert_eq!(election.role(), Role::Active, "the successor raises first");
        assert_eq!(election.says(), Says { role: Role::Active, priority: 0, successor });
    }
}

#[test]
fn the_old_owner_lowers_when_its_successor_owns_and_keeps_when_it_never_does() {
    let start = Instant::now();
    let mut election = in_role(Role::Active, 50, start);
    assert!(election.apply(Event::Move(Some(PEER)), ms(start, 340)).send);
    let changes = election.apply(heard(says(Role::Active, 50)), ms(start, 350));
    assert!(changes.lower && changes.reason == Some(Reason::HandedOverTo(PEER)), "{changes:?}");

    let mut election = in_role(Role::Active, 50, start);
    election.apply(Event::Move(Some(PEER)), ms(start, 340));
    election.apply(heard(says(Role::Backup, 50)), ms(start, 500));
    let changes = election.apply(heard(says(Role::Backup, 50)), ms(start, 700));
    assert_eq!((changes.alarm, election.role()), (Some(Alarm::HandoverUnanswered(PEER)), Role::Active));
}

#[test]
fn a_rival_is_answered_at_most_once_per_interval() {
    let start = Instant::now();
    let mut election = in_role(Role::Active, 50, start);
    let mut rival = |at| election.apply(heard(says(Role::Active, 50)), ms(start, at));
    let first = rival(340);
    assert!(first.announce && first.send && first.alarm == Some(Alarm::SecondOwner(Rival::Machine(PEER))));
    let answers = (341..440).filter(|at| rival(*at).send).count();
    assert_eq!(answers, 0);
    assert!(rival(441).announce);
}

#[test]
fn an_owner_that_a_rival_lastingly_does_not_hear_yields() {
    let start = Instant::now();
    let mut election = in_role(Role::Active, 50, start);
    let deaf = Event::Heard { from: PEER, says: says(Role::Active, 50), hears_us: false };
    for at in [340, 440, 540, 640] {
        election.apply(deaf.clone(), ms(start, at));
        assert_eq!(election.role(), Role::Active);
    }
    assert_eq!(election.apply(deaf, ms(start, 740)).reason, Some(Reason::Unheard(PEER)));
}

#[test]
fn failback_waits_for_its_delay_and_only_when_it_is_wanted() {
    let start = Instant::now();
    for failback in [true, false] {
        let mut election = in_role(Role::Backup, 50, start);
        election.apply(Event::Configured(Settings { failback, ..SETTINGS }), ms(start, 2));
        let mut taken = None;
        for at in (100..2_000).step_by(100) {
            if election.apply(heard(says(Role::Active, 50)), ms(start, at)).raise {
                taken = Some(at);
                break;
            }
        }
        assert_eq!(taken, failback.then_some(1_100));
    }
}
