//! The client side: what becomes of a connection after it is accepted.
//!
//! A connection is a task. It holds no buffer while it waits; a request's state is boxed and lives no longer than the request.
//! Called by `worker`; hands requests to `upstream`.

use std::{net::SocketAddr, rc::Rc};

use super::{reactor::Socket, stream::Stream, worker::thread::Worker};
use crate::control::proxy::Service;

mod tcp;
pub(crate) mod tunnel;

/// Serves a connection of the virtual server at place `id`, to its end.
pub(crate) async fn connection(worker: Rc<Worker>, id: usize, socket: Socket, peer: SocketAddr) {
    let connected = worker.connected();
    let Some(server) = worker.plan().server(id).cloned() else { return };
    let stream = Stream::Plain(socket);
    match &server.settings.service {
        Service::Stream(_) => tcp::serve(&worker, &server, stream, peer).await,
        Service::Http(_) => {}
    }
    drop(connected);
}
