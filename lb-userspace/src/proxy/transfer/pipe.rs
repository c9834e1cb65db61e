//! Pipes that large bodies are moved through within the kernel (splice(2)): a stock for each thread.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

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
