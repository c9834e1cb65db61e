//! Generic TCP: a connection gets a node, and bytes go both ways, whoever speaks first.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use super::{
    Ends,
    finish::{self, Course, Finished},
    policy,
    tunnel::{End, Tunnel},
};
use crate::control::proxy::Service;
use crate::proxy::{
    access_log::{By, During, Ended},
    buffer::Buffer,
    client_hello::{self, ClientHello},
    facts::{Facts, TlsFacts},
    pool::{
        Lease, NodeSet, PoolId,
        retry::{self, Attempt, Decision},
    },
    reactor::{self, Deadline},
    rules::Edits,
    stats::Refused,
    stream::Stream,
    upstream::{self, OnBehalf, after, failure::Failure, forward::Told},
    worker::{
        plan::VirtualServer,
        thread::{Worker, now},
    },
};

impl Facts for Ends {
    fn client(&self) -> IpAddr {
        self.client.ip().to_canonical()
    }

    fn local(&self) -> SocketAddr {
        self.local
    }

    fn method(&self) -> &str {
        ""
    }

    fn host(&self) -> &str {
        ""
    }

    fn path(&self) -> &str {
        ""
    }

    fn raw_url(&self) -> &str {
        ""
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn version(&self) -> &str {
        ""
    }

    fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_deref()
    }
}

/// Serves a connection to its end, counts it and tells of it.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    server: &VirtualServer,
    mut client: Stream,
    ends: Ends,
    early: Option<Buffer>,
) {
    let deadline = Deadline::new();
    let mut course = Course::begun();
    let mut told = Told::default();
    let request_id = policy::request_id(worker, server);
    match pass(worker, server, &mut client, &ends, early, &deadline, &mut told, &mut course).await {
        Ok(ended) => course.ended = ended,
        Err((why, ended)) => {
            (course.why, course.ended) = (Some(why), ended);
            server.stats.refuse(why);
            // The client is to see that it was not served, not an empty answer.
            client.socket().reset_on_close();
        }
    }
    server.stats.bytes_received.add(course.received);
    server.stats.bytes_sent.add(course.body_sent);
    let finished = Finished { facts: &ends, head: None, told: &told, request_id, course };
    finish::tell(worker, server, &finished, &mut Edits::default());
}

/// Gives a connection its node, and passes bytes both ways.
#[expect(clippy::too_many_arguments, reason = "a connection, and what is written down of it")]
async fn pass(
    worker: &Rc<Worker>,
    server: &VirtualServer,
    client: &mut Stream,
    ends: &Ends,
    mut early: Option<Buffer>,
    deadline: &Deadline,
    told: &mut Told,
    course: &mut Course,
) -> Result<Ended, (Refused, Ended)> {
    let refused = |by, during| Ended { by, during };
    if server.limits.request(Facts::client(ends), now()).is_err() {
        return Err((Refused::RequestsPerClient, refused(By::Limit, During::Request)));
    }
    let mut pool = server.pool;
    if let Service::Stream(settings) = &server.settings.service
        && settings.peek
    {
        let until = after(server.settings.timeouts.handshake);
        let Ok(Some((hello, bytes))) = deadline.within(until, peek(client, early.take())).await else {
            return Err((Refused::Handshake, refused(By::Refused, During::Request)));
        };
        early = Some(bytes);
        let named = hello.server_name.and_then(|name| pool_of(&settings.by_server_name, &name).map(str::to_owned));
        pool = named.map_or(pool, |name| worker.plan().pools.id(&name));
    }
    let connected = connect(worker, pool, ends, deadline, told).await;
    let (lease, mut node) = connected.map_err(|failure| (failure.refused(), failure.ended()))?;
    let idle = u64::try_from(server.settings.timeouts.idle.as_millis()).unwrap_or(u64::MAX);
    let mut tunnel = Tunnel::new(early, None, &server.bandwidth);
    let begin = now();
    let end = tunnel.run(client, &mut node, deadline, idle).await;
    match end {
        End::Complete | End::Idle => {}
        End::Client => node.socket().reset_on_close(),
        End::Node => {
            client.socket().reset_on_close();
            if tunnel.down() == 0 {
                lease.early_close(now());
            }
        }
    }
    (course.received, course.body_sent) = (tunnel.up(), tunnel.down());
    if tunnel.down() > 0 {
        lease.first_byte(now() - begin, now());
    }
    Ok(end.told())
}

/// Reads a ClientHello and gives it back with the bytes it was in; `None` when there is none.
async fn peek(client: &mut Stream, early: Option<Buffer>) -> Option<(ClientHello, Buffer)> {
    let mut buffer = early.unwrap_or_else(Buffer::take);
    buffer.reserve(client_hello::MAX_WIRE);
    loop {
        match client_hello::peek(buffer.bytes()) {
            Ok(Some(hello)) => return Some((hello, buffer)),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "no ClientHello");
                return None;
            }
        }
        match poll_fn(|context| client.poll_read(context, buffer.room())).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.filled(count),
        }
    }
}

/// The pool of a server name: by the name itself, or by `*.` in place of its first label.
fn pool_of<'a>(pools: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let by_wildcard = || pools.get(&format!("*.{}", name.split_once('.')?.1));
    pools.get(name).or_else(by_wildcard).map(String::as_str)
}

/// A node and a connection to it: another node where the first cannot be reached.
async fn connect(
    worker: &Rc<Worker>,
    pool: Option<PoolId>,
    facts: &Ends,
    deadline: &Deadline,
    told: &mut Told,
) -> Result<(Lease, Stream), Failure> {
    let plan = worker.plan();
    let pool = pool.ok_or(Failure::NoPool)?;
    let mut tried = NodeSet::default();
    let mut last = None;
    loop {
        let begin_us = reactor::now_us();
        let chosen = upstream::choose(worker, &plan, pool, facts, &tried, deadline).await;
        told.queue_us += reactor::now_us() - begin_us;
        // What went wrong before says more than that nothing is left to try.
        let lease = chosen.map_err(|none| last.take().unwrap_or(Failure::NoNode(none)))?;
        told.node = Some((Rc::clone(lease.pool()), lease.node().id()));
        told.attempts += 1;
        let begin_us = reactor::now_us();
        let behalf = OnBehalf { client: facts.client, local: facts.local, host: "" };
        let connected = upstream::connect(&plan, &lease, behalf, deadline).await;
        told.connect_us += reactor::now_us() - begin_us;
        let node_stats = plan.node_stats(lease.node().id());
        match connected {
            Ok(stream) => {
                node_stats.connected.add(1);
                return Ok((lease, stream));
            }
            Err(error) => {
                node_stats.connect_failures.add(1);
                tracing::debug!(pool = lease.pool().name(), node = lease.node().name(), %error, "no connection");
                let attempt = Attempt {
                    method: facts.method(),
                    sent: false,
                    answered: false,
                    replayable: true,
                    failure: retry::Failure::Connect,
                    attempts: told.attempts,
                    timed_out: 0,
                };
                if matches!(lease.pool().after_failure(&attempt, now()), Decision::GiveUp(_)) {
                    return Err(error.into());
                }
                last = Some(error.into());
                tried.insert(lease.node().id());
            }
        }
    }
}
