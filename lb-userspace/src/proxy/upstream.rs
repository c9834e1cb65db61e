//! The node side: choosing a node, connections to nodes that are kept, one request to a node with its response.
//!
//! Knows nothing of how the client speaks: requests come as a [`client::Client`], HTTP/1.1's and HTTP/2's alike. Must never
//! send a request that may have been executed a second time unless that changes nothing. Called by `serve`.

use std::{io, time::Duration};

use super::{
    facts::Facts,
    pool::{Lease, NoNode, NodeSet, PoolId},
    reactor::{self, Deadline, Socket},
    stream::Stream,
    worker::{
        plan::Compiled,
        thread::{Worker, now},
    },
};

pub(crate) mod client;
pub(crate) mod exchange;
pub(crate) mod failure;
pub(crate) mod forward;
pub(crate) mod idle;

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
    while let Err(NoNode::Busy(Some(mut ticket))) = chosen {
        let until = millis(ticket.deadline());
        if deadline.within(until, &mut ticket).await.is_err() {
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
    /// Nothing came back within the pool's `connect` timeout.
    #[error("no answer in time")]
    TimedOut,
}

/// A new connection to the lease's node. The pool is told how it went.
///
/// # Errors
/// When the node could not be reached in the pool's time.
pub(crate) async fn connect(lease: &Lease, deadline: &Deadline) -> Result<Stream, ConnectError> {
    let begin = now();
    let connected = attempt(lease, deadline).await;
    match &connected {
        Ok(_) => lease.connected(),
        Err(_) => lease.connect_failed(now().saturating_sub(begin), now()),
    }
    connected
}

async fn attempt(lease: &Lease, deadline: &Deadline) -> Result<Stream, ConnectError> {
    let socket = Socket::connect(lease.address(), None)?;
    let until = after(lease.pool().settings().timeouts.connect);
    deadline.within(until, socket.connected()).await.map_err(|_| ConnectError::TimedOut)??;
    Ok(Stream::Plain(socket))
}

/// Milliseconds of the reactor's clock after `wait`; never, for zero.
pub(crate) fn after(wait: Duration) -> u64 {
    if wait.is_zero() { u64::MAX } else { reactor::now_ms().saturating_add(millis(wait)) }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
