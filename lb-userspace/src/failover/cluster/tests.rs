//! Two and three machines over a perfect wire in virtual time, and everything that may come over a bad one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::{Cluster, Command, Group, Incident, Machine, Output};
use crate::failover::{
    election::{MachineId, Role},
    heartbeat::{Boot, Key, Malformed, Path, Refused},
};

const WALL: u64 = 1_800_000_000_000;
/// The only one there is.
const PATH: Path = Path { socket: 0, from: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 694) };

struct Wire {
    start: Instant,
    now: u64,
    clusters: Vec<Cluster>,
    /// Datagrams on their way, by receiver.
    inbox: Vec<Vec<Vec<u8>>>,
    /// Everything that was ever sent, by sender.
    recorded: Vec<Vec<Vec<u8>>>,
    incidents: Vec<(usize, Incident)>,
    dead: Vec<usize>,
    /// How far each machine's wall clock is off, in ms.
    skews: Vec<i64>,
}

fn cluster(index: usize, boot: u64, start: Instant) -> Cluster {
    let names = (0..3).map(|index| (MachineId(1 + index), format!("lb{}", 1 + index))).collect::<BTreeMap<_, _>>();
    let machine = Machine {
        id: MachineId(1 + index as u64),
        boot: Boot(boot),
        keys: vec![Key::new(1, b"a key of the cluster")],
        names,
        interval: Duration::from_millis(100),
        misses: 3,
        resumes: BTreeSet::new(),
    };
    let mut cluster = Cluster::new(machine, start);
    cluster.command(Command::Groups(groups(index)), start, WALL);
    cluster
}

fn group(name: &str, priority: usize) -> Group {
    let priority = u8::try_from(priority).unwrap();
    Group { name: name.to_owned(), priority, failback: true, failback_delay: Duration::from_millis(500) }
}

/// Two groups, of which each machine prefers another.
fn groups(index: usize) -> Vec<Group> {
    vec![group("web", 200 - 10 * index), group("mail", 100 + 10 * index)]
}

impl Wire {
    fn new(count: usize) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: 0,
            clusters: (0..count).map(|index| cluster(index, 1_000 + index as u64, start)).collect(),
            inbox: vec![Vec::new(); count],
            recorded: vec![Vec::new(); count],
            incidents: Vec::new(),
            dead: Vec::new(),
            skews: vec![0; count],
        }
    }

    fn wall(&self, index: usize) -> u64 {
        (WALL + self.now).saturating_add_signed(self.skews[index])
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn take(&mut self, index: usize, output: Output) {
        for datagram in output.send {
            self.recorded[index].push(datagram.clone());
            for (other, inbox) in self.inbox.iter_mut().enumerate() {
                if other != index {
                    inbox.push(datagram.clone());
                }
            }
        }
        self.incidents.extend(output.incidents.into_iter().map(|incident| (index, incident)));
    }

    fn run(&mut self, time: u64) {
        for _ in 0..time {
            self.now += 1;
            for index in 0..self.clusters.len() {
                let arrived = std::mem::take(&mut self.inbox[index]);
                if self.dead.contains(&index) {
                    continue;
                }
                let (at, wall) = (self.at(), self.wall(index));
                for datagram in arrived {
                    let output = self.clusters[index].receive(&datagram, PATH, at, wall);
                    self.take(index, output);
                }
                if self.clusters[index].deadline(at) <= at {
                    let output = self.clusters[index].tick(at, wall);
                    self.take(index, output);
                }
            }
        }
    }

    fn command(&mut self, index: usize, command: Command) {
        let (at, wall) = (self.at(), self.wall(index));
        let output = self.clusters[index].command(command, at, wall);
        self.take(index, output);
    }

    fn replay(&mut self, to: usize, datagram: &[u8]) -> Output {
        let (now, wall) = (self.at(), self.wall(to));
        self.clusters[to].receive(datagram, PATH, now, wall)
    }

    fn owners(&self, group: &str) -> Vec<usize> {
        let alive = (0..self.clusters.len()).filter(|index| !self.dead.contains(index));
        alive.filter(|index| self.clusters[*index].owned().any(|owned| owned == group)).collect()
    }

    fn transitions(&self) -> usize {
        self.incidents.iter().filter(|(_, incident)| matches!(incident, Incident::Transition { .. })).count()
    }
}

#[test]
fn groups_go_to_the_machines_that_prefer_them_and_follow_a_death() {
    let mut wire = Wire::new(3);
    wire.run(2_000);
    assert_eq!((wire.owners("web"), wire.owners("mail")), (vec![0], vec![2]));
    wire.dead.push(0);
    wire.run(350);
    assert_eq!((wire.owners("web"), wire.owners("mail")), (vec![1], vec![2]));
    let status = wire.clusters[2].status(wire.at());
    assert_eq!(status.groups.iter().find(|group| group.name == "web").unwrap().owner.as_deref(), Some("lb2"));
}

#[test]
fn a_machine_that_starts_anew_is_believed_and_its_old_heartbeats_are_not() {
    let mut wire = Wire::new(2);
    wire.run(2_000);
    let recorded = wire.recorded[0].clone();
    wire.dead.push(0);
    wire.run(400);
    assert_eq!(wire.owners("web"), [1]);
    // The dead owner's last advertisement, again and again, does not hold its successor back or bring it down.
    for datagram in &recorded {
        let output = wire.replay(1, datagram);
        assert!(output.lower.is_empty(), "{output:?}");
        assert!(matches!(output.incidents[..], [Incident::Refused { refused: Refused::Stale, .. }]), "{output:?}");
    }
    wire.clusters[0] = cluster(0, 5_000, wire.at());
    wire.dead.clear();
    wire.run(2_000);
    assert_eq!((wire.owners("web"), wire.owners("mail")), (vec![0], vec![1]));
    assert!(matches!(wire.replay(1, &recorded[5]).incidents[..], [Incident::Refused { refused: Refused::Stale, .. }]));
}

/// An hour, ten years, and back to 1970.
const JUMPS: [i64; 5] = [3_600_000, -3_600_000, 315_360_000_000, -315_360_000_000, i64::MIN];

#[test]
fn clocks_that_jump_change_nothing() {
    let mut wire = Wire::new(3);
    wire.run(3_000);
    let before = wire.transitions();
    for (round, jump) in JUMPS.into_iter().enumerate() {
        wire.skews[round % 3] = jump;
        wire.run(1_000);
        assert_eq!(wire.transitions(), before, "{jump} ms");
    }
    assert!(!wire.incidents.iter().any(|(_, incident)| matches!(incident, Incident::Refused { .. })));
}

#[test]
fn machines_whose_clocks_differ_find_each_other() {
    for jump in JUMPS {
        let mut wire = Wire::new(2);
        wire.skews[1] = jump;
        wire.run(3_000);
        assert_eq!((wire.owners("web"), wire.owners("mail")), (vec![0], vec![1]), "{jump} ms");
        // Also one that starts anew, and what it said before is not believed for that.
        wire.dead.push(1);
        wire.run(1_000);
        wire.clusters[1] = cluster(1, 2_000, wire.at());
        wire.dead.clear();
        wire.inbox[1].clear();
        wire.run(3_000);
        assert_eq!((wire.owners("web"), wire.owners("mail")), (vec![0], vec![1]), "{jump} ms, started anew");
        let old = wire.recorded[1][1].clone();
        let believed = wire.replay(0, &old);
        assert!(matches!(believed.incidents[..], [Incident::Refused { .. }]), "{:?}", believed.incidents);
    }
}

#[test]
fn a_stale_owner_replayed_every_interval_does_not_delay_the_takeover() {
    let mut wire = Wire::new(2);
    wire.run(2_000);
    let last = wire.recorded[0].last().unwrap().clone();
    wire.dead.push(0);
    for _ in 0..7 {
        wire.run(50);
        wire.replay(1, &last);
    }
    assert_eq!(wire.owners("web"), [1]);
}

#[test]
fn one_s_own_heartbeats_and_garbage_change_nothing() {
    let mut wire = Wire::new(2);
    wire.run(2_000);
    let before = wire.transitions();
    for round in 0..600 {
        wire.run(10);
        for datagram in wire.recorded[0].clone().iter().rev().take(5) {
            let output = wire.replay(0, datagram);
            assert!(output.send.is_empty() && output.lower.is_empty() && output.announce.is_empty(), "{output:?}");
            let mut forged = datagram.clone();
            forged[60] ^= 1 + u8::try_from(round % 255).unwrap();
            assert!(wire.replay(1, &forged).incidents.contains(&Incident::Malformed(Malformed::Forged)));
        }
    }
    assert_eq!((wire.transitions(), wire.owners("web")), (before, vec![0]));
    assert_eq!(wire.clusters[0].status(wire.at()).counters.looped_back, 3_000);
    assert_eq!(wire.clusters[1].status(wire.at()).counters.forged, 3_000);
    // 6 s at ten a second.
    assert!(wire.recorded[0].len().abs_diff(80) <= 8, "{}", wire.recorded[0].len());
}

#[test]
fn a_move_overlaps_and_maintenance_gives_everything_away() {
    let mut wire = Wire::new(2);
    wire.run(2_000);
    wire.command(0, Command::Move { group: "web".into(), to: Some(MachineId(2)) });
    let mut without = 0;
    for _ in 0..20 {
        wire.run(1);
        without += usize::from(wire.owners("web").is_empty());
    }
    assert_eq!((without, wire.owners("web")), (0, vec![1]));

    wire.command(1, Command::Maintenance(true));
    wire.run(5);
    assert_eq!((wire.owners("web"), wire.owners("mail")), (vec![0], vec![0]));
    wire.command(1, Command::Maintenance(false));
    wire.run(2_000);
    assert_eq!(wire.owners("mail"), [1]);
}

#[test]
fn a_reload_touches_only_groups_that_changed() {
    let mut wire = Wire::new(2);
    wire.run(2_000);
    let before = wire.transitions();
    wire.command(0, Command::Groups(groups(0)));
    wire.run(500);
    assert_eq!(wire.transitions(), before);
    wire.command(0, Command::Groups(vec![group("mail", 100), group("new", 50)]));
    wire.run(10);
    assert_eq!((wire.owners("web"), wire.owners("mail")), (vec![1], vec![1]));
    let left = |(_, incident): &(usize, Incident)| matches!(incident, Incident::Transition { group, role: Role::Idle, .. } if group == "web");
    assert_eq!(wire.incidents.iter().filter(|incident| left(incident)).count(), 1);
    wire.run(500);
    assert_eq!(wire.owners("new"), [0]);
}

#[test]
fn more_groups_than_a_datagram_holds_are_all_heard() {
    let mut wire = Wire::new(2);
    let many = |priority| (0..200).map(|index| group(&format!("group{index}"), priority)).collect::<Vec<_>>();
    wire.command(0, Command::Groups(many(200)));
    wire.command(1, Command::Groups(many(100)));
    wire.run(1_000);
    assert_eq!((wire.clusters[0].owned().count(), wire.clusters[1].owned().count()), (200, 0));
}
