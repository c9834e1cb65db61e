//! A client as forwarding sees it, whose response is compressed on its way, and whose bytes wait for their bandwidth classes.
//! Of what is neither it costs a branch.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::HeaderMap;

use super::client::Client;
use crate::proxy::{
    compress::Encoder,
    h1::{
        Framing,
        response::{Asked, ResponseHead},
        write::{RequestEdit, ResponseEdit},
    },
    limit::Bandwidth,
    reactor::Socket,
    transfer::{BodyError, BodyReader, pace::Pace},
};

/// Bytes that are compressed at a time: what that costs holds up the other connections of the thread.
const PIECE: usize = 16 * 1024;

/// A client with what is done to its bytes.
#[derive(Debug)]
pub(crate) struct Shaped<'a, C> {
    client: &'a mut C,
    encoding: Option<Box<Encoding>>,
    pacing: Option<Box<Pacing>>,
}

/// A response that is compressed.
#[derive(Debug)]
struct Encoding {
    /// `None`: the body is complete.
    encoder: Option<Encoder>,
    /// What is compressed, and how much of it is with the client.
    out: Vec<u8>,
    sent: usize,
    /// Whether the encoder holds bytes back.
    holds: bool,
    /// Bytes that went in, and came out.
    taken: u64,
    made: u64,
}

/// What is taken of the bandwidth classes and did not go yet.
#[derive(Debug)]
struct Pacing {
    pace: Pace,
    up: usize,
    down: usize,
}

impl Drop for Pacing {
    fn drop(&mut self) {
        self.pace.give_back(self.up + self.down);
    }
}

impl<'a, C: Client> Shaped<'a, C> {
    /// A client to whose bytes nothing is done.
    pub(crate) fn new(client: &'a mut C) -> Self {
        Self { client, encoding: None, pacing: None }
    }

    /// Counts its bytes in these bandwidth classes from now on, as well.
    pub(crate) fn pace(&mut self, classes: &[Arc<Bandwidth>]) {
        if classes.is_empty() {
            return;
        }
        match &mut self.pacing {
            Some(pacing) => pacing.pace.set_classes(classes),
            None => self.pacing = Some(Box::new(Pacing { pace: Pace::new(classes), up: 0, down: 0 })),
        }
    }

    /// Compresses the response that begins now.
    pub(crate) fn encode(&mut self, encoder: Encoder) {
        let (out, sent, holds, taken, made) = (Vec::new(), 0, false, 0, 0);
        self.encoding = Some(Box::new(Encoding { encoder: Some(encoder), out, sent, holds, taken, made }));
    }

    /// Bytes of the response's body before and after compression; `None`: it was not compressed.
    pub(crate) fn encoded(&self) -> Option<(u64, u64)> {
        self.encoding.as_ref().map(|encoding| (encoding.taken, encoding.made))
    }

    /// Sends as the bandwidth classes allow.
    fn poll_paced(
        client: &mut C,
        pacing: Option<&mut Pacing>,
        context: &mut Context<'_>,
        data: &[u8],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        let Some(pacing) = pacing.filter(|_| !data.is_empty()) else { return client.poll_send(context, data, last) };
        if pacing.down == 0 {
            match pacing.pace.poll_take(context, data.len()) {
                Poll::Ready(granted) => pacing.down = granted,
                Poll::Pending => {
                    // What is not counted, the head for example, does not wait.
                    if let Poll::Ready(Err(error)) = client.poll_send(context, &[], false) {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            }
        }
        let part = data.len().min(pacing.down);
        let count = ready!(client.poll_send(context, &data[..part], last && part == data.len()))?;
        pacing.down -= count;
        Poll::Ready(Ok(count))
    }
}

impl Encoding {
    /// Compresses what comes next; how much of `data` that is.
    fn take(&mut self, data: &[u8], last: bool) -> io::Result<usize> {
        let Some(encoder) = &mut self.encoder else { return Ok(0) };
        self.out.clear();
        self.sent = 0;
        let piece = &data[..data.len().min(PIECE)];
        // Without data the node has none for now: a client of a slow or endless body gets what there is.
        encoder.push(piece, piece.is_empty() && !last, &mut self.out)?;
        self.holds = !piece.is_empty();
        if last && piece.len() == data.len() {
            self.holds = false;
            if let Some(encoder) = self.encoder.take() {
                encoder.finish(&mut self.out)?;
            }
        }
        self.taken += piece.len() as u64;
        self.made += self.out.len() as u64;
        Ok(piece.len())
    }

    fn waiting(&self) -> &[u8] {
        &self.out[self.sent..]
    }
}

impl<C: Client> Client for Shaped<'_, C> {
    fn write_head(&self, out: &mut Vec<u8>, edit: &RequestEdit<'_>) {
        self.client.write_head(out, edit);
    }

    fn asked(&self) -> Asked<'_> {
        self.client.asked()
    }

    fn framing(&self) -> Framing {
        self.client.framing()
    }

    fn takes_chunks(&self) -> bool {
        self.client.takes_chunks()
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        ready!(self.client.poll_body(context))?;
        let there = self.client.body().len();
        if let Some(pacing) = self.pacing.as_mut().filter(|pacing| pacing.up == 0 && there > 0) {
            pacing.up = ready!(pacing.pace.poll_take(context, there));
        }
        Poll::Ready(Ok(()))
    }

    fn body(&self) -> &[u8] {
        let body = self.client.body();
        self.pacing.as_ref().map_or(body, |pacing| &body[..body.len().min(pacing.up)])
    }

    fn is_last(&self) -> bool {
        self.client.is_last() && self.pacing.as_ref().is_none_or(|pacing| self.client.body().len() <= pacing.up)
    }

    fn consume(&mut self, count: usize) {
        if let Some(pacing) = &mut self.pacing {
            pacing.up -= count;
        }
        self.client.consume(count);
    }

    fn took(&mut self, count: u64) {
        self.client.took(count);
    }

    fn received(&self) -> u64 {
        self.client.received()
    }

    fn sent(&self) -> u64 {
        self.client.sent()
    }

    fn head_sent(&self) -> u64 {
        self.client.head_sent()
    }

    fn can_rewind(&self) -> bool {
        self.client.can_rewind()
    }

    fn rewind(&mut self) -> bool {
        self.client.rewind()
    }

    fn movable(&mut self) -> Option<(&Socket, &mut BodyReader)> {
        if self.pacing.is_some() { None } else { self.client.movable() }
    }

    fn interim(&mut self, head: &ResponseHead<'_>) {
        self.client.interim(head);
    }

    fn respond(&mut self, head: &ResponseHead<'_>, edit: &ResponseEdit<'_>) {
        self.client.respond(head, edit);
    }

    fn poll_send(&mut self, context: &mut Context<'_>, data: &[u8], last: bool) -> Poll<io::Result<usize>> {
        let Self { client, encoding, pacing } = self;
        let Some(encoding) = encoding else {
            return Self::poll_paced(client, pacing.as_deref_mut(), context, data, last);
        };
        let mut count = 0;
        loop {
            while !encoding.waiting().is_empty() {
                let ends = encoding.encoder.is_none();
                match Self::poll_paced(client, pacing.as_deref_mut(), context, encoding.waiting(), ends) {
                    Poll::Ready(sent) => encoding.sent += sent?,
                    // What was taken is told; the rest goes when there is room.
                    Poll::Pending if count > 0 => return Poll::Ready(Ok(count)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let wants = !data[count..].is_empty() || last || encoding.holds;
            if encoding.encoder.is_none() || !wants || count > 0 {
                break;
            }
            count = encoding.take(data, last)?;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        client.poll_send(context, &[], encoding.encoder.is_none())
    }

    fn sink(&self) -> Option<&Socket> {
        if self.pacing.is_some() || self.encoding.is_some() { None } else { self.client.sink() }
    }

    fn moved(&mut self, count: u64) {
        self.client.moved(count);
    }

    fn is_gone(&mut self, context: &mut Context<'_>) -> bool {
        self.client.is_gone(context)
    }

    fn is_held(&self) -> bool {
        self.pacing.as_ref().is_some_and(|pacing| pacing.pace.is_held())
    }

    fn held_ms(&self) -> u64 {
        self.pacing.as_ref().map_or(0, |pacing| pacing.pace.held_ms())
    }

    fn takes_trailers(&self) -> bool {
        self.client.takes_trailers()
    }

    fn trailers(&mut self) -> Option<HeaderMap> {
        self.client.trailers()
    }

    fn end_with(&mut self, trailers: HeaderMap) {
        self.client.end_with(trailers);
    }
}
