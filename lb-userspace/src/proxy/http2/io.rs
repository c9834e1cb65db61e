//! A connection's bytes as `h2` wants them, watched: what frames come, and how many bytes in one go.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::glitch::{Level, Score};
use crate::proxy::{buffer::Buffer, reactor, stream::Stream};

/// Bytes that are read before other connections get their turn.
const ROUND: usize = 128 * 1024;

/// What is known of a connection's bytes; shared by the connection and who drives it.
#[derive(Debug)]
pub(crate) struct Watch {
    score: RefCell<Score>,
    /// Bytes that may still be read in this round.
    left: Cell<usize>,
}

impl Watch {
    /// Begins a round: to be called before the connection is polled.
    pub(crate) fn begin_round(&self) {
        self.left.set(ROUND);
    }

    /// What is to be done about the peer.
    pub(crate) fn level(&self) -> Level {
        self.score.borrow().level()
    }
}

/// A stream for `h2`.
#[derive(Debug)]
pub(crate) struct Io {
    stream: Stream,
    /// What was read before `h2` came.
    early: Option<Buffer>,
    watch: Rc<Watch>,
}

impl Io {
    /// Of `stream`, which `early` came from already; the peer's first `skip` bytes are no frames.
    pub(crate) fn new(stream: Stream, early: Option<Buffer>, skip: usize) -> (Self, Rc<Watch>) {
        let score = RefCell::new(Score::new(reactor::now_ms(), skip));
        let watch = Rc::new(Watch { score, left: Cell::new(ROUND) });
        (Self { stream, early, watch: Rc::clone(&watch) }, watch)
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(early) = &mut self.early {
            let count = early.len().min(room.len());
            room[..count].copy_from_slice(&early.bytes()[..count]);
            early.consume(count);
            if early.is_empty() {
                self.early = None;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        self.stream.poll_read(context, room)
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        // `h2` reads as long as something comes: a peer that never pauses must not keep it, nor go on past its limit.
        if io.watch.level() == Level::Close || io.watch.left.get() == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = buffer.initialize_unfilled();
        let count = ready!(io.poll_bytes(context, room))?;
        io.watch.score.borrow_mut().read(&room[..count], reactor::now_ms());
        io.watch.left.set(io.watch.left.get().saturating_sub(count));
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        let count = ready!(io.stream.poll_write_vectored(context, slices))?;
        io.watch.score.borrow_mut().wrote(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_end(context)
    }
}
