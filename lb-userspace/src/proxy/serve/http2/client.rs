//! A client that speaks HTTP/2, as forwarding sees it: one stream, its body in, the response out.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;

use crate::proxy::{
    h1::{
        Framing,
        body::BadBody,
        request::RequestHead,
        response::{Asked, ResponseHead},
        write::{self, RequestEdit, ResponseEdit},
    },
    http2::{frame::Code, head, server::Exchange},
    reactor::Socket,
    transfer::{BodyError, BodyReader},
    upstream::client::Client,
};

/// Bytes of a request's body that are kept for another attempt.
const KEPT: usize = 16 * 1024;

/// The client's side of one request.
#[derive(Debug)]
pub(in crate::proxy::serve) struct Http2<'a> {
    head: RequestHead<'a>,
    max_body: u64,
    takes_trailers: bool,
    exchange: Exchange,
    incoming: Incoming,
    /// See [`Client::end_with`].
    trailers: Option<HeaderMap>,
    waits: bool,
    received: u64,
    sent: u64,
    head_sent: u64,
    begun: bool,
}

/// The request's body.
#[derive(Debug, Default)]
struct Incoming {
    /// What is there of it.
    chunk: Bytes,
    /// What was there before, for another attempt; given up when it is more than [`KEPT`].
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    /// What another attempt gets before anything new.
    replay: VecDeque<Bytes>,
    /// Bytes that came and were not taken yet: the client's window is opened when they are.
    owed: usize,
    /// Bytes that came.
    total: u64,
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl<'a> Http2<'a> {
    /// For the request of `head` on the stream of `exchange`.
    pub(super) fn new(head: RequestHead<'a>, exchange: Exchange, takes_trailers: bool, max_body: u64) -> Self {
        let ended = exchange.is_read();
        let incoming = Incoming { kept: Some(Vec::new()), ended, ..Incoming::default() };
        Self {
            head,
            max_body,
            takes_trailers,
            exchange,
            incoming,
            trailers: None,
            waits: head.expects_continue(),
            received: 0,
            sent: 0,
            head_sent: 0,
            begun: false,
        }
    }

    /// Ends the stream where its response is not complete.
    pub(super) fn reset(&mut self, code: Code) {
        self.exchange.reset(code);
    }
}

impl Incoming {
    fn poll(&mut self, context: &Context<'_>, exchange: &Exchange, max_body: u64) -> Poll<Result<(), BodyError>> {
        while self.chunk.is_empty() {
            if let Some(chunk) = self.replay.pop_front() {
                self.chunk = chunk;
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(exchange.poll_data(context)) {
                Some(Ok(chunk)) => self.take(chunk, exchange, max_body)?,
                Some(Err(error)) => return Poll::Ready(Err(BodyError::Broken(error))),
                None => {
                    self.trailers = exchange.take_trailers().and_then(head::trailers);
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, chunk: Bytes, exchange: &Exchange, max_body: u64) -> Result<(), BodyError> {
        self.total += chunk.len() as u64;
        if max_body > 0 && self.total > max_body {
            return Err(BodyError::Bad(BadBody::TooLarge));
        }
        self.owed += chunk.len();
        self.kept_bytes += chunk.len();
        if self.kept_bytes > KEPT {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(chunk.clone());
        }
        self.ended = exchange.is_read();
        self.chunk = chunk;
        Ok(())
    }

    fn consume(&mut self, exchange: &Exchange, count: usize) {
        self.chunk.advance(count);
        let released = count.min(self.owed);
        self.owed -= released;
        exchange.consume(released);
    }
}

impl Client for Http2<'_> {
    fn write_head(&self, out: &mut Vec<u8>, edit: &RequestEdit<'_>) {
        write::request_head(out, &self.head, edit);
    }

    fn asked(&self) -> Asked<'_> {
        Asked { upgrade: b"", ..Asked::by(&self.head) }
    }

    fn framing(&self) -> Framing {
        self.head.framing()
    }

    fn takes_chunks(&self) -> bool {
        true
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let polled = self.incoming.poll(context, &self.exchange, self.max_body);
        if polled.is_pending() && self.waits && !self.begun {
            self.waits = false;
            self.exchange.go_on();
        }
        polled
    }

    fn body(&self) -> &[u8] {
        &self.incoming.chunk
    }

    fn is_last(&self) -> bool {
        self.incoming.ended && self.incoming.replay.is_empty()
    }

    fn consume(&mut self, count: usize) {
        self.received += count as u64;
        self.incoming.consume(&self.exchange, count);
    }

    fn took(&mut self, count: u64) {
        self.received += count;
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn head_sent(&self) -> u64 {
        self.head_sent
    }

    fn can_rewind(&self) -> bool {
        self.incoming.kept.is_some()
    }

    fn rewind(&mut self) -> bool {
        let Some(kept) = &self.incoming.kept else { return false };
        self.incoming.replay = kept.iter().cloned().collect();
        self.incoming.chunk = Bytes::new();
        self.received = 0;
        true
    }

    fn movable(&mut self) -> Option<(&Socket, &mut BodyReader)> {
        None
    }

    fn interim(&mut self, head: &ResponseHead<'_>) {
        self.exchange.respond(head, &ResponseEdit::default(), false);
    }

    fn respond(&mut self, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>) {
        self.begun = true;
        self.waits = false;
        // Told at once where nothing follows: a call over gRPC that failed has its trailers here.
        let is_all = matches!(edit.framing, Framing::None | Framing::Length(0));
        self.head_sent = self.exchange.respond(head, edit, is_all) as u64;
    }

    fn poll_send(&mut self, context: &mut Context<'_>, data: &[u8], last: bool) -> Poll<io::Result<usize>> {
        if !self.begun {
            // Nothing waits.
            return Poll::Ready(if data.is_empty() { Ok(0) } else { Err(io::ErrorKind::BrokenPipe.into()) });
        }
        let count = ready!(self.exchange.poll_send(context, data, last, &mut self.trailers))?;
        self.sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn sink(&self) -> Option<&Socket> {
        None
    }

    fn moved(&mut self, count: u64) {
        self.sent += count;
    }

    fn is_gone(&mut self, context: &mut Context<'_>) -> bool {
        self.exchange.is_gone(context)
    }

    fn takes_trailers(&self) -> bool {
        self.takes_trailers
    }

    fn trailers(&mut self) -> Option<HeaderMap> {
        self.incoming.trailers.clone()
    }

    fn end_with(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }
}
