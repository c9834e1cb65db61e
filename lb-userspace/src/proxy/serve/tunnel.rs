//! Bytes both ways between a client and a node, as they come: generic TCP, and connections that were upgraded.
//!
//! Each direction ends by itself: an end is passed on, and the other direction goes on (half-close). What is plain on both
//! sides and comes in bulk is moved within the kernel.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll, ready},
};

use crate::proxy::{
    access_log::{By, During, Ended},
    buffer::{self, Buffer},
    limit::Bandwidth,
    reactor::{self, Deadline, deadline::NEVER},
    stream::Stream,
    transfer::{
        pace::Pace,
        pipe::{PORTION, Pipe},
    },
};

/// Why a tunnel ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both directions ended.
    Complete,
    /// No byte went either way for as long as is allowed, or draining took too long.
    Idle,
    /// The client's connection failed.
    Client,
    /// The node's connection failed.
    Node,
}

impl End {
    /// As logs tell it.
    pub(crate) fn told(&self) -> Ended {
        match self {
            Self::Complete => Ended::default(),
            Self::Idle => Ended { by: By::ClientTimeout, during: During::Data },
            Self::Client => Ended { by: By::Client, during: During::Data },
            Self::Node => Ended { by: By::Node, during: During::Data },
        }
    }
}

/// A tunnel, and what went through it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    up: Direction,
    down: Direction,
}

impl Tunnel {
    /// A tunnel that begins with bytes that were read before it: of the client, of the node. All of its bytes count in these
    /// bandwidth classes.
    pub(crate) fn new(from_client: Option<Buffer>, from_node: Option<Buffer>, classes: &[Arc<Bandwidth>]) -> Self {
        Self { up: Direction::new(from_client, classes), down: Direction::new(from_node, classes) }
    }

    /// Bytes from the client to the node.
    pub(crate) fn up(&self) -> u64 {
        self.up.bytes
    }

    /// Bytes from the node to the client.
    pub(crate) fn down(&self) -> u64 {
        self.down.bytes
    }

    /// Moves bytes until both directions ended, one failed, or nothing moved for `idle_ms`.
    pub(crate) async fn run(
        &mut self,
        client: &mut Stream,
        node: &mut Stream,
        deadline: &Deadline,
        idle_ms: u64,
    ) -> End {
        let mut moved = self.up.bytes + self.down.bytes;
        let mut idle_at = reactor::now_ms().saturating_add(idle_ms);
        let end = poll_fn(|context| {
            let up = self.up.poll(context, client, node);
            let down = self.down.poll(context, node, client);
            match (up, down) {
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Complete),
                (Poll::Ready(Err(Failed::From)), _) | (_, Poll::Ready(Err(Failed::To))) => {
                    return Poll::Ready(End::Client);
                }
                (Poll::Ready(Err(Failed::To)), _) | (_, Poll::Ready(Err(Failed::From))) => {
                    return Poll::Ready(End::Node);
                }
                (Poll::Pending, _) | (_, Poll::Pending) => {}
            }
            let now_moved = self.up.bytes + self.down.bytes;
            if now_moved != moved || self.up.is_held() || self.down.is_held() {
                moved = now_moved;
                idle_at = reactor::now_ms().saturating_add(idle_ms);
            }
            deadline.set(idle_at);
            deadline.poll(context).map(|_| End::Idle)
        })
        .await;
        deadline.set(NEVER);
        end
    }
}

/// Which side of a direction failed.
#[derive(Debug)]
enum Failed {
    From,
    To,
}

/// One direction.
#[derive(Debug)]
struct Direction {
    buffer: Option<Buffer>,
    pipe: Option<Pipe>,
    /// The last read filled its buffer: the next bytes are moved by the kernel, if they can.
    bulk: bool,
    ended: bool,
    passed_on: bool,
    /// Nothing is held, and the sender is waited for.
    rests: bool,
    bytes: u64,
    /// Where its bytes count in bandwidth classes: nothing is moved within the kernel then.
    pace: Option<Box<Pace>>,
    /// What the classes granted and did not go yet.
    granted: usize,
}

impl Drop for Direction {
    fn drop(&mut self) {
        if let Some(pace) = &self.pace {
            pace.give_back(self.granted);
        }
    }
}

impl Direction {
    fn new(buffer: Option<Buffer>, classes: &[Arc<Bandwidth>]) -> Self {
        let pace = (!classes.is_empty()).then(|| Box::new(Pace::new(classes)));
        Self {
            buffer,
            pipe: None,
            bulk: false,
            ended: false,
            passed_on: false,
            rests: false,
            bytes: 0,
            pace,
            granted: 0,
        }
    }

    fn is_held(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.is_held())
    }

    /// Ready when the direction ended and its end was passed on.
    fn poll(&mut self, context: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<Result<(), Failed>> {
        // As a rule one direction is woken, not both.
        if self.rests && from.plain().is_some_and(|socket| !socket.is_readable()) {
            return Poll::Pending;
        }
        self.rests = false;
        loop {
            ready!(self.poll_send(context, to)).map_err(|_| Failed::To)?;
            if self.passed_on {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(to.poll_end(context)).map_err(|_| Failed::To)?;
                self.passed_on = true;
                return Poll::Ready(Ok(()));
            }
            let received = self.poll_receive(context, from, to.plain().is_some());
            self.rests = received.is_pending();
            ready!(received).map_err(|_| Failed::From)?;
        }
    }

    /// Sends what is held; ready when nothing is.
    fn poll_send(&mut self, context: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while let Some(buffer) = &mut self.buffer {
            if buffer.is_empty() {
                self.buffer = None;
                break;
            }
            let mut part = buffer.bytes();
            if let Some(pace) = &mut self.pace {
                if self.granted == 0 {
                    self.granted = ready!(pace.poll_take(context, part.len()));
                }
                part = &part[..part.len().min(self.granted)];
            }
            let count = ready!(to.poll_write_vectored(context, &[IoSlice::new(part)]))?;
            buffer.consume(count);
            self.granted = self.granted.saturating_sub(count);
            self.bytes += count as u64;
        }
        if let (Some(pipe), Some(socket)) = (&mut self.pipe, to.plain()) {
            while pipe.held > 0 {
                let count = ready!(socket.poll_splice_from(context, pipe.output(), pipe.held, false))?;
                pipe.held -= count;
                self.bytes += count as u64;
            }
        }
        to.poll_flush(context)
    }

    /// Takes what the sender has.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to_is_plain: bool,
    ) -> Poll<io::Result<()>> {
        if self.bulk
            && self.pace.is_none()
            && to_is_plain
            && let Some(socket) = from.plain()
        {
            if self.pipe.is_none() {
                self.pipe = Pipe::take().ok();
            }
            if let Some(pipe) = &mut self.pipe {
                let polled = socket.poll_splice_to(context, pipe.input(), PORTION);
                match polled {
                    Poll::Ready(Ok(count)) => {
                        pipe.held = count;
                        self.ended = count == 0;
                        self.bulk = count >= buffer::SIZE;
                        return Poll::Ready(Ok(()));
                    }
                    not_yet @ (Poll::Pending | Poll::Ready(Err(_))) => {
                        if let Some(pipe) = self.pipe.take() {
                            pipe.give_back();
                        }
                        return not_yet.map_ok(|_| ());
                    }
                }
            }
        }
        if let Some(pipe) = self.pipe.take() {
            pipe.give_back();
        }
        ready!(from.poll_readable(context))?;
        let mut buffer = Buffer::take();
        let count = ready!(from.poll_read(context, buffer.room()))?;
        buffer.filled(count);
        self.ended = count == 0;
        self.bulk = count == buffer::SIZE;
        self.buffer = Some(buffer);
        Poll::Ready(Ok(()))
    }
}
