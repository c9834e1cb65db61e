//! The client side: what becomes of a connection after it is accepted.
//!
//! A connection is a task. It holds no buffer while it waits; a request's state is boxed and lives no longer than the request.
//! Called by `worker`; hands requests to `upstream`.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use super::{
    facts::TlsFacts,
    limit::{ConnectionLease, ConnectionLimit},
    reactor::Socket,
    stats::{Refused, VirtualServerStats},
    stream::Stream,
    worker::{plan::VirtualServer, thread::Worker},
};
use crate::control::proxy::Service;

mod answer;
mod client;
mod facts;
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
}

/// Serves a connection of the virtual server at place `id`, to its end.
pub(crate) async fn connection(worker: Rc<Worker>, id: usize, socket: Socket, client: SocketAddr, local: SocketAddr) {
    let _connected = worker.connected(id);
    let Some(server) = worker.plan().server(id).cloned() else { return };
    let _counted = Counted::new(&server);
    let Some(_lease) = admit(&server, client) else { return };
    let ends = Ends { client, local, tls: None };
    let is_simple = server.settings.proxy_protocol.is_none() && server.settings.tls.is_none();
    let begun = if is_simple {
        Some((Stream::Plain(socket), ends, None))
    } else {
        // Boxed: what greeting takes is not kept for the connection's life.
        Box::pin(greeting::begin(&worker, &server, socket, ends)).await
    };
    let Some((stream, ends, early)) = begun else { return };
    match &server.settings.service {
        Service::Stream(_) => Box::pin(tcp::serve(&worker, &server, stream, ends, early)).await,
        Service::Http(_) => {
            drop(server);
            if is_http2(&stream) {
                return Box::pin(http2::serve(&worker, id, stream, ends, early)).await;
            }
            http1::serve(&worker, id, stream, ends, early).await;
        }
    }
}

/// Lets a connection in that is within the limits of the virtual server.
fn admit(server: &VirtualServer, client: SocketAddr) -> Option<ConnectionLease> {
    let refused = match server.limits.connect(client.ip()) {
        Ok(lease) => return Some(lease),
        Err(ConnectionLimit::Connections) => Refused::Connections,
        Err(ConnectionLimit::ConnectionsPerClient) => Refused::ConnectionsPerClient,
    };
    server.stats.refuse(refused);
    None
}

/// Counts a connection as long as it lives.
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
