//! What the threads of a worker share with whoever speaks with lbd: counters, lines of access logs, recent requests, sockets
//! that lbd made. Made once.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    control::proxy::ProxyPlan,
    proxy::{access_log::LogWriter, recent::Recent, stats::Stats, transparent::Stock},
};

/// What threads share.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) stats: Arc<Stats>,
    pub(crate) logs: LogWriter,
    pub(crate) recent: Recent,
    /// Sockets for connections from clients' addresses.
    pub(crate) sockets: Stock,
    /// Whether new requests are refused: lbd says so.
    pub(crate) memory_is_short: AtomicBool,
    /// Lines that were dropped, as far as they are in the counters.
    dropped: AtomicU64,
}

impl Records {
    /// For so many threads.
    ///
    /// # Errors
    /// The thread that writes logs cannot be made.
    pub(super) fn new(threads: usize) -> io::Result<Self> {
        Ok(Self {
            stats: Arc::new(Stats::new(threads)),
            logs: LogWriter::start()?,
            recent: Recent::new(threads),
            sockets: Stock::default(),
            memory_is_short: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        })
    }

    /// Forgets what a plan has not.
    pub(super) fn retain(&self, plan: &ProxyPlan) {
        self.stats.retain(plan);
        self.recent.retain(plan);
        let servers = plan.virtual_servers.values();
        self.logs.retain(&servers.filter_map(|server| Some(server.access_log.as_ref()?.path.as_path())).collect());
    }

    /// The file of an access log, from now on.
    pub(super) fn open_log(&self, path: &Path, file: OwnedFd) {
        self.logs.open(self.logs.sink(path), file);
    }

    /// Brings the counter of dropped lines up to date: called by the first thread, which owns it.
    pub(super) fn count_dropped(&self) {
        let dropped = self.logs.dropped();
        let before = self.dropped.swap(dropped, Relaxed);
        if let Some(thread) = self.stats.thread(0).filter(|_| dropped > before) {
            thread.own.log_lines_dropped.add(dropped - before);
        }
    }
}
