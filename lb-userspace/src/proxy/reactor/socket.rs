//! TCP sockets of the reactor: listening and connected ones, without blocking, without `SIGPIPE`.

use std::{
    fmt,
    io::{self, IoSlice},
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use nix::{
    libc, setsockopt_impl,
    sys::socket::{setsockopt, sockopt::SetBool},
};
use rustix::{
    io::Errno,
    net::{
        self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketFlags,
        SocketType, sockopt,
    },
    pipe::SpliceFlags,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{source::Source, try_with};

/// Seconds, of which 0 and 1 are used: 1 is one repeated SYN-ACK, the least there is.
#[derive(Clone, Copy, Debug)]
struct DeferAccept;
setsockopt_impl!(DeferAccept, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, bool, SetBool);

/// A connected, or connecting, socket. Belongs to the reactor of the thread that made it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    source: Rc<Source>,
    tied: Option<Box<dyn fmt::Debug>>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        try_with(|reactor| reactor.sockets.set(reactor.sockets.get().saturating_sub(1)));
        self.source.forget();
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Takes over a connected socket that does not block.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        try_with(|reactor| reactor.sockets.set(reactor.sockets.get() + 1));
        Self { fd, source: Source::new(), tied: None }
    }

    /// Lets something end when the connection does: a count of connections, for example.
    pub fn tie(&mut self, what: Box<dyn fmt::Debug>) {
        self.tied = Some(what);
    }

    /// Begins to connect, from `source` where one is given; [`Socket::connected`] tells the end of it.
    ///
    /// # Errors
    /// When no socket can be had (too many open files), `source` is not ours, or the failure is known at once.
    pub fn connect(address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = net::socket_with(family, SocketType::STREAM, flags, Some(net::ipproto::TCP))?;
        Self::connect_by(fd, source, address)
    }

    /// As [`Socket::connect`], by a socket of TCP that was made before and does not block.
    ///
    /// # Errors
    /// As there.
    pub fn connect_by(fd: OwnedFd, source: Option<SocketAddr>, address: SocketAddr) -> io::Result<Self> {
        sockopt::set_tcp_nodelay(&fd, true)?;
        if let Some(source) = source {
            net::bind(&fd, &source)?;
        }
        match net::connect(&fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = Self::new(fd);
        // Nothing can be read or written before an event says so.
        socket.source.readable.set(false);
        socket.source.writable.set(false);
        Ok(socket)
    }

    /// Waits until the connection stands.
    ///
    /// # Errors
    /// What became of it otherwise: refused, unreachable, the kernel's own time-out.
    pub async fn connected(&self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_writable(context)).await?;
        sockopt::socket_error(&self.fd)?.map_err(io::Error::from)
    }

    /// Ready once something can be read, or the peer ended.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn poll_readable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.source.readable.get() {
            return Poll::Ready(Ok(()));
        }
        match self.source.wait_readable(self.as_fd(), context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Whether something may be there to be read, as far as events told; else who waits for it is woken then.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.source.readable.get()
    }

    /// Ready once something can be written, or the connection failed.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn poll_writable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.source.writable.get() {
            return Poll::Ready(Ok(()));
        }
        match self.source.wait_writable(self.as_fd(), context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Reads what is there; 0 is the end of the peer's direction.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_read(&self, context: &Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(context))?;
            match net::recv(&self.fd, &mut *room, RecvFlags::empty()) {
                Ok((_, count)) => {
                    // What did not fill the room emptied the socket; its end, if it came, is still to be read.
                    if count < room.len() && count > 0 && !self.source.ended.get() {
                        self.source.readable.set(false);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => self.source.readable.set(false),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes what the socket takes of the slices, in one call.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_write_vectored(&self, context: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_writable(context))?;
            let written = match slices {
                [only] => net::send(&self.fd, only, SendFlags::NOSIGNAL),
                _ => net::sendmsg(&self.fd, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL),
            };
            match written {
                Ok(count) => {
                    if count < slices.iter().map(|slice| slice.len()).sum() {
                        self.source.writable.set(false);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => self.source.writable.set(false),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Moves up to `length` bytes from the socket into a pipe that is empty; 0 is the end of the peer's direction.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_splice_to(
        &self,
        context: &Context<'_>,
        pipe: BorrowedFd<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_readable(context))?;
            match rustix::pipe::splice(&self.fd, None, pipe, None, length, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => self.source.readable.set(false),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Moves up to `length` bytes that are in a pipe to the socket. `more`: others follow soon.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_splice_from(
        &self,
        context: &Context<'_>,
        pipe: BorrowedFd<'_>,
        length: usize,
        more: bool,
    ) -> Poll<io::Result<usize>> {
        let more = if more { SpliceFlags::MORE } else { SpliceFlags::empty() };
        loop {
            ready!(self.poll_writable(context))?;
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE | more;
            match rustix::pipe::splice(pipe, None, &self.fd, None, length, flags) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => self.source.writable.set(false),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Ends our direction: the peer reads what was written, then an end.
    ///
    /// # Errors
    /// The socket's; one whose peer is gone already counts as ended.
    pub fn end(&self) -> io::Result<()> {
        match net::shutdown(&self.fd, Shutdown::Write) {
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets closing reset the connection at once: the peer must not take what it got for complete.
    pub fn reset_on_close(&self) {
        // Without it the connection is closed in order, which the peer's framing finds incomplete.
        let _ = sockopt::set_socket_linger(&self.fd, Some(std::time::Duration::ZERO));
    }

    /// Whether nothing came that nobody asked for: no byte, no end, no error.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        if self.source.ended.get() {
            return false;
        }
        if !self.source.readable.get() {
            return true;
        }
        let quiet = matches!(net::recv(&self.fd, &mut [0; 1][..], RecvFlags::PEEK), Err(Errno::AGAIN));
        self.source.readable.set(!quiet);
        quiet
    }

    /// Whether the peer ended its direction, or all of it, as far as events told.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.source.ended.get()
    }

    /// Whether the connection failed, or both directions ended, as far as events told.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.source.failed.get()
    }

    /// Our address of the connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        to_address(&net::getsockname(&self.fd)?)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(Socket::poll_read(&self, context, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Socket::poll_write_vectored(&self, context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Socket::poll_write_vectored(&self, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    source: Rc<Source>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.source.forget();
    }
}

impl Listener {
    /// Takes over a listening socket. `TCP_NODELAY` is set on it: connections inherit it.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let fd = OwnedFd::from(listener);
        sockopt::set_tcp_nodelay(&fd, true)?;
        Ok(Self { fd, source: Source::new() })
    }

    /// Whether connections are handed over only when their first bytes are here, or after a second without any (tcp(7),
    /// `TCP_DEFER_ACCEPT`): for clients that speak first. Saves a read that finds nothing and a registration for each.
    pub fn defer(&self, defer: bool) {
        // Without it everything is served as well.
        let _ = setsockopt(&self.fd, DeferAccept, &defer);
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        to_address(&net::getsockname(&self.fd)?)
    }

    /// The next connection and its peer's address.
    ///
    /// # Errors
    /// The kernel's: `EMFILE` and `ENFILE` when there are too many open files, others of the connection itself.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&self, context: &Context<'_>) -> Poll<io::Result<(Socket, SocketAddr)>> {
        loop {
            if !self.source.readable.get() {
                self.source.wait_readable(self.fd.as_fd(), context)?;
                return Poll::Pending;
            }
            match net::acceptfrom_with(&self.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, peer)) => {
                    let peer = peer.ok_or_else(|| io::Error::other("a connection without a peer"))?;
                    return Poll::Ready(to_address(&peer).map(|peer| (Socket::new(fd), peer)));
                }
                Err(Errno::AGAIN) => self.source.readable.set(false),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

fn to_address(address: &SocketAddrAny) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(address.clone())?)
}
