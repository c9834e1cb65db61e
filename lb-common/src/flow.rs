//! The flow key, its keyed hash, and the record that one direction of a connection occupies in a flow table.
//!
//! A flow table (`FLOWS`, `PENDING`, `AFFINITY`, `FRAGMENTS`) is an ARRAY of [`Bucket`]s: four records of one cache line
//! each. A key of `FLOWS` has two candidate buckets, so that a full one is rare long before the table is;
//! a key of the others has one. The XDP programs and the daemon (through `mmap`) both read and write them; [`Control`] is the one word that says who owns a record.

use core::mem::size_of;

/// IPv4 in [`FlowKey::family`].
pub const FAMILY_V4: u8 = 4;
/// IPv6 in [`FlowKey::family`].
pub const FAMILY_V6: u8 = 6;

/// Records per bucket.
pub const WAYS: usize = 4;

/// A direction of a connection: five 8-byte words in memory order, so that building, hashing, copying and comparing it are
/// a few loads each.
///
/// * word 0: source port, destination port (network order), protocol, family, two zero bytes;
/// * IPv4: word 1 is source address, destination address (network order); words 2–4 are zero, and not looked at in keys of
///   records;
/// * IPv6: words 1–2 are the source address, words 3–4 the destination address (network order).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey([u64; 5]);
const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The key of an IPv4 packet. Ports in host order.
    #[inline(always)]
    pub fn v4(source: [u8; 4], destination: [u8; 4], source_port: u16, destination_port: u16, protocol: u8) -> Self {
        let addresses = u64::from(u32::from_ne_bytes(source)) | u64::from(u32::from_ne_bytes(destination)) << 32;
        Self([port_word(source_port, destination_port, protocol, FAMILY_V4), addresses, 0, 0, 0])
    }

    /// The key of an IPv6 packet. Ports in host order.
    #[inline(always)]
    pub fn v6(source: [u8; 16], destination: [u8; 16], source_port: u16, destination_port: u16, protocol: u8) -> Self {
        Self::from_parts(FAMILY_V6, source, destination, source_port, destination_port, protocol)
    }

    /// A key from addresses in the form of [`FlowKey::source`]; ports in host order.
    #[inline(always)]
    pub fn from_parts(
        family: u8,
        source: [u8; 16],
        destination: [u8; 16],
        source_port: u16,
        destination_port: u16,
        protocol: u8,
    ) -> Self {
        let (s0, s1) = split16(source);
        let (d0, d1) = split16(destination);
        let ports = port_word(source_port, destination_port, protocol, family);
        if family == FAMILY_V4 { Self([ports, s0 & LOW | d0 << 32, 0, 0, 0]) } else { Self([ports, s0, s1, d0, d1]) }
    }

    /// From the five words.
    #[inline(always)]
    pub fn from_words(words: [u64; 5]) -> Self {
        Self(words)
    }

    /// The five words, as integers in memory order: what is hashed and compared.
    #[inline(always)]
    pub fn words(&self) -> [u64; 5] {
        self.0
    }

    /// Source port, host order.
    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        u16::from_be(self.source_port_ne())
    }

    /// Destination port, host order.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        u16::from_be(self.destination_port_ne())
    }

    /// Source port, as loaded from the packet's memory.
    #[inline(always)]
    pub fn source_port_ne(&self) -> u16 {
        self.0[0] as u16
    }

    /// Destination port, as loaded from the packet's memory.
    #[inline(always)]
    pub fn destination_port_ne(&self) -> u16 {
        (self.0[0] >> 16) as u16
    }

    /// Puts both ports in, as loaded from the packet's memory in one word.
    #[inline(always)]
    pub fn set_ports_ne(&mut self, ports: u32) {
        self.0[0] = self.0[0] & !LOW | u64::from(ports);
    }

    /// Replaces the protocol number.
    #[inline(always)]
    pub fn set_protocol(&mut self, protocol: u8) {
        self.0[0] = self.0[0] & !(0xff << 32) | u64::from(protocol) << 32;
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.0[0] >> 32) as u8
    }

    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    #[inline(always)]
    pub fn family(&self) -> u8 {
        (self.0[0] >> 40) as u8
    }

    /// Source address; an IPv4 address stands in the first four bytes, the rest is zero.
    #[inline(always)]
    pub fn source(&self) -> [u8; 16] {
        let [_, w1, w2, ..] = self.0;
        if self.family() == FAMILY_V4 { join16(w1 & LOW, 0) } else { join16(w1, w2) }
    }

    /// Destination address, in the form of [`FlowKey::source`].
    #[inline(always)]
    pub fn destination(&self) -> [u8; 16] {
        let [_, w1, _, w3, w4] = self.0;
        if self.family() == FAMILY_V4 { join16(w1 >> 32, 0) } else { join16(w3, w4) }
    }

    /// The key of an IPv4 `REPLY` record with the key of its connection in the words that an IPv4 key leaves free, for
    /// [`FlowRecord::client_key4`]. Of IPv6 the key itself.
    #[inline(always)]
    #[must_use]
    pub fn answering(self, connection: &FlowKey) -> Self {
        let [w0, w1, ..] = self.0;
        if self.family() == FAMILY_V4 { Self([w0, w1, connection.0[0], connection.0[1], 0]) } else { self }
    }

    /// The key alone: without what [`FlowKey::answering`] added.
    #[must_use]
    pub fn plain(self) -> Self {
        let [w0, w1, ..] = self.0;
        if self.family() == FAMILY_V4 { Self([w0, w1, 0, 0, 0]) } else { self }
    }

    /// The same flow, seen from the other end.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        let [w0, w1, w2, w3, w4] = self.0;
        let ports = w0 & !LOW | (w0 & LOW) >> 16 | (w0 & 0xffff) << 16;
        if self.family() == FAMILY_V4 {
            Self([ports, w1.rotate_left(32), 0, 0, 0])
        } else {
            Self([ports, w3, w4, w1, w2])
        }
    }
}

#[inline(always)]
fn port_word(source: u16, destination: u16, protocol: u8, family: u8) -> u64 {
    u64::from(source.to_be())
        | u64::from(destination.to_be()) << 16
        | u64::from(protocol) << 32
        | u64::from(family) << 40
}

/// The first four bytes of a word in memory.
const LOW: u64 = 0xffff_ffff;

#[inline(always)]
fn split16(address: [u8; 16]) -> (u64, u64) {
    let word = u128::from_ne_bytes(address);
    (word as u64, (word >> 64) as u64)
}

#[inline(always)]
fn join16(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) | u128::from(second) << 64).to_ne_bytes()
}

/// The secret of a hash: ten 32-bit words, drawn at random (flow tables) or derived from the configured ring seed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKeys(pub [u32; 10]);

impl HashKeys {
    /// Expands a 64-bit seed with splitmix64 (Steele, Lea, Flood 2014): the same on every balancer of a cluster.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut state = seed;
        let mut keys = [0u32; 10];
        let mut i = 0;
        while i < keys.len() {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            keys[i] = (mix64(state) >> 32) as u32;
            i += 1;
        }
        Self(keys)
    }
}

/// Hash of a key: NH (RFC 4418 §5.2.2, a 2⁻³²-almost-universal family over 32-bit halves, so that collisions cannot be
/// found without the keys), then a bijective finaliser that spreads it over all bits.
///
/// IPv4 keys have three zero words, which contribute a constant: only two words are read.
#[inline(always)]
pub fn hash(words: [u64; 5], family: u8, keys: &HashKeys) -> u64 {
    let [w0, w1, w2, w3, w4] = words;
    let k = &keys.0;
    let mut h = nh(w0, k[0], k[1]).wrapping_add(nh(w1, k[2], k[3]));
    if family != FAMILY_V4 {
        h = h.wrapping_add(nh(w2, k[4], k[5])).wrapping_add(nh(w3, k[6], k[7])).wrapping_add(nh(w4, k[8], k[9]));
    }
    mix64(h)
}

#[inline(always)]
fn nh(word: u64, low: u32, high: u32) -> u64 {
    let a = (word as u32).wrapping_add(low);
    let b = ((word >> 32) as u32).wrapping_add(high);
    (a as u64).wrapping_mul(b as u64)
}

/// A bijection that avalanches (the finaliser of splitmix64's descendants, two rounds).
#[inline(always)]
pub fn mix64(value: u64) -> u64 {
    let mut x = value;
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x
}

/// The two candidate buckets of a hash in a table of `mask + 1` buckets (a power of two), and the way to try first. Both are
/// among the same 64: their lines of digests are on one page, and a new connection waits for one page walk.
#[inline(always)]
pub fn candidates(hash: u64, mask: u32) -> (u32, u32, u32) {
    let first = hash as u32 & mask;
    let second = first ^ (((hash >> 32) as u32 & 62 | 1) & mask);
    (first, second, (hash >> 62) as u32)
}

/// One tick of [`FlowRecord::seen`] and [`FlowRecord::created`]: 2³⁰ ns (1.07 s) of CLOCK_MONOTONIC; 32 bits last 146 years.
pub const TICK_SHIFT: u32 = 30;

/// Ticks of a CLOCK_MONOTONIC time in nanoseconds. Never 0 in practice: [`FlowRecord::seen`] 0 means "not yet".
#[inline(always)]
pub fn ticks(monotonic_ns: u64) -> u32 {
    (monotonic_ns >> TICK_SHIFT) as u32
}

/// The control word of a record: changed only by compare-and-exchange, except that the data path refreshes `seen`.
///
/// Insertion: CAS `Free → Claimed`, write the rest, publish the final state, then look for the same key in the other
/// places it may live and withdraw when it is there. Deletion (the daemon): CAS of the whole word to 0, which fails when
/// a packet refreshed or moved the connection in between.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// When the last packet came that was looked at in full, in [`ticks`]: the last one is at most [`grace`] younger.
    pub seen: u32,
    /// [`crate::conntrack::State`] as a number; 0 is free.
    pub state: u8,
    /// `flag::*`.
    pub flags: u8,
    /// [`crate::node::Node::generation`] at insertion: a record whose node slot was reused is stale.
    pub generation: u16,
}
const _: () = assert!(size_of::<Control>() == 8);

impl Control {
    /// As the word that is exchanged atomically.
    #[inline(always)]
    pub fn to_word(self) -> u64 {
        u64::from(self.seen)
            | u64::from(self.state) << 32
            | u64::from(self.flags) << 40
            | u64::from(self.generation) << 48
    }

    /// From that word.
    #[inline(always)]
    pub fn from_word(word: u64) -> Self {
        Self {
            seen: word as u32,
            state: (word >> 32) as u8,
            flags: (word >> 40) as u8,
            generation: (word >> 48) as u16,
        }
    }
}
#[cfg(target_endian = "big")]
compile_error!("Control::to_word and the 32-bit store of `seen` assume a little-endian machine");

/// Bits of [`Control::flags`].
pub mod flag {
    /// Forwarded by network address translation; unset: direct server return.
    pub const NAT: u8 = 1;
    /// The client's address is replaced as well (one-arm). Only with [`NAT`].
    pub const SOURCE_NAT: u8 = 2;
    /// This record is the node → client direction; the connection's own record is [`super::FlowRecord::peer`].
    pub const REPLY: u8 = 4;
    /// A FIN came from the client.
    pub const FIN_CLIENT: u8 = 8;
    /// A FIN came from the node.
    pub const FIN_NODE: u8 = 16;
    /// Counted in [`crate::node::NodeLoad::active`].
    pub const ACTIVE: u8 = 32;
    /// Counted in [`crate::node::NodeLoad::pending`].
    pub const PENDING: u8 = 64;
}

/// One direction of a connection in a flow table; also a persistence entry or a fragment's owner. One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowRecord {
    /// Who this is.
    pub key: FlowKey,
    /// State, flags, age: the word of ownership.
    pub control: Control,
    /// Slot in `NODES`; 0: none.
    pub node: u16,
    /// Id of the virtual server.
    pub virtual_server: u16,
    /// NAT: the source port the node sees, network order as a number (`u16::from_ne_bytes` of the wire bytes).
    pub nat_port: u16,
    /// Seconds without a packet after which the record is dead.
    pub timeout: u16,
    /// NAT: index of the other direction's record in the same table, plus one; 0: none. Index = bucket × 4 + way.
    pub peer: u32,
    /// When the connection began, in [`ticks`].
    pub created: u32,
}
const _: () = assert!(size_of::<FlowRecord>() == 64);
const _: () = assert!(core::mem::offset_of!(FlowRecord, control) == 40);
const _: () = assert!(core::mem::offset_of!(FlowRecord, node) == 48);

impl FlowRecord {
    /// Of a `REPLY` record: the client's next hop, learnt from its packets. It stands where other records have node, virtual
    /// server, NAT port and timeout, which a reply record takes from its peer.
    #[inline(always)]
    pub fn client_hop(&self) -> ClientHop {
        let (node, virtual_server) = (u64::from(self.node), u64::from(self.virtual_server));
        ClientHop(node | virtual_server << 16 | u64::from(self.nat_port) << 32 | u64::from(self.timeout) << 48)
    }

    /// Of an IPv4 `REPLY` record: the connection's key, client → VIP, kept in the three words that an IPv4 key leaves free.
    #[inline(always)]
    pub fn client_key4(&self) -> FlowKey {
        FlowKey([self.key.0[2], self.key.0[3], 0, 0, 0])
    }

    /// Whether it has been silent for longer than its timeout.
    #[inline(always)]
    pub fn is_expired(&self, now: u32) -> bool {
        expired(self.control.seen, self.timeout, now)
    }
}

/// Where a client's packets come from, and its answers go: one word, stored at once, so that nobody sees half of a change.
///
/// MAC address (48 bits, as loaded from memory), interface slot (4 bits), VLAN (12 bits; 0: untagged).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHop(pub u64);
const _: () = assert!(crate::maps::MAX_INTERFACES <= 16);

impl ClientHop {
    /// From a MAC address in the lower 48 bits.
    #[inline(always)]
    pub fn new(mac: u64, slot: u32, vlan: u16) -> Self {
        Self(mac & 0xffff_ffff_ffff | u64::from(slot & 15) << 48 | u64::from(vlan) << 52)
    }

    /// MAC address in the lower 48 bits; the upper ones mean nothing.
    #[inline(always)]
    pub fn mac_word(self) -> u64 {
        self.0
    }

    /// MAC address.
    #[must_use]
    pub fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_ne_bytes();
        [a, b, c, d, e, f]
    }

    /// Interface slot.
    #[inline(always)]
    pub fn slot(self) -> u32 {
        (self.0 >> 48) as u32 & 15
    }

    /// VLAN; 0: untagged.
    #[inline(always)]
    pub fn vlan(self) -> u16 {
        (self.0 >> 52) as u16
    }
}

/// Whether a record last `seen` is past its `timeout` (seconds, compared in ticks, which are 7 % longer) and its [`grace`].
#[inline(always)]
pub fn expired(seen: u32, timeout: u16, now: u32) -> bool {
    // `seen` of another CPU may be one tick ahead of our coarse clock: a difference below zero is no age.
    let age = now.wrapping_sub(seen) as i32;
    age > i32::from(timeout) + i32::from(grace(timeout))
}

/// Ticks for which a full look at a record is good: a sixteenth of its timeout, at most [`MAX_GRACE`]. In that time packets
/// may come without `seen` being written, so that long it is believed longer.
#[inline(always)]
pub fn grace(timeout: u16) -> u16 {
    let sixteenth = timeout / 16;
    if sixteenth < MAX_GRACE { sixteenth } else { MAX_GRACE }
}

/// About a minute.
pub const MAX_GRACE: u16 = 63;

/// The element type of a flow table.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The ways, tried from the one the hash names.
    pub records: [FlowRecord; WAYS],
}
const _: () = assert!(size_of::<Bucket>() == 256);

#[cfg(test)]
mod tests;
