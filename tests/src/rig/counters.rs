//! Reads the reason counters of one interface by a single system call (`BPF_MAP_LOOKUP_BATCH` on a per-CPU array, Linux 5.13):
//! fast enough to be done for each of a million packets.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result, bail};
use aya::maps::MapData;
use lb_common::reason::{Counter, REASON_SLOTS, Reason};

/// The command of bpf(2).
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `union bpf_attr`, the part of batches.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `REASONS`, and memory for what it holds.
#[derive(Debug)]
pub(super) struct Counters {
    map: MapData,
    /// First element; the batch begins after the key before.
    first: u32,
    keys: Vec<u32>,
    values: Vec<Counter>,
    cpus: usize,
}

impl Counters {
    pub(super) fn new(map: MapData, interface: u32) -> Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("counting CPUs")?;
        let reasons = Reason::ALL.len();
        Ok(Self {
            map,
            first: interface * REASON_SLOTS,
            keys: vec![0; reasons],
            values: vec![Counter::default(); reasons * cpus],
            cpus,
        })
    }

    /// All counters by the reasons' numbers, summed over the CPUs.
    pub(super) fn read(&mut self) -> Result<Vec<Counter>> {
        let before = self.first.checked_sub(1).context("the rig's interface has no slot 0")?;
        let mut next = 0u32;
        let mut batch = Batch {
            in_batch: (&raw const before) as u64,
            out_batch: (&raw mut next) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.keys.len() as u32,
            map_fd: self.map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes `count` keys of four bytes and `count` values of 16 bytes for each possible CPU, which the
        // vectors hold; all pointers live through the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
        if result != 0 {
            return Err(io::Error::last_os_error()).context("reading the counters");
        }
        if self.keys.first() != Some(&self.first) || batch.count as usize != self.keys.len() {
            bail!("the kernel gave {} counters from {:?}", batch.count, self.keys.first());
        }
        let sum = |values: &[Counter]| {
            values.iter().fold(Counter::default(), |sum, value| Counter {
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            })
        };
        Ok(self.values.chunks(self.cpus).map(sum).collect())
    }
}
