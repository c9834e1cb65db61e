//! Machines and a network in virtual time: loss, delay, duplication, reflection, pauses, crashes and cuts, by seed.
//!
//! `LB_SEED=7 cargo nextest run -p lb-userspace election::simulation` replays one seed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Changes, Election, Event, MachineId, Role, Says, Settings};

const INTERVAL: Duration = Duration::from_millis(100);
const MISSES: u32 = 3;
/// What a message may be delayed, in ms.
const MAX_DELAY: u64 = 20;
/// How often a machine looks whether something is due, in ms.
const LOOK: u64 = 5;
/// A machine that stands still stops forwarding after this many ms: the lease in the data path.
const LEASE: u64 = 100;
/// The longest time without an owner after anything that happened, in ms: dead after 325 and the ranks of two better
/// candidates that are gone as well.
const BOUND: u64 = 450;
/// The same where only machines with a fault are left: they wait twice as long for others.
const BOUND_FAULT: u64 = BOUND + 350;
/// Two owners may be seen this long in ms while the group moves, or after a cut heals.
const OVERLAP: u64 = 250;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Machine {
    election: Election,
    /// Owns addresses, as the network sees it.
    raised: bool,
    next_heartbeat: u64,
    paused_until: u64,
    paused_at: u64,
    crashed: bool,
    /// When a peer was heard last, and the number of its newest heartbeat: older ones that come late are dropped.
    heard: BTreeMap<usize, (u64, u64)>,
}

#[derive(Clone)]
struct Message {
    number: u64,
    at: u64,
    from: usize,
    to: usize,
    says: Says,
    hears: Vec<usize>,
}

struct World {
    random: Random,
    start: Instant,
    now: u64,
    machines: Vec<Machine>,
    messages: Vec<Message>,
    /// Directions that are cut: (from, to).
    cut: Vec<(usize, usize)>,
    loss_percent: u64,
    sent: u64,
    transitions: u32,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, count: usize, failback: bool) -> Self {
        let start = Instant::now();
        let machine = |index: usize| {
            let priority = u8::try_from(200 - 20 * index).unwrap();
            let settings = Settings {
                interval: INTERVAL,
                misses: MISSES,
                priority,
                failback,
                failback_delay: Duration::from_secs(1),
            };
            let election = Election::new(id(index), settings, start);
            Machine {
                election,
                raised: false,
                next_heartbeat: 7 * index as u64,
                paused_until: 0,
                paused_at: 0,
                crashed: false,
                heard: BTreeMap::new(),
            }
        };
        let machines = (0..count).map(machine).collect();
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            start,
            now: 0,
            machines,
            messages: Vec::new(),
            cut: Vec::new(),
            loss_percent: 0,
            sent: 0,
            transitions: 0,
            log: Vec::new(),
        };
        for index in 0..count {
            world.apply(index, Event::Start);
        }
        world
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn apply(&mut self, index: usize, event: Event) {
        let now = self.instant();
        if !matches!(event, Event::Tick | Event::Heard { .. }) {
            self.log.push(format!("{} ms: machine {index}: {event:?}", self.now));
        }
        let before = self.machines[index].election.says();
        let changes = self.machines[index].election.apply(event, now);
        self.enact(index, &changes, before);
    }

    fn enact(&mut self, index: usize, changes: &Changes, before: Says) {
        if let Some(reason) = &changes.reason {
            self.transitions += 1;
            self.log.push(format!("{} ms: machine {index}: {reason}", self.now));
        }
        if changes.raise {
            self.machines[index].raised = true;
        }
        if changes.send {
            let says = if changes.say_last { before } else { self.machines[index].election.says() };
            self.send(index, says);
        }
        if changes.lower {
            self.machines[index].raised = false;
        }
    }

    fn send(&mut self, from: usize, says: Says) {
        let now = self.now;
        let hears =
            self.machines[from].heard.iter().filter(|(_, (at, _))| now - at <= 300).map(|(peer, _)| *peer).collect();
        self.sent += 1;
        let message = Message { number: self.sent, at: 0, from, to: 0, says, hears };
        for to in 0..self.machines.len() {
            // One's own come back now and then: hairpin, reflected multicast.
            if (to == from && !self.random.chance(20))
                || self.cut.contains(&(from, to))
                || self.random.chance(self.loss_percent)
            {
                continue;
            }
            let copies = if self.random.chance(5) { 2 } else { 1 };
            for _ in 0..copies {
                let at = now + self.random.below(MAX_DELAY + 1);
                self.messages.push(Message { at, to, ..message.clone() });
            }
        }
    }

    fn running(&self, index: usize) -> bool {
        !self.machines[index].crashed && self.machines[index].paused_until <= self.now
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += 1;
        for index in 0..self.machines.len() {
            if !self.running(index) {
                continue;
            }
            // A machine that wakes looks at the clock before it reads what has piled up.
            let looks = (self.now + index as u64).is_multiple_of(LOOK);
            let due =
                looks && self.machines[index].election.deadline(self.instant()).is_some_and(|at| at <= self.instant());
            let beat = self.machines[index].next_heartbeat <= self.now;
            if due || beat {
                self.apply(index, Event::Tick);
            }
            let due = |message: &Message| message.to == index && message.at <= self.now;
            let mut arrived: Vec<_> = self.messages.extract_if(.., |message| due(message)).collect();
            arrived.sort_by_key(|message| message.at);
            for message in arrived {
                let hears_us = message.hears.contains(&index);
                if message.from != index {
                    let (_, newest) = self.machines[index].heard.get(&message.from).copied().unwrap_or_default();
                    if message.number <= newest {
                        continue;
                    }
                    self.machines[index].heard.insert(message.from, (self.now, message.number));
                }
                self.apply(index, Event::Heard { from: id(message.from), says: message.says, hears_us });
            }
            if beat && self.machines[index].election.role() != Role::Idle {
                self.machines[index].next_heartbeat = self.now + 100;
                let says = self.machines[index].election.says();
                self.send(index, says);
            }
        }
    }

    /// Whether it ran all of the last `time` ms.
    fn was_running(&self, index: usize, time: u64) -> bool {
        self.running(index) && self.machines[index].paused_until + time <= self.now
    }

    /// Machines that answer for the addresses now: a machine that stands still does until its lease ends.
    fn owners(&self) -> Vec<usize> {
        let owns = |(index, machine): (usize, &Machine)| {
            let lease = self.running(index) || self.now - machine.paused_at <= LEASE;
            (machine.raised && !machine.crashed && lease).then_some(index)
        };
        self.machines.iter().enumerate().filter_map(owns).collect()
    }

    fn pause(&mut self, index: usize, time: u64) {
        self.log.push(format!("{} ms: machine {index} stands still for {time} ms", self.now));
        self.machines[index].paused_at = self.now;
        self.machines[index].paused_until = self.now + time;
    }

    fn crash(&mut self, index: usize) {
        self.log.push(format!("{} ms: machine {index} crashes", self.now));
        // The guard takes the addresses down.
        self.machines[index].crashed = true;
        self.machines[index].raised = false;
    }

    fn restart(&mut self, index: usize) {
        let settings = self.machines[index].election.settings;
        self.machines[index].election = Election::new(id(index), settings, self.instant());
        self.machines[index].crashed = false;
        self.machines[index].heard.clear();
        self.log.push(format!("{} ms: machine {index} starts", self.now));
        self.apply(index, Event::Start);
    }

    /// Runs so long and returns the longest time without and with several owners, in ms.
    fn run(&mut self, time: u64) -> (u64, u64) {
        let (mut none, mut several, mut longest) = (0, 0, (0, 0));
        for _ in 0..time {
            self.step();
            match self.owners().len() {
                0 => (none, several) = (none + 1, 0),
                1 => (none, several) = (0, 0),
                _ => (none, several) = (0, several + 1),
            }
            longest = (longest.0.max(none), longest.1.max(several));
        }
        longest
    }

    /// Something happens.
    fn disturb(&mut self) -> &'static str {
        let count = self.machines.len() as u64;
        let some = usize::try_from(self.random.below(count)).unwrap();
        match self.random.below(8) {
            0 => {
                self.crash(some);
                "crash"
            }
            1 => {
                let time = 50 + self.random.below(8_000);
                self.pause(some, time);
                "pause"
            }
            2 => {
                self.apply(some, Event::Move(None));
                "move"
            }
            3 => {
                self.apply(some, Event::Fault(Some("gateway".to_owned())));
                "fault"
            }
            4 => {
                self.apply(some, Event::Fault(None));
                "well"
            }
            5 => {
                self.apply(some, Event::Stop);
                self.run(50);
                self.apply(some, Event::Start);
                "stop"
            }
            6 => {
                self.apply(some, Event::Claimed);
                "claimed"
            }
            _ => "nothing",
        }
    }
}

fn id(index: usize) -> MachineId {
    MachineId(100 + index as u64)
}

fn seeds() -> Vec<u64> {
    match std::env::var("LB_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=240).collect(),
    }
}

#[test]
fn there_is_always_one_owner_whatever_happens_to_machines() {
    for seed in seeds() {
        let count = if seed % 2 == 0 { 2 } else { 3 };
        let mut world = World::new(seed, count, seed % 3 != 0);
        world.run(2_000);
        for round in 0..12 {
            let what = world.disturb();
            let (none, several) = world.run(2_500);
            // With every machine down or still there is nobody to own.
            let anybody = (0..count).any(|index| world.running(index));
            let context = format!("seed {seed}, round {round}, {what}:\n{}", world.log.join("\n"));
            if anybody {
                let fault = world.machines.iter().any(|machine| machine.election.fault.is_some());
                let bound = if fault { BOUND_FAULT } else { BOUND };
                let all_stood_still = (0..count).all(|index| !world.was_running(index, 2_500));
                assert!(none <= bound || all_stood_still, "no owner for {none} ms, {context}");
            }
            assert!(several <= OVERLAP, "several owners for {several} ms, {context}");
            for index in 0..count {
                if world.machines[index].crashed && world.random.chance(60) {
                    world.restart(index);
                }
            }
            let running = (0..count).filter(|index| world.running(*index)).count();
            let (_, several) = world.run(2_500);
            assert!(several <= OVERLAP, "several owners for {several} ms after {context}");
            assert!(running == 0 || world.owners().len() == 1, "owners {:?} after {context}", world.owners());
        }
    }
}

#[test]
fn loss_delay_and_reflection_alone_change_nothing() {
    for seed in seeds() {
        let mut world = World::new(seed, 3, true);
        world.run(2_000);
        world.loss_percent = 5;
        let (owners, before) = (world.owners(), world.transitions);
        let (none, _) = world.run(5_000);
        assert_eq!((world.owners(), none), (owners, 0), "seed {seed}:\n{}", world.log.join("\n"));
        // Three in a row are lost once in 8,000 heartbeats.
        assert!(world.transitions - before <= 2, "seed {seed}:\n{}", world.log.join("\n"));
    }
}

#[test]
fn a_cut_that_heals_leaves_one_owner_within_three_intervals() {
    for seed in seeds() {
        let mut world = World::new(seed, 2, true);
        world.run(2_000);
        let one_way = seed % 3;
        world.cut = match one_way {
            0 => vec![(0, 1), (1, 0)],
            1 => vec![(0, 1)],
            _ => vec![(1, 0)],
        };
        let (none, several) = world.run(4_000);
        assert!(none <= BOUND, "seed {seed}: none for {none} ms\n{}", world.log.join("\n"));
        if one_way != 0 {
            assert!(several <= 800, "seed {seed}: several for {several} ms\n{}", world.log.join("\n"));
            assert_eq!(world.owners().len(), 1, "seed {seed}:\n{}", world.log.join("\n"));
        }
        world.cut.clear();
        let (none, several) = world.run(3_000);
        assert!(
            none == 0 && several <= 300,
            "seed {seed}: none {none}, several {several} ms\n{}",
            world.log.join("\n")
        );
        assert_eq!(world.owners(), [0], "seed {seed}:\n{}", world.log.join("\n"));
    }
}

#[test]
fn a_planned_move_and_a_stop_are_without_a_gap() {
    for seed in seeds() {
        let mut world = World::new(seed, 2, false);
        world.run(2_000);
        world.apply(0, Event::Move(Some(id(1))));
        let (none, _) = world.run(1_000);
        assert_eq!((none, world.owners()), (0, vec![1]), "seed {seed}:\n{}", world.log.join("\n"));
        world.apply(1, Event::Stop);
        let (none, _) = world.run(1_000);
        assert!(none <= MAX_DELAY + 1, "seed {seed}: {none} ms\n{}", world.log.join("\n"));
        assert_eq!(world.owners(), [0], "seed {seed}:\n{}", world.log.join("\n"));
    }
}

#[test]
fn a_machine_without_a_peer_keeps_its_addresses_over_a_pause() {
    let mut world = World::new(1, 1, true);
    world.run(1_000);
    world.pause(0, 8_000);
    world.run(9_000);
    assert!(world.machines[0].raised && world.transitions == 1, "{}", world.log.join("\n"));
}
