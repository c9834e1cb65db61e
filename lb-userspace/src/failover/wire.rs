//! Packets of IP protocol 112 (VRRP and CARP) on interfaces: raw sockets, one for each interface and family.
//!
//! Says where a packet came from and with which TTL; what it means is for `routers` to say. Sends with TTL 255 from a given
//! address of the interface (RFC 9568 §5.1.1.3, §5.1.2.3).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    cmsg_space,
    net::if_::if_nametoindex,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, recvmsg, sendmsg, setsockopt,
        sockopt::{Ipv6RecvHopLimit, Ipv6RecvPacketInfo},
    },
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::Interest;

use super::{
    frame,
    packet_socket::PacketSocket,
    routers::{Packet, Received},
    vrrp::{GROUP4, GROUP6, PROTOCOL, TTL},
};

/// Class selector 6 (RFC 4594 §3.1): switches drop these last.
const NETWORK_CONTROL: u32 = 0xc0;
/// Packets that are looked at before others get their turn.
const BATCH: usize = 64;
/// The longest packet: 255 IPv6 addresses.
const MAX_BYTES: usize = 60 + 8 + 255 * 16;

/// The sockets.
#[derive(Debug, Default)]
pub(super) struct Wire {
    ears: BTreeMap<(String, bool), Ear>,
    /// For what comes from a virtual MAC address; `None`: it was not needed yet, or could not be had.
    frames: Option<PacketSocket>,
}

#[derive(Debug)]
struct Ear {
    index: u32,
    /// A raw socket: the datagram calls are the same for it.
    socket: tokio::net::UdpSocket,
}

/// A packet that came.
#[derive(Debug)]
pub(super) struct Arrived {
    interface: String,
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    payload: Vec<u8>,
}

impl Arrived {
    pub(super) fn as_received(&self) -> Received<'_> {
        let Self { interface, source, destination, ttl, payload } = self;
        Received { interface, source: *source, destination: *destination, ttl: *ttl, payload }
    }
}

impl Wire {
    /// Listens on these interfaces, IPv6 or not, as far as they are there; also on ones that have come back.
    pub(super) fn listen(&mut self, wanted: &BTreeSet<(String, bool)>) {
        if self.frames.is_none() && !wanted.is_empty() {
            self.frames = PacketSocket::open()
                .inspect_err(|error| tracing::warn!(%error, "nothing can be sent from virtual MAC addresses yet"))
                .ok();
        }
        self.ears.retain(|place, ear| wanted.contains(place) && if_nametoindex(place.0.as_str()) == Ok(ear.index));
        for place in wanted {
            if self.ears.contains_key(place) {
                continue;
            }
            let Ok(index) = if_nametoindex(place.0.as_str()) else { continue };
            match open(&place.0, index, place.1) {
                Ok(socket) => drop(self.ears.insert(place.clone(), Ear { index, socket })),
                Err(error) => tracing::warn!(%error, interface = place.0, "VRRP and CARP are not spoken here yet"),
            }
        }
    }

    /// Waits until a packet has come.
    pub(super) async fn readable(&self) {
        if self.ears.is_empty() {
            return std::future::pending().await;
        }
        // An error shows again when the socket is read.
        let waits = self.ears.values().map(|ear| Box::pin(ear.socket.readable()));
        let _ = futures_util::future::select_all(waits).await.0;
    }

    /// What has come.
    pub(super) fn receive(&self) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for ((interface, is_ipv6), ear) in &self.ears {
            for _ in 0..BATCH {
                let read = || if *is_ipv6 { receive6(&ear.socket) } else { receive4(&ear.socket) };
                match ear.socket.try_io(Interest::READABLE, read) {
                    Ok(Some((source, destination, ttl, payload))) => {
                        arrived.push(Arrived { interface: interface.clone(), source, destination, ttl, payload });
                    }
                    // No IP packet, which the kernel does not deliver.
                    Ok(None) => {}
                    // Nothing more, or an error that has been taken from the socket by this.
                    Err(_) => break,
                }
            }
        }
        arrived
    }

    /// Sends an advertisement.
    ///
    /// # Errors
    /// When the interface or the address is not there, or the kernel refuses.
    pub(super) fn send(&self, packet: &Packet) -> io::Result<()> {
        let place = (packet.interface.clone(), packet.source.is_ipv6());
        let ear = self.ears.get(&place).ok_or(io::ErrorKind::NotConnected)?;
        if let Some(frame) = frame::advertisement(packet) {
            return self.frames.as_ref().ok_or(io::ErrorKind::NotConnected)?.send(ear.index, &frame);
        }
        let (fd, payload) = (ear.socket.as_raw_fd(), [IoSlice::new(&packet.payload)]);
        match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: ear.index.cast_signed(),
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                sendmsg(fd, &payload, &[ControlMessage::Ipv4PacketInfo(&info)], MsgFlags::MSG_DONTWAIT, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: ear.index,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, ear.index));
                sendmsg(fd, &payload, &[ControlMessage::Ipv6PacketInfo(&info)], MsgFlags::MSG_DONTWAIT, Some(&to))?;
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        Ok(())
    }
}

fn open(interface: &str, index: u32, is_ipv6: bool) -> io::Result<tokio::net::UdpSocket> {
    let domain = if is_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    if is_ipv6 {
        socket.set_multicast_hops_v6(TTL.into())?;
        socket.set_unicast_hops_v6(TTL.into())?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
        setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        socket.join_multicast_v6(&GROUP6, index)?;
    } else {
        socket.set_multicast_ttl_v4(TTL.into())?;
        socket.set_ttl_v4(TTL.into())?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_tos_v4(NETWORK_CONTROL)?;
        socket.join_multicast_v4_n(&GROUP4, &InterfaceIndexOrAddress::Index(index))?;
    }
    tokio::net::UdpSocket::from_std(UdpSocket::from(OwnedFd::from(socket)))
}

type Parts = (IpAddr, IpAddr, u8, Vec<u8>);

/// IPv4: the packet comes with its header.
fn receive4(socket: &tokio::net::UdpSocket) -> io::Result<Option<Parts>> {
    let mut buffer = [0; MAX_BYTES];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let length = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, None, MsgFlags::MSG_DONTWAIT)?.bytes;
    Ok(parts4(&buffer[..length]))
}

fn parts4(packet: &[u8]) -> Option<Parts> {
    let header = packet.first_chunk::<20>()?;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let payload = packet.get(usize::from(header[0] & 0x0f) * 4..)?;
    Some((address(12).into(), address(16).into(), header[8], payload.to_vec()))
}

/// IPv6: header fields come beside the packet.
fn receive6(socket: &tokio::net::UdpSocket) -> io::Result<Option<Parts>> {
    let mut buffer = [0; MAX_BYTES];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let mut space = cmsg_space!(libc::in6_pktinfo, i32);
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let source = message.address.map(|address| IpAddr::V6(address.ip()));
    let (mut destination, mut ttl) = (None, None);
    for header in message.cmsgs()? {
        if let ControlMessageOwned::Ipv6PacketInfo(info) = header {
            destination = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
        } else if let ControlMessageOwned::Ipv6HopLimit(limit) = header {
            ttl = u8::try_from(limit).ok();
        }
    }
    let length = message.bytes;
    Ok(source
        .zip(destination)
        .zip(ttl)
        .map(|((source, destination), ttl)| (source, destination, ttl, buffer[..length].to_vec())))
}
