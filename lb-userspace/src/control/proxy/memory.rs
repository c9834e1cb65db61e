//! What workers remember of clients: sessions of persistence, and keys of TLS tickets. lbd keeps both, gives them to the worker
//! that comes after, to the lbd that comes after, and to the other machines of a cluster.
//!
//! Nothing in it means something on one machine alone: pools, nodes and sessions are hashes under the plan's secret, which the
//! machines of a cluster share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// How long one key makes tickets, in seconds. It opens them for as long again: none is older than a day (THREATS.md, T9).
pub const TICKET_EPOCH_S: u64 = 12 * 60 * 60;

/// A session and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Kind of persistence: place in `proxy::pool`'s `TableKind::ALL`.
    pub kind: u8,
    /// Hash of the pool's name.
    pub pool: u64,
    /// A client's network, a TLS session, or the hash of the application's id.
    pub id: u128,
    /// Hash of the node's name.
    pub node: u64,
    /// How long it is still remembered if it is not used.
    pub left: Duration,
}

/// A key of tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    /// Seconds since 1970 by [`TICKET_EPOCH_S`]: when it makes tickets.
    pub epoch: u64,
    /// Keys of virtual servers are derived from it.
    pub secret: Secret,
}

/// Keys of tickets for a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys {
    /// This machine's: tickets are made with that of their time.
    pub own: Vec<TicketKey>,
    /// Other machines': tickets that were made with them are understood.
    pub others: Vec<TicketKey>,
}

/// What one lbd leaves to the next one in the same process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Sessions, with whether clients of this machine began or used them last.
    pub sessions: Vec<(Session, bool)>,
    /// Keys of tickets.
    pub ticket_keys: TicketKeys,
}
