//! A connection of a client that speaks HTTP/2 (RFC 9113): its streams, each a request, and the end of it.
//!
//! One task drives the connection, one serves each stream; what they send goes out together when the driver's turn comes.
//! Limits on what costs a client little and us much are here (THREATS H12); the request itself is `request`'s.

use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};

use super::Ends;
use crate::{
    control::proxy::Service,
    proxy::{
        buffer::Buffer,
        http2::{
            glitch::Level,
            io::{Io, Watch},
        },
        reactor::{self, Deadline},
        stream::Stream,
        upstream::{after, millis},
        worker::thread::Worker,
    },
};

pub(super) mod client;
mod stream;
#[cfg(test)]
mod tests;

/// Bytes of the preface, RFC 9113 §3.4.
const PREFACE: usize = 24;

/// Requests at a time.
const MAX_STREAMS: u32 = 128;

/// Requests after which a connection is replaced by another: what is kept of it must not grow for ever.
const MAX_REQUESTS: u64 = 1_000_000;

/// Windows of a stream and of the connection at first, and at most: they grow with what is really received.
const FIRST_WINDOW: u32 = 64 * 1024;
const MOST_WINDOW: u32 = 1024 * 1024;

/// Bytes of a response that wait within the connection, for each stream.
const SEND_BUFFER: usize = 64 * 1024;

/// How often a connection is looked after.
const TICK_MS: u64 = 500;

/// How long a connection that was told to end, and has no request, stays until the client ends it.
const LAST_MS: u64 = 5000;

/// What the streams of a connection share.
#[derive(Debug)]
struct Connection {
    worker: Rc<Worker>,
    id: usize,
    ends: Ends,
    watch: Rc<Watch>,
    open: Cell<u32>,
    /// When the last request ended, or the connection began.
    idle_ms: Cell<u64>,
}

/// Counts a stream as long as it is served.
struct Open(Rc<Connection>);

impl Open {
    fn new(connection: &Rc<Connection>) -> Self {
        connection.open.set(connection.open.get() + 1);
        Self(Rc::clone(connection))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.idle_ms.set(reactor::now_ms());
    }
}

/// What the connection's task is woken for.
enum Step {
    Request(Box<(http::Request<RecvStream>, SendResponse<Bytes>)>),
    /// It is over.
    End,
    /// The peer's score reached this level.
    Glitches(Level),
    Tick,
}

/// Serves a connection to its end; `early` are bytes that came already.
pub(super) async fn serve(worker: &Rc<Worker>, id: usize, stream: Stream, ends: Ends, early: Option<Buffer>) {
    let Some(server) = worker.plan().server(id).cloned() else { return };
    let Service::Http(http) = &server.settings.service else { return };
    let (io, watch) = Io::new(stream, early, PREFACE);
    let deadline = Deadline::new();
    let handshake = builder(http.strictness.max_head_bytes).handshake::<_, Bytes>(io);
    let Ok(Ok(h2)) = deadline.within(after(server.settings.timeouts.request_head), handshake).await else { return };
    drop(server);
    let (open, idle_ms) = (Cell::new(0), Cell::new(reactor::now_ms()));
    let shared = Rc::new(Connection { worker: Rc::clone(worker), id, ends, watch, open, idle_ms });
    let mut driver =
        Driver { h2, shared, deadline, requests: 0, window: FIRST_WINDOW, received: 0, warned: false, ends_ms: None };
    driver.run().await;
}

fn builder(max_head_bytes: u32) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(max_head_bytes)
        .initial_window_size(FIRST_WINDOW)
        .initial_connection_window_size(FIRST_WINDOW * 2)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(Some(256));
    builder
}

/// The connection's task.
struct Driver {
    h2: server::Connection<Io, Bytes>,
    shared: Rc<Connection>,
    deadline: Deadline,
    requests: u64,
    window: u32,
    /// What had been received at the last tick.
    received: u64,
    warned: bool,
    /// Once the client was told that the connection ends: when it is ended for it.
    ends_ms: Option<u64>,
}

impl Driver {
    async fn run(&mut self) {
        self.deadline.set(reactor::now_ms() + TICK_MS);
        loop {
            match self.step().await {
                Step::End => return,
                Step::Request(request) => {
                    self.requests += 1;
                    if self.requests == MAX_REQUESTS {
                        self.end_softly();
                    }
                    let open = Open::new(&self.shared);
                    reactor::spawn(async move { stream::serve(&open.0, *request).await });
                }
                Step::Glitches(Level::Close) => return self.calm().await,
                Step::Glitches(_) => {
                    self.warned = true;
                    tracing::info!(client = %self.shared.ends.client, "frames that only cost: no more requests are taken");
                    self.end_softly();
                }
                Step::Tick => {
                    if self.tick() {
                        return;
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Step {
        poll_fn(|context| {
            self.shared.watch.begin_round();
            match self.h2.poll_accept(context) {
                Poll::Ready(Some(Ok(request))) => return Poll::Ready(Step::Request(Box::new(request))),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(client = %self.shared.ends.client, %error, "a connection over HTTP/2 failed");
                    return Poll::Ready(Step::End);
                }
                Poll::Ready(None) => return Poll::Ready(Step::End),
                Poll::Pending => {}
            }
            let level = self.shared.watch.level();
            if level == Level::Close || level == Level::GoAway && !self.warned {
                return Poll::Ready(Step::Glitches(level));
            }
            self.deadline.poll(context).map(|_| Step::Tick)
        })
        .await
    }

    /// Looks after the connection; whether it is to be closed now.
    fn tick(&mut self) -> bool {
        let now_ms = reactor::now_ms();
        self.deadline.set(now_ms + TICK_MS);
        self.size_windows();
        let plan = self.shared.worker.plan();
        let server = plan.server(self.shared.id);
        let is_idle = self.shared.open.get() == 0;
        if is_idle && self.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms) {
            return true;
        }
        let is_over = match server {
            None => true,
            Some(server) => {
                let longest = millis(server.settings.timeouts.keep_alive);
                self.shared.worker.is_draining() || is_idle && now_ms - self.shared.idle_ms.get() >= longest
            }
        };
        if is_over {
            self.end_softly();
        }
        false
    }

    /// Tells the client to come again on another connection, RFC 9113 §6.8; what runs ends as it began.
    fn end_softly(&mut self) {
        if self.ends_ms.is_none() {
            self.ends_ms = Some(reactor::now_ms() + LAST_MS);
            self.h2.graceful_shutdown();
        }
    }

    /// Closes the connection of a client that only costs.
    async fn calm(&mut self) {
        tracing::info!(client = %self.shared.ends.client, "too many frames that only cost: the connection is closed");
        self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let closing = poll_fn(|context| self.h2.poll_closed(context).map(drop));
        // One that takes nothing is closed without a word.
        let _ = self.deadline.within(after(Duration::from_secs(1)), closing).await;
    }

    /// Opens the windows wider where uploads fill them: two of them within a tick are a round trip of 250 ms at most.
    fn size_windows(&mut self) {
        let received = self.shared.watch.received();
        let fresh = received - self.received;
        self.received = received;
        if fresh < u64::from(self.window) * 2 || self.window >= MOST_WINDOW {
            return;
        }
        // Another change that the client did not acknowledge yet: at the next tick.
        if self.h2.set_initial_window_size(self.window * 2).is_ok() {
            self.window *= 2;
            self.h2.set_target_window_size(self.window * 2);
        }
    }
}
