//! What is known of one stream, RFC 9113 §5.1.

use std::{
    collections::VecDeque,
    task::{Context, Waker},
};

use bytes::Bytes;
use http::HeaderMap;

/// Bytes up to which parts of a body are put together.
const TOGETHER: usize = 4096;

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

    /// Keeps a part of the body until it is taken. Small ones become one: a window of single bytes would need a hundred
    /// times its memory.
    pub(super) fn take_data(&mut self, data: &[u8]) {
        let small = self.incoming.pop_back_if(|last| last.len() + data.len() <= TOGETHER);
        let part = match small.map(Bytes::try_into_mut) {
            None => Bytes::copy_from_slice(data),
            Some(Ok(mut part)) => {
                part.extend_from_slice(data);
                part.freeze()
            }
            Some(Err(shared)) => {
                self.incoming.push_back(shared);
                Bytes::copy_from_slice(data)
            }
        };
        self.incoming.push_back(part);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_of_a_body_are_kept_together() {
        let mut state = State::new(1, 0, 0, None, false);
        for byte in 0..20_000_u32 {
            state.take_data(&[byte as u8]);
        }
        assert_eq!(state.incoming.len(), 5);
        state.take_data(&[7; 10_000]);
        assert_eq!(state.incoming.len(), 6, "a large one stays as it is");
        let all = state.incoming.iter().flatten().copied();
        assert!(all.eq((0..20_000_u32).map(|byte| byte as u8).chain([7; 10_000])));
    }
}
