//! Atomic operations of the BPF instruction set v3 (Linux 5.12). `core::sync::atomic` does not offer them for this target,
//! so the compiler's intrinsics are named directly.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_and, atomic_cxchg, atomic_xadd, atomic_xchg};

/// An aligned 64-bit word of a map value, shared with other CPUs and with user space.
#[derive(Clone, Copy)]
pub struct Word(*mut u64);

impl Word {
    /// # Safety
    /// `word` must point to eight aligned bytes of a map value.
    #[inline(always)]
    pub unsafe fn new(word: *mut u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub fn load(self) -> u64 {
        // SAFETY: by the contract of `new`. An aligned 64-bit BPF load is a single access.
        unsafe { self.0.read_volatile() }
    }

    /// Adds, wrapping; returns what was there before.
    #[inline(always)]
    pub fn fetch_add(self, difference: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u64, u64, { SeqCst }>(self.0, difference) }
    }

    /// Clears bits, whatever else changes.
    #[inline(always)]
    pub fn clear(self, bits: u64) {
        // SAFETY: as above.
        unsafe { atomic_and::<u64, u64, { SeqCst }>(self.0, !bits) };
    }

    /// Replaces `old` by `new`, or nothing when something else is there. A full barrier.
    #[inline(always)]
    pub fn exchange(self, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.0, old, new).1 }
    }

    /// Stores after everything that was stored before. On x86-64 stores keep their order and a plain one will do.
    #[inline(always)]
    pub fn release(self, value: u64) {
        if cfg!(bpf_target_arch = "x86_64") {
            // SAFETY: as above; volatile stores are not reordered by the compiler.
            unsafe { self.0.write_volatile(value) };
        } else {
            self.publish(value);
        }
    }

    /// Stores. A full barrier: earlier stores are seen before it, later loads come after it.
    #[inline(always)]
    pub fn publish(self, value: u64) {
        // SAFETY: as above.
        unsafe { atomic_xchg::<u64, { SeqCst }>(self.0, value) };
    }
}
