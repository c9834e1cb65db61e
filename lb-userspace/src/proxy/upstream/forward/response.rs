//! The head of a node's response: what it tells the pool, what rules make of it, and how it goes on to the client.

use std::{borrow::Cow, time::Duration};

use super::{Ended, Request, Told, Tries};
use crate::proxy::{
    compress::{self, Decision as Compression, Encoder},
    facts::ResponseFacts,
    h1::{
        Framing, Known,
        response::ResponseHead,
        write::{self, ResponseEdit},
    },
    pool::{
        Lease,
        retry::{self, Attempt, Decision},
    },
    reactor,
    rules::{HeaderEdits, Scope, Verdict},
    upstream::{client::Client, failure::Failure, shaped::Shaped},
    worker::thread::now,
};

/// Tells of a response whose head came, over HTTP/1.1 or HTTP/2; what ends the attempt with it, if anything does.
pub(super) fn head_came(
    request: &Request<'_>,
    client: &impl Client,
    lease: &Lease,
    response: &ResponseHead<'_>,
    tries: &Tries,
    told: &mut Told,
) -> Option<Ended> {
    told.head_us = reactor::now_us();
    told.status = response.status();
    if request.keeps_head {
        told.response.clear();
        told.response.extend_from_slice(response.bytes());
    }
    let time_to_head = Duration::from_micros(told.head_us - told.asked_us);
    lease.responded(told.status, time_to_head, now());
    let pool = request.plan.pool_stats(lease.pool().id());
    let node = request.plan.node_stats(lease.node().id());
    for (classes, times) in [(&pool.requests, &pool.time_to_head), (&node.requests, &node.time_to_head)] {
        classes.add(told.status);
        times.record(time_to_head);
    }
    let retried = lease.pool().settings().retry.statuses.contains(&told.status);
    if retried && goes_elsewhere(request, client, lease, told.status, tries) {
        let failure = Failure::Status(told.status);
        return Some(Ended::Failed { failure, sent: true, reused: told.reused });
    }
    let verdict = response_rules(request, lease, response);
    (verdict != Verdict::Continue).then_some(Ended::Ruled(verdict))
}

/// A response on its way to the client.
pub(super) struct Passing {
    /// Bytes of its head.
    pub(super) length: usize,
    /// How its body comes.
    pub(super) framing: Framing,
    /// Whether the node's connection may be used again.
    pub(super) node_keeps: bool,
    /// Whether the client's may not.
    pub(super) close: bool,
}

/// Writes the head of the response for the client.
pub(super) fn begin_response(
    request: &Request<'_>,
    client: &mut Shaped<'_, impl Client>,
    lease: &Lease,
    response: &ResponseHead<'_>,
    request_is_sent: bool,
) -> Passing {
    let framing = response.framing();
    let compressed = compress(request, client, response);
    let outgoing = match framing {
        _ if compressed => Framing::Chunked,
        Framing::Chunked | Framing::UntilClose if client.takes_chunks() => Framing::Chunked,
        Framing::Chunked | Framing::UntilClose => Framing::UntilClose,
        Framing::None | Framing::Length(_) => framing,
    };
    // What is left of the request's body would be read as the next request.
    let close = request.close || !request_is_sent || outgoing == Framing::UntilClose;
    let edits = request.edits.borrow();
    // Response rules may have named more.
    client.pace(&edits.bandwidth);
    let (mut extra, mut remove) = (Vec::new(), Vec::new());
    if !edits.response.is_empty() {
        let names = response.fields().filter_map(|field| std::str::from_utf8(field.name).ok());
        remove.extend(names.filter(|name| edits.response.removes(&name.to_ascii_lowercase())));
        for (name, value) in edits.response.added() {
            // Names were checked when the rules were compiled, values when they were expanded.
            let _ = write::field(&mut extra, name.as_bytes(), value.as_bytes());
        }
    }
    if lease.watches_response() {
        learn(lease, response, &mut extra);
    }
    let edit = ResponseEdit {
        framing: outgoing,
        remove: &remove,
        extra: &extra,
        close,
        keep_alive: !close,
        ..ResponseEdit::default()
    };
    client.respond(response, &edit);
    Passing { length: response.len(), framing, node_keeps: response.keep_alive(), close }
}

/// Lets persistence learn from a response, and adds what tells the client its node.
fn learn(lease: &Lease, response: &ResponseHead<'_>, extra: &mut Vec<u8>) {
    let texts = |known| {
        response
            .fields()
            .filter(move |field| field.known == known)
            .filter_map(|field| std::str::from_utf8(field.value).ok())
    };
    if let Some(cookie) = lease.learn(texts(Known::SetCookie), texts(Known::Location).next(), now()) {
        // Name and attributes were checked with the configuration.
        let _ = write::field(extra, b"Set-Cookie", cookie.as_bytes());
    }
}

/// What response rules decide.
fn response_rules(request: &Request<'_>, lease: &Lease, response: &ResponseHead<'_>) -> Verdict {
    let Some(rules) = request.server.rules.as_ref().filter(|rules| rules.looks_at_responses()) else {
        return Verdict::Continue;
    };
    let scope = Scope {
        facts: request.facts,
        response: Some(&Answered(response)),
        virtual_server: &request.server.name,
        pool: lease.pool().name(),
        node: lease.node().name(),
        request_id: request.request_id,
        now: now(),
        unix_s: reactor::unix().as_secs(),
        hits: &request.server.hits,
    };
    rules.evaluate_response(&scope, &mut request.edits.borrow_mut())
}

/// A node's response as rules see it.
struct Answered<'a>(&'a ResponseHead<'a>);

impl ResponseFacts for Answered<'_> {
    fn status(&self) -> u16 {
        self.0.status()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.header(name)
    }
}

/// Whether a response with a status that is retried is given up for another node's.
fn goes_elsewhere(request: &Request<'_>, client: &impl Client, lease: &Lease, status: u16, tries: &Tries) -> bool {
    let attempt = Attempt {
        method: request.facts.method(),
        sent: true,
        answered: false,
        replayable: client.can_rewind(),
        failure: retry::Failure::Status(status),
        attempts: tries.attempts,
        timed_out: tries.timed_out,
    };
    matches!(lease.pool().after_failure(&attempt, now()), Decision::OtherNode { .. })
}

/// Begins to compress the response, where it and its client are such; whether it did.
fn compress(request: &Request<'_>, client: &mut Shaped<'_, impl Client>, response: &ResponseHead<'_>) -> bool {
    if request.http.compression.is_empty() {
        return false;
    }
    let length = match response.framing() {
        Framing::Length(length) => Some(length),
        Framing::None | Framing::Chunked | Framing::UntilClose => None,
    };
    let mut edits = request.edits.borrow_mut();
    let edited = Edited { response, edits: &edits.response };
    let mut changes = HeaderEdits::default();
    let mut decision = compress::decide(request.http, request.facts, &edited, length);
    if let Compression::Encode(coding) = decision {
        match Encoder::new(coding) {
            Ok(encoder) if client.takes_chunks() => client.encode(encoder),
            Ok(_) | Err(_) => decision = Compression::Identity,
        }
    }
    compress::edit_head(decision, &edited, &mut changes);
    edits.response.follow(&changes);
    matches!(decision, Compression::Encode(_))
}

/// A node's response with what rules changed in it.
struct Edited<'a> {
    response: &'a ResponseHead<'a>,
    edits: &'a HeaderEdits,
}

impl ResponseFacts for Edited<'_> {
    fn status(&self) -> u16 {
        self.response.status()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.edits.seen(name, || self.response.header(name))
    }
}
