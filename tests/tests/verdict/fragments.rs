//! B, C: fragmented datagrams follow their first fragment; DSR places those of unknown datagrams by addresses alone.

use std::net::IpAddr;

use lb_common::reason::Reason;
use lb_tests::{
    packet::{Packet, tcp},
    rig::{
        tables,
        world::{
            LB_MAC, Mode, OTHER, OTHER6, TCP, UDP, VLAN, World, from_node, node_mac, number_of, slot, to_client,
            to_node,
        },
    },
};

use crate::support::*;

/// A datagram (or segment) of 80 bytes of payload in three fragments.
fn parts(whole: &Packet) -> [Packet; 3] {
    let whole = whole.clone().filled(80).id(0x7777);
    let length = 80 + if whole.is_tcp() { 20 } else { 8 };
    [whole.clone().part(0, 32), whole.clone().part(32, 64), whole.part(64, length)]
}

/// What opens a connection, in one TCP segment or datagram that is fragmented.
fn request(mode: Mode, v4: bool, protocol: u8) -> Packet {
    opening(mode, v4, protocol)
}

fn unknown(mode: Mode, name: &str, packet: &Packet) -> Case {
    match mode {
        Mode::Dsr => sent(name, packet, Reason::ForwardedDsr, &packet.clone().macs(LB_MAC, node_mac(1)).retagged(0)),
        Mode::Nat | Mode::SourceNat => dropped(name, packet, Reason::UnknownFragment),
    }
}

#[test]
fn fragments_follow_the_first_one_in_every_mode() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        for tagged in [false, true] {
            rig.forget().unwrap();
            let whole = request(mode, v4, protocol);
            let whole = if tagged { whole.vlan(VLAN) } else { whole };
            for (i, part) in parts(&whole).iter().enumerate() {
                let name = format!("{} part {i}", label(mode, v4, protocol));
                check(&mut rig, &sent(name, part, forwarded(mode), &to_node(part, mode, 1, CLIENT_PORT)));
            }
            let [_, second, third] = parts(&whole);
            for late in [third, second.clone(), second.clone()] {
                check(&mut rig, &sent("in any order", &late, forwarded(mode), &to_node(&late, mode, 1, CLIENT_PORT)));
            }
            check(&mut rig, &unknown(mode, "of another datagram", &second.id(0x7778)));
        }
    }
}

#[test]
fn fragments_of_an_established_connection_and_of_its_answers() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        rig.forget().unwrap();
        let request = request(mode, v4, protocol);
        establish(&mut rig, &request, mode);
        for part in parts(&with_flags(&request, tcp::ACK)) {
            check(&mut rig, &sent("request", &part, forwarded(mode), &to_node(&part, mode, 1, CLIENT_PORT)));
        }
        if mode == Mode::Dsr {
            continue;
        }
        let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::ACK);
        let [first, second, third] = parts(&answer);
        check(&mut rig, &passed("not begun", &third, Reason::NotVirtual));
        for part in [first, second, third] {
            let name = format!("{} answer", label(mode, v4, protocol));
            check(&mut rig, &sent(name, &part, Reason::ForwardedReply, &to_client(&request, &part)));
        }
    }
}

#[test]
fn an_answer_in_fragments_may_be_what_proves_a_datagram() {
    let mut rig = rig(World::standard());
    for (mode, v4, _) in combinations().filter(|(mode, _, protocol)| *mode != Mode::Dsr && *protocol == UDP) {
        rig.forget().unwrap();
        let request = request(mode, v4, UDP);
        open(&mut rig, &request, mode);
        for part in parts(&from_node(&request, mode, 1, CLIENT_PORT)) {
            let name = label(mode, v4, UDP);
            check(&mut rig, &sent(name, &part, Reason::ForwardedReply, &to_client(&request, &part)));
        }
    }
}

#[test]
fn without_the_first_one_dsr_goes_by_addresses_and_nat_cannot() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &World::of(mode, v4, protocol, 3));
        let [first, second, third] = parts(&request(mode, v4, protocol));
        if mode != Mode::Dsr {
            check(&mut rig, &dropped(label(mode, v4, protocol), &third, Reason::UnknownFragment));
            continue;
        }
        let outcome = run(&mut rig, &third);
        assert_eq!(outcome.reason, Reason::ForwardedDsr);
        let machine = outcome.bytes[5];
        for part in [&first, &second] {
            assert_eq!(run(&mut rig, part).bytes[5], machine, "they arrive at one node in any order");
        }
        // Other ports, the same addresses: the same node.
        for port in 2000..2020 {
            let [first, ..] = parts(&request(mode, v4, protocol).source_port(port).id(port.into()));
            assert_eq!(run(&mut rig, &first).bytes[5], machine);
        }
    }
}

#[test]
fn a_note_of_a_datagram_is_good_for_seconds_and_for_the_newest_datagram() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        rig.forget().unwrap();
        let name = label(mode, v4, protocol);
        let [first, second, _] = parts(&request(mode, v4, protocol));
        run(&mut rig, &first);
        let (index, record) = tables::records(&rig.fragments).next().expect("noted");
        tables::age(&rig.fragments, index, tables::lifetime(&record));
        check(&mut rig, &unknown(mode, &format!("{name}: too late"), &second));
        for _ in 0..3 {
            run(&mut rig, &first);
        }
        assert_eq!(tables::records(&rig.fragments).count(), 1, "{name}: one note per datagram");
    }
}

#[test]
fn a_datagram_is_followed_to_where_its_connection_went_anew() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations().filter(|(mode, _, _)| *mode != Mode::Dsr) {
        fresh(&mut rig, &World::of(mode, v4, protocol, 2));
        let whole = request(mode, v4, protocol);
        let (machine, _) = establish(&mut rig, &whole, mode);
        let [first, second, _] = parts(&with_flags(&whole, tcp::ACK));
        rig.change(|world| {
            world.node_mut(1, machine).usable = false;
            world.server_mut(1).members.retain(|member| *member != slot(1, machine));
        })
        .unwrap();
        run(&mut rig, &first);
        let record = half_open(&rig, &whole).expect("moved");
        let (other, port) = (number_of(record.node), u16::from_be(record.nat_port));
        check(&mut rig, &sent("after it", &second, forwarded(mode), &to_node(&second, mode, other, port)));
    }
}

#[test]
fn fragments_to_a_failed_node_are_dropped() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        rig.forget().unwrap();
        let [first, second, _] = parts(&request(mode, v4, protocol));
        run(&mut rig, &first);
        let id = rig.world.find(mode, v4, protocol).id;
        rig.change(|world| world.node_mut(id, 1).usable = false).unwrap();
        check(&mut rig, &dropped(label(mode, v4, protocol), &second, Reason::UnknownFragment));
        rig.change(|world| world.node_mut(id, 1).usable = true).unwrap();
    }
}

#[test]
fn tiny_first_fragments_and_fragments_of_others() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        let other: IpAddr = if v4 { OTHER.into() } else { OTHER6.into() };
        let whole = request(mode, v4, protocol).filled(80);
        let tiny = if protocol == TCP { vec![8, 16] } else { Vec::new() };
        for length in tiny.into_iter().chain([0]) {
            let packet = whole.clone().part(0, length);
            check(&mut rig, &dropped(format!("{name}: {length} bytes"), &packet, Reason::TinyFragment));
            check(&mut rig, &passed(&name, &packet.destination(other), Reason::NotVirtual));
        }
        for part in parts(&whole) {
            check(&mut rig, &passed(format!("{name}: not to a VIP"), &part.destination(other), Reason::NotVirtual));
        }
        let port = whole.clone().destination_port(81).part(0, 32);
        check(&mut rig, &passed(format!("{name}: a port that is not served"), &port, Reason::NoVirtualServer));
        if v4 {
            rig.forget().unwrap();
            let whole = request(mode, v4, protocol).filled(8).dont_fragment();
            let out = to_node(&whole, mode, 1, CLIENT_PORT);
            check(&mut rig, &sent(format!("{name}: DF is no fragment"), &whole, forwarded(mode), &out));
        }
    }
}

#[test]
fn fragments_of_an_answer_never_reach_the_client_that_has_its_place_now() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations().filter(|(mode, _, _)| *mode != Mode::Dsr) {
        rig.forget().unwrap();
        let request = request(mode, v4, protocol);
        establish(&mut rig, &request, mode);
        let [first, second, _] = parts(&with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::ACK));
        check(&mut rig, &sent("first", &first, Reason::ForwardedReply, &to_client(&request, &first)));
        // Both places are given to a connection of the same two addresses, by other ports.
        for packet in [&request, &first] {
            let (index, mut record) = tables::find(&rig.flows, &tables::key_of(packet)).expect("a half");
            let mut words = record.key.words();
            words[0] ^= if packet.port_pair().1 == 80 { 1 } else { 1 << 16 };
            record.key = lb_common::flow::FlowKey::from_words(words);
            rig.flows.write(index, &record);
        }
        check(&mut rig, &dropped(label(mode, v4, protocol), &second, Reason::UnknownFragment));
    }
}
