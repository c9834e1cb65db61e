//! The processes of the programs that run. The runner is their subreaper: what loses its parent becomes its own child, and
//! is found here, ended and reaped, so that nothing outlives the check that it was begun for.

use std::{collections::BTreeSet, fs};

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, getpgid, getpid},
};

/// The programs that run, by number: each leads a process group.
#[derive(Debug, Default)]
pub(super) struct Family {
    leaders: BTreeSet<u32>,
}

impl Family {
    pub(super) fn add(&mut self, leader: u32) {
        self.leaders.insert(leader);
    }

    /// Ends a program and all of its group. It must not have been reaped before: its number is its own until then.
    pub(super) fn end(&self, leader: u32) {
        // There may be nobody left in it.
        let _ = killpg(pid(leader), Signal::SIGKILL);
    }

    /// It has been reaped, or is left to [`Self::sweep`].
    pub(super) fn remove(&mut self, leader: u32) {
        self.leaders.remove(&leader);
    }

    pub(super) fn end_all(&mut self) {
        for leader in std::mem::take(&mut self.leaders) {
            self.end(leader);
        }
        self.sweep();
    }

    /// Ends what has left the group of its program, or outlived it, and reaps what has ended.
    pub(super) fn sweep(&self) {
        // CONFIG_PROC_CHILDREN, in every distribution's kernel.
        let own = getpid();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|number| number.parse::<u32>().ok()) {
            if self.leaders.contains(&child) {
                continue;
            }
            let group = getpgid(Some(pid(child))).ok().and_then(|group| u32::try_from(group.as_raw()).ok());
            if !group.is_some_and(|group| self.leaders.contains(&group)) {
                // It may have ended meanwhile.
                let _ = kill(pid(child), Signal::SIGKILL);
            }
            // One that is just being killed is reaped by the next sweep.
            let _ = waitpid(pid(child), Some(WaitPidFlag::WNOHANG));
        }
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap_or(i32::MAX))
}
