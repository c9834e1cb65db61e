//! RFC 9568's table, CARP's rules, and what must never happen: flapping by one's own or by losing advertisements.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Advertiser, Changes, Dialect, Event, Offer, Reason, Rival, Role, Settings};

const LOW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1));
const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2));
const HIGH: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 3));
const INTERVAL: Duration = Duration::from_millis(100);

fn vrrp(priority: u8) -> Offer {
    Offer::Vrrp { priority, interval: INTERVAL }
}

fn carp(advskew: u8, demotion: u8) -> Offer {
    Offer::Carp { advbase: 1, advskew, demotion }
}

fn settings(dialect: Dialect) -> Settings {
    Settings { dialect, preempt: true, preempt_delay: Duration::ZERO, has_peers: false }
}

fn speaks_vrrp() -> Settings {
    settings(Dialect::Vrrp { priority: 100, interval: INTERVAL })
}

fn speaks_carp() -> Settings {
    settings(Dialect::Carp { advbase: 1, advskew: 50 })
}

fn ms(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

fn in_role(role: Role, settings: Settings, start: Instant) -> Advertiser {
    let mut router = Advertiser::new(OWN, settings, start);
    if role != Role::Idle {
        router.apply(Event::Start, start);
    }
    if role == Role::Active {
        while router.role() != Role::Active {
            let due = router.deadline().unwrap();
            router.apply(Event::Tick, due);
        }
    }
    router
}

/// When it takes over unless it hears somebody: it looks at the time in between.
fn takeover(router: &Advertiser) -> Instant {
    let mut router = router.clone();
    let mut due = router.deadline();
    while let Some(now) = due {
        if router.apply(Event::Tick, now).raise {
            return now;
        }
        due = router.deadline();
    }
    panic!("it waits for nothing")
}

/// The moment at which `in_role` has left an owner.
fn then(router: &Advertiser, start: Instant) -> Instant {
    if router.role() == Role::Active { router.looked } else { start }
}

#[test]
fn every_role_meets_every_event() {
    let (idle, backup, active) = (Role::Idle, Role::Backup, Role::Active);
    let heard = |from, offer| Event::Heard { from, offer };
    #[rustfmt::skip]
    let cases: [(&str, Settings, Event, [Role; 3]); 19] = [
        ("start", speaks_vrrp(), Event::Start, [backup, backup, active]),
        ("resume", speaks_vrrp(), Event::Resume, [active, backup, active]),
        ("stop", speaks_vrrp(), Event::Stop, [idle, idle, idle]),
        ("tick", speaks_vrrp(), Event::Tick, [idle, backup, active]),
        ("vrrp: greater priority", speaks_vrrp(), heard(LOW, vrrp(101)), [idle, backup, backup]),
        ("vrrp: smaller priority", speaks_vrrp(), heard(HIGH, vrrp(99)), [idle, backup, active]),
        ("vrrp: equal, greater address", speaks_vrrp(), heard(HIGH, vrrp(100)), [idle, backup, backup]),
        ("vrrp: equal, smaller address", speaks_vrrp(), heard(LOW, vrrp(100)), [idle, backup, active]),
        ("vrrp: resigns", speaks_vrrp(), heard(HIGH, vrrp(0)), [idle, backup, active]),
        ("vrrp: our own, looped back", speaks_vrrp(), heard(OWN, vrrp(100)), [idle, backup, active]),
        ("carp: faster", speaks_carp(), heard(HIGH, carp(49, 0)), [idle, backup, backup]),
        ("carp: slower", speaks_carp(), heard(HIGH, carp(51, 0)), [idle, active, active]),
        ("carp: faster but demoted", speaks_carp(), heard(HIGH, carp(0, 1)), [idle, active, active]),
        ("carp: equal, smaller address", speaks_carp(), heard(LOW, carp(50, 0)), [idle, backup, backup]),
        ("carp: equal, greater address", speaks_carp(), heard(HIGH, carp(50, 0)), [idle, active, active]),
        ("carp: bows out", speaks_carp(), heard(HIGH, Offer::Carp { advbase: 255, advskew: 255, demotion: 0 }), [idle, active, active]),
        ("carp: our own, looped back", speaks_carp(), heard(OWN, carp(50, 0)), [idle, backup, active]),
        ("a move", speaks_vrrp(), Event::Move, [idle, backup, backup]),
        ("an address is claimed", speaks_vrrp(), Event::Claimed, [idle, backup, active]),
    ];
    for (name, settings, event, expected) in cases {
        for (role, expected) in [idle, backup, active].into_iter().zip(expected) {
            let start = Instant::now();
            let mut router = in_role(role, settings, start);
            let at = then(&router, start) + Duration::from_millis(1);
            let changes = router.apply(event.clone(), at);
            assert_eq!(router.role(), expected, "{name} in {role:?}: {changes:?}");
            assert_eq!(changes.raise, role != active && expected == active, "{name} in {role:?}");
            assert_eq!(changes.lower, role == active && expected != active, "{name} in {role:?}");
            assert_eq!(changes.reason.is_some(), changes.raise || changes.lower, "{name} in {role:?}");
        }
    }
}

#[test]
fn timers_are_those_of_the_protocols() {
    let start = Instant::now();
    // 3 * 100 ms + 156/256 * 100 ms; the owner's interval counts, once it is known.
    let mut router = in_role(Role::Backup, speaks_vrrp(), start);
    assert_eq!(takeover(&router) - start, Duration::from_micros(360_937) + Duration::from_nanos(500));
    let slow = Offer::Vrrp { priority: 200, interval: Duration::from_secs(1) };
    router.apply(Event::Heard { from: HIGH, offer: slow }, ms(start, 1));
    assert_eq!((takeover(&router) - ms(start, 1)).as_millis(), 3_609);
    // A resignation leaves the skew.
    router.apply(Event::Heard { from: HIGH, offer: vrrp(0) }, ms(start, 2));
    assert_eq!((takeover(&router) - ms(start, 2)).as_millis(), 609);

    let router = in_role(Role::Backup, speaks_carp(), start);
    assert_eq!((takeover(&router) - start).as_millis(), 3_195);
}

#[test]
fn one_s_own_advertisements_change_nothing_however_many_come_back() {
    for settings in [speaks_vrrp(), speaks_carp()] {
        let start = Instant::now();
        let mut router = in_role(Role::Active, settings, start);
        let begin = router.looked;
        let (mut sent, own) = (0, router.offer());
        for at in 0..60_000 {
            let now = ms(begin, at);
            let mut changes = router.apply(Event::Tick, now);
            // A hairpin, a hundred times over.
            for _ in 0..2 {
                let looped = router.apply(Event::Heard { from: OWN, offer: own }, now);
                assert!(!looped.lower && !looped.announce && !looped.send, "{looped:?}");
            }
            sent += u64::from(std::mem::take(&mut changes.send));
            assert_eq!(router.role(), Role::Active);
        }
        let expected = 60_000 / u64::try_from(own.interval().as_millis()).unwrap();
        assert!(sent.abs_diff(expected) <= expected / 10, "{sent} advertisements, {expected} expected");
    }
}

#[test]
fn a_losing_rival_is_answered_but_never_at_its_rate() {
    let start = Instant::now();
    let mut router = in_role(Role::Active, speaks_vrrp(), start);
    let begin = router.looked;
    let (mut answers, mut sent) = (0, 0);
    for at in 1..=1_000 {
        let changes = router.apply(Event::Heard { from: LOW, offer: vrrp(99) }, ms(begin, at));
        assert_eq!(router.role(), Role::Active);
        assert!(changes.announce || at != 1, "the first one is answered at once");
        answers += u32::from(changes.announce);
        sent += u32::from(changes.send);
    }
    assert_eq!((answers, sent), (10, 10), "in ten intervals");
}

#[test]
fn preemption_waits_for_its_delay_and_can_be_switched_off() {
    let start = Instant::now();
    let taken = |preempt, delay_ms| {
        let settings = Settings { preempt, preempt_delay: Duration::from_millis(delay_ms), ..speaks_vrrp() };
        let mut router = in_role(Role::Backup, settings, start);
        (1..100).map(|beat| beat * 100).find(|at| {
            router.apply(Event::Heard { from: HIGH, offer: vrrp(50) }, ms(start, *at));
            router.apply(Event::Tick, ms(start, at + 99)).raise
        })
    };
    assert_eq!(taken(false, 0), None);
    assert_eq!(taken(true, 0), Some(300));
    assert_eq!(taken(true, 2_000), Some(2_200));
}

#[test]
fn silence_while_nobody_listened_is_no_silence() {
    let start = Instant::now();
    let mut router = in_role(Role::Backup, speaks_vrrp(), start);
    router.apply(Event::Heard { from: HIGH, offer: vrrp(200) }, ms(start, 50));
    router.apply(Event::Tick, ms(start, 149));
    for at in [400, 401] {
        assert_eq!(router.apply(Event::Tick, ms(start, at)), Changes::default(), "its advertisements wait to be read");
    }
    let taken = router.deadline().map(|due| router.apply(Event::Tick, due).reason);
    assert_eq!(taken, Some(None), "it looks before it is due");
    let due = router.deadline().expect("it waits");
    assert_eq!(router.apply(Event::Tick, due).reason, Some(Reason::Silence));
}

#[test]
fn who_stood_still_steps_down_unless_it_knows_of_nobody() {
    for (heard, has_peers, role) in
        [(false, false, Role::Active), (true, false, Role::Backup), (false, true, Role::Backup)]
    {
        let start = Instant::now();
        let mut router = in_role(Role::Active, Settings { has_peers, ..speaks_vrrp() }, start);
        let begin = router.looked;
        if heard {
            router.apply(Event::Heard { from: LOW, offer: vrrp(50) }, ms(begin, 1));
        }
        let changes = router.apply(Event::Tick, ms(begin, 8_000));
        assert_eq!(router.role(), role, "heard {heard}, peers {has_peers}");
        assert!(role == Role::Active || !changes.send, "it says nothing before a new election: {changes:?}");
    }
}

#[test]
fn a_fault_lets_others_be_first() {
    let start = Instant::now();
    let mut router = in_role(Role::Active, speaks_vrrp(), start);
    let begin = router.looked;
    assert_eq!(router.apply(Event::Fault(Some("carrier".into())), ms(begin, 1)), Changes::default());
    let changes = router.apply(Event::Heard { from: LOW, offer: vrrp(50) }, ms(begin, 2));
    assert_eq!(changes.reason, Some(Reason::BetterOwner(Rival::Address(LOW))));
}
