//! A–G: the golden packets. What stands in `golden.txt` is what the model says of the stories told here, and what the program
//! does. `LB_GOLDEN=write` writes it anew; look at the difference before you keep it.

use std::{env, fs, path::Path};

use lb_tests::{
    golden::{self, Golden, Story, Tally},
    model::{
        self, Hint,
        parse::{Tuple, parse},
        state::State,
    },
    packet::{Packet, Sum, eth, tcp},
    rig::{
        Rig, action,
        world::{
            FOREIGN_VLAN, LB2_MAC, MODES, Mode, OTHER, OTHER6, ROUTER, ROUTER6, TCP, UDP, VLAN, VLAN2, client,
            from_node, node_mac, source, to_client, to_node,
        },
    },
};

use crate::{
    differential::{noted, right_stays_right},
    mutate::{Random, packet},
    support::{CLIENT_PORT, combinations, opening, rig, with_flags},
};

const FIN_ACK: u8 = tcp::FIN | tcp::ACK;

/// A story without its packets' fates, and how many more packets are to be made up.
struct Draft {
    story: Story,
    frames: Vec<Vec<u8>>,
    made_up: usize,
}

impl Draft {
    fn new(family: char, (mode, v4, protocol): (Mode, bool, u8), name: &str, packets: Vec<Packet>) -> Self {
        let story = Story { family, mode, v4, protocol, nodes: 1, name: name.to_owned(), packets: Vec::new() };
        Self { story, frames: packets.iter().map(Packet::bytes).collect(), made_up: 0 }
    }

    fn nodes(mut self, nodes: u8) -> Self {
        self.story.nodes = nodes;
        self
    }

    /// What becomes of its packets: as the model says, and as the program does.
    fn tell(mut self, rig: &mut Rig) -> Story {
        let world = self.story.world();
        rig.configure(world.clone()).expect("maps can be written");
        rig.forget().expect("maps can be written");
        let mut state = State::new(world);
        let mut flows: Vec<Tuple> = Vec::new();
        let mut random = Random(0x601d);
        for i in 0..self.frames.len() + self.made_up {
            let frame = self.frames.get(i).cloned().unwrap_or_else(|| packet(&mut random, &state, &flows));
            let outcome = rig.run(&frame).unwrap_or_else(|error| panic!("{}: {error:#}", self.story));
            let hint = Hint { reason: outcome.reason, out: &outcome.bytes, slow: false, noted: noted(rig, &frame) };
            let expected = model::step(&mut state, &frame, hint);
            let out = (outcome.action != action::DROP).then_some(outcome.bytes);
            let found = Golden { frame: frame.clone(), action: outcome.action, reason: outcome.reason, out };
            let (action, reason, out) = (expected.action, expected.reason, expected.bytes);
            let expected = Golden { frame: frame.clone(), action, reason, out };
            assert_eq!(found.to_string(), expected.to_string(), "{}packet {}", self.story, i + 1);
            assert!(expected.out.as_ref().is_none_or(|out| right_stays_right(&frame, out)), "{expected}");
            flows.extend(parse(&frame, |_| true).map(|packet| packet.tuple));
            self.story.packets.push(expected);
        }
        self.story
    }
}

fn drafts() -> Vec<Draft> {
    let mut drafts = Vec::new();
    for combination in combinations() {
        drafts.extend([verdicts(combination), strangers(combination), malformed(combination), flow(combination)]);
        drafts.extend([errors(combination), ring(combination), mutated(combination)]);
        drafts.extend((combination.0 != Mode::Dsr).then(|| answers(combination)));
    }
    drafts.extend(MODES.into_iter().flat_map(|mode| [true, false].map(|v4| echo((mode, v4, TCP)))));
    drafts
}

/// What the node answers; nothing in DSR.
fn answer(request: &Packet, mode: Mode, flags: u8) -> Option<Packet> {
    (mode != Mode::Dsr).then(|| with_flags(&from_node(request, mode, 1, CLIENT_PORT), flags))
}

/// A connection that is opened, answered and proven.
fn established(request: &Packet, mode: Mode) -> Vec<Packet> {
    let answer = answer(request, mode, tcp::SYN | tcp::ACK);
    [Some(request.clone()), answer, Some(with_flags(request, tcp::ACK))].into_iter().flatten().collect()
}

fn verdicts(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, protocol) = combination;
    let request = opening(mode, v4, protocol);
    let more = with_flags(&request, tcp::PSH | tcp::ACK);
    let mut packets = established(&request, mode);
    packets.extend([more.clone().filled(101), more.clone().vlan(VLAN).filled(3), more.class(0xb9)]);
    Draft::new('A', combination, "a connection is opened, answered and goes on", packets)
}

fn strangers(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, protocol) = combination;
    let request = opening(mode, v4, protocol);
    let other: std::net::IpAddr = if v4 { OTHER.into() } else { OTHER6.into() };
    let packets = vec![
        request.clone().destination(other),
        request.clone().destination_port(81),
        request.clone().vlan(FOREIGN_VLAN),
        request.clone().macs(node_mac(3), LB2_MAC),
        request.macs(node_mac(3), [0xff; 6]),
    ];
    Draft::new('A', combination, "what is not for a virtual server", packets)
}

fn malformed(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, protocol) = combination;
    let request = opening(mode, v4, protocol);
    let whole = request.bytes().len();
    let l3 = request.l3();
    let length = l3 + if v4 { 2 } else { 4 };
    let optional = if v4 { request.clone().options(&[1; 40]) } else { request.clone().extension(60, 3) };
    let packets = vec![
        request.clone().frame_len(whole - 1),
        request.clone().frame_len(l3 + 12),
        request.clone().patch(length, &[0x7f, 0xff]),
        request.clone().patch(length, &[0, 7]),
        request.clone().patch(l3, &[if v4 { 0x44 } else { 0x40 }]),
        request.clone().patch(l3, &[if v4 { 0x65 } else { 0x50 }]),
        optional,
        request.clone().padding(&[9; 18]),
        request.clone().ttl(1),
        request.clone().ttl(0),
        request.clone().source(mode.vip(v4)),
        request.clone().source_port(0),
        request.clone().sum(Sum::Off(0x0101)),
        request.clone().filled(60).part(0, 8),
        request.clone().service_vlan(VLAN2).vlan(VLAN),
        with_flags(&request, tcp::SYN | tcp::FIN),
        with_flags(&request, 0),
    ];
    Draft::new('B', combination, "packets that are broken or odd", packets)
}

fn flow(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, protocol) = combination;
    let request = opening(mode, v4, protocol);
    let late = request.clone().source_port(CLIENT_PORT + 1);
    let mut packets = vec![with_flags(&late, tcp::ACK), with_flags(&late, tcp::RST), request.clone()];
    packets.extend(established(&request, mode));
    packets.push(with_flags(&request, FIN_ACK));
    packets.extend(answer(&request, mode, tcp::ACK).map(|packet| packet.filled(64)));
    packets.extend(answer(&request, mode, FIN_ACK));
    packets.extend([with_flags(&request, tcp::ACK), with_flags(&request, tcp::RST)]);
    Draft::new('C', combination, "strays, and a connection from its beginning to its end", packets)
}

fn answers(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, protocol) = combination;
    let request = opening(mode, v4, protocol);
    let reply = with_flags(&from_node(&request, mode, 1, CLIENT_PORT), tcp::ACK);
    let mut packets = established(&request, mode);
    packets.extend([
        reply.clone().filled(77),
        reply.clone().payload(&[0xff; 301]),
        reply.clone().class(3),
        reply.clone().vlan(VLAN),
        reply.clone().padding(&[7; 9]),
        reply.clone().ttl(1),
        if protocol == UDP && v4 { reply.clone().sum(Sum::Zero) } else { reply.clone().sum(Sum::Off(7)) },
        reply.clone().filled(200).part(0, 104),
        reply.clone().filled(200).part(104, 208),
        reply.source_port(8081),
    ]);
    Draft::new('D', combination, "answers are restored", packets)
}

fn errors(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, protocol) = combination;
    let request = opening(mode, v4, protocol);
    let router: std::net::IpAddr = if v4 { ROUTER.into() } else { ROUTER6.into() };
    let (kind, code) = if v4 { (3, 4) } else { (2, 0) };
    let (port_kind, port_code) = if v4 { (3, 3) } else { (1, 4) };
    let mut packets = established(&request, mode);
    let from_client_side = match answer(&request, mode, tcp::ACK) {
        Some(inside) => to_client(&request, &inside.filled(90)).ttl(33),
        None => with_flags(&request.clone().reversed(), tcp::ACK).filled(90).ttl(33),
    };
    let error = eth().ip(router, mode.vip(v4));
    packets.push(error.clone().icmp(kind, code, [0, 0, 5, 0x78]).quoting(&from_client_side, 48));
    packets.push(error.clone().icmp(port_kind, port_code, [0; 4]).quoting(&from_client_side, 64));
    let unknown = from_client_side.clone().destination_port(CLIENT_PORT + 9);
    packets.push(error.clone().icmp(port_kind, port_code, [0; 4]).quoting(&unknown, 64));
    packets.push(error.icmp(kind, code, [0, 0, 0, 1]).quoting(&from_client_side, 64));
    if mode != Mode::Dsr {
        let seen = if mode == Mode::SourceNat { source(v4) } else { client(v4) };
        let inside = to_node(&with_flags(&request, tcp::ACK).filled(70), mode, 1, CLIENT_PORT).ttl(21);
        let error = eth().macs(node_mac(1), lb_tests::rig::world::LB_MAC).ip(router, seen);
        packets.push(error.icmp(kind, code, [0, 0, 5, 0x14]).quoting(&inside, 64));
    }
    Draft::new('D', combination, "ICMP errors about a connection", packets)
}

fn echo(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, _) = combination;
    let request = eth().ip(client(v4), mode.vip(v4)).icmp(if v4 { 8 } else { 128 }, 0, [0x12, 0x34, 0, 7]);
    let packets = vec![
        request.clone(),
        request.clone().filled(56),
        request.clone().payload(&[0xff; 201]),
        request.clone().vlan(VLAN).filled(9),
        request.clone().ttl(1).filled(8),
        request.filled(9).sum(Sum::Off(0x0101)),
    ];
    Draft::new('E', combination, "echo is answered", packets)
}

fn ring(combination: (Mode, bool, u8)) -> Draft {
    let (mode, v4, protocol) = combination;
    let requests = (0..8).map(|i| opening(mode, v4, protocol).source_port(20_000 + 257 * i)).collect();
    Draft::new('F', combination, "connections spread over four nodes", requests).nodes(4)
}

fn mutated(combination: (Mode, bool, u8)) -> Draft {
    Draft { made_up: 10, ..Draft::new('G', combination, "plausible packets, mutated", Vec::new()).nodes(3) }
}

#[test]
#[expect(clippy::print_stdout, reason = "how many there are is for people to see")]
fn golden_packets_are_what_the_model_says_and_the_program_does() {
    let mut rig = rig(lb_tests::rig::world::World::empty());
    let stories: Vec<Story> = drafts().into_iter().map(|draft| draft.tell(&mut rig)).collect();
    let told: String = stories.iter().map(ToString::to_string).collect();
    if env::var("LB_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden.txt"), &told).expect("written");
    } else {
        let differs = told.lines().zip(golden::TEXT.lines()).find(|(told, recorded)| told != recorded);
        assert!(told == golden::TEXT, "golden.txt has something else (LB_GOLDEN=write writes it): {differs:?}");
    }
    let tally = Tally::of(&stories);
    println!("{tally}");
    tally.is_enough().expect("every family in every mode");
}

#[test]
fn recorded_packets_are_replayed() {
    let stories = golden::parse(golden::TEXT).expect("golden.txt can be read");
    assert_eq!(stories.iter().map(ToString::to_string).collect::<String>(), golden::TEXT);
    let mut rig = rig(lb_tests::rig::world::World::empty());
    for story in &stories {
        story.replay(&mut rig).unwrap_or_else(|error| panic!("{error:#}"));
    }
    let mut other = stories[0].clone();
    let last = other.packets[0].out.as_mut().and_then(|out| out.last_mut()).expect("it is sent");
    *last ^= 1;
    assert!(other.replay(&mut rig).is_err(), "a byte that differs is seen");
}
