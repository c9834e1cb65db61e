//! One request over HTTP/1.1: its head read and judged, its way by `pass`, and what follows on its connection.

use std::{future::poll_fn, io::IoSlice, rc::Rc};

use super::{
    Ends, answer,
    answer::Answer,
    client::Http1,
    finish::{self, Course, Unfinished},
    pass::{Concluded, Work, pass_on},
    scratch::{Memory, Scratch},
};
use crate::{
    control::proxy::{Service, http::Strictness},
    proxy::{
        buffer::{self, Buffer},
        h1::{
            Slots,
            request::{self, Refusal},
        },
        reactor::Deadline,
        stats::Refused,
        stream::Stream,
        upstream::{
            after,
            forward::{self, Upgraded},
        },
        worker::{
            plan::{Compiled, VirtualServer},
            thread::Worker,
        },
    },
};

/// What a request needs of its connection.
pub(super) struct Connection<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) plan: &'a Compiled,
    pub(super) server: &'a VirtualServer,
    pub(super) ends: &'a Ends,
    pub(super) deadline: &'a Deadline,
}

/// What follows a request.
pub(super) enum Next {
    /// Another request, whose first bytes may be here.
    Again(Option<Buffer>),
    /// The connection is closed in order.
    Close,
    /// The connection is reset: the client must not take what it got for complete.
    Reset,
    /// The connection is closed, after reading what the client still sends.
    Linger,
    /// Bytes both ways, with those that the client sent already.
    Tunnel(Box<Tunnelled>),
}

/// A connection that was upgraded.
pub(super) struct Tunnelled {
    pub(super) upgraded: Upgraded,
    /// What the client sent already.
    pub(super) early: Option<Buffer>,
    /// What is told when it ends.
    pub(super) unfinished: Unfinished,
}

/// Why a head could not be read.
enum NoHead {
    Refused(Refusal),
    TooLate,
    /// The client ended, or its connection failed.
    Gone,
}

/// Serves the request that begins in `buffer`.
pub(super) async fn serve(connection: &Connection<'_>, stream: &mut Stream, mut buffer: Buffer) -> Next {
    let Service::Http(http) = &connection.server.settings.service else { return Next::Close };
    let mut scratch = Scratch::take();
    let until = after(connection.server.settings.timeouts.request_head);
    let slots = &mut scratch.request;
    match read_head(stream, &mut buffer, slots, &http.strictness, connection.deadline, until).await {
        Ok(()) => {}
        Err(NoHead::Gone) => return Next::Close,
        Err(NoHead::Refused(refusal)) => {
            return refuse(stream, connection, &Answer::to_refused(refusal), refused(refusal)).await;
        }
        Err(NoHead::TooLate) => {
            return refuse(stream, connection, &Answer::too_slow(), Refused::HeadTimeout).await;
        }
    }
    let Memory { request: slots, response, to_node, to_client, answered, extra, edits } = &mut *scratch;
    let Some(head) = request::view(buffer.bytes(), slots) else { return Next::Close };
    let length = head.len();
    let early = &buffer.bytes()[length..];
    let mut client = Http1::new(stream, head, early, &http.strictness, std::mem::take(to_client));
    let (mut answer, mut unfinished) = (Vec::new(), None);
    let forward = forward::Memory { response, to_node };
    let work = Work { forward, extra, edits, answered, answer: &mut answer, unfinished: &mut unfinished };
    let concluded = pass_on(connection, http, head, head.version().name(), &mut client, work).await;
    let is_read = client.is_read();
    let next = match concluded {
        Concluded::Complete(true) if is_read => None,
        Concluded::Complete(_) if is_read => Some(Next::Close),
        Concluded::Complete(_) => Some(Next::Linger),
        Concluded::Upgraded(upgraded) => {
            let (rest, text) = client.into_rest();
            *to_client = text;
            let Some(mut unfinished) = unfinished else { return Next::Reset };
            unfinished.head.extend_from_slice(&buffer.bytes()[..length]);
            unfinished.request = std::mem::take(slots);
            let early = rest_of(rest, buffer, length);
            return Next::Tunnel(Box::new(Tunnelled { upgraded: *upgraded, early, unfinished: *unfinished }));
        }
        Concluded::Cut(_) | Concluded::Silent { reset: true } => Some(Next::Reset),
        Concluded::Silent { reset: false } => Some(Next::Close),
        Concluded::Answer { close } => match (send(client.stream, connection, &answer).await, close, is_read) {
            (Err(_), ..) | (Ok(()), true, true) => Some(Next::Close),
            (Ok(()), false, _) => None,
            (Ok(()), true, false) => Some(Next::Linger),
        },
    };
    let (body_rest, text) = client.into_rest();
    *to_client = text;
    let rest = rest_of(body_rest, buffer, length);
    next.unwrap_or(Next::Again(rest))
}

/// What came after a request: behind its body, where it had one, or behind its head of `length` bytes.
fn rest_of(body_rest: Option<Buffer>, mut buffer: Buffer, length: usize) -> Option<Buffer> {
    let rest = body_rest.unwrap_or_else(|| {
        buffer.consume(length);
        buffer
    });
    (!rest.is_empty()).then_some(rest)
}

/// Reads until a head is complete in `buffer`, `until` then.
async fn read_head(
    stream: &mut Stream,
    buffer: &mut Buffer,
    slots: &mut Slots,
    strictness: &Strictness,
    deadline: &Deadline,
    until: u64,
) -> Result<(), NoHead> {
    loop {
        match request::parse(buffer.bytes(), strictness, slots) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(refusal) => return Err(NoHead::Refused(refusal)),
        }
        if buffer.room().is_empty() {
            buffer.reserve(buffer.len() + buffer::SIZE);
        }
        let read = poll_fn(|context| stream.poll_read(context, buffer.room()));
        match deadline.within(until, read).await {
            Ok(Ok(0) | Err(_)) => return Err(NoHead::Gone),
            Ok(Ok(count)) => buffer.filled(count),
            Err(_) => return Err(NoHead::TooLate),
        }
    }
}

/// What a refusal is counted as.
pub(super) fn refused(refusal: Refusal) -> Refused {
    match refusal.status() {
        413 => Refused::BodyTooLarge,
        414 | 431 => Refused::HeadTooLarge,
        _ => Refused::Malformed,
    }
}

/// Answers a request whose head was refused.
async fn refuse(stream: &mut Stream, connection: &Connection<'_>, answer: &Answer<'_>, why: Refused) -> Next {
    let mut out = Vec::with_capacity(512);
    answer::write_builtin(&mut out, answer);
    let course = Course::refused(answer.status, why, out.len());
    finish::refused(connection.worker, connection.server, connection.ends, course);
    match send(stream, connection, &out).await {
        Ok(()) => Next::Linger,
        Err(_) => Next::Close,
    }
}

/// Sends an answer of ours, within the time that a write may stall.
async fn send(stream: &mut Stream, connection: &Connection<'_>, bytes: &[u8]) -> std::io::Result<()> {
    let until = after(connection.server.settings.timeouts.write_stall);
    let sending = async {
        let mut left = bytes;
        while !left.is_empty() {
            let count = poll_fn(|context| stream.poll_write_vectored(context, &[IoSlice::new(left)])).await?;
            left = &left[count..];
        }
        poll_fn(|context| stream.poll_flush(context)).await
    };
    connection.deadline.within(until, sending).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
