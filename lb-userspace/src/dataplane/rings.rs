//! What stands in `RINGS` for one virtual server: its Maglev ring, the sequence of round robin, and the list that least
//! connections compares; and where in `RINGS` there is room. Pure.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_common::{
    flow::mix64,
    maglev::{CHUNK_SLOTS, Member, RING_CHUNKS, RING_SLOTS, RingChunk, fill, fill_sequence, sequence_len},
    vip::scheduler,
};

use crate::control::plan::Scheduler;

/// How long a region or record that no key leads to any more may still be read by a packet under way. A packet takes
/// microseconds.
pub const GRACE: Duration = Duration::from_secs(1);

/// What decides the contents: equal specifications have equal contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSpec {
    /// The nodes that take new connections, by identity.
    pub members: Vec<Member>,
    /// `scheduler::*`.
    pub scheduler: u8,
    /// Seed of the ring.
    pub seed: u64,
}

/// The stable hash that a node has in the rings of all balancers: of its address and port alone.
#[must_use]
pub fn identity(address: SocketAddr) -> u64 {
    let bytes = super::slots::address_bytes(address.ip());
    let (high, low) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let family = u64::from(address.is_ipv6()) << 16;
    mix64(mix64(mix64(word(high)) ^ word(low)) ^ family ^ u64::from(address.port()))
}

/// The data path's name of a scheduler.
#[must_use]
pub fn scheduler_number(scheduler: Scheduler) -> u8 {
    match scheduler {
        Scheduler::RoundRobin | Scheduler::WeightedRoundRobin => scheduler::SEQUENCE,
        Scheduler::LeastConnections | Scheduler::WeightedLeastConnections => scheduler::LEAST,
        Scheduler::SourceHash => scheduler::RING_SOURCE,
        Scheduler::Maglev => scheduler::RING_FLOW,
        Scheduler::Random => scheduler::RANDOM,
    }
}

/// The weight that a scheduler gives a node: the plain ones know none.
#[must_use]
pub fn effective_weight(scheduler: Scheduler, weight: u32) -> u32 {
    match scheduler {
        Scheduler::RoundRobin | Scheduler::LeastConnections => 1,
        Scheduler::WeightedRoundRobin
        | Scheduler::WeightedLeastConnections
        | Scheduler::SourceHash
        | Scheduler::Maglev
        | Scheduler::Random => weight,
    }
}

/// Where the parts are, relative to the start of the region, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Element of the sequence.
    pub sequence: u32,
    /// Its slots; 0: there is none.
    pub sequence_len: u32,
    /// Element of the list of members.
    pub members: u32,
    /// Its length; 0: there is none.
    pub members_len: u32,
    /// Elements of the whole.
    pub chunks: u32,
}

impl RingSpec {
    /// Where its parts go. The ring comes first.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let sequence_len = match self.scheduler {
            scheduler::SEQUENCE | scheduler::RANDOM => sequence_len(&self.members),
            _ => 0,
        };
        let members_len = if self.scheduler == scheduler::LEAST { self.members.len() as u32 } else { 0 };
        Layout::new(sequence_len, members_len)
    }

    /// The contents of its region.
    #[must_use]
    pub fn contents(&self) -> Vec<RingChunk> {
        let layout = self.layout();
        let count = self.members.len();
        let mut slots = vec![0u16; layout.chunks as usize * CHUNK_SLOTS];
        fill(&mut slots[..RING_SLOTS as usize], &self.members, self.seed, &mut vec![0; count], &mut vec![0; count]);
        let sequence = layout.sequence as usize * CHUNK_SLOTS;
        let sequence = &mut slots[sequence..sequence + layout.sequence_len as usize];
        fill_sequence(sequence, &self.members, &mut vec![0; count]);
        let members = layout.members as usize * CHUNK_SLOTS;
        for (place, member) in slots[members..members + layout.members_len as usize].iter_mut().zip(&self.members) {
            *place = member.slot;
        }
        slots.chunks_exact(CHUNK_SLOTS).map(chunk).collect()
    }
}

fn chunk(slots: &[u16]) -> RingChunk {
    let mut chunk = RingChunk::default();
    chunk.0.copy_from_slice(slots);
    chunk
}

impl Layout {
    /// Ring, sequence, members, one after the other.
    #[must_use]
    pub fn new(sequence_len: u32, members_len: u32) -> Self {
        let sequence = RING_CHUNKS;
        let members = sequence + sequence_len.div_ceil(CHUNK_SLOTS as u32);
        let chunks = members + members_len.div_ceil(CHUNK_SLOTS as u32);
        Self { sequence, sequence_len, members, members_len, chunks }
    }
}

/// Which stretches of an array are in use, and since when the others are not.
#[derive(Clone, Debug)]
pub struct Regions {
    /// First element of each stretch in use or in its grace time → its length.
    taken: BTreeMap<u32, u32>,
    retired: Vec<(u32, Instant)>,
    capacity: u32,
}

impl Regions {
    /// Elements `1..capacity` are free: 0 means "none" in every reference.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { taken: BTreeMap::new(), retired: Vec::new(), capacity }
    }

    /// Marks a stretch as in use (adoption). Says whether it was free.
    pub fn occupy(&mut self, start: u32, length: u32) -> bool {
        let end = start.saturating_add(length);
        let before = self.taken.range(..end).next_back();
        let free = start > 0 && end <= self.capacity && before.is_none_or(|(first, count)| first + count <= start);
        if free {
            self.taken.insert(start, length);
        }
        free
    }

    /// Finds room: the first stretch that is long enough.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        let mut start = 1;
        for (first, count) in &self.taken {
            if first - start >= length {
                break;
            }
            start = first + count;
        }
        (self.capacity.saturating_sub(start) >= length).then(|| {
            self.taken.insert(start, length);
            start
        })
    }

    /// Gives a stretch back: free after [`GRACE`].
    pub fn retire(&mut self, start: u32, now: Instant) {
        self.retired.push((start, now));
    }

    /// Frees what was given back long enough ago.
    pub fn reclaim(&mut self, now: Instant) {
        let taken = &mut self.taken;
        self.retired.retain(|(start, since)| {
            let waiting = now.saturating_duration_since(*since) < GRACE;
            if !waiting {
                taken.remove(start);
            }
            waiting
        });
    }

    /// How long until something is given free; `None`: nothing will be.
    #[must_use]
    pub fn next_free(&self, now: Instant) -> Option<Duration> {
        self.retired.iter().map(|(_, since)| (*since + GRACE).saturating_duration_since(now)).min()
    }

    /// Whether `length` elements would ever fit beside `others` in use, counting elements only.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(scheduler: u8, weights: &[u32]) -> RingSpec {
        let member = |(i, weight): (usize, &u32)| Member { identity: i as u64, slot: i as u16 + 1, weight: *weight };
        RingSpec { members: weights.iter().enumerate().map(member).collect(), scheduler, seed: 7 }
    }

    #[test]
    fn ring_sequence_and_members_stand_one_after_the_other() {
        let ring = spec(scheduler::SEQUENCE, &[1, 2]);
        let (layout, contents) = (ring.layout(), ring.contents());
        assert_eq!((layout.sequence_len, layout.members_len, contents.len() as u32), (3, 0, layout.chunks));
        assert_eq!(contents[layout.sequence as usize].0[..4], [2, 1, 2, 0]);
        let last = (RING_SLOTS - 1) as usize;
        let slot = contents[last / CHUNK_SLOTS].0[last % CHUNK_SLOTS];
        assert!((1..=2).contains(&slot), "the ring is filled to its last slot");
        assert_eq!(contents[last / CHUNK_SLOTS].0[last % CHUNK_SLOTS + 1..], [0; CHUNK_SLOTS - 1]);

        let least = spec(scheduler::LEAST, &[1; 40]);
        let (layout, contents) = (least.layout(), least.contents());
        assert_eq!((layout.sequence_len, layout.members_len), (0, 40));
        assert_eq!(contents[layout.members as usize].0[0], 1);
        assert_eq!(contents[layout.members as usize + 1].0[7..9], [40, 0]);
    }

    #[test]
    fn identities_depend_on_address_and_port() {
        let of = |text: &str| identity(text.parse().unwrap());
        let all = [of("10.0.0.1:80"), of("10.0.0.1:81"), of("10.0.0.2:80"), of("[a00:1::]:80"), of("[2001:db8::1]:80")];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one));
        }
        // Fixed for ever: balancers of different versions must agree.
        assert_eq!(of("10.0.0.1:80"), 0x92a2_6965_955f_40d5);
    }

    #[test]
    fn a_region_is_reused_only_after_its_grace_time() {
        let start = Instant::now();
        let mut regions = Regions::new(100);
        assert_eq!((regions.take(40), regions.take(40), regions.take(40)), (Some(1), Some(41), None));
        regions.retire(1, start);
        regions.reclaim(start + GRACE / 2);
        assert_eq!(regions.take(40), None);
        assert_eq!(regions.next_free(start + GRACE / 2), Some(GRACE / 2));
        regions.reclaim(start + GRACE);
        assert_eq!((regions.take(30), regions.take(10), regions.take(19)), (Some(1), Some(31), Some(81)));
        assert_eq!(regions.next_free(start), None);
    }

    #[test]
    fn adopted_regions_must_not_overlap() {
        let mut regions = Regions::new(100);
        assert!(regions.occupy(10, 20));
        for (start, length) in [(0, 5), (5, 6), (29, 2), (10, 20), (90, 11), (15, 1)] {
            assert!(!regions.occupy(start, length), "{start}+{length}");
        }
        assert!(regions.occupy(30, 5) && regions.occupy(5, 5));
        assert_eq!(regions.take(60), Some(35));
    }
}
