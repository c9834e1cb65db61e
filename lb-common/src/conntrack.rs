//! Connection tracking: the states, and how a TCP segment moves them. Pure: a function of state, direction and flags.
//!
//! DSR sees only the client's half of a connection, NAT both. A RST or FIN never deletes an entry: a forged one must
//! not cut a connection (RFC 5961), so it only shortens the timeout, and traffic that goes on revives the entry. Nor does a
//! SYN after it, unless nobody speaks any more: whoever can forge one can forge both.

/// TCP header flags, byte 13 of the header (RFC 9293 §3.1).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// What a record in a flow table is. The number is stored in [`crate::flow::Control::state`] and indexes [`Timeouts`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing here.
    Free = 0,
    /// Being written; not to be read.
    Claimed = 1,
    /// TCP: SYN seen from the client. In `PENDING`.
    SynSent = 2,
    /// TCP: the node answered SYN-ACK (seen in NAT only). In `PENDING`.
    SynReceived = 3,
    /// TCP: both ways proven.
    Established = 4,
    /// TCP: one side has sent FIN.
    FinWait = 5,
    /// TCP: both sides have sent FIN (RFC 9293 §3.6.1).
    TimeWait = 6,
    /// TCP: RST seen.
    Closed = 7,
    /// UDP: one datagram seen. In `PENDING`.
    UdpNew = 8,
    /// UDP: more than one datagram, or an answer.
    Udp = 9,
    /// A client's node by source-address persistence. In `AFFINITY`.
    Affinity = 10,
    /// The owner of a fragmented datagram. In `FRAGMENTS`.
    Fragment = 11,
}

/// How many states there are: the length of [`Timeouts`] rounded up to a power of two.
pub const STATE_SLOTS: usize = 16;

impl State {
    /// Every state, in order of its number.
    pub const ALL: [State; 12] = [
        State::Free,
        State::Claimed,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait,
        State::TimeWait,
        State::Closed,
        State::UdpNew,
        State::Udp,
        State::Affinity,
        State::Fragment,
    ];

    /// The state of a number; an unknown number is `Free`, which nothing is forwarded by.
    #[inline(always)]
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => State::Claimed,
            2 => State::SynSent,
            3 => State::SynReceived,
            4 => State::Established,
            5 => State::FinWait,
            6 => State::TimeWait,
            7 => State::Closed,
            8 => State::UdpNew,
            9 => State::Udp,
            10 => State::Affinity,
            11 => State::Fragment,
            _ => State::Free,
        }
    }

    /// As operators read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Free => "free",
            State::Claimed => "claimed",
            State::SynSent => "syn-sent",
            State::SynReceived => "syn-received",
            State::Established => "established",
            State::FinWait => "fin-wait",
            State::TimeWait => "time-wait",
            State::Closed => "closed",
            State::UdpNew => "udp-new",
            State::Udp => "udp",
            State::Affinity => "affinity",
            State::Fragment => "fragment",
        }
    }

    /// Whether connections in this state count as a node's active connections.
    #[inline(always)]
    pub fn is_active(self) -> bool {
        matches!(self, State::Established | State::Udp)
    }

    /// Whether an end of the connection was announced: when its node fails, nothing is left to be moved.
    #[inline(always)]
    pub fn is_closing(self) -> bool {
        matches!(self, State::FinWait | State::TimeWait | State::Closed)
    }
}

/// Seconds without a packet after which a record of each [`State`] is dead, indexed by its number. Per virtual server.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts(pub [u16; STATE_SLOTS]);

impl Default for Timeouts {
    /// Half-open 5 s (THREATS D1), established 2 h, closing 2 min, TIME-WAIT 60 s, after RST 30 s (D2), UDP 10 s and 5 min.
    fn default() -> Self {
        let mut seconds = [0; STATE_SLOTS];
        seconds[State::SynSent as usize] = 5;
        seconds[State::SynReceived as usize] = 5;
        seconds[State::Established as usize] = 7200;
        seconds[State::FinWait as usize] = 120;
        seconds[State::TimeWait as usize] = 60;
        seconds[State::Closed as usize] = 30;
        seconds[State::UdpNew as usize] = 10;
        seconds[State::Udp as usize] = 300;
        seconds[State::Affinity as usize] = 600;
        seconds[State::Fragment as usize] = 5;
        Self(seconds)
    }
}

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client → virtual server.
    FromClient,
    /// Node → client. Seen in NAT only.
    FromNode,
}

/// Ticks of silence after which a SYN is believed to open a new connection where a RST, or in DSR a FIN, ended the last one.
pub const SYN_SILENCE: i32 = 2;

/// Where a SYN takes a record in `Established` or a closing state: the next state and the FIN flags to store. `None`: a new
/// connection begins, at whatever node. `silent`: nothing was seen of the connection for more than [`SYN_SILENCE`] ticks.
///
/// * TIME-WAIT: a new connection at once (RFC 9293 §3.6.1): the node itself has said that the old one is over.
/// * After a RST, or the client's FIN in DSR: both may be forged, and the SYN, too. While anybody speaks the node stays; a
///   genuine client opens its new connection there, and nothing that the old one's FINs said counts for it.
/// * FIN-WAIT in NAT: one side may go on sending for hours; the other side's FIN will be seen.
/// * From the node, with ACK: it has opened a new connection, which nobody but the node can say.
#[inline(always)]
pub fn on_syn(
    state: State,
    fins: u8,
    translated: bool,
    direction: Direction,
    flags: u8,
    silent: bool,
) -> Option<(State, u8)> {
    let acknowledges = flags & tcp_flag::ACK != 0;
    match direction {
        Direction::FromNode if acknowledges && state.is_closing() => Some((State::Closed, 0)),
        Direction::FromClient if !acknowledges => match state {
            State::TimeWait => None,
            State::FinWait if translated => Some((state, fins)),
            State::FinWait | State::Closed => (!silent).then_some((State::Closed, 0)),
            State::Free
            | State::Claimed
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::UdpNew
            | State::Udp
            | State::Affinity
            | State::Fragment => Some((state, fins)),
        },
        Direction::FromNode | Direction::FromClient => Some((state, fins)),
    }
}

/// Where a TCP segment takes an established record: the next state, and the FIN flags (`flow::flag`) to store.
///
/// `fins` are the record's `FIN_CLIENT | FIN_NODE` bits. Only segments of connections in `Established` or a closing state
/// come here, and no SYN ([`on_syn`]).
#[inline(always)]
pub fn on_segment(fins: u8, direction: Direction, flags: u8) -> (State, u8) {
    use crate::flow::flag::{FIN_CLIENT, FIN_NODE};
    let fins = if flags & tcp_flag::FIN == 0 {
        fins
    } else {
        match direction {
            Direction::FromClient => fins | FIN_CLIENT,
            Direction::FromNode => fins | FIN_NODE,
        }
    };
    let next = if flags & tcp_flag::RST != 0 {
        State::Closed
    } else if fins == (FIN_CLIENT | FIN_NODE) {
        State::TimeWait
    } else if fins != 0 {
        State::FinWait
    } else {
        // Also from Closed: the RST was not believed by the peers, so it was forged.
        State::Established
    };
    (next, fins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::flag::{FIN_CLIENT, FIN_NODE};
    use tcp_flag::{ACK, FIN, RST, SYN};

    #[test]
    fn numbers_and_states_are_one_to_one() {
        for (number, state) in State::ALL.iter().enumerate() {
            assert_eq!(*state as usize, number);
            assert_eq!(State::from_number(number as u8), *state);
        }
        assert_eq!(State::from_number(200), State::Free);
    }

    #[test]
    fn segments_move_connections_as_rfc_9293_says() {
        use Direction::{FromClient as C, FromNode as N};
        use State::{Closed, Established as E, FinWait, TimeWait};
        let both = FIN_CLIENT | FIN_NODE;
        let rows = [
            ("data, also after a forged reset", 0, C, ACK, (E, 0)),
            ("client closes its half", 0, C, FIN | ACK, (FinWait, FIN_CLIENT)),
            ("node closes its half", 0, N, FIN | ACK, (FinWait, FIN_NODE)),
            ("half-closed download goes on", FIN_CLIENT, N, ACK, (FinWait, FIN_CLIENT)),
            ("second FIN", FIN_CLIENT, N, FIN | ACK, (TimeWait, both)),
            ("last ACK", both, C, ACK, (TimeWait, both)),
            ("FIN again", FIN_CLIENT, C, FIN | ACK, (FinWait, FIN_CLIENT)),
            ("reset by client", 0, C, RST, (Closed, 0)),
            ("reset by node", 0, N, RST | ACK, (Closed, 0)),
            ("reset while closing", FIN_NODE, C, RST, (Closed, FIN_NODE)),
            ("after a reset while closing", FIN_NODE, C, ACK, (FinWait, FIN_NODE)),
        ];
        for (name, fins, direction, flags, expected) in rows {
            assert_eq!(on_segment(fins, direction, flags), expected, "{name}");
        }
    }

    #[test]
    fn a_syn_opens_a_new_connection_only_where_the_old_one_is_over() {
        use Direction::{FromClient as C, FromNode as N};
        use State::{Closed, Established as E, FinWait, TimeWait};
        let both = FIN_CLIENT | FIN_NODE;
        let opened = Some((Closed, 0));
        // State and FINs; direction and flags; what becomes of it while somebody speaks, and after silence; in DSR, in NAT.
        let rows = [
            ("live", E, 0, C, SYN, [Some((E, 0)); 4]),
            (
                "half closed",
                FinWait,
                FIN_CLIENT,
                C,
                SYN,
                [opened, None, Some((FinWait, FIN_CLIENT)), Some((FinWait, FIN_CLIENT))],
            ),
            ("closed", TimeWait, both, C, SYN, [None; 4]),
            ("reset", Closed, FIN_NODE, C, SYN, [opened, None, opened, None]),
            ("a SYN-ACK from a client opens nothing", Closed, 0, C, SYN | ACK, [Some((Closed, 0)); 4]),
            ("the node says so", FinWait, FIN_CLIENT, N, SYN | ACK, [opened; 4]),
            ("its SYN-ACK comes twice", E, 0, N, SYN | ACK, [Some((E, 0)); 4]),
            ("no answer", FinWait, FIN_CLIENT, N, SYN, [Some((FinWait, FIN_CLIENT)); 4]),
        ];
        for (name, state, fins, direction, flags, expected) in rows {
            for (i, expected) in expected.into_iter().enumerate() {
                let (translated, silent) = (i >= 2, i % 2 == 1);
                assert_eq!(on_syn(state, fins, translated, direction, flags, silent), expected, "{name} {i}");
            }
        }
    }
}
