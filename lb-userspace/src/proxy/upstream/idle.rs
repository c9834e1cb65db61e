//! Idle connections to a node, for the next request: those of one thread, one node and one way to reach it.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
};

use super::multiplex::Multiplex;
use crate::proxy::{reactor, stream::Stream};

/// Idle connections to a node.
///
/// A list belongs to one node of one pool and is begun anew when anything changes that a connection depends on (TLS, PROXY
/// protocol, source): whatever is in it fits every request of that pool.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// The longest idle first.
    kept: RefCell<Vec<Kept>>,
    /// No plan has it any more: nothing is kept.
    closed: Cell<bool>,
    /// Connections over HTTP/2, which are shared and not taken.
    pub(super) streams: Multiplex,
}

#[derive(Debug)]
struct Kept {
    stream: Stream,
    address: SocketAddr,
    since_ms: u64,
}

impl Idle {
    /// The connection to `address` that was used last and is still quiet. One that ended, or on which something came that
    /// nobody asked for, is closed.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<Stream> {
        let mut kept = self.kept.borrow_mut();
        loop {
            let at = kept.iter().rposition(|kept| kept.address == address)?;
            let stream = kept.remove(at).stream;
            if stream.is_quiet() {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection whose response is complete, unless something came after it or `most` are kept.
    pub(crate) fn put(&self, stream: Stream, address: SocketAddr, most: u32) {
        if self.closed.get() || !stream.is_quiet() {
            return;
        }
        let mut kept = self.kept.borrow_mut();
        if kept.len() < most as usize {
            kept.push(Kept { stream, address, since_ms: reactor::now_ms() });
        }
    }

    /// Closes those that were idle for `longest_ms`, that ended, that were not quiet, or whose address is not served.
    pub(crate) fn tend(&self, longest_ms: u64, serves: impl Fn(SocketAddr) -> bool) {
        let now_ms = reactor::now_ms();
        self.streams.tend(longest_ms, &serves);
        self.kept
            .borrow_mut()
            .retain(|kept| now_ms - kept.since_ms < longest_ms && kept.stream.is_quiet() && serves(kept.address));
    }

    /// Closes all of them, and those that come: no plan has it any more. Requests that run end as they began.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.kept.borrow_mut().clear();
        self.streams.close();
    }

    /// How many are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::proxy::reactor::Socket;

    async fn connection(listener: &TcpListener) -> (Stream, TcpStream) {
        let socket = Socket::connect(listener.local_addr().unwrap(), None).unwrap();
        socket.connected().await.unwrap();
        (Stream::Plain(socket), listener.accept().unwrap().0)
    }

    #[test]
    fn the_last_quiet_connection_is_taken() {
        reactor::run(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let idle = Idle::default();
            let (first, _first_peer) = connection(&listener).await;
            let (second, _second_peer) = connection(&listener).await;
            let second_local = second.socket().local_address().unwrap();
            idle.put(first, address, 8);
            idle.put(second, address, 8);
            assert!(idle.take("127.0.0.1:1".parse().unwrap()).is_none());
            assert_eq!(idle.take(address).unwrap().socket().local_address().unwrap(), second_local);
            assert_eq!(idle.len(), 1);
        })
        .unwrap();
    }

    #[test]
    fn unsolicited_bytes_and_ends_never_meet_a_request() {
        reactor::run(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let idle = Idle::default();
            let (talking, mut peer) = connection(&listener).await;
            let (closed, closed_peer) = connection(&listener).await;
            idle.put(talking, address, 8);
            idle.put(closed, address, 8);
            peer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            drop(closed_peer);
            // Events are taken in at the next round of the loop at the latest.
            reactor::Deadline::new().sleep_until(reactor::now_ms() + 1).await;
            assert!(idle.take(address).is_none());
            assert_eq!(idle.len(), 0);
        })
        .unwrap();
    }

    #[test]
    fn no_more_are_kept_than_allowed_and_none_too_long() {
        reactor::run(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let idle = Idle::default();
            let mut peers = Vec::new();
            for _ in 0..3 {
                let (stream, peer) = connection(&listener).await;
                idle.put(stream, address, 2);
                peers.push(peer);
            }
            assert_eq!(idle.len(), 2);
            idle.tend(1000, |_| true);
            assert_eq!(idle.len(), 2);
            idle.tend(1000, |_| false);
            assert_eq!(idle.len(), 0);
        })
        .unwrap();
    }
}
