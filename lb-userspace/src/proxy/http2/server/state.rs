//! What is known of one stream, RFC 9113 §5.1.

use std::{
    collections::VecDeque,
    task::{Context, Waker},
};

use bytes::Bytes;
use http::HeaderMap;

/// A stream: its protocol state, and what its exchange works with.
#[derive(Debug)]
pub(super) struct State {
    pub(super) id: u32,
    /// What we may send.
    pub(super) window: i64,
    /// What the peer may send, and what came of it and was not taken.
    pub(super) their_window: i64,
    pub(super) held: i64,
    /// What came of the body.
    pub(super) incoming: VecDeque<Bytes>,
    /// Bytes of DATA that must still come, where a length was told.
    pub(super) length_left: Option<u64>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) they_ended: bool,
    pub(super) we_ended: bool,
    /// Reset, by whoever.
    pub(super) is_reset: bool,
    /// Whether it stands among those that wait for the connection.
    pub(super) waits: bool,
    waker: Option<Waker>,
}

impl State {
    pub(super) fn new(id: u32, window: i64, their_window: i64, length: Option<u64>, they_ended: bool) -> Self {
        Self {
            id,
            window,
            their_window,
            held: 0,
            incoming: VecDeque::new(),
            length_left: length,
            trailers: None,
            they_ended,
            we_ended: false,
            is_reset: false,
            waits: false,
            waker: None,
        }
    }

    /// Lets the next change wake the caller's task.
    pub(super) fn remember(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// Something changed.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Whether nothing comes and nothing goes any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_reset || self.they_ended && self.we_ended
    }
}
