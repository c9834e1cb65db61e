//! Plain packets of flows that another packet has proved a little earlier: forwarded by the digest, without the record.
//!
//! What a full look would say about each of these packets was said within the record's `flow::grace`: the key is the record's, the record is
//! not expired, its state is steady. What can change at once is still asked of the node's own line: its generation, and
//! whether it may be used.

use lb_common::{
    conntrack::tcp_flag,
    flow::{FAMILY_V4, FlowKey, flag},
    node::node_flag,
    reason::Reason,
};

use crate::{
    count,
    digest::{self, Known},
    forward::{self, Hop, Layout},
    frame::XdpFrame,
    globals::noting,
    maps::NODES,
    table::{self, Flows},
    track::{self, Arrival},
    verdict::Verdict,
};

/// Segments that may move a connection's state take the full look.
pub const MOVING: u8 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST;

/// Forwards the packet when its flow's digest is fresh. If not, the index plus one of the record to be looked at in full; 0:
/// no digest has this hash.
#[inline(always)]
pub fn forward(frame: XdpFrame, layout: Layout, words: &[u64; 5], arrival: Arrival) -> Result<Verdict, u32> {
    let Some(known) = digest::find(arrival.hash) else { return Err(0) };
    let plain = arrival.tcp_flags & MOVING == 0 && !noting();
    if plain && known.digest.is_fresh(arrival.check, track::now()) {
        if let Some(verdict) = by_digest(frame, layout, words, arrival, known) {
            return Ok(verdict);
        }
    }
    Err(known.index + 1)
}

#[inline(always)]
fn by_digest(frame: XdpFrame, layout: Layout, words: &[u64; 5], arrival: Arrival, known: Known) -> Option<Verdict> {
    let digest = known.digest;
    if digest.is_reply() {
        return reply(frame, layout, known, arrival.bytes);
    }
    let node = NODES.get(u32::from(digest.node()))?;
    let hop = Hop::of(node);
    if hop.flags() & node_flag::USABLE == 0 || hop.generation() != digest.generation() {
        return None;
    }
    let verdict = if digest.flags() & flag::NAT == 0 {
        forward::dsr(frame, layout.l3, hop, arrival.ip_len, Reason::ForwardedDsr)
    } else {
        let key = FlowKey::from_words(*words);
        let endpoints = forward::node_side(&key, digest.port_or_node(), digest.flags(), node);
        forward::nat_to(frame, layout, &endpoints, hop, arrival.ip_len)
    };
    count::forward(digest.node(), arrival.bytes, verdict);
    Some(verdict)
}

/// A node's answer. Its record says what the client sees; for IPv6, which has no room for that, the connection does.
#[inline(always)]
fn reply(frame: XdpFrame, layout: Layout, known: Known, bytes: usize) -> Option<Verdict> {
    if layout.family != FAMILY_V4 {
        return None;
    }
    let answer = table::at::<Flows>(known.index + 1)?;
    let endpoints = forward::client_side(&answer.get().client_key4());
    let verdict = forward::reply_to(frame, layout, &endpoints, answer.get().client_hop());
    count::reply(known.digest.port_or_node(), bytes, verdict);
    Some(verdict)
}
