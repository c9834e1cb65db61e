//! The BPF maps. Types and sizes are `lb_common`'s; a change of any of them raises `lb_common::maps::LAYOUT_VERSION`.
//!
//! "daemon" below is lbd, through the bpf system call or `mmap`; "XDP" are the programs of this crate.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, DevMapHash, HashMap, PerCpuArray},
};
use lb_common::{
    conntrack::Timeouts,
    digest::DigestLine,
    explain::Explanation,
    flow::Bucket,
    maglev::RingChunk,
    maps::{
        MAX_INTERFACES, MAX_LEASED, MAX_NODES, MAX_RANGED_VIPS, MAX_SERVICES, MAX_VIRTUAL_SERVERS, Meta, Name,
        NodeNames, VLAN_WORDS,
    },
    node::{Interface, Node, NodeLoad, NodeStats},
    proof::ProofSet,
    reason::{Counter, REASON_SLOTS},
    vip::{Cursor, FloodWindow, PortRanges, ServiceKey, VirtualServer, filter},
    virtual_router,
};

const MMAPABLE: u32 = BPF_F_MMAPABLE;

/// Tracked connections. Written by XDP (insert, state, age) and the daemon (removal of the dead). Shared by all CPUs.
/// Without room a DSR connection goes on by the ring, a NAT connection is refused. The one eviction is of DSR connections that
/// look forged, when both buckets of a key are full (`table::is_brief`).
#[map]
pub static FLOWS: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);

/// Sixteen bytes about each record of `FLOWS`, by which a packet's flow is found. Written by XDP; whoever removes a record, the
/// daemon too, takes its digest's freshness away.
#[map]
pub static DIGESTS: Array<DigestLine> = Array::with_max_entries(1, MMAPABLE);

/// Connections that one side alone has spoken for, where a proof is not enough: half-open TCP in NAT and where half-open
/// connections are counted, first UDP datagrams. Written like `FLOWS`. Evicts the
/// oldest of a bucket: a flood of forged SYNs churns here and never reaches `FLOWS`.
#[map]
pub static PENDING: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);

/// Half-open TCP connections in DSR, a word each: as many places as `PENDING` has. Written by XDP alone, plainly; evicts the
/// oldest of four.
#[map]
pub static PROOFS: Array<ProofSet> = Array::with_max_entries(1, MMAPABLE);

/// Source-address persistence: (virtual server, masked client) → node. Written like `PENDING`.
#[map]
pub static AFFINITY: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);

/// Fragmented datagrams: (addresses, id, protocol) → where the first fragment went. Written like `PENDING`.
#[map]
pub static FRAGMENTS: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);

// Elements of the two hashes are allocated one by one: a replaced element stays as it was until every program that found it
// has ended (RCU); preallocated ones would be given to another key at once.

/// (VIP, port, protocol) → index in `VIRTUAL_SERVERS`; (VIP, 0, 0) → 0 says that the address is a VIP. Written by the
/// daemon alone.
#[map]
pub static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(MAX_SERVICES, BPF_F_NO_PREALLOC);

/// Raised by the daemon after each change of `SERVICES` and `PORT_RANGES`: what was found before is not believed any more.
#[map]
pub static SERVICES_EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// (VIP, 0, protocol) → port ranges. Written by the daemon alone; looked up when `SERVICES` has no such port.
#[map]
pub static PORT_RANGES: HashMap<ServiceKey, PortRanges> = HashMap::with_max_entries(MAX_RANGED_VIPS, BPF_F_NO_PREALLOC);

/// Virtual servers: immutable records that `SERVICES` and `PORT_RANGES` name. Written by the daemon alone.
#[map]
pub static VIRTUAL_SERVERS: Array<VirtualServer> = Array::with_max_entries(MAX_VIRTUAL_SERVERS * 2, 0);

/// The jiffy from which on this machine no longer speaks for the VIPs in `LEASED`; 0: never. Written by the daemon's failover
/// thread, some ten times a second where another machine can take them.
#[map]
pub static LEASE: Array<u64> = Array::with_max_entries(1, MMAPABLE);

/// (VIP, 0, 0) of VIP groups that another machine can take. Written by the same; looked up when the lease is over.
#[map]
pub static LEASED: HashMap<ServiceKey, u32> = HashMap::with_max_entries(MAX_LEASED, BPF_F_NO_PREALLOC);

/// A bit for each virtual MAC address (`lb_common::virtual_router`), set while this machine owns it. Written by the same.
#[map]
pub static VIRTUAL_ROUTERS: Array<u64> = Array::with_max_entries(virtual_router::WORDS, MMAPABLE);

/// Timeouts by virtual-server id. Written by the daemon alone.
#[map]
pub static TIMEOUTS: Array<Timeouts> = Array::with_max_entries(MAX_VIRTUAL_SERVERS, 0);

/// Round robin's position by virtual-server id. Written by XDP, shared by all CPUs so that the turns are exact.
#[map]
pub static CURSORS: Array<Cursor> = Array::with_max_entries(MAX_VIRTUAL_SERVERS, 0);

/// New connections in the current tick by virtual-server id. Written by XDP, per CPU.
#[map]
pub static FLOOD: PerCpuArray<FloodWindow> = PerCpuArray::with_max_entries(MAX_VIRTUAL_SERVERS, 0);

/// Names by virtual-server id: for people and for a restarted daemon. Written by the daemon alone.
#[map]
pub static VIRTUAL_SERVER_NAMES: Array<Name> = Array::with_max_entries(MAX_VIRTUAL_SERVERS, 0);

/// Nodes by slot. Written by the daemon alone, whole aligned words at a time.
#[map]
pub static NODES: Array<Node> = Array::with_max_entries(MAX_NODES, MMAPABLE);

/// Connections of each node slot. Added to atomically by XDP, subtracted from by both.
#[map]
pub static NODE_LOADS: Array<NodeLoad> = Array::with_max_entries(MAX_NODES, MMAPABLE);

/// Traffic of each node slot. Written by XDP, per CPU.
#[map]
pub static NODE_STATS: PerCpuArray<NodeStats> = PerCpuArray::with_max_entries(MAX_NODES, 0);

/// Whose slot it is. Written by the daemon alone.
#[map]
pub static NODE_NAMES: Array<NodeNames> = Array::with_max_entries(MAX_NODES, 0);

/// Maglev rings, sequences and member lists, as regions of elements that `VIRTUAL_SERVERS` names. Written by the daemon
/// alone, before they are named. Element 0 is unused.
#[map]
pub static RINGS: Array<RingChunk> = Array::with_max_entries(1, MMAPABLE);

/// Two Bloom filters of addresses (`vip::filter`). Written by the daemon alone.
#[map]
pub static FILTER: Array<u64> = Array::with_max_entries(2 * filter::WORDS, 0);

/// Served VLAN ids: a bitmap per interface slot. Written by the daemon alone.
#[map]
pub static VLANS: Array<u64> = Array::with_max_entries(MAX_INTERFACES * VLAN_WORDS, 0);

/// Interfaces by slot. Written by the daemon alone.
#[map]
pub static INTERFACES: Array<Interface> = Array::with_max_entries(MAX_INTERFACES, 0);

/// Packets by interface slot and reason. Written by XDP, per CPU.
#[map]
pub static REASONS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(MAX_INTERFACES * REASON_SLOTS, 0);

/// ifindex → the device itself: where redirected packets may leave. Written by the daemon alone.
#[map]
pub static DEVICES: DevMapHash = DevMapHash::with_max_entries(256, 0);

/// The path of the packet that `lbctl trace` asked about. Written by the explaining twin alone.
#[map]
pub static EXPLANATION: Array<Explanation> = Array::with_max_entries(1, 0);

/// Working memory of the slow path. Written by XDP, per CPU; nothing but `known` means anything between two packets.
#[map]
pub static SCRATCH: PerCpuArray<crate::scratch::Scratch> = PerCpuArray::with_max_entries(1, 0);

/// How many ICMP errors of our own were asked for in the current tick: tick in the upper half, number in the lower. Written by
/// XDP, shared by all CPUs.
#[map]
pub static ICMP_ERRORS: Array<u64> = Array::with_max_entries(1, 0);

/// Layout version and secrets, for the next daemon. Written once by the daemon; never read by XDP.
#[map]
pub static META: Array<Meta> = Array::with_max_entries(1, 0);

/// What is captured, for how long and how much of it. Written by the daemon, and its counters by XDP, shared by all CPUs.
#[cfg(feature = "capture")]
#[map]
pub static CAPTURE: Array<lb_common::capture::Control> = Array::with_max_entries(1, 0);

/// Captured frames on their way to the daemon, sized by it. What finds no room is counted in `CAPTURE` and lost.
#[cfg(feature = "capture")]
#[map]
pub static CAPTURED: aya_ebpf::maps::RingBuf = aya_ebpf::maps::RingBuf::with_byte_size(4096, 0);

/// The packet that is being decided about. Written by XDP, per CPU; means nothing between two packets.
#[cfg(feature = "capture")]
#[map]
pub static SNAPSHOT: PerCpuArray<crate::capture::Snapshot> = PerCpuArray::with_max_entries(1, 0);
