//! The server's side of a connection over HTTP/2 (RFC 9113): frames in, requests out of them, and what is to be sent.
//!
//! One task drives the connection ([`Connection`]); each request has a [`Exchange`], which its own task uses. Both work on
//! one [`Core`]: what streams send is put into one buffer, and goes out together when the driver's turn comes. Memory is
//! bounded by the windows, the number of streams and [`OUT_MOST`]; frames that only cost are counted (`glitch`). Must never
//! wait within a call, and never give a node more than one well-formed request for a stream. Used by `serve::http2`.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use slab::Slab;

use super::{
    frame::{self, Code, MAX_WINDOW, setting},
    glitch::{Level, Score},
    hpack::{Decoder, Encoder},
    request::Head,
};
use crate::proxy::{buffer::Buffer, reactor, stream::Stream};

mod exchange;
mod receive;
mod send;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use exchange::Exchange;
use receive::Reading;
use state::State;

/// Bytes of the preface, RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests at a time.
pub(crate) const MAX_STREAMS: usize = 128;

/// Windows of a stream and of the connection at first, and at most: they grow with what is really received.
const FIRST_WINDOW: u32 = 64 * 1024;
const MOST_WINDOW: u32 = 1024 * 1024;

/// The window of the connection before anything is said, §6.9.2.
const INITIAL_WINDOW: i64 = 65_535;

/// Bytes that wait to be sent above which no more data is put among them.
const OUT_MOST: usize = 64 * 1024;

/// Bytes that wait to be sent above which nothing is read.
const OUT_STOP: usize = 4 * OUT_MOST;

/// Bytes that are read before other connections get their turn.
const ROUND: usize = 128 * 1024;

/// What a PING says that asks whether GOAWAY came.
const GOAWAY_PING: [u8; 8] = *b"lb:last?";

/// Streams that we reset are remembered: what the peer sent them meanwhile is no mistake of its.
const REMEMBERED: usize = 2 * MAX_STREAMS;

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer broke the protocol, or only costs.
    Error(Code),
    /// It was told to, and nothing is left to do.
    Done,
    /// The peer is gone.
    Gone,
}

/// What the driver is to do.
#[derive(Debug)]
pub(crate) enum Event {
    /// Serve this request.
    Request(Head, Exchange),
    /// Close the connection.
    End(End),
}

/// A connection: what its driver has.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    input: Option<Buffer>,
    core: Rc<RefCell<Core>>,
    /// Bytes that may still be read in this round.
    left: usize,
    ending: Option<End>,
}

/// What a connection and its streams share.
#[derive(Debug)]
struct Core {
    /// What is to be sent, and how much of it was.
    out: Vec<u8>,
    sent: usize,
    /// Bytes that were sent of this connection.
    sent_all: u64,
    encoder: Encoder,
    decoder: Decoder,
    /// Of streams whose exchange or protocol state lives.
    states: Slab<State>,
    /// Streams that are open, and where their states are; ids ascend.
    open: Vec<(u32, usize)>,
    /// Streams that wait for the connection's window or for room, in their order.
    waiting: VecDeque<usize>,
    /// Requests that no driver took yet.
    fresh: VecDeque<(Head, usize)>,
    /// Exchanges that live.
    exchanges: usize,
    /// Streams that we reset lately.
    resets: VecDeque<u32>,
    /// The highest stream of the peer's.
    last: u32,
    /// What we may send, and what each stream may at its begin.
    window: i64,
    stream_window: i64,
    /// What the peer may send, what came of it and was not taken, and what both are to be together.
    their_window: i64,
    held: i64,
    target: u32,
    /// Bytes that came.
    received: u64,
    reading: Reading,
    score: Score,
    max_head: usize,
    goaway: GoAway,
    dead: bool,
    driver: Option<Waker>,
}

/// How far the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoAway {
    Not,
    /// The peer was told that there will be an end, and asked by PING whether it knows.
    Told,
    /// It was told the last stream.
    Last(u32),
}

impl Connection {
    /// Begins on `stream`, which `early` came from already. A head may have `max_head` bytes.
    pub(crate) fn new(stream: Stream, early: Option<Buffer>, max_head: u32) -> Self {
        let core = Rc::new(RefCell::new(Core::new(max_head, reactor::now_ms())));
        Self { stream, input: early, core, left: ROUND, ending: None }
    }

    /// Reads, sends, and says what comes next. To be polled again after each event but the end.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        self.core.borrow_mut().remember_driver(context);
        if self.ending.is_none() {
            match self.poll_frames(context) {
                Poll::Ready(Event::End(end)) => self.end(end),
                Poll::Ready(request) => return Poll::Ready(request),
                Poll::Pending => {}
            }
        }
        let flushed = self.poll_flush(context);
        if let Some(end) = self.ending {
            // Whoever takes nothing is closed when the caller's patience ends.
            let is_over = end == End::Gone || flushed.is_ready();
            return if is_over { Poll::Ready(Event::End(end)) } else { Poll::Pending };
        }
        match flushed {
            Poll::Ready(Err(_)) => {
                self.end(End::Gone);
                Poll::Ready(Event::End(End::Gone))
            }
            Poll::Ready(Ok(())) if self.core.borrow().is_done() => Poll::Ready(Event::End(End::Done)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Lets other connections have their turn once so and so much was read: to be called when the driver is woken.
    pub(crate) fn begin_round(&mut self) {
        self.left = ROUND;
    }

    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            let mut core = self.core.borrow_mut();
            if let Some((head, key)) = core.fresh.pop_front() {
                drop(core);
                return Poll::Ready(Event::Request(head, Exchange::new(&self.core, key)));
            }
            if let Some(input) = &mut self.input {
                let (taken, result) = core.read(input.bytes());
                input.consume(taken);
                if let Err(code) = result {
                    return Poll::Ready(Event::End(End::Error(code)));
                }
                if !core.fresh.is_empty() {
                    continue;
                }
                match core.reading.wants(input.bytes()) {
                    _ if input.is_empty() => self.input = None,
                    total => input.reserve(total.max(input.len() + 1)),
                }
            }
            if core.out.len() - core.sent > OUT_STOP {
                return Poll::Pending;
            }
            drop(core);
            if self.left == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.poll_read(context)) {
                Ok(0) | Err(_) => return Poll::Ready(Event::End(End::Gone)),
                Ok(count) => self.left = self.left.saturating_sub(count),
            }
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // No buffer is held while nothing comes.
        ready!(self.stream.poll_readable(context))?;
        let mut input = self.input.take().unwrap_or_else(Buffer::take);
        let read = self.stream.poll_read(context, input.room());
        if let Poll::Ready(Ok(count)) = &read {
            input.filled(*count);
        }
        if !input.is_empty() {
            self.input = Some(input);
        }
        read
    }

    /// Sends what waits.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.core.borrow_mut();
        while core.sent < core.out.len() {
            let slices = [IoSlice::new(&core.out[core.sent..])];
            match ready!(self.stream.poll_write_vectored(context, &slices)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => core.wrote(count),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        drop(core);
        self.stream.poll_flush(context)
    }

    fn end(&mut self, end: End) {
        self.ending = Some(end);
        let mut core = self.core.borrow_mut();
        if let End::Error(code) = end {
            let last = core.last;
            frame::write_goaway(&mut core.out, last, code);
        }
        core.fail();
    }

    /// Closes the connection of a client that only costs.
    pub(crate) fn calm(&mut self) {
        if self.ending.is_none() {
            self.end(End::Error(Code::EnhanceYourCalm));
        }
    }

    /// Tells the client to come again on another connection, §6.8: first without a last stream, for what is on its way.
    pub(crate) fn end_softly(&mut self) {
        let mut core = self.core.borrow_mut();
        if core.goaway == GoAway::Not {
            core.goaway = GoAway::Told;
            frame::write_goaway(&mut core.out, MAX_WINDOW as u32, Code::NoError);
            frame::write(&mut core.out, frame::kind::PING, 0, 0, &GOAWAY_PING);
            core.wake_driver();
        }
    }

    /// What is to be done about the peer.
    pub(crate) fn level(&self) -> Level {
        self.core.borrow().score.level()
    }

    /// Exchanges that live.
    pub(crate) fn exchanges(&self) -> usize {
        self.core.borrow().exchanges
    }

    /// Bytes that came so far.
    pub(crate) fn received(&self) -> u64 {
        self.core.borrow().received
    }

    /// Whether something waits to be sent.
    pub(crate) fn waits_to_send(&self) -> bool {
        !self.core.borrow().out.is_empty()
    }

    /// Bytes that were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.core.borrow().sent_all
    }

    /// Whether the client's preface and settings came.
    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.core.borrow().reading, Reading::Preface | Reading::Settings)
    }

    /// A request of the peer was refused.
    pub(crate) fn refused(&self) {
        self.core.borrow_mut().score.refused();
    }

    /// Tells the last stream that is served, where the client was told that there will be one.
    pub(crate) fn tell_last(&self) {
        self.core.borrow_mut().tell_last();
    }

    /// The windows, and what they may be at most.
    pub(crate) fn window(&self) -> u32 {
        self.core.borrow().target
    }

    /// Opens the windows twice as wide, up to the most there is.
    pub(crate) fn widen(&self) {
        let mut core = self.core.borrow_mut();
        core.target = (core.target * 2).min(MOST_WINDOW);
    }

    /// Ends our direction, once all is sent.
    pub(crate) fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        self.stream.poll_end(context)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.core.borrow_mut().fail();
    }
}

impl Core {
    /// Of a connection that begins now, with our first frames ready to be sent.
    fn new(max_head: u32, now_ms: u64) -> Self {
        let mut core = Self {
            out: Vec::new(),
            sent: 0,
            sent_all: 0,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            states: Slab::new(),
            open: Vec::new(),
            waiting: VecDeque::new(),
            fresh: VecDeque::new(),
            exchanges: 0,
            resets: VecDeque::new(),
            last: 0,
            window: INITIAL_WINDOW,
            stream_window: INITIAL_WINDOW,
            their_window: INITIAL_WINDOW,
            held: 0,
            target: FIRST_WINDOW,
            received: 0,
            reading: Reading::Preface,
            score: Score::new(now_ms, 0),
            max_head: max_head as usize,
            goaway: GoAway::Not,
            dead: false,
            driver: None,
        };
        core.greet(max_head);
        core
    }

    /// Our settings, and a window of the connection that several streams can share.
    fn greet(&mut self, max_head: u32) {
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, MAX_STREAMS as u32),
            (setting::INITIAL_WINDOW_SIZE, FIRST_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, max_head),
        ];
        frame::write_settings(&mut self.out, &settings);
        self.grant();
    }

    fn remember_driver(&mut self, context: &Context<'_>) {
        match &mut self.driver {
            Some(driver) => driver.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// Lets what was put into `out` be sent.
    fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// The connection is over: so are its streams.
    fn fail(&mut self) {
        self.dead = true;
        self.fresh.clear();
        for (_, state) in &self.states {
            state.wake();
        }
    }

    /// Whether nothing is left to do on a connection that is to end.
    fn is_done(&self) -> bool {
        matches!(self.goaway, GoAway::Last(_)) && self.exchanges == 0 && self.fresh.is_empty()
    }
}
