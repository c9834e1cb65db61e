//! Typed handles to all BPF maps, opened from their pins. [`Maps`] reads, and changes what readers may change (flow records
//! and node loads, through [`Table`]); [`Writer`] is for the one owner of the data plane.
//!
//! Every handle is its own file descriptor, so `Maps` is shared by `Arc` and needs no lock. What each map is for is said in
//! `lb-ebpf/src/maps.rs`.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use aya::maps::{Array, DevMapHash, HashMap, Map, MapData, MapError, PerCpuArray};
use lb_common::{
    conntrack::Timeouts,
    digest::{Digest, DigestLine},
    explain::Explanation,
    flow::{Bucket, FlowRecord},
    maglev::RingChunk,
    maps::{Meta, Name, NodeNames},
    node::{Interface, Node, NodeLoad, NodeStats},
    proof::{Proof, ProofSet},
    reason::Counter,
    vip::{Cursor, FloodWindow, PortRanges, ServiceKey, VirtualServer},
};

use super::table::Table;

/// Names of all maps, as in the object and below `<pin_dir>/maps`.
pub const NAMES: [&str; 30] = [
    "FLOWS",
    "DIGESTS",
    "PENDING",
    "PROOFS",
    "AFFINITY",
    "FRAGMENTS",
    "SERVICES",
    "PORT_RANGES",
    "VIRTUAL_SERVERS",
    "LEASE",
    "LEASED",
    "VIRTUAL_ROUTERS",
    "TIMEOUTS",
    "CURSORS",
    "FLOOD",
    "NODES",
    "NODE_LOADS",
    "NODE_STATS",
    "NODE_NAMES",
    "VIRTUAL_SERVER_NAMES",
    "RINGS",
    "FILTER",
    "VLANS",
    "REASONS",
    "INTERFACES",
    "DEVICES",
    "SERVICES_EPOCH",
    "ICMP_ERRORS",
    "EXPLANATION",
    "META",
];

/// Why a map could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// The pin cannot be opened, or is of another type.
    #[error("map {name}: {source}")]
    Open {
        /// Map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// The map's memory cannot be mapped.
    #[error("map {name}: mmap: {source}")]
    Mmap {
        /// Map.
        name: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// All maps, for reading; flow records and node loads for changing, too.
pub struct Maps {
    /// Where they are pinned: `<pin_dir>/maps`.
    pub directory: PathBuf,
    /// Tracked connections. Index = bucket × 4 + way, as in `FlowRecord::peer` minus one.
    pub flows: Table<FlowRecord>,
    /// Their digests, by the same index.
    pub digests: Table<Digest>,
    /// Half-open connections that have records.
    pub pending: Table<FlowRecord>,
    /// The others. Index = set × 4 + place.
    pub proofs: Table<Proof>,
    /// Source-address persistence.
    pub affinity: Table<FlowRecord>,
    /// Owners of fragmented datagrams.
    pub fragments: Table<FlowRecord>,
    /// Node slots.
    pub nodes: Table<Node>,
    /// Connections of node slots.
    pub node_loads: Table<NodeLoad>,
    /// Traffic of node slots.
    pub node_stats: PerCpuArray<MapData, NodeStats>,
    /// Names of node slots.
    pub node_names: Array<MapData, NodeNames>,
    /// VIPs and their single ports → index in `virtual_servers`.
    pub services: HashMap<MapData, ServiceKey, u32>,
    /// VIPs' port ranges.
    pub port_ranges: HashMap<MapData, ServiceKey, PortRanges>,
    /// Records of virtual servers.
    pub virtual_servers: Array<MapData, VirtualServer>,
    /// Names of virtual servers, by id.
    pub virtual_server_names: Array<MapData, Name>,
    /// The jiffy that ends the forwarding lease.
    pub lease: Table<u64>,
    /// VIPs that it is for.
    pub leased: HashMap<MapData, ServiceKey, u32>,
    /// Virtual MAC addresses that are ours, a bit each.
    pub virtual_routers: Table<u64>,
    /// Timeouts, by id of the virtual server.
    pub timeouts: Array<MapData, Timeouts>,
    /// Round robin positions, by id of the virtual server.
    pub cursors: Array<MapData, Cursor>,
    /// New-connection windows, by id of the virtual server.
    pub flood: PerCpuArray<MapData, FloodWindow>,
    /// Rings, sequences and member lists.
    pub rings: Table<RingChunk>,
    /// The address filter.
    pub filter: Array<MapData, u64>,
    /// VLAN bitmaps: interface slot × 64 + word.
    pub vlans: Array<MapData, u64>,
    /// Counters of reasons: interface slot × 64 + reason.
    pub reasons: PerCpuArray<MapData, Counter>,
    /// Interfaces with our program, by slot.
    pub interfaces: Array<MapData, Interface>,
    /// Interfaces that next hops lead through.
    pub devices: DevMapHash<MapData>,
    /// What the explaining twin found.
    pub explanation: Array<MapData, Explanation>,
    /// How often `SERVICES` and `PORT_RANGES` were changed.
    pub services_epoch: Array<MapData, u64>,
    /// ICMP errors of our own in the current tick.
    pub icmp_errors: Array<MapData, u64>,
    /// Layout, sizes and secret of the flow tables.
    pub meta: Array<MapData, Meta>,
}

impl Maps {
    /// Opens all maps pinned in `directory` (`<pin_dir>/maps`). Layout and sizes have been checked by `pins`.
    ///
    /// # Errors
    /// Names the first map that is missing or of another type.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self {
            directory: directory.to_owned(),
            flows: flow_table(directory, "FLOWS")?,
            digests: table(directory, "DIGESTS", size_of::<DigestLine>())?,
            pending: flow_table(directory, "PENDING")?,
            proofs: table(directory, "PROOFS", size_of::<ProofSet>())?,
            affinity: flow_table(directory, "AFFINITY")?,
            fragments: flow_table(directory, "FRAGMENTS")?,
            nodes: table(directory, "NODES", size_of::<Node>())?,
            node_loads: table(directory, "NODE_LOADS", size_of::<NodeLoad>())?,
            node_stats: typed(directory, "NODE_STATS")?,
            node_names: typed(directory, "NODE_NAMES")?,
            services: typed(directory, "SERVICES")?,
            port_ranges: typed(directory, "PORT_RANGES")?,
            virtual_servers: typed(directory, "VIRTUAL_SERVERS")?,
            virtual_server_names: typed(directory, "VIRTUAL_SERVER_NAMES")?,
            lease: table(directory, "LEASE", size_of::<u64>())?,
            leased: typed(directory, "LEASED")?,
            virtual_routers: table(directory, "VIRTUAL_ROUTERS", size_of::<u64>())?,
            timeouts: typed(directory, "TIMEOUTS")?,
            cursors: typed(directory, "CURSORS")?,
            flood: typed(directory, "FLOOD")?,
            rings: table(directory, "RINGS", size_of::<RingChunk>())?,
            filter: typed(directory, "FILTER")?,
            vlans: typed(directory, "VLANS")?,
            reasons: typed(directory, "REASONS")?,
            interfaces: typed(directory, "INTERFACES")?,
            devices: typed(directory, "DEVICES")?,
            explanation: typed(directory, "EXPLANATION")?,
            services_epoch: typed(directory, "SERVICES_EPOCH")?,
            icmp_errors: typed(directory, "ICMP_ERRORS")?,
            meta: typed(directory, "META")?,
        })
    }

    /// Seconds after which a proof is dead; `None`: there is none, or it is.
    pub(super) fn proof_timeout(&self, proof: Proof, now: u32) -> Option<u16> {
        let timeouts = self.timeouts_of(proof.node())?;
        let timeout = timeouts.0[proof.state() as usize];
        (!proof.is_expired(timeout, now)).then_some(timeout)
    }

    /// Of the virtual server of a node slot; `None` for slot 0.
    fn timeouts_of(&self, slot: u16) -> Option<Timeouts> {
        let virtual_server = self.nodes.read(slot.into()).virtual_server;
        (slot != 0).then(|| self.timeouts.get(&virtual_server.into(), 0).unwrap_or_default())
    }

    /// How many proofs in these places are not dead.
    pub(super) fn live_proofs(&self, places: Range<u32>, now: u32) -> u64 {
        // One system call for each node slot, not for each proof.
        let mut timeouts = std::collections::HashMap::new();
        let proofs = places.map(|index| self.proofs.read(index)).filter(|proof| proof.node() != 0);
        let is_live = |proof: &Proof| {
            let of_slot = timeouts.entry(proof.node()).or_insert_with(|| self.timeouts_of(proof.node()));
            of_slot.is_some_and(|timeouts| !proof.is_expired(timeouts.0[proof.state() as usize], now))
        };
        proofs.filter(is_live).count() as u64
    }
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The maps that the owner of the data plane writes by system calls. (`NODES`, `NODE_LOADS` and `RINGS` are written
/// through [`Maps`].)
pub(super) struct Writer {
    pub(super) node_stats: PerCpuArray<MapData, NodeStats>,
    pub(super) node_names: Array<MapData, NodeNames>,
    pub(super) services: HashMap<MapData, ServiceKey, u32>,
    pub(super) services_epoch: Array<MapData, u64>,
    pub(super) port_ranges: HashMap<MapData, ServiceKey, PortRanges>,
    pub(super) virtual_servers: Array<MapData, VirtualServer>,
    pub(super) virtual_server_names: Array<MapData, Name>,
    pub(super) timeouts: Array<MapData, Timeouts>,
    pub(super) cursors: Array<MapData, Cursor>,
    pub(super) flood: PerCpuArray<MapData, FloodWindow>,
    pub(super) filter: Array<MapData, u64>,
    pub(super) vlans: Array<MapData, u64>,
    pub(super) reasons: PerCpuArray<MapData, Counter>,
    pub(super) interfaces: Array<MapData, Interface>,
    pub(super) devices: DevMapHash<MapData>,
}

impl Writer {
    /// As [`Maps::open`].
    pub(super) fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self {
            node_stats: typed(directory, "NODE_STATS")?,
            node_names: typed(directory, "NODE_NAMES")?,
            services: typed(directory, "SERVICES")?,
            services_epoch: typed(directory, "SERVICES_EPOCH")?,
            port_ranges: typed(directory, "PORT_RANGES")?,
            virtual_servers: typed(directory, "VIRTUAL_SERVERS")?,
            virtual_server_names: typed(directory, "VIRTUAL_SERVER_NAMES")?,
            timeouts: typed(directory, "TIMEOUTS")?,
            cursors: typed(directory, "CURSORS")?,
            flood: typed(directory, "FLOOD")?,
            filter: typed(directory, "FILTER")?,
            vlans: typed(directory, "VLANS")?,
            reasons: typed(directory, "REASONS")?,
            interfaces: typed(directory, "INTERFACES")?,
            devices: typed(directory, "DEVICES")?,
        })
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn open(directory: &Path, name: &'static str) -> Result<MapData, MapsError> {
    MapData::from_pin(directory.join(name)).map_err(|source| MapsError::Open { name, source })
}

pub(super) fn typed<M: TryFrom<Map, Error = MapError>>(directory: &Path, name: &'static str) -> Result<M, MapsError> {
    Map::from_map_data(open(directory, name)?).and_then(M::try_from).map_err(|source| MapsError::Open { name, source })
}

fn flow_table(directory: &Path, name: &'static str) -> Result<Table<FlowRecord>, MapsError> {
    table(directory, name, size_of::<Bucket>())
}

pub(super) fn table<T: super::table::Words>(
    directory: &Path,
    name: &'static str,
    value_size: usize,
) -> Result<Table<T>, MapsError> {
    let map = open(directory, name)?;
    let info = map.info().map_err(|source| MapsError::Open { name, source })?;
    let expected = MapError::InvalidValueSize { size: info.value_size() as usize, expected: value_size };
    if info.value_size() as usize != value_size {
        return Err(MapsError::Open { name, source: expected });
    }
    Table::map(map.fd(), info.value_size(), info.max_entries()).map_err(|source| MapsError::Mmap { name, source })
}
