//! E: ICMP echo to VIPs, and ICMP errors to whoever owns the quoted flow, with the quoted packet as that one knows it.

use std::net::{IpAddr, Ipv4Addr};

use lb_common::reason::Reason;
use lb_tests::{
    packet::{Packet, Sum, eth, tcp},
    rig::{
        Rig,
        world::{
            CLIENT_MAC, FOREIGN_VLAN, LB_MAC, MODES, Mode, OTHER, OTHER6, ROUTER, ROUTER6, TCP, UDP, VLAN, VLAN2,
            World, client, from_node, node_address, node_mac, source, to_client, to_node,
        },
    },
};

use crate::support::*;

fn echo(mode: Mode, v4: bool) -> Packet {
    eth().ip(client(v4), mode.vip(v4)).icmp(if v4 { 8 } else { 128 }, 0, [0x12, 0x34, 0, 7])
}

/// The answer to an echo request (RFC 792, RFC 4443 §4.2).
fn echo_reply(request: &Packet, v4: bool) -> Packet {
    let sum = request.clone();
    sum.reversed().icmp(if v4 { 0 } else { 129 }, 0, [0x12, 0x34, 0, 7]).ttl(64)
}

#[test]
fn echo_to_a_vip_is_answered() {
    let mut rig = rig(World::standard());
    for mode in MODES {
        for v4 in [true, false] {
            let request = echo(mode, v4);
            let routed = if v4 { request.clone().options(&[148, 4, 0, 0]) } else { request.clone().extension(0, 0) };
            for (what, packet) in [
                ("empty", request.clone()),
                ("56 bytes", request.clone().filled(56)),
                ("odd length", request.clone().filled(33)),
                ("a page of ff", request.clone().payload(&[0xff; 1400])),
                ("zeros", request.clone().payload(&[0; 64])),
                ("tagged", request.clone().vlan(VLAN).filled(8)),
                ("tagged twice", request.clone().service_vlan(VLAN2).vlan(VLAN).filled(8)),
                ("its last hop", request.clone().ttl(1)),
                ("padded", request.clone().padding(&[9; 18])),
                ("with options or extension headers", routed.filled(5)),
            ] {
                let name = format!("{mode:?} IPv{}: {what}", if v4 { 4 } else { 6 });
                check(&mut rig, &sent(name, &packet, Reason::AnsweredEcho, &echo_reply(&packet, v4)));
            }
            let wrong = request.clone().filled(9).sum(Sum::Off(0x0101));
            let answer = echo_reply(&wrong, v4).sum(Sum::Off(0x0101));
            check(&mut rig, &sent("a wrong checksum stays wrong", &wrong, Reason::AnsweredEcho, &answer));
        }
    }
}

#[test]
fn other_icmp_to_a_vip_is_the_hosts_and_broken_icmp_nobodys() {
    let mut rig = rig(World::standard());
    for (mode, v4) in MODES.into_iter().flat_map(|mode| [(mode, true), (mode, false)]) {
        let request = echo(mode, v4);
        let kinds: &[(u8, &str)] = if v4 {
            &[(0, "echo reply"), (5, "redirect"), (13, "timestamp"), (17, "address mask"), (4, "source quench")]
        } else {
            &[
                (129, "echo reply"),
                (133, "router solicitation"),
                (135, "neighbour solicitation"),
                (137, "redirect"),
                (0, "zero"),
            ]
        };
        for (kind, what) in kinds {
            let packet = request.clone().icmp(*kind, 0, [0; 4]).filled(40);
            check(&mut rig, &passed(format!("{mode:?} {what}"), &packet, Reason::NotBalanced));
        }
        let foreign = request.clone().protocol(if v4 { 58 } else { 1 });
        check(&mut rig, &passed("ICMP of the other family", &foreign, Reason::NotBalanced));
        check(&mut rig, &passed("a fragment", &request.clone().filled(64).part(0, 32), Reason::NotBalanced));
        check(&mut rig, &passed("foreign vlan", &request.clone().vlan(FOREIGN_VLAN), Reason::VlanNotServed));

        let header = request.ip_header_len();
        let cut = |length: u16| {
            let (at, value) = if v4 { (2, header as u16 + length) } else { (4, length) };
            request.clone().patch(at, &value.to_be_bytes())
        };
        for length in 0..8 {
            let name = format!("{mode:?} cut to {length}");
            check(&mut rig, &dropped(&name, &cut(length), Reason::BadIcmp));
            let elsewhere = cut(length).destination(if v4 { IpAddr::from(OTHER) } else { OTHER6.into() });
            check(&mut rig, &passed(&name, &elsewhere, Reason::NotVirtual));
        }
        let loopback: IpAddr = if v4 { Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        for source in [loopback, mode.vip(v4)] {
            check(&mut rig, &dropped(format!("from {source}"), &request.clone().source(source), Reason::BadSource));
        }
    }
}

/// Errors by family: name, type, code, the four bytes after the checksum.
fn errors(v4: bool) -> [(&'static str, u8, u8, [u8; 4]); 5] {
    if v4 {
        [
            ("fragmentation needed", 3, 4, [0, 0, 0x05, 0x78]),
            ("port unreachable", 3, 3, [0; 4]),
            ("host unreachable", 3, 1, [0; 4]),
            ("time exceeded", 11, 0, [0; 4]),
            ("parameter problem", 12, 0, [20, 0, 0, 0]),
        ]
    } else {
        [
            ("packet too big", 2, 0, [0, 0, 0x05, 0x78]),
            ("port unreachable", 1, 4, [0; 4]),
            ("no route", 1, 0, [0; 4]),
            ("time exceeded", 3, 0, [0; 4]),
            ("parameter problem", 4, 1, [0, 0, 0, 40]),
        ]
    }
}

fn router(v4: bool) -> IpAddr {
    if v4 { ROUTER.into() } else { ROUTER6.into() }
}

/// How much of the packet is quoted: the least that RFC 792 asks for, a bit, all.
fn quote_lengths(v4: bool) -> [usize; 5] {
    let header = if v4 { 20 } else { 40 };
    [header + 8, header + 16, header + 18, header + 28, 1232]
}

/// A connection, and a packet that its node sent: as the node knows it, and as it is on the client's side.
fn connection(rig: &mut Rig, mode: Mode, v4: bool, protocol: u8, half_open: bool) -> (Packet, Packet, Packet) {
    rig.forget().expect("maps can be written");
    let request = opening(mode, v4, protocol);
    if half_open {
        open(rig, &request, mode);
    } else {
        establish(rig, &request, mode);
    }
    let inside = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::ACK).filled(900).ttl(33).id(0x5151);
    let mut outside = to_client(&request, &inside);
    if mode == Mode::Dsr {
        outside = with_flags(&request.clone().reversed(), tcp::ACK).filled(900);
    }
    // The TTL that is left when a router quotes it.
    (request, inside, outside.ttl(33).id(0x5151))
}

#[test]
fn an_error_from_the_clients_side_reaches_the_node_that_owns_the_flow() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        for half_open in [false, true] {
            let (_, inside, outside) = connection(&mut rig, mode, v4, protocol, half_open);
            for (what, kind, code, rest) in errors(v4) {
                for length in quote_lengths(v4) {
                    let name = format!("{}: {what}, {length} bytes quoted", label(mode, v4, protocol));
                    let error = eth().ip(router(v4), mode.vip(v4)).icmp(kind, code, rest).quoting(&outside, length);
                    let out = match mode {
                        Mode::Dsr => error.clone().macs(LB_MAC, node_mac(1)),
                        Mode::Nat | Mode::SourceNat => error
                            .clone()
                            .macs(LB_MAC, node_mac(1))
                            .destination(node_address(v4, 1))
                            .ttl(63)
                            .quoting(&inside, length),
                    };
                    check(&mut rig, &sent(name, &error, Reason::ForwardedIcmpError, &out));
                }
            }
        }
    }
}

#[test]
fn an_error_from_the_nodes_side_reaches_the_client() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations().filter(|(mode, _, _)| *mode != Mode::Dsr) {
        let (request, _, _) = connection(&mut rig, mode, v4, protocol, false);
        let outside = with_flags(&request, tcp::ACK).filled(700).ttl(21);
        let inside = to_node(&outside, mode, 1, CLIENT_PORT).ttl(21);
        let seen_by_node = if mode == Mode::SourceNat { source(v4) } else { client(v4) };
        for (what, kind, code, rest) in errors(v4) {
            for length in quote_lengths(v4) {
                for (speaker, as_seen) in [(router(v4), router(v4)), (node_address(v4, 1), mode.vip(v4))] {
                    let name = format!("{}: {what} from {speaker}, {length} quoted", label(mode, v4, protocol));
                    let error = eth().macs(node_mac(1), LB_MAC).ip(speaker, seen_by_node).icmp(kind, code, rest);
                    let out = error
                        .clone()
                        .macs(LB_MAC, CLIENT_MAC)
                        .ip(as_seen, client(v4))
                        .ttl(63)
                        .quoting(&outside, length);
                    check(&mut rig, &sent(name, &error.quoting(&inside, length), Reason::ForwardedIcmpError, &out));
                }
            }
        }
    }
}

#[test]
fn an_error_is_rewritten_behind_tags_options_and_quoted_options() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let (_, inside, outside) = connection(&mut rig, mode, v4, protocol, false);
        let error = eth().ip(router(v4), mode.vip(v4)).icmp(3, 3, [0; 4]);
        let with_options = |packet: &Packet| if v4 { packet.clone().options(&[148, 4, 0, 0]) } else { packet.clone() };
        let outer = if v4 { with_options(&error) } else { error.clone().extension(60, 0) };
        for error in [error.clone().vlan(VLAN), error.clone().service_vlan(VLAN2).vlan(VLAN), outer] {
            let packet = error.clone().quoting(&with_options(&outside), 100);
            let at_node = error.macs(LB_MAC, node_mac(1)).retagged(0);
            let out = match mode {
                Mode::Dsr => at_node.quoting(&with_options(&outside), 100),
                Mode::Nat | Mode::SourceNat => {
                    at_node.destination(node_address(v4, 1)).ttl(63).quoting(&with_options(&inside), 100)
                }
            };
            check(&mut rig, &sent(label(mode, v4, protocol), &packet, Reason::ForwardedIcmpError, &out));
        }
    }
}

#[test]
fn an_error_from_the_router_that_node_and_client_share_is_no_loop() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations().filter(|(mode, _, _)| *mode != Mode::Dsr) {
        let (_, inside, outside) = connection(&mut rig, mode, v4, protocol, false);
        let error = eth().macs(node_mac(1), LB_MAC).ip(router(v4), mode.vip(v4)).icmp(3, 3, [0; 4]);
        let out = error.clone().macs(LB_MAC, node_mac(1)).destination(node_address(v4, 1)).ttl(63).quoting(&inside, 60);
        let packet = error.quoting(&outside, 60);
        check(&mut rig, &sent(label(mode, v4, protocol), &packet, Reason::ForwardedIcmpError, &out));
    }
}

#[test]
fn a_path_mtu_that_no_path_has_is_forged() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let (_, _, outside) = connection(&mut rig, mode, v4, protocol, false);
        let mtus: &[(u32, bool)] = if v4 {
            &[(551, false), (552, true), (68, false), (1, false), (0, true), (1500, true)]
        } else {
            &[(1279, false), (1280, true), (0, false)]
        };
        for (mtu, believed) in mtus {
            let (kind, code) = if v4 { (3, 4) } else { (2, 0) };
            let error = eth().ip(router(v4), mode.vip(v4)).icmp(kind, code, mtu.to_be_bytes()).quoting(&outside, 60);
            let outcome = run(&mut rig, &error);
            let expected = if *believed { Reason::ForwardedIcmpError } else { Reason::IcmpMtuTooSmall };
            assert_eq!(outcome.reason, expected, "{} MTU {mtu}", label(mode, v4, protocol));
        }
    }
}

#[test]
fn an_error_about_a_flow_that_nobody_has() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let (request, _, outside) = connection(&mut rig, mode, v4, protocol, false);
        let name = label(mode, v4, protocol);
        let error = eth().ip(router(v4), mode.vip(v4)).icmp(3, 1, [0; 4]);
        let unknown = error.clone().quoting(&outside.clone().destination_port(4242), 60);
        match mode {
            // The ring owns what is not tracked.
            Mode::Dsr => {
                let out = unknown.clone().macs(LB_MAC, node_mac(1));
                check(&mut rig, &sent(&name, &unknown, Reason::ForwardedIcmpError, &out));
            }
            Mode::Nat | Mode::SourceNat => check(&mut rig, &dropped(&name, &unknown, Reason::UnknownIcmpFlow)),
        }
        let port = error.clone().quoting(&outside.clone().source_port(81), 60);
        check(&mut rig, &dropped(format!("{name}: another port"), &port, Reason::UnknownIcmpFlow));

        let (index, record) =
            lb_tests::rig::tables::find(&rig.flows, &lb_tests::rig::tables::key_of(&request)).unwrap();
        lb_tests::rig::tables::age(&rig.flows, index, lb_tests::rig::tables::lifetime(&record));
        let dead = error.clone().quoting(&outside, 60);
        match mode {
            Mode::Dsr => {
                let out = dead.clone().macs(LB_MAC, node_mac(1));
                check(&mut rig, &sent(format!("{name}: a dead connection"), &dead, Reason::ForwardedIcmpError, &out));
            }
            Mode::Nat | Mode::SourceNat => {
                check(&mut rig, &dropped(format!("{name}: a dead connection"), &dead, Reason::UnknownIcmpFlow))
            }
        }
    }
}

#[test]
fn an_error_about_a_connection_of_a_failed_node_is_dropped() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let (_, _, outside) = connection(&mut rig, mode, v4, protocol, false);
        let id = rig.world.find(mode, v4, protocol).id;
        rig.change(|world| world.node_mut(id, 1).usable = false).unwrap();
        let error = eth().ip(router(v4), mode.vip(v4)).icmp(3, 1, [0; 4]).quoting(&outside, 60);
        check(&mut rig, &dropped(label(mode, v4, protocol), &error, Reason::UnknownIcmpFlow));
        rig.change(|world| world.node_mut(id, 1).usable = true).unwrap();
    }
}

#[test]
fn errors_that_quote_too_little_or_something_else() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let (_, _, outside) = connection(&mut rig, mode, v4, protocol, false);
        let error = eth().ip(router(v4), mode.vip(v4)).icmp(if v4 { 3 } else { 1 }, 1, [0; 4]);
        let name = label(mode, v4, protocol);
        let header = if v4 { 20 } else { 40 };
        let other: IpAddr = if v4 { OTHER.into() } else { OTHER6.into() };
        for length in [0, 1, 8, header - 1, header, header + 1, header + 7] {
            let short = error.clone().quoting(&outside, length);
            check(&mut rig, &dropped(format!("{name}: {length} quoted"), &short, Reason::BadIcmp));
            check(&mut rig, &passed(&name, &short.clone().destination(other), Reason::NotVirtual));
        }
        let bad = |what: &str, quoted: Packet| {
            dropped(format!("{name}: {what}"), &error.clone().quoting(&quoted, 80), Reason::BadIcmp)
        };
        check(&mut rig, &bad("another version", outside.clone().patch(0, &[0x55])));
        check(&mut rig, &bad("icmp", outside.clone().icmp(8, 0, [0; 4])));
        check(&mut rig, &bad("gre", outside.clone().protocol(47)));
        if v4 {
            check(&mut rig, &bad("a later fragment", outside.clone().part(64, 128)));
            check(&mut rig, &bad("a header length below 20", outside.clone().patch(0, &[0x44])));
            let beyond = error.clone().quoting(&outside.clone().patch(0, &[0x4f]), 60);
            check(&mut rig, &dropped(format!("{name}: options beyond the quote"), &beyond, Reason::BadIcmp));
        }
        // A stranger's error: the quoted packet did not come from where the error goes to.
        let elsewhere = error.clone().destination(other).quoting(&outside, 60);
        check(&mut rig, &passed(format!("{name}: not to the VIP"), &elsewhere, Reason::NotVirtual));
        let forged =
            error.clone().icmp(if v4 { 3 } else { 2 }, if v4 { 4 } else { 0 }, [0, 0, 0, 1]).quoting(&outside, 60);
        check(
            &mut rig,
            &passed(format!("{name}: forged, not to the VIP"), &forged.destination(other), Reason::NotVirtual),
        );
        let second = MODES.into_iter().find(|m| *m != mode).expect("there are three");
        let wrong_vip = error.clone().destination(second.vip(v4)).quoting(&outside, 60);
        check(&mut rig, &dropped(format!("{name}: to another VIP"), &wrong_vip, Reason::UnknownIcmpFlow));
        let loopback: IpAddr = if v4 { Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        let martian = error.clone().source(loopback).quoting(&outside, 60);
        check(&mut rig, &dropped(format!("{name}: from loopback"), &martian, Reason::BadSource));
    }
}

#[test]
fn an_error_used_up_on_the_way_is_not_sent_by_nat() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in
        [(Mode::Nat, true, TCP), (Mode::SourceNat, true, UDP), (Mode::Nat, false, UDP), (Mode::SourceNat, false, TCP)]
    {
        let (_, _, outside) = connection(&mut rig, mode, v4, protocol, false);
        let error = eth().ip(router(v4), mode.vip(v4)).icmp(3, 1, [0; 4]).quoting(&outside, 60).ttl(1);
        check(&mut rig, &dropped(label(mode, v4, protocol), &error, Reason::TtlExpired));
    }
}
