//! A named network namespace (`ip netns`): made, entered by threads of this process, and removed with all processes in it.
//! Used by [`super::host`]; names begin with [`PREFIX`] and this process's id, so that leftovers of dead runs are told
//! from namespaces in use.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::command::sh;

/// What every name of ours begins with: namespaces, pin directories, temporary directories.
pub const PREFIX: &str = "lbt-";
const NETNS_DIR: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";

/// A network namespace of ours.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes it, with its loopback up.
    ///
    /// # Errors
    /// Without root, or when the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        sh(&format!("ip netns add {name}")).context("making a network namespace needs root")?;
        let file = File::open(format!("{NETNS_DIR}/{name}"))?;
        let namespace = Self { name: name.to_owned(), file };
        sh(&format!("ip -n {name} link set lo up"))?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in it, on a thread of its own, and waits for the result. Processes started by `work` live there.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .expect("the namespace lives as long as its file is open");
            work()
        };
        match thread::scope(|scope| scope.spawn(enter).join()) {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// As [`Self::run`], without waiting.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
        let file = self.file.try_clone()?;
        let enter = move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("the namespace lives as long as its file is open");
            work()
        };
        Ok(thread::Builder::new().name(self.name.clone()).spawn(enter)?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // An error here means it is gone already; the sweep of the next run reports what cannot be removed.
        let _ = remove(&self.name);
    }
}

/// Kills what runs in the namespace and deletes it.
fn remove(name: &str) -> Result<()> {
    for pid in sh(&format!("ip netns pids {name}"))?.lines().filter_map(|line| line.trim().parse().ok()) {
        // It may have ended in between.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    sh(&format!("ip netns delete {name}"))?;
    Ok(())
}

/// `lbt-<pid>-<what>-`: how names begin that this process makes.
pub fn prefix(what: &str) -> String {
    format!("{PREFIX}{}-{what}-", std::process::id())
}

/// Removes the namespaces, pins and temporary directories of test processes that no longer exist.
///
/// # Errors
/// When a leftover cannot be removed.
pub fn sweep() -> Result<()> {
    for name in names_in(NETNS_DIR).filter(|name| is_leftover(name)) {
        let removed = remove(&name);
        // Another test process may have swept it in between.
        if Path::new(NETNS_DIR).join(&name).exists() {
            removed.with_context(|| format!("leftover of a dead test run: ip netns delete {name}"))?;
        }
    }
    let directories = [Path::new(BPFFS), &std::env::temp_dir()].map(leftovers_in);
    for directory in directories.into_iter().flatten() {
        let removed = fs::remove_dir_all(&directory);
        if directory.exists() {
            removed.with_context(|| format!("leftover of a dead test run: rm -r {}", directory.display()))?;
        }
    }
    Ok(())
}

fn leftovers_in(dir: &Path) -> Vec<PathBuf> {
    names_in(dir).filter(|name| is_leftover(name)).map(|name| dir.join(name)).collect()
}

fn names_in(dir: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether the process that made this name (`lbt-<pid>-…`) is gone.
fn is_leftover(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_leftovers() {
        let own = std::process::id();
        let cases = [
            (format!("lbt-{own}-1-c1"), false),
            ("lbt-4194999-1-c1".to_owned(), true), // above the kernel's largest process id
            ("lbt-notes".to_owned(), false),
            ("somebody-4194999-1".to_owned(), false),
        ];
        for (name, expected) in cases {
            assert_eq!(is_leftover(&name), expected, "{name}");
        }
    }
}
