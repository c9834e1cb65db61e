//! Whole Ethernet frames (AF_PACKET): one socket that only sends, its protocol being 0, and ones that only listen.

use std::{io, mem::size_of};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// One socket for all interfaces.
#[derive(Debug)]
pub(super) struct PacketSocket(Socket);

impl PacketSocket {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Hands a frame, Ethernet header first, to the interface.
    pub(super) fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        self.0.send_to(frame, &link_address(interface, 0)?).map(drop)
    }
}

/// A socket that gets the frames of a protocol (EtherType) that come in at an interface and pass the filter; an empty one lets
/// all pass.
pub(super) fn listen(interface: u32, protocol: u16, filter: &[SockFilter]) -> io::Result<Socket> {
    // Deaf until it is bound, so that nothing comes before the filter.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
    }
    socket.bind(&link_address(interface, protocol)?)?;
    Ok(socket)
}

/// With `SOCK_RAW` the kernel takes everything but the interface from the frame itself; the protocol is what is listened to.
fn link_address(interface: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(interface).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data that fits into a sockaddr_storage, for which every bit pattern is valid.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index;
    // SAFETY: the storage holds a sockaddr_ll, whose family says so and whose size is given.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32) })
}
