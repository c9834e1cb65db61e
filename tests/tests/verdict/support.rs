//! Rows of verdict tests, and checking them.

use lb_common::{
    conntrack::State,
    flow::FlowRecord,
    reason::{Action, Reason},
};
use lb_tests::{
    packet::{Packet, eth, tcp},
    rig::{
        Outcome, Rig, action, tables,
        world::{MODES, Mode, TCP, UDP, World, client, from_node, number_of, to_client, to_node},
    },
};

pub(crate) use lb_tests::rig::action::{DROP, PASS, REDIRECT, TX};

/// A packet in, and what becomes of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) packet: Packet,
    pub(crate) reason: Reason,
    /// `None`: dropped.
    pub(crate) out: Option<Packet>,
    pub(crate) action: u32,
}

/// Sent on, as `out`.
pub(crate) fn sent(name: impl Into<String>, packet: &Packet, reason: Reason, out: &Packet) -> Case {
    Case { name: name.into(), packet: packet.clone(), reason, out: Some(out.clone()), action: TX }
}

/// Left to the host, unchanged.
pub(crate) fn passed(name: impl Into<String>, packet: &Packet, reason: Reason) -> Case {
    Case { name: name.into(), packet: packet.clone(), reason, out: Some(packet.clone()), action: PASS }
}

/// Dropped.
pub(crate) fn dropped(name: impl Into<String>, packet: &Packet, reason: Reason) -> Case {
    Case { name: name.into(), packet: packet.clone(), reason, out: None, action: DROP }
}

pub(crate) fn rig(world: World) -> Rig {
    Rig::new(world).expect("the program loads (tests need root)")
}

/// Another configuration, and no connections.
pub(crate) fn fresh(rig: &mut Rig, world: &World) {
    rig.configure(world.clone()).expect("maps can be written");
    rig.forget().expect("maps can be written");
}

/// Runs a row on a rig; its connections stay.
pub(crate) fn check(rig: &mut Rig, case: &Case) {
    let frame = case.packet.bytes();
    let outcome = rig.run(&frame).unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
    let expected = format!("{} {}", action::name(case.action), case.reason.name());
    let found = format!("{} {}", action::name(outcome.action), outcome.reason.name());
    assert_eq!(found, expected, "{}\nin:  {}", case.name, hex(&frame));
    agrees_with_the_documented_action(&outcome);
    if let Some(out) = &case.out {
        let expected = out.bytes();
        assert!(
            outcome.bytes == expected,
            "{}: the packet that came out differs\nin:       {}\nexpected: {}\nfound:    {}",
            case.name,
            hex(&frame),
            hex(&expected),
            hex(&outcome.bytes)
        );
    }
}

/// Runs each row on a rig without connections.
pub(crate) fn check_each(rig: &mut Rig, cases: &[Case]) {
    for case in cases {
        rig.forget().expect("maps can be written");
        check(rig, case);
    }
}

fn agrees_with_the_documented_action(outcome: &Outcome) {
    let documented: &[u32] = match outcome.reason.action() {
        Action::Send => &[TX, REDIRECT],
        Action::Pass => &[PASS],
        Action::Drop => &[DROP],
    };
    assert!(documented.contains(&outcome.action), "{}: {}", outcome.reason.name(), action::name(outcome.action));
}

/// Runs a packet.
pub(crate) fn run(rig: &mut Rig, packet: &Packet) -> Outcome {
    rig.run(&packet.bytes()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// The record of the packet's flow in `FLOWS`.
pub(crate) fn in_flows(rig: &Rig, packet: &Packet) -> Option<FlowRecord> {
    tables::find(&rig.flows, &tables::key_of(packet)).map(|(_, record)| record)
}

/// What is known of the packet's half-open flow: its record in `PENDING`, or what its proof says, as such a record.
pub(crate) fn half_open(rig: &Rig, packet: &Packet) -> Option<FlowRecord> {
    rig.half_open(&tables::key_of(packet))
}

/// How many half-open flows and answering halves of such are known.
pub(crate) fn half_open_count(rig: &Rig) -> usize {
    tables::records(&rig.pending).count() + tables::proofs(&rig.proofs).count()
}

/// State of the packet's flow in `FLOWS`.
pub(crate) fn state(rig: &Rig, packet: &Packet) -> Option<State> {
    in_flows(rig, packet).map(|record| State::from_number(record.control.state))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// All combinations of forwarding mode, family (IPv4 first) and protocol.
pub(crate) fn combinations() -> impl Iterator<Item = (Mode, bool, u8)> {
    MODES.into_iter().flat_map(|mode| {
        [true, false].into_iter().flat_map(move |v4| [TCP, UDP].into_iter().map(move |protocol| (mode, v4, protocol)))
    })
}

/// As rows name a combination.
pub(crate) fn label(mode: Mode, v4: bool, protocol: u8) -> String {
    let (family, protocol) = (if v4 { "IPv4" } else { "IPv6" }, if protocol == TCP { "TCP" } else { "UDP" });
    format!("{mode:?} {family} {protocol}")
}

/// Why a client's packet is sent on.
pub(crate) fn forwarded(mode: Mode) -> Reason {
    if mode == Mode::Dsr { Reason::ForwardedDsr } else { Reason::ForwardedNat }
}

/// The packet that opens a connection: a SYN or a datagram.
pub(crate) fn opening(mode: Mode, v4: bool, protocol: u8) -> Packet {
    eth().ip(client(v4), mode.vip(v4)).transport(protocol, CLIENT_PORT, 80, tcp::SYN)
}

/// The client's port in most rows: one that source NAT may keep.
pub(crate) const CLIENT_PORT: u16 = 31_337;

/// The same connection's packet with other TCP flags.
pub(crate) fn with_flags(packet: &Packet, flags: u8) -> Packet {
    let (source, destination) = packet.port_pair();
    match packet.is_tcp() {
        true => packet.clone().tcp(source, destination, flags),
        false => packet.clone(),
    }
}

/// Opens the connection and brings it into `FLOWS`. Returns the machine that got it and the source port it sees.
pub(crate) fn establish(rig: &mut Rig, opening: &Packet, mode: Mode) -> (u8, u16) {
    let (machine, port) = open(rig, opening, mode);
    if mode != Mode::Dsr {
        let answer = with_flags(&from_node(opening, mode, machine, port), tcp::SYN | tcp::ACK);
        check(rig, &sent("answer", &answer, Reason::ForwardedReply, &to_client(opening, &answer)));
    }
    let proof = with_flags(opening, tcp::ACK);
    check(rig, &sent("proof", &proof, forwarded(mode), &to_node(&proof, mode, machine, port)));
    assert!(in_flows(rig, opening).is_some() && half_open(rig, opening).is_none(), "promoted");
    (machine, port)
}

/// Sends the opening packet. Returns the machine that got it and the source port it sees.
pub(crate) fn open(rig: &mut Rig, opening: &Packet, mode: Mode) -> (u8, u16) {
    let outcome = run(rig, opening);
    assert_eq!(outcome.reason, forwarded(mode), "{opening:?}");
    let record = half_open(rig, opening).expect("noted as half-open");
    let (machine, port) = (number_of(record.node), u16::from_be(record.nat_port));
    let expected = to_node(opening, mode, machine, port).bytes();
    assert!(outcome.bytes == expected, "expected {}\nfound    {}", hex(&expected), hex(&outcome.bytes));
    (machine, port)
}
