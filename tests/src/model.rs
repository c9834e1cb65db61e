//! The rules of the data path in plain Rust: what DATAPATH.md, THREATS.md and the meanings of the reasons say becomes of a
//! packet. Written from those documents and shares no code with the XDP program; verdict tests run both and compare.
//!
//! State is what a reader of the documents imagines: a map of connections, a map of answers, notes of datagrams. There is no
//! clock and no room to run out of: tests use tables that are large enough, and say when a connection has expired or fallen
//! silent.
//!
//! Where the documents leave a choice (which free source port, which random node) the model takes what the program did as a
//! [`Hint`] and judges whether that was allowed.

mod forward;
pub mod hash;
mod icmp;
mod open;
pub mod parse;
pub mod ring;
pub mod state;
mod too_big;
mod tracked;
pub mod translate;

use std::cell::Cell;

use lb_common::reason::{Action, Reason};

use crate::rig::{
    action,
    world::{BRIDGE_MAC, LB_MAC, VIRTUAL_MAC},
};
use parse::{Parsed, Part, parse};
use state::State;

/// What the program did: for choices that are its own.
#[derive(Clone, Copy, Debug)]
pub struct Hint<'a> {
    /// Why the path ended.
    pub reason: Reason,
    /// The frame as it came out.
    pub out: &'a [u8],
    /// So much time has gone by that a connection may have been silent for some seconds.
    pub slow: bool,
    /// The node slot and source port of the connection that it noted for this packet.
    pub noted: Option<(u16, u16)>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// `rig::action`.
    pub action: u32,
    /// Why.
    pub reason: Reason,
    /// The frame, unless it is dropped.
    pub bytes: Option<Vec<u8>>,
}

impl Expected {
    fn end(reason: Reason, frame: &[u8]) -> Self {
        let (action, bytes) = match reason.action() {
            Action::Pass => (action::PASS, Some(frame.to_vec())),
            Action::Drop => (action::DROP, None),
            Action::Send => unreachable!("packets that are sent have bytes of their own"),
        };
        Self { action, reason, bytes }
    }

    fn sent(reason: Reason, bytes: Vec<u8>) -> Self {
        Self { action: action::TX, reason, bytes: Some(bytes) }
    }
}

/// A step's end: the reason that a packet is not sent.
pub(crate) type Refusal = Reason;

/// One packet, on its way through the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) packet: &'a Parsed,
    pub(crate) hint: Hint<'a>,
    pub(crate) to_vip: bool,
    /// The MTU that it was found to be too large for.
    pub(crate) exceeded: &'a Cell<u16>,
}

/// Decides about a frame, and remembers what it taught.
pub fn step(state: &mut State, frame: &[u8], hint: Hint<'_>) -> Expected {
    let to = &frame[..6];
    if to[0] & 1 == 0 && ![LB_MAC, BRIDGE_MAC, VIRTUAL_MAC].iter().any(|own| own == to) {
        return Expected::end(Reason::NotForUs, frame);
    }
    let packet = match parse(frame, |vlan| state.world.vlans.contains(&vlan)) {
        Ok(packet) => packet,
        Err(reason) => return Expected::end(reason, frame),
    };
    let to_vip = state.vips.contains(&packet.tuple.destination);
    if let Some(problem) = packet.problem {
        return Expected::end(if to_vip { problem } else { Reason::NotVirtual }, frame);
    }
    let exceeded = Cell::new(0);
    let arrival = Arrival { frame, packet: &packet, hint, to_vip, exceeded: &exceeded };
    let icmp = if packet.tuple.source.is_ipv4() { 1 } else { 58 };
    let result = match packet.tuple.protocol {
        6 | 17 if matches!(packet.part, Part::Later(_)) => tracked::later_fragment(state, arrival),
        6 | 17 => tracked::segment(state, arrival),
        number if number == icmp => icmp::run(state, arrival),
        _ => Err(Reason::NotBalanced),
    };
    match result {
        Ok(expected) => expected,
        Err(Reason::ExceedsMtu) => {
            too_big::answer(exceeded.get(), arrival).unwrap_or(Expected::end(Reason::ExceedsMtu, frame))
        }
        // Reasons that leave a packet of others alone: it was never ours to judge.
        Err(reason) if !to_vip && is_about_vips(reason) => Expected::end(Reason::NotVirtual, frame),
        Err(reason) => Expected::end(reason, frame),
    }
}

fn is_about_vips(reason: Reason) -> bool {
    matches!(reason, Reason::NotBalanced | Reason::BadIcmp | Reason::UnknownIcmpFlow | Reason::BadSource)
}
