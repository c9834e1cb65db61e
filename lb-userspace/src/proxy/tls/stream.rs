//! An encrypted connection over rustls' unbuffered API. While nothing is under way it holds no buffer.
//!
//! Reads decrypt into the reader's buffer. Writes become records of up to 16 KiB, the first ones of an answer smaller, so
//! that a client whose window is small can decrypt early; what several slices hold goes into one record. The end of the
//! peer's data is told only by its close_notify: a connection that just ends is an error, `UnexpectedEof` (T11).

mod sink;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{CommonState, Error, client::UnbufferedClientConnection, server::UnbufferedServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::sink::Sink;
pub(super) use self::sink::{Event, Order};
use super::scratch::Scratch;
use crate::proxy::reactor::Socket;

/// Least room for which a read is asked for.
const READ_LEAST: usize = 4 * 1024;

/// Most bytes of incomplete records and handshake messages: rustls takes handshake messages of up to 64 KiB.
const INPUT_MOST: usize = 80 * 1024;

/// A TLS connection after its handshake.
pub struct TlsStream {
    io: Socket,
    session: Session,
    /// Records as they came, not looked at yet or incomplete.
    input: Scratch,
    /// Records that are to be sent.
    output: Scratch,
    /// Decrypted bytes for which the reader had no room.
    plain: Vec<u8>,
    /// How many of `plain` were read.
    plain_read: usize,
    /// Bytes written since the last read: decides the size of records.
    burst: usize,
    /// Its close_notify came: no more data.
    peer_closed: bool,
    /// Ours was sent, or cannot be.
    closed: bool,
    /// The input is the begin of a record: only bytes from the peer help.
    incomplete: bool,
    /// rustls returned an error: it must not be asked again.
    failed: bool,
}

/// Which side we are.
pub(super) enum Session {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("io", &self.io).finish_non_exhaustive()
    }
}

impl TlsStream {
    pub(super) fn new(io: Socket, session: Session, already: &[u8]) -> Self {
        let mut input = Scratch::default();
        if !already.is_empty() {
            input.push(already);
        }
        Self {
            io,
            session,
            input,
            output: Scratch::default(),
            plain: Vec::new(),
            plain_read: 0,
            burst: 0,
            peer_closed: false,
            closed: false,
            incomplete: false,
            failed: false,
        }
    }

    /// The socket beneath: for addresses and options. Reading from it or writing to it breaks the stream.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.io
    }

    /// The protocol agreed by ALPN.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// Whether the peer has ended its data by close_notify.
    #[must_use]
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether bytes are here that a read would return without looking at the socket, or that still wait to be sent.
    #[must_use]
    pub fn holds_bytes(&self) -> bool {
        !(self.plain.is_empty() && self.input.is_empty() && self.output.is_empty())
    }

    pub(super) fn state(&self) -> &CommonState {
        match &self.session {
            Session::Server(session) => session,
            Session::Client(session) => session,
        }
    }

    pub(super) fn input(&mut self) -> &mut Scratch {
        &mut self.input
    }

    pub(super) fn output(&mut self) -> &mut Scratch {
        &mut self.output
    }

    /// Lets rustls work until it has done what it is called for, or cannot go on. After an error only
    /// [`Self::collect_alerts`] may follow.
    pub(super) fn turn(&mut self, order: &mut Order<'_, '_>) -> Result<Event, Error> {
        loop {
            match self.step(order)? {
                Event::Again => {}
                Event::PeerClosed => {
                    self.peer_closed = true;
                    return Ok(Event::PeerClosed);
                }
                other @ (Event::Plain | Event::NeedsInput | Event::Ready) => return Ok(other),
            }
        }
    }

    fn step(&mut self, order: &mut Order<'_, '_>) -> Result<Event, Error> {
        let mut sink = Sink { output: &mut self.output, plain: &mut self.plain, burst: &mut self.burst, order };
        let (discard, event) = match &mut self.session {
            Session::Server(session) => sink.take(session.process_tls_records(self.input.filled())),
            Session::Client(session) => sink.take(session.process_tls_records(self.input.filled())),
        };
        self.input.consume(discard);
        event
    }

    /// After an error: takes what rustls wants to tell the peer about it into the output. Not more: rustls would look at
    /// the bad record again, and it asserts that it sends one fatal alert.
    pub(super) fn collect_alerts(&mut self) {
        self.closed = true;
        self.failed = true;
        while self.state().wants_write() && self.step(&mut Order::Handshake).is_ok() {}
    }

    /// Reads what the socket has into the input. 0: the connection ended.
    pub(super) fn poll_receive(&mut self, context: &Context<'_>) -> Poll<io::Result<usize>> {
        // The buffer is borrowed when there is something to read, not before.
        ready!(self.io.poll_readable(context))?;
        let Some(space) = self.input.space(READ_LEAST, INPUT_MOST) else {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "handshake message too long")));
        };
        let polled = self.io.poll_read(context, space);
        if let Poll::Ready(Ok(count)) = &polled {
            self.input.fill(*count);
        }
        self.input.tidy();
        polled
    }

    /// Sends the output.
    pub(super) fn poll_send(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let sent = ready!(self.io.poll_write_vectored(context, &[IoSlice::new(self.output.filled())]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.consume(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our direction of the socket, once all is sent.
    pub(super) fn poll_finish(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Poll::Ready(self.io.end())
    }

    fn give_stashed(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = &self.plain[self.plain_read..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.plain_read += count;
        if self.plain_read == self.plain.len() {
            self.plain = Vec::new();
            self.plain_read = 0;
        }
    }

    /// Tells the peer what was wrong, as far as the socket takes it, and the caller.
    fn fail(&mut self, context: &Context<'_>, error: Error) -> io::Error {
        self.collect_alerts();
        let _ = self.poll_send(context);
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    /// Ready once something can be read without waiting, as a rule; holds no buffer meanwhile.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_readable(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if !self.plain.is_empty() || self.peer_closed || self.failed {
            return Poll::Ready(Ok(()));
        }
        // An incomplete record waits for the rest of it; a complete one is found by reading.
        if !self.input.is_empty() && !self.incomplete {
            return Poll::Ready(Ok(()));
        }
        let polled = self.io.poll_readable(context);
        if polled.is_pending() {
            // Tickets and key updates do not wait for the next answer; a socket that is full lets them wait.
            let _ = self.poll_send(context)?;
        }
        polled
    }

    /// Reads into `room`; 0 is the end of the peer's data, told by its close_notify.
    ///
    /// # Errors
    /// The socket's; `UnexpectedEof` when the connection ends without a close_notify; `InvalidData` with rustls' error
    /// inside.
    pub fn poll_read(&mut self, context: &Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(room);
        ready!(self.poll_fill(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_fill(&mut self, context: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !self.plain.is_empty() {
                self.burst = 0;
                self.give_stashed(buffer);
                return Poll::Ready(Ok(()));
            }
            if self.peer_closed {
                return Poll::Ready(Ok(()));
            }
            if self.failed {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if !self.input.is_empty() {
                let before = buffer.filled().len();
                match self.turn(&mut Order::Read(buffer)) {
                    Ok(Event::Plain) if buffer.filled().len() > before => {
                        self.burst = 0;
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Event::NeedsInput) => self.incomplete = true,
                    Ok(_) => continue,
                    Err(error) => return Poll::Ready(Err(self.fail(context, error))),
                }
            }
            match self.poll_receive(context) {
                Poll::Ready(Ok(0)) => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "ended without close_notify");
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(_)) => self.incomplete = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Tickets and key updates do not wait for the next answer; a socket that is full lets them wait.
                    let _ = self.poll_send(context)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Encrypts what there is room for, all slices together, and sends as much as the socket takes. What it does not take is
    /// kept; [`Self::poll_flush`] sends it, and the next write waits for it.
    ///
    /// # Errors
    /// The socket's; `BrokenPipe` after our own end.
    pub fn poll_write_vectored(&mut self, context: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let mut taken = 0;
        loop {
            match self.turn(&mut Order::Write(slices, &mut taken)) {
                Ok(Event::Ready) => {}
                Ok(Event::NeedsInput) => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Ok(_) => continue,
                Err(error) => return Poll::Ready(Err(self.fail(context, error))),
            }
            // What the handshake left to send goes along. Records that the socket does not take hold back new ones.
            let sent = self.poll_send(context)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            ready!(sent);
        }
    }

    /// Ready when all that was written is with the kernel.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context)
    }

    /// Says goodbye (close_notify), sends it and ends our direction. Reading goes on.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_end(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        while !self.closed {
            match self.turn(&mut Order::Close) {
                Ok(Event::Ready | Event::NeedsInput) | Err(_) => self.closed = true,
                Ok(_) => {}
            }
        }
        self.poll_finish(context)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(cx, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        TlsStream::poll_write_vectored(&mut self, cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        TlsStream::poll_write_vectored(&mut self, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}
