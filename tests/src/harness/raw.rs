//! A raw packet socket (AF_PACKET) on one interface: whole Ethernet frames in and out. For floods, and for seeing what is
//! on the wire. Used inside a namespace's thread.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

/// linux/if_packet.h
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A raw packet socket.
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
}

impl RawSocket {
    /// Opens it on an interface of the namespace the calling thread is in; a receive waits at most `timeout`.
    ///
    /// # Errors
    /// Without root, or for an unknown interface.
    pub fn open(interface: &str, timeout: Duration) -> Result<Self> {
        let ifindex = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
        check(fd as isize).context("a raw packet socket needs root (CAP_NET_RAW)")?;
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: `address` is a sockaddr_ll, alive during the call and passed with its size.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), length) };
        check(bound as isize).with_context(|| format!("binding to {interface}"))?;
        nix::sys::socket::setsockopt(
            &fd,
            nix::sys::socket::sockopt::ReceiveTimeout,
            &nix::sys::time::TimeVal::new(timeout.as_secs() as i64, i64::from(timeout.subsec_micros())),
        )?;
        Ok(Self { fd })
    }

    /// Receives only what comes in from now on.
    ///
    /// # Errors
    /// Before Linux 4.20.
    pub fn ignore_outgoing(&self) -> Result<()> {
        let on: libc::c_int = 1;
        let (level, name, length) = (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, size_of_val(&on) as u32);
        // SAFETY: the pointer is to a live int, passed with its size.
        let set = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, ptr::from_ref(&on).cast(), length) };
        check(set as isize).context("PACKET_IGNORE_OUTGOING").map(drop)
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the interface is down or its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length are those of one live slice.
        check(unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) }).map(drop)
    }

    /// The next frame that comes in or goes out; `None` when none came within the timeout.
    ///
    /// # Errors
    /// When the interface went away.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        self.receive_by(buffer, 0)
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn try_receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        self.receive_by(buffer, libc::MSG_DONTWAIT)
    }

    fn receive_by<'b>(&self, buffer: &'b mut [u8], flags: libc::c_int) -> io::Result<Option<&'b [u8]>> {
        // SAFETY: the pointer and length are those of one live, exclusively borrowed slice.
        match check(unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) }) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
