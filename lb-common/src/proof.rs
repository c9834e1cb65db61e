//! Proofs: eight bytes about a half-open TCP connection in DSR, from its SYN to the client's ACK. Most of a SYN flood ends
//! here, so a proof is one word, stored plainly: which flow, by its hash, went to which node, and when.
//!
//! Connections with more to remember (NAT, UDP, pools that count half-open connections) have a record in `PENDING` instead.
//! A proof belongs to the four places of one set; a hash that lies (one in 2²⁷, of the same set) makes a stranger's segment
//! follow another flow's SYN, which harms only the stranger.

use core::mem::size_of;

use crate::{
    conntrack::State,
    flow::{WAYS, expired},
    maps::MAX_NODES,
};

/// A proof. 0: none.
///
/// From the low end: the tick of the last packet (16 bits), the node's generation (4), [`Proof::moving`], whether
/// the connection was moved in mid-stream, the node's slot (14), [`Proof::ended`], and the upper 27 bits of the key's hash.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof(pub u64);

const GENERATION_SHIFT: u32 = 16;
const MOVING: u64 = 1 << 20;
const RECEIVED: u64 = 1 << 21;
const NODE_SHIFT: u32 = 22;
const NODE: u64 = (1 << 14) - 1;
const ENDED: u64 = 1 << 36;
const HASH_SHIFT: u32 = 37;
const _: () = assert!(MAX_NODES as u64 <= NODE + 1);

/// Ages that cannot be: of another CPU's clock, which may be a tick ahead.
const AHEAD: u16 = 0xfff0;

impl Proof {
    /// Of a flow with this hash that was sent to this node now. `moved`: not by its SYN, but after its first node failed.
    #[inline(always)]
    pub fn new(hash: u64, node: u16, generation: u16, moved: bool, now: u32) -> Self {
        let received = if moved { RECEIVED } else { 0 };
        Self(
            hash >> HASH_SHIFT << HASH_SHIFT
                | u64::from(node) << NODE_SHIFT
                | received
                | u64::from(generation & 15) << GENERATION_SHIFT
                | u64::from(now as u16),
        )
    }

    /// Whether there is one, and it is of this hash.
    #[inline(always)]
    pub fn is_of(self, hash: u64) -> bool {
        (self.0 ^ hash) >> HASH_SHIFT == 0 && self.node() != 0
    }

    /// The node's slot; 0: no proof.
    #[inline(always)]
    pub fn node(self) -> u16 {
        (self.0 >> NODE_SHIFT & NODE) as u16
    }

    /// Whether the slot still is the same node's, as far as four bits say.
    #[inline(always)]
    pub fn is_generation(self, generation: u16) -> bool {
        (self.0 >> GENERATION_SHIFT) as u16 & 15 == generation & 15
    }

    /// `SynSent`, or `SynReceived` when it was moved in mid-stream.
    #[inline(always)]
    pub fn state(self) -> State {
        if self.0 & RECEIVED == 0 { State::SynSent } else { State::SynReceived }
    }

    /// Whether a CPU is making a record in `FLOWS` of it.
    #[inline(always)]
    pub fn is_moving(self) -> bool {
        self.0 & MOVING != 0
    }

    /// The same, while that is done.
    #[inline(always)]
    #[must_use]
    pub fn moving(self) -> Self {
        Self(self.0 | MOVING)
    }

    /// Whether the client's FIN came while a CPU was making the record.
    #[inline(always)]
    pub fn is_ended(self) -> bool {
        self.0 & ENDED != 0
    }

    /// The same, with that FIN: for whoever makes the record to note.
    #[inline(always)]
    #[must_use]
    pub fn ended(self) -> Self {
        Self(self.0 | ENDED)
    }

    /// The same, with a packet of this tick.
    #[inline(always)]
    #[must_use]
    pub fn seen(self, now: u32) -> Self {
        Self(self.0 & !0xffff | u64::from(now as u16))
    }

    /// Ticks since the last packet, of which 18 hours look like none.
    #[inline(always)]
    pub fn age(self, now: u32) -> u16 {
        let age = (now as u16).wrapping_sub(self.0 as u16);
        if age >= AHEAD { 0 } else { age }
    }

    /// Whether it has been silent for longer than its timeout in seconds.
    #[inline(always)]
    pub fn is_expired(self, timeout: u16, now: u32) -> bool {
        expired(now.wrapping_sub(u32::from(self.age(now))), timeout, now)
    }
}

/// The element of `PROOFS`: the places that a hash may have.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProofSet {
    /// In no order.
    pub places: [Proof; WAYS],
}
const _: () = assert!(size_of::<ProofSet>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: u64 = 0x1234_5678_9abc_def0;

    #[test]
    fn a_proof_says_flow_node_generation_and_time() {
        let proof = Proof::new(HASH, 16_383, 0x1235, false, 0x7_0005);
        assert!(proof.is_of(HASH) && proof.is_of(HASH ^ 1) && !proof.is_of(HASH ^ 1 << 37));
        assert_eq!((proof.node(), proof.state()), (16_383, State::SynSent));
        assert!(proof.is_generation(0x1235) && !proof.is_generation(0x1236));
        assert_eq!([proof.age(0x7_0005), proof.age(0x7_0009), proof.age(0x7_0004)], [0, 4, 0]);
        assert_eq!(Proof::new(HASH, 1, 1, true, 0).state(), State::SynReceived);
    }

    #[test]
    fn a_proof_is_refreshed_and_marked_without_a_change_of_the_rest() {
        let proof = Proof::new(HASH, 7, 3, true, 100);
        let later = proof.moving().seen(104);
        assert!(later.is_moving() && !proof.is_moving() && later.is_of(HASH) && later.is_generation(3));
        assert_eq!((later.node(), later.age(105), later.state()), (7, 1, State::SynReceived));
        let ended = later.ended();
        assert!(ended.is_ended() && !later.is_ended() && ended.is_moving() && ended.is_of(HASH) && ended.node() == 7);
        assert!(!proof.is_expired(5, 105) && proof.is_expired(5, 106) && !later.is_expired(5, 106));
    }

    #[test]
    fn nothing_is_no_proof_of_any_hash() {
        assert!(!Proof::default().is_of(0));
    }
}
