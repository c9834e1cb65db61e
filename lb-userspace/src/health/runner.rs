//! The runner: the process that runs monitors' programs. It is a user without rights before it reads the first message, and
//! runs nothing but the files of one directory that root alone can write to; without a shell, in a process group of their
//! own that is killed whole, with no environment but what the message names.
//!
//! Started by lbd before lbd gives up its privileges; ends, and ends what it runs, when lbd does. Called by `bin/lbd.rs`.

mod confine;
mod family;

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::MetadataExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task,
    time::{self, MissedTickBehavior},
};

pub use self::confine::ConfineError;
use self::family::Family;
use super::program::{self, End, FromRunner, Run, ToRunner};

/// The hidden subcommand of lbd that runs it.
pub const RUNNER: &str = "monitor-runner";

/// What a program may write, in bytes; a check has a line to say.
const MOST_OUTPUT: usize = 4096;

/// Programs at a time: lbd asks for fewer.
const MOST_PROGRAMS: usize = 256;

/// How long what was written is awaited when the program has ended.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How often what left its process group is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Where programs find others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why the runner ended.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// It could not give up its rights, and so ran nothing.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The channel to lbd, or the kernel.
    #[error("runner of programs: {0}")]
    Io(#[from] io::Error),
}

/// Starts the runner as a user: lbd's end of the channel. Must be called while lbd may change users.
///
/// # Errors
/// When the process cannot be started, or the user is root.
pub fn start((uid, gid): (u32, u32), directory: &Path) -> io::Result<OwnedFd> {
    if uid == 0 || gid == 0 {
        return Err(io::Error::other("programs are not run as root"));
    }
    let flags = SockFlag::SOCK_CLOEXEC;
    let (own, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("lbd").arg(RUNNER).arg(directory).env_clear().current_dir("/").process_group(0);
    // Also drops the supplementary groups, because it changes the user from root's.
    command.uid(uid).gid(gid).stdin(Stdio::from(other)).stdout(Stdio::null());
    // It ends by itself when this end is closed, and is reaped by whoever is left.
    drop(command.spawn()?);
    Ok(own)
}

/// Runs the runner until lbd is gone.
///
/// # Errors
/// When it cannot give up its rights, or the channel breaks.
pub fn run(directory: &Path) -> Result<(), RunnerError> {
    confine::confine()?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = task::LocalSet::new();
    let family = Rc::new(RefCell::new(Family::default()));
    let served = local.block_on(&runtime, serve(socket, directory.to_owned(), Rc::clone(&family)));
    family.borrow_mut().end_all();
    Ok(served?)
}

async fn serve(socket: OwnedFd, directory: PathBuf, family: Rc<RefCell<Family>>) -> io::Result<()> {
    let (mut reader, mut writer) = program::halves(socket)?;
    let mut buffer = program::buffer();
    let (told, mut ends) = mpsc::channel::<FromRunner>(MOST_PROGRAMS);
    let mut stops: HashMap<u64, oneshot::Sender<()>> = HashMap::new();
    let mut sweep = time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = program::receive::<ToRunner>(&mut reader, &mut buffer) => match received {
                Ok(ToRunner::Run(run)) if stops.len() < MOST_PROGRAMS => {
                    let (stop, stopped) = oneshot::channel();
                    stops.insert(run.id, stop);
                    let (told, path, family) = (told.clone(), directory.join(&run.name), Rc::clone(&family));
                    task::spawn_local(async move {
                        let id = run.id;
                        let end = execute(&path, run, stopped, &family).await;
                        // When the receiver is gone, so is lbd.
                        let _ = told.send(FromRunner { id, end }).await;
                    });
                }
                Ok(ToRunner::Run(run)) => {
                    let end = End::NotRun("too many run at a time".to_owned());
                    program::send(&mut writer, &FromRunner { id: run.id, end }).await?;
                }
                Ok(ToRunner::Stop(id)) => drop(stops.remove(&id)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            },
            Some(end) = ends.recv() => {
                stops.remove(&end.id);
                family.borrow().sweep();
                program::send(&mut writer, &end).await?;
            }
            _ = sweep.tick() => family.borrow().sweep(),
        }
    }
}

/// Runs one program to its end, which is that of its whole process group.
async fn execute(path: &Path, run: Run, stopped: oneshot::Receiver<()>, family: &RefCell<Family>) -> End {
    let mut child = match spawn(path, &run) {
        Ok(child) => child,
        Err(error) => return End::NotRun(error.to_string()),
    };
    family.borrow_mut().add(child.id());
    let end = follow(&mut child, run.timeout, stopped, family).await;
    family.borrow_mut().remove(child.id());
    end.unwrap_or_else(|error| End::NotRun(error.to_string()))
}

async fn follow(
    child: &mut Child,
    timeout: Duration,
    stopped: oneshot::Receiver<()>,
    family: &RefCell<Family>,
) -> io::Result<End> {
    let told = watch(child, timeout, stopped).await;
    family.borrow().end(child.id());
    // What the kernel does not let go is left to the sweep.
    let status = match time::timeout(LAST_WORDS, ended(child.id())).await {
        Ok(_) => child.try_wait()?,
        Err(_) => None,
    };
    Ok(match (told?, status) {
        (Told::Ended(output), Some(status)) => match status.signal() {
            Some(signal) => End::Signalled { signal },
            None => End::Exited { code: status.code().unwrap_or(-1), output },
        },
        (Told::TooMuch, _) => End::TooMuchOutput,
        (Told::TooLong | Told::Ended(_), _) => End::TimedOut,
    })
}

/// What became of a program, before it is reaped.
enum Told {
    /// It ended, having written this.
    Ended(Vec<u8>),
    TooMuch,
    /// Its time is over, or nobody waits any longer.
    TooLong,
}

/// Waits until a program ends or is to be ended.
async fn watch(child: &mut Child, timeout: Duration, stopped: oneshot::Receiver<()>) -> io::Result<Told> {
    let pid = child.id();
    let mut words = Words::of(child)?;
    let deadline = time::sleep(timeout);
    tokio::pin!(deadline, stopped);
    let too_much = tokio::select! {
        ended = ended(pid) => {
            ended?;
            // Who left the group may keep the pipes open for ever.
            time::timeout(LAST_WORDS, words.read()).await.is_ok_and(|read| read.is_err())
        }
        Err(TooMuch) = words.read() => true,
        () = &mut deadline => return Ok(Told::TooLong),
        _ = &mut stopped => return Ok(Told::TooLong),
    };
    Ok(if too_much { Told::TooMuch } else { Told::Ended(words.first()) })
}

/// Waits until a child has ended, and leaves it to be reaped.
async fn ended(pid: u32) -> io::Result<()> {
    let mut signals = signal(SignalKind::child())?;
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    while waitid(Id::Pid(pid), flags)? == WaitStatus::StillAlive {
        signals.recv().await;
    }
    Ok(())
}

/// What a program writes.
struct Words {
    output: tokio::net::unix::pipe::Receiver,
    errors: tokio::net::unix::pipe::Receiver,
    /// Of both.
    written: [Vec<u8>; 2],
    open: [bool; 2],
}

/// It wrote more than [`MOST_OUTPUT`].
struct TooMuch;

impl Words {
    fn of(child: &mut Child) -> io::Result<Self> {
        let missing = || io::Error::other("no pipe");
        let output = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
        let errors = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
        let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd;
        Ok(Self { output: receiver(output)?, errors: receiver(errors)?, written: Default::default(), open: [true; 2] })
    }

    /// Reads until both are closed; then waits for ever, as its end is for others to tell.
    async fn read(&mut self) -> Result<(), TooMuch> {
        let Self { output, errors, written: [said, complained], open } = self;
        while open.iter().any(|open| *open) {
            tokio::select! {
                read = output.read_buf(said), if open[0] => open[0] = read.is_ok_and(|read| read > 0),
                read = errors.read_buf(complained), if open[1] => open[1] = read.is_ok_and(|read| read > 0),
            }
            if said.len() + complained.len() > MOST_OUTPUT {
                return Err(TooMuch);
            }
        }
        std::future::pending().await
    }

    /// What is told: its output, or else its complaints.
    fn first(self) -> Vec<u8> {
        let [said, complained] = self.written;
        if said.trim_ascii().is_empty() { complained } else { said }
    }
}

fn spawn(path: &Path, run: &Run) -> io::Result<Child> {
    registered(path)?;
    let mut command = Command::new(path);
    command.args(&run.arguments).env_clear().env("PATH", PATH).envs(&run.environment);
    command.current_dir("/").process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

/// Root has put it there, and nobody else can have changed it.
fn registered(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    for (path, is_program) in [(directory, false), (path, true)] {
        let found = fs::symlink_metadata(path)?;
        let refuse = |why: &str| Err(io::Error::other(format!("{} {why}", path.display())));
        if is_program && !found.is_file() || !is_program && !found.is_dir() {
            return refuse("is not a plain file or directory");
        }
        if found.uid() != 0 || found.mode() & 0o022 != 0 {
            return refuse("must belong to root, and be writable by nobody else");
        }
    }
    Ok(())
}
