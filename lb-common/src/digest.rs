//! Digests: sixteen bytes about each record of `FLOWS`, four to a cache line, in a table of their own (`DIGESTS`).
//!
//! A lookup reads one line of digests where it would read a line per record, and needs the record itself only when the
//! digest is not *fresh*. A packet that takes the whole path, with the full key compared and the record's age and state
//! looked at, makes the digest fresh for the record's `flow::grace`; the flow's plain packets of that time are forwarded by
//! the digest alone. What is true of a record is in the record: whoever frees one takes its digest's freshness away, and a
//! digest whose record is another flow's is found out by the next full look.

use core::mem::size_of;

use crate::{
    flow::{MAX_GRACE, WAYS, flag},
    maps::MAX_NODES,
};

/// What is known of the record at the same place of `FLOWS`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Whose: the upper 47 bits of the key's hash; then `REPLY`, `SOURCE_NAT`, `NAT`, and the node's slot (14 bits).
    /// Written when the record is published.
    pub name: u64,
    /// Until when it is fresh, and what packets need; four 16-bit fields, from the low end: the last tick; NAT's source port
    /// in network order, or of an answering half its connection's node; the node's generation; [`Digest::sealed`]. Written by
    /// each full look at a connection in a steady state; 0 takes the freshness away.
    pub fresh: u64,
}

const HASH: u64 = !0 << 17;
const REPLY: u64 = 1 << 16;
const NODE: u64 = (1 << 14) - 1;
const _: () = assert!(flag::NAT | flag::SOURCE_NAT == 3);
const _: () = assert!(MAX_NODES as u64 <= NODE + 1);

impl Digest {
    /// [`Digest::name`] of a record with this hash, `flow::flag`s and node.
    #[inline(always)]
    pub fn name_of(hash: u64, flags: u8, node: u16) -> u64 {
        if flags & flag::REPLY != 0 {
            // The words of a connection say something else in its answering half.
            return hash & HASH | REPLY;
        }
        // The two are the lowest of the flags.
        let forwarding = u64::from(flags & (flag::NAT | flag::SOURCE_NAT)) << 14;
        hash & HASH | forwarding | u64::from(node) & NODE
    }

    /// A [`check`] that holds for a name with these `flow::flag`s and this node alone: the two words are not read at once, and
    /// the name may be that of a connection of the same key before.
    #[inline(always)]
    pub fn sealed(check: u16, flags: u8, node: u16) -> u16 {
        check ^ Self::name_of(0, flags, node) as u16
    }

    /// [`Digest::fresh`] up to and including the tick `until`.
    #[inline(always)]
    pub fn fresh_of(sealed: u16, until: u32, port_or_node: u16, generation: u16) -> u64 {
        u64::from(until as u16) | u64::from(port_or_node) << 16 | u64::from(generation) << 32 | u64::from(sealed) << 48
    }

    /// Whether a name may be that of a key with this hash.
    #[inline(always)]
    pub fn is_named(name: u64, hash: u64) -> bool {
        name ^ hash < REPLY << 1
    }

    /// Whether the digest speaks in this tick for packets with this `check`.
    #[inline(always)]
    pub fn is_fresh(self, check: u16, now: u32) -> bool {
        (self.fresh >> 48) as u16 == check ^ self.name as u16 && self.ticks_left(now).is_some()
    }

    /// For how many ticks more it is fresh.
    #[inline(always)]
    pub fn ticks_left(self, now: u32) -> Option<u16> {
        let left = (self.fresh as u16).wrapping_sub(now as u16);
        (left <= MAX_GRACE).then_some(left)
    }

    /// Whether it is of an answering half.
    #[inline(always)]
    pub fn is_reply(self) -> bool {
        self.name & REPLY != 0
    }

    /// `flag::NAT` and `flag::SOURCE_NAT` of the connection.
    #[inline(always)]
    pub fn flags(self) -> u8 {
        (self.name >> 14) as u8 & (flag::NAT | flag::SOURCE_NAT)
    }

    /// The node's slot; of a connection.
    #[inline(always)]
    pub fn node(self) -> u16 {
        (self.name & NODE) as u16
    }

    /// The node's generation.
    #[inline(always)]
    pub fn generation(self) -> u16 {
        (self.fresh >> 32) as u16
    }

    /// NAT's source port, network order as a number; of an answering half its connection's node.
    #[inline(always)]
    pub fn port_or_node(self) -> u16 {
        (self.fresh >> 16) as u16
    }
}

/// Of a packet: the 16 bits of its key's hash that [`Digest::name`] has not, mixed with where it comes from: its source MAC
/// address, loaded as the first four and the last two bytes, its outermost VLAN tag, and the
/// slot of its interface. A client that comes by another router is looked at in
/// full, which notes the way back to it.
#[inline(always)]
pub fn check(hash: u64, mac: (u32, u16), tag: u16, interface: u32) -> u16 {
    let (first, last) = mac;
    hash as u16
        ^ first as u16
        ^ (first >> 16) as u16
        ^ last.rotate_left(4)
        ^ tag.rotate_left(7)
        ^ (interface as u16) << 8
}

/// The element of `DIGESTS`: one cache line for one bucket of `FLOWS`, way by way.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestLine {
    /// One for each record of the bucket.
    pub ways: [Digest; WAYS],
}
const _: () = assert!(size_of::<DigestLine>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    const HASH_A: u64 = 0x1234_5678_9abc_def0;
    const MAC: (u32, u16) = (0x0a0b_0c0d, 8);

    #[test]
    fn a_name_says_hash_node_and_forwarding() {
        for flags in [0, flag::NAT, flag::NAT | flag::SOURCE_NAT] {
            let digest = Digest { name: Digest::name_of(HASH_A, flags | flag::ACTIVE, 16_383), fresh: 0 };
            assert!(Digest::is_named(digest.name, HASH_A) && !digest.is_reply());
            assert_eq!((digest.flags(), digest.node()), (flags, 16_383));
        }
        let half = Digest { name: Digest::name_of(HASH_A, flag::NAT | flag::REPLY, 0xffff), fresh: 0 };
        assert!(half.is_reply() && Digest::is_named(half.name, HASH_A));
        assert!(!Digest::is_named(half.name, HASH_A ^ 1 << 17));
        assert!(!Digest::is_named(half.name, HASH_A ^ 1 << 63));
    }

    #[test]
    fn a_digest_is_fresh_for_its_time_and_its_packets_alone() {
        let check = check(HASH_A, MAC, 0, 3);
        let digest = Digest { name: 0, fresh: Digest::fresh_of(check, 0x7_0005, 0x1f90, 0x0203) };
        let times = [(0x7_0005, true), (0x7_0006, false), (0x7_0005 - 63, true), (0x7_0005 - 64, false)];
        for (now, fresh) in times {
            assert_eq!(digest.is_fresh(check, now), fresh, "{now:#x}");
        }
        for other in [
            super::check(HASH_A ^ 1, MAC, 0, 3),
            super::check(HASH_A, (MAC.0, 9), 0, 3),
            super::check(HASH_A, MAC, 100, 3),
        ] {
            assert!(!digest.is_fresh(other, 0x7_0005));
        }
        assert_ne!(check, super::check(HASH_A, MAC, 0, 4));
        let nat = flag::NAT | flag::ACTIVE;
        let fresh = Digest::fresh_of(Digest::sealed(check, nat, 9), 0x7_0005, 0x1f90, 0x0203);
        for (flags, node, is_fresh) in [(nat, 9, true), (nat, 8, false), (0, 9, false), (flag::REPLY | nat, 9, false)] {
            let digest = Digest { name: Digest::name_of(HASH_A, flags, node), fresh };
            assert_eq!(digest.is_fresh(check, 0x7_0005), is_fresh, "{flags} {node}");
        }
        assert_eq!((digest.port_or_node(), digest.generation()), (0x1f90, 0x0203));
    }
}
