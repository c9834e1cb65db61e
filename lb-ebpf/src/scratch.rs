//! Working memory of the slow path: a BPF stack has 512 bytes for all functions of a call chain.

use lb_common::{
    flow::{ClientHop, FlowKey, FlowRecord},
    packet::Packet,
};

use crate::{forward::Endpoints, maps::SCRATCH};

/// Per CPU; XDP does not nest, so there is one user at a time. Nothing in it but `known` survives a packet.
#[repr(C, align(8))]
pub struct Scratch {
    /// The packet as parsed.
    pub packet: Packet,
    /// The connection being made.
    pub record: FlowRecord,
    /// Its answering half, or a copy on its way to another table.
    pub half: FlowRecord,
    /// The packet that an ICMP error quotes.
    pub quote: Quote,
    /// What addresses and ports become.
    pub to: Endpoints,
    /// Hash of its key, for the flow tables.
    pub hash: u64,
    /// Index plus one of the record in `FLOWS` whose digest has that hash, as far as it was looked for; 0: none.
    pub found: u32,
    /// Index in `VIRTUAL_SERVERS` plus one of what its destination was found to belong to; 0: not looked up yet.
    pub service: u32,
    /// The node for a new connection.
    pub chosen: u16,
    /// Zero.
    pub padding: u16,
    /// 1: the packet is addressed to a VIP; 0: not, or not looked up.
    pub to_vip: u32,
    /// 1: it belongs to a connection whose node failed.
    pub moved: u32,
    /// ICMP errors. 1: the node speaks, as the VIP; 0: a router does, as itself.
    pub outer_source: u32,
    /// ICMP errors. 1: towards the client; 0: towards the node of `record`.
    pub answer: u32,
    /// The client's next hop.
    pub client: ClientHop,
    /// The last step: VLAN of the segment that the frame leaves into; 0: untagged.
    pub vlan: u32,
    /// The last step: interface towards it.
    pub egress: u32,
    /// The last step: number of the reason that the path ends with.
    pub reason: u32,
    /// Destinations looked up lately.
    pub known: [Known; KNOWN],
}

/// How many destinations are remembered: a power of two.
pub const KNOWN: usize = 16;

/// Where a destination was found to belong to: without a call of the kernel's hash for each new connection.
#[repr(C)]
pub struct Known {
    /// The image of its `ServiceKey`.
    pub image: [u64; 3],
    /// `SERVICES_EPOCH` before it was looked up.
    pub epoch: u64,
    /// Index in `VIRTUAL_SERVERS`.
    pub index: u64,
}

/// A packet quoted in an ICMP error.
#[repr(C)]
pub struct Quote {
    /// As quoted: the source is who sent the packet that the error is about.
    pub key: FlowKey,
    /// The same, seen from the other end: the flow that the error concerns.
    pub flow: FlowKey,
    /// Offset of its IP header in the frame.
    pub ip: u32,
    /// Offset of its transport header in the frame.
    pub l4: u32,
}

/// This CPU's.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: a live per-CPU map value with one user at a time. Callers borrow distinct fields.
    SCRATCH.get_ptr_mut(0).map(|s| unsafe { &mut *s })
}
