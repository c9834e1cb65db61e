//! The XDP program in a bench vice: loaded with maps of its own, never attached, run packet by packet through
//! `BPF_PROG_TEST_RUN`. Verdict tests depend on nothing but maps and program: no interface, no daemon.

pub mod capture;
mod counters;
mod pair;
pub mod tables;
pub mod world;
mod write;

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions, VerifierLogLevel,
    maps::{Array, Map, MapData, PerCpuArray, PerCpuValues},
    programs::Xdp,
};
use lb_common::{
    capture::{Control, map},
    digest::{Digest, DigestLine},
    flow::{Control as FlowControl, FlowKey, FlowRecord, HashKeys},
    maps::global,
    node::{NodeLoad, NodeStats},
    proof::{Proof, ProofSet},
    reason::{Counter, Reason},
};

use lb::dataplane::{
    clock,
    load::{capture_object, object},
    table::Table,
};
pub use pair::Ran;
use world::{IFINDEX, SLOT, World};

/// XDP's answers.
pub mod action {
    /// Drop.
    pub const DROP: u32 = 1;
    /// To the host's stack.
    pub const PASS: u32 = 2;
    /// Back out of the interface.
    pub const TX: u32 = 3;
    /// Out of another interface.
    pub const REDIRECT: u32 = 4;

    /// As people say it.
    #[must_use]
    pub fn name(action: u32) -> &'static str {
        match action {
            DROP => "DROP",
            PASS => "PASS",
            TX => "TX",
            REDIRECT => "REDIRECT",
            _ => "?",
        }
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `action::*`.
    pub action: u32,
    /// The counter that went up.
    pub reason: Reason,
    /// The frame as the program left it.
    pub bytes: Vec<u8>,
}

/// Sizes of the flow tables in buckets of four, powers of two.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `FLOWS`.
    pub flows: u32,
    /// `PENDING`.
    pub pending: u32,
    /// `AFFINITY`.
    pub affinity: u32,
    /// `FRAGMENTS`.
    pub fragments: u32,
}

impl Sizes {
    /// All alike.
    #[must_use]
    pub fn all(buckets: u32) -> Self {
        Self { flows: buckets, pending: buckets, affinity: buckets, fragments: buckets }
    }
}

/// The hash secret of the rig's flow tables.
pub const TABLE_KEYS: HashKeys = HashKeys([11, 22, 33, 44, 55, 66, 77, 88, 99, 1010]);

/// The loaded program with its maps.
pub struct Rig {
    program: &'static str,
    ebpf: Ebpf,
    writer: write::Writer,
    reasons: counters::Counters,
    counted: Vec<Counter>,
    node_stats: PerCpuArray<MapData, NodeStats>,
    /// Connections of node slots.
    pub loads: Table<NodeLoad>,
    /// Tracked connections.
    pub flows: Table<FlowRecord>,
    /// Their digests.
    pub digests: Table<Digest>,
    /// Half-open connections.
    pub pending: Table<FlowRecord>,
    /// Half-open DSR connections over TCP.
    pub proofs: Table<Proof>,
    /// Clients' nodes.
    pub affinity: Table<FlowRecord>,
    /// Fragmented datagrams.
    pub fragments: Table<FlowRecord>,
    /// What it is configured with.
    pub world: World,
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rig").field("world", &self.world).finish_non_exhaustive()
    }
}

impl Rig {
    /// Loads the program with tables of 64 buckets and configures it.
    ///
    /// # Errors
    /// What the kernel says: tests need root.
    pub fn new(world: World) -> Result<Self> {
        Self::with(world, Sizes::all(64))
    }

    /// The same with other table sizes.
    ///
    /// # Errors
    /// As [`Rig::new`].
    pub fn with(world: World, sizes: Sizes) -> Result<Self> {
        Self::of(FORWARDING, world, sizes)
    }

    /// The same with the program that captures, which tells what `control` asks for.
    ///
    /// # Errors
    /// As [`Rig::new`].
    pub fn capturing(world: World, sizes: Sizes, control: Control) -> Result<(Self, capture::Tap)> {
        let mut rig = Self::of(CAPTURING, world, sizes)?;
        let tap = capture::Tap::open(&mut rig.ebpf, control)?;
        Ok((rig, tap))
    }

    fn of(program: &'static str, world: World, sizes: Sizes) -> Result<Self> {
        let mut ebpf = load(program, sizes)?;
        let mut rig = Self {
            program,
            reasons: counters::Counters::new(reasons(&mut ebpf)?, SLOT)?,
            counted: vec![Counter::default(); Reason::ALL.len()],
            node_stats: take(&mut ebpf, "NODE_STATS")?.try_into()?,
            loads: map(&mut ebpf, "NODE_LOADS", size_of::<NodeLoad>())?,
            flows: flow_table(&mut ebpf, "FLOWS")?,
            digests: map(&mut ebpf, "DIGESTS", size_of::<DigestLine>())?,
            pending: flow_table(&mut ebpf, "PENDING")?,
            proofs: map(&mut ebpf, "PROOFS", size_of::<ProofSet>())?,
            affinity: flow_table(&mut ebpf, "AFFINITY")?,
            fragments: flow_table(&mut ebpf, "FRAGMENTS")?,
            writer: write::Writer::new(&mut ebpf)?,
            world: World::default(),
            ebpf,
        };
        rig.configure(world)?;
        Ok(rig)
    }

    /// Replaces the configuration; connections stay.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn configure(&mut self, world: World) -> Result<()> {
        self.writer.write(&self.world, &world)?;
        for (slot, node) in &world.nodes {
            self.loads.set_weight(u32::from(*slot), u64::from(node.weight));
        }
        self.world = world;
        Ok(())
    }

    /// Lets the forwarding lease end in that jiffy (0: never), for these VIPs and those that were named before.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lease(&mut self, until: u64, vips: &[IpAddr]) -> Result<()> {
        self.writer.lease(until, vips)
    }

    /// Changes the configuration.
    ///
    /// # Errors
    /// As [`Rig::configure`].
    pub fn change(&mut self, edit: impl FnOnce(&mut World)) -> Result<()> {
        let mut world = self.world.clone();
        edit(&mut world);
        self.configure(world)
    }

    /// The program.
    ///
    /// # Errors
    /// Never: it was loaded.
    pub fn program(&self) -> Result<&Xdp> {
        Ok(self.ebpf.program(self.program).context("the object has the program")?.try_into()?)
    }

    /// Runs the program on a frame, without looking at counters. Returns the action and fills `out` with the frame.
    ///
    /// # Errors
    /// What the kernel says; `EINVAL` for frames below 14 bytes.
    pub fn test_run(&self, frame: &[u8], out: &mut Vec<u8>) -> Result<u32> {
        // A frame grows by a tag, or by the headers of an ICMP error.
        out.clear();
        out.resize(frame.len() + 48, 0);
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(out), ..TestRunOptions::new() };
        let result = self.program()?.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok(result.return_value)
    }

    /// Runs the program on a frame and says which counter went up.
    ///
    /// # Errors
    /// When not exactly one counter went up by one packet.
    pub fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        let mut bytes = Vec::new();
        let action = self.test_run(frame, &mut bytes)?;
        Ok(Outcome { action, reason: self.raised()?, bytes })
    }

    /// The one counter that went up since the last packet.
    fn raised(&mut self) -> Result<Reason> {
        let before = std::mem::take(&mut self.counted);
        self.counted = self.reasons.read()?;
        let differs = |reason: &Reason| before[*reason as usize] != self.counted[*reason as usize];
        let raised: Vec<Reason> = Reason::ALL.iter().copied().filter(differs).collect();
        let [reason] = raised[..] else { bail!("not exactly one counter went up: {raised:?}") };
        let (old, new) = (before[reason as usize], self.counted[reason as usize]);
        if new.packets != old.packets + 1 || new.bytes < old.bytes + 14 {
            bail!("{} went from {old:?} to {new:?}", reason.name());
        }
        Ok(reason)
    }

    /// Starts to look at counters here: packets were run without it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn skip_counters(&mut self) -> Result<()> {
        self.counted = self.reasons.read()?;
        Ok(())
    }

    /// Packets and bytes of a reason so far.
    #[must_use]
    pub fn counter(&self, reason: Reason) -> Counter {
        self.counted[reason as usize]
    }

    /// Traffic of a node slot.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stats(&self, slot: u16) -> Result<NodeStats> {
        let values = self.node_stats.get(&u32::from(slot), 0)?;
        Ok(values.iter().fold(NodeStats::default(), |sum, value| NodeStats {
            packets: sum.packets + value.packets,
            bytes: sum.bytes + value.bytes,
            reply_packets: sum.reply_packets + value.reply_packets,
            reply_bytes: sum.reply_bytes + value.reply_bytes,
            connections: sum.connections + value.connections,
            rescheduled: sum.rescheduled + value.rescheduled,
            evicted: sum.evicted + value.evicted,
        }))
    }

    /// Forgets all connections and what was counted of them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget(&mut self) -> Result<()> {
        let nothing = vec![NodeStats::default(); aya::util::nr_cpus().map_err(|(_, error)| error)?];
        for slot in self.world.nodes.keys() {
            self.node_stats.set(u32::from(*slot), PerCpuValues::try_from(nothing.clone())?, 0)?;
        }
        self.forget_connections()
    }

    /// What is known of a half-open flow: its record in `PENDING`, or what its proof says, as such a record.
    #[must_use]
    pub fn half_open(&self, key: &FlowKey) -> Option<FlowRecord> {
        if let Some((_, record)) = tables::find(&self.pending, key) {
            return Some(record);
        }
        let (_, proof) = tables::find_proof(&self.proofs, key)?;
        let now = clock::now();
        let seen = now.wrapping_sub(proof.age(now).into());
        // A proof has four bits of the generation; the rest is as its node's, or of nobody's.
        let generation = self.world.nodes.get(&proof.node()).map_or(u16::MAX, |node| node.generation);
        let generation = if proof.is_generation(generation) { generation } else { u16::MAX };
        let state = proof.state() as u8;
        let server = self.world.servers.iter().find(|server| server.id == world::server_of(proof.node()))?;
        Some(FlowRecord {
            key: *key,
            control: FlowControl { seen, state, flags: 0, generation },
            node: proof.node(),
            virtual_server: server.id,
            nat_port: key.source_port().to_be(),
            timeout: server.timeouts.0[usize::from(state)],
            peer: 0,
            created: seen,
        })
    }

    /// Takes the freshness of all digests away, as whoever changes a record does.
    pub fn doubt(&self) {
        for index in 0..self.digests.len() {
            self.digests.doubt(index);
        }
    }

    /// Forgets all connections.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_connections(&mut self) -> Result<()> {
        self.doubt();
        for table in [&self.flows, &self.pending, &self.affinity, &self.fragments] {
            tables::clear(table);
        }
        for index in 0..self.proofs.len() {
            self.proofs.write(index, &Proof::default());
        }
        for slot in self.world.nodes.keys() {
            self.loads.store(u32::from(*slot), 0, 0);
            self.loads.store(u32::from(*slot), 1, 0);
        }
        self.writer.reset_cursors(&self.world)
    }
}

/// The program that forwards.
pub const FORWARDING: &str = "lb_ingress";
/// The program that captures.
pub const CAPTURING: &str = "lb_capture";

fn load(program: &str, sizes: Sizes) -> Result<Ebpf> {
    let object = if program == CAPTURING { capture_object() } else { object() };
    let mut loader = EbpfLoader::new();
    loader.btf(None).verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS);
    for (name, buckets) in [
        ("FLOWS", sizes.flows),
        ("DIGESTS", sizes.flows),
        ("PENDING", sizes.pending),
        ("PROOFS", sizes.pending),
        ("AFFINITY", sizes.affinity),
        ("FRAGMENTS", sizes.fragments),
    ] {
        loader.map_max_entries(name, buckets);
    }
    // A few rings.
    loader.map_max_entries("RINGS", write::RING_ELEMENTS);
    let masks = [sizes.flows - 1, sizes.pending - 1, sizes.affinity - 1, sizes.fragments - 1];
    let names = [global::FLOW_MASK, global::PENDING_MASK, global::AFFINITY_MASK, global::FRAGMENT_MASK];
    for (name, mask) in names.into_iter().zip(&masks) {
        loader.override_global(name, mask, true);
    }
    loader.override_global(global::IFINDEX, &IFINDEX, true);
    loader.override_global(global::INTERFACE, &SLOT, true);
    loader.override_global(global::EXPLAIN, &0u32, true);
    loader.override_global(global::TABLE_KEYS, &TABLE_KEYS.0, true);
    let (jiffy, epoch) = clock::jiffies();
    loader.override_global(global::JIFFY_NS, &jiffy, true);
    loader.override_global(global::JIFFIES_EPOCH, &epoch, true);
    if program == CAPTURING {
        loader.map_max_entries(map::CAPTURED, capture::RING);
    }
    let mut ebpf = loader.load(object).context("creating the maps (root is needed)")?;
    let program: &mut Xdp = ebpf.program_mut(program).context("the object has the program")?.try_into()?;
    program.load().context("loading the program")?;
    Ok(ebpf)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))
}

fn reasons(ebpf: &mut Ebpf) -> Result<MapData> {
    let Map::PerCpuArray(data) = take(ebpf, "REASONS")? else { bail!("REASONS is no per-CPU array") };
    Ok(data)
}

fn flow_table(ebpf: &mut Ebpf, name: &str) -> Result<Table<FlowRecord>> {
    map(ebpf, name, 4 * size_of::<FlowRecord>())
}

fn map<T: lb::dataplane::table::Words>(ebpf: &mut Ebpf, name: &str, value_size: usize) -> Result<Table<T>> {
    let Map::Array(data) = take(ebpf, name)? else { bail!("{name} is no array") };
    let entries = data.info()?.max_entries();
    Table::map(data.fd(), value_size as u32, entries).with_context(|| format!("mapping {name}"))
}

/// An array by name.
fn array<V: aya::Pod>(ebpf: &mut Ebpf, name: &str) -> Result<Array<MapData, V>> {
    Ok(take(ebpf, name)?.try_into()?)
}
