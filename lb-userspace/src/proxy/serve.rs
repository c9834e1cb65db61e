//! The client side: what becomes of a connection after it is accepted.
//!
//! A connection is a task. It holds no buffer while it waits; a request's state is boxed and lives no longer than the request.
//! Called by `worker`; hands requests to `upstream`.

use std::{net::SocketAddr, pin::Pin, rc::Rc, sync::Arc};

use super::{
    buffer::Buffer,
    facts::TlsFacts,
    limit::{ConnectionLease, ConnectionLimit},
    reactor::{self, Socket},
    stats::{Refused, VirtualServerStats},
    stream::Stream,
    worker::{
        plan::VirtualServer,
        thread::{Connected, Worker},
    },
};
use crate::control::proxy::Service;

mod answer;
mod client;
mod finish;
mod greeting;
mod http1;
mod http2;
mod pass;
mod policy;
mod request;
mod scratch;
mod tcp;
#[cfg(test)]
mod tests;
mod tunnel;

/// Who is at the ends of a client's connection.
#[derive(Debug)]
pub(crate) struct Ends {
    /// The client, or the proxy in front of us.
    pub(crate) client: SocketAddr,
    /// What it connected to.
    pub(crate) local: SocketAddr,
    /// What its TLS handshake said.
    pub(crate) tls: Option<Box<TlsFacts>>,
    /// What counts it as long as it lives.
    _held: Held,
}

/// A connection's place in counters and limits.
#[derive(Debug)]
struct Held {
    _connected: Connected,
    _counted: Counted,
    _lease: ConnectionLease,
}

/// What serves a connection from its first own byte on.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Starts a task that serves a connection of the virtual server at place `id`, to its end.
pub(crate) fn begin(worker: &Rc<Worker>, id: usize, socket: Socket, client: SocketAddr, local: SocketAddr) {
    let Some(server) = worker.plan().server(id).cloned() else { return };
    let counted = Counted::new(&server);
    let Some(lease) = admit(worker, &server, client) else { return };
    reactor::spawn_as(|task| {
        let held = Held { _connected: worker.connected(id, task), _counted: counted, _lease: lease };
        let ends = Ends { client, local, tls: None, _held: held };
        let worker = Rc::clone(worker);
        if server.settings.proxy_protocol.is_none() && server.settings.tls.is_none() {
            // The task is what serves, and nothing around it: it is woken again and again.
            return serving(worker, server, id, Stream::Plain(socket), ends, None);
        }
        Box::pin(async move {
            // Boxed, one after the other: what greeting takes is not kept for the connection's life.
            if let Some(serving) = Box::pin(greet(worker, server, id, socket, ends)).await {
                serving.await;
            }
        })
    });
}

/// What serves a connection after its greeting; `None`: it was refused.
async fn greet(
    worker: Rc<Worker>,
    server: Rc<VirtualServer>,
    id: usize,
    socket: Socket,
    ends: Ends,
) -> Option<Serving> {
    let (stream, ends, early) = greeting::begin(&worker, &server, socket, ends).await?;
    Some(serving(worker, server, id, stream, ends, early))
}

fn serving(
    worker: Rc<Worker>,
    server: Rc<VirtualServer>,
    id: usize,
    stream: Stream,
    ends: Ends,
    early: Option<Buffer>,
) -> Serving {
    match &server.settings.service {
        Service::Stream(_) => Box::pin(async move { tcp::serve(&worker, &server, stream, ends, early).await }),
        Service::Http(_) if is_http2(&stream) => {
            Box::pin(async move { http2::serve(&worker, id, stream, ends, early).await })
        }
        Service::Http(_) => Box::pin(http1::serve(worker, id, stream, ends, early)),
    }
}

/// Lets a connection in that is within the limits of the virtual server. Where no answer can say why, none comes in while memory is short.
fn admit(worker: &Worker, server: &VirtualServer, client: SocketAddr) -> Option<ConnectionLease> {
    if worker.is_short_of_memory() && matches!(server.settings.service, Service::Stream(_)) {
        server.stats.refuse(Refused::Memory);
        return None;
    }
    let refused = match server.limits.connect(client.ip()) {
        Ok(lease) => return Some(lease),
        Err(ConnectionLimit::Connections) => Refused::Connections,
        Err(ConnectionLimit::ConnectionsPerClient) => Refused::ConnectionsPerClient,
    };
    server.stats.refuse(refused);
    None
}

/// Counts a connection as long as it lives.
#[derive(Debug)]
struct Counted(Arc<VirtualServerStats>);

impl Counted {
    fn new(server: &VirtualServer) -> Self {
        server.stats.accepted.add(1);
        server.stats.connections.enter();
        Self(Arc::clone(&server.stats))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.leave();
    }
}

/// Whether HTTP/2 was agreed on by ALPN.
fn is_http2(stream: &Stream) -> bool {
    matches!(stream, Stream::Tls(stream) if stream.alpn() == Some(b"h2"))
}
