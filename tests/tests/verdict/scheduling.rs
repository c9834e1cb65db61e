//! C: which node a new connection goes to, by scheduler.

use std::{collections::BTreeMap, net::Ipv4Addr};

use lb_common::vip::scheduler;
use lb_tests::{
    packet::{Packet, tcp},
    rig::{
        Rig, Sizes, tables,
        world::{Mode, TCP, UDP, World, slot},
    },
};

use crate::support::*;

fn large_rig() -> Rig {
    Rig::with(World::empty(), Sizes::all(4096)).expect("the program loads")
}

/// A server with a scheduler and nodes of these weights.
fn weighted(mode: Mode, v4: bool, protocol: u8, scheduler: u8, weights: &[u32]) -> World {
    let mut world = World::of(mode, v4, protocol, weights.len() as u8);
    world.server_mut(1).scheduler = scheduler;
    for (number, weight) in (1..).zip(weights) {
        world.node_mut(1, number).weight = *weight;
    }
    world
}

/// The `i`th of many connections, each from a client of its own.
fn from_client(mode: Mode, v4: bool, protocol: u8, i: u32) -> Packet {
    let request = opening(mode, v4, protocol).source_port(1024 + (i % 30_000) as u16);
    if v4 {
        return request.source(Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + i));
    }
    let mut octets = lb_tests::rig::world::CLIENT6.octets();
    octets[12..].copy_from_slice(&i.to_be_bytes());
    request.source(std::net::Ipv6Addr::from(octets))
}

fn spread(rig: &mut Rig, mode: Mode, v4: bool, protocol: u8, count: u32) -> (Vec<u8>, BTreeMap<u8, u32>) {
    let order: Vec<u8> = (0..count).map(|i| open(rig, &from_client(mode, v4, protocol, i), mode).0).collect();
    let mut shares = BTreeMap::new();
    for machine in &order {
        *shares.entry(*machine).or_default() += 1;
    }
    (order, shares)
}

#[test]
fn round_robin_takes_exact_turns() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &weighted(mode, v4, protocol, scheduler::SEQUENCE, &[1, 1, 1]));
        let (order, shares) = spread(&mut rig, mode, v4, protocol, 30);
        assert!(
            order.windows(3).all(|turn| turn[0] != turn[1] && turn[1] != turn[2] && turn[0] != turn[2]),
            "{order:?}"
        );
        assert_eq!(shares, [(1, 10), (2, 10), (3, 10)].into());
    }
}

#[test]
fn weighted_round_robin_is_exact_and_without_bursts() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &weighted(mode, v4, protocol, scheduler::SEQUENCE, &[5, 3, 2]));
        let (order, shares) = spread(&mut rig, mode, v4, protocol, 100);
        assert_eq!(shares, [(1, 50), (2, 30), (3, 20)].into());
        assert!(order.windows(3).all(|turn| turn != [1, 1, 1]), "{order:?}");
    }
}

#[test]
fn a_connection_that_goes_on_takes_no_turn() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &weighted(mode, v4, protocol, scheduler::SEQUENCE, &[1, 1]));
        let first = from_client(mode, v4, protocol, 1);
        let (machine, _) = establish(&mut rig, &first, mode);
        for _ in 0..3 {
            run(&mut rig, &with_flags(&first, tcp::ACK));
        }
        assert_ne!(open(&mut rig, &from_client(mode, v4, protocol, 2), mode).0, machine);
    }
}

#[test]
fn least_connections_compares_load_over_weight() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        // Active connections, half-open ones, weights; who is next.
        for (active, pending, weights, next) in [
            ([5, 3, 4], [0, 0, 0], [1, 1, 1], 2),
            ([0, 0, 0], [2, 1, 2], [1, 1, 1], 2),
            ([5, 5, 5], [0, 0, 0], [1, 1, 2], 3),
            ([9, 19, 29], [0, 0, 0], [1, 2, 4], 3),
            ([1, 0, 0], [0, 3, 3], [1, 1, 1], 1),
        ] {
            fresh(&mut rig, &weighted(mode, v4, protocol, scheduler::LEAST, &weights));
            for number in 1..=3u8 {
                let node = u32::from(slot(1, number));
                rig.loads.add_active(node, active[usize::from(number) - 1]);
                rig.loads.add_pending(node, pending[usize::from(number) - 1]);
            }
            assert_eq!(
                open(&mut rig, &from_client(mode, v4, protocol, 1), mode).0,
                next,
                "{active:?} {pending:?} {weights:?}"
            );
        }
    }
}

#[test]
fn half_open_connections_count_as_load_until_they_are_active() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        let mut world = weighted(mode, v4, protocol, scheduler::LEAST, &[1, 1, 1]);
        world.server_mut(1).counts_pending = true;
        fresh(&mut rig, &world);
        let (_, shares) = spread(&mut rig, mode, v4, protocol, 30);
        assert_eq!(shares, [(1, 10), (2, 10), (3, 10)].into());
        let request = from_client(mode, v4, protocol, 1000);
        let (machine, _) = establish(&mut rig, &request, mode);
        let load = rig.loads.read(u32::from(slot(1, machine)));
        assert_eq!((load.active, load.pending), (1, 10), "{}", label(mode, v4, protocol));
    }
}

#[test]
fn source_hash_knows_the_address_alone() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        fresh(&mut rig, &weighted(mode, v4, protocol, scheduler::RING_SOURCE, &[1, 1, 1]));
        for client in 0..20 {
            let request = from_client(mode, v4, protocol, client);
            let (machine, _) = open(&mut rig, &request, mode);
            for port in 40_000..40_010 {
                let again = open(&mut rig, &request.clone().source_port(port), mode).0;
                assert_eq!(again, machine, "{} client {client}", label(mode, v4, protocol));
            }
        }
    }
}

#[test]
fn maglev_and_random_follow_the_weights() {
    let mut rig = large_rig();
    for mode in lb_tests::rig::world::MODES {
        for (v4, protocol) in [(true, TCP), (false, UDP)] {
            for kind in [scheduler::RING_FLOW, scheduler::RING_SOURCE, scheduler::RANDOM] {
                fresh(&mut rig, &weighted(mode, v4, protocol, kind, &[1, 2, 1, 0]));
                let (_, shares) = spread(&mut rig, mode, v4, protocol, 2000);
                // Standard deviation 22 at most; five of them.
                for (machine, expected) in [(1, 500), (2, 1000), (3, 500)] {
                    assert!(shares[&machine].abs_diff(expected) < 112, "{mode:?} scheduler {kind}: {shares:?}");
                }
                assert_eq!(shares.get(&4), None, "weight 0");
            }
        }
    }
}

#[test]
fn above_the_limit_of_new_connections_the_ring_places_them() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        let mut world = weighted(mode, v4, protocol, scheduler::RING_FLOW, &[1, 1, 1]);
        fresh(&mut rig, &world);
        let (by_ring, _) = spread(&mut rig, mode, v4, protocol, 40);
        world.server_mut(1).scheduler = scheduler::SEQUENCE;
        world.server_mut(1).flood_limit = 0;
        fresh(&mut rig, &world);
        let (flooded, _) = spread(&mut rig, mode, v4, protocol, 40);
        assert_eq!(flooded, by_ring, "{}", label(mode, v4, protocol));
        world.server_mut(1).flood_limit = u32::MAX;
        fresh(&mut rig, &world);
        let (calm, _) = spread(&mut rig, mode, v4, protocol, 40);
        assert_ne!(calm, by_ring);
    }
}

#[test]
fn above_the_limit_no_client_is_remembered() {
    let mut rig = large_rig();
    for (mode, v4, protocol) in combinations() {
        let mut world = weighted(mode, v4, protocol, scheduler::SEQUENCE, &[1, 1, 1]);
        world.server_mut(1).persistence = Some(if v4 { 32 } else { 128 });
        fresh(&mut rig, &world);
        let (known, _) = open(&mut rig, &from_client(mode, v4, protocol, 1), mode);
        assert_eq!(tables::records(&rig.affinity).count(), 1);
        world.server_mut(1).flood_limit = 0;
        rig.configure(world).unwrap();
        for client in 2..20 {
            open(&mut rig, &from_client(mode, v4, protocol, client), mode);
        }
        assert_eq!(tables::records(&rig.affinity).count(), 1, "{}", label(mode, v4, protocol));
        let again = from_client(mode, v4, protocol, 1).source_port(5000);
        assert_eq!(open(&mut rig, &again, mode).0, known, "who is known stays known");
    }
}
