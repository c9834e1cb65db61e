//! What the failover thread tells the rest of lbd.
//!
//! Readers take a share of what was told last and let go at once: one that looked at it in place, on a thread of lesser
//! priority, would hold heartbeats up for as long as it looks.

use std::sync::Arc;

use tokio::sync::watch;

/// The failover thread's end.
#[derive(Debug)]
pub(super) struct Teller<T>(watch::Sender<Arc<T>>);

/// The other end.
#[derive(Debug)]
pub struct Told<T>(watch::Receiver<Arc<T>>);

/// Both ends; until something is told it is `first`.
pub(super) fn channel<T>(first: T) -> (Teller<T>, Told<T>) {
    let (teller, told) = watch::channel(Arc::new(first));
    (Teller(teller), Told(told))
}

impl<T> Teller<T> {
    /// Replaces what was told before.
    pub(super) fn tell(&self, value: T) {
        self.0.send_replace(Arc::new(value));
    }
}

impl<T> Told<T> {
    /// What was told last.
    #[must_use]
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }
}

impl<T> Clone for Told<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tells_does_not_wait_for_who_reads() {
        let (teller, told) = channel(1);
        let read = told.now();
        teller.tell(2);
        assert_eq!((*read, *told.now()), (1, 2), "told while it is read");
    }
}
