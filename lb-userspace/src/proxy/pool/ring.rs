//! The Maglev ring of a pool with consistent hash: made once for all threads.

use std::sync::{Arc, Mutex, Weak};

use lb_common::maglev::{self, Member, RING_SLOTS};

use super::{Node, shared::lock};

/// The last ring of a pool and what it was made of.
#[derive(Debug, Default)]
pub(super) struct RingCache(Mutex<(Vec<Member>, Weak<Vec<u16>>)>);

impl RingCache {
    /// The ring over all nodes, whatever they take now, so that a node that goes down and comes back moves no keys but its
    /// own. Slots are node indices + 1.
    pub(super) fn ring(&self, nodes: &[Node]) -> Arc<Vec<u16>> {
        let member =
            |node: &Node| Member { identity: node.identity, slot: node.id.index() as u16 + 1, weight: node.weight };
        let mut members: Vec<Member> = nodes.iter().map(member).collect();
        members.sort_unstable_by_key(|member| member.identity);
        let mut cache = lock(&self.0);
        if cache.0 == members
            && let Some(ring) = cache.1.upgrade()
        {
            return ring;
        }
        let mut ring = vec![0; RING_SLOTS as usize];
        let (mut next, mut credit) = (vec![0; members.len()], vec![0; members.len()]);
        maglev::fill(&mut ring, &members, 0, &mut next, &mut credit);
        let ring: Arc<Vec<u16>> = Arc::new(ring);
        *cache = (members, Arc::downgrade(&ring));
        ring
    }
}
