//! The TCP connection of a BGP session.

use std::{
    io, mem,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::Neighbor;

/// Class selector 6 (RFC 4594 §3.1), as routers mark BGP.
const NETWORK_CONTROL: u32 = 0xc0;

/// The greatest TTL: what comes with it was forwarded by nobody (RFC 5082).
const MAX_TTL: u32 = 255;

/// Longest key of TCP MD5 signatures (`linux/tcp.h`).
const MAX_KEY: usize = 80;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Md5Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix: u8,
    key_length: u16,
    interface: i32,
    key: [u8; MAX_KEY],
}

const _: () = assert!(mem::size_of::<Md5Signature>() == 216);

pub(super) async fn connect(neighbor: &Neighbor) -> io::Result<TcpStream> {
    let to = SocketAddr::new(neighbor.address, neighbor.port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if to.is_ipv4() {
        socket.set_ttl_v4(MAX_TTL)?;
        socket.set_tos_v4(NETWORK_CONTROL)?;
    } else {
        socket.set_unicast_hops_v6(MAX_TTL)?;
        socket.set_tclass_v6(NETWORK_CONTROL)?;
    }
    if neighbor.ttl_security {
        demand_ttl(&socket, to.is_ipv4())?;
    }
    if !neighbor.password.is_empty() {
        sign(&socket, to, &neighbor.password)?;
    }
    if let Some(source) = neighbor.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// Segments with a smaller TTL are dropped by the kernel.
fn demand_ttl(socket: &Socket, is_ipv4: bool) -> io::Result<()> {
    let (level, option) =
        if is_ipv4 { (libc::IPPROTO_IP, libc::IP_MINTTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT) };
    let least = libc::c_int::from(u8::MAX);
    set(socket, level, option, &least)
}

/// Signs every segment, and drops those that are not.
fn sign(socket: &Socket, to: SocketAddr, password: &[u8]) -> io::Result<()> {
    let length = password.len().min(MAX_KEY);
    let mut key = [0; MAX_KEY];
    key[..length].copy_from_slice(&password[..length]);
    let signature = Md5Signature {
        address: storage(to.ip()),
        flags: 0,
        prefix: 0,
        key_length: u16::try_from(length).unwrap_or(0),
        interface: 0,
        key,
    };
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature)
}

fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let address = SockAddr::from(SocketAddr::new(address, 0));
    // SAFETY: a sockaddr_storage is plain data; socket2's is one, as large as the kernel's.
    unsafe { *address.as_ptr().cast::<libc::sockaddr_storage>() }
}

fn set<T>(socket: &Socket, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(mem::size_of::<T>()).map_err(io::Error::other)?;
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: the pointer is to a value of this length, in the form in which the kernel wants this option, that lives
    // through the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
