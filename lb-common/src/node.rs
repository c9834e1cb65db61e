//! A node as the data path sees it: one slot per (virtual server, pool, node).

/// A node slot in `NODES`. One cache line; the daemon is the only writer and stores whole aligned words.
///
/// Slot 0 means "no node" everywhere and stays zero. A slot is given to another node only after its generation went up
/// and no flow record of the old generation is left to be believed.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// MAC address of the node, or of the router to it.
    pub mac: [u8; 6],
    /// `node_flag::*`. In one 8-byte word with the MAC, so that both change at once.
    pub flags: u16,
    /// MAC address of our interface towards it.
    pub source_mac: [u8; 6],
    /// MTU towards it, in bytes of IP packet.
    pub mtu: u16,
    /// Key in `DEVICES` of the interface towards it; also its ifindex.
    pub ifindex: u32,
    /// Id of the virtual server.
    pub virtual_server: u16,
    /// Raised when the slot is given to another node.
    pub generation: u16,
    /// NAT: the node's address (IPv4 in the first four bytes).
    pub address: [u8; 16],
    /// NAT with `source_nat`: the address that the node sees (IPv4 in the first four bytes).
    pub source_address: [u8; 16],
    /// NAT: the node's port, network order as a number; 0: the port is not changed.
    pub port: u16,
    /// VLAN towards it; 0: untagged. With [`node_flag::TAGGED`].
    pub vlan: u16,
    /// Zero.
    pub padding: [u8; 4],
}
const _: () = assert!(core::mem::size_of::<Node>() == 64);

/// Bits of [`Node::flags`].
pub mod node_flag {
    /// Tracked connections may be forwarded to it (active or draining, and not down).
    pub const USABLE: u16 = 1;
    /// `mac`, `source_mac` and `ifindex` are known.
    pub const RESOLVED: u16 = 2;
    /// It is in the VLAN of [`super::Node::vlan`]. In the first word, so that the common case need not read the last.
    pub const TAGGED: u16 = 4;
}

/// Connections of a node slot, in `NODE_LOADS`: what least connections compares. Changed by atomic addition.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Connections in an active state (`conntrack::State::is_active`).
    pub active: u64,
    /// Half-open connections; counted for least-connections pools only.
    pub pending: u64,
    /// Weight for weighted least connections.
    pub weight: u64,
    /// Zero.
    pub padding: u64,
}

/// Traffic of a node slot on one CPU, in `NODE_STATS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Frames client → node.
    pub packets: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// Frames node → client (NAT only).
    pub reply_packets: u64,
    /// Bytes of those frames.
    pub reply_bytes: u64,
    /// Connections scheduled to it.
    pub connections: u64,
    /// Connections moved to it from a failed node.
    pub rescheduled: u64,
    /// Brief and long silent DSR connections of it that were taken out of the full table.
    pub evicted: u64,
}

/// An interface with our program, in `INTERFACES` by its slot: whose frames are for us, where answers to clients leave.
///
/// Unicast frames to other addresses than these, and those in `VIRTUAL_ROUTERS`, are another machine's (`Reason::NotForUs`).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// MAC address; also the source of what leaves here towards clients.
    pub mac: [u8; 6],
    /// Zero.
    pub padding: [u8; 2],
    /// MAC address of the bridge or bond that the interface is a port of; without one the same as `mac`.
    pub controller_mac: [u8; 6],
    /// Zero.
    pub padding2: [u8; 2],
    /// Kernel index; 0: the slot is not in use.
    pub ifindex: u32,
    /// Zero.
    pub padding3: u32,
}
const _: () = assert!(core::mem::size_of::<Interface>() == 24);

impl Interface {
    /// One with a single MAC address.
    #[must_use]
    pub fn with_mac(ifindex: u32, mac: [u8; 6]) -> Self {
        Self { mac, controller_mac: mac, ifindex, ..Self::default() }
    }
}
