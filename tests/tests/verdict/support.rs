//! Rows of verdict tests, and checking them.

use lb_common::{
    conntrack::State,
    flow::FlowRecord,
    reason::{Action, Reason},
};
use lb_tests::{
    packet::Packet,
    rig::{Outcome, Rig, action, tables, world::World},
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

/// The record of the packet's flow in `PENDING`.
pub(crate) fn in_pending(rig: &Rig, packet: &Packet) -> Option<FlowRecord> {
    tables::find(&rig.pending, &tables::key_of(packet)).map(|(_, record)| record)
}

/// State of the packet's flow in `FLOWS`.
pub(crate) fn state(rig: &Rig, packet: &Packet) -> Option<State> {
    in_flows(rig, packet).map(|record| State::from_number(record.control.state))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
