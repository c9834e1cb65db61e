//! Who has a VIP, looked at every few milliseconds on every machine: how many at a time, how often that changed, and when.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::ifaddrs::getifaddrs;

use super::{host::Host, wait::let_pass};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// When which number of owners was seen first.
type Changes = Arc<Mutex<Vec<(Instant, usize)>>>;

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Owners {
    stop: Arc<AtomicBool>,
    /// By machine: how many of the addresses it has, from when on.
    changes: Vec<Changes>,
    threads: Vec<JoinHandle<()>>,
    count: usize,
}

/// What was seen since a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Machines that had the VIPs at one time, at most.
    pub owners_max: usize,
    /// For how long there were several.
    pub several: Duration,
    /// How often a machine got them.
    pub transitions: usize,
}

impl Owners {
    /// Begins to look for these addresses; a machine that has one of them counts as an owner.
    ///
    /// # Errors
    /// When there are no threads.
    pub fn watch(hosts: &[&Host], addresses: &[IpAddr]) -> Result<Self> {
        let stop: Arc<AtomicBool> = Arc::default();
        let (mut changes, mut threads) = (Vec::new(), Vec::new());
        for host in hosts {
            let noted: Changes = Arc::default();
            let (stopped, notes, wanted) = (Arc::clone(&stop), Arc::clone(&noted), addresses.to_vec());
            threads.push(host.spawn(move || look(&stopped, &notes, &wanted))?);
            changes.push(noted);
        }
        Ok(Self { stop, changes, threads, count: addresses.len() })
    }

    /// The one machine that has all addresses, while no other has any.
    pub fn only(&self) -> Option<usize> {
        let have = self.have();
        let first = have.iter().position(|count| *count == self.count)?;
        have.iter().enumerate().all(|(machine, count)| machine == first || *count == 0).then_some(first)
    }

    /// How many of the addresses each machine has.
    pub fn have(&self) -> Vec<usize> {
        self.changes.iter().map(|changes| notes(changes).last().map_or(0, |(_, count)| *count)).collect()
    }

    /// When a machine got all addresses, the first time since then.
    pub fn complete_since(&self, machine: usize, start: Instant) -> Option<Instant> {
        let changes = notes(&self.changes[machine]);
        changes.iter().find(|(at, count)| *at >= start && *count == self.count).map(|(at, _)| *at)
    }

    /// What was seen since then.
    pub fn since(&self, start: Instant) -> Seen {
        let mut changes: Vec<(Instant, usize, usize)> = Vec::new();
        for (machine, of_machine) in self.changes.iter().enumerate() {
            changes.extend(notes(of_machine).iter().map(|(at, count)| (*at, machine, *count)));
        }
        changes.sort_by_key(|(at, ..)| *at);
        let mut have = vec![false; self.changes.len()];
        let mut seen = Seen::default();
        let mut several_since = None;
        for (at, machine, count) in changes {
            let had = std::mem::replace(&mut have[machine], count > 0);
            let owners = have.iter().filter(|has| **has).count();
            if at < start {
                several_since = (owners > 1).then_some(start);
                seen.owners_max = owners;
                continue;
            }
            seen.transitions += usize::from(!had && count > 0);
            seen.owners_max = seen.owners_max.max(owners);
            match (several_since, owners > 1) {
                (None, true) => several_since = Some(at),
                (Some(since), false) => {
                    seen.several += at.duration_since(since);
                    several_since = None;
                }
                (None, false) | (Some(_), true) => {}
            }
        }
        seen.several += several_since.map_or(Duration::ZERO, |since| since.elapsed());
        seen
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn notes(changes: &Mutex<Vec<(Instant, usize)>>) -> std::sync::MutexGuard<'_, Vec<(Instant, usize)>> {
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(stop: &AtomicBool, changes: &Mutex<Vec<(Instant, usize)>>, wanted: &[IpAddr]) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(count) = count(wanted) {
            let mut changes = notes(changes);
            if changes.last().map_or(0, |(_, before)| *before) != count {
                changes.push((Instant::now(), count));
            }
        }
        let_pass(LOOK);
    }
}

/// How many of the addresses this machine has; `None`: the kernel does not say.
fn count(wanted: &[IpAddr]) -> Option<usize> {
    let address = |found: nix::ifaddrs::InterfaceAddress| {
        let storage = found.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Some(getifaddrs().ok()?.filter_map(address).filter(|address| wanted.contains(address)).count())
}
