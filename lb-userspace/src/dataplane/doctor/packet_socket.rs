//! A raw packet socket (AF_PACKET) on one interface: whole Ethernet frames out, and everything in that the XDP program
//! passed to the host. Used by `probes`.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// The socket.
#[derive(Debug)]
pub(super) struct PacketSocket(Socket);

impl PacketSocket {
    /// Bound to an interface; never blocks.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        let every = i32::from((libc::ETH_P_ALL as u16).to_be());
        // Made without a protocol, so that it receives nothing before it is bound to the interface.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&link_address(ifindex, every)?)?;
        Ok(Self(socket))
    }

    /// Sends a frame, Ethernet header first.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }

    /// The next frame that has come in; `None`: there is none now.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        use std::io::Read;
        match (&self.0).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// packet(7). `protocol` is in network order.
fn link_address(ifindex: u32, protocol: i32) -> io::Result<SockAddr> {
    let index = i32::try_from(ifindex).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data that fits into a sockaddr_storage, for which every bit pattern is valid.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol as u16;
    address.sll_ifindex = index;
    // SAFETY: the storage holds a sockaddr_ll, whose family says so and whose size is given.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32) })
}
