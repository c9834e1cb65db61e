//! The connections of a thread that are open, by virtual server, and when they are ended though their clients would go on:
//! while the worker drains, and when their virtual server is gone.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
};

use crate::proxy::reactor::{self, TaskKey};

/// Open connections, by their virtual servers' places.
#[derive(Debug, Default)]
pub(super) struct Open {
    tasks: RefCell<BTreeMap<usize, HashSet<TaskKey>>>,
    /// When those of a place are ended, in milliseconds of the reactor's clock.
    ends: RefCell<BTreeMap<usize, u64>>,
}

impl Open {
    /// A connection begins, as this task.
    pub(super) fn enter(&self, place: usize, task: TaskKey) {
        self.tasks.borrow_mut().entry(place).or_default().insert(task);
    }

    /// A connection has ended.
    pub(super) fn leave(&self, place: usize, task: TaskKey) {
        if let Some(tasks) = self.tasks.borrow_mut().get_mut(&place) {
            tasks.remove(&task);
        }
    }

    /// Those of a place may go on until then.
    pub(super) fn end_at(&self, place: usize, at_ms: u64) {
        self.ends.borrow_mut().insert(place, at_ms);
    }

    /// Those of a place may go on for ever.
    pub(super) fn go_on(&self, place: usize) {
        self.ends.borrow_mut().remove(&place);
    }

    /// When the next are ended.
    pub(super) fn next_ms(&self) -> u64 {
        self.ends.borrow().values().copied().min().unwrap_or(u64::MAX)
    }

    /// Ends those whose time is over.
    pub(super) fn cut(&self, now_ms: u64) {
        let mut over = Vec::new();
        self.ends.borrow_mut().retain(|place, at_ms| {
            over.extend((*at_ms <= now_ms).then_some(*place));
            *at_ms > now_ms
        });
        for place in over {
            // Taken out first: a connection that ends calls `leave`.
            let tasks = self.tasks.borrow_mut().remove(&place).unwrap_or_default();
            if !tasks.is_empty() {
                tracing::info!(connections = tasks.len(), "connections are cut: draining took too long");
            }
            tasks.into_iter().for_each(reactor::end);
        }
    }
}
