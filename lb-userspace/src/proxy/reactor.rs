//! The event loop of a worker thread: tasks, sockets and deadlines over epoll; nothing is shared with other threads.
//!
//! Why not tokio's: docs/decisions/0007-own-event-loop.md. Here an event wakes the task that owns the socket, connections
//! that never wait are never registered, and a deadline is a number in a table that is looked over ten times a second.
//! Futures, wakers and `AsyncRead`/`AsyncWrite` are the usual ones, so that `h2` and `tokio::sync` work on it; what needs
//! tokio's own runtime (`tokio::net`, `tokio::time`) does not.
//!
//! Called by `proxy::worker` (one reactor a thread) and by tests.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use slab::Slab;

pub mod deadline;
mod remote;
pub mod socket;
mod source;
mod task;

pub use deadline::{Deadline, Elapsed};
pub use socket::{Listener, Socket};

use remote::Remote;
use source::Source;
use task::Task;

/// How often deadlines are looked over: what they are exact to.
pub const TICK_MS: u64 = 100;

/// Tasks that are polled before new events are asked for.
const BATCH: usize = 128;

/// Events that are taken from the kernel at a time.
const EVENTS: usize = 256;

/// The key of the wake-up descriptor; keys of sources are indices of a slab and never come so far.
const REMOTE_KEY: u64 = u64::MAX;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// The event loop of this thread.
#[derive(Debug)]
struct Reactor {
    epoll: OwnedFd,
    sources: RefCell<Slab<Rc<Source>>>,
    tasks: RefCell<Slab<Task>>,
    ready: RefCell<VecDeque<usize>>,
    /// Who waits for the next round.
    next_round: RefCell<Vec<Waker>>,
    remote: Arc<Remote>,
    deadlines: deadline::Table,
    now_us: Cell<u64>,
    /// What the time of day is ahead of `now_us`, as of the last tick.
    unix_ahead_us: Cell<i64>,
    next_tick_ms: Cell<u64>,
    /// Open sockets but for listening ones.
    sockets: Cell<usize>,
    panics: Cell<u64>,
}

/// A task, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskKey(usize);

/// Microseconds on a clock that never goes back and is the same for all threads; begins near 0 with the process.
pub(crate) fn clock_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // Zero stands for "never" in many a field: the clock begins a second later.
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX) + 1_000_000
}

/// Runs `root`, and every task spawned meanwhile, until `root` ends; the tasks that are left are dropped then.
///
/// # Errors
/// When epoll or the wake-up descriptor cannot be made, or waiting fails.
///
/// # Panics
/// When this thread runs a reactor already.
pub fn run<T: 'static>(root: impl Future<Output = T> + 'static) -> io::Result<T> {
    let reactor = Rc::new(Reactor::new()?);
    CURRENT.with_borrow_mut(|current| {
        assert!(current.is_none(), "one reactor a thread");
        *current = Some(Rc::clone(&reactor));
    });
    let _reset = Reset(Rc::clone(&reactor));
    let result: Rc<Cell<Option<T>>> = Rc::default();
    let slot = Rc::clone(&result);
    spawn(async move { slot.set(Some(root.await)) });
    loop {
        reactor.run_ready();
        if let Some(value) = result.take() {
            return Ok(value);
        }
        if Rc::strong_count(&result) == 1 {
            return Err(io::Error::other("the root task panicked"));
        }
        reactor.wait()?;
    }
}

/// Takes the reactor off its thread, and drops its tasks while their sockets still find it.
struct Reset(Rc<Reactor>);

impl Drop for Reset {
    fn drop(&mut self) {
        while !self.0.tasks.borrow().is_empty() {
            let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
            drop(tasks);
        }
        CURRENT.with_borrow_mut(|current| *current = None);
    }
}

fn with<T>(call: impl FnOnce(&Rc<Reactor>) -> T) -> T {
    CURRENT.with_borrow(|current| call(current.as_ref().expect("only called within `reactor::run`")))
}

/// As [`with`], for what may outlive the reactor.
fn try_with(call: impl FnOnce(&Rc<Reactor>)) {
    CURRENT.with_borrow(|current| {
        if let Some(reactor) = current {
            call(reactor);
        }
    });
}

/// Starts a task on this thread's reactor. It is dropped when it ends, panics (which is logged and counted) or the reactor ends.
///
/// # Panics
/// Outside of [`run`].
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    spawn_as(|_| Box::pin(future));
}

/// As [`spawn`], for a future that knows which task it is. It is made before the task is there: it must not start or end one.
///
/// # Panics
/// Outside of [`run`].
pub fn spawn_as(make: impl FnOnce(TaskKey) -> Pin<Box<dyn Future<Output = ()>>>) {
    with(|reactor| {
        let key = reactor.tasks.borrow().vacant_key();
        let task = Task::new(make(TaskKey(key)), key, Arc::clone(&reactor.remote));
        let inserted = reactor.tasks.borrow_mut().insert(task);
        assert_eq!(inserted, key, "no task was started meanwhile");
        reactor.ready.borrow_mut().push_back(key);
    });
}

/// The time at the begin of this round of the loop, in microseconds of a clock of the process that never goes back and is
/// never 0.
///
/// # Panics
/// Outside of [`run`].
#[must_use]
pub fn now_us() -> u64 {
    with(|reactor| reactor.now_us.get())
}

/// As [`now_us`], in milliseconds.
#[must_use]
pub fn now_ms() -> u64 {
    now_us() / 1000
}

/// The time since 1970 at the begin of this round of the loop. Follows a clock that is set within [`TICK_MS`].
///
/// # Panics
/// Outside of [`run`].
#[must_use]
pub fn unix() -> Duration {
    with(|reactor| Duration::from_micros(reactor.now_us.get().saturating_add_signed(reactor.unix_ahead_us.get())))
}

/// How far the time of day is ahead of `now_us`; a clock before 1970 counts as 1970.
fn unix_ahead_us(now_us: u64) -> i64 {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(unix.as_micros()).unwrap_or(i64::MAX).saturating_sub_unsigned(now_us)
}

/// Ends a task that has not ended, and is not the one that runs: what it owns is dropped.
///
/// # Panics
/// Outside of [`run`].
pub fn end(task: TaskKey) {
    let ended = with(|reactor| reactor.tasks.borrow_mut().try_remove(task.0));
    // Here, while no table is borrowed: what a future owns may end other things of the reactor.
    drop(ended);
}

/// Connections of this thread, to whomever: each is a descriptor.
///
/// # Panics
/// Outside of [`run`].
#[must_use]
pub fn sockets() -> usize {
    with(|reactor| reactor.sockets.get())
}

/// Tasks of this thread that panicked.
#[must_use]
pub fn panics() -> u64 {
    with(|reactor| reactor.panics.get())
}

/// Lets other tasks and events go first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets everything go first that is ready, and what events come next: for work that is long and can wait.
pub async fn next_round() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        with(|reactor| reactor.next_round.borrow_mut().push(context.waker().clone()));
        Poll::Pending
    })
    .await;
}

impl Reactor {
    fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wakeup = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wakeup, epoll::EventData::new_u64(REMOTE_KEY), epoll::EventFlags::IN)?;
        let now = clock_us();
        Ok(Self {
            epoll,
            sources: RefCell::default(),
            tasks: RefCell::default(),
            ready: RefCell::default(),
            next_round: RefCell::default(),
            remote: Arc::new(Remote::new(wakeup)),
            deadlines: deadline::Table::default(),
            now_us: Cell::new(now),
            unix_ahead_us: Cell::new(unix_ahead_us(now)),
            next_tick_ms: Cell::new(now / 1000 + TICK_MS),
            sockets: Cell::new(0),
            panics: Cell::new(0),
        })
    }

    /// Polls tasks that were woken, up to a batch.
    fn run_ready(&self) {
        for _ in 0..BATCH {
            let Some(key) = self.ready.borrow_mut().pop_front() else { return };
            self.run_task(key);
        }
    }

    fn run_task(&self, key: usize) {
        // The future is taken out while it runs: it may spawn and end tasks.
        let taken = self.tasks.borrow_mut().get_mut(key).and_then(Task::take);
        let Some((mut work, waker)) = taken else { return };
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        }));
        let done = polled.unwrap_or_else(|_| {
            self.panics.set(self.panics.get() + 1);
            tracing::error!("a connection's task panicked; the others go on");
            true
        });
        if !done {
            if let Some(task) = self.tasks.borrow_mut().get_mut(key) {
                task.put_back(work, waker);
            }
            return;
        }
        let ended = self.tasks.borrow_mut().try_remove(key);
        // Dropped last: what a future owns may end other things of the reactor.
        drop((ended, work));
    }

    /// Waits for events, or asks for them where tasks are ready, and wakes who waits for them.
    fn wait(&self) -> io::Result<()> {
        let timeout = self.timeout();
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let events: &[epoll::Event] = match epoll::wait(&self.epoll, &mut space[..], timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        self.now_us.set(clock_us());
        let sources = self.sources.borrow();
        for event in events {
            let key = event.data.u64();
            if key == REMOTE_KEY {
                self.remote.drain(&mut self.ready.borrow_mut());
            } else if let Some(source) = usize::try_from(key).ok().and_then(|key| sources.get(key)) {
                source.notify(event.flags);
            }
        }
        drop(sources);
        for waker in self.next_round.borrow_mut().drain(..) {
            waker.wake();
        }
        let now_ms = self.now_us.get() / 1000;
        if now_ms >= self.next_tick_ms.get() {
            self.next_tick_ms.set(now_ms + TICK_MS);
            self.unix_ahead_us.set(unix_ahead_us(self.now_us.get()));
            self.deadlines.wake_expired(now_ms);
        }
        Ok(())
    }

    /// How long to wait: not at all while tasks are ready, until the next tick while someone has a deadline.
    fn timeout(&self) -> Option<Timespec> {
        if !self.ready.borrow().is_empty() || !self.next_round.borrow().is_empty() {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        if self.deadlines.is_empty() {
            return None;
        }
        let wait_ms = self.next_tick_ms.get().saturating_sub(clock_us() / 1000).min(TICK_MS);
        // One millisecond at least: the kernel rounds down, and a loop of empty waits would burn the rest of the tick.
        let wait_ms = i64::try_from(wait_ms.max(1)).unwrap_or(1);
        Some(Timespec { tv_sec: 0, tv_nsec: wait_ms * 1_000_000 })
    }
}

#[cfg(test)]
mod tests;
