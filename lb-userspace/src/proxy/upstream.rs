//! The node side: choosing a node, connections to nodes that are kept, one request to a node with its response.
//!
//! Knows nothing of how the client speaks: requests come as a [`client::Client`], HTTP/1.1's and HTTP/2's alike. Must never
//! send a request that may have been executed a second time unless that changes nothing. Called by `serve`.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::pin,
    time::Duration,
};

use futures_util::future::select_ok;

use crate::control::proxy::pool::ProxyVersion;

use super::{
    facts::Facts,
    pool::{Lease, NoNode, NodeSet, PoolId},
    proxy_protocol,
    reactor::{self, Deadline, Socket},
    stats::{ConnectionToNode, Entered},
    stream::Stream,
    tls::{self, HandshakeError},
    transparent::{self, NoSource},
    worker::{
        plan::Compiled,
        thread::{Worker, now},
    },
};

/// When the kernel itself sends the first SYN again (RFC 6298 §2, `TCP_TIMEOUT_INIT`).
const KERNELS_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) mod client;
pub(crate) mod exchange;
pub(crate) mod failure;
pub(crate) mod forward;
pub(crate) mod idle;
pub(crate) mod multiplex;
pub(crate) mod shaped;
mod streamed;

/// A node for a request: at once, or after waiting in the pool's queue.
///
/// # Errors
/// When there is none, or none became free in time.
pub(crate) async fn choose(
    worker: &Worker,
    plan: &Compiled,
    pool: PoolId,
    facts: &dyn Facts,
    tried: &NodeSet,
    deadline: &Deadline,
) -> Result<Lease, NoNode> {
    let mut chosen = plan.pools.choose(pool, facts, tried, now(), worker.random());
    let mut waiting = None;
    while let Err(NoNode::Busy(Some(mut ticket))) = chosen {
        let until = millis(ticket.deadline());
        let stats = plan.pool_stats(pool);
        waiting.get_or_insert_with(|| {
            stats.queued.add(1);
            Entered::new(&stats.queue)
        });
        if deadline.within(until, &mut ticket).await.is_err() {
            stats.queue_timeouts.add(1);
            return Err(NoNode::Busy(None));
        }
        chosen = plan.pools.choose_with(ticket, pool, facts, tried, now(), worker.random());
    }
    chosen
}

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Refused, unreachable, no socket to be had.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// TLS did not come to stand: the node's certificate does not fit, for example.
    #[error("TLS: {0}")]
    Tls(HandshakeError),
    /// The node is to see the client's address, and cannot.
    #[error(transparent)]
    NoSource(#[from] NoSource),
    /// The pool's TLS could not be built.
    #[error("TLS is not set up")]
    NoTls,
    /// Nothing came back within the pool's `connect` timeout.
    #[error("no answer in time")]
    TimedOut,
}

/// Whom a connection to a node is for, as the node is told by the PROXY protocol; and the name that TLS asks for where the
/// pool names none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnBehalf<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) host: &'a str,
}

/// A new connection to the lease's node. The pool is told how it went.
///
/// # Errors
/// When the node could not be reached in the pool's time.
pub(crate) async fn connect(
    plan: &Compiled,
    lease: &Lease,
    behalf: OnBehalf<'_>,
    deadline: &Deadline,
) -> Result<Stream, ConnectError> {
    let begin = now();
    let connected = attempt(plan, lease, behalf, deadline).await;
    match &connected {
        Ok(_) => lease.connected(),
        // Nothing that the node could help.
        Err(ConnectError::NoSource(_) | ConnectError::NoTls) => {}
        Err(ConnectError::Failed(error)) if failure::is_ours(error) => {}
        Err(_) => lease.connect_failed(now().saturating_sub(begin), now()),
    }
    connected
}

async fn attempt(
    plan: &Compiled,
    lease: &Lease,
    behalf: OnBehalf<'_>,
    deadline: &Deadline,
) -> Result<Stream, ConnectError> {
    let settings = lease.pool().settings();
    let until = after(settings.timeouts.connect);
    let mut socket = reach(plan, lease, behalf.client, deadline, until).await?;
    socket.tie(Box::new(ConnectionToNode::new(plan.node_stats(lease.node().id()))));
    if let Some(version) = settings.proxy_protocol {
        let mut header = Vec::new();
        match version {
            ProxyVersion::V1 => proxy_protocol::write_v1(&mut header, behalf.client, behalf.local),
            ProxyVersion::V2 => {
                proxy_protocol::write_v2(
                    &mut header,
                    Some((behalf.client, behalf.local)),
                    &proxy_protocol::Facts::default(),
                );
            }
        }
        // A new connection takes so few bytes at once.
        let count = poll_fn(|context| socket.poll_write_vectored(context, &[IoSlice::new(&header)])).await?;
        if count < header.len() {
            return Err(ConnectError::Failed(io::ErrorKind::WriteZero.into()));
        }
    }
    let Some(setup) = plan.node_tls(lease.node().id().pool()) else {
        // A pool with TLS never falls back to plain (THREATS T10).
        return if settings.tls.is_none() { Ok(Stream::Plain(socket)) } else { Err(ConnectError::NoTls) };
    };
    let address = lease.address();
    let own = if behalf.host.is_empty() { address.ip().to_string() } else { behalf.host.to_owned() };
    match tls::connect(socket, setup, address, &own, deadline, until).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(HandshakeError::Timeout) => Err(ConnectError::TimedOut),
        Err(error) => Err(ConnectError::Tls(error)),
    }
}

/// A connection that stands. While the first SYN is not answered, a second connection is begun beside it: the kernel sends a SYN that
/// was lost again only after a second (RFC 6298 §2), which is all the time that a node has by default, and one lost packet must
/// neither fail a request nor take a node out.
async fn reach(
    plan: &Compiled,
    lease: &Lease,
    client: SocketAddr,
    deadline: &Deadline,
    until_ms: u64,
) -> Result<Socket, ConnectError> {
    let mut first = pin!(stood(begin(plan, lease, client, deadline, until_ms).await?));
    let timeout = lease.pool().settings().timeouts.connect;
    let patience = if timeout.is_zero() { KERNELS_PATIENCE } else { timeout / 3 };
    let second_ms = if patience < KERNELS_PATIENCE { after(patience) } else { until_ms };
    if let Ok(connected) = deadline.within(second_ms, first.as_mut()).await {
        return Ok(connected?);
    }
    if second_ms == until_ms {
        return Err(ConnectError::TimedOut);
    }
    tracing::debug!(node = %lease.address(), "no answer to a SYN: a second connection is begun");
    // Without sockets to spare the first has to do.
    let either = match begin(plan, lease, client, deadline, reactor::now_ms()).await {
        Ok(second) => deadline.within(until_ms, select_ok([first, pin!(stood(second))])).await.map(|won| Ok(won?.0)),
        Err(_) => deadline.within(until_ms, first).await,
    };
    Ok(either.map_err(|_| ConnectError::TimedOut)??)
}

/// Begins a connection to the lease's node, from the client's address where the pool says so.
async fn begin(
    plan: &Compiled,
    lease: &Lease,
    client: SocketAddr,
    deadline: &Deadline,
    until_ms: u64,
) -> Result<Socket, ConnectError> {
    if lease.pool().settings().transparent {
        Ok(transparent::connect(plan.sockets(), client.ip(), lease.address(), deadline, until_ms).await??)
    } else {
        Ok(Socket::connect(lease.address(), None)?)
    }
}

async fn stood(socket: Socket) -> io::Result<Socket> {
    socket.connected().await?;
    Ok(socket)
}

/// Milliseconds of the reactor's clock after `wait`; never, for zero.
pub(crate) fn after(wait: Duration) -> u64 {
    if wait.is_zero() { u64::MAX } else { reactor::now_ms().saturating_add(millis(wait)) }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
