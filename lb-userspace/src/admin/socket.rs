//! The unix socket of the admin API: made under a temporary name and renamed into place, so that a client sees either
//! no socket or one that is ready and has its final owner and mode. The socket of a dead daemon is replaced, that of a
//! live one never.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process,
};

use super::access::GROUP;
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Gid, Group, chown},
};

/// Mode of the socket: its owner (root) and the group `lb` may talk to the daemon.
const MODE: u32 = 0o660;

/// Mode of a socket that every local user may talk to: the credentials of each tell what it may do.
const OPEN_MODE: u32 = 0o666;

/// Why the admin socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another lbd answers on it.
    #[error("admin socket {path}: another lbd ({owner}) is serving it; stop that one first, or set [daemon] socket")]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Its process.
        owner: String,
    },
    /// A file of another kind has its name.
    #[error("admin socket {0}: the path exists and is not a socket; move it away, or set [daemon] socket")]
    Occupied(PathBuf),
    /// The kernel refused.
    #[error("admin socket {path}: cannot {doing}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A listening admin socket; removes its file when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    inode: u64,
    listener: UnixListener,
    /// Whether its file is left in place: it belongs to the program before until this one has started.
    borrowed: bool,
}

impl Socket {
    /// Creates the socket, and its directory when that is missing.
    ///
    /// # Errors
    /// When a live daemon has it, something else has its name, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |doing| move |source| SocketError::Io { path: path.to_owned(), doing, source };
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(io("create its directory"))?;
        }
        refuse_live(path)?;
        let temporary = temporary_name(path);
        remove_if_there(&temporary).map_err(io("remove the leftover of an earlier start"))?;
        let listener = UnixListener::bind(&temporary).map_err(io("create it"))?;
        let inode = prepare(&listener, &temporary).and_then(|inode| {
            fs::rename(&temporary, path)?;
            Ok(inode)
        });
        match inode {
            Ok(inode) => Ok(Self { path: path.to_owned(), inode, listener, borrowed: false }),
            Err(source) => {
                // The refusal is the error worth telling; a leftover is removed by the next start.
                let _ = fs::remove_file(&temporary);
                Err(io("set it up")(source))
            }
        }
    }

    /// That of the program before in this process, which listens on it at `path`.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn inherited(path: &Path, listener: OwnedFd) -> Result<Self, SocketError> {
        let io = |doing| move |source| SocketError::Io { path: path.to_owned(), doing, source };
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true).map_err(io("take it over"))?;
        let inode = fs::symlink_metadata(path).map_err(io("look at it"))?.ino();
        Ok(Self { path: path.to_owned(), inode, listener, borrowed: true })
    }

    /// It is this program's own from now on.
    pub fn keep(&mut self) {
        self.borrowed = false;
    }

    /// For the next program in this process.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets every local user connect, or only root and the group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_to_all(&self, open: bool) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(if open { OPEN_MODE } else { MODE }))
    }

    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A successor may have put its own socket here: only ours is removed.
        if !self.borrowed
            && fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the admin socket could not be removed");
        }
    }
}

/// Mode, group and non-blocking; returns the inode.
fn prepare(listener: &UnixListener, path: &Path) -> io::Result<u64> {
    listener.set_nonblocking(true)?;
    if let Some(group) = group()
        && let Err(error) = chown(path, None, Some(group))
    {
        // Without CAP_CHOWN it takes a member of the group: root alone can use the socket then.
        tracing::warn!(group = GROUP, %error, "the admin socket could not be given to its group");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(fs::symlink_metadata(path)?.ino())
}

/// The group that may use the socket; without one it stays with lbd's own.
fn group() -> Option<Gid> {
    Group::from_name(GROUP).ok().flatten().map(|group| group.gid)
}

fn refuse_live(path: &Path) -> Result<(), SocketError> {
    let io = |doing| move |source| SocketError::Io { path: path.to_owned(), doing, source };
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at it")(error)),
    };
    if !there.file_type().is_socket() {
        return Err(SocketError::Occupied(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let owner = getsockopt(&stream, PeerCredentials)
                .map_or_else(|_| "process unknown".to_owned(), |peer| format!("process {}", peer.pid()));
            Err(SocketError::InUse { path: path.to_owned(), owner })
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(io("find out whether its daemon lives")(error)),
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", process::id()))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_has_its_mode_and_goes_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary name is left");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_refused_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _live = Socket::bind(&path).unwrap();
        let error = Socket::bind(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("another lbd (process {})", process::id())), "{error}");
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let _socket = Socket::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn another_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::Occupied(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let old = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _new = UnixListener::bind(&path).unwrap();
        drop(old);
        assert!(path.exists());
    }
}
