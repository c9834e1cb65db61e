//! The pid file beside the admin socket: says which process serves it, and its lock keeps a second lbd from starting
//! between the first one's check of the socket and its own.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

/// Between two tries to lock it.
const PAUSE: Duration = Duration::from_millis(20);

/// Why the pid file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PidError {
    /// Another lbd holds it.
    #[error("{path}: another lbd (process {pid}) is running; stop that one first, or set [daemon] socket")]
    Held {
        /// The file.
        path: PathBuf,
        /// What it says.
        pid: String,
    },
    /// The kernel refused.
    #[error("{path}: {source}; is its directory there and writable?")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A pid file with our number in it, locked; removed when dropped.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    lock: Flock<File>,
    /// Whether it is left in place: it belongs to the program before until this one has started.
    borrowed: bool,
}

impl PidFile {
    /// For the daemon that serves `socket`: the same path with the ending `pid`. Creates the directory when it is missing.
    /// A process that was just killed holds its lock until the kernel has taken it apart: that long, `patience` waits.
    pub(super) fn create(socket: &Path, patience: Duration) -> Result<Self, PidError> {
        let path = socket.with_extension("pid");
        let failed = |source| PidError::Io { path: path.clone(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let asked = Instant::now();
        let mut lock = loop {
            let lock = match lock(&path) {
                Err(PidError::Held { .. }) if asked.elapsed() < patience => {
                    thread::sleep(PAUSE);
                    continue;
                }
                other => other?,
            };
            // The one that held it may have removed it between our opening and our locking: then this is no file any more.
            let ours = lock.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours) {
                break lock;
            }
        };
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(format!("{}\n", process::id()).as_bytes()));
        written.map_err(failed)?;
        Ok(Self { path, lock, borrowed: false })
    }

    /// That of the program before in this process; `None` when it is not the one for `socket`.
    pub(super) fn inherited(socket: &Path, file: OwnedFd) -> Option<Self> {
        let path = socket.with_extension("pid");
        let file = File::from(file);
        let same = fs::metadata(&path).ok()?.ino() == file.metadata().ok()?.ino();
        // The lock goes with the open file: this one has it already, unless a start that failed gave it up.
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok().filter(|_| same)?;
        Some(Self { path, lock, borrowed: true })
    }

    /// It is this program's own from now on.
    pub(super) fn keep(&mut self) {
        self.borrowed = false;
    }

    /// For the next program in this process.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }
}

fn lock(path: &Path) -> Result<Flock<File>, PidError> {
    let failed = |source| PidError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path);
    match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((mut file, nix::Error::EWOULDBLOCK)) => {
            let mut pid = String::new();
            // Without a readable number the message still says what to do.
            let _ = file.read_to_string(&mut pid);
            Err(PidError::Held { path: path.to_owned(), pid: pid.trim().to_owned() })
        }
        Err((_, error)) => Err(failed(error.into())),
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // While it is still locked; a leftover does no harm, since it is not locked any more.
        if !self.borrowed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_at_a_time_and_a_dead_ones_file_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/admin.sock");
        let path = dir.path().join("run/admin.pid");
        let first = PidFile::create(&socket, Duration::ZERO).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        let error = PidFile::create(&socket, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", process::id())), "{error}");
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "1\n").unwrap();
        let _second = PidFile::create(&socket, Duration::ZERO).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
    }
}
