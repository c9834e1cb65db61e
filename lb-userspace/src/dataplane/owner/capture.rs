//! The capturing programs in the place of those that forward, and back. They forward just the same: whatever fails, and
//! whenever lbd ends, packets go on.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Instant,
};

use super::{Dataplane, DataplaneError};
use crate::dataplane::{
    attach::{AttachError, exchange, put_back},
    load::Program,
};

/// A capturing program that was loaded for an interface.
pub struct Capturing {
    /// Interface.
    pub interface: String,
    /// Its index when it was loaded.
    pub ifindex: u32,
    /// The program.
    pub program: Program,
}

impl fmt::Debug for Capturing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capturing").field("interface", &self.interface).finish_non_exhaustive()
    }
}

/// The capture that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// Gone when nobody reads it any more.
    reader: Weak<()>,
    until: Instant,
    /// Interfaces and the ids of their capturing programs.
    programs: Vec<(String, u32)>,
}

impl Running {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.reader.strong_count() == 0
    }
}

impl Dataplane {
    /// Puts capturing programs in the place of those that forward, until that time, or until what is answered is dropped. All
    /// of them, or none.
    ///
    /// # Errors
    /// When a program cannot be exchanged.
    pub fn capture(&mut self, programs: Vec<Capturing>, until: Instant) -> Result<Arc<()>, DataplaneError> {
        self.end_capture();
        let reader = Arc::new(());
        let running = Running { reader: Arc::downgrade(&reader), until, programs: Vec::new() };
        let running = self.capturing.insert(running);
        for Capturing { interface, ifindex, mut program } in programs {
            let is_there = self
                .interfaces
                .iter()
                .any(|(name, attached)| name == interface && attached.ifindex == ifindex && attached.mode.is_some());
            // It went a moment ago: nothing comes in by it.
            if !is_there {
                continue;
            }
            match exchange(&self.pins, &interface, &mut program) {
                Ok(id) => running.programs.push((interface, id)),
                Err(error) => {
                    self.end_capture();
                    return Err(error.into());
                }
            }
        }
        let interfaces: Vec<&str> = running.programs.iter().map(|(interface, _)| interface.as_str()).collect();
        tracing::info!(interfaces = interfaces.join(","), "packets are captured");
        Ok(reader)
    }

    /// Puts the programs that only forward back, where capturing ones still are.
    pub fn end_capture(&mut self) {
        let Some(running) = self.capturing.take() else { return };
        for (interface, id) in running.programs {
            match put_back(&self.pins, &interface, id) {
                Ok(()) => tracing::info!(interface, "packets are not captured any more"),
                // It forwards, and captures nothing from its deadline on: worth a look, no more.
                Err(error) => say_left(&interface, &error),
            }
        }
    }
}

fn say_left(interface: &str, error: &AttachError) {
    tracing::error!(interface, %error, "the capturing program stays on the interface until lbd starts again; it forwards");
}
