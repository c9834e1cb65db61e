//! The capturing program: it decides what the other one does, and tells it.

use lb_common::{
    capture::{Filter, Net, direction},
    packet::protocol,
    reason::Reason,
};
use lb_tests::{
    golden,
    packet::tcp,
    rig::{
        Outcome, Rig, Sizes, action,
        capture::{RING, Tap, Told, everything},
        world::{IFINDEX, Mode, TCP, UDP, World, from_node},
    },
};

use crate::support::{CLIENT_PORT, opening, with_flags};

fn capturing(mode: Mode) -> (Rig, Tap) {
    Rig::capturing(World::of(mode, true, TCP, 1), Sizes::all(64), everything()).expect("root is needed")
}

/// What became of a packet, and what was told of it.
fn run(rig: &mut Rig, tap: &mut Tap, frame: &[u8]) -> (Outcome, Vec<Told>) {
    let outcome = rig.run(frame).expect("it runs");
    (outcome, tap.told().expect("records are whole"))
}

#[test]
fn golden_packets_have_the_same_fate_and_are_told() {
    let stories = golden::parse(golden::TEXT).expect("golden.txt can be read");
    let (mut rig, mut tap) = capturing(Mode::Dsr);
    for story in &stories {
        story.replay(&mut rig).unwrap_or_else(|error| panic!("{error:#}"));
        let mut told = tap.told().expect("records are whole").into_iter();
        for packet in &story.packets {
            let (record, data) = told.next().unwrap_or_else(|| panic!("{}{packet}: not told", story.name));
            assert_eq!(
                (record.direction, record.reason),
                (direction::IN, packet.reason as u8),
                "{}{packet}",
                story.name
            );
            assert_eq!((data.len(), record.length as usize), (packet.frame.len(), packet.frame.len()), "{packet}");
            assert_eq!(data, packet.frame, "{}{packet}", story.name);
            if !matches!(packet.action, action::TX | action::REDIRECT) {
                continue;
            }
            let (record, data) =
                told.next().unwrap_or_else(|| panic!("{}{packet}: not told how it leaves", story.name));
            assert_eq!((record.direction, record.reason), (direction::OUT, packet.reason as u8), "{packet}");
            assert_eq!(Some(data), packet.out, "{}{packet}", story.name);
        }
        assert_eq!(told.next(), None, "{}", story.name);
    }
    assert_eq!(tap.control().expect("read").lost, 0);
}

#[test]
fn a_record_says_who_takes_the_packet_first_and_later() {
    for mode in [Mode::Dsr, Mode::Nat, Mode::SourceNat] {
        let (mut rig, mut tap) = capturing(mode);
        let request = opening(mode, true, TCP);
        let more = with_flags(&request, tcp::ACK);
        let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::SYN | tcp::ACK);
        let answer = (mode != Mode::Dsr).then_some(answer);
        for packet in [Some(request), answer, Some(more.clone()), Some(more.clone()), Some(more)].into_iter().flatten()
        {
            let (outcome, told) = run(&mut rig, &mut tap, &packet.bytes());
            assert_eq!(told.len(), 2, "{mode:?}: {}", outcome.reason.name());
            for (record, _) in told {
                assert!(record.virtual_server != 0 && record.node != 0, "{mode:?}: {record:?}");
                assert!(record.ifindex == IFINDEX || record.direction == direction::OUT, "{mode:?}: {record:?}");
                assert_ne!(record.at_ns, 0);
            }
        }
    }
}

#[test]
fn only_what_is_asked_for_is_told() {
    let (mut rig, mut tap) = capturing(Mode::SourceNat);
    let request = opening(Mode::SourceNat, true, TCP);
    let frame = request.bytes();
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&frame[at..at + 4]);
        octets
    };
    let (client, vip) = (Net::new(address(26), 32), Net::new(address(30), 32));
    let everything = everything();
    let all = everything.filter;
    let one = |reason: Reason| 1 << reason as u32;
    let cases = [
        ("everything", all, 2),
        ("its source", Filter { source: client, version: 4, ..all }, 2),
        ("its destination", Filter { destination: vip, ..all }, 2),
        ("a destination that it is not for", Filter { destination: client, ..all }, 0),
        ("the port of the node, which it gets", Filter { port: 8080, ..all }, 2),
        ("another protocol", Filter { protocol: protocol::UDP, ..all }, 0),
        ("its reason", Filter { reasons: one(Reason::ForwardedNat), ..all }, 2),
        ("another reason", Filter { reasons: one(Reason::NoNode), ..all }, 0),
    ];
    for (name, filter, expected) in cases {
        tap.ask(lb_common::capture::Control { filter, ..everything }).expect("written");
        assert_eq!(run(&mut rig, &mut tap, &frame).1.len(), expected, "{name}");
    }
    let both = everything.directions;
    for only in [direction::IN, direction::OUT] {
        tap.ask(lb_common::capture::Control { directions: both & u32::from(only), ..everything }).expect("written");
        let told = run(&mut rig, &mut tap, &frame).1;
        assert!(matches!(&told[..], [(record, _)] if record.direction == only), "{told:?}");
    }
    tap.ask(lb_common::capture::Control { snaplen: 34, ..everything }).expect("written");
    let told = run(&mut rig, &mut tap, &frame).1;
    assert!(told.iter().all(|(record, data)| data.len() == 34 && record.length as usize == frame.len()), "{told:?}");
}

#[test]
fn it_ends_by_count_and_by_time_and_a_full_ring_loses() {
    let (mut rig, mut tap) = capturing(Mode::Dsr);
    let frame = opening(Mode::Dsr, true, TCP).bytes();
    let everything = everything();
    tap.ask(lb_common::capture::Control { left: 3, ..everything }).expect("written");
    let told: Vec<Told> = (0..9).flat_map(|_| run(&mut rig, &mut tap, &frame).1).collect();
    assert_eq!(told.len(), 3);
    tap.ask(lb_common::capture::Control { until_ns: 1, ..everything }).expect("written");
    assert_eq!(run(&mut rig, &mut tap, &frame).1, []);
    tap.ask(everything).expect("written");
    let frame = opening(Mode::Dsr, true, UDP).filled(1400).bytes();
    let runs = 2 * RING as usize / frame.len();
    for _ in 0..runs {
        assert!(rig.run(&frame).is_ok(), "what is not told is decided all the same");
    }
    let (told, control) = (tap.told().expect("whole").len(), tap.control().expect("read"));
    assert!(told > 0 && control.lost > 0, "{told} told, {} lost", control.lost);
    assert_eq!(i64::MAX - control.left, told as i64, "what is lost is not counted as told");
}
