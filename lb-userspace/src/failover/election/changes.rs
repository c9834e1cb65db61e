//! What is to be done after an event of an election, and why.

use std::{fmt, net::IpAddr, time::Duration};

use super::MachineId;

/// What is to be done after an event, in this order: raise, send (before `lower` when `say_last`), announce, lower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Raise the addresses.
    pub raise: bool,
    /// Take them down.
    pub lower: bool,
    /// Announce them (gratuitous ARP, unsolicited NA): now, and again later.
    pub announce: bool,
    /// Send a heartbeat at once.
    pub send: bool,
    /// The heartbeat still says that this machine owns: the last one of an owner that yields.
    pub say_last: bool,
    /// Why the role changed.
    pub reason: Option<Reason>,
    /// What an operator should know.
    pub alarm: Option<Alarm>,
}

/// Another machine that has, or had, the same role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// One of ours.
    Machine(MachineId),
    /// A VRRP or CARP router.
    Address(IpAddr),
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rival::Machine(machine) => machine.fmt(f),
            Rival::Address(address) => address.fmt(f),
        }
    }
}

/// Why a role changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No owner was heard.
    Silence,
    /// The program before in this process owned it, and nobody could take it.
    Resumed,
    /// The owner said that it leaves.
    Resigned(Rival),
    /// The owner handed over to this machine.
    HandedOver(MachineId),
    /// This machine handed over.
    HandedOverTo(MachineId),
    /// This machine is better than the owner, and back.
    Failback,
    /// A better owner is heard.
    BetterOwner(Rival),
    /// An owner is heard that does not hear this machine.
    Unheard(MachineId),
    /// This machine stood still.
    StoodStill(Duration),
    /// It stood still for so long that the guard gave its addresses away.
    LeaseEnded,
    /// lbd stops, or maintenance begins.
    Stopped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Silence => f.write_str("no owner is heard"),
            Reason::Resumed => f.write_str("lbd was replaced, and goes on"),
            Reason::Resigned(machine) => write!(f, "{machine} gave it up"),
            Reason::HandedOver(machine) => write!(f, "{machine} handed it over"),
            Reason::HandedOverTo(machine) => write!(f, "handed over to {machine}"),
            Reason::Failback => f.write_str("this machine has the greater priority and is well again"),
            Reason::BetterOwner(machine) => write!(f, "{machine} owns it too, with greater priority"),
            Reason::Unheard(machine) => write!(f, "{machine} owns it too and does not hear this machine"),
            Reason::StoodStill(time) => write!(f, "this machine stood still for {time:?}"),
            Reason::LeaseEnded => f.write_str("this machine stood still, and its guard gave the addresses away"),
            Reason::Stopped => f.write_str("this machine leaves"),
        }
    }
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A heartbeat of this machine came back to it.
    LoopedBack,
    /// A second owner is heard.
    SecondOwner(Rival),
    /// Somebody else claims an address.
    AddressClaimed,
    /// The machine that was to take over did not.
    HandoverUnanswered(MachineId),
    /// A move was asked for, and no other machine can take the group.
    NoSuccessor,
    /// A move was asked for here, and this machine does not own the group.
    NotOwner,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alarm::LoopedBack => {
                f.write_str("this machine's own heartbeats come back: a loop or a mirror in the network")
            }
            Alarm::SecondOwner(rival) => write!(f, "{rival} owns it, too; it has to yield"),
            Alarm::AddressClaimed => f.write_str("somebody else claims one of its addresses"),
            Alarm::HandoverUnanswered(machine) => write!(f, "{machine} was to take over and did not"),
            Alarm::NoSuccessor => f.write_str("no other machine can take it"),
            Alarm::NotOwner => f.write_str("this machine does not own it and cannot give it away"),
        }
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine {:016x}", self.0)
    }
}
