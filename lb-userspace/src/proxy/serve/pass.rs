//! One request's way, whatever its client speaks: limits and rules, to a node and back, or an answer of our own.

use std::{cell::RefCell, net::IpAddr};

use super::{
    answer,
    answer::Answer,
    finish::{self, Course, Finished, Unfinished},
    policy::{self, Decision},
    request::Connection,
};
use crate::{
    control::proxy::http::{ErrorPage, Http, Strictness},
    proxy::{
        access_log::{By, During, Ended},
        facts::{Facts, RequestFacts, RequestId},
        h1::{
            KnownSet, Slots,
            request::{Method, RequestHead, Upgrade},
            response::{self, Asked},
            write::RequestEdit,
        },
        identity::{self, Sender},
        pool::PoolId,
        reactor,
        rules::{Edits, Verdict},
        stats::{Entered, Refused},
        upstream::{
            after,
            client::Client,
            exchange::Cut,
            failure::{Failure, Fault},
            forward::{self, Outcome, Told, Upgraded},
            shaped::Shaped,
        },
        worker::{plan::VirtualServer, thread::Worker},
    },
};

/// What became of a request.
pub(super) enum Concluded {
    /// The response is with the client; whether its connection can be used again.
    Complete(bool),
    /// Bytes go both ways from here; what is left to be told ([`Work::unfinished`]) is told after them.
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
    /// See [`Told::response`].
    pub(super) answered: &'a mut Vec<u8>,
    /// Where an answer of ours is written.
    pub(super) answer: &'a mut Vec<u8>,
    /// Of a request that ends in an upgraded connection: what is told later, without the request's head.
    pub(super) unfinished: &'a mut Option<Box<Unfinished>>,
}

/// When clients may come again that were refused for want of memory.
const RETRY_AFTER_S: u32 = 5;

/// How a request ended, for its client and for who is told of it.
struct End {
    concluded: Concluded,
    status: u16,
    why: Option<Refused>,
    ended: Ended,
}

/// A request on its way.
struct Passing<'a, 'c> {
    connection: &'a Connection<'c>,
    http: &'a Http,
    head: RequestHead<'a>,
    facts: &'a RequestFacts<'a>,
    request_id: RequestId,
    /// Response rules go on with what request rules left.
    edits: &'a RefCell<Edits>,
}

/// Passes a request on to a node, or writes the answer to it, whatever the client speaks: `version`, as rules name it. Counts
/// it and tells of it.
pub(super) async fn pass_on(
    connection: &Connection<'_>,
    http: &Http,
    head: RequestHead<'_>,
    version: &'static str,
    client: &mut impl Client,
    work: Work<'_>,
) -> Concluded {
    let Work { forward: mut memory, extra, edits, answered, answer, unfinished } = work;
    let (worker, server, ends) = (connection.worker, connection.server, connection.ends);
    let begin_us = reactor::now_us();
    let peer = ends.client.ip().to_canonical();
    let client_ip = identity::client(head.fields(), peer, &http.identity);
    let facts = RequestFacts::new(head, version, client_ip, ends.local, ends.tls.as_deref());
    let request_id = policy::request_id(worker, server);
    let _active = Entered::new(&server.stats.requests_active);
    let cell = RefCell::new(std::mem::take(edits));
    let passing = Passing { connection, http, head, facts: &facts, request_id, edits: &cell };
    let mut told = Told { response: std::mem::take(answered), ..Told::default() };
    let mut shaped = Shaped::new(client);
    extra.clear();
    let end = passing.run(&mut shaped, &mut memory, &mut told, extra, answer).await;
    *edits = cell.into_inner();
    let (mut head_sent, body_sent) = (shaped.head_sent(), shaped.sent());
    if matches!(end.concluded, Concluded::Answer { .. }) {
        head_sent += answer.len() as u64;
    }
    let End { concluded, status, why, ended } = end;
    let course = Course { begin_us, status, why, ended, received: shaped.received(), head_sent, body_sent };
    if let Some((before, after)) = shaped.encoded() {
        server.stats.compressed_in.add(before);
        server.stats.compressed_out.add(after);
    }
    finish::count(connection.plan, server, &told, &course);
    if matches!(concluded, Concluded::Upgraded(_)) {
        *unfinished = Some(Box::new(Unfinished {
            head: Vec::new(),
            request: Slots::new(),
            response: std::mem::take(memory.response),
            client: facts.client,
            told,
            request_id,
            course,
            edits: std::mem::take(edits),
        }));
        return concluded;
    }
    if server.is_watched() || edits.has_notes() {
        if matches!(concluded, Concluded::Answer { .. }) {
            read_own(answer, head.method(), &mut told.response, memory.response);
        }
        let head = response::view(&told.response, memory.response);
        let finished = Finished { facts: &facts, head, told: &told, request_id, course };
        finish::tell(worker, server, &finished, edits);
    }
    *answered = told.response;
    concluded
}

/// Reads the head of an answer of ours, for who is told of it.
fn read_own(answer: &[u8], method: Method, text: &mut Vec<u8>, slots: &mut Slots) {
    text.clear();
    slots.clear();
    // What follows from an answer that cannot be read is that its fields are not told.
    if let Ok(Some(head)) = response::parse(answer, Asked { method, upgrade: b"" }, &Strictness::default(), slots) {
        text.extend_from_slice(head.bytes());
    }
}

impl Passing<'_, '_> {
    async fn run(
        &self,
        client: &mut Shaped<'_, impl Client>,
        memory: &mut forward::Memory<'_>,
        told: &mut Told,
        extra: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> End {
        let Self { connection, http, head, facts, .. } = self;
        let (worker, server) = (connection.worker, connection.server);
        if is_misdirected(server, facts) {
            return self.misdirect(client, answer);
        }
        if worker.is_short_of_memory() {
            return self.fail(client, &Failure::NoMemory, answer);
        }
        let peer = connection.ends.client.ip().to_canonical();
        let sender = sender(worker, http, head, facts.version(), peer, facts.tls().is_some());
        let drop = identity::write(extra, head.fields(), &sender, facts.client, &http.identity);
        let decision = policy::decide(connection.plan, server, facts, self.request_id, &mut self.edits.borrow_mut());
        let pool = match decision {
            Decision::Forward(Some(pool)) => pool,
            Decision::Forward(None) => return self.fail(client, &Failure::NoPool, answer),
            other @ (Decision::Answer { .. } | Decision::Drop) => return self.ruled(client, other, answer),
        };
        self.edits.borrow_mut().bandwidth.extend_from_slice(&server.bandwidth);
        client.pace(&self.edits.borrow().bandwidth);
        match self.forward(client, memory, told, extra, drop, pool).await {
            Outcome::Complete(keep) => self.went(Concluded::Complete(keep), told.status, Ended::default()),
            Outcome::Upgraded(upgraded) => self.went(Concluded::Upgraded(upgraded), told.status, Ended::default()),
            Outcome::Ruled(verdict) => self.ruled(client, of_response(verdict), answer),
            Outcome::Unanswered(failure) => self.fail(client, &failure, answer),
            Outcome::Cut(cut) => self.cut(cut, told.status),
        }
    }

    async fn forward(
        &self,
        client: &mut Shaped<'_, impl Client>,
        memory: &mut forward::Memory<'_>,
        told: &mut Told,
        extra: &mut Vec<u8>,
        drop: KnownSet,
        pool: PoolId,
    ) -> Outcome {
        let Self { connection, http, head, facts, .. } = self;
        let server = connection.server;
        let names = policy::removed(head, &self.edits.borrow());
        policy::write_added(extra, &self.edits.borrow().request);
        let own_host = head.authority().is_empty().then(|| connection.ends.local.to_string());
        let edit = RequestEdit {
            host: own_host.as_deref(),
            remove: &names,
            drop,
            extra,
            upgrade: http.strictness.allow_upgrade && head.upgrade() != Upgrade::None,
            ..RequestEdit::default()
        };
        let request = forward::Request {
            worker: connection.worker,
            plan: connection.plan,
            server,
            http,
            facts: *facts,
            peer: connection.ends.client,
            pool,
            edit,
            edits: self.edits,
            request_id: self.request_id,
            keeps_head: server.is_watched(),
            transaction_at: after(server.settings.timeouts.transaction),
            close: self.closes(),
            deadline: connection.deadline,
        };
        forward::forward(&request, client, memory, told).await
    }

    /// Whether the client's connection is closed after this request, whatever comes.
    fn closes(&self) -> bool {
        let worker = self.connection.worker;
        !self.head.keep_alive() || worker.is_draining() || worker.is_pressed()
    }

    /// Whether it is after an answer of ours.
    fn closes_after_answer(&self, client: &impl Client) -> bool {
        let is_read = client.is_last() && client.body().is_empty();
        self.closes() || !is_read
    }

    fn went(&self, concluded: Concluded, status: u16, ended: Ended) -> End {
        End { concluded, status, why: None, ended }
    }

    /// A response was begun and cannot be ended.
    fn cut(&self, cut: Cut, status: u16) -> End {
        let (why, by) = match cut {
            Cut::Node => (Refused::Truncated, By::Node),
            Cut::Client => (Refused::ClientGone, By::Client),
            Cut::Transaction => (Refused::Transaction, By::NodeTimeout),
        };
        let ended = Ended { by, during: During::Data };
        End { concluded: Concluded::Cut(cut), status, why: Some(why), ended }
    }

    /// Writes the answer to a misdirected request.
    fn misdirect(&self, client: &impl Client, answer: &mut Vec<u8>) -> End {
        let close = self.closes_after_answer(client);
        let is_head = self.head.method() == Method::Head;
        let own = Answer {
            status: 421,
            error: "http_request_error",
            details: "misdirected",
            close,
            is_head,
            retry_after_s: None,
        };
        answer::write_builtin(answer, &own);
        let ended = Ended { by: By::Refused, during: During::Request };
        End { concluded: Concluded::Answer { close }, status: own.status, why: Some(Refused::Misdirected), ended }
    }

    /// Writes what a rule or a limit answers.
    fn ruled(&self, client: &impl Client, decision: Decision, answer: &mut Vec<u8>) -> End {
        let Decision::Answer { status, retry_after, refused } = decision else {
            let ended = Ended { by: By::Refused, during: During::Request };
            return End { concluded: Concluded::Silent { reset: true }, status: 0, why: Some(Refused::Rule), ended };
        };
        let close = self.closes_after_answer(client);
        let is_head = self.head.method() == Method::Head;
        policy::write_answer(answer, status, retry_after, &self.edits.borrow(), close, is_head);
        let by = if refused == Refused::Rule {
            By::Answered
        } else if refused == Refused::RuleText {
            By::Refused
        } else {
            By::Limit
        };
        let ended = Ended { by, during: During::Request };
        End { concluded: Concluded::Answer { close }, status, why: Some(refused), ended }
    }

    /// Writes the answer to a request that no node answered.
    fn fail(&self, client: &impl Client, failure: &Failure, answer: &mut Vec<u8>) -> End {
        let verdict = failure.verdict();
        tracing::debug!(virtual_server = self.connection.server.name, %failure, "a request failed");
        let end = |concluded, status| End { concluded, status, why: Some(failure.refused()), ended: failure.ended() };
        if verdict.status == 0 {
            return end(Concluded::Silent { reset: true }, 0);
        }
        let close = self.closes_after_answer(client) || verdict.fault == Fault::Client;
        let details = failure.details();
        let mut own = answer::of_verdict(verdict, &details, close, self.head.method() == Method::Head);
        own.retry_after_s = matches!(failure, Failure::NoMemory).then_some(RETRY_AFTER_S);
        match answer::page(self.http, verdict.fault) {
            Some(ErrorPage::Close) => return end(Concluded::Silent { reset: false }, 0),
            Some(ErrorPage::Own { status, fields, body, content_type }) => {
                own.status = status.unwrap_or(own.status);
                answer::write_own(answer, &own, content_type, fields, body);
            }
            None | Some(ErrorPage::Builtin) => answer::write_builtin(answer, &own),
        }
        end(Concluded::Answer { close }, own.status)
    }
}

/// What a verdict of response rules means: they choose no pool.
fn of_response(verdict: Verdict) -> Decision {
    match policy::of_verdict(verdict) {
        Decision::Forward(_) => Decision::Drop,
        other @ (Decision::Answer { .. } | Decision::Drop) => other,
    }
}

/// Whether the certificate that the client's connection was opened with does not stand for the host it asks for (RFC 9110
/// §15.5.20, THREATS H10).
fn is_misdirected(server: &VirtualServer, facts: &RequestFacts<'_>) -> bool {
    let name = facts.tls().and_then(|tls| tls.server_name.as_deref());
    let (Some(setup), Some(name)) = (&server.tls, name) else { return false };
    !facts.host().is_empty() && !setup.serves_alike(name, facts.host())
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
