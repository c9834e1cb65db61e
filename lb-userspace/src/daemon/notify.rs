//! What the service manager is told (sd_notify(3)). Without one (`NOTIFY_SOCKET` unset) nothing happens. Never waits for
//! it: the control task calls this, and a service manager that does not read must not stop it.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    time::Duration,
};

use sd_notify::NotifyState;

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

fn send(states: &[NotifyState<'_>]) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(Path::new(&socket), states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Sends without waiting: `WouldBlock` when the reader's queue is full. `sd_notify::notify` would wait.
fn send_to(path: &Path, states: &[NotifyState<'_>]) -> io::Result<()> {
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address(path)?)?;
    Ok(())
}

/// A path, or with `@` in front a name in the abstract namespace (sd_notify(3)).
fn address(path: &Path) -> io::Result<SocketAddr> {
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_does_not_read_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let reader = UnixDatagram::bind(&path).unwrap();
        let refused = (0..100_000).find_map(|_| send_to(&path, &[NotifyState::Watchdog]).err()).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 64];
        let length = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
        send_to(&path, &[NotifyState::Ready, NotifyState::Status("up")]).unwrap();
    }

    #[test]
    fn abstract_names_are_understood() {
        let name = format!("lb-notify-test-{}", std::process::id());
        let reader = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send_to(Path::new(&format!("@{name}")), &[NotifyState::Ready]).unwrap();
        let mut buffer = [0; 64];
        let length = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\n");
    }
}
