//! C: half-open connections: which are a word and which a record, and what becomes of each.

use lb::dataplane::clock;
use lb_common::{conntrack::State, reason::Reason, vip::scheduler};
use lb_tests::{
    packet::{Packet, tcp},
    rig::{
        Rig, Sizes, tables,
        world::{MODES, Mode, TCP, UDP, World, to_node},
    },
};

use crate::{
    flows::{client_sends, node_sends},
    support::*,
};

fn of(mode: Mode, protocol: u8, edit: impl FnOnce(&mut lb_tests::rig::world::Server)) -> Rig {
    let mut world = World::of(mode, true, protocol, 3);
    edit(world.server_mut(1));
    rig(world)
}

fn proof_of(rig: &Rig, packet: &Packet) -> Option<u32> {
    tables::find_proof(&rig.proofs, &tables::key_of(packet)).map(|(index, _)| index)
}

#[test]
fn a_word_is_enough_for_dsr_over_tcp_where_nothing_is_counted() {
    for (mode, protocol, counts, words, records) in [
        (Mode::Dsr, TCP, false, 1, 0),
        (Mode::Dsr, TCP, true, 0, 1),
        (Mode::Dsr, UDP, false, 0, 1),
        (Mode::Nat, TCP, false, 0, 2),
        (Mode::SourceNat, TCP, false, 0, 2),
    ] {
        let mut rig = of(mode, protocol, |server| {
            server.counts_pending = counts;
            server.scheduler = if counts { scheduler::LEAST } else { scheduler::SEQUENCE };
        });
        open(&mut rig, &opening(mode, true, protocol), mode);
        let found = (tables::proofs(&rig.proofs).count(), tables::records(&rig.pending).count());
        assert_eq!(found, (words, records), "{mode:?} {protocol} counts: {counts}");
    }
}

#[test]
fn half_open_connections_finish_in_the_mode_they_began_in() {
    for (before, after) in MODES.into_iter().flat_map(|a| MODES.map(|b| (a, b))).filter(|(a, b)| a != b) {
        let mut rig = of(before, TCP, |server| server.scheduler = scheduler::SEQUENCE);
        let request = opening(before, true, TCP);
        let (machine, port) = open(&mut rig, &request, before);
        rig.change(|world| world.server_mut(1).mode = after).unwrap();
        let name = format!("{before:?} to {after:?}");
        check(&mut rig, &sent(&name, &request, forwarded(before), &to_node(&request, before, machine, port)));
        if before != Mode::Dsr {
            node_sends(&mut rig, &request, tcp::SYN | tcp::ACK, before, machine);
        }
        client_sends(&mut rig, &request, tcp::ACK, before, machine);
        assert_eq!((state(&rig, &request), half_open_count(&rig)), (Some(State::Established), 0), "{name}");
    }
}

#[test]
fn the_oldest_of_four_proofs_gives_way_and_its_connection_goes_on_by_the_ring() {
    let sizes = Sizes { pending: 1, ..Sizes::all(64) };
    let mut world = World::of(Mode::Dsr, true, TCP, 3);
    world.server_mut(1).scheduler = scheduler::SEQUENCE;
    let mut rig = Rig::with(world, sizes).expect("the program loads");
    let request = |port| opening(Mode::Dsr, true, TCP).source_port(port);
    for (port, age) in [(2001, 2), (2002, 4), (2003, 1), (2004, 3)] {
        run(&mut rig, &request(port));
        tables::age_proof(&rig.proofs, proof_of(&rig, &request(port)).expect("noted"), age);
    }
    run(&mut rig, &request(2005));
    let left: Vec<u16> = (2001..=2005).filter(|port| proof_of(&rig, &request(*port)).is_some()).collect();
    assert_eq!(left, [2001, 2003, 2004, 2005], "the oldest went");
    let ack = with_flags(&request(2002), tcp::ACK);
    assert_eq!(run(&mut rig, &ack).reason, Reason::ForwardedDsr);
    assert_eq!(tables::records(&rig.flows).count(), 0, "no proof, no record");
}

#[test]
fn a_proof_is_used_up_by_the_record_that_it_makes() {
    let mut rig = of(Mode::Dsr, TCP, |_| {});
    let request = opening(Mode::Dsr, true, TCP);
    let (machine, _) = open(&mut rig, &request, Mode::Dsr);
    for (flags, what) in [(tcp::RST, "a reset"), (tcp::SYN | tcp::ACK, "a SYN-ACK"), (tcp::PSH, "data without ACK")] {
        client_sends(&mut rig, &request, flags, Mode::Dsr, machine);
        assert!(state(&rig, &request).is_none() && proof_of(&rig, &request).is_some(), "{what} proves nothing");
    }
    client_sends(&mut rig, &request, tcp::ACK, Mode::Dsr, machine);
    assert_eq!((state(&rig, &request), half_open_count(&rig)), (Some(State::Established), 0));
}

#[test]
fn the_programs_clock_is_the_daemons() {
    let mut rig = of(Mode::Nat, TCP, |_| {});
    let request = opening(Mode::Nat, true, TCP);
    let before = clock::now();
    open(&mut rig, &request, Mode::Nat);
    let created = half_open(&rig, &request).expect("noted").created;
    assert!((before.wrapping_sub(1)..=clock::now()).contains(&created), "{created}, not from {before} on");
}

#[test]
fn what_was_found_of_a_destination_is_forgotten_with_a_change_of_services() {
    let mut world = World::of(Mode::Dsr, true, TCP, 1);
    world.add(Mode::Dsr, true, TCP, 1).ports = vec![81];
    let mut rig = rig(world);
    let mut client_port = 2000;
    let mut server_of = |rig: &mut Rig, port: u16| {
        client_port += 1;
        let request = opening(Mode::Dsr, true, TCP).ports(client_port, port);
        let reason = run(rig, &request).reason;
        (reason, half_open(rig, &request).map(|record| record.virtual_server))
    };
    let found = |id| (Reason::ForwardedDsr, Some(id));
    for _ in 0..3 {
        assert_eq!([80, 81].map(|port| server_of(&mut rig, port)), [found(1), found(2)]);
    }
    rig.change(|world| (world.server_mut(1).ports, world.server_mut(2).ports) = (vec![81], vec![80])).unwrap();
    for _ in 0..3 {
        assert_eq!([80, 81].map(|port| server_of(&mut rig, port)), [found(2), found(1)]);
    }
    rig.change(|world| world.server_mut(2).ports.clear()).unwrap();
    assert_eq!(server_of(&mut rig, 80), (Reason::NoVirtualServer, None));
}
