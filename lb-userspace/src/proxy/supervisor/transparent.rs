//! Sockets that the worker may bind to clients' addresses: made here, because that takes a right that the worker has not.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    control::proxy::ProxyPlan,
    proxy::{channel::Channel, message::ToWorker, transparent::PORTION},
};

/// Whether a plan asks for what this machine, or lbd's rights, do not allow: why.
///
/// # Errors
/// In words.
pub(super) fn check(plan: &ProxyPlan) -> Result<(), String> {
    let Some((name, _)) = plan.pools.iter().find(|(_, pool)| pool.transparent) else { return Ok(()) };
    make(false, 1).map(drop).map_err(|error| {
        format!("pool {name:?} has transparent = true, but lbd may not use clients' addresses (CAP_NET_ADMIN): {error}")
    })
}

/// Makes a portion and hands it over.
///
/// # Errors
/// The channel's.
pub(super) fn hand_over(channel: &Channel, ipv6: bool) -> io::Result<()> {
    // None at all: the worker asks again when it needs one.
    let sockets = make(ipv6, PORTION).unwrap_or_else(|error| {
        tracing::warn!(%error, "no sockets can be made for transparent pools");
        Vec::new()
    });
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    channel.send(&ToWorker::Sockets { ipv6 }, &descriptors)
}

/// Makes so many.
fn make(ipv6: bool, count: usize) -> io::Result<Vec<OwnedFd>> {
    (0..count).map(|_| one(ipv6)).collect()
}

fn one(ipv6: bool) -> io::Result<OwnedFd> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if ipv6 {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
    }
    // The port is chosen when the node is known: as many connections from one client as it has ports to each node. Without,
    // there are fewer.
    let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
    Ok(socket.into())
}
