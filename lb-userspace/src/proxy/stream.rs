//! A connection to a client or a node, plain or TLS: what the rest of the proxy reads from and writes to.

use std::{
    io::{self, IoSlice},
    task::{Context, Poll},
};

use super::{reactor::Socket, tls::TlsStream};

/// A connection's bytes, both ways.
#[derive(Debug)]
pub enum Stream {
    /// As they are on the wire.
    Plain(Socket),
    /// Within TLS.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Ready once something can be read without waiting, as a rule; holds no buffer meanwhile.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_readable(context),
            Self::Tls(stream) => stream.poll_readable(context),
        }
    }

    /// Reads what is there; 0 is the end of the peer's direction.
    ///
    /// # Errors
    /// The socket's, and TLS' own; a TLS stream that ends without saying so is `UnexpectedEof`.
    pub fn poll_read(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_read(context, room),
            Self::Tls(stream) => stream.poll_read(context, room),
        }
    }

    /// Writes what can be written of the slices, together.
    ///
    /// # Errors
    /// The socket's, and TLS' own.
    pub fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_write_vectored(context, slices),
            Self::Tls(stream) => stream.poll_write_vectored(context, slices),
        }
    }

    /// Ready when all that was written is with the kernel.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(context),
        }
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Poll::Ready(socket.end()),
            Self::Tls(stream) => stream.poll_end(context),
        }
    }

    /// The socket beneath.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket(),
        }
    }

    /// The socket, where its bytes are the stream's: for moving them within the kernel.
    #[must_use]
    pub fn plain(&self) -> Option<&Socket> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(_) => None,
        }
    }

    /// Whether nothing came that nobody asked for, and nothing waits to be sent.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_quiet(),
            Self::Tls(stream) => !stream.holds_bytes() && stream.socket().is_quiet(),
        }
    }
}
