//! Connections to a node over HTTP/2: few of them, each with many requests at a time (RFC 9113 §5).

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::sync::Mutex;

use super::failure::Failure;
use crate::proxy::{
    http2::{glitch::Level, io::Io},
    reactor::{self, Deadline},
    stream::Stream,
};

/// Connections to a node, of one thread.
const MAX_CONNECTIONS: usize = 4;

/// Requests on one of them at a time, where the node allows more.
const MAX_STREAMS: usize = 100;

/// Windows of a response and of all responses of a connection: nodes are near, and clients' windows hold them back.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of a response's head.
const MAX_HEAD: u32 = 64 * 1024;

/// Bytes of a request that wait within the connection.
const SEND_BUFFER: usize = 64 * 1024;

/// The connections to one node.
#[derive(Debug, Default)]
pub(crate) struct Multiplex {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Held while one connects: who wants one meanwhile waits for that one.
    pub(super) connecting: Mutex<()>,
}

/// A connection.
#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    sender: SendRequest<Bytes>,
    is_tls: bool,
    open: Cell<usize>,
    ended: Cell<bool>,
    idle_ms: Cell<u64>,
}

/// A place for one request on a connection.
#[derive(Debug)]
pub(super) struct Place {
    connection: Rc<Connection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.open.set(self.connection.open.get() - 1);
        self.connection.idle_ms.set(reactor::now_ms());
    }
}

impl Place {
    fn on(connection: &Rc<Connection>) -> Self {
        connection.open.set(connection.open.get() + 1);
        Self { connection: Rc::clone(connection) }
    }

    /// What sends the request.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.clone()
    }

    /// Whether the connection is within TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.connection.is_tls
    }

    /// The connection takes no more requests.
    pub(super) fn retire(&self) {
        self.connection.ended.set(true);
    }
}

impl Multiplex {
    /// A place on the connection to `address` with the fewest requests; `None`: another connection may be made.
    pub(super) fn take(&self, address: SocketAddr) -> Option<Place> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.ended.get());
        let fitting = || connections.iter().filter(|connection| connection.address == address);
        let least = fitting().min_by_key(|connection| connection.open.get())?;
        let most = least.sender.current_max_send_streams().min(MAX_STREAMS);
        // When all are full and no more may be made, requests wait in the connection.
        (least.open.get() < most || fitting().count() >= MAX_CONNECTIONS).then(|| Place::on(least))
    }

    /// A place on a new connection over `stream`; `shared`: others may come to it.
    pub(super) async fn begin(&self, stream: Stream, address: SocketAddr, shared: bool) -> Result<Place, Failure> {
        let is_tls = stream.plain().is_none();
        let (io, watch) = Io::new(stream, None, 0);
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .max_send_buffer_size(SEND_BUFFER);
        let (sender, mut driver) = builder.handshake::<_, Bytes>(io).await.map_err(|_| Failure::Closed)?;
        let (open, ended, idle_ms) = (Cell::new(0), Cell::new(false), Cell::new(reactor::now_ms()));
        let connection = Rc::new(Connection { address, sender, is_tls, open, ended, idle_ms });
        let place = Place::on(&connection);
        if shared {
            self.connections.borrow_mut().push(Rc::clone(&connection));
        }
        let ending = Rc::downgrade(&connection);
        drop(connection);
        reactor::spawn(async move {
            let result = poll_fn(|context| {
                watch.begin_round();
                let polled = Pin::new(&mut driver).poll(context);
                // A node that floods is left, as a client would be.
                if polled.is_pending() && watch.level() == Level::Close { Poll::Ready(Ok(())) } else { polled }
            })
            .await;
            if let Err(error) = result {
                tracing::debug!(node = %address, %error, "a connection over HTTP/2 failed");
            }
            if let Some(connection) = ending.upgrade() {
                connection.ended.set(true);
            }
        });
        Ok(place)
    }

    /// Lets go of all connections: they end with the requests that they carry.
    pub(super) fn close(&self) {
        let connections = std::mem::take(&mut *self.connections.borrow_mut());
        drop(connections);
    }

    /// Closes connections that ended, that were idle for `longest_ms`, or whose address is not served.
    pub(crate) fn tend(&self, longest_ms: u64, serves: impl Fn(SocketAddr) -> bool) {
        let now_ms = reactor::now_ms();
        self.connections.borrow_mut().retain(|connection| {
            let is_old = connection.open.get() == 0 && now_ms - connection.idle_ms.get() >= longest_ms;
            !connection.ended.get() && !is_old && serves(connection.address)
        });
    }
}

/// Waits until the connection takes a request, `until` then.
pub(super) async fn ready(
    sender: SendRequest<Bytes>,
    deadline: &Deadline,
    until: u64,
) -> Result<SendRequest<Bytes>, Failure> {
    match deadline.within(until, sender.ready()).await {
        Ok(Ok(sender)) => Ok(sender),
        Ok(Err(_)) => Err(Failure::Closed),
        Err(_) => Err(Failure::NodeStalled),
    }
}
