//! D: translation there and back, source ports, and what happens when half of a connection is lost.

use std::collections::BTreeSet;

use lb_common::{flow::flag, reason::Reason};
use lb_tests::{
    packet::{Packet, Sum, tcp},
    rig::{
        Rig, Sizes, tables,
        world::{
            CLIENT_MAC, LB_MAC, LB2_MAC, Mode, NODE_PORT, SLOT2, TCP, UDP, VLAN, World, from_node, node_address,
            node_mac, to_client, to_node,
        },
    },
};

use crate::support::*;

/// Each NAT mode, family and protocol.
fn translated() -> impl Iterator<Item = (Mode, bool, u8)> {
    combinations().filter(|(mode, _, _)| *mode != Mode::Dsr)
}

/// An answer of node 1 to an established connection.
fn answer(request: &Packet, mode: Mode, port: u16) -> Packet {
    with_flags(&from_node(request, mode, 1, port), tcp::ACK)
}

#[test]
fn answers_are_restored_exactly_whatever_they_carry() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in translated() {
        for request in [opening(mode, v4, protocol), opening(mode, v4, protocol).vlan(VLAN)] {
            rig.forget().unwrap();
            establish(&mut rig, &request, mode);
            let plain = answer(&request, mode, CLIENT_PORT);
            let routed = if v4 { plain.clone().options(&[148, 4, 0, 0]) } else { plain.clone().extension(60, 0) };
            for (what, packet) in [
                ("empty", plain.clone()),
                ("odd length", plain.clone().filled(1233)),
                ("full", plain.clone().filled(1400)),
                ("ecn", plain.clone().class(3).filled(7)),
                ("a wrong checksum stays wrong", plain.clone().filled(7).sum(Sum::Off(0x1234))),
                ("padded", plain.clone().padding(&[1; 5])),
                ("options or extension headers", routed.filled(9)),
            ] {
                let name = format!("{}: {what}", label(mode, v4, protocol));
                check(&mut rig, &sent(name, &packet, Reason::ForwardedReply, &to_client(&request, &packet)));
            }
            if protocol == UDP && v4 {
                let packet = plain.filled(7).sum(Sum::Zero);
                check(&mut rig, &sent("no checksum", &packet, Reason::ForwardedReply, &to_client(&request, &packet)));
            }
        }
    }
}

#[test]
fn answers_of_nobody_pass_to_the_host() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in translated() {
        let request = opening(mode, v4, protocol);
        let name = label(mode, v4, protocol);
        check(&mut rig, &passed(&name, &answer(&request, mode, CLIENT_PORT), Reason::NotVirtual));
        establish(&mut rig, &request, mode);
        let right = answer(&request, mode, CLIENT_PORT);
        for (what, packet) in [
            ("another port of the node", right.clone().source_port(NODE_PORT + 1)),
            ("another client port", right.clone().destination_port(CLIENT_PORT + 1)),
            ("another node", right.clone().source(node_address(v4, 2))),
        ] {
            check(&mut rig, &passed(format!("{name}: {what}"), &packet, Reason::NotVirtual));
        }
    }
}

#[test]
fn a_port_of_zero_at_the_node_keeps_the_clients_choice() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in translated() {
        let mut world = World::of(mode, v4, protocol, 1);
        world.node_mut(1, 1).port = 0;
        world.server_mut(1).ports = vec![80, 443];
        // The filter marks nodes with a port; the daemon marks all nodes of NAT pools.
        fresh(&mut rig, &world);
        for port in [80, 443] {
            let request = opening(mode, v4, protocol).destination_port(port).source_port(2000 + port);
            let out = to_node(&request, mode, 1, 2000 + port).destination_port(port);
            check(&mut rig, &sent(label(mode, v4, protocol), &request, forwarded(mode), &out));
        }
    }
}

#[test]
fn source_nat_keeps_the_clients_port_where_it_may() {
    let mut rig = rig(World::empty());
    for (v4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        let mut world = World::of(Mode::SourceNat, v4, protocol, 1);
        world.server_mut(1).nat_ports = (2000, 1000);
        fresh(&mut rig, &world);
        let from = |port: u16| opening(Mode::SourceNat, v4, protocol).source_port(port);
        for port in [2000, 2500, 2999] {
            assert_eq!(open(&mut rig, &from(port), Mode::SourceNat).1, port);
        }
        for port in [1, 1999, 3000, 65_535] {
            let (_, taken) = open(&mut rig, &from(port), Mode::SourceNat);
            assert!((2000..3000).contains(&taken), "{port} became {taken}");
        }
    }
}

#[test]
fn without_source_nat_the_clients_port_is_always_kept_while_it_is_free() {
    let mut rig = rig(World::empty());
    for (v4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        let mut world = World::of(Mode::Nat, v4, protocol, 1);
        world.server_mut(1).nat_ports = (2000, 1000);
        world.server_mut(1).ports = vec![80, 81];
        fresh(&mut rig, &world);
        for port in [1, 1999, 2500, 65_535] {
            let request = opening(Mode::Nat, v4, protocol).source_port(port);
            assert_eq!(open(&mut rig, &request, Mode::Nat).1, port);
            // The same client port to another port of the VIP, which is the same port of the node.
            let second = request.clone().destination_port(81);
            let (_, other) = open(&mut rig, &second, Mode::Nat);
            assert!(other != port && (2000..3000).contains(&other), "{port} and {other}");
            for (request, port) in [(&request, port), (&second, other)] {
                let answer = with_flags(&from_node(request, Mode::Nat, 1, port), tcp::SYN | tcp::ACK);
                check(&mut rig, &sent("told apart", &answer, Reason::ForwardedReply, &to_client(request, &answer)));
            }
        }
    }
}

#[test]
fn source_ports_are_unique_over_many_connections() {
    let mut rig = Rig::with(World::empty(), Sizes::all(4096)).expect("the program loads");
    for (v4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        fresh(&mut rig, &World::of(Mode::SourceNat, v4, protocol, 1));
        let mut ports = BTreeSet::new();
        for i in 0..1500u16 {
            let request = from_host(v4, protocol, i);
            let (_, port) = open(&mut rig, &request, Mode::SourceNat);
            assert!(ports.insert(port), "port {port} was given twice");
        }
        // And each answer finds its own client.
        for i in (0..1500).step_by(97) {
            let request = from_host(v4, protocol, i);
            let port = u16::from_be(half_open(&rig, &request).expect("noted").nat_port);
            let answer = with_flags(&from_node(&request, Mode::SourceNat, 1, port), tcp::SYN | tcp::ACK);
            check(&mut rig, &sent("answer", &answer, Reason::ForwardedReply, &to_client(&request, &answer)));
        }
    }
}

/// The same client port, of client number `i`.
fn from_host(v4: bool, protocol: u8, i: u16) -> Packet {
    let request = opening(Mode::SourceNat, v4, protocol);
    let [high, low] = i.to_be_bytes();
    if v4 {
        return request.source(std::net::Ipv4Addr::new(100, 64, high, low));
    }
    let mut octets = lb_tests::rig::world::CLIENT6.octets();
    (octets[12], octets[13]) = (high, low);
    request.source(std::net::Ipv6Addr::from(octets))
}

#[test]
fn when_all_source_ports_are_taken_connections_are_refused_until_one_is_free() {
    let mut rig = rig(World::empty());
    for (v4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        let mut world = World::of(Mode::SourceNat, v4, protocol, 1);
        world.server_mut(1).nat_ports = (5000, 6);
        fresh(&mut rig, &world);
        let mut ports = BTreeSet::new();
        for i in 0..6 {
            ports.insert(open(&mut rig, &from_host(v4, protocol, i), Mode::SourceNat).1);
        }
        assert_eq!(ports, (5000..5006).collect());
        let before = rig.counter(Reason::PortsExhausted).packets;
        for i in 6..9 {
            check(&mut rig, &dropped("exhausted", &from_host(v4, protocol, i), Reason::PortsExhausted));
        }
        assert_eq!(rig.counter(Reason::PortsExhausted).packets, before + 3);
        let kept = opening(Mode::SourceNat, v4, protocol).source_port(5003);
        check(&mut rig, &dropped("its own port is taken too", &kept, Reason::PortsExhausted));
        assert_eq!(tables::records(&rig.pending).count(), 12, "nothing is left behind");

        let (index, record) = tables::find(&rig.pending, &tables::key_of(&from_host(v4, protocol, 2))).expect("noted");
        tables::age(&rig.pending, index, tables::lifetime(&record));
        let freed = u16::from_be(record.nat_port);
        assert_eq!(open(&mut rig, &from_host(v4, protocol, 7), Mode::SourceNat).1, freed, "the port of a dead one");
        check(&mut rig, &dropped("again none", &from_host(v4, protocol, 8), Reason::PortsExhausted));
    }
}

#[test]
fn a_node_may_be_its_own_client_with_source_nat() {
    let mut rig = rig(World::empty());
    for (v4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        fresh(&mut rig, &World::of(Mode::SourceNat, v4, protocol, 1));
        let request = opening(Mode::SourceNat, v4, protocol).source(node_address(v4, 1)).macs(node_mac(1), LB_MAC);
        let (_, port) = open(&mut rig, &request, Mode::SourceNat);
        let answer = with_flags(&from_node(&request, Mode::SourceNat, 1, port), tcp::SYN | tcp::ACK);
        let home = to_client(&request, &answer).macs(LB_MAC, node_mac(1));
        check(&mut rig, &sent("its own answer", &answer, Reason::ForwardedReply, &home));
        let data = with_flags(&request, tcp::ACK);
        check(&mut rig, &sent("and on", &data, Reason::ForwardedNat, &to_node(&data, Mode::SourceNat, 1, port)));
    }
}

#[test]
fn answers_leave_where_the_clients_packets_come_from() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in translated() {
        rig.forget().unwrap();
        let name = label(mode, v4, protocol);
        let request = opening(mode, v4, protocol);
        establish(&mut rig, &request, mode);
        let answer = answer(&request, mode, CLIENT_PORT);
        let home = to_client(&request, &answer);

        // The client is behind another router now: noticed at once.
        let router = [2, 0, 0, 0, 7, 7];
        let moved = with_flags(&request, tcp::ACK).macs(router, LB_MAC);
        check(&mut rig, &sent(&name, &moved, forwarded(mode), &to_node(&moved, mode, 1, CLIENT_PORT)));
        check(&mut rig, &sent(&name, &answer, Reason::ForwardedReply, &home.clone().macs(LB_MAC, router)));

        // The client's packets come in by another interface of the balancer.
        let (half, mut record) = tables::find(&rig.flows, &tables::key_of(&answer)).expect("its answering half");
        record.timeout = SLOT2 as u16;
        rig.flows.write(half, &record);
        let there = home.macs(LB2_MAC, router);
        check(&mut rig, &Case { action: REDIRECT, ..sent(&name, &answer, Reason::ForwardedReply, &there) });
        assert_ne!(router, CLIENT_MAC);
    }
}

#[test]
fn a_half_open_connection_that_lost_its_answering_half_is_healed() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in translated() {
        let name = label(mode, v4, protocol);
        let request = opening(mode, v4, protocol);
        let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::SYN | tcp::ACK);
        let lose = |rig: &mut Rig| {
            let (index, _) = tables::find(&rig.pending, &tables::key_of(&answer)).expect("its answering half");
            rig.pending.write(index, &lb_common::flow::FlowRecord::default());
        };
        rig.forget().unwrap();
        open(&mut rig, &request, mode);
        lose(&mut rig);
        check(&mut rig, &passed(format!("{name}: nobody's"), &answer, Reason::NotVirtual));
        check(
            &mut rig,
            &sent(format!("{name}: again"), &request, forwarded(mode), &to_node(&request, mode, 1, CLIENT_PORT)),
        );
        check(
            &mut rig,
            &sent(format!("{name}: healed"), &answer, Reason::ForwardedReply, &to_client(&request, &answer)),
        );

        if protocol == UDP {
            assert!(in_flows(&rig, &request).is_some() && in_flows(&rig, &answer).is_some(), "{name}: proven");
            continue;
        }

        // Lost between the node's answer and the client's: the handshake ends well.
        lose(&mut rig);
        let ack = with_flags(&request, tcp::ACK);
        check(&mut rig, &sent(format!("{name}: ACK"), &ack, forwarded(mode), &to_node(&ack, mode, 1, CLIENT_PORT)));
        let data = with_flags(&answer, tcp::ACK);
        check(&mut rig, &sent(format!("{name}: data"), &data, Reason::ForwardedReply, &to_client(&request, &data)));
        check(&mut rig, &sent(format!("{name}: ACK"), &ack, forwarded(mode), &to_node(&ack, mode, 1, CLIENT_PORT)));
        assert!(in_flows(&rig, &request).is_some() && in_flows(&rig, &answer).is_some(), "{name}: proven");
        assert_eq!(tables::records(&rig.pending).count(), 0, "{name}");
    }
}

#[test]
fn an_answering_half_that_lost_its_connection_is_an_orphan() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in translated() {
        let name = label(mode, v4, protocol);
        let request = opening(mode, v4, protocol);
        let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::SYN | tcp::ACK);
        for half_open in [true, false] {
            rig.forget().unwrap();
            if half_open {
                open(&mut rig, &request, mode);
            } else {
                establish(&mut rig, &request, mode);
            }
            let table = if half_open { &rig.pending } else { &rig.flows };
            let (index, _) = tables::find(table, &tables::key_of(&request)).expect("the connection");
            table.write(index, &lb_common::flow::FlowRecord::default());
            rig.doubt();
            check(&mut rig, &passed(format!("{name}: orphan"), &answer, Reason::NotVirtual));
            // A new connection takes the orphan's port.
            let out = to_node(&request, mode, 1, CLIENT_PORT);
            check(&mut rig, &sent(format!("{name}: afresh"), &request, forwarded(mode), &out));
            check(&mut rig, &sent(&name, &answer, Reason::ForwardedReply, &to_client(&request, &answer)));
            // And when another connection has taken the place, the two do not name each other.
            let live: Vec<u8> =
                tables::records(&rig.pending).map(|(_, record)| record.control.flags & flag::REPLY).collect();
            assert_eq!(live.len(), if protocol == UDP { 0 } else { 2 }, "{name}");
        }
    }
}
