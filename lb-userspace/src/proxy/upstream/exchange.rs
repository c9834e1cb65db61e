//! One request on one connection to a node, over HTTP/1.1: the request out, the response's head in, its body through.
//!
//! Both directions run at the same time: a node may answer before it read the whole body. Who calls decides what becomes of
//! the connection and whether a failure is tried again.

use std::task::{Context, Poll, ready};

use super::{client::Client, failure::Failure, millis};
use crate::{
    control::proxy::{ClientTimeouts, http::Strictness, pool::NodeTimeouts},
    proxy::{
        buffer::{self, Buffer},
        h1::{
            Framing, Slots,
            body::Decoder,
            response::{self, ResponseHead},
        },
        reactor::{self, Deadline, deadline::NEVER},
        stream::Stream,
        transfer::{BodyError, BodyReader, BodyWriter, pipe::Mover},
    },
};

/// Interim responses to one request that are borne (THREATS H5).
pub(super) const MAX_INTERIM: u32 = 10;

/// Bytes to come from which on a body is moved within the kernel.
const BULK: u64 = 64 * 1024;

/// How often the rate of a request's body is looked at.
const RATE_CHECK_MS: u64 = 1000;

/// What limits an exchange in time, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// End of the whole request, on the reactor's clock.
    pub(super) transaction_at: u64,
    reply: u64,
    node_idle: u64,
    client_idle: u64,
    write_stall: u64,
    body_rate: u64,
    body_grace: u64,
}

impl Times {
    pub(super) fn new(transaction_at: u64, client: &ClientTimeouts, node: &NodeTimeouts) -> Self {
        let or_never = |wait: std::time::Duration| if wait.is_zero() { NEVER } else { millis(wait) };
        Self {
            transaction_at,
            reply: or_never(node.reply),
            node_idle: or_never(node.idle),
            client_idle: or_never(client.idle),
            write_stall: or_never(client.write_stall),
            body_rate: u64::from(client.body_rate),
            body_grace: millis(client.body_grace),
        }
    }

    /// Ready with what is late, before the response's head is there: `begin_ms` the exchange began, `moved_ms` something moved
    /// last, `received` bytes of the client's body came.
    pub(super) fn poll_late(
        &self,
        context: &Context<'_>,
        deadline: &Deadline,
        waits: Waits,
        begin_ms: u64,
        moved_ms: u64,
        received: u64,
    ) -> Poll<Failure> {
        let step = match waits {
            Waits::Turn => NEVER,
            Waits::NodeGives => self.reply,
            Waits::NodeTakes | Waits::ClientTakes => self.node_idle,
            Waits::ClientGives => self.client_idle,
        };
        let mut at = moved_ms.saturating_add(step).min(self.transaction_at);
        if waits == Waits::ClientGives && self.body_rate > 0 {
            let now_ms = reactor::now_ms();
            if self.is_slow(received, now_ms.saturating_sub(begin_ms)) {
                return Poll::Ready(Failure::BodyTimeout);
            }
            at = at.min(now_ms + RATE_CHECK_MS);
        }
        deadline.set(at);
        ready!(deadline.poll(context));
        if self.transaction_at <= reactor::now_ms() {
            return Poll::Ready(Failure::Transaction);
        }
        Poll::Ready(match waits {
            Waits::NodeGives => Failure::ReplyTimeout,
            Waits::NodeTakes | Waits::ClientTakes | Waits::Turn => Failure::NodeStalled,
            Waits::ClientGives => Failure::BodyTimeout,
        })
    }

    /// Whether the body of the request came more slowly than it must.
    fn is_slow(&self, received: u64, ran_ms: u64) -> bool {
        ran_ms > self.body_grace && received.saturating_mul(1000) < self.body_rate.saturating_mul(ran_ms)
    }

    /// Ready with whose fault it is that a response that was begun does not go on.
    pub(super) fn poll_stalled(
        &self,
        context: &Context<'_>,
        deadline: &Deadline,
        waits: Waits,
        moved_ms: u64,
    ) -> Poll<Cut> {
        let stall = match waits {
            Waits::ClientTakes => self.write_stall,
            Waits::Turn => NEVER,
            Waits::NodeTakes | Waits::ClientGives | Waits::NodeGives => self.node_idle,
        };
        deadline.set(moved_ms.saturating_add(stall).min(self.transaction_at));
        ready!(deadline.poll(context));
        Poll::Ready(match waits {
            _ if self.transaction_at <= reactor::now_ms() => Cut::Transaction,
            Waits::ClientTakes => Cut::Client,
            Waits::NodeTakes | Waits::ClientGives | Waits::NodeGives | Waits::Turn => Cut::Node,
        })
    }
}

/// Who an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// The node, to take bytes of the request.
    NodeTakes,
    /// The client, for bytes of the request.
    ClientGives,
    /// The node, for the response's head or, later, its body.
    NodeGives,
    /// The client, to take bytes of the response.
    ClientTakes,
    /// A bandwidth class of ours.
    Turn,
}

impl Waits {
    /// Who is waited for, where bytes of `client` may wait for a bandwidth class; `moved_ms` is when something moved last.
    pub(super) fn or_turn(self, client: &impl Client, moved_ms: &mut u64) -> Self {
        if !client.is_held() {
            return self;
        }
        *moved_ms = reactor::now_ms();
        Self::Turn
    }
}

/// How a response ended that was begun.
#[derive(Debug)]
pub(crate) enum Cut {
    /// The node ended, failed or stalled within the body.
    Node,
    /// The client's connection failed, or it took no bytes for too long.
    Client,
    /// The whole request took longer than allowed.
    Transaction,
}

/// One request on one connection.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    node: &'a mut Stream,
    times: Times,
    writer: BodyWriter,
    /// What the node sent and nobody took yet.
    input: Option<Buffer>,
    /// Whether a byte of the request may be with the node.
    pub(super) sent: bool,
    /// Whether all of the request is.
    pub(super) sent_all: bool,
    /// Whether the node took no more of the request.
    refused: bool,
    interim: u32,
    waits: Waits,
    begin_ms: u64,
    /// When something moved last.
    moved_ms: u64,
    up: Option<Mover>,
    down: Option<Mover>,
}

impl<'a> Exchange<'a> {
    /// An exchange that begins with `head`.
    pub(super) fn new(node: &'a mut Stream, times: Times, head: Vec<u8>, framing: Framing) -> Self {
        let now_ms = reactor::now_ms();
        Self {
            node,
            times,
            writer: BodyWriter::new(head, framing),
            input: None,
            sent: false,
            sent_all: false,
            refused: false,
            interim: 0,
            waits: Waits::NodeTakes,
            begin_ms: now_ms,
            moved_ms: now_ms,
            up: None,
            down: None,
        }
    }

    /// Ready when the head of the final response is in [`Exchange::head`]'s slots.
    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl Client,
        strictness: &Strictness,
        slots: &mut Slots,
        deadline: &Deadline,
    ) -> Poll<Result<(), Failure>> {
        if !self.sent_all && !self.refused {
            match self.poll_request(context, client) {
                Poll::Ready(Err(Failure::Closed)) => self.refused = true,
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if let Poll::Ready(result) = self.poll_response_head(context, client, strictness, slots) {
            return Poll::Ready(result);
        }
        if client.is_gone(context) {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        let waits = self.waits.or_turn(client, &mut self.moved_ms);
        let begin_ms = self.begin_ms + client.held_ms();
        self.times.poll_late(context, deadline, waits, begin_ms, self.moved_ms, client.received()).map(Err)
    }

    /// Sends the request; ready when all of it is with the node.
    fn poll_request(&mut self, context: &mut Context<'_>, client: &mut impl Client) -> Poll<Result<(), Failure>> {
        let has_body = client.framing() != Framing::None;
        loop {
            if self.poll_move_up(context, client)?.is_pending() {
                return Poll::Pending;
            }
            if has_body {
                match client.poll_body(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Body(error))),
                    Poll::Pending => {
                        ready!(self.poll_write(context, &[], false))?;
                        self.waits = Waits::ClientGives;
                        return Poll::Pending;
                    }
                }
            }
            let (data, last) = if has_body { (client.body(), client.is_last()) } else { (&[][..], true) };
            let length = data.len();
            let count = ready!(self.poll_write(context, data, last))?;
            if count > 0 {
                client.consume(count);
            }
            if last && count == length && self.writer.is_flushed() {
                self.sent_all = true;
                self.waits = Waits::NodeGives;
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, data: &[u8], last: bool) -> Poll<Result<usize, Failure>> {
        self.waits = Waits::NodeTakes;
        let waited = !self.writer.is_flushed();
        let count = ready!(self.writer.poll_write(context, self.node, data, last)).map_err(|_| Failure::Closed)?;
        self.sent = true;
        if waited || count > 0 {
            self.moved_ms = reactor::now_ms();
        }
        Poll::Ready(Ok(count))
    }

    /// Moves a large plain body to the node within the kernel; ready when there is nothing to move this way.
    fn poll_move_up(&mut self, context: &mut Context<'_>, client: &mut impl Client) -> Poll<Result<(), Failure>> {
        if !self.writer.is_flushed() || !self.sent {
            return Poll::Ready(Ok(()));
        }
        let (Some(to), Some((from, reader))) = (self.node.plain(), client.movable()) else {
            return Poll::Ready(Ok(()));
        };
        if self.up.is_none() && reader.movable() >= BULK {
            self.up = Mover::new();
        }
        let Some(mover) = &mut self.up else { return Poll::Ready(Ok(())) };
        let before = mover.passed();
        let polled = mover.poll(context, from, to, reader);
        let passed = mover.passed() - before;
        if passed > 0 {
            client.took(passed);
            self.moved_ms = reactor::now_ms();
        }
        self.waits = if mover.is_empty() { Waits::ClientGives } else { Waits::NodeTakes };
        match ready!(polled) {
            Ok(()) => {
                self.up = None;
                Poll::Ready(Ok(()))
            }
            Err(BodyError::CutOff) => Poll::Ready(Err(Failure::Body(BodyError::CutOff))),
            Err(_) => Poll::Ready(Err(Failure::Closed)),
        }
    }

    fn poll_response_head(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl Client,
        strictness: &Strictness,
        slots: &mut Slots,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if let Some(input) = self.input.as_mut().filter(|input| !input.is_empty()) {
                match response::parse(input.bytes(), client.asked(), strictness, slots)? {
                    Some(head) if head.is_interim() => {
                        let length = head.len();
                        // Nobody asked the node for 100: the client got ours.
                        if head.status() != 100 {
                            client.interim(&head);
                        }
                        input.consume(length);
                        self.interim += 1;
                        if self.interim > MAX_INTERIM {
                            return Poll::Ready(Err(Failure::Interim));
                        }
                        continue;
                    }
                    Some(_) => return Poll::Ready(Ok(())),
                    None => {
                        let limit = strictness.max_head_bytes as usize + 1;
                        input.reserve((input.len() + buffer::SIZE).min(limit.max(buffer::SIZE)));
                    }
                }
            }
            ready!(self.node.poll_readable(context)).map_err(|_| Failure::Closed)?;
            let input = self.input.get_or_insert_with(Buffer::take);
            match ready!(self.node.poll_read(context, input.room())) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Closed)),
                Ok(count) => input.filled(count),
            }
            self.moved_ms = reactor::now_ms();
        }
    }

    /// The response's head, after [`Exchange::poll_head`].
    pub(super) fn head<'h>(&'h self, slots: &'h Slots) -> Option<ResponseHead<'h>> {
        response::view(self.input.as_ref()?.bytes(), slots)
    }

    /// Whether bytes of the response came.
    pub(super) fn is_answered(&self) -> bool {
        self.input.as_ref().is_some_and(|input| !input.is_empty())
    }

    /// The reader of the body that follows a head of `length` bytes.
    pub(super) fn begin_body(&mut self, length: usize, framing: Framing) -> BodyReader {
        let mut input = self.input.take().unwrap_or_else(Buffer::take);
        input.consume(length);
        BodyReader::new(Decoder::new(framing, 0, &["*"]), input)
    }

    /// Takes what came after a head of `length` bytes: the first bytes of an upgraded connection.
    pub(super) fn take_rest(&mut self, length: usize) -> Option<Buffer> {
        let mut input = self.input.take()?;
        input.consume(length);
        (!input.is_empty()).then_some(input)
    }

    /// Passes the body on; ready when all of it is with the client, and what of the request's body the node still takes
    /// meanwhile with the node.
    pub(super) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl Client,
        reader: &mut BodyReader,
        deadline: &Deadline,
    ) -> Poll<Result<(), Cut>> {
        if !self.sent_all
            && !self.refused
            && let Poll::Ready(Err(_)) = self.poll_request(context, client)
        {
            self.refused = true;
        }
        if let Poll::Ready(result) = self.poll_response_body(context, client, reader) {
            return Poll::Ready(result);
        }
        if client.is_gone(context) {
            return Poll::Ready(Err(Cut::Client));
        }
        let waits = self.waits.or_turn(client, &mut self.moved_ms);
        self.times.poll_stalled(context, deadline, waits, self.moved_ms).map(Err)
    }

    fn poll_response_body(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl Client,
        reader: &mut BodyReader,
    ) -> Poll<Result<(), Cut>> {
        loop {
            ready!(self.poll_move_down(context, client, reader))?;
            match reader.poll(context, self.node) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Cut::Node)),
                Poll::Pending => {
                    self.waits = Waits::ClientTakes;
                    ready!(client.poll_send(context, &[], false)).map_err(|_| Cut::Client)?;
                    self.waits = Waits::NodeGives;
                    return Poll::Pending;
                }
            }
            self.waits = Waits::ClientTakes;
            let (length, last) = (reader.data().len(), reader.is_last());
            if last && let Some(trailers) = reader.trailers() {
                client.end_with(trailers);
            }
            let count = ready!(client.poll_send(context, reader.data(), last)).map_err(|_| Cut::Client)?;
            if count > 0 {
                reader.consume(count);
                self.moved_ms = reactor::now_ms();
            }
            if last && count == length {
                // Framing after the last data may wait still.
                ready!(client.poll_send(context, &[], true)).map_err(|_| Cut::Client)?;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Moves a large plain body to the client within the kernel; ready when there is nothing to move this way.
    fn poll_move_down(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl Client,
        reader: &mut BodyReader,
    ) -> Poll<Result<(), Cut>> {
        if self.down.is_none() && reader.movable() < BULK {
            return Poll::Ready(Ok(()));
        }
        let (Some(from), Some(to)) = (self.node.plain(), client.sink()) else { return Poll::Ready(Ok(())) };
        if self.down.is_none() {
            self.down = Mover::new();
        }
        let Some(mover) = &mut self.down else { return Poll::Ready(Ok(())) };
        let before = mover.passed();
        let polled = mover.poll(context, from, to, reader);
        let passed = mover.passed() - before;
        let side = if mover.is_empty() { Waits::NodeGives } else { Waits::ClientTakes };
        if passed > 0 {
            client.moved(passed);
            self.moved_ms = reactor::now_ms();
        }
        self.waits = side;
        match ready!(polled) {
            Ok(()) => {
                self.down = None;
                Poll::Ready(Ok(()))
            }
            Err(BodyError::Broken(_)) if side == Waits::ClientTakes => Poll::Ready(Err(Cut::Client)),
            Err(_) => Poll::Ready(Err(Cut::Node)),
        }
    }

    /// Ends the exchange; the memory of the head is given back.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.writer.into_memory()
    }
}
