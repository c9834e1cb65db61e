//! Whether a failed request is tried again.
//!
//! A request that a node may have executed is sent again only if that changes nothing (RFC 9110 §9.2.2: idempotent
//! methods) and all of it is still at hand: a POST is never doubled. Retries that may repeat work are held to a share of
//! all requests, so that they do not bring down nodes that are only slow.

use std::time::Duration;

use crate::control::proxy::pool as plan;

/// Retries that the budget always allows in its window.
const ALWAYS: u32 = 10;

/// What went wrong with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection, or its TLS, did not come to stand.
    Connect,
    /// A kept connection was closed, or reset, before a byte of the response: nodes close idle connections when they like.
    KeptClosed,
    /// A new connection was closed, or reset, before the head of the response was whole.
    EarlyClose,
    /// What the node sent is no response (bad framing, more than it may).
    BadResponse,
    /// No reply in time.
    ReplyTimeout,
    /// The node said that it did not execute the request: HTTP/2 REFUSED_STREAM, or GOAWAY with a lower stream id
    /// (RFC 9113 §8.7).
    Refused,
    /// The response has this status, and nothing of it was sent to the client.
    Status(u16),
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The request's method; empty for generic TCP.
    pub method: &'a str,
    /// Whether any byte of the request was given to the node's connection.
    pub sent: bool,
    /// Whether any byte of the response was passed to the client.
    pub answered: bool,
    /// Whether all that was taken from the client is still at hand (no body, or all of it buffered).
    pub replayable: bool,
    /// What went wrong.
    pub failure: Failure,
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// Those of them that timed out waiting for the reply, this one included.
    pub timed_out: u32,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Once more to the same node, on a new connection: the kept one was stale. Not an attempt against the limits.
    SameNode,
    /// To another node.
    OtherNode {
        /// Whether work may be repeated, which the budget limits.
        repeats: bool,
    },
    /// No more: the client gets an error, or the response if there is one.
    GiveUp(GiveUp),
}

impl Decision {
    /// Whether the budget has a say.
    #[must_use]
    pub fn needs_budget(self) -> bool {
        self == Decision::OtherNode { repeats: true }
    }
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The client has a part of the response.
    Answered,
    /// The node may have executed it, and its method is not idempotent.
    NotIdempotent,
    /// The node may have executed it, and its body is gone.
    NotReplayable,
    /// The status is not one that is tried elsewhere.
    StatusStands,
    /// `attempts`.
    Attempts,
    /// `timed_out_attempts`.
    TimedOutAttempts,
    /// The budget is used up.
    Budget,
}

/// Whether a failed attempt is followed by another.
#[must_use]
pub fn decide(attempt: &Attempt<'_>, retry: &plan::Retry) -> Decision {
    if attempt.answered {
        return Decision::GiveUp(GiveUp::Answered);
    }
    if let Failure::Status(status) = attempt.failure
        && !retry.statuses.contains(&status)
    {
        return Decision::GiveUp(GiveUp::StatusStands);
    }
    let executed = may_be_executed(attempt);
    if executed && !is_idempotent(attempt.method) {
        return Decision::GiveUp(GiveUp::NotIdempotent);
    }
    // What was refused may have been sent in part: it has to be sent again from its start.
    if attempt.sent && !attempt.replayable {
        return Decision::GiveUp(GiveUp::NotReplayable);
    }
    if attempt.failure == Failure::KeptClosed {
        return Decision::SameNode;
    }
    if attempt.attempts >= retry.attempts {
        return Decision::GiveUp(GiveUp::Attempts);
    }
    if attempt.failure == Failure::ReplyTimeout && attempt.timed_out >= retry.timed_out_attempts {
        return Decision::GiveUp(GiveUp::TimedOutAttempts);
    }
    Decision::OtherNode { repeats: executed }
}

fn may_be_executed(attempt: &Attempt<'_>) -> bool {
    match attempt.failure {
        Failure::Connect | Failure::Refused => false,
        Failure::KeptClosed | Failure::EarlyClose => attempt.sent,
        Failure::BadResponse | Failure::ReplyTimeout | Failure::Status(_) => true,
    }
}

/// RFC 9110 §9.2.2. Methods that are not known are not.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

/// Seconds that the budget looks back on.
const WINDOW: usize = 10;

/// Requests and retries of one pool and thread, over the last 10 s.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// By second, modulo the window.
    seconds: [Second; WINDOW],
    /// The newest of them.
    newest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// Counts a request.
    #[inline]
    pub(super) fn count(&mut self, now: Duration) {
        self.second(now).requests += 1;
    }

    /// Takes a retry, if there is one left.
    pub(super) fn take(&mut self, now: Duration, percent: u8) -> bool {
        self.second(now);
        let sum = |of: fn(&Second) -> u32| self.seconds.iter().map(|second| u64::from(of(second))).sum::<u64>();
        let allowed = (sum(|second| second.requests) * u64::from(percent) / 100).max(u64::from(ALWAYS));
        if sum(|second| second.retries) >= allowed {
            return false;
        }
        self.second(now).retries += 1;
        true
    }

    /// The second of `now`; those that are over are emptied.
    #[inline]
    fn second(&mut self, now: Duration) -> &mut Second {
        let newest = now.as_secs();
        if newest > self.newest {
            for past in self.newest.max(newest.saturating_sub(WINDOW as u64)) + 1..=newest {
                self.seconds[past as usize % WINDOW] = Second::default();
            }
            self.newest = newest;
        }
        &mut self.seconds[self.newest as usize % WINDOW]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURES: [Failure; 8] = [
        Failure::Connect,
        Failure::KeptClosed,
        Failure::EarlyClose,
        Failure::BadResponse,
        Failure::ReplyTimeout,
        Failure::Refused,
        Failure::Status(503),
        Failure::Status(500),
    ];

    fn retry() -> plan::Retry {
        plan::Retry { attempts: 3, timed_out_attempts: 2, statuses: vec![503], budget_percent: 20 }
    }

    /// Every combination of what a decision depends on.
    fn all() -> impl Iterator<Item = Attempt<'static>> {
        const METHODS: [&str; 10] =
            ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "POST", "PATCH", "PROPFIND", ""];
        let bits = (0..8u8).flat_map(|bits| (1..=4).map(move |attempts| (bits, attempts)));
        let cases = FAILURES.into_iter().flat_map(|f| METHODS.map(move |m| (f, m)));
        cases.flat_map(move |(failure, method)| {
            bits.clone().flat_map(move |(bits, attempts)| {
                (0..=attempts).map(move |timed_out| Attempt {
                    method,
                    sent: bits & 1 != 0,
                    answered: bits & 2 != 0,
                    replayable: bits & 4 != 0,
                    failure,
                    attempts,
                    timed_out,
                })
            })
        })
    }

    #[test]
    fn what_may_have_been_executed_is_repeated_only_if_it_is_idempotent_and_whole() {
        let mut seen = 0;
        for attempt in all() {
            seen += 1;
            let decision = decide(&attempt, &retry());
            let goes_on = !matches!(decision, Decision::GiveUp(_));
            let certainly_not_executed = !attempt.sent
                && matches!(attempt.failure, Failure::KeptClosed | Failure::EarlyClose)
                || matches!(attempt.failure, Failure::Connect | Failure::Refused);
            if goes_on {
                assert!(!attempt.answered, "{attempt:?}");
                assert!(!attempt.sent || attempt.replayable, "{attempt:?}");
                assert!(certainly_not_executed || is_idempotent(attempt.method), "never doubled: {attempt:?}");
                assert_ne!(attempt.failure, Failure::Status(500), "{attempt:?}");
            }
            if decision == (Decision::OtherNode { repeats: false }) {
                assert!(certainly_not_executed, "the budget counts what may repeat work: {attempt:?}");
            }
            let within = attempt.attempts < 3 && (attempt.failure != Failure::ReplyTimeout || attempt.timed_out < 2);
            if matches!(decision, Decision::OtherNode { .. }) {
                assert!(within, "{attempt:?}");
            }
            let safe = certainly_not_executed || is_idempotent(attempt.method);
            let wanted = !attempt.answered && safe && (!attempt.sent || attempt.replayable);
            if wanted && attempt.failure != Failure::Status(500) && (within || attempt.failure == Failure::KeptClosed) {
                assert!(goes_on, "{decision:?} for {attempt:?}");
            }
        }
        assert_eq!(seen, 8 * 10 * 8 * (2 + 3 + 4 + 5));
    }

    #[test]
    fn decisions() {
        use Decision::{GiveUp as Stop, OtherNode, SameNode};
        let get = Attempt {
            method: "GET",
            sent: true,
            answered: false,
            replayable: true,
            failure: Failure::EarlyClose,
            attempts: 1,
            timed_out: 0,
        };
        let post = Attempt { method: "POST", ..get };
        let tcp = Attempt { method: "", ..get };
        let repeat = OtherNode { repeats: true };
        let redirect = OtherNode { repeats: false };
        let cases = [
            ("node died under a GET", get, repeat),
            ("node died under a POST", post, Stop(GiveUp::NotIdempotent)),
            ("POST, refused connection", Attempt { failure: Failure::Connect, sent: false, ..post }, redirect),
            ("TCP, refused connection", Attempt { failure: Failure::Connect, sent: false, ..tcp }, redirect),
            ("TCP, closed after bytes", tcp, Stop(GiveUp::NotIdempotent)),
            ("stale connection, GET", Attempt { failure: Failure::KeptClosed, ..get }, SameNode),
            (
                "stale connection, POST sent",
                Attempt { failure: Failure::KeptClosed, ..post },
                Stop(GiveUp::NotIdempotent),
            ),
            ("stale connection, nothing sent", Attempt { failure: Failure::KeptClosed, sent: false, ..post }, SameNode),
            ("h2 says it did nothing, POST", Attempt { failure: Failure::Refused, ..post }, redirect),
            (
                "h2 says so, body is gone",
                Attempt { failure: Failure::Refused, replayable: false, ..post },
                Stop(GiveUp::NotReplayable),
            ),
            ("PUT, body is gone", Attempt { method: "PUT", replayable: false, ..get }, Stop(GiveUp::NotReplayable)),
            ("503", Attempt { failure: Failure::Status(503), ..get }, repeat),
            ("500", Attempt { failure: Failure::Status(500), ..get }, Stop(GiveUp::StatusStands)),
            ("503 to a POST", Attempt { failure: Failure::Status(503), ..post }, Stop(GiveUp::NotIdempotent)),
            ("a part was sent", Attempt { answered: true, ..get }, Stop(GiveUp::Answered)),
            ("third attempt", Attempt { attempts: 3, ..get }, Stop(GiveUp::Attempts)),
            ("first timeout", Attempt { failure: Failure::ReplyTimeout, timed_out: 1, ..get }, repeat),
            (
                "second timeout",
                Attempt { failure: Failure::ReplyTimeout, attempts: 2, timed_out: 2, ..get },
                Stop(GiveUp::TimedOutAttempts),
            ),
        ];
        for (name, attempt, expected) in cases {
            assert_eq!(decide(&attempt, &retry()), expected, "{name}");
        }
    }

    #[test]
    fn the_budget_is_a_share_of_the_last_ten_seconds() {
        let s = Duration::from_secs;
        let taken = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now, 20)).count();
        let mut budget = Budget::default();
        assert_eq!(taken(&mut budget, s(100)), 10, "some always");
        for second in 100..110 {
            (0..100).for_each(|_| budget.count(s(second)));
        }
        assert_eq!(taken(&mut budget, s(109)), 190, "20 % of 1000, less those taken");
        assert_eq!(taken(&mut budget, s(110)), 0, "180 allowed, 190 taken in the window");
        assert_eq!(taken(&mut budget, s(118)), 0, "they are in the window still");
        assert_eq!(taken(&mut budget, s(119)), 10, "and out of it");
        assert_eq!(taken(&mut budget, s(100_000)), 10, "a long pause");
        assert_eq!(taken(&mut budget, s(3)), 0, "a clock that steps back gives nothing away");
    }
}
