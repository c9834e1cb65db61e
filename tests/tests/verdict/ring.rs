//! F: rings against a second implementation, and the program's choice against both.

use lb_common::vip::scheduler;
use lb_tests::{
    model::{hash, ring},
    packet::{Packet, tcp},
    rig::{
        Rig, Sizes,
        world::{CLIENT6, Mode, TCP, UDP, World, number_of, slot},
    },
};

use crate::support::*;

fn members(weights: &[u32]) -> Vec<ring::Member> {
    (1..)
        .zip(weights)
        .map(|(number, weight)| (hash::finish(u64::from(slot(1, number)) + 1), slot(1, number), *weight))
        .collect()
}

fn product(members: &[ring::Member], seed: u64) -> Vec<u16> {
    let members: Vec<lb_common::maglev::Member> = members
        .iter()
        .map(|(identity, slot, weight)| lb_common::maglev::Member { identity: *identity, slot: *slot, weight: *weight })
        .collect();
    let mut ring = vec![0; ring::SLOTS];
    let (next, credit) = (&mut vec![0; members.len()], &mut vec![0; members.len()]);
    lb_common::maglev::fill(&mut ring, &members, seed, next, credit);
    ring
}

#[test]
fn rings_are_those_of_a_second_implementation() {
    for (weights, seed) in [
        (&[1, 1, 1][..], 1),
        (&[1], 2),
        (&[5, 3, 2, 0], 3),
        (&[1, 256], 4),
        (&[7, 7, 7, 7, 7, 7, 7], u64::MAX),
        (&[1, 2, 3, 4, 5, 6, 7], 0),
    ] {
        assert!(ring::ring(&members(weights), seed) == product(&members(weights), seed), "{weights:?} seed {seed}");
    }
    assert!(product(&[], 1).iter().all(|slot| *slot == 0));
}

#[test]
fn sequences_are_those_of_a_second_implementation() {
    for weights in [&[1, 1, 1][..], &[10, 2, 2], &[5, 3, 2], &[0, 4], &[6], &[3, 0, 9, 27]] {
        let members = members(weights);
        let ours: Vec<lb_common::maglev::Member> = members
            .iter()
            .map(|(identity, slot, weight)| lb_common::maglev::Member {
                identity: *identity,
                slot: *slot,
                weight: *weight,
            })
            .collect();
        let mut sequence = vec![0; lb_common::maglev::sequence_len(&ours) as usize];
        lb_common::maglev::fill_sequence(&mut sequence, &ours, &mut vec![0; ours.len()]);
        assert_eq!(sequence, ring::sequence(&members), "{weights:?}");
    }
}

/// The `i`th of many flows.
fn flow(mode: Mode, v4: bool, protocol: u8, i: u32) -> Packet {
    let request = with_flags(&opening(mode, v4, protocol), tcp::ACK).source_port(1024 + (i * 7 % 60_000) as u16);
    if v4 {
        return request.source(std::net::Ipv4Addr::from(0x6440_0000 + i * 31));
    }
    let mut octets = CLIENT6.octets();
    octets[8..12].copy_from_slice(&(i * 31).to_be_bytes());
    request.source(std::net::Ipv6Addr::from(octets))
}

/// Where the second implementation sends a packet.
fn expected(world: &World, packet: &Packet, by_source: bool, ring: &[u16]) -> u16 {
    let bytes = packet.bytes();
    let parsed = lb_tests::model::parse::parse(&bytes, |_| true).expect("a whole packet");
    let flow = hash::Flow {
        ports: if by_source { (0, 0) } else { parsed.tuple.ports },
        protocol: if by_source { 0 } else { parsed.tuple.protocol },
        source: parsed.tuple.source,
        destination: (!by_source).then_some(parsed.tuple.destination),
    };
    ring[ring::place(flow.hash(&hash::keys(world.server(1).seed)))]
}

#[test]
fn the_program_looks_up_ten_thousand_flows_as_the_second_implementation_does() {
    let mut rig = rig(World::empty());
    for (v4, protocol) in [(true, TCP), (false, TCP), (true, UDP), (false, UDP)] {
        for kind in [scheduler::RING_FLOW, scheduler::RING_SOURCE] {
            let mut world = World::of(Mode::Dsr, v4, protocol, 4);
            world.server_mut(1).scheduler = kind;
            for (number, weight) in [(1, 4), (2, 3), (3, 2), (4, 1)] {
                world.node_mut(1, number).weight = weight;
            }
            fresh(&mut rig, &world);
            let ring = ring::ring(&members(&[4, 3, 2, 1]), world.server(1).seed);
            // TCP without SYN goes by the ring and leaves no trace; datagrams leave one in a table that evicts.
            for i in 0..2500 {
                let packet = flow(Mode::Dsr, v4, protocol, i);
                let outcome = run(&mut rig, &packet);
                let machine = number_of(expected(&world, &packet, kind == scheduler::RING_SOURCE, &ring));
                assert_eq!(outcome.bytes[5], machine, "flow {i}, scheduler {kind}");
            }
        }
    }
}

#[test]
fn new_connections_of_every_mode_go_where_the_second_implementation_says() {
    let mut rig = Rig::with(World::empty(), Sizes::all(4096)).expect("the program loads");
    for (mode, v4, protocol) in combinations() {
        let world = World::of(mode, v4, protocol, 3);
        fresh(&mut rig, &world);
        let ring = ring::ring(&members(&[1, 1, 1]), world.server(1).seed);
        for i in 0..200 {
            let packet = with_flags(&flow(mode, v4, protocol, i), tcp::SYN);
            let (machine, _) = open(&mut rig, &packet, mode);
            assert_eq!(machine, number_of(expected(&world, &packet, false, &ring)), "flow {i}");
        }
    }
}
