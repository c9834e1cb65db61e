//! A request to a node and its response back: attempts, until one answers or no other may follow.

use std::{cell::RefCell, future::poll_fn, io, net::SocketAddr, rc::Rc};

use super::{
    OnBehalf, choose,
    client::Client,
    connect,
    exchange::{Cut, Exchange, Times},
    failure::Failure,
    shaped::Shaped,
};
use crate::{
    control::proxy::{
        http::Http,
        pool::{self as settings, NodeProtocol},
    },
    proxy::{
        buffer::Buffer,
        facts::{Facts, RequestId},
        h1::{Slots, write::RequestEdit},
        pool::{
            Lease, NodeId, NodeSet, Pool, PoolId,
            retry::{Attempt, Decision, GiveUp},
        },
        reactor::{self, Deadline, deadline::NEVER},
        rules::{Edits, Verdict},
        stats::Entered,
        stream::Stream,
        worker::{
            plan::{Compiled, VirtualServer},
            thread::{Worker, now},
        },
    },
};

mod response;
mod streams;

use response::{begin_response, head_came};

/// A request that is to be forwarded.
pub(crate) struct Request<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) plan: &'a Compiled,
    pub(crate) server: &'a VirtualServer,
    pub(crate) http: &'a Http,
    pub(crate) facts: &'a dyn Facts,
    /// The client's end of its connection.
    pub(crate) peer: SocketAddr,
    pub(crate) pool: PoolId,
    /// How the request's head is changed, besides what rules want; framing is added.
    pub(crate) edit: RequestEdit<'a>,
    /// What rules want changed; response rules add to it.
    pub(crate) edits: &'a RefCell<Edits>,
    pub(crate) request_id: RequestId,
    /// Whether the response's head is kept in [`Told`].
    pub(crate) keeps_head: bool,
    /// End of the whole request, on the reactor's clock; `NEVER`: none.
    pub(crate) transaction_at: u64,
    /// Whether the client's connection is closed after the response, whatever comes.
    pub(crate) close: bool,
    pub(crate) deadline: &'a Deadline,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The response is with the client; whether its connection can be used again.
    Complete(bool),
    /// The node changed protocols as it was asked to: bytes go both ways from here.
    Upgraded(Box<Upgraded>),
    /// No byte of a response went to the client.
    Unanswered(Failure),
    /// A response rule has another answer than the node: see the edits.
    Ruled(Verdict),
    /// A response was begun that cannot be ended.
    Cut(Cut),
}

/// The node's side of an upgraded connection.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) node: Stream,
    /// What came after the response's head.
    pub(crate) rest: Option<Buffer>,
    /// Counted as long as the connection lives.
    pub(crate) lease: Lease,
}

/// What is told of a forwarded request afterwards.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Status of the node's response; 0: none came.
    pub(crate) status: u16,
    /// Times that the request was sent, or was to be.
    pub(crate) attempts: u32,
    /// Pool and node that answered, or were tried last.
    pub(crate) node: Option<(Rc<Pool>, NodeId)>,
    /// When the node was asked, and when the response's head came: microseconds of the reactor's clock.
    pub(crate) asked_us: u64,
    /// See `asked_us`.
    pub(crate) head_us: u64,
    /// Whether the connection to the node was a kept one.
    pub(crate) reused: bool,
    /// Microseconds spent waiting for a free node, and for a connection to it.
    pub(crate) queue_us: u64,
    /// See `queue_us`.
    pub(crate) connect_us: u64,
    /// The head of the response, where it is told of afterwards ([`Request::keeps_head`]).
    pub(crate) response: Vec<u8>,
}

/// Memory that attempts use again.
#[derive(Debug)]
pub(crate) struct Memory<'a> {
    pub(crate) response: &'a mut Slots,
    pub(crate) to_node: &'a mut Vec<u8>,
}

/// How an attempt ended.
enum Ended {
    Complete(bool),
    Upgraded(Stream, Option<Buffer>),
    Cut(Cut),
    Ruled(Verdict),
    /// No response came, or one with a status that is tried elsewhere.
    Failed {
        failure: Failure,
        /// Whether any of the request may be with the node.
        sent: bool,
        reused: bool,
    },
}

/// Attempts so far.
#[derive(Default)]
struct Tries {
    attempts: u32,
    timed_out: u32,
}

/// Forwards a request: chooses a node, and another after a failure that allows it.
pub(crate) async fn forward(
    request: &Request<'_>,
    client: &mut Shaped<'_, impl Client>,
    memory: &mut Memory<'_>,
    told: &mut Told,
) -> Outcome {
    let mut tried = NodeSet::default();
    let mut tries = Tries::default();
    let mut last = None;
    loop {
        let Request { worker, plan, pool, facts, deadline, .. } = request;
        let begin_us = reactor::now_us();
        let chosen = choose(worker, plan, *pool, *facts, &tried, deadline).await;
        told.queue_us += reactor::now_us() - begin_us;
        let lease = match chosen {
            Ok(lease) => lease,
            // What went wrong before says more than that nothing is left to try.
            Err(none) => {
                plan.pool_stats(*pool).no_node.add(1);
                return Outcome::Unanswered(last.unwrap_or(Failure::NoNode(none)));
            }
        };
        told.node = Some((Rc::clone(lease.pool()), lease.node().id()));
        let _active = Entered::new(&plan.node_stats(lease.node().id()).requests_active);
        tries.attempts += 1;
        let mut fresh = false;
        loop {
            let (failure, sent, reused) = match attempt(request, client, memory, &lease, fresh, &tries, told).await {
                Ended::Complete(keep) => return Outcome::Complete(keep),
                Ended::Cut(cut) => return Outcome::Cut(cut),
                Ended::Ruled(verdict) => return Outcome::Ruled(verdict),
                Ended::Upgraded(node, rest) => return Outcome::Upgraded(Box::new(Upgraded { node, rest, lease })),
                Ended::Failed { failure, sent, reused } => (failure, sent, reused),
            };
            tracing::debug!(pool = lease.pool().name(), node = lease.node().name(), %failure, "an attempt failed");
            match decide(request, client, &lease, &failure, sent, reused, &mut tries) {
                Decision::SameNode => fresh = true,
                Decision::OtherNode { .. } => {
                    last = Some(failure);
                    break;
                }
                Decision::GiveUp(_) => return Outcome::Unanswered(failure),
            }
        }
        tried.insert(lease.node().id());
    }
}

/// Tells the node's pool of a failure, and asks whether another attempt may follow.
fn decide(
    request: &Request<'_>,
    client: &mut Shaped<'_, impl Client>,
    lease: &Lease,
    failure: &Failure,
    sent: bool,
    reused: bool,
    tries: &mut Tries,
) -> Decision {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whoever adds a failure says in `retried` what it is to a node")]
    match failure {
        Failure::ReplyTimeout => {
            tries.timed_out += 1;
            request.plan.node_stats(lease.node().id()).timeouts.add(1);
            lease.reply_timeout(lease.pool().settings().timeouts.reply, now());
        }
        Failure::Closed if reused => {}
        Failure::Closed | Failure::BadResponse(_) | Failure::Protocol | Failure::Interim | Failure::NodeStalled => {
            lease.early_close(now());
        }
        // Told by who connected, or by the response; or not the node's.
        _ => {}
    }
    if let Failure::Status(_) = failure {
        // Decided already: the response was given up for it.
        return if client.rewind() {
            Decision::OtherNode { repeats: true }
        } else {
            Decision::GiveUp(GiveUp::NotReplayable)
        };
    }
    let Some(kind) = failure.retried(reused) else { return Decision::GiveUp(GiveUp::Answered) };
    let attempt = Attempt {
        method: request.facts.method(),
        sent,
        answered: false,
        replayable: client.rewind(),
        failure: kind,
        attempts: tries.attempts,
        timed_out: tries.timed_out,
    };
    lease.pool().after_failure(&attempt, now())
}

/// A connection to the lease's node: a kept one that is quiet, unless it is to be `fresh`.
async fn connection(
    request: &Request<'_>,
    lease: &Lease,
    fresh: bool,
    told: &mut Told,
) -> Result<(Stream, bool), Failure> {
    if !fresh && let Some(stream) = request.plan.idle(lease.node().id()).take(lease.address()) {
        return Ok((stream, true));
    }
    connect_to(request, lease, told).await.map(|stream| (stream, false))
}

/// A new connection to the lease's node.
async fn connect_to(request: &Request<'_>, lease: &Lease, told: &mut Told) -> Result<Stream, Failure> {
    let begin_us = reactor::now_us();
    let behalf = OnBehalf { client: request.peer, local: request.facts.local(), host: request.facts.host() };
    let connected = connect(request.plan, lease, behalf, request.deadline).await;
    told.connect_us += reactor::now_us() - begin_us;
    connected.map_err(Failure::from)
}

/// Sends the request to the lease's node once, and the response to the client.
async fn attempt(
    request: &Request<'_>,
    client: &mut Shaped<'_, impl Client>,
    memory: &mut Memory<'_>,
    lease: &Lease,
    fresh: bool,
    tries: &Tries,
    told: &mut Told,
) -> Ended {
    told.attempts += 1;
    let pool_stats = request.plan.pool_stats(lease.pool().id());
    let node_stats = request.plan.node_stats(lease.node().id());
    if told.attempts > 1 {
        pool_stats.retries.add(1);
    }
    let settings = lease.pool().settings();
    if settings.protocol == NodeProtocol::Http2 {
        return streams::attempt(request, client, memory, lease, fresh, tries, told).await;
    }
    let (mut node, reused) = match connection(request, lease, fresh, told).await {
        Ok(connection) => connection,
        Err(failure) => {
            node_stats.connect_failures.add(1);
            return Ended::Failed { failure, sent: false, reused: false };
        }
    };
    if reused { &node_stats.reused } else { &node_stats.connected }.add(1);
    (told.reused, told.asked_us) = (reused, reactor::now_us());
    let mut head = std::mem::take(memory.to_node);
    head.clear();
    write_head(request, client, &mut head);
    let times = Times::new(request.transaction_at, &request.server.settings.timeouts, &settings.timeouts);
    let mut exchange = Exchange::new(&mut node, times, head, client.framing());
    let (strictness, deadline) = (&request.http.strictness, request.deadline);
    let answered = poll_fn(|context| exchange.poll_head(context, client, strictness, memory.response, deadline)).await;
    deadline.set(NEVER);
    if let Err(failure) = answered {
        // A kept connection that brought bytes was not closed because it was idle.
        let reused = reused && !exchange.is_answered();
        return Ended::Failed { failure, sent: exchange.sent, reused };
    }
    let Some(response) = exchange.head(memory.response) else { return Ended::Cut(Cut::Node) };
    if let Some(ended) = head_came(request, client, lease, &response, tries, told) {
        return ended;
    }
    let passing = begin_response(request, client, lease, &response, exchange.sent_all);
    if told.status == 101 {
        let rest = exchange.take_rest(passing.length);
        drop(exchange);
        return match flush(client).await {
            Ok(()) => Ended::Upgraded(node, rest),
            Err(_) => Ended::Cut(Cut::Client),
        };
    }
    let mut reader = exchange.begin_body(passing.length, passing.framing);
    let passed = poll_fn(|context| exchange.poll_body(context, client, &mut reader, deadline)).await;
    deadline.set(NEVER);
    if let Err(cut) = passed {
        return Ended::Cut(cut);
    }
    let sent_all = exchange.sent_all;
    *memory.to_node = exchange.into_memory();
    // Bytes after the response were not asked for: they must not meet the next request.
    if passing.node_keeps && sent_all && reader.into_rest().is_empty() && is_shared(settings) {
        request.plan.idle(lease.node().id()).put(node, lease.address(), settings.keep_alive);
    }
    Ended::Complete(!passing.close)
}

/// Writes the head of the request for the node.
fn write_head(request: &Request<'_>, client: &impl Client, head: &mut Vec<u8>) {
    let edits = request.edits.borrow();
    let edit = RequestEdit {
        path: edits.path(),
        query: edits.query(),
        host: edits.host().or(request.edit.host),
        framing: client.framing(),
        trailers: client.takes_trailers(),
        ..request.edit
    };
    client.write_head(head, &edit);
}

/// Sends what waits for the client.
async fn flush(client: &mut impl Client) -> io::Result<()> {
    poll_fn(|context| client.poll_send(context, &[], true)).await.map(|_| ())
}

/// Whether connections of a pool serve any client: not those that tell the node one client's address (THREATS H16).
fn is_shared(settings: &settings::Pool) -> bool {
    settings.proxy_protocol.is_none() && !settings.transparent
}
