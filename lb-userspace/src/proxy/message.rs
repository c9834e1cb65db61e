//! What lbd and its worker say to each other over their [`super::channel`].

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::control::proxy::{
    ProxyEvent, ProxyPlan,
    memory::{Session, TicketKeys},
    recent::{Filter, Record},
    stats::{Scope, Snapshot},
};

/// What lbd tells its worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// Threads to start; the first message.
    Start {
        /// How many.
        threads: usize,
    },
    /// The sockets beside this message, one for each thread, are of this address.
    Listen {
        /// Virtual server.
        virtual_server: String,
        /// Address, as in the plan.
        address: SocketAddr,
    },
    /// The file beside this message is the access log of this path from now on.
    Log {
        /// Path, as in the plan.
        path: PathBuf,
    },
    /// The sockets beside this message may be bound to clients' addresses.
    Sockets {
        /// Of IPv6, or of IPv4.
        ipv6: bool,
    },
    /// Go on by this plan, with the sockets that came since the last one.
    Plan(Box<ProxyPlan>),
    /// Something to be answered.
    Ask {
        /// Told back with the answer.
        id: u64,
        /// What.
        question: Question,
    },
    /// Take a node back that passive monitoring took out: an operator's word.
    BringBack {
        /// Pool.
        pool: String,
        /// Node.
        node: String,
    },
    /// Sessions that another machine, or the worker before, knows.
    Sessions(Vec<Session>),
    /// The keys of TLS tickets from now on.
    TicketKeys(TicketKeys),
    /// Whether there is so little memory left that new requests are to be refused.
    MemoryIsShort(bool),
    /// lbd is about to be replaced: the end of the channel that follows is no accident.
    Farewell,
    /// Accept no more, end what runs within this time, then end.
    Drain(Duration),
}

/// What lbd asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// What was counted.
    Stats(Scope),
    /// Requests that ended lately.
    Recent(Box<Filter>),
}

/// What the worker tells lbd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// It is shut in, and takes plans.
    Ready,
    /// It lives.
    Heartbeat(Vec<ThreadBeat>),
    /// It needs sockets that may be bound to clients' addresses.
    WantSockets {
        /// Of IPv6, or of IPv4.
        ipv6: bool,
    },
    /// What happened, oldest first, and how many events before these were lost.
    Events(Vec<ProxyEvent>, u64),
    /// Sessions that were learnt or used since it said so last.
    Sessions(Vec<Session>),
    /// An answer.
    Answer {
        /// Of the question.
        id: u64,
        /// It.
        answer: Answer,
    },
}

/// What the worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Stats`].
    Stats(Box<Snapshot>),
    /// To [`Question::Recent`]: newest first.
    Recent(Vec<Record>),
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadBeat {
    /// Grows as long as it turns.
    pub beats: u64,
    /// Client connections.
    pub connections: usize,
    /// Generation of the plan it serves by.
    pub generation: u64,
}
