//! One request on one stream of a connection to a node, over HTTP/2 (RFC 9113 §8): what `exchange` is for HTTP/1.1.
//!
//! Both directions run at the same time. A stream that is dropped before its end is reset by `h2`, so a node is told at once
//! that nobody waits any more.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, client::ResponseFuture};
use http::Response;

use super::{
    client::Client,
    exchange::{Cut, MAX_INTERIM, Times, Waits},
    failure::Failure,
};
use crate::{
    control::proxy::http::Strictness,
    proxy::{
        h1::{
            Framing, Slots,
            request::Method,
            response::{self, Asked},
        },
        http2::{head, outgoing::Outgoing},
        reactor::{self, Deadline},
    },
};

/// One request on one stream.
#[derive(Debug)]
pub(super) struct Streamed {
    response: ResponseFuture,
    outgoing: Outgoing,
    times: Times,
    /// Whether the connection carried requests before.
    reused: bool,
    /// Whether all of the request is with the node.
    pub(super) sent_all: bool,
    /// Whether the node took no more of the request.
    refused: bool,
    /// Whether the node said that it did nothing with the request.
    pub(super) unprocessed: bool,
    interim: u32,
    waits: Waits,
    begin_ms: u64,
    moved_ms: u64,
    /// Where heads of interim responses are written.
    text: Vec<u8>,
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    chunk: Bytes,
    ended: bool,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream, chunk: Bytes::new(), ended }
    }

    /// Whether there is no body, nor any trailer.
    pub(super) fn is_all(&self) -> bool {
        self.ended
    }

    /// Ready when there is data, or the body is complete and its trailers are with the client.
    fn poll(&mut self, context: &mut Context<'_>, client: &mut impl Client) -> Poll<Result<(), Cut>> {
        while self.chunk.is_empty() && !self.ended {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(chunk)) => {
                    self.ended = self.stream.is_end_stream();
                    self.chunk = chunk;
                }
                // The response is complete, and the node wants no more of the request: RFC 9113 §8.1.
                Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => self.ended = true,
                Some(Err(_)) => return Poll::Ready(Err(Cut::Node)),
                None => {
                    let trailers = match ready!(self.stream.poll_trailers(context)) {
                        Ok(trailers) => trailers,
                        Err(error) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => None,
                        Err(_) => return Poll::Ready(Err(Cut::Node)),
                    };
                    if let Some(trailers) = trailers.and_then(head::trailers) {
                        client.end_with(trailers);
                    }
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
        // A stream that ended has no window any more.
        let _ = self.stream.flow_control().release_capacity(count);
    }
}

impl Streamed {
    pub(super) fn new(response: ResponseFuture, outgoing: Outgoing, times: Times, reused: bool) -> Self {
        let now_ms = reactor::now_ms();
        Self {
            response,
            sent_all: outgoing.is_ended(),
            outgoing,
            times,
            reused,
            refused: false,
            unprocessed: false,
            interim: 0,
            waits: Waits::NodeGives,
            begin_ms: now_ms,
            moved_ms: now_ms,
            text: Vec::new(),
        }
    }

    /// Ready when the head of the final response is there.
    pub(super) fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl Client,
        strictness: &Strictness,
        slots: &mut Slots,
        deadline: &Deadline,
    ) -> Poll<Result<Response<RecvStream>, Failure>> {
        if !self.sent_all && !self.refused {
            match self.poll_request(context, client) {
                Poll::Ready(Err(Failure::Closed)) => self.refused = true,
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        while let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(context) {
            if let Err(failure) = self.pass_interim(&interim, client, strictness, slots) {
                return Poll::Ready(Err(failure));
            }
        }
        match Pin::new(&mut self.response).poll(context) {
            Poll::Ready(Ok(response)) => return Poll::Ready(Ok(response)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(self.failed(&error))),
            Poll::Pending => {}
        }
        if client.is_gone(context) {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        let waits = self.waits.or_turn(client, &mut self.moved_ms);
        let begin_ms = self.begin_ms + client.held_ms();
        self.times.poll_late(context, deadline, waits, begin_ms, self.moved_ms, client.received()).map(Err)
    }

    /// What a stream that failed before its response means.
    fn failed(&mut self, error: &h2::Error) -> Failure {
        let by_node = error.is_remote();
        // RFC 9113 §8.7: nothing was done with a request that was refused, or that GOAWAY leaves out.
        let refused = by_node && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        let left_out = by_node && error.is_go_away();
        self.unprocessed = refused || left_out;
        match (refused, left_out) {
            (false, true) if self.reused => Failure::Closed,
            (true, _) | (_, true) => Failure::Refused,
            (false, false) if error.is_reset() && !by_node => Failure::Protocol,
            (false, false) => Failure::Closed,
        }
    }

    fn pass_interim(
        &mut self,
        interim: &Response<()>,
        client: &mut impl Client,
        strictness: &Strictness,
        slots: &mut Slots,
    ) -> Result<(), Failure> {
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(Failure::Interim);
        }
        self.moved_ms = reactor::now_ms();
        // Nobody asked the node for 100: the client got ours.
        if interim.status().as_u16() != 100 {
            self.text.clear();
            head::write_response(&mut self.text, interim, true, false);
            slots.clear();
            if let Some(head) = response::parse(&self.text, Asked::default(), strictness, slots)? {
                client.interim(&head);
            }
            slots.clear();
        }
        Ok(())
    }

    /// Sends the request's body; ready when all of it is with the connection.
    fn poll_request(&mut self, context: &mut Context<'_>, client: &mut impl Client) -> Poll<Result<(), Failure>> {
        loop {
            self.waits = Waits::ClientGives;
            ready!(client.poll_body(context)).map_err(Failure::Body)?;
            let (length, last) = (client.body().len(), client.is_last());
            if last && let Some(trailers) = client.trailers() {
                self.outgoing.set_trailers(trailers);
            }
            self.waits = Waits::NodeTakes;
            let count = ready!(self.outgoing.poll_send(context, client.body(), last)).map_err(|_| Failure::Closed)?;
            if count > 0 {
                client.consume(count);
                self.moved_ms = reactor::now_ms();
            }
            if last && count == length {
                if !self.outgoing.is_ended() {
                    ready!(self.outgoing.poll_send(context, &[], true)).map_err(|_| Failure::Closed)?;
                }
                self.sent_all = true;
                self.waits = Waits::NodeGives;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Passes the response's body on; ready when all of it is with the client.
    pub(super) fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        client: &mut impl Client,
        incoming: &mut Incoming,
        deadline: &Deadline,
    ) -> Poll<Result<(), Cut>> {
        if !self.sent_all
            && !self.refused
            && let Poll::Ready(Err(_)) = self.poll_request(context, client)
        {
            self.refused = true;
        }
        if let Poll::Ready(result) = self.poll_response_body(context, client, incoming) {
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
        incoming: &mut Incoming,
    ) -> Poll<Result<(), Cut>> {
        loop {
            if incoming.poll(context, client)?.is_pending() {
                self.waits = Waits::ClientTakes;
                ready!(client.poll_send(context, &[], false)).map_err(|_| Cut::Client)?;
                self.waits = Waits::NodeGives;
                return Poll::Pending;
            }
            self.waits = Waits::ClientTakes;
            let (length, last) = (incoming.chunk.len(), incoming.ended);
            let count = ready!(client.poll_send(context, &incoming.chunk, last)).map_err(|_| Cut::Client)?;
            if count > 0 {
                incoming.consume(count);
                self.moved_ms = reactor::now_ms();
            }
            if last && count == length {
                ready!(client.poll_send(context, &[], true)).map_err(|_| Cut::Client)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Whether a response with this status to that method can have a body, RFC 9112 §6.3.
pub(super) fn may_have_body(method: Method, status: u16) -> bool {
    method != Method::Head && !matches!(status, 100..=199 | 204 | 304)
}

/// Whether a request with this framing has bytes after its head.
pub(super) fn has_body(framing: Framing) -> bool {
    !matches!(framing, Framing::None | Framing::Length(0))
}
