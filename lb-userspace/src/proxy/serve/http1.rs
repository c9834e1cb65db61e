//! A connection of a client that speaks HTTP/1.1: request after request, and what follows the last one.

use std::{future::poll_fn, rc::Rc, task::ready};

use super::{
    Ends, http2,
    request::{self, Next, Tunnelled},
    tunnel::{End, Tunnel},
};
use crate::control::proxy::Service;
use crate::proxy::{
    buffer::Buffer,
    h1::request::{Preface, preface},
    reactor::Deadline,
    stream::Stream,
    upstream::{after, forward::Upgraded, millis},
    worker::{plan::VirtualServer, thread::Worker},
};

/// What is read of a client that we close on, so that it gets our answer and no reset (THREATS H2).
const LINGER_BYTES: usize = 64 * 1024;
const LINGER_MS: u64 = 5000;

/// Serves a connection to its end.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice, for every idle connection")]
pub(super) fn serve(
    worker: Rc<Worker>,
    id: usize,
    mut stream: Stream,
    ends: Ends,
    early: Option<Buffer>,
) -> impl Future<Output = ()> {
    async move {
        let worker = &worker;
        let mut rest = early;
        let deadline = Deadline::new();
        let mut is_first = true;
        loop {
            let buffer = match rest.take() {
                Some(buffer) => buffer,
                None => match next_bytes(worker, id, &mut stream, &deadline, is_first).await {
                    Some(buffer) => buffer,
                    None => return,
                },
            };
            // The plan as it is now, for all of this request.
            let plan = worker.plan();
            let Some(server) = plan.server(id) else { return };
            let buffer = if is_first && ends.tls.is_none() && speaks_http2(server) {
                match tell_apart(&mut stream, buffer, &deadline, after(server.settings.timeouts.request_head)).await {
                    Some((buffer, false)) => buffer,
                    Some((buffer, true)) => {
                        return Box::pin(http2::serve(worker, id, stream, ends, Some(buffer))).await;
                    }
                    None => return,
                }
            } else {
                buffer
            };
            let connection = request::Connection { worker, plan: &plan, server, ends: &ends, deadline: &deadline };
            match Box::pin(request::serve(&connection, &mut stream, buffer)).await {
                Next::Again(buffer) => rest = buffer,
                Next::Close => return,
                Next::Reset => return stream.socket().reset_on_close(),
                // What comes once, and last, is boxed: it is not to make every waiting connection larger.
                Next::Linger => return Box::pin(linger(&mut stream, &deadline)).await,
                Next::Tunnel(tunnelled) => {
                    let server = Rc::clone(server);
                    // Connections to nodes that are gone by then must not be kept for it.
                    drop(plan);
                    return Box::pin(tunnel(worker, &server, stream, &ends, *tunnelled, &deadline)).await;
                }
            }
            is_first = false;
        }
    }
}

/// Whether clients may speak HTTP/2.
fn speaks_http2(server: &VirtualServer) -> bool {
    matches!(&server.settings.service, Service::Http(http) if http.http2)
}

/// Reads until it is certain whether the client speaks HTTP/2 with prior knowledge (RFC 9113 §3.3).
async fn tell_apart(
    stream: &mut Stream,
    mut buffer: Buffer,
    deadline: &Deadline,
    until: u64,
) -> Option<(Buffer, bool)> {
    loop {
        match preface(buffer.bytes()) {
            Preface::Http2 => return Some((buffer, true)),
            Preface::Other => return Some((buffer, false)),
            Preface::Unknown => {}
        }
        let read = deadline.within(until, poll_fn(|context| stream.poll_read(context, buffer.room()))).await;
        match read.ok()?.ok()? {
            0 => return None,
            count => buffer.filled(count),
        }
    }
}

/// Waits for a request's first bytes, holding no buffer; `None` when the connection is to be closed.
async fn next_bytes(
    worker: &Worker,
    id: usize,
    stream: &mut Stream,
    deadline: &Deadline,
    is_first: bool,
) -> Option<Buffer> {
    let longest = {
        let plan = worker.plan();
        let timeouts = &plan.server(id)?.settings.timeouts;
        if is_first { timeouts.request_head } else { timeouts.keep_alive }
    };
    let read = poll_fn(|context| {
        ready!(stream.poll_readable(context))?;
        let mut buffer = Buffer::take();
        let count = ready!(stream.poll_read(context, buffer.room()))?;
        buffer.filled(count);
        std::task::Poll::Ready(std::io::Result::Ok(buffer))
    });
    deadline.within(after(longest), read).await.ok()?.ok().filter(|buffer| !buffer.is_empty())
}

/// Ends our direction and reads what the client still sends, for a while.
async fn linger(stream: &mut Stream, deadline: &Deadline) {
    let reading = async {
        let mut left = LINGER_BYTES;
        if poll_fn(|context| stream.poll_end(context)).await.is_err() {
            return;
        }
        let mut buffer = Buffer::take();
        while left > 0 {
            match poll_fn(|context| stream.poll_read(context, buffer.room())).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    // Too slow or too much: the connection is closed now.
    let _ = deadline.within(after(std::time::Duration::from_millis(LINGER_MS)), reading).await;
}

/// An upgraded connection: bytes both ways.
async fn tunnel(
    worker: &Worker,
    server: &VirtualServer,
    mut client: Stream,
    ends: &Ends,
    tunnelled: Tunnelled,
    deadline: &Deadline,
) {
    let Tunnelled { upgraded, early, unfinished } = tunnelled;
    // The lease counts the node's connection as long as the tunnel lasts.
    let Upgraded { mut node, rest, lease: _lease } = upgraded;
    let mut tunnel = Tunnel::new(early, rest, &unfinished.edits.bandwidth);
    let idle = millis(server.settings.timeouts.idle);
    let end = tunnel.run(&mut client, &mut node, deadline, idle).await;
    match end {
        End::Complete | End::Idle => {}
        End::Client => node.socket().reset_on_close(),
        End::Node => client.socket().reset_on_close(),
    }
    server.stats.bytes_received.add(tunnel.up());
    server.stats.bytes_sent.add(tunnel.down());
    unfinished.finish(worker, server, ends, tunnel.up(), tunnel.down(), end.told());
}
