//! A thread of the worker: takes commands, holds what its connections share.

use std::{
    cell::{Cell, RefCell},
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{Shared, accept, open::Open, plan::Compiled, prepared::Prepared, records::Records};
use crate::control::proxy::{Service, VirtualServer};
use crate::proxy::{
    access_log::ThreadLog,
    pool,
    reactor::{self, Deadline, Listener, TaskKey},
    stats::OwnStats,
    tls::Gate,
    upstream::millis,
};

/// How often a thread tells that it lives, and looks after its idle connections.
const BEAT_MS: u64 = 500;

/// TLS handshakes of a thread at a time: each may hold a buffer.
const MAX_HANDSHAKES: usize = 4096;

/// What a thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Go on by this plan, with these sockets in addition.
    Swap(Arc<Prepared>, Vec<Share>),
    /// Accept no more, end what is open within this time, and that of its virtual server.
    Drain(Duration),
}

/// A thread's socket of an address.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) virtual_server: String,
    pub(super) address: SocketAddr,
    pub(super) socket: TcpListener,
}

/// What the connections of a thread share.
#[derive(Debug)]
pub(crate) struct Worker {
    plan: RefCell<Rc<Compiled>>,
    shared: Arc<Shared>,
    /// Bounds TLS handshakes.
    pub(crate) gate: Gate,
    draining: Cell<bool>,
    connections: Cell<usize>,
    /// Sockets beyond which nothing is accepted.
    most_sockets: usize,
    open: Open,
    random: Cell<u64>,
    records: Arc<Records>,
    thread: usize,
    log: ThreadLog,
    accept_failures: Cell<u64>,
}

/// A listener's task: dropping the sender ends it.
struct Accepting {
    virtual_server: String,
    address: SocketAddr,
    listener: Rc<Listener>,
    _stop: watch::Sender<bool>,
}

/// Counts a client's connection as long as it lives.
#[derive(Debug)]
pub(crate) struct Connected {
    worker: Rc<Worker>,
    place: usize,
    task: TaskKey,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.worker.count(self.worker.connections.get() - 1);
        self.worker.open.leave(self.place, self.task);
    }
}

impl Worker {
    /// The plan as it is now: a request takes it once, and keeps it.
    pub(crate) fn plan(&self) -> Rc<Compiled> {
        Rc::clone(&self.plan.borrow())
    }

    /// Whether connections are to be closed after their request.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Counts a client's connection, which `task` serves, of the virtual server at `place`.
    pub(crate) fn connected(self: &Rc<Self>, place: usize, task: TaskKey) -> Connected {
        self.count(self.connections.get() + 1);
        self.open.enter(place, task);
        Connected { worker: Rc::clone(self), place, task }
    }

    /// Whether no more connections are accepted.
    pub(super) fn is_full(&self) -> bool {
        reactor::sockets() >= self.most_sockets
    }

    /// Whether there is so little room left that clients are not kept after their requests.
    pub(crate) fn is_pressed(&self) -> bool {
        reactor::sockets() >= self.most_sockets - self.most_sockets / 8 || self.is_short_of_memory()
    }

    /// Whether there is so little memory left that requests are refused.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.records.memory_is_short.load(Ordering::Relaxed)
    }

    fn count(&self, connections: usize) {
        self.connections.set(connections);
        self.shared.connections.store(connections, Ordering::Relaxed);
    }

    /// This thread's side of the access logs.
    pub(crate) fn log(&self) -> &ThreadLog {
        &self.log
    }

    /// What this thread counts that belongs to nothing in the configuration.
    pub(crate) fn own_stats(&self) -> &OwnStats {
        &self.records.stats.thread(self.thread).expect("there are counters for every thread").own
    }

    /// What is to be done a few times a second.
    fn tend(&self) {
        self.plan.borrow().tend();
        self.log.flush();
        let panics = &self.own_stats().panics;
        panics.add(reactor::panics() - panics.read());
        if self.thread == 0 {
            self.records.count_dropped();
        }
    }

    /// A random number: for schedulers, not for secrets (xorshift64*).
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Nothing can be accepted for now. Logged once in a while: it comes again every tenth of a second.
    pub(super) fn accept_failed(&self, why: &dyn fmt::Display) {
        self.own_stats().accept_pauses.add(1);
        let before = self.accept_failures.replace(self.accept_failures.get() + 1);
        if before.is_multiple_of(600) {
            tracing::warn!(%why, "cannot accept connections: they wait in the backlog");
        }
    }
}

/// What a thread starts with.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) thread: pool::Thread,
    /// Sockets beyond which it accepts no more.
    pub(super) most_sockets: usize,
    pub(super) pools: Arc<pool::Shared>,
    pub(super) records: Arc<Records>,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
}

/// How long a thread without connections stays when it drains: what waits in the backlog is accepted first, and served.
const SETTLE_MS: u64 = 100;

/// The thread: runs until it is drained, or its commands end.
pub(super) fn main(start: Start) -> io::Result<()> {
    reactor::run(serve(start))
}

async fn serve(start: Start) {
    let Start { thread, most_sockets, pools, records, shared, mut commands } = start;
    let worker = Rc::new(Worker {
        plan: RefCell::new(Rc::new(Compiled::empty(&pools, Arc::clone(&records), thread))),
        shared,
        gate: Gate::new(MAX_HANDSHAKES),
        draining: Cell::new(false),
        connections: Cell::new(0),
        most_sockets,
        open: Open::default(),
        // Not zero, and another one in each thread and after each start: requests are told apart by it.
        random: Cell::new(RandomState::new().hash_one(thread.index) | 1),
        log: records.logs.thread(),
        records,
        thread: thread.index,
        accept_failures: Cell::new(0),
    });
    let deadline = Deadline::new();
    let mut accepting: Vec<Accepting> = Vec::new();
    let (mut settled_ms, mut end_ms) = (0, u64::MAX);
    loop {
        let now_ms = reactor::now_ms();
        worker.open.cut(now_ms);
        let is_done = worker.connections.get() == 0 && now_ms >= settled_ms;
        if worker.draining.get() && (is_done || now_ms >= end_ms) {
            return;
        }
        worker.shared.beats.fetch_add(1, Ordering::Relaxed);
        worker.tend();
        match deadline.within((now_ms + BEAT_MS).min(end_ms).min(worker.open.next_ms()), commands.recv()).await {
            Err(_) => {}
            Ok(None) => return,
            Ok(Some(Command::Swap(plan, shares))) => swap(&worker, &plan, shares, &mut accepting),
            Ok(Some(Command::Drain(longest))) => {
                accepting.clear();
                worker.draining.set(true);
                settled_ms = reactor::now_ms() + SETTLE_MS;
                end_ms = drain(&worker, longest);
            }
        }
    }
}

/// Lets each virtual server's connections go on as long as it says, and `longest` at most; when the last are cut.
fn drain(worker: &Worker, longest: Duration) -> u64 {
    let now_ms = reactor::now_ms();
    let mut last_ms = now_ms;
    for (place, server) in worker.plan.borrow().servers() {
        let at_ms = now_ms.saturating_add(millis(longest.min(server.settings.timeouts.drain)));
        worker.open.end_at(place, at_ms);
        last_ms = last_ms.max(at_ms);
    }
    // Connections that have just been cut end first.
    last_ms.saturating_add(BEAT_MS)
}

/// Compiles a plan, ends listeners that are gone from it and starts those that are new.
fn swap(worker: &Rc<Worker>, prepared: &Prepared, shares: Vec<Share>, accepting: &mut Vec<Accepting>) {
    let plan = &prepared.plan;
    let compiled = Rc::new(worker.plan.borrow().next(prepared));
    accepting.retain(|listener| {
        plan.virtual_servers
            .get(&listener.virtual_server)
            .is_some_and(|server| server.listen.contains(&listener.address))
    });
    let before = worker.plan.replace(Rc::clone(&compiled));
    before.leave(&compiled);
    for (place, server) in before.servers() {
        if compiled.server(place).is_none() {
            worker.open.end_at(place, reactor::now_ms().saturating_add(millis(server.settings.timeouts.drain)));
        }
    }
    if !worker.draining.get() {
        compiled.servers().for_each(|(place, _)| worker.open.go_on(place));
    }
    worker.shared.generation.store(plan.generation, Ordering::Relaxed);
    for share in shares {
        let Some(id) = compiled.id(&share.virtual_server) else { continue };
        let listener = match Listener::new(share.socket) {
            Ok(listener) => Rc::new(listener),
            Err(error) => {
                tracing::error!(virtual_server = share.virtual_server, address = %share.address, %error, "cannot listen");
                continue;
            }
        };
        let (stop, stopped) = watch::channel(false);
        reactor::spawn(accept::run(Rc::clone(worker), id, Rc::clone(&listener), share.address, stopped));
        let (virtual_server, address) = (share.virtual_server, share.address);
        accepting.push(Accepting { virtual_server, address, listener, _stop: stop });
    }
    for listening in &*accepting {
        let server = plan.virtual_servers.get(&listening.virtual_server);
        listening.listener.defer(server.is_some_and(client_speaks_first));
    }
}

/// Whether nothing is to be said to a client before it spoke. What stands in front of us with the PROXY protocol may open
/// connections ahead of their use.
fn client_speaks_first(server: &VirtualServer) -> bool {
    server.proxy_protocol.is_none() && (server.tls.is_some() || matches!(server.service, Service::Http(_)))
}

/// The time of this round of the loop, on the clock that all threads share.
pub(crate) fn now() -> Duration {
    Duration::from_micros(reactor::now_us())
}
