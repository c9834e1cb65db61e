//! UDP: a datagram and its answer. Sockets are connected, so that a port that is closed is noticed at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::{
    machine::Outcome,
    probe::{self, Verdict, failed},
};
use crate::control::probe::Udp;

/// The most of an answer that is looked at, in bytes; what is beyond is cut off.
const MOST_ANSWER: usize = 4096;

/// Asks, and judges the first answer.
pub(super) async fn check(address: SocketAddr, udp: &Udp) -> Verdict {
    let socket = open(address).await?;
    socket.send(&udp.send.0).await?;
    let mut answer = vec![0; MOST_ANSWER];
    let length = socket.recv(&mut answer).await?;
    let answer = &answer[..length];
    match &udp.expect {
        Some(pattern) if pattern.end_of_match(answer).is_none() => {
            failed(format!("the answer does not match: {}", probe::repeat(answer)))
        }
        Some(_) | None => Ok(()),
    }
}

/// A socket that hears this address alone.
pub(super) async fn open(address: SocketAddr) -> Result<UdpSocket, Outcome> {
    if address.port() == 0 {
        return Err(Outcome::Untested("neither the node nor the monitor has a port: give the monitor one".into()));
    }
    let any = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}
