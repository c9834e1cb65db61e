//! Rings: Maglev's consistent hashing (Eisenbud et al., NSDI 2016, §3.4) with weights, and the sequence that weighted
//! round robin walks. Built by the daemon into slices it owns, read by the XDP programs.

use crate::flow::mix64;

/// Slots of a Maglev ring: a prime, more than 100 × the nodes of any pool (≤ 1 % imbalance).
pub const RING_SLOTS: u32 = 65_537;

/// Slots in one element of the `RINGS` map: one cache line of `u16`.
pub const CHUNK_SLOTS: usize = 32;

/// Elements of `RINGS` that a ring of [`RING_SLOTS`] takes.
pub const RING_CHUNKS: u32 = RING_SLOTS.div_ceil(CHUNK_SLOTS as u32);

/// The most nodes a pool may have.
pub const MAX_POOL_NODES: usize = 256;

/// One element of `RINGS`: node slots.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingChunk(pub [u16; CHUNK_SLOTS]);
const _: () = assert!(core::mem::size_of::<RingChunk>() == 64);

/// A node as the ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What identifies the node on every balancer of a cluster: a hash of its address and port, never its slot.
    pub identity: u64,
    /// The slot written into the ring.
    pub slot: u16,
    /// Share; 0 takes nothing.
    pub weight: u32,
}

/// Fills `ring` (any prime length of at most 32 bits) by Maglev's permutation walk. In each round a member takes `weight` slots per
/// `max(weight)` rounds, so that shares follow weights. The result depends on identities, weights and seed alone, not on
/// the order of `members`, as long as it is the same set; callers sort by identity. Without a weighted member all is 0.
///
/// `next` (each member's skip and next place) and `credit` are scratch space, at least as long as `members`.
pub fn fill(ring: &mut [u16], members: &[Member], seed: u64, next: &mut [u64], credit: &mut [u64]) {
    ring.fill(0);
    let slots = ring.len() as u64;
    let heaviest = members.iter().map(|m| m.weight).max().unwrap_or(0);
    if heaviest == 0 || slots == 0 {
        return;
    }
    for (walk, member) in next.iter_mut().zip(members) {
        let (offset, skip) = permutation(member.identity, seed, slots);
        *walk = skip << 32 | offset;
    }
    credit.fill(0);
    let mut taken = 0;
    loop {
        for (i, member) in members.iter().enumerate() {
            credit[i] += u64::from(member.weight);
            if credit[i] < u64::from(heaviest) {
                continue;
            }
            credit[i] -= u64::from(heaviest);
            let (skip, mut place) = (next[i] >> 32, next[i] & 0xffff_ffff);
            while ring[place as usize] != 0 {
                // Both are below `slots`: once round at most.
                place += skip;
                place -= if place >= slots { slots } else { 0 };
            }
            next[i] = skip << 32 | place;
            ring[place as usize] = member.slot;
            taken += 1;
            if taken == slots {
                return;
            }
        }
    }
}

/// Offset and skip of a member's permutation of the slots.
fn permutation(identity: u64, seed: u64, slots: u64) -> (u64, u64) {
    let h1 = mix64(identity ^ seed);
    let h2 = mix64(h1 ^ 0x9e37_79b9_7f4a_7c15);
    if slots < 2 {
        return (0, 1);
    }
    (h1 % slots, h2 % (slots - 1) + 1)
}

/// How long the sequence of [`fill_sequence`] is for these weights: their sum over their greatest common divisor, at
/// most [`RING_SLOTS`] (beyond it shares are rounded).
pub fn sequence_len(members: &[Member]) -> u32 {
    let divisor = members.iter().map(|m| m.weight).fold(0, gcd);
    if divisor == 0 {
        return 0;
    }
    let sum: u64 = members.iter().map(|m| u64::from(m.weight / divisor)).sum();
    sum.min(u64::from(RING_SLOTS)) as u32
}

/// Fills `sequence` by smooth weighted round robin (nginx's algorithm): every run of it follows the weights as closely as
/// possible, no burst to the heavy node. `credit` is scratch space, at least as long as `members`.
pub fn fill_sequence(sequence: &mut [u16], members: &[Member], credit: &mut [i64]) {
    let total: i64 = members.iter().map(|m| i64::from(m.weight)).sum();
    credit.fill(0);
    for place in sequence.iter_mut() {
        let mut best: Option<usize> = None;
        for (i, member) in members.iter().enumerate() {
            if member.weight == 0 {
                continue;
            }
            credit[i] += i64::from(member.weight);
            if best.is_none_or(|b| credit[i] > credit[b]) {
                best = Some(i);
            }
        }
        let Some(best) = best else {
            *place = 0;
            continue;
        };
        credit[best] -= total;
        *place = members[best].slot;
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, vec, vec::Vec};

    fn member(i: u16, weight: u32) -> Member {
        Member { identity: mix64(u64::from(i)), slot: i, weight }
    }

    fn ring(members: &[Member]) -> Vec<u16> {
        let mut ring = vec![0; RING_SLOTS as usize];
        let (mut next, mut credit) = (vec![0; members.len()], vec![0; members.len()]);
        fill(&mut ring, members, 7, &mut next, &mut credit);
        ring
    }

    fn shares(slots: &[u16]) -> BTreeMap<u16, usize> {
        let mut shares = BTreeMap::new();
        for slot in slots {
            *shares.entry(*slot).or_default() += 1;
        }
        shares
    }

    #[test]
    fn shares_follow_weights_within_one_percent() {
        let members = [member(1, 1), member(2, 2), member(3, 0), member(4, 5)];
        let shares = shares(&ring(&members));
        assert_eq!(shares.get(&3), None);
        for (slot, weight) in [(1, 1), (2, 2), (4, 5)] {
            let expected = RING_SLOTS as f64 * f64::from(weight) / 8.0;
            assert!((shares[&slot] as f64 / expected - 1.0).abs() < 0.01, "{slot}: {}", shares[&slot]);
        }
    }

    #[test]
    fn removing_one_node_of_ten_moves_little_more_than_its_own_share() {
        let all: Vec<Member> = (1..=10).map(|i| member(i, 1)).collect();
        let less: Vec<Member> = all.iter().copied().filter(|m| m.slot != 4).collect();
        let (before, after) = (ring(&all), ring(&less));
        let moved = before.iter().zip(&after).filter(|(b, a)| **b != 4 && b != a).count();
        let churn = moved as f64 / RING_SLOTS as f64;
        assert!(churn < 0.02, "churn beyond the lost node's share: {churn}");
    }

    #[test]
    fn an_empty_or_weightless_pool_gives_an_empty_ring() {
        assert!(ring(&[]).iter().all(|s| *s == 0));
        assert!(ring(&[member(1, 0)]).iter().all(|s| *s == 0));
        assert_eq!(sequence_len(&[member(1, 0)]), 0);
    }

    #[test]
    fn the_sequence_is_smooth_and_exact() {
        let members = [member(1, 10), member(2, 2), member(3, 2)];
        assert_eq!(sequence_len(&members), 7);
        let mut sequence = [0; 7];
        fill_sequence(&mut sequence, &members, &mut [0; 3]);
        assert_eq!(sequence, [1, 1, 2, 1, 3, 1, 1]);
    }
}
