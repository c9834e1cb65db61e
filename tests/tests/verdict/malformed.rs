//! B: malformed and hostile packets. To a VIP each ends by its documented reason; the same packet to another address passes
//! unchanged (trap 1), and nothing is ever sent corrupted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::reason::Reason;
use lb_tests::{
    packet::{Packet, Sum, eth, tcp},
    rig::{
        Rig,
        world::{
            MODES, Mode, OTHER, OTHER6, TCP, UDP, VLAN, VLAN2, World, client, from_node, node_address, to_client,
            to_node,
        },
    },
};

use crate::support::*;

/// The same packet to an address that is no VIP.
fn elsewhere(packet: &Packet, v4: bool) -> Packet {
    packet.clone().destination(if v4 { IpAddr::from(OTHER) } else { OTHER6.into() })
}

/// A malformed packet, on its own and with its tags, to a VIP and elsewhere.
fn hold_against(rig: &mut Rig, name: &str, packet: &Packet, v4: bool, reason: Reason) {
    for tagged in [packet.clone(), packet.clone().vlan(VLAN), packet.clone().service_vlan(VLAN2).vlan(VLAN)] {
        check(rig, &dropped(name, &tagged, reason));
        check(rig, &passed(format!("{name}, to another address"), &elsewhere(&tagged, v4), Reason::NotVirtual));
    }
    assert_eq!(half_open_count(rig), 0, "{name}: nothing is noted");
}

#[test]
fn a_packet_cut_at_any_byte_is_dropped_or_not_recognised() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        for packet in [opening(mode, v4, protocol).filled(3), opening(mode, v4, protocol).vlan(VLAN).filled(3)] {
            let whole = packet.bytes().len();
            let l3 = packet.l3();
            for length in 14..whole {
                let cut = packet.clone().frame_len(length);
                let name = format!("{} cut to {length}", label(mode, v4, protocol));
                let addresses = l3 + if v4 { 20 } else { 40 };
                let case = match length {
                    _ if length < l3 => passed(&name, &cut, Reason::NotIp),
                    // Not even the addresses: nobody can say whose it is.
                    _ if length < addresses => passed(&name, &cut, Reason::NotVirtual),
                    _ => dropped(&name, &cut, Reason::BadIpLength),
                };
                check(&mut rig, &case);
                let other = elsewhere(&cut, v4);
                check(&mut rig, &passed(&name, &other, if length < l3 { Reason::NotIp } else { Reason::NotVirtual }));
            }
        }
    }
    assert_eq!(half_open_count(&rig), 0);
}

#[test]
fn header_length_and_version_of_ipv4() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations().filter(|(_, v4, _)| *v4) {
        let packet = opening(mode, v4, protocol).filled(3);
        for words in (0..16u8).filter(|words| *words != 5) {
            let name = format!("{} IHL {words}", label(mode, v4, protocol));
            let odd = packet.clone().patch(0, &[0x40 | words]);
            let bytes = packet.bytes().len() - 14;
            let reason = match usize::from(words) * 4 {
                ..20 => Reason::BadIpHeader,
                header if header > bytes => Reason::BadIpHeader,
                // The options swallow the transport header, which is then cut short or nonsense.
                _ if protocol == TCP => Reason::BadTcpHeader,
                _ => Reason::BadUdpHeader,
            };
            let outcome = run(&mut rig, &odd);
            let accepted = [reason, Reason::SourceRouted];
            assert!(outcome.action == DROP && accepted.contains(&outcome.reason), "{name}: {:?}", outcome.reason);
            check(&mut rig, &passed(&name, &elsewhere(&odd, v4), Reason::NotVirtual));
        }
        for version in (0..16u8).filter(|version| *version != 4) {
            let odd = packet.clone().patch(0, &[version << 4 | 5]);
            hold_against(&mut rig, &format!("version {version}"), &odd, v4, Reason::BadIpHeader);
        }
    }
    for mode in MODES {
        for version in [0u8, 4, 5, 7, 15] {
            let odd = opening(mode, false, UDP).patch(0, &[version << 4]);
            hold_against(&mut rig, &format!("IPv6 version {version}"), &odd, false, Reason::BadIpHeader);
        }
    }
}

#[test]
fn length_fields() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        let packet = opening(mode, v4, protocol).filled(16);
        let header = packet.ip_header_len();
        let ip_len = packet.bytes().len() - 14;
        let total = |length: usize| {
            let (at, value) = if v4 { (2, length) } else { (4, length - 40) };
            packet.clone().patch(at, &(value as u16).to_be_bytes())
        };
        hold_against(&mut rig, &format!("{name}: beyond the frame"), &total(ip_len + 1), v4, Reason::BadIpLength);
        hold_against(&mut rig, &format!("{name}: far beyond"), &total(65_535), v4, Reason::BadIpLength);
        let short = if protocol == TCP { Reason::BadTcpHeader } else { Reason::BadUdpHeader };
        hold_against(&mut rig, &format!("{name}: no room for transport"), &total(header), v4, short);
        hold_against(
            &mut rig,
            &format!("{name}: a byte short"),
            &total(header + if protocol == TCP { 19 } else { 7 }),
            v4,
            short,
        );
        if v4 {
            hold_against(&mut rig, &format!("{name}: shorter than the header"), &total(19), v4, Reason::BadIpLength);
            hold_against(&mut rig, &format!("{name}: zero"), &total(0), v4, Reason::BadIpLength);
        }
        if protocol == UDP {
            for (length, what) in [(0u16, "zero"), (7, "below a header"), (25, "beyond the packet"), (65_535, "huge")] {
                let odd = packet.clone().patch(header + 4, &length.to_be_bytes());
                hold_against(&mut rig, &format!("{name}: UDP length {what}"), &odd, v4, Reason::BadUdpHeader);
            }
        } else {
            for offset in (0..16u8).filter(|words| *words < 5 || usize::from(*words) * 4 > 36) {
                let odd = packet.clone().patch(header + 12, &[offset << 4]);
                hold_against(&mut rig, &format!("{name}: data offset {offset}"), &odd, v4, Reason::BadTcpHeader);
            }
            for flags in [tcp::SYN | tcp::FIN, tcp::SYN | tcp::RST, tcp::SYN | tcp::FIN | tcp::ACK, 0xff] {
                hold_against(
                    &mut rig,
                    &format!("{name}: flags {flags:02x}"),
                    &with_flags(&packet, flags),
                    v4,
                    Reason::BadTcpHeader,
                );
            }
        }
    }
}

#[test]
fn contradictory_flags_do_not_pass_on_a_tracked_connection_either() {
    let mut rig = rig(World::standard());
    for (mode, v4, _) in combinations().filter(|(_, _, protocol)| *protocol == TCP) {
        let request = opening(mode, v4, TCP);
        establish(&mut rig, &request, mode);
        check(&mut rig, &dropped("SYN with FIN", &with_flags(&request, tcp::SYN | tcp::FIN), Reason::BadTcpHeader));
        let short = with_flags(&request, tcp::ACK).patch(request.ip_header_len() + 12, &[0x40]);
        check(&mut rig, &dropped("data offset 4", &short, Reason::BadTcpHeader));
    }
}

#[test]
fn padding_is_no_part_of_the_packet() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        for packet in [opening(mode, v4, protocol), opening(mode, v4, protocol).vlan(VLAN)] {
            let runt = packet.padding(&[0xee; 18]);
            check(&mut rig, &sent(&name, &runt, forwarded(mode), &to_node(&runt, mode, 1, CLIENT_PORT)));
            rig.forget().unwrap();
        }
        let swallowed =
            opening(mode, v4, protocol).filled(4).patch(if v4 { 2 } else { 4 }, &[0, if v4 { 20 } else { 0 }]);
        let short = if protocol == TCP { Reason::BadTcpHeader } else { Reason::BadUdpHeader };
        hold_against(&mut rig, &format!("{name}: a transport header in the padding"), &swallowed, v4, short);
    }
}

#[test]
fn checksums_are_neither_judged_nor_repaired() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        for what in [Sum::Off(1), Sum::Off(0x8000), Sum::Off(0xfffe)] {
            rig.forget().unwrap();
            let wrong = opening(mode, v4, protocol).filled(11).sum(what);
            let out = to_node(&wrong, mode, 1, CLIENT_PORT);
            check(&mut rig, &sent(format!("{name}: wrong by {what:?}"), &wrong, forwarded(mode), &out));
        }
        rig.forget().unwrap();
        let zero = opening(mode, v4, protocol).filled(11).sum(Sum::Zero);
        match (protocol, v4) {
            (UDP, true) => {
                let out = to_node(&zero, mode, 1, CLIENT_PORT);
                check(&mut rig, &sent(format!("{name}: no checksum stays none"), &zero, forwarded(mode), &out));
            }
            (UDP, false) => hold_against(&mut rig, &format!("{name}: none"), &zero, v4, Reason::UdpWithoutChecksum),
            _ => {}
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ffff() {
    let mut rig = rig(World::standard());
    for (mode, v4) in [(Mode::Nat, true), (Mode::Nat, false), (Mode::SourceNat, true), (Mode::SourceNat, false)] {
        let request = opening(mode, v4, UDP);
        // Two bytes of payload that make the translated packet sum up to zero: the builder then writes ffff.
        let found = (0..=0xffffu32).map(|word| request.clone().payload(&(word as u16).to_be_bytes())).find(|packet| {
            let out = to_node(packet, mode, 1, CLIENT_PORT).bytes();
            let at = packet.l3() + packet.ip_header_len() + 6;
            out[at..at + 2] == [0xff, 0xff]
        });
        let packet = found.expect("one of all words");
        rig.forget().unwrap();
        check(&mut rig, &sent("to ffff", &packet, forwarded(mode), &to_node(&packet, mode, 1, CLIENT_PORT)));
    }
}

#[test]
fn ttl_is_used_up_in_nat_and_untouched_in_dsr() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        for ttl in [0, 1, 2, 255] {
            rig.forget().unwrap();
            let packet = opening(mode, v4, protocol).ttl(ttl);
            if mode != Mode::Dsr && ttl < 2 {
                check(&mut rig, &dropped(format!("{name} ttl {ttl}"), &packet, Reason::TtlExpired));
                check(&mut rig, &passed(&name, &elsewhere(&packet, v4), Reason::NotVirtual));
            } else {
                check(&mut rig, &sent(&name, &packet, forwarded(mode), &to_node(&packet, mode, 1, CLIENT_PORT)));
            }
        }
        if mode == Mode::Dsr {
            continue;
        }
        rig.forget().unwrap();
        let request = opening(mode, v4, protocol);
        establish(&mut rig, &request, mode);
        let answer = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::ACK);
        check(&mut rig, &dropped(format!("{name}: answer"), &answer.clone().ttl(1), Reason::TtlExpired));
        let last = answer.ttl(2);
        check(&mut rig, &sent(format!("{name}: answer"), &last, Reason::ForwardedReply, &to_client(&request, &last)));
    }
}

#[test]
fn sources_that_cannot_be() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let name = label(mode, v4, protocol);
        let sources: Vec<IpAddr> = if v4 {
            [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [127, 255, 0, 1], [224, 0, 0, 1], [239, 1, 1, 1], [255; 4]]
                .map(|octets| Ipv4Addr::from(octets).into())
                .to_vec()
        } else {
            let multicast = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            vec![Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into(), multicast.into()]
        };
        for source in sources.into_iter().chain([mode.vip(v4)]) {
            let packet = opening(mode, v4, protocol).source(source);
            check(&mut rig, &dropped(format!("{name} from {source}"), &packet, Reason::BadSource));
            check(&mut rig, &passed(&name, &elsewhere(&packet, v4), Reason::NotVirtual));
            let stray = with_flags(&packet, tcp::ACK);
            check(&mut rig, &dropped(format!("{name}, not opening, from {source}"), &stray, Reason::BadSource));
        }
        for (from, to) in [(0, 80), (CLIENT_PORT, 0), (0, 0)] {
            let packet = opening(mode, v4, protocol).ports(from, to);
            hold_against(&mut rig, &format!("{name} from port {from} to {to}"), &packet, v4, Reason::ZeroPort);
        }
    }
}

#[test]
fn source_routes_and_options() {
    let mut rig = rig(World::standard());
    let (lsrr, ssrr) = ([131u8, 7, 4, 192, 0, 2, 9], [137u8, 7, 4, 192, 0, 2, 9]);
    for (mode, v4, protocol) in combinations().filter(|(_, v4, _)| *v4) {
        let name = label(mode, v4, protocol);
        let with = |options: &[u8]| opening(mode, v4, protocol).options(options).filled(3);
        let mut hidden = vec![1; 12];
        hidden.extend(lsrr);
        let timestamp_then = [&[68, 8, 5, 0, 0, 0, 0, 0][..], &ssrr].concat();
        for (what, options) in [
            ("loose", lsrr.to_vec()),
            ("strict", ssrr.to_vec()),
            ("behind a timestamp", timestamp_then),
            ("behind twelve no-operations", hidden),
            ("behind an option of length 0", [&[0x44, 0][..], &lsrr].concat()),
        ] {
            hold_against(&mut rig, &format!("{name}: {what}"), &with(&options), v4, Reason::SourceRouted);
        }
        for (what, options) in [
            ("router alert", vec![148, 4, 0, 0]),
            ("record route", vec![7, 7, 4, 0, 0, 0, 0]),
            ("after the end of options", [&[0][..], &lsrr].concat()),
            ("ten options", [[1; 9].as_slice(), &[0, 0, 0]].concat()),
            ("as many options as fit", vec![1; 40]),
        ] {
            rig.forget().unwrap();
            let packet = with(&options);
            let out = to_node(&packet, mode, 1, CLIENT_PORT);
            check(&mut rig, &sent(format!("{name}: {what}"), &packet, forwarded(mode), &out));
            let next = with_flags(&packet, tcp::PSH | tcp::ACK);
            let moved = to_node(&next, mode, 1, CLIENT_PORT);
            check(&mut rig, &sent(format!("{name}: {what}, tracked"), &next, forwarded(mode), &moved));
            rig.forget().unwrap();
        }
    }
}

#[test]
fn extension_headers() {
    const HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    const AUTHENTICATION: u8 = 51;
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations().filter(|(_, v4, _)| !*v4) {
        let name = label(mode, v4, protocol);
        let packet = opening(mode, v4, protocol).filled(3);
        let chain = |count: usize| (0..count).fold(packet.clone(), |packet, _| packet.extension(DESTINATION, 0));
        for (what, packet) in [
            ("hop by hop", packet.clone().extension(HOP, 1)),
            ("destination options", packet.clone().extension(DESTINATION, 3)),
            ("both", packet.clone().extension(HOP, 0).extension(DESTINATION, 0)),
            ("authentication", packet.clone().extension(AUTHENTICATION, 4)),
            ("an atomic fragment", packet.clone().extension(44, 0)),
            ("eight headers", chain(8)),
        ] {
            rig.forget().unwrap();
            let out = to_node(&packet, mode, 1, CLIENT_PORT);
            check(&mut rig, &sent(format!("{name}: {what}"), &packet, forwarded(mode), &out));
            let tagged = with_flags(&packet, tcp::ACK).service_vlan(VLAN2).vlan(VLAN);
            let moved = to_node(&tagged, mode, 1, CLIENT_PORT);
            check(&mut rig, &sent(format!("{name}: {what}, two tags"), &tagged, forwarded(mode), &moved));
        }
        rig.forget().unwrap();
        let beyond = packet.clone().extension(DESTINATION, 0).patch(41, &[200]);
        let alone = eth().ip(client(v4), mode.vip(v4)).protocol(DESTINATION).filled(4);
        for (what, packet, reason) in [
            ("a routing header", packet.clone().extension(ROUTING, 2), Reason::SourceRouted),
            (
                "a routing header behind another",
                packet.clone().extension(HOP, 0).extension(ROUTING, 2),
                Reason::SourceRouted,
            ),
            ("nine headers", chain(9), Reason::BadExtensionChain),
            ("a header longer than the packet", beyond, Reason::BadExtensionChain),
            ("a header cut short", alone, Reason::BadExtensionChain),
        ] {
            hold_against(&mut rig, &format!("{name}: {what}"), &packet, v4, reason);
        }
        let nothing = packet.clone().extension(DESTINATION, 0).protocol(59);
        check(&mut rig, &passed(format!("{name}: no next header"), &nothing, Reason::NotBalanced));
    }
}

#[test]
fn a_chain_of_headers_longer_than_a_page_is_not_followed() {
    let mut rig = rig(World::standard());
    for mode in MODES {
        // The echo request behind it stands at byte 4166; 4096 less is in the middle of the first header.
        let packet = eth().ip(client(false), mode.vip(false)).icmp(128, 0, [0, 1, 0, 2]).filled(20);
        let packet = packet.extension(60, 255).extension(60, 255).filled(40);
        let outcome = run(&mut rig, &packet);
        assert_eq!((outcome.action, outcome.reason), (DROP, Reason::BadExtensionChain), "{mode:?}");
    }
}

#[test]
fn land_and_hairpin_are_told_apart() {
    let mut rig = rig(World::standard());
    for (mode, v4, protocol) in combinations() {
        let land = opening(mode, v4, protocol).source(mode.vip(v4)).ports(80, 80);
        check(&mut rig, &dropped("land", &land, Reason::BadSource));
        if mode == Mode::SourceNat {
            let own = opening(mode, v4, protocol).source(node_address(v4, 1));
            rig.forget().unwrap();
            check(&mut rig, &sent("a node's own request", &own, forwarded(mode), &to_node(&own, mode, 1, CLIENT_PORT)));
        }
    }
}
