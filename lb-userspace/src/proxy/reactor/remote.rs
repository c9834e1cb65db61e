//! Wake-ups from other threads: a list under a lock, and a descriptor that ends the wait of the loop.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

/// Where other threads leave the keys of tasks that they wake.
#[derive(Debug)]
pub(super) struct Remote {
    woken: Mutex<Vec<usize>>,
    wakeup: OwnedFd,
}

impl Remote {
    pub(super) fn new(wakeup: OwnedFd) -> Self {
        Self { woken: Mutex::default(), wakeup }
    }

    /// Leaves `key` for the reactor and ends its wait.
    pub(super) fn wake(&self, key: usize) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.push(key);
        if woken.len() == 1 {
            // Fails only when the counter is full, which ends the wait as well.
            let _ = rustix::io::write(&self.wakeup, &1u64.to_ne_bytes());
        }
    }

    /// Moves what was left to the reactor's own list.
    pub(super) fn drain(&self, ready: &mut VecDeque<usize>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only when the counter is 0 already.
        let _ = rustix::io::read(&self.wakeup, &mut [0; 8][..]);
        ready.extend(woken.drain(..));
    }
}
