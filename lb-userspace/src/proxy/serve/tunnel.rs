//! Bytes both ways between a client and a node, as they come: generic TCP, and connections that were upgraded.
//!
//! Each direction ends by itself: an end is passed on, and the other direction goes on (half-close). What is plain on both
//! sides and comes in bulk is moved within the kernel.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};

use crate::proxy::{
    buffer::{self, Buffer},
    reactor::{self, Deadline, deadline::NEVER},
    stream::Stream,
    transfer::pipe::{PORTION, Pipe},
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

/// A tunnel, and what went through it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    up: Direction,
    down: Direction,
}

impl Tunnel {
    /// A tunnel that begins with bytes that were read before it: of the client, of the node.
    pub(crate) fn new(from_client: Option<Buffer>, from_node: Option<Buffer>) -> Self {
        Self { up: Direction::new(from_client), down: Direction::new(from_node) }
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
            if now_moved != moved {
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
    bytes: u64,
}

impl Direction {
    fn new(buffer: Option<Buffer>) -> Self {
        Self { buffer, pipe: None, bulk: false, ended: false, passed_on: false, bytes: 0 }
    }

    /// Ready when the direction ended and its end was passed on.
    fn poll(&mut self, context: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<Result<(), Failed>> {
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
            ready!(self.poll_receive(context, from, to.plain().is_some())).map_err(|_| Failed::From)?;
        }
    }

    /// Sends what is held; ready when nothing is.
    fn poll_send(&mut self, context: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while let Some(buffer) = &mut self.buffer {
            if buffer.is_empty() {
                self.buffer = None;
                break;
            }
            let count = ready!(to.poll_write_vectored(context, &[IoSlice::new(buffer.bytes())]))?;
            buffer.consume(count);
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
