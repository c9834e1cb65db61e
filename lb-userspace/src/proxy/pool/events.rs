//! What threads have to tell lbd: kept until it asks, bounded, never waited for.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::shared::lock;
use crate::control::proxy::ProxyEvent;

/// Events kept until lbd takes them, of nodes and of rules each; further ones are counted and dropped.
const MAX_EVENTS: usize = 1024;

/// The events of a worker.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: Mutex<EventQueue>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct EventQueue {
    all: VecDeque<ProxyEvent>,
    /// How many of them are of rules: they must not keep those of nodes out.
    rules: usize,
}

impl Events {
    /// All of them, oldest first; and how many had no room since the last call.
    pub(super) fn take(&self) -> (Vec<ProxyEvent>, u64) {
        let mut queue = lock(&self.queue);
        queue.rules = 0;
        (queue.all.drain(..).collect(), self.lost.swap(0, Relaxed))
    }

    /// Keeps one, if there is room.
    pub(super) fn push(&self, event: ProxyEvent) {
        let mut queue = lock(&self.queue);
        let of_rules = usize::from(matches!(event, ProxyEvent::Rule(_)));
        let alike = if of_rules == 1 { queue.rules } else { queue.all.len() - queue.rules };
        if alike >= MAX_EVENTS {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        queue.rules += of_rules;
        queue.all.push_back(event);
    }
}
