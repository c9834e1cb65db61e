//! The admin API: HTTP and JSON on a unix socket, on a thread and runtime of its own, so that a question that takes long
//! never delays control.
//!
//! It knows control and the data path only as the traits of `control::query`; it decides nothing and stores nothing.
//! Called by `daemon`, which binds the socket before anything is changed ([`Socket::bind`]) and serves on it once the
//! data path is in place ([`Server::start`]).

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::watch;

use crate::control::{
    query::{AlertPath, CapturePath, Control, DataPath, EventPath, HistoryPath, ProxyPath},
    revision::Configuration,
};

mod access;
mod answer;
mod audit;
mod backup;
mod body;
mod capture;
mod config;
mod events;
mod https;
mod live;
mod lockout;
mod metrics;
mod objects;
mod openapi;
mod problem;
mod routes;
mod serve;
mod socket;
mod table;
#[cfg(test)]
mod tests;
mod users;

pub use access::Access;
pub use socket::{Socket, SocketError};

/// Questions that may block at the same time.
const MAX_BLOCKING: usize = 16;

/// Who answers.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The control task.
    pub control: Arc<dyn Control>,
    /// The configuration and its history.
    pub configuration: Arc<dyn Configuration>,
    /// The data plane.
    pub data_path: Arc<dyn DataPath>,
    /// The L7 proxy.
    pub proxy: Arc<dyn ProxyPath>,
    /// Who may ask what.
    pub access: Arc<Access>,
    /// The journal of events.
    pub events: Arc<dyn EventPath>,
    /// The main counters over time.
    pub histories: Arc<dyn HistoryPath>,
    /// Who is told of them.
    pub alerts: Arc<dyn AlertPath>,
    /// Packets as the data path decides about them.
    pub capture: Arc<dyn CapturePath>,
}

/// The running API; serves until [`Server::stop`] or drop.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers on a bound socket from now on.
    ///
    /// # Errors
    /// When the kernel refuses the thread or its event queue.
    pub fn start(socket: Socket, backend: Backend) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MAX_BLOCKING).build()?;
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let access = backend.access.clone();
            let open_to_all = access.settings().local_viewers;
            let router = routes::router(backend);
            runtime.block_on(async {
                let local = serve::serve(socket, router.clone(), open_to_all, stopped.clone());
                tokio::join!(local, https::serve(router, access, stopped));
            });
            // Questions that still block are left behind: their answers have no reader any more.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Takes no new requests, finishes those in flight for at most two seconds, and removes the socket.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin API ended by a panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
    }
}
