//! C: what becomes of connections: half-open, established, closing, stale, moved, kept.

use lb_common::{
    conntrack::{State, Timeouts},
    flow::flag,
    reason::Reason,
};
use lb_tests::{
    packet::{Packet, tcp},
    rig::{
        Rig, tables,
        world::{Mode, TCP, UDP, World, from_node, number_of, slot, to_client, to_node},
    },
};

use crate::support::*;

/// TCP in every mode and family, on a rig with `nodes` nodes per server.
pub(crate) fn each_tcp(nodes: u8, mut test: impl FnMut(&mut Rig, Mode, bool, Packet)) {
    let mut rig = rig(World::empty());
    for (mode, v4, _) in combinations().filter(|(_, _, protocol)| *protocol == TCP) {
        fresh(&mut rig, &World::of(mode, v4, TCP, nodes));
        test(&mut rig, mode, v4, opening(mode, v4, TCP));
    }
}

/// Sends the client's packet of an established connection to `machine`.
pub(crate) fn client_sends(rig: &mut Rig, request: &Packet, flags: u8, mode: Mode, machine: u8) {
    let packet = with_flags(request, flags);
    let out = to_node(&packet, mode, machine, CLIENT_PORT);
    check(rig, &sent(format!("client {flags:02x}"), &packet, forwarded(mode), &out));
}

/// Sends the node's packet of an established connection.
pub(crate) fn node_sends(rig: &mut Rig, request: &Packet, flags: u8, mode: Mode, machine: u8) {
    let packet = with_flags(&from_node(request, mode, machine, CLIENT_PORT), flags);
    check(rig, &sent(format!("node {flags:02x}"), &packet, Reason::ForwardedReply, &to_client(request, &packet)));
}

pub(crate) fn pending_state(rig: &Rig, packet: &Packet) -> State {
    State::from_number(half_open(rig, packet).expect("half-open").control.state)
}

pub(crate) fn active(rig: &Rig, server: u16, machine: u8) -> u64 {
    rig.loads.read(u32::from(slot(server, machine))).active
}

/// What a reset to the sender of `packet` looks like (RFC 9293 §3.5.2), for a packet with ACK and no data.
pub(crate) fn reset_of(packet: &Packet) -> Packet {
    let (client, vip) = packet.port_pair();
    let reset = packet.clone().reversed().tcp(vip, client, tcp::RST).numbers(0x0a0b_0c0d, 0);
    reset.window(0).id(0).dont_fragment().class(0).ttl(64).payload(&[])
}

#[test]
fn a_syn_sent_again_finds_its_node_and_makes_no_second_record() {
    each_tcp(3, |rig, mode, _, request| {
        let (machine, port) = open(rig, &request, mode);
        for _ in 0..3 {
            let out = to_node(&request, mode, machine, port);
            check(rig, &sent("again", &request, forwarded(mode), &out));
        }
        assert_eq!(half_open_count(rig), if mode == Mode::Dsr { 1 } else { 2 });
        assert_eq!(rig.stats(slot(1, machine)).unwrap().connections, 1);
    });
}

#[test]
fn in_nat_a_connection_is_proven_only_after_its_node_has_answered() {
    each_tcp(1, |rig, mode, _, request| {
        open(rig, &request, mode);
        assert_eq!(pending_state(rig, &request), State::SynSent);
        if mode == Mode::Dsr {
            client_sends(rig, &request, tcp::ACK, mode, 1);
            assert_eq!(state(rig, &request), Some(State::Established));
            return;
        }
        client_sends(rig, &request, tcp::ACK, mode, 1);
        assert_eq!(pending_state(rig, &request), State::SynSent, "a guessed ACK proves nothing");
        node_sends(rig, &request, tcp::SYN | tcp::ACK, mode, 1);
        assert_eq!(pending_state(rig, &request), State::SynReceived);
        client_sends(rig, &request, tcp::RST, mode, 1);
        assert_eq!(pending_state(rig, &request), State::SynReceived, "nor does a reset");
        client_sends(rig, &request, tcp::ACK | tcp::PSH, mode, 1);
        assert_eq!(state(rig, &request), Some(State::Established));
        assert_eq!(half_open_count(rig), 0);
        assert_eq!(tables::records(&rig.flows).count(), 2);
    });
}

#[test]
fn a_datagram_is_proven_by_its_answer_and_in_dsr_by_a_second_one() {
    let mut rig = rig(World::standard());
    for (mode, v4, _) in combinations().filter(|(_, _, protocol)| *protocol == UDP) {
        let request = opening(mode, v4, UDP);
        open(&mut rig, &request, mode);
        assert_eq!(pending_state(&rig, &request), State::UdpNew);
        client_sends(&mut rig, &request, 0, mode, 1);
        if mode != Mode::Dsr {
            // Anybody can forge as many as he likes.
            assert_eq!(pending_state(&rig, &request), State::UdpNew, "{}", label(mode, v4, UDP));
            node_sends(&mut rig, &request, 0, mode, 1);
        }
        assert_eq!(state(&rig, &request), Some(State::Udp), "{}", label(mode, v4, UDP));
        client_sends(&mut rig, &request, 0, mode, 1);
    }
}

#[test]
fn closing_in_nat_follows_both_sides() {
    use State::{Closed, Established, FinWait, TimeWait};
    enum Side {
        Client,
        Node,
    }
    use Side::{Client, Node};
    type Story<'a> = (&'a str, &'a [(Side, u8, State)]);
    let stories: [Story<'_>; 6] = [
        (
            "client first",
            &[(Client, FIN, FinWait), (Node, tcp::ACK, FinWait), (Node, FIN, TimeWait), (Client, tcp::ACK, TimeWait)],
        ),
        (
            "node first",
            &[(Node, FIN, FinWait), (Client, tcp::ACK, FinWait), (Client, FIN, TimeWait), (Node, tcp::ACK, TimeWait)],
        ),
        ("FIN again", &[(Client, FIN, FinWait), (Client, FIN, FinWait), (Node, FIN, TimeWait), (Node, FIN, TimeWait)]),
        ("client resets", &[(Client, tcp::RST, Closed), (Client, tcp::RST, Closed)]),
        ("node resets", &[(Node, tcp::RST | tcp::ACK, Closed)]),
        (
            "a forged reset",
            &[(Client, tcp::RST, Closed), (Client, tcp::ACK, Established), (Node, tcp::ACK, Established)],
        ),
    ];
    each_tcp(1, |rig, mode, _, request| {
        if mode == Mode::Dsr {
            return;
        }
        for (name, story) in &stories {
            rig.forget().unwrap();
            establish(rig, &request, mode);
            for (side, flags, after) in *story {
                match side {
                    Client => client_sends(rig, &request, *flags, mode, 1),
                    Node => node_sends(rig, &request, *flags, mode, 1),
                }
                assert_eq!(state(rig, &request), Some(*after), "{name}, {mode:?}");
                let record = in_flows(rig, &request).expect("never deleted by a segment");
                assert_eq!(record.timeout, Timeouts::default().0[*after as usize], "{name}");
                assert_eq!(active(rig, 1, 1), u64::from(*after == Established), "{name}");
                assert_eq!(record.control.flags & flag::ACTIVE != 0, *after == Established, "{name}");
            }
        }
    });
}

#[test]
fn closing_in_dsr_sees_the_client_alone() {
    each_tcp(1, |rig, mode, _, request| {
        if mode != Mode::Dsr {
            return;
        }
        establish(rig, &request, mode);
        client_sends(rig, &request, tcp::FIN | tcp::ACK, mode, 1);
        assert_eq!((state(rig, &request), active(rig, 1, 1)), (Some(State::FinWait), 0));
        client_sends(rig, &request, tcp::ACK, mode, 1);
        assert_eq!(state(rig, &request), Some(State::FinWait), "a half-closed download goes on");
        client_sends(rig, &request, tcp::RST, mode, 1);
        assert_eq!(state(rig, &request), Some(State::Closed));
    });
}

#[test]
fn a_half_closed_connection_still_carries_data() {
    each_tcp(1, |rig, mode, _, request| {
        if mode == Mode::Dsr {
            return;
        }
        establish(rig, &request, mode);
        client_sends(rig, &request, tcp::FIN | tcp::ACK, mode, 1);
        for _ in 0..5 {
            node_sends(rig, &request.clone().filled(900), tcp::ACK | tcp::PSH, mode, 1);
            client_sends(rig, &request, tcp::ACK, mode, 1);
        }
        assert_eq!(state(rig, &request), Some(State::FinWait));
    });
}

const FIN: u8 = tcp::FIN | tcp::ACK;

/// Nothing is heard of the connection for so many seconds.
fn silence(rig: &Rig, request: &Packet, seconds: u32) {
    let (index, _) = tables::find(&rig.flows, &tables::key_of(request)).expect("established");
    tables::age(&rig.flows, index, seconds);
}

/// The connection's SYN begins a new one: the old record is gone.
fn begins_afresh(rig: &mut Rig, request: &Packet, mode: Mode) {
    open(rig, request, mode);
    assert_eq!(in_flows(rig, request), None, "{mode:?}");
    assert_eq!(pending_state(rig, request), State::SynSent);
    assert_eq!(tables::records(&rig.flows).count(), 0, "both halves are gone");
    assert_eq!((active(rig, 1, 1), active(rig, 1, 2), active(rig, 1, 3)), (0, 0, 0));
}

#[test]
fn a_forged_end_and_a_forged_syn_do_not_move_a_live_connection() {
    each_tcp(3, |rig, mode, _, request| {
        // Whoever is scheduled next is another node.
        rig.change(|world| world.server_mut(1).scheduler = lb_common::vip::scheduler::SEQUENCE).unwrap();
        for forged in [&[tcp::SYN][..], &[tcp::RST, tcp::SYN], &[FIN, tcp::SYN], &[FIN, tcp::RST, tcp::SYN, tcp::SYN]] {
            rig.forget().unwrap();
            let (machine, _) = establish(rig, &request, mode);
            silence(rig, &request, 100);
            for (i, flags) in forged.iter().enumerate() {
                if i > 0 {
                    // One of the two sides speaks now and then.
                    silence(rig, &request, 2);
                }
                client_sends(rig, &request, *flags, mode, machine);
            }
            client_sends(rig, &request, tcp::ACK | tcp::PSH, mode, machine);
            let record = in_flows(rig, &request).expect("never replaced");
            assert_eq!(number_of(record.node), machine, "{mode:?} {forged:02x?}");
            assert!(half_open(rig, &request).is_none(), "{mode:?} {forged:02x?}");
        }
    });
}

#[test]
fn a_syn_after_an_end_and_silence_begins_afresh() {
    each_tcp(1, |rig, mode, _, request| {
        let ends: &[&[u8]] = if mode == Mode::Dsr { &[&[tcp::RST], &[FIN], &[FIN, tcp::RST]] } else { &[&[tcp::RST]] };
        for end in ends {
            rig.forget().unwrap();
            establish(rig, &request, mode);
            for flags in *end {
                client_sends(rig, &request, *flags, mode, 1);
            }
            silence(rig, &request, 3);
            client_sends(rig, &request, tcp::SYN | tcp::ACK, mode, 1);
            assert!(in_flows(rig, &request).is_some(), "a SYN-ACK opens nothing: {mode:?}");
            silence(rig, &request, 3);
            begins_afresh(rig, &request, mode);
        }
    });
}

#[test]
fn when_both_sides_have_closed_a_syn_begins_afresh_at_once() {
    each_tcp(1, |rig, mode, _, request| {
        if mode == Mode::Dsr {
            return;
        }
        establish(rig, &request, mode);
        client_sends(rig, &request, FIN, mode, 1);
        // One side may go on for hours: a SYN, forged or not, is the node's to judge.
        silence(rig, &request, 100);
        client_sends(rig, &request, tcp::SYN, mode, 1);
        assert_eq!(state(rig, &request), Some(State::FinWait), "{mode:?}");
        node_sends(rig, &request, FIN, mode, 1);
        client_sends(rig, &request, tcp::ACK, mode, 1);
        assert_eq!(state(rig, &request), Some(State::TimeWait), "{mode:?}");
        begins_afresh(rig, &request, mode);
    });
}

#[test]
fn a_new_connection_in_the_place_of_an_ended_one_lives_like_any_other() {
    each_tcp(1, |rig, mode, _, request| {
        let ends: &[u8] = &[FIN, tcp::RST];
        for end in ends {
            rig.forget().unwrap();
            establish(rig, &request, mode);
            client_sends(rig, &request, FIN, mode, 1);
            client_sends(rig, &request, *end, mode, 1);
            client_sends(rig, &request, tcp::SYN, mode, 1);
            if mode != Mode::Dsr {
                node_sends(rig, &request, tcp::SYN | tcp::ACK, mode, 1);
            }
            client_sends(rig, &request, tcp::ACK, mode, 1);
            let record = in_flows(rig, &request).expect("established");
            assert_eq!(record.control.state, State::Established as u8, "{mode:?} {end:02x}");
            assert_eq!(record.timeout, Timeouts::default().0[State::Established as usize], "{mode:?} {end:02x}");
            assert_eq!(active(rig, 1, 1), 1);
        }
    });
}

#[test]
fn a_connection_proven_by_a_fin_is_closing_at_once() {
    each_tcp(1, |rig, mode, _, request| {
        open(rig, &request, mode);
        if mode != Mode::Dsr {
            node_sends(rig, &request, tcp::SYN | tcp::ACK, mode, 1);
        }
        client_sends(rig, &request, FIN, mode, 1);
        let record = in_flows(rig, &request).expect("proven");
        assert_eq!(record.control.state, State::FinWait as u8, "{mode:?}");
        assert_eq!(record.timeout, Timeouts::default().0[State::FinWait as usize], "{mode:?}");
        assert_eq!((active(rig, 1, 1), rig.loads.read(u32::from(slot(1, 1))).pending), (0, 0), "{mode:?}");
        if mode != Mode::Dsr {
            node_sends(rig, &request, FIN, mode, 1);
            assert_eq!(state(rig, &request), Some(State::TimeWait), "{mode:?}");
        }
    });
}

#[test]
fn a_silent_connection_is_dead_after_its_timeout() {
    each_tcp(1, |rig, mode, _, request| {
        establish(rig, &request, mode);
        let (index, record) = tables::find(&rig.flows, &tables::key_of(&request)).expect("established");
        tables::age(&rig.flows, index, u32::from(record.timeout));
        rig.doubt();
        client_sends(rig, &request, tcp::ACK, mode, 1);
        tables::age(&rig.flows, index, tables::lifetime(&record));
        // The digest is fresh, and nobody looks at the record until somebody doubts it.
        client_sends(rig, &request, tcp::ACK, mode, 1);
        rig.doubt();
        let late = with_flags(&request, tcp::ACK);
        if mode == Mode::Dsr {
            // By the ring, without a trace.
            check(rig, &sent("late", &late, Reason::ForwardedDsr, &to_node(&late, mode, 1, CLIENT_PORT)));
        } else {
            check(rig, &dropped("late", &late, Reason::UnknownFlow));
        }
        assert_eq!(tables::records(&rig.flows).count() + half_open_count(rig), 0, "{mode:?}");
        assert_eq!(active(rig, 1, 1), 0);
    });
}

#[test]
fn a_half_open_connection_is_dead_after_its_timeout() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let request = opening(mode, v4, protocol);
        open(&mut rig, &request, mode);
        let record = half_open(&rig, &request).expect("half-open");
        let key = tables::key_of(&request);
        if let Some((index, _)) = tables::find(&rig.pending, &key) {
            tables::age(&rig.pending, index, tables::lifetime(&record));
        }
        if let Some((index, _)) = tables::find_proof(&rig.proofs, &key) {
            tables::age_proof(&rig.proofs, index, tables::lifetime(&record));
        }
        if mode != Mode::Dsr {
            let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::SYN | tcp::ACK);
            check(&mut rig, &passed("a late answer", &answer, Reason::NotVirtual));
        }
        open(&mut rig, &request, mode);
        let record = half_open(&rig, &request).expect("half-open again");
        assert_eq!(record.created, record.control.seen, "{}", label(mode, v4, protocol));
    }
}

#[test]
fn what_belongs_to_no_connection() {
    each_tcp(3, |rig, mode, v4, request| {
        for flags in [tcp::ACK, tcp::PSH | tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST, tcp::SYN | tcp::ACK, 0] {
            let stray = with_flags(&request, flags);
            if mode == Mode::Dsr {
                let outcome = run(rig, &stray);
                assert_eq!(outcome.reason, Reason::ForwardedDsr);
                let again = run(rig, &stray);
                assert_eq!(again.bytes, outcome.bytes, "the ring says the same each time");
            } else {
                check(rig, &dropped(format!("{flags:02x}"), &stray, Reason::UnknownFlow));
            }
            assert_eq!(half_open_count(rig) + tables::records(&rig.flows).count(), 0);
        }
        if mode == Mode::Dsr {
            return;
        }
        rig.change(|world| world.server_mut(1).resets = true).unwrap();
        let ack = with_flags(&request, tcp::PSH | tcp::ACK).filled(100).class(0x20);
        check(rig, &sent("ACK", &ack, Reason::AnsweredReset, &reset_of(&ack)));
        let odd = with_flags(&request, tcp::ACK).tcp_options(&[1, 1, 1, 0]).padding(&[7; 9]).vlan(100);
        check(rig, &sent("options, padding, a tag", &odd, Reason::AnsweredReset, &reset_of(&odd).padding(&[])));
        let fin = with_flags(&request, tcp::FIN).filled(10);
        let answer = reset_of(&fin).tcp(80, CLIENT_PORT, tcp::RST | tcp::ACK).numbers(0, 0x0102_0304 + 11).window(0);
        check(rig, &sent("FIN without ACK", &fin, Reason::AnsweredReset, &answer));
        check(rig, &dropped("a reset is not reset", &with_flags(&request, tcp::RST | tcp::ACK), Reason::UnknownFlow));
        let routed = if v4 { ack.clone().options(&[148, 4, 0, 0]) } else { ack.clone().extension(60, 0) };
        check(rig, &sent("headers are not sent back", &routed, Reason::AnsweredReset, &reset_of(&ack)));
    });
}
