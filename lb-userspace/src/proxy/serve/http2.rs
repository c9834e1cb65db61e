//! A connection of a client that speaks HTTP/2 (RFC 9113): its streams, each a request, and the end of it.
//!
//! One task drives the connection, one serves each stream; what they send goes out together when the driver's turn comes.
//! Limits on what costs a client little and us much are here (THREATS H12); the request itself is `request`'s.

use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use super::Ends;
use crate::{
    control::proxy::Service,
    proxy::{
        buffer::Buffer,
        http2::{
            Head,
            glitch::Level,
            server::{self, End, Event, Exchange},
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

/// Requests after which a connection is replaced by another: what is kept of it must not grow for ever.
const MAX_REQUESTS: u64 = 1_000_000;

/// How often a connection is looked after.
const TICK_MS: u64 = 500;

/// How long a connection that was told to end, and has no request, stays until the client ends it.
const LAST_MS: u64 = 5000;

/// How long the last frames of a connection may take.
const CLOSING: Duration = Duration::from_secs(1);

/// What the streams of a connection share.
#[derive(Debug)]
struct Connection {
    worker: Rc<Worker>,
    id: usize,
    ends: Ends,
    /// When the last request ended, or the connection began.
    idle_ms: Cell<u64>,
    /// Requests that were refused and not counted against the client yet.
    refused: Cell<u32>,
}

/// What the connection's task is woken for.
enum Step {
    Request(Head, Exchange),
    /// It is over.
    End(End),
    /// The peer's score reached this level.
    Glitches(Level),
    Tick,
}

/// Serves a connection to its end; `early` are bytes that came already.
pub(super) async fn serve(worker: &Rc<Worker>, id: usize, stream: Stream, ends: Ends, early: Option<Buffer>) {
    let Some(server) = worker.plan().server(id).cloned() else { return };
    let Service::Http(http) = &server.settings.service else { return };
    let h2 = server::Connection::new(stream, early, http.strictness.max_head_bytes);
    let begun_by = after(server.settings.timeouts.request_head);
    drop(server);
    let now_ms = reactor::now_ms();
    let (idle_ms, refused) = (Cell::new(now_ms), Cell::new(0));
    let shared = Rc::new(Connection { worker: Rc::clone(worker), id, ends, idle_ms, refused });
    let mut driver = Driver {
        h2,
        shared,
        deadline: Deadline::new(),
        begun_by,
        requests: 0,
        received: 0,
        sent: 0,
        sent_ms: now_ms,
        warned: false,
        ends_ms: None,
    };
    driver.run().await;
}

/// The connection's task.
struct Driver {
    h2: server::Connection,
    shared: Rc<Connection>,
    deadline: Deadline,
    /// When preface and settings must be there.
    begun_by: u64,
    requests: u64,
    /// What had been received at the last tick.
    received: u64,
    /// What had been sent when something was last, and when that was.
    sent: u64,
    sent_ms: u64,
    warned: bool,
    /// Once the client was told that the connection ends: when it is ended for it.
    ends_ms: Option<u64>,
}

impl Driver {
    async fn run(&mut self) {
        self.deadline.set(reactor::now_ms() + TICK_MS);
        loop {
            match self.step().await {
                Step::End(End::Gone) => return,
                Step::End(end) => return self.close(end).await,
                Step::Request(head, exchange) => {
                    self.requests += 1;
                    if self.requests == MAX_REQUESTS {
                        self.end_softly();
                    }
                    let shared = Rc::clone(&self.shared);
                    reactor::spawn(async move {
                        stream::serve(&shared, head, exchange).await;
                        shared.idle_ms.set(reactor::now_ms());
                    });
                }
                Step::Glitches(Level::Close) => self.h2.calm(),
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
        self.h2.begin_round();
        poll_fn(|context| {
            for _ in 0..self.shared.refused.take() {
                self.h2.refused();
            }
            match self.h2.poll(context) {
                Poll::Ready(Event::Request(head, exchange)) => return Poll::Ready(Step::Request(head, exchange)),
                Poll::Ready(Event::End(end)) => return Poll::Ready(Step::End(end)),
                Poll::Pending => {}
            }
            let level = self.h2.level();
            if level == Level::Close || level == Level::GoAway && !self.warned {
                return Poll::Ready(Step::Glitches(level));
            }
            self.h2.begin_round();
            self.deadline.poll(context).map(|_| Step::Tick)
        })
        .await
    }

    /// Looks after the connection; whether it is to be closed now.
    fn tick(&mut self) -> bool {
        let now_ms = reactor::now_ms();
        self.deadline.set(now_ms + TICK_MS);
        self.size_windows();
        if !self.h2.has_begun() && self.begun_by <= now_ms {
            return true;
        }
        let plan = self.shared.worker.plan();
        let is_idle = self.h2.exchanges() == 0;
        if is_idle && self.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms) {
            return true;
        }
        // The client had a tick's time to answer.
        if self.ends_ms.is_some() {
            self.h2.tell_last();
        }
        let Some(server) = plan.server(self.shared.id) else {
            self.end_softly();
            return false;
        };
        if self.is_stalled(now_ms, millis(server.settings.timeouts.write_stall)) {
            return true;
        }
        let longest = millis(server.settings.timeouts.keep_alive);
        let worker = &self.shared.worker;
        let leaves = worker.is_draining() || is_idle && worker.is_pressed();
        if leaves || is_idle && now_ms - self.shared.idle_ms.get() >= longest {
            self.end_softly();
        }
        false
    }

    /// Whether the client takes nothing of what waits for it: answers that are complete have nobody else who looks.
    fn is_stalled(&mut self, now_ms: u64, longest: u64) -> bool {
        let sent = self.h2.sent();
        if sent != self.sent || !self.h2.waits_to_send() {
            (self.sent, self.sent_ms) = (sent, now_ms);
        }
        longest > 0 && now_ms - self.sent_ms >= longest
    }

    /// Tells the client to come again on another connection, RFC 9113 §6.8; what runs ends as it began.
    fn end_softly(&mut self) {
        if self.ends_ms.is_none() {
            self.ends_ms = Some(reactor::now_ms() + LAST_MS);
            self.h2.end_softly();
        }
    }

    /// Sends what is left, and the end of our direction; one that takes nothing is closed without a word.
    async fn close(&mut self, end: End) {
        tracing::debug!(client = %self.shared.ends.client, ?end, "a connection over HTTP/2 ends");
        let closing = poll_fn(|context| self.h2.poll_close(context));
        let _ = self.deadline.within(after(CLOSING), closing).await;
    }

    /// Opens the windows wider where uploads fill them: two of them within a tick are a round trip of 250 ms at most.
    fn size_windows(&mut self) {
        let received = self.h2.received();
        let fresh = received - self.received;
        self.received = received;
        if fresh >= u64::from(self.h2.window()) * 2 {
            self.h2.widen();
        }
    }
}
