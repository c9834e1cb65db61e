//! What lbd remembers for its workers: sessions of persistence and keys of TLS tickets. A worker that comes after another one
//! gets them, and other machines of a cluster are told of them and tell theirs.

mod sessions;
mod tickets;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use self::{sessions::Sessions, tickets::Tickets};
use super::Input;
use crate::{
    control::proxy::memory::{self as remembered, Session, TicketKey, TicketKeys},
    proxy::message::ToWorker,
};

/// Sessions in one message to the worker.
const BATCH: usize = 2000;

/// A handle for those who tell other machines. Cheap to clone; no call waits for the worker.
#[derive(Clone, Debug)]
pub struct Memory {
    inputs: mpsc::Sender<Input>,
    kept: Arc<Mutex<Kept>>,
}

/// What lbd remembers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    sessions: Sessions,
    tickets: Tickets,
}

impl Memory {
    pub(super) fn new(inputs: mpsc::Sender<Input>, kept: Arc<Mutex<Kept>>) -> Self {
        Self { inputs, kept }
    }

    /// Sessions of this machine's clients that were new, changed or used after the number, oldest first, and the number to ask
    /// with next: the same one when nothing is left. After 0: all. `most`: sessions to look at, those of others' clients included.
    #[must_use]
    pub fn sessions_since(&self, since: u64, most: usize) -> (Vec<Session>, u64) {
        lock(&self.kept).sessions.since(since, most, Instant::now())
    }

    /// Takes in sessions of another machine. Of those that are known here, too, the ones that were used last stay.
    pub fn take_sessions(&self, sessions: &[Session]) {
        let news = lock(&self.kept).sessions.learn(sessions, false, Instant::now());
        for batch in news.chunks(BATCH) {
            // Without a supervisor there is no worker.
            let _ = self.inputs.send(Input::Tell(ToWorker::Sessions(batch.to_vec())));
        }
    }

    /// The keys that this machine's tickets are made with: of this time, the one before and the next.
    #[must_use]
    pub fn ticket_keys(&self) -> Vec<TicketKey> {
        lock(&self.kept).tickets.keys().own.clone()
    }

    /// Takes in keys of another machine, whose tickets are understood from now on. Those of another time are dropped.
    pub fn take_ticket_keys(&self, keys: &[TicketKey]) {
        let mut kept = lock(&self.kept);
        if kept.tickets.hear(keys, unix_seconds()) {
            let keys = kept.tickets.keys().clone();
            let _ = self.inputs.send(Input::Tell(ToWorker::TicketKeys(keys)));
        }
    }
}

impl Kept {
    /// What the lbd before left.
    pub(super) fn inherited(left: remembered::Memory) -> Self {
        let (mut kept, now) = (Self::default(), Instant::now());
        for (session, is_ours) in left.sessions {
            kept.sessions.learn(&[session], is_ours, now);
        }
        kept.tickets.inherit(left.ticket_keys);
        kept
    }

    /// What the next lbd gets.
    pub(super) fn leave(&self) -> remembered::Memory {
        remembered::Memory { sessions: self.sessions.all(Instant::now()), ticket_keys: self.tickets.keys().clone() }
    }

    /// The worker learnt sessions, or they were used.
    pub(super) fn learnt(&mut self, sessions: &[Session]) {
        self.sessions.learn(sessions, true, Instant::now());
    }

    /// How many sessions are kept.
    pub(super) fn known(&self) -> usize {
        self.sessions.len()
    }

    /// Makes keys of tickets when it is time; to be called often. Returns them when they are others than before.
    pub(super) fn turn(&mut self) -> Option<TicketKeys> {
        self.tickets.turn(unix_seconds()).then(|| self.tickets.keys().clone())
    }

    /// What a new worker is told that those before it knew, before its plan.
    pub(super) fn for_worker(&self) -> Vec<ToWorker> {
        let all: Vec<_> = self.sessions.all(Instant::now()).into_iter().map(|(session, _)| session).collect();
        let sessions = all.chunks(BATCH).map(|batch| ToWorker::Sessions(batch.to_vec()));
        std::iter::once(ToWorker::TicketKeys(self.tickets.keys().clone())).chain(sessions).collect()
    }
}

/// Nothing that holds the lock panics half-way through a change.
pub(super) fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
