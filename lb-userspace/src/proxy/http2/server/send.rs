//! What is sent: heads and data as the peer's windows allow, windows of ours, resets.

use std::cell::RefCell;

use super::{
    Core, GoAway, OUT_MOST, REMEMBERED,
    frame::{self, Code, HEADER, Header, MAX_PAYLOAD, flag, kind},
};
use crate::proxy::http2::hpack::Encoder;

/// Bytes that are handed over by one stream before others get their turn.
const PORTION: usize = 32 * 1024;

/// Least room for which data is put among what waits, where the room is what limits it.
const LEAST_ROOM: usize = 2048;

/// Buffers for sending that a thread keeps, and the largest that it does.
const KEPT: usize = 64;
const MAX_KEPT: usize = 2 * OUT_MOST;

thread_local! {
    static STOCK: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Core {
    /// Sends a block of fields, and with it the end of the stream where it `ends`; how many bytes that takes.
    pub(super) fn send_block(
        &mut self,
        key: usize,
        ends: bool,
        encode: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> usize {
        self.borrow_out();
        let stream = self.states[key].id;
        let begin = self.out.len();
        self.out.extend_from_slice(&[0; HEADER]);
        self.encoder.begin(&mut self.out);
        encode(&mut self.encoder, &mut self.out);
        let length = self.out.len() - begin - HEADER;
        if length > MAX_PAYLOAD {
            let block = self.out.split_off(begin + HEADER);
            self.out.truncate(begin);
            frame::write_block(&mut self.out, stream, ends, &block);
        } else {
            let flags = flag::END_HEADERS | if ends { flag::END_STREAM } else { 0 };
            let header = Header { length, kind: kind::HEADERS, flags, stream };
            self.out[begin..begin + HEADER].copy_from_slice(&header.bytes());
        }
        let count = self.out.len() - begin;
        if ends {
            self.ended(key);
        }
        self.wake_driver();
        count
    }

    /// Sends as much of `data` as windows and room allow; how much that is. `ends`: with the last of it the stream does. 0 of
    /// more: the stream is woken when it is worth another try.
    pub(super) fn send_data(&mut self, key: usize, data: &[u8], ends: bool) -> usize {
        self.borrow_out();
        let state = &mut self.states[key];
        let window = usize::try_from(state.window.min(self.window)).unwrap_or(0);
        let room = OUT_MOST.saturating_sub(self.out.len() - self.sent);
        let room = if room < LEAST_ROOM { 0 } else { room };
        let count = data.len().min(window).min(room).min(PORTION);
        if count == 0 && !data.is_empty() {
            if state.window > 0 && !state.waits {
                state.waits = true;
                self.waiting.push_back(key);
            }
            return 0;
        }
        state.window -= count as i64;
        self.window -= count as i64;
        let (stream, ends) = (state.id, ends && count == data.len());
        let mut left = &data[..count];
        loop {
            let (part, rest) = left.split_at(left.len().min(MAX_PAYLOAD));
            left = rest;
            let flags = if ends && rest.is_empty() { flag::END_STREAM } else { 0 };
            frame::write(&mut self.out, kind::DATA, flags, stream, part);
            if rest.is_empty() {
                break;
            }
        }
        if ends {
            self.ended(key);
        }
        self.wake_driver();
        count
    }

    fn ended(&mut self, key: usize) {
        self.states[key].we_ended = true;
        self.close_if_done(key);
    }

    /// Lets those try again that wait for the connection.
    pub(super) fn wake_waiting(&mut self) {
        for key in self.waiting.drain(..) {
            if let Some(state) = self.states.get_mut(key) {
                state.waits = false;
                state.wake();
            }
        }
    }

    /// So many bytes were sent.
    pub(super) fn wrote(&mut self, count: usize) {
        self.sent += count;
        self.sent_all += count as u64;
        self.score.wrote(count);
        if self.sent == self.out.len() {
            self.sent = 0;
            give_back(std::mem::take(&mut self.out));
        }
        if self.out.len() - self.sent < OUT_MOST / 2 {
            self.wake_waiting();
        }
    }

    /// Memory for what is to be sent: none is held while nothing is.
    fn borrow_out(&mut self) {
        if self.out.capacity() == 0 {
            self.out = STOCK.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(16 * 1024));
        }
    }

    /// Resets a stream that is open.
    pub(super) fn reset(&mut self, key: usize, code: Code) {
        let state = &self.states[key];
        if state.is_closed() {
            return;
        }
        frame::write_reset(&mut self.out, state.id, code);
        self.remember_reset(self.states[key].id);
        self.abandon(key);
        self.wake_driver();
    }

    /// What the peer sent such a stream before it knew is no mistake.
    pub(super) fn remember_reset(&mut self, stream: u32) {
        if self.resets.len() == REMEMBERED {
            self.resets.pop_front();
        }
        self.resets.push_back(stream);
    }

    /// A stream was reset: nothing of it matters any more.
    pub(super) fn abandon(&mut self, key: usize) {
        let state = &mut self.states[key];
        state.is_reset = true;
        state.incoming.clear();
        let held = std::mem::take(&mut state.held);
        state.wake();
        self.close_if_done(key);
        self.release(usize::try_from(held).unwrap_or(0));
    }

    /// Takes a stream that is closed off those that are open.
    pub(super) fn close_if_done(&mut self, key: usize) {
        let state = &self.states[key];
        if state.is_closed()
            && let Ok(at) = self.open.binary_search_by_key(&state.id, |(id, _)| *id)
        {
            self.open.remove(at);
        }
    }

    /// `count` bytes of DATA were taken by a stream: its window and the connection's are opened again.
    pub(super) fn consume(&mut self, key: usize, count: usize) {
        let state = &mut self.states[key];
        let count = state.held.min(count as i64);
        state.held -= count;
        let fresh = i64::from(self.target) - state.their_window - state.held;
        if !state.they_ended && !state.is_reset && fresh >= i64::from(self.target / 2) {
            state.their_window += fresh;
            frame::write_window(&mut self.out, state.id, fresh as u32);
            self.wake_driver();
        }
        self.release(usize::try_from(count).unwrap_or(0));
    }

    /// `count` bytes of DATA that came are done with.
    pub(super) fn release(&mut self, count: usize) {
        self.held -= count as i64;
        self.grant();
    }

    /// Opens the connection's window again, when that is worth a frame: for two streams at a time.
    pub(super) fn grant(&mut self) {
        let target = i64::from(self.target) * 2;
        let fresh = target - self.their_window - self.held;
        if fresh >= target / 2 {
            self.their_window += fresh;
            frame::write_window(&mut self.out, 0, fresh as u32);
            self.wake_driver();
        }
    }

    /// Tells the last stream that is served, after the peer knows that there will be one.
    pub(super) fn tell_last(&mut self) {
        if self.goaway == GoAway::Told {
            self.goaway = GoAway::Last(self.last);
            frame::write_goaway(&mut self.out, self.last, Code::NoError);
            self.wake_driver();
        }
    }
}

/// Keeps the memory for another connection of the thread.
fn give_back(mut out: Vec<u8>) {
    if out.capacity() > MAX_KEPT || out.capacity() < LEAST_ROOM {
        return;
    }
    out.clear();
    // While the thread ends, its stock may be gone already.
    let _ = STOCK.try_with(|stock| {
        let mut stock = stock.borrow_mut();
        if stock.len() < KEPT {
            stock.push(out);
        }
    });
}
