//! Health monitors: checks every node, at its own address or where the monitor says, and says when its health changes.
//!
//! Owns the checks, their timing and their sockets. Never decides what follows from a node's health: results leave as
//! [`Report`]s and `control` draws the conclusions. Called by the composition root, which passes the targets of each plan
//! to [`Monitors::set`] and forwards the reports.
//!
//! `machine` (one check) and `schedule` (all of them) are pure; `engine` is the shell around them. What a check does is a
//! module for each kind of `control::probe::Kind`; a further one is a variant there and an arm in `engine`. Nodes may be
//! hostile: what is read of them is bounded in bytes and in time, and leads to nothing but [`Report`]s.

pub mod machine;
pub mod runner;
pub mod schedule;

mod dns;
mod echo;
mod engine;
mod greeting;
mod http;
mod ping;
mod probe;
mod program;
mod tcp;
mod tls;
mod transaction;
mod udp;
mod vip;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

pub use self::{
    program::{Programs, Runner},
    vip::{Knock, KnockAnswer, Knocks},
};
use crate::control::{probe::Kind, view::Health};

/// One monitor of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Pool.
    pub pool: String,
    /// Node.
    pub node: String,
    /// Whom to ask; port 0 when the configuration leaves it out.
    pub address: SocketAddr,
    /// Monitor.
    pub monitor: String,
    /// How it checks.
    pub settings: Settings,
}

/// How a monitor checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// What is sent.
    pub kind: Kind,
    /// From the beginning of a check to the beginning of the next; a check never overlaps the one before.
    pub delay: Duration,
    /// A check without an answer by then has failed.
    pub timeout: Duration,
    /// So many failures in a row make a node `Down`; 0 counts as 1.
    pub failures: u32,
    /// So many successes in a row make a `Down` node `Up`; 0 counts as 1.
    pub successes: u32,
}

/// What checks need of other parts of lbd.
#[derive(Debug, Default)]
pub struct Outside {
    /// Who knocks at VIPs; `None`: nobody can.
    pub knocks: Option<Knocks>,
    /// Who runs programs; `None`: nobody does.
    pub programs: Option<Programs>,
}

/// A change in what a monitor says of a node. Sent when the health changes, and when the reason does while it is not `Up`.
///
/// A report may still be on its way when its target has left the configuration: the receiver ignores names it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Pool.
    pub pool: String,
    /// Node.
    pub node: String,
    /// Monitor.
    pub monitor: String,
    /// What the monitor says now.
    pub health: Health,
    /// Why, when it is not `Up`: `connection refused`, `no answer within 10s`, …
    pub reason: Option<String>,
}

/// The running monitors. They end when this is dropped.
#[derive(Debug)]
pub struct Monitors {
    targets: watch::Sender<Vec<Target>>,
    engine: AbortHandle,
}

impl Monitors {
    /// Starts with no targets, on the current tokio runtime. Reports are held back, the newest of each target, while
    /// `reports` is full; the checks go on.
    pub fn spawn(reports: mpsc::Sender<Report>, outside: Outside) -> Self {
        let (targets, changed) = watch::channel(Vec::new());
        let engine = tokio::spawn(engine::run(changed, reports, outside)).abort_handle();
        Self { targets, engine }
    }

    /// Replaces the targets. Those that stay (same pool, node, monitor and address) keep what is known of them, also under
    /// new settings; those that go are forgotten without a report.
    pub fn set(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.engine.abort();
    }
}

#[cfg(test)]
mod tests;
