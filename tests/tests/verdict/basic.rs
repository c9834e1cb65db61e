//! A: basic verdicts, byte-exact, with counters and map contents after.

use lb_common::{conntrack::State, flow::flag, reason::Reason};
use lb_tests::{
    packet::{Packet, eth, tcp},
    rig::{
        tables,
        world::{
            BRIDGE_MAC, CLIENT, CLIENT_MAC, CLIENT6, FOREIGN_VLAN, IFINDEX, IFINDEX2, LB_MAC, LB2_MAC, MODES, Mode,
            OTHER, OTHER_VIRTUAL_MACS, OTHER6, SLOT, SOURCE, SOURCE6, TCP, UDP, VIP, VIP_NAT, VIP_NAT6, VIP_SNAT,
            VIP_SNAT6, VIP6, VIRTUAL_MAC, VLAN, VLAN2, World, client, from_node, node_mac, slot, to_client, to_node,
        },
    },
};

use crate::support::*;

const N1: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 0, 11);
const N1_6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);

#[test]
fn the_rewrite_of_each_mode_written_out() {
    let to_n1 = || eth().macs(LB_MAC, node_mac(1));
    let rows = [
        (
            "udp to vip, dsr",
            eth().ipv4(CLIENT, VIP).udp(31337, 80),
            Reason::ForwardedDsr,
            to_n1().ipv4(CLIENT, VIP).udp(31337, 80),
        ),
        (
            "udp to vip, nat",
            eth().ipv4(CLIENT, VIP_NAT).udp(31337, 80),
            Reason::ForwardedNat,
            to_n1().ipv4(CLIENT, N1).ttl(63).udp(31337, 8080),
        ),
        (
            "udp to vip, source nat",
            eth().ipv4(CLIENT, VIP_SNAT).udp(31337, 80),
            Reason::ForwardedNat,
            to_n1().ipv4(SOURCE, N1).ttl(63).udp(31337, 8080),
        ),
        (
            "udp to vip, dsr, ipv6",
            eth().ipv6(CLIENT6, VIP6).udp(31337, 80),
            Reason::ForwardedDsr,
            to_n1().ipv6(CLIENT6, VIP6).udp(31337, 80),
        ),
        (
            "udp to vip, nat, ipv6",
            eth().ipv6(CLIENT6, VIP_NAT6).udp(31337, 80),
            Reason::ForwardedNat,
            to_n1().ipv6(CLIENT6, N1_6).ttl(63).udp(31337, 8080),
        ),
        (
            "udp to vip, source nat, ipv6",
            eth().ipv6(CLIENT6, VIP_SNAT6).udp(31337, 80),
            Reason::ForwardedNat,
            to_n1().ipv6(SOURCE6, N1_6).ttl(63).udp(31337, 8080),
        ),
        (
            "syn to vip, dsr",
            eth().ipv4(CLIENT, VIP).tcp(31337, 80, tcp::SYN),
            Reason::ForwardedDsr,
            to_n1().ipv4(CLIENT, VIP).tcp(31337, 80, tcp::SYN),
        ),
        (
            "syn to vip, nat",
            eth().ipv4(CLIENT, VIP_NAT).tcp(31337, 80, tcp::SYN),
            Reason::ForwardedNat,
            to_n1().ipv4(CLIENT, N1).ttl(63).tcp(31337, 8080, tcp::SYN),
        ),
        (
            "syn to vip, source nat, ipv6",
            eth().ipv6(CLIENT6, VIP_SNAT6).tcp(31337, 80, tcp::SYN),
            Reason::ForwardedNat,
            to_n1().ipv6(SOURCE6, N1_6).ttl(63).tcp(31337, 8080, tcp::SYN),
        ),
        (
            "dsr keeps ttl 1, ecn and an odd checksum",
            eth().ipv4(CLIENT, VIP).ttl(1).class(0x2f).udp(31337, 80),
            Reason::ForwardedDsr,
            to_n1().ipv4(CLIENT, VIP).ttl(1).class(0x2f).udp(31337, 80),
        ),
    ];
    let cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, packet, reason, out)| sent(name, &packet.filled(9), reason, &out.filled(9)))
        .collect();
    check_each(&mut rig(World::standard()), &cases);
}

/// Untagged, one tag, two tags (the outer one a service tag; for DSR alone).
fn tagged(packet: &Packet, mode: Mode) -> Vec<(&'static str, Packet)> {
    let mut rows = vec![
        ("untagged", packet.clone()),
        ("one tag", packet.clone().vlan(VLAN)),
        ("priority tag", packet.clone().tag(0x8100, 0xa000)),
    ];
    rows.extend((mode == Mode::Dsr).then(|| ("two tags", packet.clone().service_vlan(VLAN2).vlan(VLAN))));
    rows
}

#[test]
fn connections_open_go_on_and_are_answered_in_every_mode_family_protocol_and_tagging() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        for (tags, request) in tagged(&opening(mode, v4, protocol).filled(5), mode) {
            let name = format!("{} {tags}", label(mode, v4, protocol));
            rig.forget().unwrap();
            check(&mut rig, &sent(&name, &request, forwarded(mode), &to_node(&request, mode, 1, CLIENT_PORT)));
            let record = half_open(&rig, &request).expect(&name);
            let state = if protocol == TCP { State::SynSent } else { State::UdpNew };
            let server = rig.world.find(mode, v4, protocol).id;
            assert_eq!((record.control.state, record.control.generation), (state as u8, 7), "{name}");
            assert_eq!((record.node, record.virtual_server), (slot(server, 1), server), "{name}");
            assert_eq!(record.nat_port, CLIENT_PORT.to_be(), "{name}");
            let nat = [0, flag::NAT, flag::NAT | flag::SOURCE_NAT][mode as usize];
            assert_eq!(record.control.flags, nat, "{name}");
            assert_eq!(half_open_count(&rig), if mode == Mode::Dsr { 1 } else { 2 }, "{name}");
            assert_eq!(tables::records(&rig.flows).count(), 0, "{name}");

            rig.forget().unwrap();
            establish(&mut rig, &request, mode);
            let record = in_flows(&rig, &request).expect(&name);
            let state = if protocol == TCP { State::Established } else { State::Udp };
            assert_eq!((record.control.state, record.control.flags), (state as u8, nat | flag::ACTIVE), "{name}");
            assert_eq!(rig.loads.read(u32::from(record.node)).active, 1, "{name}");
            assert_eq!(half_open_count(&rig), 0, "{name}: both halves have moved");
            let data = with_flags(&request, tcp::PSH | tcp::ACK).filled(700);
            check(&mut rig, &sent(&name, &data, forwarded(mode), &to_node(&data, mode, 1, CLIENT_PORT)));
            if mode == Mode::Dsr {
                continue;
            }
            let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::ACK).filled(1200);
            check(&mut rig, &sent(&name, &answer, Reason::ForwardedReply, &to_client(&request, &answer)));
            let half = in_flows(&rig, &answer).expect(&name);
            let hop = half.client_hop();
            let vlan = if request.bytes()[12..16] == [0x81, 0, 0, VLAN as u8] { VLAN } else { 0 };
            assert_eq!((hop.mac(), hop.slot(), hop.vlan()), (CLIENT_MAC, SLOT, vlan), "{name}");
        }
    }
}

#[test]
fn frames_and_connections_are_counted_once_at_their_node() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        let request = opening(mode, v4, protocol);
        let node = slot(rig.world.find(mode, v4, protocol).id, 1);
        establish(&mut rig, &request, mode);
        let stats = rig.stats(node).unwrap();
        let replies = u64::from(mode != Mode::Dsr);
        let length = request.bytes().len() as u64;
        assert_eq!((stats.packets, stats.bytes), (2, 2 * length), "{name}");
        assert_eq!((stats.reply_packets, stats.reply_bytes), (replies, replies * length), "{name}");
        assert_eq!((stats.connections, stats.rescheduled), (1, 0), "{name}");
    }
}

#[test]
fn what_is_not_sent_is_not_counted_at_its_node_and_leaves_no_record() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        let request = opening(mode, v4, protocol).filled(300);
        let ip_len = (request.bytes().len() - 14) as u16;
        let mut rows = vec![("too large", ip_len - 1, request.clone()), ("exactly", ip_len, request.clone())];
        rows.extend((mode != Mode::Dsr).then(|| ("ttl used up", 0, request.clone().ttl(1))));
        rows.extend((mode == Mode::Dsr).then(|| ("a loop", 0, request.clone().macs(node_mac(1), LB_MAC))));
        for (what, mtu, packet) in rows {
            fresh(&mut rig, &World::of(mode, v4, protocol, 1));
            rig.change(|world| world.node_mut(1, 1).mtu = mtu).unwrap();
            let sent = run(&mut rig, &packet).reason == forwarded(mode);
            assert_eq!(sent, what == "exactly", "{name}: {what}");
            let stats = rig.stats(slot(1, 1)).unwrap();
            assert_eq!((stats.packets, stats.connections), (u64::from(sent), u64::from(sent)), "{name}: {what}");
            assert_eq!(half_open(&rig, &packet).is_some(), sent, "{name}: {what}");

            // And on a connection that is tracked.
            fresh(&mut rig, &World::of(mode, v4, protocol, 1));
            establish(&mut rig, &opening(mode, v4, protocol), mode);
            rig.change(|world| world.node_mut(1, 1).mtu = mtu).unwrap();
            let before = rig.stats(slot(1, 1)).unwrap();
            let sent = run(&mut rig, &with_flags(&packet, tcp::ACK)).reason == forwarded(mode);
            let after = rig.stats(slot(1, 1)).unwrap();
            assert_eq!(after.packets - before.packets, u64::from(sent), "{name}: {what}, tracked");
        }
    }
}

#[test]
fn the_largest_packet_there_is_is_forwarded_whole() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        rig.forget().unwrap();
        let name = label(mode, v4, protocol);
        let headers = if v4 { 20 } else { 40 } + if protocol == TCP { 20 } else { 8 };
        // IPv4 counts its own header, IPv6 does not.
        let payload = 65_535 - headers + if v4 { 0 } else { 40 };
        let request = opening(mode, v4, protocol).filled(payload);
        check(&mut rig, &sent(&name, &request, forwarded(mode), &to_node(&request, mode, 1, CLIENT_PORT)));
    }
}

#[test]
fn what_concerns_no_vip_passes_unchanged() {
    let n1 = std::net::IpAddr::from(N1);
    let arp = eth().ethertype(0x0806).payload(&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xc1, 198, 51, 100, 9]);
    let lldp = eth().ethertype(0x88cc).filled(40);
    let other = eth().ipv4(CLIENT, OTHER);
    check_each(
        &mut rig(World::standard()),
        &[
            passed("arp", &arp, Reason::NotIp),
            passed("arp in a served vlan", &arp.clone().vlan(VLAN), Reason::NotIp),
            passed("lldp", &lldp, Reason::NotIp),
            passed("an ethernet header and nothing else", &eth().ethertype(0x0800), Reason::NotVirtual),
            passed("a vlan tag cut short", &eth().vlan(VLAN).ethertype(0x0800).frame_len(17), Reason::NotIp),
            passed("tcp to another address", &other.clone().tcp(31337, 80, tcp::SYN), Reason::NotVirtual),
            passed("udp to another address", &other.clone().udp(31337, 80), Reason::NotVirtual),
            passed("echo to another address", &other.clone().icmp(8, 0, [0; 4]), Reason::NotVirtual),
            passed("gre to another address", &other.clone().protocol(47).filled(30), Reason::NotVirtual),
            passed("ipv6 to another address", &eth().ipv6(CLIENT6, OTHER6).udp(31337, 80), Reason::NotVirtual),
            passed(
                "echo to another ipv6 address",
                &eth().ipv6(CLIENT6, OTHER6).icmp(128, 0, [0; 4]),
                Reason::NotVirtual,
            ),
            passed("a neighbour solicitation", &eth().ipv6(CLIENT6, OTHER6).icmp(135, 0, [0; 4]), Reason::NotVirtual),
            passed(
                "from a node to the world",
                &eth().ip(n1, CLIENT.into()).tcp(8080, 31337, tcp::ACK),
                Reason::NotVirtual,
            ),
            passed("to the source-nat address", &eth().ipv4(CLIENT, SOURCE).tcp(4, 5, tcp::ACK), Reason::NotVirtual),
            passed("to a node itself", &eth().ip(CLIENT.into(), n1).tcp(31337, 8080, tcp::SYN), Reason::NotVirtual),
            passed("ipv4 named ipv6", &eth().ipv4(CLIENT, VIP).ethertype(0x86dd).udp(31337, 80), Reason::NotVirtual),
        ],
    );
}

#[test]
fn frames_to_other_machines_are_theirs() {
    let mut cases = Vec::new();
    for (mode, v4, protocol) in combinations() {
        let (name, packet) = (label(mode, v4, protocol), opening(mode, v4, protocol));
        let out = to_node(&packet, mode, 1, CLIENT_PORT);
        let to = |mac| packet.clone().macs(CLIENT_MAC, mac);
        let others = [("a node", node_mac(1)), ("our other interface", LB2_MAC), ("nobody", [0; 6])];
        let routers = OTHER_VIRTUAL_MACS.map(|mac| ("another virtual router", mac));
        for (what, mac) in others.into_iter().chain(routers) {
            cases.push(passed(format!("{name}: to {what}"), &to(mac), Reason::NotForUs));
            cases.push(passed(format!("{name}: to {what}, tagged"), &to(mac).vlan(VLAN), Reason::NotForUs));
        }
        // Groups are today's rule: the IP destination alone counts.
        let groups = [("everyone", [0xff; 6]), ("a group", [1, 0, 0x5e, 0, 0, 18])];
        for (what, mac) in [("the bridge", BRIDGE_MAC), ("a virtual router", VIRTUAL_MAC)].into_iter().chain(groups) {
            cases.push(sent(format!("{name}: to {what}"), &to(mac), forwarded(mode), &out));
        }
    }
    cases.push(passed("arp for another machine", &eth().macs(CLIENT_MAC, LB2_MAC).ethertype(0x0806), Reason::NotForUs));
    check_each(&mut rig(World::standard()), &cases);
}

#[test]
fn only_configured_vlans_are_served() {
    let mut cases = Vec::new();
    for (mode, v4, protocol) in combinations() {
        let (name, packet) = (label(mode, v4, protocol), opening(mode, v4, protocol));
        let out = to_node(&packet, mode, 1, CLIENT_PORT);
        let inner = packet.clone().service_vlan(VLAN).vlan(FOREIGN_VLAN);
        let three = packet.clone().vlan(VLAN).vlan(VLAN).vlan(VLAN);
        cases.extend([
            passed(format!("{name}: foreign tag"), &packet.clone().vlan(FOREIGN_VLAN), Reason::VlanNotServed),
            passed(format!("{name}: foreign inner tag"), &inner, Reason::VlanNotServed),
            passed(format!("{name}: three tags"), &three, Reason::VlanNotServed),
            sent(
                format!("{name}: a tag with priority bits"),
                &packet.clone().tag(0x8100, 0x6000 | VLAN),
                forwarded(mode),
                &out,
            ),
        ]);
    }
    check_each(&mut rig(World::standard()), &cases);
}

#[test]
fn what_a_vip_does_not_serve_is_the_hosts() {
    let mut cases = Vec::new();
    for (mode, v4, protocol) in combinations() {
        let (name, packet) = (label(mode, v4, protocol), opening(mode, v4, protocol));
        let (sctp, gre) = (packet.clone().protocol(132), packet.clone().protocol(47));
        cases.extend([
            passed(format!("{name}: another port"), &packet.clone().destination_port(81), Reason::NoVirtualServer),
            passed(format!("{name}: sctp"), &sctp, Reason::NotBalanced),
            passed(format!("{name}: gre"), &gre, Reason::NotBalanced),
        ]);
    }
    check_each(&mut rig(World::standard()), &cases);
}

#[test]
fn ports_lead_to_the_most_specific_virtual_server() {
    let mut rig = rig(World::empty());
    for mode in MODES {
        let mut world = World::empty();
        for ranges in [vec![], vec![(8000, 8100)], vec![(1, 65_535)]] {
            let server = world.add(mode, true, TCP, 1);
            server.ports = if ranges.is_empty() { vec![80, 8050] } else { Vec::new() };
            (server.ranges, server.owns_fragments) = (ranges, false);
        }
        fresh(&mut rig, &world);
        for (port, server) in
            [(80, 1), (8050, 1), (8000, 2), (8051, 2), (8100, 2), (8101, 3), (7999, 3), (65_535, 3), (1, 3)]
        {
            let packet = opening(mode, true, TCP).destination_port(port);
            assert_eq!(run(&mut rig, &packet).reason, forwarded(mode), "port {port}");
            assert_eq!(half_open(&rig, &packet).expect("noted").virtual_server, server, "port {port}");
        }
        let datagram = eth().ip(client(true), mode.vip(true)).udp(31337, 8050);
        check(&mut rig, &passed("another protocol", &datagram, Reason::NoVirtualServer));
    }
}

#[test]
fn a_node_that_cannot_be_reached_is_a_reason() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        fresh(&mut rig, &World::of(mode, v4, protocol, 1));
        let request = opening(mode, v4, protocol).filled(600);
        let data = with_flags(&request, tcp::ACK);
        let out = to_node(&request, mode, 1, CLIENT_PORT);
        let redirected = Case { action: REDIRECT, ..sent(&name, &request, forwarded(mode), &out) };
        let ip_len = (request.bytes().len() - 14) as u16;

        let mut with = |edit: &dyn Fn(&mut lb_tests::rig::world::Node), case: Case| {
            rig.forget().unwrap();
            rig.change(|world| edit(world.node_mut(1, 1))).unwrap();
            check(&mut rig, &case);
            rig.change(|world| *world = World::of(mode, v4, protocol, 1)).unwrap();
        };
        with(&|node| node.ifindex = IFINDEX2, redirected);
        with(&|node| node.ifindex = 999, dropped(format!("{name}: no such device"), &request, Reason::RewriteFailed));
        with(&|node| node.resolved = false, dropped(&name, &request, Reason::NextHopUnresolved));
        with(&|node| node.mtu = ip_len, sent(&name, &request, forwarded(mode), &out));
        with(&|node| node.mtu = ip_len - 1, dropped(&name, &request, Reason::ExceedsMtu));
        with(&|node| node.ifindex = IFINDEX, sent(&name, &request, forwarded(mode), &out));

        rig.forget().unwrap();
        establish(&mut rig, &request, mode);
        rig.change(|world| world.node_mut(1, 1).resolved = false).unwrap();
        check(&mut rig, &dropped(format!("{name}: tracked"), &data, Reason::NextHopUnresolved));
        rig.change(|world| {
            let node = world.node_mut(1, 1);
            (node.resolved, node.mac) = (true, [2, 0, 0, 0, 9, 9]);
        })
        .unwrap();
        let moved = to_node(&data, mode, 1, CLIENT_PORT).macs(LB_MAC, [2, 0, 0, 0, 9, 9]);
        check(&mut rig, &sent(format!("{name}: its new MAC address acts at once"), &data, forwarded(mode), &moved));
    }
}

#[test]
fn without_a_node_tcp_is_reset_or_dropped_as_configured() {
    let mut rig = rig(World::empty());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        let mut world = World::of(mode, v4, protocol, 0);
        fresh(&mut rig, &world);
        let request = opening(mode, v4, protocol);
        check(&mut rig, &dropped(&name, &request, Reason::NoNode));
        world.server_mut(1).resets = true;
        rig.configure(world).unwrap();
        if protocol == UDP {
            check(&mut rig, &dropped(&name, &request, Reason::NoNode));
            continue;
        }
        let reset = request.clone().reversed().tcp(80, CLIENT_PORT, tcp::RST | tcp::ACK);
        let reset = reset.numbers(0, 0x0102_0305).window(0).id(0).dont_fragment();
        check(&mut rig, &sent(&name, &request, Reason::AnsweredReset, &reset));
        check(&mut rig, &dropped(&name, &with_flags(&request, tcp::RST), Reason::UnknownFlow));
    }
}

#[test]
fn dsr_never_sends_a_packet_back_to_the_node_it_came_from() {
    let mut rig = rig(World::empty());
    for (v4, protocol) in [(true, TCP), (true, UDP), (false, TCP), (false, UDP)] {
        fresh(&mut rig, &World::of(Mode::Dsr, v4, protocol, 1));
        let request = opening(Mode::Dsr, v4, protocol).macs(node_mac(1), LB_MAC);
        check(&mut rig, &dropped("a node without the vip", &request, Reason::Loop));
        let stray = with_flags(&request, tcp::ACK);
        check(&mut rig, &dropped("tracked or by the ring", &stray, Reason::Loop));
    }
}

#[test]
fn frames_of_several_buffers_are_forwarded_answered_and_reset() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        rig.forget().unwrap();
        let name = label(mode, v4, protocol);
        // One buffer of a test run holds about 3.5 kB.
        let request = opening(mode, v4, protocol).filled(7001);
        let counted = rig.counter(forwarded(mode)).bytes;
        check(&mut rig, &sent(&name, &request, forwarded(mode), &to_node(&request, mode, 1, CLIENT_PORT)));
        let length = request.bytes().len() as u64;
        let node = slot(rig.world.find(mode, v4, protocol).id, 1);
        assert_eq!(rig.counter(forwarded(mode)).bytes - counted, length, "{name}: all of the frame is counted");
        assert_eq!(rig.stats(node).unwrap().bytes, length, "{name}");
        rig.forget().unwrap();
        establish(&mut rig, &request, mode);
        let stats = rig.stats(node).unwrap();
        assert_eq!((stats.bytes, stats.reply_bytes), (2 * length, u64::from(mode != Mode::Dsr) * length), "{name}");
        let data = with_flags(&request, tcp::PSH | tcp::ACK).vlan(VLAN);
        check(&mut rig, &sent(&name, &data, forwarded(mode), &to_node(&data, mode, 1, CLIENT_PORT)));
        let cut = data.clone().frame_len(7000);
        check(&mut rig, &dropped(format!("{name}: cut"), &cut, Reason::BadIpLength));
        if mode == Mode::Dsr {
            continue;
        }
        let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::ACK);
        // Into the segment that the client's last packet came from.
        check(&mut rig, &sent(&name, &answer, Reason::ForwardedReply, &to_client(&data, &answer)));
        if protocol == TCP {
            rig.forget().unwrap();
            let id = rig.world.find(mode, v4, protocol).id;
            rig.change(|world| world.server_mut(id).resets = true).unwrap();
            let stray = with_flags(&request, tcp::ACK);
            let reset = stray.clone().reversed().tcp(80, CLIENT_PORT, tcp::RST).numbers(0x0a0b_0c0d, 0).window(0);
            let reset = reset.id(0).dont_fragment().payload(&[]);
            check(&mut rig, &sent(format!("{name}: reset"), &stray, Reason::AnsweredReset, &reset));
        }
    }
    for (mode, v4) in [(Mode::Dsr, true), (Mode::Nat, false)] {
        let echo = eth().ip(client(v4), mode.vip(v4)).icmp(if v4 { 8 } else { 128 }, 0, [0, 1, 0, 2]).filled(6000);
        let answer = echo.clone().reversed().icmp(if v4 { 0 } else { 129 }, 0, [0, 1, 0, 2]);
        check(&mut rig, &sent("a large echo", &echo, Reason::AnsweredEcho, &answer));
    }
}
