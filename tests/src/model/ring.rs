//! The Maglev ring and the round-robin sequence, a second time: with whole permutations instead of a walk in place.

use super::hash::finish;

/// Slots of a ring.
pub const SLOTS: usize = 65_537;

/// A node in a ring: identity, slot, weight.
pub type Member = (u64, u16, u32);

/// The ring of these members (Eisenbud et al., NSDI 2016, §3.4): members take turns; one of the greatest weight takes a slot
/// in each, the others in proportion. Each takes the first free slot of its permutation.
#[must_use]
pub fn ring(members: &[Member], seed: u64) -> Vec<u16> {
    let heaviest = members.iter().map(|(_, _, weight)| u64::from(*weight)).max().unwrap_or(0);
    if heaviest == 0 {
        return vec![0; SLOTS];
    }
    let mut preferences: Vec<std::vec::IntoIter<usize>> =
        members.iter().map(|(identity, _, _)| permutation(*identity, seed).into_iter()).collect();
    let mut ring: Vec<Option<u16>> = vec![None; SLOTS];
    let mut free = SLOTS;
    for turn in 1u64.. {
        for (preference, (_, slot, weight)) in preferences.iter_mut().zip(members) {
            // Due when turn × weight passes another multiple of the greatest weight.
            let weight = u64::from(*weight);
            if turn * weight / heaviest == (turn - 1) * weight / heaviest {
                continue;
            }
            let place = preference.find(|place| ring[*place].is_none()).expect("a permutation names every slot");
            ring[place] = Some(*slot);
            free -= 1;
            if free == 0 {
                return ring.into_iter().map(|slot| slot.expect("none is free")).collect();
            }
        }
    }
    unreachable!("somebody is due in each turn")
}

/// Where a flow's hash is on the ring: its upper half as a fraction of the circle.
#[must_use]
pub fn place(hash: u64) -> usize {
    let fraction = u128::from(hash >> 32);
    (fraction * SLOTS as u128 / (1u128 << 32)) as usize
}

fn permutation(identity: u64, seed: u64) -> Vec<usize> {
    let first = finish(identity ^ seed);
    let second = finish(first ^ 0x9e37_79b9_7f4a_7c15);
    let (offset, skip) = (first % SLOTS as u64, second % (SLOTS as u64 - 1) + 1);
    (0..SLOTS as u64).map(|j| ((offset + j * skip) % SLOTS as u64) as usize).collect()
}

/// One round of nginx's smooth weighted round robin: as many turns as the weights sum up to in lowest terms.
#[must_use]
pub fn sequence(members: &[Member]) -> Vec<u16> {
    let divisor = members.iter().fold(0, |divisor, (_, _, weight)| gcd(divisor, *weight));
    if divisor == 0 {
        return Vec::new();
    }
    let total: i64 = members.iter().map(|(_, _, weight)| i64::from(*weight)).sum();
    let mut current = vec![0i64; members.len()];
    let turns = total / i64::from(divisor);
    (0..turns)
        .map(|_| {
            for (current, (_, _, weight)) in current.iter_mut().zip(members) {
                *current += i64::from(*weight);
            }
            let leads = |i: &usize| members[*i].2 > 0 && current.iter().all(|other| *other <= current[*i]);
            let next = (0..members.len()).find(leads).expect("somebody has the most");
            current[next] -= total;
            members[next].1
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
