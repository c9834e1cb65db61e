//! The wire form, byte by byte, and who is believed.

use std::time::{Duration, Instant};

use super::{Boot, Freshness, GroupId, Heartbeat, Key, MAX_BYTES, MAX_ENTRIES, Malformed, Path, Refused};
use crate::failover::election::{MachineId, Role, Says};

const OWN: (MachineId, Boot) = (MachineId(1), Boot(11));
const PEER: MachineId = MachineId(2);
const WALL: u64 = 1_800_000_000_000;

fn heartbeat(sequence: u64) -> Heartbeat {
    Heartbeat {
        sender: PEER,
        boot: Boot(22),
        sequence,
        sent_ms: WALL,
        interval_ms: 100,
        echoes: vec![OWN],
        groups: vec![
            (GroupId::of_name("web"), Says { role: Role::Active, priority: 100, successor: Some(OWN.0) }),
            (GroupId::of_name("mail"), Says { role: Role::Backup, priority: 0, successor: None }),
        ],
    }
}

fn key() -> Key {
    Key::new(3, b"0123456789abcdef")
}

fn written(heartbeat: &Heartbeat) -> Vec<u8> {
    let mut out = Vec::new();
    heartbeat.write(&key(), &mut out);
    out
}

#[test]
fn it_reads_what_it_writes() {
    let datagram = written(&heartbeat(7));
    assert_eq!(datagram.len(), 48 + 16 + 2 * 16 + 16);
    assert_eq!(Heartbeat::read(&datagram, &[Key::new(2, b"old"), key()]), Ok(heartbeat(7)));
}

#[test]
fn the_wire_form_stays_what_it_is() {
    let datagram = written(&heartbeat(7));
    assert_eq!(datagram[..8], [b'L', b'B', b'H', b'1', 3, 0, 0, 112]);
    assert_eq!(datagram[24..32], 7_u64.to_be_bytes());
    // FNV-1a of "web", role 2, priority 100, successor 1.
    assert_eq!(datagram[64..80], [0x0f, 0xd9, 0xbc, 0x91, 2, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn every_truncation_and_every_changed_bit_is_refused() {
    let datagram = written(&heartbeat(7));
    for length in 0..datagram.len() {
        assert!(Heartbeat::read(&datagram[..length], &[key()]).is_err(), "{length} bytes");
    }
    for bit in 0..datagram.len() * 8 {
        let mut changed = datagram.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Heartbeat::read(&changed, &[key()]).is_err(), "bit {bit}");
    }
    let mut longer = datagram;
    longer.push(0);
    assert_eq!(Heartbeat::read(&longer, &[key()]), Err(Malformed::Format));
}

#[test]
fn another_key_is_told_from_another_protocol() {
    let datagram = written(&heartbeat(7));
    assert_eq!(Heartbeat::read(&datagram, &[Key::new(3, b"another")]), Err(Malformed::Forged));
    assert_eq!(Heartbeat::read(&datagram, &[Key::new(4, b"0123456789abcdef")]), Err(Malformed::Forged));
    assert_eq!(Heartbeat::read(&[0x31; 100], &[key()]), Err(Malformed::Foreign));
}

#[test]
fn what_is_too_much_for_a_frame_is_left_out() {
    let mut large = heartbeat(1);
    large.groups =
        (0..200).map(|id| (GroupId(id), Says { role: Role::Backup, priority: 1, successor: None })).collect();
    let datagram = written(&large);
    assert!(datagram.len() <= MAX_BYTES);
    assert_eq!(Heartbeat::read(&datagram, &[key()]).unwrap().groups.len(), MAX_ENTRIES - 1);
}

fn path(socket: usize) -> Path {
    Path { socket, from: "192.0.2.2:694".parse().unwrap() }
}

/// A step: what arrives, what is made of it.
type Step = (&'static str, Heartbeat, Result<(), Refused>);

fn play(steps: impl IntoIterator<Item = Step>) {
    let start = Instant::now();
    let mut freshness = Freshness::new(OWN.0, OWN.1);
    for (name, heartbeat, expected) in steps {
        assert_eq!(freshness.accept(&heartbeat, path(0), start, WALL), expected, "{name}");
    }
}

#[test]
fn a_recording_is_not_believed() {
    let with = |sequence, boot| Heartbeat { boot: Boot(boot), ..heartbeat(sequence) };
    play([
        ("first", with(10, 22), Ok(())),
        ("the same again", with(10, 22), Err(Refused::Stale)),
        ("an older one", with(9, 22), Err(Refused::Stale)),
        ("the next", with(12, 22), Ok(())),
        ("after a restart", with(1, 23), Ok(())),
        ("of the start before", with(99, 22), Err(Refused::Stale)),
        ("our own", Heartbeat { sender: OWN.0, ..heartbeat(50) }, Err(Refused::Own)),
    ]);
}

#[test]
fn what_comes_by_every_path_is_a_copy_and_what_comes_twice_by_one_is_not() {
    let start = Instant::now();
    let mut freshness = Freshness::new(OWN.0, OWN.1);
    let mut accept = |sequence, by| freshness.accept(&heartbeat(sequence), path(by), start, WALL);
    for (name, sequence, by, expected) in [
        ("the first", 10, 0, Ok(())),
        ("by another path", 10, 1, Err(Refused::Copy)),
        ("again by it", 10, 1, Err(Refused::Stale)),
        ("again by the first", 10, 0, Err(Refused::Stale)),
        ("the other path is faster", 11, 1, Ok(())),
        ("and again", 12, 1, Ok(())),
        ("the first follows", 11, 0, Err(Refused::Copy)),
        ("in its order", 12, 0, Err(Refused::Copy)),
        ("and is repeated", 11, 0, Err(Refused::Stale)),
    ] {
        assert_eq!(accept(sequence, by), expected, "{name}");
    }
    // Somebody sends one recording from everywhere: there is an end to what is taken for paths.
    let copies = (2..200).filter(|by| accept(12, *by) == Err(Refused::Copy)).count();
    assert!(copies < 32, "{copies}");
    assert_eq!((accept(13, 0), accept(13, 1)), (Ok(()), Err(Refused::Copy)), "the paths that were there go on");
}

#[test]
fn a_sender_that_has_not_heard_us_is_believed_by_its_clock_alone() {
    let deaf = |sequence, sent_ms| Heartbeat { echoes: vec![], sent_ms, ..heartbeat(sequence) };
    play([
        ("an old recording", deaf(1, WALL - 60_000), Err(Refused::Unproven)),
        (
            "one that names an earlier start of ours",
            Heartbeat { echoes: vec![(OWN.0, Boot(10))], ..deaf(1, 0) },
            Err(Refused::Unproven),
        ),
        ("close clocks", deaf(2, WALL - 4_000), Ok(())),
        ("its clock jumps", deaf(3, WALL + 3_600_000), Err(Refused::Unproven)),
        ("it hears us", Heartbeat { sent_ms: 0, ..heartbeat(4) }, Ok(())),
        ("proven once, its clock matters no more", deaf(5, 0), Ok(())),
    ]);
}

#[test]
fn echoes_name_who_was_heard_lately() {
    let start = Instant::now();
    let mut freshness = Freshness::new(OWN.0, OWN.1);
    freshness.accept(&heartbeat(1), path(0), start, WALL).unwrap();
    let echoes =
        |at: u64| freshness.echoes(start + Duration::from_millis(at), Duration::from_millis(325)).collect::<Vec<_>>();
    assert_eq!(echoes(325), [(PEER, Boot(22))]);
    assert_eq!(echoes(326), []);
}
