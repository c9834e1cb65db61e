//! A transfer that counts in bandwidth classes: how many of its bytes may go now, and waiting for more.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::proxy::{
    limit::{Bandwidth, Take},
    reactor::{self, Deadline, deadline::NEVER},
};

/// Bytes that a transfer may send before others of its thread have their turn.
const QUANTUM: usize = 16 * 1024;

/// The bandwidth classes of one transfer, both directions together.
#[derive(Debug)]
pub struct Pace {
    classes: Vec<Arc<Bandwidth>>,
    deadline: Deadline,
    /// It had its turn: others go first.
    went: bool,
    /// Since when it waits, in milliseconds of the reactor's clock.
    since_ms: Option<u64>,
    /// How long it waited before.
    held_ms: u64,
}

impl Pace {
    /// For a transfer that counts in these classes.
    #[must_use]
    pub fn new(classes: &[Arc<Bandwidth>]) -> Self {
        Self { classes: classes.to_vec(), deadline: Deadline::new(), went: false, since_ms: None, held_ms: 0 }
    }

    /// Counts in these classes from now on.
    pub fn set_classes(&mut self, classes: &[Arc<Bandwidth>]) {
        self.classes = classes.to_vec();
    }

    /// Ready with how many of `want` bytes may go: at least one. They are counted; what does not go is given back.
    pub fn poll_take(&mut self, context: &Context<'_>, want: usize) -> Poll<usize> {
        if std::mem::take(&mut self.went) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match self.take(want.clamp(1, QUANTUM)) {
                Ok(granted) => {
                    self.went = true;
                    self.held_ms = self.held_ms();
                    self.since_ms = None;
                    self.deadline.set(NEVER);
                    return Poll::Ready(granted);
                }
                Err(until) => {
                    self.since_ms.get_or_insert_with(reactor::now_ms);
                    let until_ms = u64::try_from(until.as_micros().div_ceil(1000)).unwrap_or(NEVER);
                    self.deadline.set(until_ms);
                    if self.deadline.poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Takes of all classes as many bytes as the scarcest has; until when to wait, if that is none.
    fn take(&self, want: usize) -> Result<usize, Duration> {
        let now = Duration::from_micros(reactor::now_us());
        let mut granted = want;
        for (i, class) in self.classes.iter().enumerate() {
            let (left, until) = match class.take(granted, now) {
                Take::Now(count) => (count, None),
                Take::Until(until) => (0, Some(until)),
            };
            for before in &self.classes[..i] {
                before.give_back(granted - left);
            }
            if let Some(until) = until {
                return Err(until);
            }
            granted = left;
        }
        Ok(granted)
    }

    /// Gives back bytes that were taken and do not go.
    pub fn give_back(&self, count: usize) {
        if count > 0 {
            self.classes.iter().for_each(|class| class.give_back(count));
        }
    }

    /// Whether it waits for its classes: nobody else is to blame that nothing moves.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.since_ms.is_some()
    }

    /// How long it waited so far, in milliseconds.
    #[must_use]
    pub fn held_ms(&self) -> u64 {
        self.held_ms + self.since_ms.map_or(0, |since_ms| reactor::now_ms().saturating_sub(since_ms))
    }
}
