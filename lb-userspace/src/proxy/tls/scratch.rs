//! Buffers of TLS records, borrowed from the thread while bytes are in them: an idle connection holds none.
//!
//! Those of `proxy::buffer` are too small: a record of 16 KiB is longer once it is encrypted, and writes take two at a time.

use std::{cell::RefCell, mem};

/// Two records of 16 KiB with what encryption adds to them (RFC 8446 §5.2: at most 256 bytes each), and headers.
const SIZE: usize = 36 * 1024;

/// Buffers that a thread keeps; what is given back beyond goes to the allocator.
const KEPT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes on their way, in a borrowed buffer. Without bytes it has no buffer.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Empty, or initialised over its whole length.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Scratch {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn filled(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Room behind the bytes, at least `least`: by moving them to the front, or by growing up to `most` in all.
    pub(super) fn space(&mut self, least: usize, most: usize) -> Option<&mut [u8]> {
        if self.buffer.is_empty() {
            self.buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE]);
        }
        if self.buffer.len() - self.end < least {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < least {
            let wanted = self.end + least;
            if wanted > most {
                return None;
            }
            self.buffer.resize((2 * self.buffer.len()).clamp(wanted, most), 0);
        }
        Some(&mut self.buffer[self.end..])
    }

    /// Room behind the bytes without growing.
    pub(super) fn spare(&mut self, least: usize) -> Option<&mut [u8]> {
        self.space(least, SIZE)
    }

    /// Room behind the bytes, however much is needed: for what must not be lost, whose size rustls bounds.
    pub(super) fn room(&mut self, least: usize) -> &mut [u8] {
        self.space(least, usize::MAX).expect("nothing is more than usize::MAX")
    }

    /// `count` more bytes stand behind those before.
    pub(super) fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Takes `count` bytes away from the front; the last one takes the buffer along.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        self.tidy();
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Gives the buffer back when nothing is in it.
    pub(super) fn tidy(&mut self) {
        if !self.is_empty() {
            return;
        }
        (self.start, self.end) = (0, 0);
        let buffer = mem::take(&mut self.buffer);
        if buffer.len() == SIZE {
            // While the thread ends, the stock may be gone already.
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT {
                    free.push(buffer);
                }
            });
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.start = self.end;
        self.tidy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_one_holds_no_buffer_and_a_full_one_does_not_grow_unasked() {
        let mut scratch = Scratch::default();
        scratch.push(b"abc");
        scratch.consume(1);
        assert_eq!(scratch.filled(), b"bc");
        let room = scratch.spare(SIZE - 2).expect("the two bytes move to the front").len();
        assert_eq!(room, SIZE - 2);
        assert!(scratch.spare(SIZE - 1).is_none());
        assert!(scratch.space(SIZE, 2 * SIZE).is_some());
        assert_eq!(scratch.filled(), b"bc");
        scratch.consume(2);
        assert!(scratch.buffer.capacity() == 0);
    }
}
