//! The engine of the worker process: a thread for each core with listeners, connections and node connections of its own.
//!
//! Threads share nothing on a request's way. A new plan reaches each thread as a message; a thread compiles it between two
//! tasks, requests that run keep what they began with, and no connection is cut. Must never open files or bind ports: the
//! listening sockets are given to it. Called by `proxy`'s worker process, and by benchmarks and tests in their own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::mpsc;

use crate::{
    control::proxy::{
        ProxyPlan,
        memory::{Session, TicketKeys},
        recent::{Filter, Record},
    },
    proxy::{pool, reactor, stats::Stats, transparent::Stock},
};

mod accept;
mod open;
pub(crate) mod plan;
pub(crate) mod prepared;
pub(crate) mod records;
pub(crate) mod thread;

#[cfg(test)]
mod tests;

use prepared::Preparer;
use records::Records;
use thread::Command;

/// Listening sockets of one address of a virtual server.
#[derive(Debug)]
pub struct Listen {
    /// The virtual server's name.
    pub virtual_server: String,
    /// The address as it stands in the virtual server's `listen`: when it is gone from there, the sockets are closed.
    pub address: SocketAddr,
    /// One socket for each thread, all bound to the address with `SO_REUSEPORT`.
    pub sockets: Vec<TcpListener>,
}

/// Starts workers' threads.
#[derive(Debug)]
pub struct Engine;

/// A running engine. Dropped, its threads end at once.
#[derive(Debug)]
pub struct Handle {
    threads: Vec<Thread>,
    pools: Arc<pool::Shared>,
    records: Arc<Records>,
    preparer: Mutex<Preparer>,
}

#[derive(Debug)]
struct Thread {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    join: Option<JoinHandle<io::Result<()>>>,
}

/// What a thread tells of itself: written by it alone.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Grows as long as the thread turns, at least once a second.
    beats: AtomicU64,
    connections: AtomicUsize,
    generation: AtomicU64,
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Grows at least once a second while the thread serves: one that stands still hangs.
    pub beats: u64,
    /// Client connections.
    pub connections: usize,
    /// Generation of the plan it serves by.
    pub generation: u64,
    /// Whether it has ended.
    pub ended: bool,
}

impl Engine {
    /// Starts `threads` threads that serve `plan` on `listeners`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(plan: Arc<ProxyPlan>, listeners: Vec<Listen>, threads: usize) -> io::Result<Handle> {
        let pools = pool::Shared::new();
        let most_sockets = most_sockets(threads)?;
        let records = Arc::new(Records::new(threads)?);
        let mut started = Vec::with_capacity(threads);
        for index in 0..threads {
            let (commands, receiver) = mpsc::unbounded_channel();
            let shared = Arc::new(Shared::default());
            let start = thread::Start {
                thread: pool::Thread { index, count: threads },
                most_sockets,
                pools: Arc::clone(&pools),
                records: Arc::clone(&records),
                shared: Arc::clone(&shared),
                commands: receiver,
            };
            let join =
                std::thread::Builder::new().name(format!("lb-worker-{index}")).spawn(move || thread::main(start))?;
            started.push(Thread { commands, shared, join: Some(join) });
        }
        let handle = Handle { threads: started, pools, records, preparer: Mutex::default() };
        handle.swap(plan, listeners);
        Ok(handle)
    }
}

/// Descriptors that are for neither clients nor nodes: listeners, pipes, files of logs.
const OTHER_DESCRIPTORS: u64 = 64;

/// Sockets beyond which a thread accepts no more: a quarter of what the process may open is kept for connections to nodes, which
/// those who are inside may need.
fn most_sockets(threads: usize) -> io::Result<usize> {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let sockets = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX);
    Ok((sockets / 4 * 3 / threads.max(1)).max(1))
}

impl Handle {
    /// Lets all threads go on by `plan`, with the sockets of addresses that are new in it. Requests that run end as they
    /// began, no connection is cut, and sockets of addresses that are gone are closed.
    pub fn swap(&self, plan: Arc<ProxyPlan>, added: Vec<Listen>) {
        let mut shares: Vec<Vec<thread::Share>> = self.threads.iter().map(|_| Vec::new()).collect();
        for listen in added {
            for (share, socket) in shares.iter_mut().zip(listen.sockets) {
                share.push(thread::Share {
                    virtual_server: listen.virtual_server.clone(),
                    address: listen.address,
                    socket,
                });
            }
        }
        // Held until all threads are told: plans reach each of them in the order of the calls.
        let mut preparer = self.preparer.lock().unwrap_or_else(PoisonError::into_inner);
        self.records.retain(&plan);
        self.records.sockets.prepare(&plan);
        self.pools.size_tables(&plan);
        let prepared = Arc::new(preparer.prepare(plan));
        for (thread, share) in self.threads.iter().zip(shares) {
            thread.send(Command::Swap(Arc::clone(&prepared), share));
        }
    }

    /// Stops accepting, lets requests end, and tells clients to come again on another connection; what is still open after
    /// `longest` is cut. Returns at once; [`Handle::is_done`] tells the end.
    pub fn drain(&self, longest: Duration) {
        for thread in &self.threads {
            thread.send(Command::Drain(longest));
        }
    }

    /// Whether all threads have ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.threads.iter().all(|thread| thread.join.as_ref().is_none_or(JoinHandle::is_finished))
    }

    /// What each thread is doing.
    #[must_use]
    pub fn states(&self) -> Vec<ThreadState> {
        self.threads.iter().map(Thread::state).collect()
    }

    /// What the threads share of their pools: events of passive monitoring, operators' words about nodes.
    #[must_use]
    pub fn pools(&self) -> &Arc<pool::Shared> {
        &self.pools
    }

    /// What the threads count.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.records.stats
    }

    /// The recent requests that pass the filter, newest first.
    #[must_use]
    pub fn recent(&self, filter: &Filter) -> Vec<Record> {
        self.records.recent.list(filter)
    }

    /// Sockets for connections from clients' addresses, which lbd makes.
    #[must_use]
    pub fn sockets(&self) -> &Stock {
        &self.records.sockets
    }

    /// Gives an access log its file, or another one. To be called before the plan that names the log for the first time.
    pub fn open_log(&self, path: &Path, file: OwnedFd) {
        self.records.open_log(path, file);
    }

    /// Whether new requests are refused, because there is hardly any memory left.
    pub fn memory_is_short(&self, is_short: bool) {
        self.records.memory_is_short.store(is_short, Ordering::Relaxed);
    }

    /// Sessions that lbd has not been told of as they are now, up to about `most`.
    #[must_use]
    pub fn take_sessions(&self, most: usize) -> Vec<Session> {
        self.pools.take_sessions(most, now())
    }

    /// Makes room for the sessions of a plan that is about to come.
    pub fn make_room(&self, plan: &ProxyPlan) {
        self.pools.size_tables(plan);
    }

    /// Takes in sessions of another machine, or of an earlier worker.
    pub fn import_sessions(&self, sessions: &[Session]) {
        self.pools.import(sessions, now());
    }

    /// Makes and opens TLS tickets with these keys from now on.
    pub fn set_ticket_keys(&self, keys: TicketKeys) {
        self.preparer.lock().unwrap_or_else(PoisonError::into_inner).tickets().set(keys);
    }

    /// Takes a node back that passive monitoring took out.
    pub fn bring_back(&self, pool: &str, node: &str) {
        // Whether it was out makes no difference.
        let _ = self.pools.bring_back(pool, node, now());
    }

    /// Waits until all threads have ended, after [`Handle::drain`].
    ///
    /// # Errors
    /// The first thread's that failed.
    pub fn join(mut self) -> io::Result<()> {
        let joins = self.threads.iter_mut().filter_map(|thread| thread.join.take()).collect::<Vec<_>>();
        let ended =
            joins.into_iter().map(|join| join.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
        // All are waited for, also after one that failed.
        ended.fold(Ok(()), io::Result::and)
    }
}

/// The time by which the threads count.
fn now() -> Duration {
    Duration::from_micros(reactor::clock_us())
}

impl Thread {
    fn send(&self, command: Command) {
        // A thread that has ended takes no command; `states` tells that it has.
        let _ = self.commands.send(command);
    }

    fn state(&self) -> ThreadState {
        ThreadState {
            beats: self.shared.beats.load(Ordering::Relaxed),
            connections: self.shared.connections.load(Ordering::Relaxed),
            generation: self.shared.generation.load(Ordering::Relaxed),
            ended: self.join.as_ref().is_none_or(JoinHandle::is_finished),
        }
    }
}
