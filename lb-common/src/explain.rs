//! What `lbctl trace` reads: the path of one packet, written by the explaining twin of the XDP program (the same code,
//! loaded with `EXPLAIN = 1`, sharing all maps, changing none but `EXPLANATION`).

use crate::flow::FlowKey;

/// Steps that were taken: bits of [`Explanation::steps`].
pub mod step {
    /// The address filter said "look closer".
    pub const FILTER_HIT: u32 = 1;
    /// A record was found in `FLOWS`.
    pub const FLOW_HIT: u32 = 2;
    /// A record was found in `PENDING`.
    pub const PENDING_HIT: u32 = 4;
    /// The record was expired, of another generation, or its node unusable: placed anew.
    pub const STALE: u32 = 8;
    /// `SERVICES` or `PORT_RANGES` named a virtual server.
    pub const SERVICE_HIT: u32 = 16;
    /// The client's last node was taken (`AFFINITY`).
    pub const AFFINITY_HIT: u32 = 32;
    /// Placed by the scheduler.
    pub const SCHEDULED: u32 = 64;
    /// Placed by the ring without state.
    pub const STATELESS: u32 = 128;
    /// The new-connection limit was exceeded.
    pub const FLOOD: u32 = 256;
    /// Node → client direction.
    pub const REPLY: u32 = 512;
    /// A later fragment whose owner was known.
    pub const FRAGMENT_HIT: u32 = 1024;
}

/// The one element of `EXPLANATION`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The flow as parsed from the packet; all zero when it was not parsed so far.
    pub key: FlowKey,
    /// `step::*`.
    pub steps: u32,
    /// Id of the virtual server; 0: none was found.
    pub virtual_server: u16,
    /// Node slot; 0: none.
    pub node: u16,
    /// `flow::flag::*` of the connection.
    pub flow_flags: u8,
    /// `conntrack::State` of the record found.
    pub state: u8,
    /// `reason::Reason` that ended the path.
    pub reason: u8,
    /// Zero.
    pub padding: u8,
    /// The interface it leaves by; 0: none.
    pub ifindex: u32,
    /// Set before the question: index of the interface that the packet is said to come in by.
    pub ingress: u32,
    /// Set before the question: its slot.
    pub ingress_slot: u32,
    /// Zero.
    pub padding2: u32,
}
const _: () = assert!(core::mem::size_of::<Explanation>() == 72);
