//! The end of a request, or of a connection of generic TCP: completion rules, the access log, recent requests, events.
//!
//! Whatever only tells of a request happens here, once, whoever answered it. Where nothing is told it costs a branch.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use super::Ends;
use crate::{
    control::proxy::rule::RuleEvent,
    proxy::{
        access_log::{By, During, Ended, Entry, Timings},
        facts::{Facts, RequestFacts, RequestId, ResponseFacts},
        h1::{
            Slots, request,
            response::{self, ResponseHead},
        },
        reactor,
        rules::{Edits, NoteKind, Scope},
        stats::Refused,
        upstream::forward::Told,
        worker::{
            plan::{Compiled, VirtualServer},
            thread::{Worker, now},
        },
    },
};

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// When its head was read, on the reactor's clock.
    pub(super) begin_us: u64,
    /// The status that the client got; 0: none.
    pub(super) status: u16,
    /// Why we refused or failed.
    pub(super) why: Option<Refused>,
    pub(super) ended: Ended,
    /// Bytes of the request's body.
    pub(super) received: u64,
    /// Bytes of the response's head.
    pub(super) head_sent: u64,
    /// Bytes of its body.
    pub(super) body_sent: u64,
}

impl Course {
    /// Of a connection that begins.
    pub(super) fn begun() -> Self {
        let (begin_us, ended) = (reactor::now_us(), Ended::default());
        Self { begin_us, status: 0, why: None, ended, received: 0, head_sent: 0, body_sent: 0 }
    }

    /// Of a request that we refused, answered by `answer` bytes.
    pub(super) fn refused(status: u16, why: Refused, answer: usize) -> Self {
        let by = if why == Refused::HeadTimeout { By::ClientTimeout } else { By::Refused };
        let ended = Ended { by, during: During::Request };
        Self { status, why: Some(why), ended, head_sent: answer as u64, ..Self::begun() }
    }

    /// How long the request took.
    pub(super) fn took(&self) -> Duration {
        Duration::from_micros(reactor::now_us().saturating_sub(self.begin_us))
    }
}

/// A request that is over.
pub(super) struct Finished<'a> {
    pub(super) facts: &'a dyn Facts,
    /// The response's head, where it is known.
    pub(super) head: Option<ResponseHead<'a>>,
    pub(super) told: &'a Told,
    pub(super) request_id: RequestId,
    pub(super) course: Course,
}

/// The response that the client got, as rules and logs see it.
struct Answered<'a> {
    status: u16,
    head: Option<ResponseHead<'a>>,
}

impl ResponseFacts for Answered<'_> {
    fn status(&self) -> u16 {
        self.status
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.head.as_ref()?.header(name)
    }
}

/// Counts a request that is over: for its virtual server, and for the node it was with.
pub(super) fn count(plan: &Compiled, server: &VirtualServer, told: &Told, course: &Course) {
    if let Some(why) = course.why {
        server.stats.refuse(why);
    }
    server.stats.finish(course.status, course.took(), course.received, course.head_sent + course.body_sent);
    if let Some((_, node)) = &told.node {
        let node = plan.node_stats(*node);
        node.bytes_sent.add(course.received);
        node.bytes_received.add(course.body_sent);
    }
}

/// Tells of a request that is over, to whoever wants to know.
pub(super) fn tell(worker: &Worker, server: &VirtualServer, finished: &Finished<'_>, edits: &mut Edits) {
    if server.is_watched() || edits.has_notes() {
        tell_all(worker, server, finished, edits);
    }
}

fn tell_all(worker: &Worker, server: &VirtualServer, finished: &Finished<'_>, edits: &mut Edits) {
    let Finished { facts, head, told, request_id, course } = finished;
    let total = course.took();
    let unix = reactor::unix();
    let answered = Answered { status: course.status, head: *head };
    let response = (course.status != 0).then_some(&answered as &dyn ResponseFacts);
    let (pool, node) = told
        .node
        .as_ref()
        .map_or(("", ""), |(pool, node)| (pool.name(), pool.nodes().get(node.index()).map_or("", |node| node.name())));
    if let Some(rules) = server.rules.as_ref().filter(|rules| rules.looks_at_completion()) {
        let (now, unix_s) = (now(), unix.as_secs());
        let virtual_server = &server.name;
        let request_id = *request_id;
        let hits = &server.hits;
        let scope = Scope { facts: *facts, response, virtual_server, pool, node, request_id, now, unix_s, hits };
        rules.evaluate_completion(&scope, edits);
    }
    raise(worker, server, *request_id, edits);
    let rule = edits.rule.zip(server.rules.as_ref()).map_or("", |(rule, rules)| rules.name(rule));
    let entry = Entry {
        facts: *facts,
        response,
        virtual_server: &server.name,
        pool,
        node,
        rule,
        reason: course.why.map_or("", Refused::name),
        request_id: *request_id,
        at: unix.saturating_sub(total),
        status: course.status,
        bytes_received: course.received,
        bytes_sent: course.head_sent + course.body_sent,
        body_bytes_sent: course.body_sent,
        timings: Timings {
            queue: Duration::from_micros(told.queue_us),
            connect: Duration::from_micros(told.connect_us),
            head: Duration::from_micros(told.head_us.saturating_sub(course.begin_us)),
            total,
        },
        retries: u8::try_from(told.attempts.saturating_sub(1)).unwrap_or(u8::MAX),
        ended: course.ended,
    };
    if let Some(log) = &server.log {
        log.log(&entry, worker.log());
    }
    if let Some(ring) = &server.ring {
        ring.remember(&entry, &worker.own_stats().recent_skipped);
    }
}

/// Hands on what rules had to say.
fn raise(worker: &Worker, server: &VirtualServer, request_id: RequestId, edits: &Edits) {
    if !edits.has_notes() {
        return;
    }
    let plan = worker.plan();
    for (kind, rule, text) in edits.notes() {
        plan.pools.shared().tell(RuleEvent {
            is_event: kind == NoteKind::Event,
            virtual_server: server.name.clone(),
            rule: server.rules.as_ref().map_or("", |rules| rules.name(rule)).to_owned(),
            request_id: request_id.to_string(),
            text: text.to_owned(),
        });
    }
}

/// Counts and tells of a request whose head was refused: nothing is known of it but its ends.
pub(super) fn refused(worker: &Worker, server: &VirtualServer, ends: &Ends, course: Course) {
    if let Some(why) = course.why {
        server.stats.refuse(why);
    }
    server.stats.finish(course.status, course.took(), course.received, course.head_sent);
    let request_id = super::policy::request_id(worker, server);
    let finished = Finished { facts: ends, head: None, told: &Told::default(), request_id, course };
    tell(worker, server, &finished, &mut Edits::default());
}

/// What outlives the request of an upgraded connection, to be told when the connection ends.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// The request's head, with where its parts are.
    pub(super) head: Vec<u8>,
    pub(super) request: Slots,
    /// Where the parts of the response's head are, which is in `told`.
    pub(super) response: Slots,
    /// The client, as trusted proxies told it.
    pub(super) client: IpAddr,
    pub(super) told: Told,
    pub(super) request_id: RequestId,
    pub(super) course: Course,
    /// Counts in limits as long as the connection lives.
    pub(super) edits: Edits,
}

impl Unfinished {
    /// Tells of the connection, `up` and `down` bytes went through.
    pub(super) fn finish(
        mut self,
        worker: &Worker,
        server: &VirtualServer,
        ends: &Ends,
        up: u64,
        down: u64,
        ended: Ended,
    ) {
        let Some(head) = request::view(&self.head, &self.request) else { return };
        let facts = RequestFacts::new(head, head.version().name(), self.client, ends.local, ends.tls.as_deref());
        let head = response::view(&self.told.response, &self.response);
        let course = Course { received: up, body_sent: down, ended, ..self.course };
        let finished = Finished { facts: &facts, head, told: &self.told, request_id: self.request_id, course };
        tell(worker, server, &finished, &mut self.edits);
    }
}
