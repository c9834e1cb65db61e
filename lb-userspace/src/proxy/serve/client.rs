//! A client that speaks HTTP/1.1, as forwarding sees it: one request's body from its connection, the response to it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use http::HeaderMap;

use crate::control::proxy::http::Strictness;
use crate::proxy::{
    buffer::Buffer,
    h1::{
        Framing, Version,
        body::Decoder,
        request::RequestHead,
        response::{Asked, ResponseHead},
        write::{self, RequestEdit, ResponseEdit},
    },
    reactor::Socket,
    stream::Stream,
    transfer::{BodyError, BodyReader, BodyWriter},
    upstream::client::Client,
};

/// What lets a client go on that waits before it sends its body (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The client's side of one HTTP/1.1 request.
#[derive(Debug)]
pub(super) struct Http1<'a> {
    pub(super) stream: &'a mut Stream,
    head: RequestHead<'a>,
    /// What came together with the head: the body's first bytes, kept for other attempts.
    early: &'a [u8],
    max_body: u64,
    /// Whether the upgrade that is asked for is passed on.
    upgrade: bool,
    /// `None` for a request without a body.
    body: Option<BodyReader>,
    writer: BodyWriter,
    response: Framing,
    /// The client waits for 100, and was not told it.
    waits: bool,
    received: u64,
    head_sent: u64,
    sent: u64,
    begun: bool,
}

impl<'a> Http1<'a> {
    /// For the request of `head`, which `early` came after; `memory` is used for what is written.
    pub(super) fn new(
        stream: &'a mut Stream,
        head: RequestHead<'a>,
        early: &'a [u8],
        strictness: &Strictness,
        memory: Vec<u8>,
    ) -> Self {
        let mut client = Self {
            stream,
            head,
            early,
            max_body: strictness.max_body_bytes,
            upgrade: strictness.allow_upgrade,
            body: None,
            writer: BodyWriter::new(memory, Framing::None),
            response: Framing::None,
            waits: head.expects_continue(),
            received: 0,
            head_sent: 0,
            sent: 0,
            begun: false,
        };
        client.begin_body();
        client
    }

    /// The body from its first byte.
    fn begin_body(&mut self) {
        if self.head.framing() == Framing::None {
            return;
        }
        let mut input = Buffer::take();
        input.reserve(self.early.len().max(1));
        input.room()[..self.early.len()].copy_from_slice(self.early);
        input.filled(self.early.len());
        self.body = Some(BodyReader::new(Decoder::new(self.head.framing(), self.max_body, &[]), input));
        self.received = 0;
    }

    /// Whether the request's body was read to its end.
    pub(super) fn is_read(&self) -> bool {
        self.body.as_ref().is_none_or(BodyReader::is_done)
    }

    /// Ends the request: what came after its body, where there was one, and the memory.
    pub(super) fn into_rest(self) -> (Option<Buffer>, Vec<u8>) {
        (self.body.map(BodyReader::into_rest), self.writer.into_memory())
    }
}

impl Client for Http1<'_> {
    fn write_head(&self, out: &mut Vec<u8>, edit: &RequestEdit<'_>) {
        write::request_head(out, &self.head, edit);
    }

    fn asked(&self) -> Asked<'_> {
        if self.upgrade { Asked::by(&self.head) } else { Asked { upgrade: b"", ..Asked::by(&self.head) } }
    }

    fn framing(&self) -> Framing {
        self.head.framing()
    }

    fn takes_chunks(&self) -> bool {
        self.head.version() == Version::Http11
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let polled = body.poll(context, self.stream);
        if polled.is_ready() || !self.waits || self.begun {
            return polled;
        }
        // Nothing came by itself: one 100, now that a node is there to take the body.
        self.waits = false;
        self.writer.before().extend_from_slice(CONTINUE);
        match self.writer.poll_write(context, self.stream, &[], false) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    fn body(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], BodyReader::data)
    }

    fn is_last(&self) -> bool {
        self.body.as_ref().is_none_or(BodyReader::is_last)
    }

    fn consume(&mut self, count: usize) {
        self.received += count as u64;
        if let Some(body) = &mut self.body {
            body.consume(count);
        }
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
        self.body.as_ref().is_none_or(BodyReader::is_as_begun)
    }

    fn rewind(&mut self) -> bool {
        if !self.can_rewind() {
            return false;
        }
        self.begin_body();
        true
    }

    fn movable(&mut self) -> Option<(&Socket, &mut BodyReader)> {
        if !matches!(self.head.framing(), Framing::Length(_)) {
            return None;
        }
        Some((self.stream.plain()?, self.body.as_mut()?))
    }

    fn interim(&mut self, head: &ResponseHead<'_>) {
        // HTTP/1.0 knows none, RFC 9110 §15.2.
        if self.head.version() == Version::Http11 {
            write::response_head(self.writer.before(), head, &ResponseEdit::default());
        }
    }

    fn respond(&mut self, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>) {
        let keep_alive = edit.keep_alive && self.head.version() == Version::Http10;
        self.begun = true;
        self.waits = false;
        self.response = edit.framing;
        self.writer.set_framing(edit.framing);
        let before = self.writer.before();
        let already = before.len();
        write::response_head(before, head, &ResponseEdit { keep_alive, ..*edit });
        self.head_sent = (before.len() - already) as u64;
    }

    fn poll_send(&mut self, context: &mut Context<'_>, data: &[u8], last: bool) -> Poll<io::Result<usize>> {
        let count = ready!(self.writer.poll_write(context, self.stream, data, last))?;
        self.sent += count as u64;
        if count == 0 {
            ready!(self.stream.poll_flush(context))?;
        }
        Poll::Ready(Ok(count))
    }

    fn sink(&self) -> Option<&Socket> {
        let as_it_is = matches!(self.response, Framing::Length(_) | Framing::UntilClose);
        if as_it_is && self.writer.is_flushed() { self.stream.plain() } else { None }
    }

    fn moved(&mut self, count: u64) {
        self.sent += count;
    }

    fn is_gone(&mut self, _: &mut Context<'_>) -> bool {
        self.stream.socket().has_failed()
    }

    fn takes_trailers(&self) -> bool {
        let names = self.head.header("te");
        self.head.version() == Version::Http11
            && names.is_some_and(|names| names.split(',').any(|name| name.trim().eq_ignore_ascii_case("trailers")))
    }

    fn end_with(&mut self, trailers: HeaderMap) {
        if self.response != Framing::Chunked || !self.takes_trailers() {
            return;
        }
        let mut lines = Vec::new();
        for (name, value) in &trailers {
            // Of a map of fields: there is no other.
            let _ = write::field(&mut lines, name.as_str().as_bytes(), value.as_bytes());
        }
        self.writer.set_trailers(lines);
    }
}
