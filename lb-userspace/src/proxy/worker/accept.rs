//! The listeners of a thread: a task for each accepts connections and starts a task for each of those.

use std::{io, net::SocketAddr, rc::Rc};

use rustix::io::Errno;
use tokio::sync::watch;

use super::thread::Worker;
use crate::proxy::{
    reactor::{self, Deadline, Listener},
    serve,
};

/// Connections that are accepted before their tasks get their turn.
const BURST: u32 = 32;

/// How long nothing is accepted when descriptors are short: connections wait in the backlog, the CPU rests.
const BACK_OFF_MS: u64 = 100;

/// Accepts until `stop` is told, or its sender is gone.
pub(super) async fn run(
    worker: Rc<Worker>,
    virtual_server: usize,
    listener: Rc<Listener>,
    address: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let deadline = Deadline::new();
    let mut burst = 0;
    let is_wildcard = address.ip().is_unspecified();
    loop {
        if worker.is_full() {
            worker.accept_failed(&"too many connections for its descriptors");
            deadline.sleep_until(reactor::now_ms() + BACK_OFF_MS).await;
            if *stop.borrow() {
                return;
            }
            continue;
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                // One socket for all addresses: each connection knows which one it came to.
                let local = if is_wildcard { socket.local_address().unwrap_or(address) } else { address };
                serve::begin(&worker, virtual_server, socket, peer, local);
                burst += 1;
                if burst >= BURST {
                    burst = 0;
                    reactor::yield_now().await;
                }
            }
            Err(error) if is_exhaustion(&error) => {
                worker.accept_failed(&error);
                deadline.sleep_until(reactor::now_ms() + BACK_OFF_MS).await;
            }
            // Of the one connection that was to be accepted, as accept(2) says of network errors.
            Err(error) => tracing::debug!(%error, "a connection failed before it was accepted"),
        }
        if *stop.borrow() {
            return;
        }
    }
}

/// Whether an error of accept(2) stays until something is freed.
fn is_exhaustion(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
