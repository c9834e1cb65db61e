//! Deadlines: a number in a table of the thread that is looked over at every tick, so that setting one costs a store.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use slab::Slab;

use super::{try_with, with};

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// A deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// The deadlines of a thread.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: RefCell<Slab<Rc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    at_ms: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// Wakes those whose time has come.
    pub(super) fn wake_expired(&self, now_ms: u64) {
        for (_, entry) in &*self.entries.borrow() {
            if entry.at_ms.get() <= now_ms
                && let Some(waker) = &*entry.waker.borrow()
            {
                waker.wake_by_ref();
            }
        }
    }
}

/// A deadline that is used again and again: one for a connection. Exact to [`super::TICK_MS`], never early.
#[derive(Debug)]
pub struct Deadline {
    key: usize,
    entry: Rc<Entry>,
}

impl Default for Deadline {
    fn default() -> Self {
        let entry = Rc::new(Entry { at_ms: Cell::new(NEVER), waker: RefCell::new(None) });
        let key = with(|reactor| reactor.deadlines.entries.borrow_mut().insert(Rc::clone(&entry)));
        Self { key, entry }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        try_with(|reactor| drop(reactor.deadlines.entries.borrow_mut().try_remove(self.key)));
    }
}

impl Deadline {
    /// One that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it, in milliseconds of [`super::now_ms`]; [`NEVER`] for none.
    pub fn set(&self, at_ms: u64) {
        self.entry.at_ms.set(at_ms);
    }

    /// When it is.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        self.entry.at_ms.get()
    }

    /// Ready once its time has come; else the task is woken then.
    pub fn poll(&self, context: &Context<'_>) -> Poll<Elapsed> {
        let at_ms = self.entry.at_ms.get();
        if at_ms == NEVER {
            return Poll::Pending;
        }
        if at_ms <= super::now_ms() {
            return Poll::Ready(Elapsed);
        }
        let mut waker = self.entry.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for `future`, but no longer than until `at_ms`. The deadline is unset afterwards.
    ///
    /// # Errors
    /// [`Elapsed`] when the time came first; `future` is dropped then.
    pub async fn within<F: Future>(&self, at_ms: u64, future: F) -> Result<F::Output, Elapsed> {
        self.set(at_ms);
        let mut future = pin!(future);
        let result = std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(context).map(Err),
        })
        .await;
        self.set(NEVER);
        result
    }

    /// Waits until `at_ms`.
    pub async fn sleep_until(&self, at_ms: u64) {
        // The deadline is all that can end it.
        let _ = self.within(at_ms, std::future::pending::<()>()).await;
    }
}
