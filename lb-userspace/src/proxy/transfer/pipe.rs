//! Pipes that large bodies are moved through within the kernel (splice(2)): a stock for each thread.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::{BodyError, BodyReader};
use crate::proxy::reactor::Socket;

/// Empty pipes that a thread keeps for later.
const KEPT: usize = 32;

/// Bytes a pipe is to hold: more than a socket gives at a time.
const SIZE: usize = 256 * 1024;

thread_local! {
    static STOCK: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    /// Bytes in it: counted by who moves them.
    pub held: usize,
}

impl Pipe {
    /// An empty pipe.
    ///
    /// # Errors
    /// When none can be had: too many open files.
    pub fn take() -> io::Result<Self> {
        if let Some(pipe) = STOCK.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller pipe moves less at a time, which is all.
        let _ = fcntl_setpipe_size(&input, SIZE);
        Ok(Self { output, input, held: 0 })
    }

    /// Puts it back into the stock, if it is empty: bytes of one connection must never reach another.
    pub fn give_back(self) {
        if self.held == 0 {
            STOCK.with_borrow_mut(|stock| {
                if stock.len() < KEPT {
                    stock.push(self);
                }
            });
        }
    }

    /// The end that is written to.
    #[must_use]
    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// The end that is read from.
    #[must_use]
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

/// How much is moved at a time.
pub const PORTION: usize = SIZE;

/// Moves the bytes of one body from a socket to another through a pipe.
#[derive(Debug)]
pub struct Mover {
    pipe: Option<Pipe>,
    passed: u64,
}

impl Mover {
    /// `None` when no pipe can be had: bytes are copied then.
    #[must_use]
    pub fn new() -> Option<Self> {
        Pipe::take().ok().map(|pipe| Self { pipe: Some(pipe), passed: 0 })
    }

    /// Bytes that reached the other socket.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether no bytes are on their way: the sender is waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pipe.as_ref().is_none_or(|pipe| pipe.held == 0)
    }

    /// Moves what `reader` allows; ready when it allows no more and all of it arrived.
    ///
    /// # Errors
    /// [`BodyError::CutOff`] when `from` ended, [`BodyError::Broken`] when either failed.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        reader: &mut BodyReader,
    ) -> Poll<Result<(), BodyError>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        loop {
            while pipe.held > 0 {
                let more = reader.movable() > 0;
                let count = ready!(to.poll_splice_from(context, pipe.output(), pipe.held, more))?;
                pipe.held -= count;
                self.passed += count as u64;
            }
            let left = usize::try_from(reader.movable()).unwrap_or(usize::MAX);
            if left == 0 {
                return Poll::Ready(Ok(()));
            }
            pipe.held = ready!(from.poll_splice_to(context, pipe.input(), left.min(PORTION)))?;
            if pipe.held == 0 {
                return Poll::Ready(Err(BodyError::CutOff));
            }
            reader.moved(pipe.held as u64);
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            pipe.give_back();
        }
    }
}
