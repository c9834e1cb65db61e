//! Listening sockets that are left with the service manager over a restart (`FDSTORE=1`, sd_notify(3)): clients that come
//! between two lbds wait in them.
//!
//! They are given away at the stop and taken at the start, at once: while lbd runs, nobody else holds a socket of its, so
//! that one that it closes is closed. Called by `daemon` and the control task.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd, RawFd},
    process,
};

use super::{handover::adopt, notify};
use crate::proxy::supervisor::{Listening, Place};

/// The first descriptor that a service manager passes (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// More are not taken: who passed them is no service manager.
const MOST: RawFd = 65_536;

/// Leaves sockets with the service manager, which keeps them while it restarts lbd and closes them when it does not.
pub(super) fn leave(listeners: &[Listening]) {
    for ((virtual_server, _), sockets) in listeners {
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        notify::store(virtual_server, &sockets);
    }
}

/// The sockets that an lbd before has left, by virtual server and address. To be called once, before a process is started.
pub(super) fn take() -> Vec<Listening> {
    let is_own = env::var("LISTEN_PID").is_ok_and(|pid| pid == process::id().to_string());
    let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).filter(|_| is_own);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let fds = FIRST..FIRST + count.unwrap_or(0).clamp(0, MOST);
    let passed = fds.zip(names.split(':')).filter_map(|(fd, name)| Some((name.to_owned(), adopt(fd).ok()?)));
    let passed: Vec<_> = passed.collect();
    for name in passed.iter().map(|(name, _)| name).collect::<BTreeSet<_>>() {
        notify::forget(name);
    }
    by_place(passed)
}

/// What is no listening socket is closed.
fn by_place(passed: Vec<(String, OwnedFd)>) -> Vec<Listening> {
    let mut listeners: BTreeMap<Place, Vec<OwnedFd>> = BTreeMap::new();
    for (virtual_server, fd) in passed {
        if let Ok((address, listener)) = listening(fd) {
            listeners.entry((virtual_server, address)).or_default().push(listener.into());
        }
    }
    listeners.into_iter().collect()
}

fn listening(fd: OwnedFd) -> io::Result<(std::net::SocketAddr, TcpListener)> {
    use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
    if !getsockopt(&fd, AcceptConn)? {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let listener = TcpListener::from(fd);
    Ok((listener.local_addr()?, listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_what_they_are_for_and_others_closed() {
        let listen = |address: &str| TcpListener::bind(address).unwrap();
        let (first, other, v6) = (listen("127.0.0.1:0"), listen("127.0.0.1:0"), listen("[::1]:0"));
        let place = |name: &str, socket: &TcpListener| (name.to_owned(), socket.local_addr().unwrap());
        let expected = [place("web", &first), place("web", &v6), place("zoo", &other)];
        let file = tempfile::tempfile().unwrap();
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let second = first.try_clone().unwrap();
        let passed: [(&str, OwnedFd); 6] = [
            ("web", first.into()),
            ("zoo", other.into()),
            ("web", file.into()),
            ("web", bound.into()),
            ("web", v6.into()),
            ("web", second.into()),
        ];
        let found = by_place(passed.map(|(name, fd)| (name.to_owned(), fd)).into());
        assert_eq!(found.iter().map(|(place, _)| place.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(found.iter().map(|(_, sockets)| sockets.len()).collect::<Vec<_>>(), [2, 1, 1]);
    }
}
