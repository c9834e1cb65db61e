//! The client side: what becomes of a connection after it is accepted.
//!
//! A connection is a task. It holds no buffer while it waits; a request's state is boxed and lives no longer than the request.
//! Called by `worker`; hands requests to `upstream`.

use std::{net::SocketAddr, rc::Rc};

use super::{facts::TlsFacts, reactor::Socket, stream::Stream, worker::thread::Worker};
use crate::control::proxy::Service;

mod answer;
mod client;
mod facts;
mod greeting;
mod http1;
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
    let _connected = worker.connected();
    let Some(server) = worker.plan().server(id).cloned() else { return };
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
            http1::serve(&worker, id, stream, ends, early).await;
        }
    }
}
