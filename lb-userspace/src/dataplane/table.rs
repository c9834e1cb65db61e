//! Memory shared with the data path: an ARRAY map with `BPF_F_MMAPABLE`, mapped into this process and read and written by
//! atomic 64-bit words, because XDP programs and another `lbd` (the one being replaced) change it at the same time.
//!
//! The only `unsafe` of the data plane's maps is here. Used by `maps`; nothing else maps memory.

use std::{
    fmt, io,
    marker::PhantomData,
    mem::MaybeUninit,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use lb_common::{
    digest::Digest,
    flow::{Control, FlowRecord},
    maglev::RingChunk,
    node::{Node, NodeLoad},
    proof::Proof,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// Types that may be read out of shared memory word by word.
///
/// # Safety
/// The type is `repr(C)`, aligned to at least 8 bytes, a whole number of 8-byte words long, and any bytes are a valid value.
pub unsafe trait Words: Copy + 'static {
    /// How many 8-byte words it is long.
    const COUNT: usize = size_of::<Self>() / WORD;
}
// SAFETY: repr(C, align(64)), 64 bytes, integers and byte arrays only (asserted in lb-common).
unsafe impl Words for FlowRecord {}
// SAFETY: repr(C, align(16)), two u64.
unsafe impl Words for Digest {}
// SAFETY: repr(transparent), a u64.
unsafe impl Words for Proof {}
// SAFETY: as above.
unsafe impl Words for Node {}
// SAFETY: repr(C, align(8)), four u64.
unsafe impl Words for NodeLoad {}
// SAFETY: repr(C, align(64)), 64 bytes, integers only (asserted in lb-common).
unsafe impl Words for RingChunk {}
// SAFETY: a word.
unsafe impl Words for u64 {}

/// The word of a [`Digest`] that says until when it is fresh.
const FRESH_WORD: usize = std::mem::offset_of!(Digest, fresh) / WORD;

/// The word of a [`Digest`] that says whose it is.
const NAME_WORD: usize = std::mem::offset_of!(Digest, name) / WORD;

/// The word of a [`FlowRecord`] with its node, virtual server, port and timeout.
const NODE_WORD: usize = std::mem::offset_of!(FlowRecord, node) / WORD;

/// The word of a [`FlowRecord`] that holds its [`Control`].
const CONTROL_WORD: usize = std::mem::offset_of!(FlowRecord, control) / WORD;

/// The elements of a mapped array, as `T`. An index out of range panics like that of a slice: indices from outside are
/// checked with [`Table::len`] first.
pub struct Table<T> {
    base: NonNull<AtomicU64>,
    bytes: NonZeroUsize,
    elements: u32,
    element: PhantomData<T>,
}

// SAFETY: the memory is only reached through atomics, and stays mapped as long as the table lives.
unsafe impl<T> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Table<T> {}

impl<T: Words> Table<T> {
    /// Maps the array map behind `map`, whose values are `value_size` bytes (a multiple of `T`'s size: a bucket is four
    /// records) and which has `max_entries` of them.
    ///
    /// # Errors
    /// What `mmap` says: `EPERM` for a map that was created without `BPF_F_MMAPABLE`.
    ///
    /// # Panics
    /// When `value_size` is not a multiple of the size of `T`: callers have checked the map against the object.
    pub fn map(map: impl AsFd, value_size: u32, max_entries: u32) -> io::Result<Self> {
        let value_size = value_size as usize;
        assert!(
            value_size > 0 && value_size.is_multiple_of(size_of::<T>()),
            "{value_size} bytes are no whole elements"
        );
        // Value sizes that are multiples of a `T` are multiples of 8, which is the stride of an array map.
        let per_value = value_size / size_of::<T>();
        let page = page_size();
        let length = (value_size * max_entries as usize).next_multiple_of(page);
        let bytes = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let base =
            unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self { base: base.cast(), bytes, elements: max_entries * per_value as u32, element: PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.elements
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    fn words(&self, index: u32) -> &[AtomicU64] {
        assert!(index < self.elements, "element {index} of {}", self.elements);
        // SAFETY: the mapping is at least elements × size_of::<T>() bytes long (see `map`), page-aligned, lives as long as
        // `self`, and every access to it in this process is atomic.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(index as usize * T::COUNT), T::COUNT) }
    }

    /// A copy of an element. Each word is read whole; words may come from before and after a change made meanwhile.
    #[must_use]
    pub fn read(&self, index: u32) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        let target = value.as_mut_ptr().cast::<u64>();
        for (i, word) in self.words(index).iter().enumerate() {
            // SAFETY: `value` is COUNT words long and aligned to 8 (`Words`).
            unsafe { target.add(i).write(word.load(Ordering::Relaxed)) };
        }
        // SAFETY: all words are written, and any bytes are a valid `T` (`Words`).
        unsafe { value.assume_init() }
    }

    /// One word of an element.
    #[must_use]
    pub fn load(&self, index: u32, word: usize) -> u64 {
        self.words(index)[word].load(Ordering::Acquire)
    }

    /// Replaces one word of an element.
    pub fn store(&self, index: u32, word: usize, value: u64) {
        self.words(index)[word].store(value, Ordering::Release);
    }

    /// Replaces all words of an element, first to last; not as one change.
    pub fn write(&self, index: u32, value: &T) {
        for (word, new) in self.words(index).iter().zip(to_words(value)) {
            word.store(new, Ordering::Release);
        }
    }

    fn add(&self, index: u32, word: usize, change: i64) {
        self.words(index)[word].fetch_add(change as u64, Ordering::Relaxed);
    }
}

/// The words of a value, in memory order.
pub fn to_words<T: Words>(value: &T) -> impl Iterator<Item = u64> + '_ {
    let base = std::ptr::from_ref(value).cast::<u64>();
    // SAFETY: `value` is COUNT words long, aligned to 8 and has no padding bytes (`Words`).
    (0..T::COUNT).map(move |i| unsafe { base.add(i).read() })
}

impl Table<FlowRecord> {
    /// The control word of a record. Index = bucket × 4 + way.
    #[must_use]
    pub fn control(&self, index: u32) -> Control {
        Control::from_word(self.load(index, CONTROL_WORD))
    }

    /// Replaces the control word if it is still `old`. Says whether it was.
    pub fn exchange_control(&self, index: u32, old: Control, new: Control) -> bool {
        self.words(index)[CONTROL_WORD]
            .compare_exchange(old.to_word(), new.to_word(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Fills a record whose place is claimed, and makes it live by its control word.
    pub fn publish(&self, index: u32, record: &FlowRecord) {
        for (word, (place, new)) in self.words(index).iter().zip(to_words(record)).enumerate() {
            if word != CONTROL_WORD {
                place.store(new, Ordering::Relaxed);
            }
        }
        self.store(index, CONTROL_WORD, record.control.to_word());
    }

    /// Gives a record another timeout, which is the last field of its word.
    pub fn set_timeout(&self, index: u32, timeout: u16) {
        let rest = self.load(index, NODE_WORD) & (u64::MAX >> 16);
        self.store(index, NODE_WORD, rest | u64::from(timeout) << 48);
    }

    /// A record that nobody gave to another connection while it was read; `None` when somebody did, or it is being written.
    #[must_use]
    pub fn snapshot(&self, index: u32) -> Option<FlowRecord> {
        let before = self.control(index);
        let mut record = self.read(index);
        let after = self.control(index);
        record.control = after;
        // A record changes hands only through Claimed, and its new owner is created anew.
        let same = before.state == after.state && before.generation == after.generation;
        (same && after.state > lb_common::conntrack::State::Claimed as u8).then_some(record)
    }
}

impl Table<Digest> {
    /// Names the digest of the record that is about to be published at `index`; it is not fresh.
    pub fn name(&self, index: u32, name: u64) {
        self.store(index, FRESH_WORD, 0);
        self.store(index, NAME_WORD, name);
    }

    /// Takes the freshness away from the digest of the record at `index`: the next packet of its flow looks at the record.
    pub fn doubt(&self, index: u32) {
        self.store(index, FRESH_WORD, 0);
    }
}

impl Table<NodeLoad> {
    /// Adds to the active connections of a node slot.
    pub fn add_active(&self, slot: u32, change: i64) {
        self.add(slot, 0, change);
    }

    /// Adds to the half-open connections of a node slot.
    pub fn add_pending(&self, slot: u32, change: i64) {
        self.add(slot, 1, change);
    }

    /// Sets the weight that least connections divides by.
    pub fn set_weight(&self, slot: u32, weight: u64) {
        self.store(slot, 2, weight);
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our own mapping, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping cannot fail");
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("elements", &self.elements).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapped file behaves as a mapped array map.
    fn table<T: Words>(value_size: u32, elements: u32) -> Table<T> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(u64::from(value_size * elements).next_multiple_of(4096)).unwrap();
        Table::map(&file, value_size, elements).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_neighbours_stay() {
        let nodes = table::<Node>(64, 10);
        let node = Node { mac: [2, 0, 0, 0, 0, 9], flags: 3, ifindex: 7, generation: 5, ..Node::default() };
        nodes.write(4, &node);
        assert_eq!(nodes.read(4), node);
        assert_eq!(nodes.load(4, 0), u64::from_le_bytes([2, 0, 0, 0, 0, 9, 3, 0]));
        assert_eq!((nodes.read(3), nodes.read(5)), (Node::default(), Node::default()));
    }

    #[test]
    fn a_bucket_is_four_records_and_only_the_expected_control_word_is_replaced() {
        let flows = table::<FlowRecord>(256, 2);
        assert_eq!(flows.len(), 8);
        let old = Control { seen: 1, state: 4, flags: 0, generation: 2 };
        flows.write(5, &FlowRecord { control: old, node: 3, ..FlowRecord::default() });
        assert_eq!(flows.snapshot(5).map(|record| record.node), Some(3));
        assert!(!flows.exchange_control(5, Control { seen: 2, ..old }, Control::default()));
        assert!(flows.exchange_control(5, old, Control::default()));
        assert_eq!(flows.snapshot(5), None);
    }

    #[test]
    fn loads_count_both_ways() {
        let loads = table::<NodeLoad>(32, 2);
        loads.add_active(1, 3);
        loads.add_active(1, -1);
        loads.add_pending(1, -1);
        loads.set_weight(1, 10);
        assert_eq!(loads.read(1), NodeLoad { active: 2, pending: u64::MAX, weight: 10, padding: 0 });
    }
}
