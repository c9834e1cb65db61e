//! Keeps handshakes from starving requests (THREATS.md, T6): on each thread one costly step of a handshake a round of the event
//! loop, and a bounded number of handshakes at a time.
//!
//! A handshake costs as much as twenty requests. When a thousand clients greet at once, what else is ready on the
//! thread, and what comes meanwhile, runs between every two of them.

use std::cell::Cell;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::HandshakeError;
use crate::proxy::reactor;

/// The gate of one thread.
#[derive(Debug)]
pub struct Gate {
    turns: Semaphore,
    inside: Cell<usize>,
    most: usize,
}

impl Gate {
    /// Lets `most` handshakes be under way at a time. Each holds a buffer while bytes of it are incomplete.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { turns: Semaphore::new(1), inside: Cell::new(0), most }
    }

    /// Handshakes under way.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inside.get()
    }

    pub(super) fn enter(&self) -> Result<Place<'_>, HandshakeError> {
        if self.inside.get() >= self.most {
            return Err(HandshakeError::Busy);
        }
        self.inside.set(self.inside.get() + 1);
        Ok(Place(self))
    }
}

/// A handshake under way.
pub(super) struct Place<'a>(&'a Gate);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.inside.set(self.0.inside.get() - 1);
    }
}

impl<'a> Place<'a> {
    /// Waits until a step may be made. Give the turn back by [`Turn::end`].
    pub(super) async fn turn(&self) -> Turn<'a> {
        Turn { _permit: self.0.turns.acquire().await.ok() }
    }
}

/// The right to one step.
pub(super) struct Turn<'a> {
    /// `None` only for a closed semaphore, which this one never is.
    _permit: Option<SemaphorePermit<'a>>,
}

impl Turn<'_> {
    /// Lets everything else that is ready run before the next handshake.
    pub(super) async fn end(self) {
        reactor::next_round().await;
    }
}
