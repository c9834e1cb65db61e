//! One request: over HTTP/1.1 its head read and judged; for every client its way to a node, or an answer of our own.

use std::{cell::RefCell, future::poll_fn, io::IoSlice, net::IpAddr, rc::Rc, time::Duration};

use super::{
    Ends, answer,
    answer::Answer,
    client::Http1,
    facts::RequestFacts,
    policy,
    scratch::{Memory, Scratch},
};
use crate::{
    control::proxy::{
        Service,
        http::{ErrorPage, Http, Strictness},
    },
    proxy::{
        buffer::{self, Buffer},
        facts::Facts,
        h1::{
            Slots,
            request::{self, Method, Refusal, RequestHead, Upgrade},
            write::RequestEdit,
        },
        identity::{self, Sender},
        reactor::{self, Deadline},
        rules::Edits,
        stats::Refused,
        stream::Stream,
        upstream::{
            after,
            client::Client,
            exchange::Cut,
            failure::{Failure, Fault},
            forward::{self, Outcome, Told, Upgraded},
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
    Tunnel(Box<Upgraded>, Option<Buffer>),
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
            connection.server.stats.refuse(refused(refusal));
            return refuse(stream, connection, &Answer::to_refused(refusal)).await;
        }
        Err(NoHead::TooLate) => {
            connection.server.stats.refuse(Refused::HeadTimeout);
            return refuse(stream, connection, &Answer::too_slow()).await;
        }
    }
    let Memory { request: slots, response, to_node, to_client, extra, edits } = &mut *scratch;
    let Some(head) = request::view(buffer.bytes(), slots) else { return Next::Close };
    let length = head.len();
    let early = &buffer.bytes()[length..];
    let mut client = Http1::new(stream, head, early, &http.strictness, std::mem::take(to_client));
    let mut answer = Vec::new();
    let work = Work { forward: forward::Memory { response, to_node }, extra, edits, answer: &mut answer };
    let concluded = pass_on(connection, http, head, head.version().name(), &mut client, work).await;
    let is_read = client.is_read();
    let next = match concluded {
        Concluded::Complete(true) if is_read => None,
        Concluded::Complete(_) if is_read => Some(Next::Close),
        Concluded::Complete(_) => Some(Next::Linger),
        Concluded::Upgraded(upgraded) => Some(Next::Tunnel(upgraded, None)),
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
    // What came after the request: behind its body, where it had one.
    let rest = body_rest.unwrap_or_else(|| {
        buffer.consume(length);
        buffer
    });
    let rest = (!rest.is_empty()).then_some(rest);
    match next {
        None => Next::Again(rest),
        Some(Next::Tunnel(upgraded, _)) => Next::Tunnel(upgraded, rest),
        Some(next) => next,
    }
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

/// What became of a request.
pub(super) enum Concluded {
    /// The response is with the client; whether its connection can be used again.
    Complete(bool),
    /// Bytes go both ways from here.
    Upgraded(Box<Upgraded>),
    /// A response was begun that cannot be ended.
    Cut(Cut),
    /// We answer, by what is written as HTTP/1.1 has it; whether the connection is closed after it.
    Answer { close: bool },
    /// The client gets no answer; whether its connection is reset.
    Silent { reset: bool },
}

/// Memory of a request.
pub(super) struct Work<'a> {
    pub(super) forward: forward::Memory<'a>,
    pub(super) extra: &'a mut Vec<u8>,
    pub(super) edits: &'a mut Edits,
    /// Where an answer of ours is written.
    pub(super) answer: &'a mut Vec<u8>,
}

/// Passes a request on to a node, or writes the answer to it, whatever the client speaks: `version`, as rules name it.
pub(super) async fn pass_on(
    connection: &Connection<'_>,
    http: &Http,
    head: RequestHead<'_>,
    version: &'static str,
    client: &mut impl Client,
    work: Work<'_>,
) -> Concluded {
    let Work { forward: mut memory, extra, edits, answer } = work;
    let (worker, server, ends) = (connection.worker, connection.server, connection.ends);
    let begin_us = reactor::now_us();
    let peer = ends.client.ip().to_canonical();
    let facts = RequestFacts::new(head, version, identity::client(head.fields(), peer, &http.identity), ends);
    let close = !head.keep_alive() || worker.is_draining();
    if is_misdirected(server, &facts) {
        server.stats.refuse(Refused::Malformed);
        return misdirect(&head, close || !is_read(client), answer);
    }
    extra.clear();
    let sender = sender(worker, http, &head, version, peer, facts.is_tls());
    let drop = identity::write(extra, head.fields(), &sender, facts.client, &http.identity);
    let request_id = policy::request_id(worker, server);
    let pool = match policy::decide(connection.plan, server, &facts, request_id, edits) {
        policy::Decision::Forward(pool) => pool,
        policy::Decision::Answer { status, retry_after, refused } => {
            server.stats.refuse(refused);
            let close = close || !is_read(client);
            return answer_by_rule(server, &head, status, retry_after, edits, close, answer);
        }
        policy::Decision::Drop => {
            server.stats.refuse(Refused::Rule);
            return Concluded::Silent { reset: true };
        }
    };
    let names = policy::removed(&head, edits);
    policy::write_added(extra, &edits.request);
    let own_host = head.authority().is_empty().then(|| ends.local.to_string());
    let edit = RequestEdit {
        host: own_host.as_deref(),
        remove: &names,
        drop,
        extra,
        upgrade: http.strictness.allow_upgrade && head.upgrade() != Upgrade::None,
        ..RequestEdit::default()
    };
    // Response rules go on with what request rules left.
    let edits = RefCell::new(std::mem::take(edits));
    let mut told = Told::default();
    let outcome = match pool {
        None => Outcome::Unanswered(Failure::NoPool),
        Some(pool) => {
            let request = forward::Request {
                worker,
                plan: connection.plan,
                server,
                http,
                facts: &facts,
                peer: ends.client,
                pool,
                edit,
                edits: &edits,
                request_id,
                transaction_at: after(server.settings.timeouts.transaction),
                close,
                deadline: connection.deadline,
            };
            forward::forward(&request, client, &mut memory, &mut told).await
        }
    };
    let concluded = match outcome {
        Outcome::Complete(keep) => Concluded::Complete(keep),
        Outcome::Upgraded(upgraded) => Concluded::Upgraded(upgraded),
        Outcome::Ruled(verdict) => match policy::of_verdict(verdict) {
            policy::Decision::Answer { status, retry_after, refused } => {
                server.stats.refuse(refused);
                let close = close || !is_read(client);
                answer_by_rule(server, &head, status, retry_after, &edits.borrow(), close, answer)
            }
            policy::Decision::Forward(_) | policy::Decision::Drop => Concluded::Silent { reset: true },
        },
        Outcome::Unanswered(failure) => fail(server, http, &head, &failure, close || !is_read(client), answer),
        Outcome::Cut(cut) => Concluded::Cut(cut),
    };
    let took = Duration::from_micros(reactor::now_us() - begin_us);
    server.stats.finish(told.status, took, client.received(), client.sent());
    concluded
}

/// Whether all of the request's body was taken.
fn is_read(client: &impl Client) -> bool {
    client.is_last() && client.body().is_empty()
}

/// Whether the certificate that the client's connection was opened with does not stand for the host it asks for (RFC 9110
/// §15.5.20, THREATS H10).
fn is_misdirected(server: &VirtualServer, facts: &RequestFacts<'_>) -> bool {
    let name = facts.tls().and_then(|tls| tls.server_name.as_deref());
    let (Some(setup), Some(name)) = (&server.tls, name) else { return false };
    !facts.host().is_empty() && !setup.serves_alike(name, facts.host())
}

/// Writes the answer to a misdirected request.
fn misdirect(head: &RequestHead<'_>, close: bool, out: &mut Vec<u8>) -> Concluded {
    let is_head = head.method() == Method::Head;
    let answer = Answer { status: 421, error: "http_request_error", details: "misdirected", close, is_head };
    answer::write_builtin(out, &answer);
    Concluded::Answer { close }
}

/// Writes what a rule answers.
fn answer_by_rule(
    server: &VirtualServer,
    head: &RequestHead<'_>,
    status: u16,
    retry_after: Option<Duration>,
    edits: &Edits,
    close: bool,
    out: &mut Vec<u8>,
) -> Concluded {
    policy::write_answer(out, status, retry_after, edits, close, head.method() == Method::Head);
    server.stats.requests.add(status);
    Concluded::Answer { close }
}

/// What identity fields are made of.
fn sender<'a>(
    worker: &Worker,
    http: &Http,
    head: &RequestHead<'a>,
    version: &'a str,
    peer: IpAddr,
    tls: bool,
) -> Sender<'a> {
    let mut random = [0; 24];
    if http.identity.traceparent {
        for part in random.chunks_exact_mut(8) {
            part.copy_from_slice(&worker.random().to_ne_bytes());
        }
    }
    Sender { peer, tls, authority: head.authority(), version, random }
}

/// Writes the answer to a request that no node answered.
fn fail(
    server: &VirtualServer,
    http: &Http,
    head: &RequestHead<'_>,
    failure: &Failure,
    close: bool,
    out: &mut Vec<u8>,
) -> Concluded {
    let verdict = failure.verdict();
    server.stats.refuse(failure.refused());
    tracing::debug!(virtual_server = server.name, %failure, "a request failed");
    if verdict.status == 0 {
        return Concluded::Silent { reset: true };
    }
    let close = close || verdict.fault == Fault::Client;
    let details = failure.details();
    let mut answer = answer::of_verdict(verdict, &details, close, head.method() == Method::Head);
    match answer::page(http, verdict.fault) {
        Some(ErrorPage::Close) => return Concluded::Silent { reset: false },
        Some(ErrorPage::Own { status, fields, body, content_type }) => {
            answer.status = status.unwrap_or(answer.status);
            answer::write_own(out, &answer, content_type, fields, body);
        }
        None | Some(ErrorPage::Builtin) => answer::write_builtin(out, &answer),
    }
    Concluded::Answer { close }
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
async fn refuse(stream: &mut Stream, connection: &Connection<'_>, answer: &Answer<'_>) -> Next {
    let mut out = Vec::with_capacity(512);
    answer::write_builtin(&mut out, answer);
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
