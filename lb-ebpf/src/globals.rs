//! Read-only globals that the loader sets (`lb_common::maps::global`). The maps they live in are frozen, so the verifier
//! knows their values and removes the code that they switch off.

use core::ptr::read_volatile;

use lb_common::flow::HashKeys;

use crate::explain;

macro_rules! globals {
    ($( $(#[$doc:meta])* $name:ident, $read:ident: $type:ty = $default:expr; )+) => { $(
        #[unsafe(no_mangle)]
        static $name: $type = $default;

        $(#[$doc])*
        #[inline(always)]
        pub fn $read() -> $type {
            // SAFETY: a static is always readable; volatile, because the loader changes it behind the compiler's back.
            unsafe { read_volatile(&raw const $name) }
        }
    )+ };
}

globals! {
    /// Buckets of `FLOWS`, minus one.
    FLOW_MASK, flow_mask: u32 = 0;
    /// Buckets of `PENDING`, minus one.
    PENDING_MASK, pending_mask: u32 = 0;
    /// Buckets of `AFFINITY`, minus one.
    AFFINITY_MASK, affinity_mask: u32 = 0;
    /// Buckets of `FRAGMENTS`, minus one.
    FRAGMENT_MASK, fragment_mask: u32 = 0;
    IFINDEX, own_ifindex: u32 = 0;
    INTERFACE, own_slot: u32 = 0;
    EXPLAIN, explain_flag: u32 = 0;
    /// Nanoseconds of a jiffy.
    JIFFY_NS, jiffy_ns: u64 = 0;
    /// CLOCK_MONOTONIC in nanoseconds when jiffies were 0; wraps.
    JIFFIES_EPOCH, jiffies_epoch: u64 = 0;
}

/// Interface that this instance is attached to; in the explaining twin, the one that was asked about.
#[inline(always)]
pub fn ifindex() -> u32 {
    if explaining() { explain::ingress().0 } else { own_ifindex() }
}

/// Slot of that interface.
#[inline(always)]
pub fn interface() -> u32 {
    if explaining() { explain::ingress().1 } else { own_slot() }
}

#[unsafe(no_mangle)]
static TABLE_KEYS: [u32; 10] = [0; 10];

/// Secret of the flow tables' hash.
#[inline(always)]
pub fn table_keys() -> HashKeys {
    // SAFETY: as above.
    HashKeys(unsafe { read_volatile(&raw const TABLE_KEYS) })
}

/// Whether this is the explaining twin, which changes no map but `EXPLANATION`.
#[inline(always)]
pub fn explaining() -> bool {
    explain_flag() != 0
}

/// Whether somebody wants to know what is decided, and by what: the explaining twin, and the program that captures.
#[inline(always)]
pub fn noting() -> bool {
    cfg!(feature = "capture") || explaining()
}
