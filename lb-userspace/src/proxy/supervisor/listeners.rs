//! The listening sockets: made by lbd, kept by lbd, so that connections wait in them while there is no worker.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    control::proxy::ProxyPlan,
    proxy::{channel::Channel, message::ToWorker},
};

/// Connections that wait to be accepted, for each socket; the kernel takes `net.core.somaxconn` when that is less.
const BACKLOG: i32 = 4096;

/// Of this network namespace, also for IPv6 (Linux 5.14).
const MIGRATE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

/// What a socket is for: virtual server and address.
pub type Place = (String, SocketAddr);

/// Sockets of each address, one for each thread.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: BTreeMap<Place, Vec<TcpListener>>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("virtual server {virtual_server:?} cannot listen on {address}: {source}")]
pub(super) struct ListenError {
    virtual_server: String,
    address: SocketAddr,
    source: io::Error,
}

impl Listeners {
    /// Those of the program before, as far as there is one for each thread. When a worker of an lbd that has crashed closes
    /// its sockets, what waits in them must move to ours: the kernel resets it unless it is told so.
    pub(super) fn inherited(sockets: Vec<super::Listening>, threads: usize) -> Self {
        if let Err(error) = fs::write(MIGRATE, "1") {
            tracing::warn!(
                %error,
                "cannot set {MIGRATE}: after a crash of lbd some connections may be reset (sysctl -w net.ipv4.tcp_migrate_req=1)"
            );
        }
        let fitting = sockets.into_iter().filter(|(_, sockets)| sockets.len() == threads);
        let sockets = fitting.map(|(place, sockets)| (place, sockets.into_iter().map(TcpListener::from).collect()));
        Self { sockets: sockets.collect() }
    }

    /// Makes the sockets that a plan has and this has not: which. On error nothing is changed.
    pub(super) fn add(&mut self, plan: &ProxyPlan, threads: usize) -> Result<Vec<Place>, ListenError> {
        let mut made: BTreeMap<Place, Vec<TcpListener>> = BTreeMap::new();
        for place in places(plan) {
            if self.sockets.contains_key(&place) {
                continue;
            }
            let sockets = (0..threads).map(|_| listen(place.1)).collect::<io::Result<Vec<_>>>();
            let (virtual_server, address) = (place.0.clone(), place.1);
            let sockets = sockets.map_err(|source| ListenError { virtual_server, address, source })?;
            made.insert(place, sockets);
        }
        let added = made.keys().cloned().collect();
        self.sockets.extend(made);
        Ok(added)
    }

    /// Closes the sockets that a plan does not have.
    pub(super) fn retain(&mut self, plan: &ProxyPlan) {
        let wanted: std::collections::BTreeSet<Place> = places(plan).collect();
        self.sockets.retain(|place, _| wanted.contains(place));
    }

    /// All addresses with their sockets.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Place, Vec<BorrowedFd<'_>>)> {
        self.sockets.iter().map(|(place, sockets)| (place, sockets.iter().map(AsFd::as_fd).collect()))
    }

    /// Gives a worker the sockets of some addresses.
    pub(super) fn hand_over(&self, channel: &Channel, places: &[Place]) -> io::Result<()> {
        for (place, sockets) in self.all().filter(|(place, _)| places.contains(place)) {
            let message = ToWorker::Listen { virtual_server: place.0.clone(), address: place.1 };
            channel.send(&message, &sockets)?;
        }
        Ok(())
    }
}

fn places(plan: &ProxyPlan) -> impl Iterator<Item = Place> {
    let servers = plan.virtual_servers.iter();
    servers.flat_map(|(name, server)| server.listen.iter().map(|address| (name.clone(), *address)))
}

/// A listening socket. `IP_FREEBIND`: the address may be a VIP that another machine has now.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
