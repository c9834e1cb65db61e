//! The spawner: the one process of lb that may change users. It starts workers for lbd, which has given up that right, and
//! tells how they end. It reads nothing but lbd's messages, runs nothing but lbd's own program, and never as root.
//!
//! Started by lbd before lbd gives up its privileges; ends when lbd does. Called by `bin/lbd.rs`.

mod confine;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{Pid, getppid},
};
use serde::{Deserialize, Serialize};

pub use self::confine::SpawnerError;
use super::channel::Channel;

/// The hidden subcommand of lbd that runs it, and that of a worker.
pub const SPAWNER: &str = "spawner";
/// See [`SPAWNER`].
pub const WORKER: &str = "worker";

/// What lbd asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSpawner {
    /// Start a worker; beside this message is the socket that becomes its standard input.
    Spawn {
        /// User, not 0.
        uid: u32,
        /// Group, not 0.
        gid: u32,
        /// Further arguments of the worker.
        arguments: Vec<String>,
    },
    /// Kill a worker of this spawner.
    Kill(u32),
    /// Let a worker of an earlier lbd drain, if it is still the process that began then.
    Retire(Started),
    /// Go on by the program that lbd runs now: it has replaced its own.
    Renew,
}

/// What it tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSpawner {
    /// A worker runs.
    Started(Started),
    /// None does, for this reason.
    Failed(String),
    /// The spawner goes on by the program that it was, for this reason.
    NotRenewed(String),
    /// A worker has ended.
    Ended {
        /// Its process.
        pid: u32,
        /// Whether it ended as it should.
        success: bool,
        /// In words.
        how: String,
    },
}

/// A process, told apart from another one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Number.
    pub pid: u32,
    /// Clock ticks from boot to its start (proc(5), field 22).
    pub at: u64,
}

impl Started {
    /// The process that has this number now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, which may contain anything.
        let at = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, at })
    }
}

/// Starts the spawner: the end that lbd speaks to. Must be called while lbd has all its privileges.
///
/// # Errors
/// When the process cannot be started.
pub fn start() -> io::Result<Channel> {
    let (own, other) = Channel::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("lbd")
        .arg(SPAWNER)
        .env_clear()
        .envs(log_filter())
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(other)))
        .stdout(Stdio::null());
    // It ends by itself when this end is closed, and is reaped by whoever is left.
    drop(command.spawn()?);
    Ok(own)
}

/// The one variable that both get. A process group of their own keeps a terminal's ^C away: lbd ends them in order.
fn log_filter() -> Option<(&'static str, std::ffi::OsString)> {
    std::env::var_os("LB_LOG").map(|filter| ("LB_LOG", filter))
}

/// Runs the spawner until lbd is gone. `children` are workers that the program before has started in this process.
///
/// # Errors
/// When it cannot be shut in, or the channel breaks.
pub fn run(children: &[u32]) -> Result<(), SpawnerError> {
    confine::shut_in()?;
    let channel = Channel::new(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    let answers = Arc::new(Mutex::new(channel.try_clone()?));
    let running: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
    for pid in children {
        watch(*pid, &running, &answers)?;
    }
    // lbd's program, also after lbd has replaced itself by another version: its process stays the same.
    let program = format!("/proc/{}/exe", getppid());
    while let Some((message, descriptors)) = channel.receive::<ToSpawner>()? {
        match message {
            ToSpawner::Spawn { uid, gid, arguments } => {
                let spawned = spawn(&program, uid, gid, &arguments, descriptors);
                let answer = match spawned {
                    Ok(pid) => {
                        watch(pid, &running, &answers)?;
                        FromSpawner::Started(Started::of(pid).unwrap_or(Started { pid, at: 0 }))
                    }
                    Err(error) => FromSpawner::Failed(error.to_string()),
                };
                tell(&answers, &answer);
            }
            ToSpawner::Kill(pid) => {
                let running = running.lock().unwrap_or_else(PoisonError::into_inner);
                if running.contains(&pid) {
                    signal(pid, Signal::SIGKILL);
                }
            }
            ToSpawner::Retire(started) if Started::of(started.pid) == Some(started) && is_worker(started.pid) => {
                signal(started.pid, Signal::SIGTERM);
            }
            ToSpawner::Retire(_) => {}
            ToSpawner::Renew => {
                // Held until this program is gone: who ends meanwhile is told of by the next one.
                let running = running.lock().unwrap_or_else(PoisonError::into_inner);
                let error = renew(&program, &running);
                drop(running);
                tell(&answers, &FromSpawner::NotRenewed(error.to_string()));
            }
        }
    }
    Ok(())
}

/// Replaces this program by lbd's, which gets no privilege that this one has not; returns only when that fails.
fn renew(program: &str, running: &BTreeSet<u32>) -> io::Error {
    let file = match File::open(program) {
        Ok(file) => file,
        Err(error) => return error,
    };
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.arg0("lbd").arg(SPAWNER).args(running.iter().map(u32::to_string)).env_clear().envs(log_filter());
    command.exec()
}

/// Starts a worker: its process.
fn spawn(program: &str, uid: u32, gid: u32, arguments: &[String], descriptors: Vec<OwnedFd>) -> io::Result<u32> {
    let Some(socket) = descriptors.into_iter().next() else { return Err(io::Error::other("no socket for the worker")) };
    if uid == 0 || gid == 0 {
        return Err(io::Error::other("a worker does not run as root"));
    }
    // Opened here, because the worker's user may not look at lbd's process, nor perhaps into the program's directory.
    let file = File::open(program)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.arg0("lbd").arg(WORKER).args(arguments).env_clear().envs(log_filter()).current_dir("/").process_group(0);
    // Also drops the supplementary groups, because it changes the user from root's.
    command.uid(uid).gid(gid).stdin(Stdio::from(socket)).stdout(Stdio::null());
    Ok(command.spawn()?.id())
}

/// Waits for a worker's end in a thread of its own, and tells of it.
fn watch(pid: u32, running: &Arc<Mutex<BTreeSet<u32>>>, answers: &Arc<Mutex<Channel>>) -> io::Result<()> {
    running.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    let (running, answers) = (Arc::clone(running), Arc::clone(answers));
    std::thread::Builder::new().name(format!("lb-wait-{pid}")).spawn(move || {
        // Its number stays its own until it is reaped.
        let ended = waitid(Id::Pid(process(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        // From here on until it is told: a program that replaces this one knows of it, or lbd does.
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&pid);
        let (success, how) = match ended.and_then(|_| waitpid(process(pid), None)) {
            Ok(WaitStatus::Exited(_, code)) => (code == 0, format!("exit status: {code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => (false, format!("signal: {signal}")),
            Ok(other) => (false, format!("{other:?}")),
            Err(error) => (false, error.to_string()),
        };
        tell(&answers, &FromSpawner::Ended { pid, success, how });
    })?;
    Ok(())
}

fn tell(answers: &Mutex<Channel>, answer: &FromSpawner) {
    // When lbd is gone, the loop above ends this process.
    let _ = answers.lock().unwrap_or_else(PoisonError::into_inner).send(answer, &[]);
}

/// Whether the process is a worker: nothing else is ever retired.
fn is_worker(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(WORKER.as_bytes())
}

fn signal(pid: u32, signal: Signal) {
    // It may have ended by itself; its watcher tells.
    let _ = kill(process(pid), signal);
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}
