//! Sends whole Ethernet frames (AF_PACKET). Receives nothing: its protocol is 0.

use std::{io, mem::size_of};

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

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
        self.0.send_to(frame, &link_address(interface)?).map(drop)
    }
}

/// With `SOCK_RAW` the kernel takes everything but the interface from the frame itself.
fn link_address(interface: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(interface).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data that fits into a sockaddr_storage, for which every bit pattern is valid.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index;
    // SAFETY: the storage holds a sockaddr_ll, whose family says so and whose size is given.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32) })
}
