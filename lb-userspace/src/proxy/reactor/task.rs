//! Tasks and their wakers.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use super::{CURRENT, remote::Remote};

/// What a task does.
pub(super) type Work = Pin<Box<dyn Future<Output = ()>>>;

/// A task of the reactor. While it runs, its future and waker are not in it.
pub(super) struct Task {
    resting: Option<(Work, Waker)>,
    queue: Arc<TaskWaker>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("key", &self.queue.key).finish_non_exhaustive()
    }
}

impl Task {
    /// A task that is in the list of ready ones already, by `key`.
    pub(super) fn new(work: Work, key: usize, remote: Arc<Remote>) -> Self {
        let queue = Arc::new(TaskWaker { key, queued: AtomicBool::new(true), remote });
        Self { resting: Some((work, Waker::from(Arc::clone(&queue)))), queue }
    }

    /// What is to be polled; `None` for one that runs already.
    pub(super) fn take(&mut self) -> Option<(Work, Waker)> {
        // An exchange, as in `wake`: whoever wakes after it queues the task anew, and what was written before a wake that
        // found it queued is seen by the poll that follows.
        self.queue.queued.swap(false, Ordering::AcqRel);
        self.resting.take()
    }

    /// The end of a poll that did not end the task.
    pub(super) fn put_back(&mut self, work: Work, waker: Waker) {
        self.resting = Some((work, waker));
    }
}

/// Puts its task into the list of those that are polled next, once.
///
/// The key may be another task's when this one has ended: that one is polled for nothing then, which futures bear.
#[derive(Debug)]
struct TaskWaker {
    key: usize,
    queued: AtomicBool,
    remote: Arc<Remote>,
}

impl TaskWaker {
    /// Wakes on the reactor's own thread; `false` on others.
    fn wake_here(&self) -> bool {
        let here = CURRENT.try_with(|current| {
            let Ok(current) = current.try_borrow() else { return false };
            let Some(reactor) = current.as_ref().filter(|reactor| Arc::ptr_eq(&reactor.remote, &self.remote)) else {
                return false;
            };
            if !self.queued.load(Ordering::Relaxed) {
                self.queued.store(true, Ordering::Relaxed);
                reactor.ready.borrow_mut().push_back(self.key);
            }
            true
        });
        here.unwrap_or(false)
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.wake_here() && !self.queued.swap(true, Ordering::AcqRel) {
            self.remote.wake(self.key);
        }
    }
}
