//! Buffers of bytes on their way: borrowed from the thread's stock while bytes are in them, given back at once.
//!
//! A connection without bytes in flight holds none, which is what keeps idle connections small. The stock is bounded, so
//! that memory goes back to the allocator after a peak. Called by everything in `proxy` that reads from sockets.

use std::cell::RefCell;

/// Bytes of a buffer of the stock: a TLS record, and what one read of a socket usually gives.
pub const SIZE: usize = 16 * 1024;

/// Buffers that a thread keeps for later.
const KEPT: usize = 256;

thread_local! {
    static STOCK: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes between two marks in a block of memory: written behind, taken in front.
#[derive(Debug)]
pub struct Buffer {
    block: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer of [`SIZE`] bytes, from the thread's stock when it has one.
    #[must_use]
    pub fn take() -> Self {
        let block = STOCK.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
        Self { block, start: 0, end: 0 }
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    /// What is in it, to be changed in place.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.block[self.start..self.end]
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Room behind the bytes; after writing there, call [`Buffer::filled`].
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        &mut self.block[self.end..]
    }

    /// `count` bytes were written to [`Buffer::room`].
    ///
    /// # Panics
    /// When there was less room.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.block.len() - self.end, "no more than the room");
        self.end += count;
    }

    /// Takes `count` bytes off the front.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "no more than what is there");
        self.start += count;
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Makes room for `total` bytes in all, keeping what is in it: moves them to the front, and to a larger block where that
    /// is not enough.
    pub fn reserve(&mut self, total: usize) {
        if self.block.len() - self.start >= total {
            return;
        }
        if self.block.len() >= total {
            self.block.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = vec![0; total].into_boxed_slice();
            larger[..self.end - self.start].copy_from_slice(&self.block[self.start..self.end]);
            give_back(std::mem::replace(&mut self.block, larger));
        }
        self.end -= self.start;
        self.start = 0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.block));
    }
}

/// Puts a block of the usual size into the stock; others, and those beyond what is kept, are freed.
fn give_back(block: Box<[u8]>) {
    if block.len() != SIZE {
        return;
    }
    // While the thread ends, its stock may be gone already: the block is freed then.
    let _ = STOCK.try_with(|stock| {
        let mut stock = stock.borrow_mut();
        if stock.len() < KEPT {
            stock.push(block);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_behind_and_out_in_front() {
        let mut buffer = Buffer::take();
        buffer.room()[..5].copy_from_slice(b"hello");
        buffer.filled(5);
        buffer.consume(2);
        assert_eq!((buffer.bytes(), buffer.len()), (&b"llo"[..], 3));
        buffer.consume(3);
        assert!(buffer.is_empty());
        assert_eq!(buffer.room().len(), SIZE, "an empty buffer begins anew");
    }

    #[test]
    fn reserving_keeps_the_bytes_and_larger_blocks_do_not_enter_the_stock() {
        let mut buffer = Buffer::take();
        buffer.room()[..SIZE].fill(7);
        buffer.filled(SIZE);
        buffer.consume(10);
        buffer.reserve(SIZE);
        assert_eq!((buffer.len(), buffer.room().len()), (SIZE - 10, 10));
        buffer.reserve(2 * SIZE);
        assert_eq!((buffer.len(), buffer.room().len()), (SIZE - 10, SIZE + 10));
        assert!(buffer.bytes().iter().all(|byte| *byte == 7));
        drop(buffer);
        assert!(STOCK.with_borrow(|stock| stock.iter().all(|block| block.len() == SIZE)));
    }

    #[test]
    fn the_stock_is_bounded() {
        let many: Vec<_> = (0..KEPT + 50).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(STOCK.with_borrow(Vec::len), KEPT);
    }
}
