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
    tunnel::{End, Tunnel},
};
use crate::control::proxy::Service;
use crate::proxy::{
    buffer::Buffer,
    client_hello::{self, ClientHello},
    facts::{Facts, TlsFacts},
    pool::{
        Lease, NodeSet, PoolId,
        retry::{Attempt, Decision, Failure},
    },
    reactor::Deadline,
    stats::Refused,
    stream::Stream,
    upstream::{self, OnBehalf, after},
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

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    server: &VirtualServer,
    mut client: Stream,
    ends: Ends,
    early: Option<Buffer>,
) {
    let deadline = Deadline::new();
    let mut early = early;
    let mut pool = server.pool;
    if let Service::Stream(settings) = &server.settings.service
        && settings.peek
    {
        let until = after(server.settings.timeouts.handshake);
        let Ok(Some((hello, bytes))) = deadline.within(until, peek(&mut client, early.take())).await else {
            server.stats.refuse(Refused::Handshake);
            return;
        };
        early = Some(bytes);
        let named = hello.server_name.and_then(|name| pool_of(&settings.by_server_name, &name).map(str::to_owned));
        pool = named.map_or(pool, |name| worker.plan().pools.id(&name));
    }
    let Some((lease, mut node)) = connect(worker, pool, &ends, &deadline).await else {
        // The client is to see that it was not served, not an empty answer.
        client.socket().reset_on_close();
        return;
    };
    let idle = u64::try_from(server.settings.timeouts.idle.as_millis()).unwrap_or(u64::MAX);
    let mut tunnel = Tunnel::new(early, None);
    let begin = now();
    match tunnel.run(&mut client, &mut node, &deadline, idle).await {
        End::Complete | End::Idle => {}
        End::Client => node.socket().reset_on_close(),
        End::Node => {
            client.socket().reset_on_close();
            if tunnel.down() == 0 {
                lease.early_close(now());
            }
        }
    }
    server.stats.bytes_received.add(tunnel.up());
    server.stats.bytes_sent.add(tunnel.down());
    if tunnel.down() > 0 {
        lease.first_byte(now() - begin, now());
    }
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
) -> Option<(Lease, Stream)> {
    let plan = worker.plan();
    let pool = pool?;
    let mut tried = NodeSet::default();
    for attempts in 1.. {
        let lease = upstream::choose(worker, &plan, pool, facts, &tried, deadline).await.ok()?;
        let behalf = OnBehalf { client: facts.client, local: facts.local, host: "" };
        match upstream::connect(&plan, &lease, behalf, deadline).await {
            Ok(stream) => return Some((lease, stream)),
            Err(error) => {
                tracing::debug!(pool = lease.pool().name(), node = lease.node().name(), %error, "no connection");
                let attempt = Attempt {
                    method: facts.method(),
                    sent: false,
                    answered: false,
                    replayable: true,
                    failure: Failure::Connect,
                    attempts,
                    timed_out: 0,
                };
                if matches!(lease.pool().after_failure(&attempt, now()), Decision::GiveUp(_)) {
                    return None;
                }
                tried.insert(lease.node().id());
            }
        }
    }
    None
}
