//! Which authentic heartbeats may be believed: everybody on the segment can record one and send it again.
//!
//! A heartbeat is fresh when its sender echoes the boot number of this very start of ours, which nobody could know before;
//! from then on only greater sequence numbers count. Until the sender has heard us it is believed when its clock and ours
//! are close, so that an owner that cannot hear us is not taken for dead. A start that is not believed yet is echoed as well: if it
//! lives, its next heartbeat answers with our boot number; a recording cannot. So machines whose clocks differ find each other, too.
//!
//! Every heartbeat comes by every path. What came first by another one is a copy; what came by the same one before is not.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Boot, Heartbeat};
use crate::failover::election::MachineId;

/// How far two clocks may be apart at first contact.
const CLOCK_WINDOW_MS: u64 = 5_000;

/// Earlier starts of a machine that are remembered, so that recordings of them are refused.
const MAX_RETIRED: usize = 16;

/// Starts that are not believed yet and are echoed all the same.
const MAX_CANDIDATES: usize = 16;

/// Machines that are known at a time. A cluster has a handful; more would be forged with the cluster's own key.
const MAX_MACHINES: usize = 32;

/// Paths that are told apart for each machine.
const MAX_PATHS: usize = 32;

/// How a heartbeat came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Which of our sockets.
    pub socket: usize,
    /// From where.
    pub from: SocketAddr,
}

/// Why an authentic heartbeat is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is our own: a loop or a mirror in the network.
    #[error("it is this machine's own: something in the network sends frames back")]
    Own,
    /// It came by another path before: as it should be.
    #[error("it came by another path before")]
    Copy,
    /// It is older than what was heard: a recording, or overtaken on the way.
    #[error("it was heard before, or is older than what was heard")]
    Stale,
    /// Its sender has not heard this start of ours, and the clocks are too far apart to tell whether it is new.
    #[error("it may be a recording: its sender has not heard this machine yet, and the clocks differ by more than 5 s")]
    Unproven,
    /// Too many machines.
    #[error("there are more machines than a cluster can have")]
    TooMany,
}

#[derive(Debug)]
struct Known {
    boot: Boot,
    sequence: u64,
    /// The last one of each path.
    paths: BTreeMap<Path, u64>,
    /// Whether this boot was proven by an echo.
    proven: bool,
    retired: VecDeque<Boot>,
    heard: Instant,
}

/// What was heard of whom.
#[derive(Debug)]
pub struct Freshness {
    own: MachineId,
    boot: Boot,
    known: BTreeMap<MachineId, Known>,
    /// Starts that are not believed yet, the newest last.
    candidates: VecDeque<(MachineId, Boot, Instant)>,
}

impl Known {
    /// What a heartbeat is that is not newer than what was heard.
    fn repeated(&mut self, path: Path, sequence: u64) -> Refused {
        let is_copy = self.paths.get(&path).is_none_or(|last| *last < sequence);
        if is_copy && self.note(path, sequence) { Refused::Copy } else { Refused::Stale }
    }

    /// Notes what came by a path; whether there was room for it.
    fn note(&mut self, path: Path, sequence: u64) -> bool {
        let has_room = self.paths.len() < MAX_PATHS || self.paths.contains_key(&path);
        if has_room {
            self.paths.insert(path, sequence);
        }
        has_room
    }
}

impl Freshness {
    /// Of a machine and this start of its lbd.
    #[must_use]
    pub fn new(own: MachineId, boot: Boot) -> Self {
        Self { own, boot, known: BTreeMap::new(), candidates: VecDeque::new() }
    }

    /// Takes an authentic heartbeat; `wall_ms` is our wall clock.
    ///
    /// # Errors
    /// When it must not be believed.
    pub fn accept(&mut self, heartbeat: &Heartbeat, path: Path, now: Instant, wall_ms: u64) -> Result<(), Refused> {
        let outcome = self.judge(heartbeat, path, now, wall_ms);
        let is_this =
            |(machine, boot, _): &(MachineId, Boot, Instant)| (*machine, *boot) == (heartbeat.sender, heartbeat.boot);
        self.candidates.retain(|candidate| !is_this(candidate));
        if outcome == Err(Refused::Unproven) {
            self.candidates.push_back((heartbeat.sender, heartbeat.boot, now));
            if self.candidates.len() > MAX_CANDIDATES {
                self.candidates.pop_front();
            }
        }
        outcome
    }

    fn judge(&mut self, heartbeat: &Heartbeat, path: Path, now: Instant, wall_ms: u64) -> Result<(), Refused> {
        if heartbeat.sender == self.own {
            return Err(Refused::Own);
        }
        let proven = heartbeat.hears(self.own, self.boot);
        let close = heartbeat.sent_ms.abs_diff(wall_ms) <= CLOCK_WINDOW_MS;
        let Some(known) = self.known.get_mut(&heartbeat.sender) else {
            if self.known.len() >= MAX_MACHINES {
                return Err(Refused::TooMany);
            }
            if !proven && !close {
                return Err(Refused::Unproven);
            }
            let (boot, sequence) = (heartbeat.boot, heartbeat.sequence);
            let paths = BTreeMap::from([(path, sequence)]);
            let known = Known { boot, sequence, paths, proven, retired: VecDeque::new(), heard: now };
            self.known.insert(heartbeat.sender, known);
            return Ok(());
        };
        if known.boot == heartbeat.boot {
            if heartbeat.sequence <= known.sequence {
                return Err(known.repeated(path, heartbeat.sequence));
            }
            if !proven && !known.proven && !close {
                return Err(Refused::Unproven);
            }
        } else {
            if known.retired.contains(&heartbeat.boot) {
                return Err(Refused::Stale);
            }
            if !proven && !close {
                return Err(Refused::Unproven);
            }
            known.retired.push_back(known.boot);
            if known.retired.len() > MAX_RETIRED {
                known.retired.pop_front();
            }
            known.proven = false;
            known.paths.clear();
        }
        known.proven |= proven;
        (known.boot, known.sequence, known.heard) = (heartbeat.boot, heartbeat.sequence, now);
        known.note(path, heartbeat.sequence);
        Ok(())
    }

    /// Whom we have heard within `time`, believed or not yet: what our heartbeats echo.
    pub fn echoes(&self, now: Instant, time: Duration) -> impl Iterator<Item = (MachineId, Boot)> {
        let lately = move |heard: Instant| now.saturating_duration_since(heard) <= time;
        let known = self.known.iter().filter(move |(_, known)| lately(known.heard));
        let candidates = self.candidates.iter().filter(move |(_, _, heard)| lately(*heard));
        let candidates = candidates.map(|(machine, boot, _)| (*machine, *boot));
        known.map(|(machine, known)| (*machine, known.boot)).chain(candidates)
    }
}
