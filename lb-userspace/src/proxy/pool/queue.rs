//! Requests that wait because every live node has its `max_connections`: first come, first served, over all threads.
//!
//! A connection that is given back calls the first that can use it; who is called chooses again by
//! [`super::Pools::choose_with`]. A caller that does not come (its client left, its time was over) passes the call on, so no call is
//! lost. Nothing polls or spins.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::shared::{SharedNode, SharedPool, lock};

/// Who waits for a node of a pool.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: Mutex<Waiters>,
    /// How many wait; read without the lock.
    waiting: AtomicU32,
    /// How many of them take any node.
    waiting_for_any: AtomicU32,
}

#[derive(Debug, Default)]
struct Waiters {
    /// Grows with each ticket: the list is sorted by it.
    last: u64,
    list: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// The only node it can use; `None`: any.
    wants: Option<Arc<SharedNode>>,
    /// It was told to choose, and did not yet.
    called: bool,
    waker: Option<Waker>,
}

impl Waiter {
    /// Whether room at `node` may be of use to it.
    fn can_use(&self, node: Option<&SharedNode>) -> bool {
        match (&self.wants, node) {
            (Some(wanted), Some(node)) => std::ptr::eq(Arc::as_ptr(wanted), node),
            (Some(_) | None, None) | (None, Some(_)) => true,
        }
    }
}

impl Queue {
    /// How many wait.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// How many wait for any node.
    #[inline]
    pub(super) fn waiting_for_any(&self) -> u32 {
        self.waiting_for_any.load(Relaxed)
    }

    /// `node` has room: calls the first that can use it.
    #[inline]
    pub(super) fn call(&self, node: &SharedNode) {
        if self.waiting() > 0 {
            self.call_from(0, Some(node));
        }
    }

    /// Some node has room, nobody knows which: calls the first; if it cannot use it, it calls the next.
    pub(super) fn call_first(&self) {
        if self.waiting() > 0 {
            self.call_from(0, None);
        }
    }

    /// Some node has room though nobody is on the way to it, as when time brought a node back: calls the first.
    pub(super) fn call_first_if_none_is(&self) {
        if self.waiting() > 0 && !lock(&self.waiters).list.iter().any(|waiter| waiter.called) {
            self.call_from(0, None);
        }
    }

    /// Calls the first after `number`, of those that can use `node`.
    #[inline(never)]
    fn call_from(&self, number: u64, node: Option<&SharedNode>) {
        let mut waiters = lock(&self.waiters);
        let next = waiters.list.iter_mut().find(|w| w.number > number && !w.called && w.can_use(node));
        let waker = next.and_then(|waiter| {
            waiter.called = true;
            waiter.waker.take()
        });
        drop(waiters);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A place in the queue: a future that is ready when it is this request's turn to choose again. Await it no longer than
/// [`Self::deadline`]; dropping it leaves the queue.
#[derive(Debug)]
pub struct Ticket {
    pool: Arc<SharedPool>,
    number: u64,
    wants: Option<Arc<SharedNode>>,
    deadline: Duration,
}

impl Ticket {
    /// A place in the queue of a pool, for `wants` or any node; `None` when `most` wait already.
    pub(super) fn take(
        pool: &Arc<SharedPool>,
        wants: Option<&Arc<SharedNode>>,
        (most, timeout): (u32, Duration),
        now: Duration,
    ) -> Option<Self> {
        let mut waiters = lock(&pool.queue.waiters);
        if waiters.list.len() >= most as usize {
            return None;
        }
        waiters.last += 1;
        let number = waiters.last;
        waiters.list.push_back(Waiter { number, wants: wants.cloned(), called: false, waker: None });
        pool.queue.waiting.fetch_add(1, Relaxed);
        match wants {
            Some(node) => &node.wanted,
            None => &pool.queue.waiting_for_any,
        }
        .fetch_add(1, Relaxed);
        drop(waiters);
        Some(Self { pool: Arc::clone(pool), number, wants: wants.cloned(), deadline: now + timeout })
    }

    /// When waiting is over (on the clock of `now`).
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// It was called and found nothing: keeps its place, and lets those behind look at what it could not use.
    pub(super) fn wait_on(&self) {
        let mut waiters = lock(&self.pool.queue.waiters);
        if let Some(waiter) = waiters.find(self.number) {
            waiter.called = false;
        }
        drop(waiters);
        self.pool.queue.call_from(self.number, None);
    }

    /// It got a node: the call was used.
    pub(super) fn served(self) {
        let mut waiters = lock(&self.pool.queue.waiters);
        if let Some(waiter) = waiters.find(self.number) {
            waiter.called = false;
        }
    }

    /// Whether it waits in the queue of this pool.
    pub(super) fn is_of(&self, pool: &Arc<SharedPool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }
}

impl Waiters {
    fn find(&mut self, number: u64) -> Option<&mut Waiter> {
        let at = self.list.binary_search_by_key(&number, |waiter| waiter.number).ok()?;
        self.list.get_mut(at)
    }
}

impl Future for Ticket {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waiters = lock(&self.pool.queue.waiters);
        let Some(waiter) = waiters.find(self.number).filter(|waiter| !waiter.called) else { return Poll::Ready(()) };
        let old = waiter.waker.replace(context.waker().clone());
        // A waker may hold the last reference to a task that waits here too: it goes when the lock is open.
        drop(waiters);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let queue = &self.pool.queue;
        let mut waiters = lock(&queue.waiters);
        let at = waiters.list.binary_search_by_key(&self.number, |waiter| waiter.number);
        let waiter = at.ok().and_then(|at| waiters.list.remove(at));
        queue.waiting.fetch_sub(1, Relaxed);
        match &self.wants {
            Some(node) => &node.wanted,
            None => &queue.waiting_for_any,
        }
        .fetch_sub(1, Relaxed);
        drop(waiters);
        if waiter.is_some_and(|waiter| waiter.called) {
            queue.call_first();
        }
    }
}
