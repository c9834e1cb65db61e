//! Every state of a check against every event.

use super::*;
use crate::control::probe::Kind;

fn settings() -> Settings {
    Settings {
        kind: Kind::Ping,
        delay: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        failures: 3,
        successes: 2,
    }
}
const MOMENT: Duration = Duration::from_millis(1);

fn machine(health: Health, streak: u32, phase: Phase) -> Machine {
    let reason = (health == Health::Down).then(|| "connection refused".to_owned());
    let verdict = Verdict { health, reason };
    Machine { settings: settings(), identity: 0, verdict, streak, attempt: 7, spread_next: false, phase }
}

/// An event, and when it comes, counted from the machine's wakeup (the due time, or the deadline of the check).
fn inputs(wakeup: Instant) -> [(&'static str, Event, Instant); 13] {
    let ended = |attempt, outcome| Event::Ended { attempt, outcome };
    let refused = || Outcome::Failed("connection refused".into());
    let early = wakeup - MOMENT;
    [
        ("tick early", Event::Tick, early),
        ("tick", Event::Tick, wakeup),
        ("tick after a stall", Event::Tick, wakeup + STALL),
        ("answer", ended(7, Outcome::Answered), early),
        ("stale answer", ended(6, Outcome::Answered), early),
        ("late answer", ended(7, Outcome::Answered), wakeup),
        ("failure", ended(7, refused()), early),
        ("stale failure", ended(6, refused()), early),
        ("other failure", ended(7, Outcome::Failed("no route to host".into())), early),
        ("untested", ended(7, Outcome::Untested("too many open files".into())), early),
        ("same settings", Event::Configured(settings()), early),
        ("longer timeout", Event::Configured(Settings { timeout: Duration::from_secs(9), ..settings() }), early),
        ("other kind", Event::Configured(Settings { kind: Kind::Tcp, ..settings() }), early),
    ]
}

/// What an event did, in words; `-`: nothing.
fn effect(machine: &Machine, event: Event, now: Instant) -> String {
    let mut after = machine.clone();
    let changes = after.apply(event, now);
    let mut words = Vec::new();
    words.extend(changes.abandon.map(|attempt| {
        assert_eq!(attempt, 7);
        "abandon".to_owned()
    }));
    words.extend(changes.start.map(|attempt| format!("start {attempt}")));
    if machine.attempt().is_some() && after.attempt().is_none() {
        words.push("wait".to_owned());
    }
    if let Some(verdict) = changes.verdict {
        assert_eq!(&verdict, after.verdict());
        assert_eq!(changes.untested.is_some(), verdict.health == Health::Unknown);
        words.push(format!("{:?}", verdict.health).to_lowercase());
        words.extend(verdict.reason.map(|reason| format!("({reason})")));
    } else {
        assert_eq!(machine.verdict(), after.verdict(), "a verdict changed in silence");
    }
    if machine.streak != after.streak {
        words.push(format!("streak={}", after.streak));
    }
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

#[test]
fn every_state_with_every_input() {
    let now = Instant::now() + Duration::from_secs(3600);
    let waiting = Phase::Waiting { due: now };
    let checking = Phase::Checking { since: now };
    const IDLE: [&str; 13] = ["-", "start 8", "start 8", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"];
    const STALLED: &str = "abandon wait unknown (this machine stood still for 1.0s)";
    const LOCAL: &str = "wait unknown (too many open files)";
    const DOWN_REFUSED: &str = "wait down (connection refused) streak=0";
    const DOWN_ROUTE: &str = "wait down (no route to host) streak=0";
    const DOWN_LATE: &str = "wait down (no answer within 2s) streak=0";
    const DOWN_TIMEOUT: &str = "abandon wait down (no answer within 2s) streak=0";
    #[rustfmt::skip]
    let table = [
        // State, then: tick early, tick, tick after a stall, answer, stale answer, late answer, failure, stale failure,
        // other failure, untested, same settings, longer timeout, other kind.
        ("unknown, waiting", machine(Health::Unknown, 2, waiting), IDLE),
        ("up, waiting", machine(Health::Up, 2, waiting), IDLE),
        ("down, waiting", machine(Health::Down, 1, waiting), IDLE),
        ("unknown, checking", machine(Health::Unknown, 0, checking),
            ["-", "abandon wait streak=1", STALLED, "wait up", "-", "wait streak=1", "wait streak=1", "-",
             "wait streak=1", LOCAL, "-", "-", "abandon wait"]),
        ("unknown, failed twice, checking", machine(Health::Unknown, 2, checking),
            ["-", DOWN_TIMEOUT, STALLED, "wait up streak=0", "-", DOWN_LATE, DOWN_REFUSED, "-",
             DOWN_ROUTE, LOCAL, "-", "-", "abandon wait"]),
        ("up, checking", machine(Health::Up, 0, checking),
            ["-", "abandon wait streak=1", "abandon wait", "wait", "-", "wait streak=1", "wait streak=1", "-",
             "wait streak=1", "wait", "-", "-", "abandon wait"]),
        ("up, failed twice, checking", machine(Health::Up, 2, checking),
            ["-", DOWN_TIMEOUT, "abandon wait", "wait streak=0", "-", DOWN_LATE, DOWN_REFUSED, "-",
             DOWN_ROUTE, "wait", "-", "-", "abandon wait"]),
        ("down, checking", machine(Health::Down, 0, checking),
            ["-", "abandon wait down (no answer within 2s)", "abandon wait", "wait streak=1", "-",
             "wait down (no answer within 2s)", "wait", "-", "wait down (no route to host)", "wait", "-", "-",
             "abandon wait"]),
        ("down, answered once, checking", machine(Health::Down, 1, checking),
            ["-", DOWN_TIMEOUT, "abandon wait", "wait up streak=0", "-", DOWN_LATE, "wait streak=0", "-",
             DOWN_ROUTE, "wait", "-", "-", "abandon wait"]),
    ];
    for (state, machine, expected) in table {
        for ((input, event, at), expected) in inputs(machine.wakeup()).into_iter().zip(expected) {
            assert_eq!(effect(&machine, event, at), expected, "{state}: {input}");
        }
    }
}

#[test]
fn a_check_begins_a_delay_after_the_one_before_and_never_overlaps_it() {
    let now = Instant::now();
    let answered = Event::Ended { attempt: 7, outcome: Outcome::Answered };
    let mut quick = machine(Health::Up, 0, Phase::Checking { since: now });
    quick.apply(answered.clone(), now + MOMENT);
    assert_eq!(quick.wakeup(), now + settings().delay);

    let mut slow = machine(Health::Up, 0, Phase::Checking { since: now });
    slow.settings.timeout = Duration::from_secs(60);
    slow.apply(answered, now + Duration::from_secs(30));
    assert_eq!(slow.wakeup(), now + Duration::from_secs(30));
}

#[test]
fn new_settings_act_on_the_check_under_way_and_keep_the_count() {
    let now = Instant::now();
    let mut checking = machine(Health::Up, 2, Phase::Checking { since: now });
    checking.apply(Event::Configured(Settings { timeout: Duration::from_secs(9), ..settings() }), now);
    assert_eq!(checking.wakeup(), now + Duration::from_secs(9));
    assert_eq!((checking.verdict().health, checking.streak), (Health::Up, 2));

    let mut waiting = machine(Health::Down, 1, Phase::Waiting { due: now + Duration::from_secs(5) });
    waiting.apply(Event::Configured(Settings { delay: Duration::from_secs(1), ..settings() }), now);
    assert!(waiting.wakeup() <= now + Duration::from_secs(1), "waits for the old delay");
    assert_eq!((waiting.verdict().health, waiting.streak), (Health::Down, 1));
}

#[test]
fn counts_of_zero_mean_one() {
    let now = Instant::now();
    let zero = Settings { failures: 0, successes: 0, ..settings() };
    for (before, outcome, after) in
        [(Health::Up, Outcome::Failed("x".into()), Health::Down), (Health::Down, Outcome::Answered, Health::Up)]
    {
        let mut machine = Machine { settings: zero.clone(), ..machine(before, 0, Phase::Checking { since: now }) };
        machine.apply(Event::Ended { attempt: 7, outcome }, now);
        assert_eq!(machine.verdict().health, after);
    }
}
