//! The BPF maps: names, sizes, and the layout version that guards their reuse. The statics themselves are in
//! `lb-ebpf/src/maps.rs`; what each is for and who writes it is said there.

/// Raised by every change of a map's type, key, value or meaning. Maps pinned by another version are not adopted.
pub const LAYOUT_VERSION: u32 = 8;

/// Identifies our `META` map: "lbmeta01".
pub const META_MAGIC: u64 = u64::from_le_bytes(*b"lbmeta01");

/// The one element of `META`: what a daemon must know to adopt the pinned maps. Written once, when they are created.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`META_MAGIC`].
    pub magic: u64,
    /// [`LAYOUT_VERSION`].
    pub layout_version: u32,
    /// Buckets in `FLOWS`, minus one.
    pub flow_mask: u32,
    /// Buckets in `PENDING`, minus one.
    pub pending_mask: u32,
    /// Buckets in `AFFINITY`, minus one.
    pub affinity_mask: u32,
    /// Buckets in `FRAGMENTS`, minus one.
    pub fragment_mask: u32,
    /// Secret of the flow tables' hash.
    pub table_keys: [u32; 10],
    /// Elements of `RINGS`.
    pub ring_elements: u32,
}
const _: () = assert!(core::mem::size_of::<Meta>() == 72);

/// Elements of `VIRTUAL_SERVERS`, `TIMEOUTS`, `CURSORS` and `FLOOD`. Element 0 is unused.
pub const MAX_VIRTUAL_SERVERS: u32 = 4096;
/// Elements of `NODES`, `NODE_LOADS` and `NODE_STATS`. Slot 0 is "no node".
pub const MAX_NODES: u32 = 16_384;
/// Elements of `SERVICES`.
pub const MAX_SERVICES: u32 = 65_536;
/// Elements of `PORT_RANGES`.
pub const MAX_RANGED_VIPS: u32 = 4096;
/// Elements of `LEASED`.
pub const MAX_LEASED: u32 = 4096;
/// Interfaces with a program of ours; interface slots are 0..this. Four bits: see [`crate::flow::ClientHop`].
pub const MAX_INTERFACES: u32 = 16;
/// 64-bit words of one interface's VLAN bitmap in `VLANS`.
pub const VLAN_WORDS: u32 = 64;
/// Bytes of a name in [`Name`]; config names are at most this long.
pub const NAME_BYTES: usize = 64;

/// UTF-8, padded with zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub [u8; NAME_BYTES]);

impl Default for Name {
    fn default() -> Self {
        Self([0; NAME_BYTES])
    }
}

/// Whose slot this is, in `NODE_NAMES`: lets a restarted daemon, or `lbctl` without one, read the pinned maps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeNames {
    /// Virtual server.
    pub virtual_server: Name,
    /// Pool.
    pub pool: Name,
    /// Node.
    pub node: Name,
}
/// Most IPv6 extension headers followed.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Read-only globals that the loader sets, by their names in the object.
pub mod global {
    /// `u32`: buckets of `FLOWS`, minus one.
    pub const FLOW_MASK: &str = "FLOW_MASK";
    /// `u32`: buckets of `PENDING`, minus one.
    pub const PENDING_MASK: &str = "PENDING_MASK";
    /// `u32`: buckets of `AFFINITY`, minus one.
    pub const AFFINITY_MASK: &str = "AFFINITY_MASK";
    /// `u32`: buckets of `FRAGMENTS`, minus one.
    pub const FRAGMENT_MASK: &str = "FRAGMENT_MASK";
    /// `[u32; 10]`: secret of the flow tables' hash.
    pub const TABLE_KEYS: &str = "TABLE_KEYS";
    /// `u32`: ifindex of the interface the program is attached to.
    pub const IFINDEX: &str = "IFINDEX";
    /// `u32`: slot of that interface in `REASONS` and `VLANS`.
    pub const INTERFACE: &str = "INTERFACE";
    /// `u64`: nanoseconds of a jiffy.
    pub const JIFFY_NS: &str = "JIFFY_NS";
    /// `u64`: CLOCK_MONOTONIC in nanoseconds when jiffies were 0; wraps.
    pub const JIFFIES_EPOCH: &str = "JIFFIES_EPOCH";
    /// `u32`: 1 in the explaining twin.
    pub const EXPLAIN: &str = "EXPLAIN";
}

#[cfg(feature = "aya")]
mod pod {
    //! `aya::Pod`: user space may read these types from a map's bytes.
    macro_rules! pod {
        ($($type:ty),+ $(,)?) => { $(
            // SAFETY: repr(C), integers and byte arrays only, padding is an explicit field: any bytes are a valid value.
            unsafe impl aya::Pod for $type {}
        )+ };
    }
    pod!(
        crate::capture::Control,
        crate::explain::Explanation,
        crate::digest::DigestLine,
        crate::flow::Bucket,
        crate::conntrack::Timeouts,
        crate::maglev::RingChunk,
        crate::maps::Meta,
        crate::maps::Name,
        crate::maps::NodeNames,
        crate::node::Interface,
        crate::node::Node,
        crate::node::NodeLoad,
        crate::node::NodeStats,
        crate::proof::ProofSet,
        crate::reason::Counter,
        crate::vip::Cursor,
        crate::vip::FloodWindow,
        crate::vip::PortRanges,
        crate::vip::ServiceKey,
        crate::vip::VirtualServer,
    );
}
