//! What the service manager is told (sd_notify(3)). Without one (`NOTIFY_SOCKET` unset) nothing happens. Never waits for
//! it: the control task calls this, and a service manager that does not read must not stop it.

use std::{
    env,
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    path::Path,
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use sd_notify::NotifyState;

use crate::proxy::channel::MAX_DESCRIPTORS;

/// The data path is in place: what `systemctl start` waits for.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
    }
}

/// lbd is about to end.
pub(super) fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// The control task is alive, when the service manager wants to hear it.
pub(super) fn watchdog() {
    if watchdog_interval().is_some() {
        send(&[NotifyState::Watchdog]);
    }
}

/// How often the service manager wants to hear from the control task: half of what it allows.
pub(super) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

/// Leaves descriptors with the service manager, by a name, until lbd runs again.
pub(super) fn store(name: &str, descriptors: &[BorrowedFd<'_>]) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    for descriptors in descriptors.chunks(MAX_DESCRIPTORS) {
        // They are no events for it: it must not drop what it keeps.
        if let Err(error) = send_to(Path::new(&socket), &format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"), descriptors) {
            tracing::warn!(%error, name, "the service manager does not take listening sockets: clients are refused until lbd runs again");
        }
    }
}

/// Lets the service manager close what it has by a name.
pub(super) fn forget(name: &str) {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
}

fn send(states: &[NotifyState<'_>]) {
    tell(&text(states));
}

fn text(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

fn tell(text: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(Path::new(&socket), text, &[]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Sends without waiting: `WouldBlock` when the reader's queue is full. `sd_notify::notify` would wait.
fn send_to(path: &Path, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(text.as_bytes())], rights, flags, Some(&address(path)?))?;
    Ok(())
}

/// A path, or with `@` in front a name in the abstract namespace (sd_notify(3)).
fn address(path: &Path) -> io::Result<UnixAddr> {
    Ok(match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(path)?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};

    use super::*;

    #[test]
    fn a_service_manager_that_does_not_read_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let reader = UnixDatagram::bind(&path).unwrap();
        let refused = (0..100_000).find_map(|_| send_to(&path, &text(&[NotifyState::Watchdog]), &[]).err()).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 64];
        let length = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
        send_to(&path, &text(&[NotifyState::Ready, NotifyState::Status("up")]), &[]).unwrap();
    }

    #[test]
    fn abstract_names_are_understood() {
        let name = format!("lb-notify-test-{}", std::process::id());
        let reader = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send_to(Path::new(&format!("@{name}")), &text(&[NotifyState::Ready]), &[]).unwrap();
        let mut buffer = [0; 64];
        let length = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
    }
}
