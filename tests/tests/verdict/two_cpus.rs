//! C: packets of a connection that come to two CPUs at the same time. One of them makes the record, once; both forward to the
//! same node at every moment in between.

use lb_common::{conntrack::State, flow::flag, vip::scheduler};
use lb_tests::{
    packet::{Packet, tcp},
    rig::{
        Rig, Sizes, tables,
        world::{MODES, Mode, TCP, UDP, World, from_node, node_mac, slot},
    },
};

use crate::support::*;

/// Connections that are taken through the same step together.
const FLOWS: u16 = 64;
const ROUNDS: u16 = 60;
const NODES: u8 = 3;
const FIN: u8 = tcp::FIN | tcp::ACK;
const DATA: u8 = tcp::PSH | tcp::ACK;

/// A connection, and the machine that has it.
struct Flow {
    request: Packet,
    machine: u8,
    port: u16,
}

/// A rig whose scheduler is never of the ring's mind for long: a packet that goes by the ring shows.
fn rig_of(mode: Mode, protocol: u8) -> Rig {
    let mut world = World::of(mode, true, protocol, NODES);
    world.server_mut(1).scheduler = scheduler::SEQUENCE;
    Rig::with(world, Sizes::all(1024)).expect("the program loads")
}

fn open_all(rig: &mut Rig, mode: Mode, protocol: u8, round: u16) -> Vec<Flow> {
    rig.skip_counters().expect("counters can be read");
    let first = 2000 + round % 10 * FLOWS;
    let open = |port| {
        let request = opening(mode, true, protocol).source_port(port);
        let (machine, port) = open(rig, &request, mode);
        Flow { request, machine, port }
    };
    (first..first + FLOWS).map(open).collect()
}

/// The client's packets with these TCP flags, connection by connection.
fn from_clients(flows: &[Flow], flags: &[u8]) -> Vec<Vec<u8>> {
    flows.iter().flat_map(|flow| flags.iter().map(|flags| with_flags(&flow.request, *flags).bytes())).collect()
}

/// The nodes' answers with these TCP flags.
fn from_nodes(flows: &[Flow], mode: Mode, flags: &[u8]) -> Vec<Vec<u8>> {
    let answer =
        |flow: &Flow, flags: u8| with_flags(&from_node(&flow.request, mode, flow.machine, flow.port), flags).bytes();
    flows.iter().flat_map(|flow| flags.iter().map(move |flags| answer(flow, *flags))).collect()
}

/// Sends the clients' packets on two CPUs at once: each must reach the machine that has its connection.
fn clients_send(rig: &Rig, flows: &[Flow], flags: [&[u8]; 2]) {
    let lists = flags.map(|flags| from_clients(flows, flags));
    let ran = rig.run_on_two_cpus([&lists[0], &lists[1]]).expect("it runs");
    for (cpu, (ran, flags)) in ran.iter().zip(flags).enumerate() {
        for (flow, ran) in flows.iter().zip(ran.chunks(flags.len())) {
            for ((action, out), flags) in ran.iter().zip(flags) {
                let name = format!("CPU {cpu}, flags {flags:02x}, from port {:?}", flow.request.port_pair());
                assert_eq!((*action, &out[..6]), (TX, &node_mac(flow.machine)[..]), "{name}");
            }
        }
    }
}

/// Each connection has one record, in this state, and counts once if it is active.
fn are_tracked_once(rig: &Rig, flows: &[Flow], mode: Mode, state: State) {
    let halves = if mode == Mode::Dsr { 1 } else { 2 };
    for flow in flows {
        let key = tables::key_of(&flow.request);
        let found: Vec<_> = tables::records(&rig.flows).filter(|(_, record)| record.key.plain() == key).collect();
        assert_eq!(found.len(), 1, "{key:?}");
        assert_eq!(State::from_number(found[0].1.control.state), state, "{key:?}");
    }
    let live = tables::records(&rig.flows).filter(|(_, record)| record.control.flags & flag::REPLY == 0);
    assert_eq!(live.count() * halves, tables::records(&rig.flows).count(), "{mode:?}");
    assert_eq!(half_open_count(rig), 0, "{mode:?}: nothing is left of being half-open");
    let loads = || (1..=NODES).map(|machine| rig.loads.read(u32::from(slot(1, machine))));
    let active = if state.is_active() { flows.len() as u64 } else { 0 };
    let counted: (u64, u64) = (loads().map(|load| load.active).sum(), loads().map(|load| load.pending).sum());
    assert_eq!(counted, (active, 0), "{mode:?} {}", state.name());
}

#[test]
fn a_connection_that_two_cpus_prove_at_once_is_one_connection_of_one_node() {
    for mode in MODES {
        let mut rig = rig_of(mode, TCP);
        for round in 0..ROUNDS {
            rig.forget_connections().unwrap();
            let flows = open_all(&mut rig, mode, TCP, round);
            if mode != Mode::Dsr {
                let answers = from_nodes(&flows, mode, &[tcp::SYN | tcp::ACK]);
                rig.run_on_two_cpus([&answers, &answers]).expect("it runs");
            }
            clients_send(&rig, &flows, [&[tcp::ACK, DATA, DATA], &[DATA, tcp::ACK, DATA]]);
            are_tracked_once(&rig, &flows, mode, State::Established);
            clients_send(&rig, &flows, [&[FIN], &[DATA]]);
            are_tracked_once(&rig, &flows, mode, State::FinWait);
        }
    }
}

#[test]
fn a_port_that_comes_again_is_a_new_connection_on_both_cpus() {
    let mut rig = rig_of(Mode::Dsr, TCP);
    for round in 0..ROUNDS {
        rig.forget_connections().unwrap();
        let mut flows = open_all(&mut rig, Mode::Dsr, TCP, round);
        clients_send(&rig, &flows, [&[tcp::ACK, DATA], &[DATA, DATA]]);
        clients_send(&rig, &flows, [&[FIN, tcp::ACK], &[tcp::ACK, FIN]]);
        // At once: where the old one was, which may not be over.
        clients_send(&rig, &flows, [&[tcp::SYN], &[tcp::SYN]]);
        clients_send(&rig, &flows, [&[tcp::ACK, DATA], &[DATA, DATA]]);
        are_tracked_once(&rig, &flows, Mode::Dsr, State::Established);
        clients_send(&rig, &flows, [&[FIN, tcp::ACK], &[DATA, DATA]]);
        // After silence: wherever it is its turn to go.
        for (index, _) in tables::records(&rig.flows).collect::<Vec<_>>() {
            tables::age(&rig.flows, index, 10);
        }
        flows = open_all(&mut rig, Mode::Dsr, TCP, round);
        clients_send(&rig, &flows, [&[tcp::ACK, DATA, DATA], &[DATA, tcp::ACK, DATA]]);
        are_tracked_once(&rig, &flows, Mode::Dsr, State::Established);
    }
}

#[test]
fn an_end_that_comes_while_the_other_cpu_makes_the_record_is_not_lost() {
    for mode in MODES {
        let mut rig = rig_of(mode, TCP);
        for round in 0..ROUNDS {
            rig.forget_connections().unwrap();
            let flows = open_all(&mut rig, mode, TCP, round);
            if mode != Mode::Dsr {
                let answers = from_nodes(&flows, mode, &[tcp::SYN | tcp::ACK]);
                rig.run_on_two_cpus([&answers, &[]]).expect("it runs");
            }
            clients_send(&rig, &flows, [&[tcp::ACK], &[FIN]]);
            are_tracked_once(&rig, &flows, mode, State::FinWait);
        }
    }
}

#[test]
fn datagrams_that_two_cpus_prove_at_once_are_one_flow() {
    for mode in MODES {
        let mut rig = rig_of(mode, UDP);
        for round in 0..ROUNDS {
            rig.forget_connections().unwrap();
            let flows = open_all(&mut rig, mode, UDP, round);
            if mode != Mode::Dsr {
                let answers = from_nodes(&flows, mode, &[0, 0]);
                rig.run_on_two_cpus([&answers, &answers]).expect("it runs");
            }
            clients_send(&rig, &flows, [&[0, 0, 0], &[0, 0, 0]]);
            are_tracked_once(&rig, &flows, mode, State::Udp);
        }
    }
}

#[test]
fn connections_that_meet_in_a_set_of_proofs_keep_theirs() {
    // Four places for each set, and two connections at a time: none is evicted.
    let mut world = World::of(Mode::Dsr, true, TCP, NODES);
    world.server_mut(1).scheduler = scheduler::SEQUENCE;
    let mut rig = Rig::with(world, Sizes { pending: 1, ..Sizes::all(1024) }).expect("the program loads");
    let lives = |first: u16| -> Vec<Vec<u8>> {
        let life = |port| {
            let request = opening(Mode::Dsr, true, TCP).source_port(port);
            [tcp::SYN, tcp::ACK, DATA].map(|flags| with_flags(&request, flags).bytes())
        };
        (first..first + 500).flat_map(life).collect()
    };
    for _ in 0..40 {
        rig.forget_connections().unwrap();
        let lists = [lives(2000), lives(20_000)];
        for ran in rig.run_on_two_cpus([&lists[0], &lists[1]]).expect("it runs") {
            for (number, life) in ran.chunks(3).enumerate() {
                let nodes: Vec<&[u8]> = life.iter().map(|(_, out)| &out[..6]).collect();
                assert!(nodes.iter().all(|node| *node == nodes[0]), "connection {number}: {nodes:02x?}");
            }
        }
        assert_eq!(tables::records(&rig.flows).count(), 1000, "each was proven");
    }
}
