//! One request of a connection, as its task sees it: the body in, the response out.

use std::{
    cell::{RefCell, RefMut},
    io,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;

use super::{Core, State, frame::Code};
use crate::proxy::{
    h1::{response::ResponseHead, write::ResponseEdit},
    http2::head,
};

/// A stream that is served. Dropped before its response is complete, it is reset.
#[derive(Debug)]
pub(crate) struct Exchange {
    core: Rc<RefCell<Core>>,
    key: usize,
}

impl Exchange {
    pub(super) fn new(core: &Rc<RefCell<Core>>, key: usize) -> Self {
        Self { core: Rc::clone(core), key }
    }

    fn state(&self) -> RefMut<'_, State> {
        RefMut::map(self.core.borrow_mut(), |core| &mut core.states[self.key])
    }

    /// The next part of the body; `None` after the last.
    pub(crate) fn poll_data(&self, context: &Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_gone(context) {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
        }
        let mut state = self.state();
        match state.incoming.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(data))),
            None if state.they_ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Whether all of the body was given out, and nothing comes after it.
    pub(crate) fn is_read(&self) -> bool {
        let state = self.state();
        state.they_ended && state.incoming.is_empty() && state.trailers.is_none()
    }

    /// The request's trailers, after its body.
    pub(crate) fn take_trailers(&self) -> Option<HeaderMap> {
        self.state().trailers.take()
    }

    /// `count` bytes of the body were passed on: the client may send others for them.
    pub(crate) fn consume(&self, count: usize) {
        self.core.borrow_mut().consume(self.key, count);
    }

    /// Whether the stream was reset, or the connection failed; else the task is woken when that comes to hold.
    pub(crate) fn is_gone(&self, context: &Context<'_>) -> bool {
        let mut core = self.core.borrow_mut();
        let is_dead = core.dead;
        let state = &mut core.states[self.key];
        state.remember(context);
        is_dead || state.is_reset
    }

    /// Whether all of the response was handed over, or none of it matters any more.
    pub(crate) fn is_ended(&self) -> bool {
        let state = self.state();
        state.we_ended || state.is_reset
    }

    /// Sends a response's head, interim or final; `ends`: it is all. How many bytes it takes.
    pub(crate) fn respond(&self, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>, ends: bool) -> usize {
        if self.is_ended() {
            return 0;
        }
        self.core.borrow_mut().send_block(self.key, ends, |encoder, out| head::encode(encoder, out, head, edit))
    }

    /// Lets a client go on that waits before it sends its body (RFC 9110 §10.1.1).
    pub(crate) fn go_on(&self) {
        if !self.is_ended() {
            self.core.borrow_mut().send_block(self.key, false, |encoder, out| encoder.status(out, 100));
        }
    }

    /// Hands over as much of `data` as the client's windows take; how much that is. `last`: no data comes after, and with
    /// the last of it, or with `trailers`, the message ends.
    ///
    /// # Errors
    /// The stream was reset, or its connection failed.
    pub(crate) fn poll_send(
        &self,
        context: &Context<'_>,
        data: &[u8],
        last: bool,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<io::Result<usize>> {
        if self.is_gone(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.is_ended() {
            return Poll::Ready(Ok(data.len()));
        }
        let mut core = self.core.borrow_mut();
        if !data.is_empty() {
            return match core.send_data(self.key, data, last && trailers.is_none()) {
                0 => Poll::Pending,
                count => Poll::Ready(Ok(count)),
            };
        }
        match trailers.take() {
            _ if !last => {}
            Some(trailers) => {
                core.send_block(self.key, true, |encoder, out| head::encode_trailers(encoder, out, &trailers));
            }
            None => drop(core.send_data(self.key, &[], true)),
        }
        Poll::Ready(Ok(0))
    }

    /// Resets the stream, unless its response is complete.
    pub(crate) fn reset(&self, code: Code) {
        if !self.is_ended() {
            self.core.borrow_mut().reset(self.key, code);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut core = self.core.borrow_mut();
        // §8.1: who has its answer need not send the rest. Else the task ended without one.
        let code = if core.states[self.key].we_ended { Code::NoError } else { Code::Cancel };
        core.reset(self.key, code);
        let state = core.states.remove(self.key);
        core.release(usize::try_from(state.held).unwrap_or(0));
        core.exchanges -= 1;
        if core.exchanges == 0 {
            core.wake_driver();
        }
    }
}
