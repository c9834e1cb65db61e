//! C: what becomes of connections when nodes fail, drain or change, and when tables are full.

use lb_common::{conntrack::State, flow::flag, reason::Reason};
use lb_tests::{
    packet::{Packet, tcp},
    rig::{
        Rig, Sizes, tables,
        world::{
            CLIENT, CLIENT6, MODES, Mode, NODE_PORT, TCP, UDP, World, from_node, number_of, slot, to_client, to_node,
        },
    },
};

use crate::{
    flows::{active, client_sends, each_tcp, node_sends, reset_of},
    support::*,
};

/// Establishes `count` connections from one client; which machine each got.
fn establish_many(rig: &mut Rig, request: &Packet, mode: Mode, count: u16) -> Vec<(Packet, u8)> {
    let packet = |i: u16| request.clone().source_port(20_000 + i);
    (0..count).map(|i| (packet(i), establish(rig, &packet(i), mode).0)).collect()
}

#[test]
fn only_the_connections_of_a_failed_node_move() {
    let mut rig = Rig::with(World::empty(), Sizes::all(256)).expect("the program loads");
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &World::of(mode, v4, protocol, 3));
        let connections = establish_many(&mut rig, &opening(mode, v4, protocol), mode, 60);
        assert!((1..=3).all(|machine| connections.iter().filter(|(_, m)| *m == machine).count() > 5));
        rig.change(|world| {
            world.node_mut(1, 2).usable = false;
            world.server_mut(1).members.retain(|member| *member != slot(1, 2));
        })
        .unwrap();
        let mut moved = 0;
        for (request, machine) in &connections {
            let (port, data) = (request.port_pair().0, with_flags(request, tcp::ACK).filled(10));
            let name = format!("{} port {port}", label(mode, v4, protocol));
            if *machine != 2 {
                check(&mut rig, &sent(name, &data, forwarded(mode), &to_node(&data, mode, *machine, port)));
                continue;
            }
            let outcome = run(&mut rig, &data);
            assert_eq!(outcome.reason, forwarded(mode), "{name}");
            let record = half_open(&rig, request).expect("placed anew");
            assert!(number_of(record.node) != 2, "{name}");
            let new = number_of(record.node);
            assert_eq!(outcome.bytes, to_node(&data, mode, new, u16::from_be(record.nat_port)).bytes(), "{name}");
            let next = run(&mut rig, &data);
            assert_eq!(next.bytes, outcome.bytes, "{name}: it stays there");
            if protocol == UDP && mode != Mode::Dsr {
                let answer = from_node(request, mode, new, u16::from_be(record.nat_port));
                check(&mut rig, &sent("answer", &answer, Reason::ForwardedReply, &to_client(request, &answer)));
            }
            assert_eq!(in_flows(&rig, request).expect("proven").node, slot(1, new), "{name}");
            moved += 1;
        }
        let rescheduled: u64 = (1..=3).map(|m| rig.stats(slot(1, m)).unwrap().rescheduled).sum();
        assert_eq!((active(&rig, 1, 2), moved > 5), (0, true));
        assert_eq!(rescheduled, moved, "counted at the new nodes");
        assert_eq!(active(&rig, 1, 1) + active(&rig, 1, 3), 60);
    }
}

#[test]
fn connections_of_a_failed_node_are_reset_where_the_pool_says_so() {
    each_tcp(2, |rig, mode, _, request| {
        let (machine, _) = establish(rig, &request, mode);
        rig.change(|world| {
            world.server_mut(1).resets_on_failure = true;
            world.node_mut(1, machine).usable = false;
            world.server_mut(1).members.retain(|member| *member != slot(1, machine));
        })
        .unwrap();
        let data = with_flags(&request, tcp::ACK).filled(33);
        check(rig, &sent(format!("{mode:?}"), &data, Reason::AnsweredReset, &reset_of(&data)));
        assert_eq!(in_flows(rig, &request), None);
        assert_eq!(active(rig, 1, machine), 0);
        let (other, _) = open(rig, &request, mode);
        assert_ne!(other, machine, "a new connection is welcome at once");
    });
}

#[test]
fn a_syn_to_a_failed_node_opens_a_new_connection_whatever_the_policy() {
    each_tcp(2, |rig, mode, _, request| {
        for resets in [false, true] {
            fresh(rig, &World::of(mode, request.bytes()[12] == 8, TCP, 2));
            let (machine, _) = open(rig, &request, mode);
            rig.change(|world| {
                world.server_mut(1).resets_on_failure = resets;
                world.node_mut(1, machine).usable = false;
                world.server_mut(1).members.retain(|member| *member != slot(1, machine));
            })
            .unwrap();
            let (other, _) = open(rig, &request, mode);
            assert_ne!(other, machine);
            assert_eq!(rig.stats(slot(1, other)).unwrap().rescheduled, 0);
        }
    });
}

#[test]
fn a_slot_that_was_given_to_another_node_is_not_believed() {
    each_tcp(1, |rig, mode, _, request| {
        establish(rig, &request, mode);
        rig.change(|world| world.node_mut(1, 1).generation += 1).unwrap();
        client_sends(rig, &request, tcp::ACK, mode, 1);
        let record = half_open(rig, &request).expect("opened anew");
        assert_eq!(record.control.generation, 8);
        assert_eq!(in_flows(rig, &request), None);
    });
}

#[test]
fn a_draining_node_keeps_its_connections_and_gets_no_new_ones() {
    let mut rig = Rig::with(World::empty(), Sizes::all(256)).expect("the program loads");
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &World::of(mode, v4, protocol, 2));
        let connections = establish_many(&mut rig, &opening(mode, v4, protocol), mode, 20);
        rig.change(|world| world.server_mut(1).members = vec![slot(1, 1)]).unwrap();
        for (request, machine) in &connections {
            let (port, data) = (request.port_pair().0, with_flags(request, tcp::ACK));
            check(&mut rig, &sent("drained", &data, forwarded(mode), &to_node(&data, mode, *machine, port)));
        }
        for port in 30_000..30_020 {
            let (machine, _) = open(&mut rig, &opening(mode, v4, protocol).source_port(port), mode);
            assert_eq!(machine, 1, "{}", label(mode, v4, protocol));
        }
    }
}

#[test]
fn connections_finish_in_the_mode_they_began_in() {
    let mut rig = rig(World::empty());
    for (before, v4, protocol) in combinations() {
        for after in MODES.into_iter().filter(|after| *after != before) {
            // The VIP stays; the pool's forwarding changes.
            let world = |mode: Mode| {
                let mut world = World::of(mode, v4, protocol, 1);
                world.server_mut(1).vips = vec![Mode::Dsr.vip(v4)];
                world.node_mut(1, 1).port = NODE_PORT;
                world
            };
            fresh(&mut rig, &world(before));
            let old = opening(Mode::Dsr, v4, protocol);
            establish(&mut rig, &old, before);
            rig.configure(world(after)).unwrap();
            client_sends(&mut rig, &old, tcp::ACK, before, 1);
            if before != Mode::Dsr {
                node_sends(&mut rig, &old, tcp::ACK, before, 1);
            }
            // A NAT node port may be taken by the old connection: another client port.
            let new = old.clone().source_port(31_338);
            let (machine, port) = establish(&mut rig, &new, after);
            assert_eq!((machine, port), (1, 31_338), "{before:?} to {after:?}");
        }
    }
}

#[test]
fn clients_find_their_node_again_by_prefix() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        let mut world = World::of(mode, v4, protocol, 3);
        world.server_mut(1).scheduler = lb_common::vip::scheduler::SEQUENCE;
        world.server_mut(1).persistence = Some(if v4 { 24 } else { 72 });
        fresh(&mut rig, &world);
        let from = |net: u8, host: u8, port: u16| {
            let request = opening(mode, v4, protocol).source_port(port);
            if v4 {
                let [a, b, _, _] = CLIENT.octets();
                return request.source(std::net::Ipv4Addr::new(a, b, net, host));
            }
            let mut octets = CLIENT6.octets();
            (octets[8], octets[9], octets[15]) = (net, host, host);
            request.source(std::net::Ipv6Addr::from(octets))
        };
        let (first, _) = open(&mut rig, &from(1, 1, 1025), mode);
        for port in 1026..1032 {
            assert_eq!(open(&mut rig, &from(1, port as u8, port), mode).0, first, "{}", label(mode, v4, protocol));
        }
        let (second, _) = open(&mut rig, &from(2, 1, 1025), mode);
        assert_ne!(second, first, "round robin goes on for another network");
        assert_eq!(tables::records(&rig.affinity).count(), 2);

        // A draining node keeps its persistent clients; a failed one does not.
        rig.change(|world| world.server_mut(1).members.retain(|member| *member != slot(1, first))).unwrap();
        assert_eq!(open(&mut rig, &from(1, 9, 2000), mode).0, first);
        rig.change(|world| world.node_mut(1, first).usable = false).unwrap();
        let (other, _) = open(&mut rig, &from(1, 9, 2001), mode);
        assert_ne!(other, first);
        assert_eq!(open(&mut rig, &from(1, 10, 2002), mode).0, other, "and stays with the new one");
        assert_eq!(tables::records(&rig.affinity).count(), 2, "one record per network");

        let (index, record) = tables::records(&rig.affinity).find(|(_, r)| r.node == slot(1, other)).expect("noted");
        tables::age(&rig.affinity, index, tables::lifetime(&record));
        open(&mut rig, &from(1, 10, 2003), mode);
        assert_eq!(tables::records(&rig.affinity).count(), 2, "an old one is replaced");
    }
}

#[test]
fn a_full_table_of_half_open_connections_evicts_and_leaves_established_ones_alone() {
    let sizes = Sizes { pending: 4, ..Sizes::all(64) };
    let mut rig = Rig::with(World::empty(), sizes).expect("the program loads");
    for (mode, v4, _) in combinations().filter(|(_, _, protocol)| *protocol == TCP) {
        fresh(&mut rig, &World::of(mode, v4, TCP, 1));
        let request = opening(mode, v4, TCP);
        establish(&mut rig, &request, mode);
        for port in 2000..2400 {
            let syn = request.clone().source_port(port);
            let outcome = run(&mut rig, &syn);
            let raced = mode != Mode::Dsr && outcome.reason == Reason::InsertRace;
            assert!(raced || outcome.reason == forwarded(mode), "{mode:?}: {:?}", outcome.reason);
        }
        assert!(half_open_count(&rig) <= 16);
        assert_eq!(tables::records(&rig.flows).count(), if mode == Mode::Dsr { 1 } else { 2 });
        client_sends(&mut rig, &request, tcp::ACK, mode, 1);
    }
}

#[test]
fn without_room_in_the_table_a_connection_goes_on_where_it_is() {
    let sizes = Sizes { flows: 2, pending: 256, ..Sizes::all(64) };
    let mut rig = Rig::with(World::empty(), sizes).expect("the program loads");
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &World::of(mode, v4, protocol, 1));
        let mut promoted = 0;
        for port in 2000..2040 {
            let request = opening(mode, v4, protocol).source_port(port);
            open(&mut rig, &request, mode);
            if mode != Mode::Dsr {
                let answer = with_flags(&from_node(&request, mode, 1, port), tcp::SYN | tcp::ACK);
                check(&mut rig, &sent("answer", &answer, Reason::ForwardedReply, &to_client(&request, &answer)));
            }
            for _ in 0..3 {
                let data = with_flags(&request, tcp::ACK);
                check(&mut rig, &sent("goes on", &data, forwarded(mode), &to_node(&data, mode, 1, port)));
            }
            promoted += u64::from(in_flows(&rig, &request).is_some());
        }
        let live = tables::records(&rig.flows).count();
        assert!(live <= 8 && promoted as usize == if mode == Mode::Dsr { live } else { live / 2 }, "{live} {promoted}");
        assert_eq!(active(&rig, 1, 1), promoted, "{}", label(mode, v4, protocol));
    }
}

#[test]
fn a_full_bucket_gives_way_to_new_connections_only_by_what_looks_forged() {
    let sizes = Sizes { flows: 2, pending: 256, ..Sizes::all(64) };
    let mut rig = Rig::with(World::empty(), sizes).expect("the program loads");
    for (v4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        let request = opening(Mode::Dsr, v4, protocol);
        // Seconds that a connection lasted and that it has been silent for; whether it gives way.
        for (lasted, silent, gives_way) in [(0, 58, true), (2, 100, true), (3, 100, false), (0, 55, false)] {
            let name = format!("{}: {lasted} s, silent for {silent}", label(Mode::Dsr, v4, protocol));
            fresh(&mut rig, &World::of(Mode::Dsr, v4, protocol, 1));
            let mut ports = 2000..;
            while tables::records(&rig.flows).count() < 8 {
                let packet = request.clone().source_port(ports.next().expect("there are enough"));
                open(&mut rig, &packet, Mode::Dsr);
                run(&mut rig, &with_flags(&packet, tcp::ACK));
            }
            let before: Vec<u32> = (0..8).collect();
            for index in &before {
                let mut record = rig.flows.read(*index);
                record.control.seen -= silent;
                record.created = record.control.seen - lasted;
                rig.flows.write(*index, &record);
            }
            let late = request.clone().source_port(1999);
            open(&mut rig, &late, Mode::Dsr);
            run(&mut rig, &with_flags(&late, tcp::ACK));
            assert_eq!(in_flows(&rig, &late).is_some(), gives_way, "{name}");
            assert_eq!(rig.stats(slot(1, 1)).unwrap().evicted, u64::from(gives_way), "{name}");
            assert_eq!((tables::records(&rig.flows).count(), active(&rig, 1, 1)), (8, 8), "{name}");
        }
    }
    // What is translated is proven by both sides and never gives way.
    fresh(&mut rig, &World::of(Mode::Nat, true, TCP, 1));
    for port in 2000..2040 {
        let request = opening(Mode::Nat, true, TCP).source_port(port);
        open(&mut rig, &request, Mode::Nat);
        let answer = with_flags(&from_node(&request, Mode::Nat, 1, port), tcp::SYN | tcp::ACK);
        run(&mut rig, &answer);
        run(&mut rig, &with_flags(&request, tcp::ACK));
        for index in 0..8 {
            let mut record = rig.flows.read(index);
            if record.control.state == State::Established as u8 && record.control.flags & flag::REPLY == 0 {
                (record.control.seen, record.created) =
                    (record.created.wrapping_sub(100), record.created.wrapping_sub(100));
                rig.flows.write(index, &record);
            }
        }
    }
    assert_eq!(rig.stats(slot(1, 1)).unwrap().evicted, 0);
}
