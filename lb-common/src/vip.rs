//! Virtual servers as the data path sees them, and the keys that find them.

use crate::flow::{FAMILY_V4, FlowKey, HashKeys};

/// How a packet's destination names a virtual server: key of `SERVICES`.
///
/// Port 0 with protocol 0 is the VIP itself (for echo and ICMP errors); port 0 with a protocol is "any port" and leads to
/// [`PortRanges`] through `PORT_RANGES`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// VIP, IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// `flow::FAMILY_*`.
    pub family: u8,
    /// Zero.
    pub padding: [u8; 4],
}
const _: () = assert!(core::mem::size_of::<ServiceKey>() == 24);

impl ServiceKey {
    /// The memory image of the key of a flow's destination with this port (host order) and protocol. The kernel hashes keys
    /// by other sizes than those of the fields, and a load across two stores waits until both are in the cache: the data
    /// path makes its keys of whole words.
    #[inline(always)]
    pub fn image(flow: &FlowKey, port: u16, protocol: u8) -> [u64; 3] {
        let [_, first, _, third, fourth] = flow.words();
        let (low, high) = if flow.family() == FAMILY_V4 { (first >> 32, 0) } else { (third, fourth) };
        [low, high, u64::from(port) | u64::from(protocol) << 16 | u64::from(flow.family()) << 24]
    }
}
#[cfg(target_endian = "big")]
compile_error!("ServiceKey::image assumes a little-endian machine");

/// The most port ranges a VIP has per protocol.
pub const MAX_PORT_RANGES: usize = 32;

/// One range of ports of a VIP.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// First port, host order.
    pub first: u16,
    /// Last port, host order, inclusive.
    pub last: u16,
    /// Index in `VIRTUAL_SERVERS`; 0: unused.
    pub config: u32,
}

/// The port ranges of a (VIP, protocol): value of `PORT_RANGES`, keyed by a [`ServiceKey`] with port 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRanges {
    /// Sorted by size, the smallest first, so that the first match is the most specific.
    pub ranges: [PortRange; MAX_PORT_RANGES],
}

/// How new connections choose a node: [`VirtualServer::scheduler`].
pub mod scheduler {
    /// Next slot of the sequence (round robin, weighted round robin).
    pub const SEQUENCE: u8 = 1;
    /// Slot of the ring by the flow (Maglev).
    pub const RING_FLOW: u8 = 2;
    /// Slot of the ring by the source address (source hash).
    pub const RING_SOURCE: u8 = 3;
    /// The member with the least `(active + pending + 1) / weight` (least connections, weighted least connections).
    pub const LEAST: u8 = 4;
    /// A random slot of the sequence.
    pub const RANDOM: u8 = 5;
}

/// Bits of [`VirtualServer::flags`].
pub mod vs_flag {
    /// New connections are translated; unset: DSR.
    pub const NAT: u16 = 1;
    /// The client's address is replaced as well.
    pub const SOURCE_NAT: u16 = 2;
    /// A connection whose node failed is reset; unset: moved to another node.
    pub const RESET_ON_FAILURE: u16 = 4;
    /// A TCP packet that cannot be placed is answered by a reset; unset: dropped.
    pub const RESET_UNKNOWN: u16 = 8;
    /// New connections follow the client's last node.
    pub const AFFINITY: u16 = 16;
    /// Half-open connections are counted in `NodeLoad::pending`.
    pub const COUNT_PENDING: u16 = 32;
}

/// A virtual server's record in `VIRTUAL_SERVERS`. Immutable once a key of `SERVICES` or `PORT_RANGES` points to it: a
/// change is written to a free record, then the keys are switched, then the old record is freed.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualServer {
    /// Stable id, 1..: index of `TIMEOUTS` and `CURSORS`, and what flow records name.
    pub id: u16,
    /// `vs_flag::*`.
    pub flags: u16,
    /// `scheduler::*`.
    pub scheduler: u8,
    /// Source-address persistence: IPv4 prefix length.
    pub affinity_prefix4: u8,
    /// Source-address persistence: IPv6 prefix length.
    pub affinity_prefix6: u8,
    /// Zero.
    pub padding: u8,
    /// First element in `RINGS` of the Maglev ring ([`crate::maglev::RING_SLOTS`] slots). The pool has no node for new
    /// connections when 0.
    pub ring: u32,
    /// First element in `RINGS` of the sequence.
    pub sequence: u32,
    /// Slots of the sequence.
    pub sequence_len: u32,
    /// First element in `RINGS` of the list of members (least connections).
    pub members: u32,
    /// Length of that list.
    pub members_len: u32,
    /// New connections per second and CPU above which they are placed by the ring, whatever the scheduler.
    pub flood_limit: u32,
    /// First source port that source NAT may use, host order.
    pub nat_port_first: u16,
    /// How many there are.
    pub nat_port_count: u16,
    /// Secret of the ring hash: the same on every balancer of a cluster.
    pub ring_keys: [u32; 10],
}
const _: () = assert!(core::mem::size_of::<VirtualServer>() == 128);

impl VirtualServer {
    /// The keys for [`crate::flow::hash`].
    #[inline(always)]
    pub fn ring_hash_keys(&self) -> HashKeys {
        HashKeys(self.ring_keys)
    }
}

/// Per virtual server and shared by all CPUs, in `CURSORS`: where round robin stands, and what its half-open connections are.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Connections scheduled so far.
    pub next: u64,
    /// The last tick in which a TCP connection of it got a record in `PENDING` ([`crate::flow::ticks`]); 0: never.
    pub recorded: u32,
    /// Zero.
    pub padding: [u32; 13],
}

/// Per virtual server and CPU, in `FLOOD`: new connections in the current tick.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodWindow {
    /// The tick ([`crate::flow::ticks`]).
    pub tick: u32,
    /// New connections in it.
    pub count: u32,
    /// New connections placed by the ring because of the limit, ever.
    pub limited: u64,
}

/// The address filter, in `FILTER`: two Bloom filters of one hash function, so that traffic which concerns no VIP costs
/// two cached loads. A set bit says "look closer".
pub mod filter {
    /// 64-bit words per filter: 64 Ki bits.
    pub const WORDS: u32 = 1024;
    /// The filter of destinations (VIPs, source-NAT addresses) starts here.
    pub const DESTINATION: u32 = 0;
    /// The filter of sources (nodes of NAT pools) starts here.
    pub const SOURCE: u32 = WORDS;

    /// Word (within its filter) and bit of an IPv4 address as loaded from memory.
    #[inline(always)]
    pub fn position4(address: u32) -> (u32, u32) {
        position(address)
    }

    /// Word and bit of an IPv6 address as loaded from memory in four words.
    #[inline(always)]
    pub fn position6(address: [u32; 4]) -> (u32, u32) {
        position(address[0] ^ address[1].rotate_left(8) ^ address[2].rotate_left(16) ^ address[3].rotate_left(24))
    }

    #[inline(always)]
    fn position(value: u32) -> (u32, u32) {
        let h = value.wrapping_mul(0x9e37_79b1);
        (h >> 22, (h >> 16) & 63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_a_key_is_the_key_in_memory() {
        let flow4 = FlowKey::v4([10, 0, 0, 1], [198, 51, 100, 7], 40_000, 0x1234, 17);
        let flow6 = FlowKey::v6([1; 16], core::array::from_fn(|i| i as u8), 40_000, 0x1234, 6);
        for flow in [flow4, flow6] {
            let (address, protocol, family) = (flow.destination(), flow.protocol(), flow.family());
            let key = ServiceKey { address, port: 0x1234, protocol, family, padding: [0; 4] };
            let image: [[u8; 8]; 3] = ServiceKey::image(&flow, 0x1234, protocol).map(u64::to_ne_bytes);
            let [low, high, rest] = image;
            assert_eq!((&key.address[..8], &key.address[8..]), (&low[..], &high[..]));
            let [port0, port1, protocol, family, padding @ ..] = rest;
            assert_eq!((u16::from_ne_bytes([port0, port1]), protocol, family), (key.port, key.protocol, key.family));
            assert_eq!(padding, key.padding);
        }
    }
}
