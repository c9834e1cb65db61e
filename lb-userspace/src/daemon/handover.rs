//! What an lbd leaves to the program that replaces it in the same process (execve): descriptors that stay open, so that
//! nothing is refused meanwhile, and the way back, should the new program not start.
//!
//! The same process goes on: the service manager, the spawner and the guard keep the process they know. All threads end
//! with the old program, and no capability is regained. What is not in here is found again as after a crash: pins, files of
//! the state directory, VIPs.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::MetadataExt,
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use serde::{Deserialize, Serialize};

use crate::{
    control::proxy::memory::Memory,
    proxy::supervisor::{Estate, Listening, Place},
    telemetry,
};

/// The argument that tells a new program where the handover is.
pub const ARGUMENT: &str = "--handover";
/// The hidden subcommand by which a program says whether it would start.
pub const REHEARSAL: &str = "rehearse";

/// Form of the handover: programs of another one do not understand it.
const FORM: u32 = 1;
/// How long a new program may take to say whether it would start.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long it may take to start, once it is in this one's place: less than a service manager's watchdog allows.
const START: Duration = Duration::from_secs(15);
/// How much of what it says is kept.
const MAX_WORDS: u64 = 16 << 10;
/// Permission bits with which others than its owner could change the program.
const WRITABLE: u32 = 0o022;

/// What goes over.
#[derive(Debug)]
pub struct Handover {
    /// Where lbd is installed: what is there now is the new program.
    pub(super) installed: PathBuf,
    /// How often this process has replaced its program, this time included.
    pub(super) upgrades: u64,
    /// Why the program that was tried did not start: this is the one before it, again.
    pub(super) failure: Option<String>,
    /// The pid file, locked.
    pub(super) pid_file: OwnedFd,
    /// The admin socket, listening.
    pub(super) socket: OwnedFd,
    /// The channel to what runs monitors' programs, when that runs.
    pub(super) runner: Option<OwnedFd>,
    /// Spawner and listening sockets.
    pub(super) estate: Estate,
    /// VIP groups that are owned on: nobody else could take them.
    pub(super) vips: Vec<String>,
    /// The program to go back to.
    pub(super) program: OwnedFd,
    /// Its arguments: those of lbd.
    pub(super) arguments: Vec<OsString>,
    /// Dropped with this, it tells [`Handover::watch`] that there is nothing to go back to, or somebody else does.
    pub(super) started: Option<Sender<()>>,
}

/// The same, with numbers for descriptors.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    form: u32,
    installed: PathBuf,
    upgrades: u64,
    failure: Option<String>,
    pid_file: RawFd,
    socket: RawFd,
    #[serde(default)]
    vips: Vec<String>,
    #[serde(default)]
    runner: Option<RawFd>,
    spawner: RawFd,
    listeners: Vec<(Place, Vec<RawFd>)>,
    #[serde(default)]
    memory: Memory,
    program: RawFd,
    /// Bytes: they need not be text.
    arguments: Vec<Vec<u8>>,
}

impl Handover {
    /// What the program before left, from the descriptor that [`ARGUMENT`] names. To be called once, before other threads are.
    ///
    /// # Errors
    /// When there is none, or it is of another form.
    pub fn take(descriptor: RawFd) -> io::Result<Self> {
        let mut file = File::from(adopt(descriptor)?);
        file.rewind()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let Written {
            form,
            installed,
            upgrades,
            failure,
            pid_file,
            socket,
            vips,
            runner,
            spawner,
            listeners,
            memory,
            program,
            arguments,
        } = serde_json::from_str(&text)?;
        if form != FORM {
            return Err(io::Error::other(format!("the handover has form {form}, this lbd knows form {FORM}")));
        }
        let sockets = |(place, fds): (Place, Vec<RawFd>)| {
            Ok((place, fds.into_iter().map(adopt).collect::<io::Result<Vec<_>>>()?))
        };
        Ok(Self {
            installed,
            upgrades,
            failure,
            pid_file: adopt(pid_file)?,
            socket: adopt(socket)?,
            vips,
            runner: runner.map(adopt).transpose()?,
            estate: Estate {
                spawner: adopt(spawner)?,
                listeners: listeners.into_iter().map(sockets).collect::<io::Result<_>>()?,
                memory,
            },
            program: adopt(program)?,
            arguments: arguments.into_iter().map(OsString::from_vec).collect(),
            started: None,
        })
    }

    /// Replaces this program by the one at `path`; returns only when that fails. What goes over is kept open.
    pub(super) fn replace(&self, path: &OsStr) -> io::Error {
        match self.write() {
            Ok(written) => {
                let mut command = Command::new(path);
                command.arg0("lbd").args(&self.arguments).arg(ARGUMENT).arg(written.as_raw_fd().to_string());
                telemetry::flush();
                command.exec()
            }
            Err(error) => error,
        }
    }

    /// Whether this program replaces another; else it is the one to go back to, and there is no other.
    #[must_use]
    pub fn has_way_back(&self) -> bool {
        self.failure.is_none()
    }

    /// Goes back to the program before, which is told why; returns only when that fails, too.
    pub fn go_back(mut self, why: &str) -> io::Error {
        self.failure = Some(why.to_owned());
        self.upgrades = self.upgrades.saturating_sub(1);
        let path = format!("/proc/self/fd/{}", self.program.as_raw_fd());
        self.replace(OsStr::new(&path))
    }

    /// Goes back to the program before should this one not have started in time, whatever it waits for: as long as this is not
    /// dropped. To be called at the begin of the process.
    ///
    /// # Errors
    /// When there is no room for descriptors or a thread.
    pub fn watch(&mut self) -> io::Result<()> {
        let (started, waiting) = mpsc::channel::<()>();
        let copy = self.copy()?;
        std::thread::Builder::new().name("lb-way-back".to_owned()).spawn(move || {
            if waiting.recv_timeout(START) == Err(RecvTimeoutError::Timeout) {
                let error = copy.go_back(&format!("it had not started after {} s", START.as_secs()));
                tracing::error!(%error, "the program before cannot be run again");
            }
        })?;
        self.started = Some(started);
        Ok(())
    }

    fn copy(&self) -> io::Result<Self> {
        let Self {
            installed,
            upgrades,
            failure,
            pid_file,
            socket,
            vips,
            runner,
            estate,
            program,
            arguments,
            started: _,
        } = self;
        let sockets = |(place, fds): &Listening| {
            Ok((place.clone(), fds.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?))
        };
        Ok(Self {
            installed: installed.clone(),
            upgrades: *upgrades,
            failure: failure.clone(),
            pid_file: pid_file.try_clone()?,
            socket: socket.try_clone()?,
            vips: vips.clone(),
            runner: runner.as_ref().map(OwnedFd::try_clone).transpose()?,
            estate: Estate {
                spawner: estate.spawner.try_clone()?,
                listeners: estate.listeners.iter().map(sockets).collect::<io::Result<_>>()?,
                memory: estate.memory.clone(),
            },
            program: program.try_clone()?,
            arguments: arguments.clone(),
            started: None,
        })
    }

    /// Into a file in memory, and lets all descriptors survive the replacement.
    fn write(&self) -> io::Result<OwnedFd> {
        let Self {
            installed,
            upgrades,
            failure,
            pid_file,
            socket,
            vips,
            runner,
            estate,
            program,
            arguments,
            started: _,
        } = self;
        let number = |fd: &OwnedFd| -> io::Result<RawFd> {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(fd.as_raw_fd())
        };
        let sockets = |(place, fds): &(Place, Vec<OwnedFd>)| {
            Ok((place.clone(), fds.iter().map(number).collect::<io::Result<Vec<_>>>()?))
        };
        let written = Written {
            form: FORM,
            installed: installed.clone(),
            upgrades: *upgrades,
            failure: failure.clone(),
            pid_file: number(pid_file)?,
            socket: number(socket)?,
            vips: vips.clone(),
            runner: runner.as_ref().map(number).transpose()?,
            spawner: number(&estate.spawner)?,
            listeners: estate.listeners.iter().map(sockets).collect::<io::Result<_>>()?,
            memory: estate.memory.clone(),
            program: number(program)?,
            arguments: arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        };
        let mut file = File::from(memfd_create(c"lbd-handover", MFdFlags::empty())?);
        file.write_all(&serde_json::to_vec(&written)?)?;
        Ok(file.into())
    }
}

/// Takes over a descriptor that was left open for this program.
pub(super) fn adopt(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor <= 2 {
        return Err(io::Error::other("a handover has no standard streams"));
    }
    // SAFETY: whoever started this program left it open for this one alone, and named it once; nothing else here knows of it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    if let Err(error) = fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        // It is not open: there is nothing to close.
        std::mem::forget(owned);
        return Err(error.into());
    }
    Ok(owned)
}

/// Where this program is installed.
///
/// # Errors
/// Without /proc.
pub(super) fn installed() -> io::Result<PathBuf> {
    fs::read_link("/proc/self/exe")
}

/// This program, to go back to.
///
/// # Errors
/// Without /proc.
pub(super) fn this_program() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/self/exe")?.into())
}

/// Arguments of this process without the handover's.
pub(super) fn own_arguments() -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut all = env::args_os().skip(1);
    while let Some(argument) = all.next() {
        if argument == ARGUMENT {
            all.next();
        } else {
            arguments.push(argument);
        }
    }
    arguments
}

/// Asks a new program whether it would start with this configuration; it changes nothing. Blocks.
///
/// # Errors
/// Why not, for the operator.
pub(super) fn rehearse(program: &Path, config: &Path) -> Result<(), String> {
    let shown = program.display();
    let meta = fs::metadata(program).map_err(|error| format!("{shown}: {error}"))?;
    if !meta.is_file() || meta.mode() & WRITABLE != 0 || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!(
            "{shown} is not run: it must be a file that root alone can change (chown root, chmod 755)"
        ));
    }
    let words = memfd_create(c"lbd-rehearsal", MFdFlags::MFD_CLOEXEC).map_err(|error| error.to_string())?;
    let stderr = words.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg(REHEARSAL).arg("--config").arg(config).env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = command.spawn().map_err(|error| format!("{shown} cannot be run: {error}"))?;
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => {
                // It may have ended by now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{shown} did not say within {} s whether it would start", PATIENCE.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    let mut words = File::from(words);
    let read = words.rewind().and_then(|()| words.take(MAX_WORDS).read_to_string(&mut said));
    let said = if read.is_ok() { said.trim() } else { "" };
    Err(format!("{shown} would not start ({status}): {said}"))
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::fd::{AsFd, IntoRawFd},
    };

    use super::*;
    use crate::control::proxy::{
        Secret,
        memory::{Session, TicketKey, TicketKeys},
    };

    fn memory() -> Memory {
        let session = Session { kind: 6, pool: u64::MAX, id: u128::MAX, node: 3, left: Duration::from_millis(1500) };
        let key = TicketKey { epoch: 41_666, secret: Secret([9; 32]) };
        Memory {
            sessions: vec![(session, true)],
            ticket_keys: TicketKeys { own: vec![key.clone()], others: vec![key] },
        }
    }

    #[test]
    fn what_is_written_is_taken() {
        let file = || -> OwnedFd { tempfile::tempfile().unwrap().into() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handover = Handover {
            installed: "/usr/sbin/lbd".into(),
            upgrades: 3,
            failure: None,
            pid_file: file(),
            socket: file(),
            vips: vec!["web".into()],
            runner: Some(file()),
            estate: Estate {
                spawner: file(),
                listeners: vec![(("web".into(), address), vec![listener.into()])],
                memory: memory(),
            },
            program: file(),
            arguments: vec!["--config".into(), "/etc/ü".into()],
            started: None,
        };
        let written = handover.write().unwrap();
        let flags = fcntl(&handover.socket, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, 0, "it survives a replacement");
        // As after it: nobody else owns them.
        let Handover { pid_file, socket, runner, estate, program, .. } = handover;
        for fd in [pid_file, socket, estate.spawner, program].into_iter().chain(runner) {
            let _ = fd.into_raw_fd();
        }
        for fd in estate.listeners.into_iter().flat_map(|(_, fds)| fds) {
            let _ = fd.into_raw_fd();
        }

        let taken = Handover::take(written.into_raw_fd()).unwrap();
        assert_eq!((taken.upgrades, taken.installed), (3, "/usr/sbin/lbd".into()));
        assert!(taken.runner.is_some());
        assert_eq!(taken.vips, ["web"]);
        assert_eq!(taken.estate.memory, memory());
        assert_eq!(taken.arguments, ["--config", "/etc/ü"]);
        let (place, sockets) = taken.estate.listeners.into_iter().next().unwrap();
        let socket = TcpListener::from(sockets.into_iter().next().unwrap());
        assert_eq!((place.1, socket.local_addr().unwrap()), (address, address));
        assert_eq!(fcntl(socket.as_fd(), FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
    }

    #[test]
    fn what_is_no_handover_is_refused() {
        assert!(Handover::take(1).is_err() && Handover::take(12_345).is_err());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"{\"form\": 2}").unwrap();
        assert!(Handover::take(OwnedFd::from(file).into_raw_fd()).is_err());
    }

    #[test]
    fn a_program_that_others_can_change_or_that_fails_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lbd");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            rehearse(&path, Path::new("/nowhere"))
        };
        assert!(write("#!/bin/sh\nexit 0\n", 0o777).unwrap_err().contains("root alone"));
        assert!(write("#!/bin/sh\necho no such map >&2; exit 1\n", 0o755).unwrap_err().ends_with("no such map"));
        assert!(write("not a program", 0o755).is_err());
        assert_eq!(write("#!/bin/sh\n[ \"$1 $2 $3\" = 'rehearse --config /nowhere' ]\n", 0o755), Ok(()));
    }
}
