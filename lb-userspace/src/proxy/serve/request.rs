//! One HTTP/1.1 request: its head read and judged, its way to a node, or an answer of our own.

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
    let mut memory = forward::Memory { response, to_node };
    let client = Http1::new(stream, head, &buffer.bytes()[length..], &http.strictness, std::mem::take(to_client));
    let (ended, body_rest, text) = pass_on(connection, http, head, client, &mut memory, extra, edits).await;
    *to_client = text;
    // What came after the request: behind its body, where it had one.
    let rest = body_rest.unwrap_or_else(|| {
        buffer.consume(length);
        buffer
    });
    let rest = (!rest.is_empty()).then_some(rest);
    match ended {
        Ended::Keep => Next::Again(rest),
        Ended::Close => Next::Close,
        Ended::Reset => Next::Reset,
        Ended::Linger => Next::Linger,
        Ended::Tunnel(upgraded) => Next::Tunnel(upgraded, rest),
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

/// How a request ended, for its connection.
enum Ended {
    Keep,
    Close,
    Reset,
    Linger,
    Tunnel(Box<Upgraded>),
}

/// Passes a request on to a node, or answers it; gives back what came after its body, and memory.
async fn pass_on(
    connection: &Connection<'_>,
    http: &Http,
    head: RequestHead<'_>,
    mut client: Http1<'_>,
    memory: &mut forward::Memory<'_>,
    extra: &mut Vec<u8>,
    edits: &mut Edits,
) -> (Ended, Option<Buffer>, Vec<u8>) {
    let (worker, server, ends) = (connection.worker, connection.server, connection.ends);
    let begin_us = reactor::now_us();
    let peer = ends.client.ip().to_canonical();
    let facts = RequestFacts::new(head, identity::client(head.fields(), peer, &http.identity), ends);
    let close = !head.keep_alive() || worker.is_draining();
    extra.clear();
    let sender = sender(worker, http, &head, peer, facts.is_tls());
    let drop = identity::write(extra, head.fields(), &sender, facts.client, &http.identity);
    let request_id = policy::request_id(worker, server);
    let pool = match policy::decide(connection.plan, server, &facts, request_id, edits) {
        policy::Decision::Forward(pool) => pool,
        policy::Decision::Answer { status, retry_after, refused } => {
            server.stats.refuse(refused);
            let close = close || !client.is_read();
            let ended = answer_by_rule(connection, &head, &mut client, status, retry_after, edits, close).await;
            let (rest, text) = client.into_rest();
            return (ended, rest, text);
        }
        policy::Decision::Drop => {
            server.stats.refuse(Refused::Rule);
            return (Ended::Reset, None, Vec::new());
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
            forward::forward(&request, &mut client, memory, &mut told).await
        }
    };
    let is_read = client.is_read();
    let ended = match outcome {
        Outcome::Complete(true) if is_read => Ended::Keep,
        Outcome::Complete(_) if is_read => Ended::Close,
        Outcome::Complete(_) => Ended::Linger,
        Outcome::Upgraded(upgraded) => Ended::Tunnel(upgraded),
        Outcome::Ruled(verdict) => match policy::of_verdict(verdict) {
            policy::Decision::Answer { status, retry_after, refused } => {
                server.stats.refuse(refused);
                let close = close || !is_read;
                let edits = edits.borrow();
                answer_by_rule(connection, &head, &mut client, status, retry_after, &edits, close).await
            }
            policy::Decision::Forward(_) | policy::Decision::Drop => Ended::Reset,
        },
        Outcome::Unanswered(failure) => fail(connection, http, &head, &mut client, &failure, close).await,
        Outcome::Cut(Cut::Client) => Ended::Reset,
        Outcome::Cut(Cut::Node | Cut::Transaction) => Ended::Reset,
    };
    let took = Duration::from_micros(reactor::now_us() - begin_us);
    server.stats.finish(told.status, took, client.received(), client.sent());
    let (rest, text) = client.into_rest();
    (ended, rest, text)
}

/// Sends what a rule answers.
async fn answer_by_rule(
    connection: &Connection<'_>,
    head: &RequestHead<'_>,
    client: &mut Http1<'_>,
    status: u16,
    retry_after: Option<Duration>,
    edits: &Edits,
    close: bool,
) -> Ended {
    let mut out = Vec::with_capacity(512);
    policy::write_answer(&mut out, status, retry_after, edits, close, head.method() == Method::Head);
    connection.server.stats.requests.add(status);
    if send(client.stream, connection, &out).await.is_err() {
        return Ended::Close;
    }
    match (close, client.is_read()) {
        (false, _) => Ended::Keep,
        (true, true) => Ended::Close,
        (true, false) => Ended::Linger,
    }
}

/// What identity fields are made of.
fn sender<'a>(worker: &Worker, http: &Http, head: &RequestHead<'a>, peer: IpAddr, tls: bool) -> Sender<'a> {
    let mut random = [0; 24];
    if http.identity.traceparent {
        for part in random.chunks_exact_mut(8) {
            part.copy_from_slice(&worker.random().to_ne_bytes());
        }
    }
    Sender { peer, tls, authority: head.authority(), version: head.version().name(), random }
}

/// Answers a request that no node answered.
async fn fail(
    connection: &Connection<'_>,
    http: &Http,
    head: &RequestHead<'_>,
    client: &mut Http1<'_>,
    failure: &Failure,
    close: bool,
) -> Ended {
    let verdict = failure.verdict();
    connection.server.stats.refuse(failure.refused());
    tracing::debug!(virtual_server = connection.server.name, %failure, "a request failed");
    if verdict.status == 0 {
        return Ended::Reset;
    }
    let close = close || !client.is_read() || verdict.fault == Fault::Client;
    let details = failure.details();
    let is_head = head.method() == Method::Head;
    let mut answer = answer::of_verdict(verdict, &details, close, is_head);
    let mut out = Vec::with_capacity(512);
    match answer::page(http, verdict.fault) {
        None => answer::write_builtin(&mut out, &answer),
        Some(ErrorPage::Close) => return Ended::Close,
        Some(ErrorPage::Own { status, fields, body, content_type }) => {
            answer.status = status.unwrap_or(answer.status);
            answer::write_own(&mut out, &answer, content_type, fields, body);
        }
        Some(ErrorPage::Builtin) => answer::write_builtin(&mut out, &answer),
    }
    let is_read = client.is_read();
    if send(client.stream, connection, &out).await.is_err() {
        return Ended::Close;
    }
    match (close, is_read) {
        (false, _) => Ended::Keep,
        (true, true) => Ended::Close,
        (true, false) => Ended::Linger,
    }
}

/// What a refusal is counted as.
fn refused(refusal: Refusal) -> Refused {
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
