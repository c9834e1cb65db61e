//! A client that speaks HTTP/2, as forwarding sees it: one stream, its body in, the response out.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Response, StatusCode};

use crate::proxy::{
    h1::{
        Framing,
        body::BadBody,
        request::RequestHead,
        response::{Asked, ResponseHead},
        write::{self, RequestEdit, ResponseEdit},
    },
    http2::{
        head,
        outgoing::{Outgoing, to_io},
    },
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
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    /// The response's head, until it goes out.
    pending: Option<Response<()>>,
    outgoing: Option<Outgoing>,
    /// See [`Client::end_with`].
    trailers: Option<HeaderMap>,
    waits: bool,
    received: u64,
    sent: u64,
    begun: bool,
    gone: bool,
}

/// The request's body.
#[derive(Debug)]
struct Incoming {
    stream: RecvStream,
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
    /// For the request of `head` on the stream of `body` and `respond`.
    pub(super) fn new(
        head: RequestHead<'a>,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        takes_trailers: bool,
        max_body: u64,
    ) -> Self {
        let ended = body.is_end_stream();
        let incoming = Incoming {
            stream: body,
            chunk: Bytes::new(),
            kept: Some(Vec::new()),
            kept_bytes: 0,
            replay: VecDeque::new(),
            owed: 0,
            total: 0,
            ended,
            trailers: None,
        };
        Self {
            head,
            max_body,
            takes_trailers,
            incoming,
            respond,
            pending: None,
            outgoing: None,
            trailers: None,
            waits: head.expects_continue(),
            received: 0,
            sent: 0,
            begun: false,
            gone: false,
        }
    }

    /// Ends the stream where its response is not complete.
    pub(super) fn reset(&mut self, reason: Reason) {
        match &mut self.outgoing {
            Some(outgoing) if outgoing.is_ended() => {}
            Some(outgoing) => outgoing.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    /// Sends the response's head; `is_all`: nothing follows it.
    fn begin(&mut self, is_all: bool) -> io::Result<()> {
        let Some(response) = self.pending.take() else { return Ok(()) };
        let stream = self.respond.send_response(response, is_all).map_err(to_io)?;
        self.outgoing = Some(Outgoing::new(stream, is_all));
        Ok(())
    }
}

impl Incoming {
    fn poll(&mut self, context: &mut Context<'_>, max_body: u64) -> Poll<Result<(), BodyError>> {
        while self.chunk.is_empty() {
            if let Some(chunk) = self.replay.pop_front() {
                self.chunk = chunk;
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(chunk)) => self.take(chunk, max_body)?,
                Some(Err(error)) => return Poll::Ready(Err(BodyError::Broken(to_io(error)))),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(context)).map_err(to_io)?;
                    self.trailers = trailers.and_then(head::trailers);
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, chunk: Bytes, max_body: u64) -> Result<(), BodyError> {
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
        self.ended = self.stream.is_end_stream();
        self.chunk = chunk;
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
        let released = count.min(self.owed);
        self.owed -= released;
        // A window that cannot be opened is one of a stream that ended: whoever reads next is told.
        let _ = self.stream.flow_control().release_capacity(released);
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
        let polled = self.incoming.poll(context, self.max_body);
        if polled.is_pending() && self.waits && !self.begun {
            self.waits = false;
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            // A stream that is gone is told by `is_gone`.
            let _ = self.respond.send_informational(go_on);
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
        self.incoming.consume(count);
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
        if let Ok(response) = head::response(head, &ResponseEdit::default()) {
            // As for 100.
            let _ = self.respond.send_informational(response);
        }
    }

    fn respond(&mut self, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>) {
        self.begun = true;
        self.waits = false;
        self.pending = head::response(head, edit).ok();
        // What cannot be told cannot be ended either: `poll_send` fails.
        self.gone |= self.pending.is_none();
    }

    fn poll_send(&mut self, context: &mut Context<'_>, data: &[u8], last: bool) -> Poll<io::Result<usize>> {
        let is_all = last && data.is_empty() && self.trailers.is_none();
        self.begin(is_all)?;
        let Some(outgoing) = &mut self.outgoing else {
            // Nothing was begun, so nothing waits.
            return Poll::Ready(if data.is_empty() { Ok(0) } else { Err(io::ErrorKind::BrokenPipe.into()) });
        };
        if let Some(trailers) = self.trailers.take() {
            outgoing.set_trailers(trailers);
        }
        let count = ready!(outgoing.poll_send(context, data, last))?;
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
        self.gone = self.gone
            || match &mut self.outgoing {
                Some(outgoing) => outgoing.poll_reset(context).is_ready(),
                None => self.respond.poll_reset(context).is_ready(),
            };
        self.gone
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
