//! Times one program on one packet: the object `lb-bench` restores the packet and varies the flow for every pass, then
//! tail-calls the subject.

use std::{
    fs,
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ProgramArray},
    programs::{ProgramFd, Xdp},
};

/// Order in which flows come when they are measured; tables are filled in another, or elements would lie in memory as they
/// are met and the prefetcher would hide the misses.
pub(crate) const MEASURED: u64 = 0x9e37_79b1;
pub(crate) const FILLED: u64 = 0x85eb_ca6b;

const STAMPS: usize = 128;
const STATE_WORDS: usize = 3 + STAMPS;

/// A packet, and where its flow's number goes.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    /// Offset in the frame of the 16-bit field that takes the low bits.
    pub(crate) port_at: usize,
    /// Offset of the 4 bytes that take the high bits.
    pub(crate) address_at: usize,
}

/// `lb-bench` with one template.
pub(crate) struct Harness {
    object: Ebpf,
    subject: ProgramArray<aya::maps::MapData>,
    bytes: Vec<u8>,
    repeat: u32,
}

impl Harness {
    /// Loads it. `repeat`: iterations of a run, which decides how often the time is taken.
    pub(crate) fn new(object: &Path, template: &Template, flows: u64, step: u64, repeat: u32) -> Result<Self> {
        ensure!(
            flows.is_power_of_two() && template.bytes.len() >= 78,
            "flows: a power of two; packet: 78 bytes or more"
        );
        let image =
            fs::read(object).with_context(|| format!("reading {}: build lb-userspace first", object.display()))?;
        let b = &template.bytes;
        let word = |at: usize| {
            u64::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6], b[at + 7]])
        };
        let half = |at: usize| u32::from(u16::from_ne_bytes([b[at], b[at + 1]]));
        let full = |at: usize| u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let ethernet = [full(0), half(4), full(6), half(10), half(12)];
        let header: [u64; 8] = std::array::from_fn(|i| word(14 + 8 * i));
        let place = |at: usize| [(at as u32 - 14) / 8, (at as u32 - 14) % 8 * 8];
        let (port, address) = (place(template.port_at), place(template.address_at));
        let (mask, length) = (flows - 1, b.len() as u32);
        let segment = repeat.div_ceil(STAMPS as u32).next_power_of_two().trailing_zeros();
        let mut object = EbpfLoader::new()
            .override_global("ETHERNET", &ethernet, true)
            .override_global("HEADER", &header, true)
            .override_global("LENGTH", &length, true)
            .override_global("FLOW_MASK", &mask, true)
            .override_global("FLOW_STEP", &step, true)
            .override_global("PORT", &port, true)
            .override_global("ADDRESS", &address, true)
            .override_global("SEGMENT", &segment, true)
            .load(&image)?;
        for name in ["lb_bench", "lb_bench_pass", "lb_bench_swap", "lb_bench_send"] {
            program(&mut object, name)?.load()?;
        }
        let subject = ProgramArray::try_from(object.take_map("SUBJECT").context("map SUBJECT")?)?;
        Ok(Self { object, subject, bytes: template.bytes.clone(), repeat })
    }

    /// The program that every iteration ends in.
    pub(crate) fn set_subject(&mut self, subject: &ProgramFd) -> Result<()> {
        Ok(self.subject.set(0, subject, 0)?)
    }

    /// The trivial subject, whose time is subtracted, and the swapping one, a floor.
    pub(crate) fn own(&mut self, name: &str) -> Result<ProgramFd> {
        Ok(program(&mut self.object, name)?.fd()?.try_clone()?)
    }

    /// Runs `repeat` iterations from flow number `first` of the order. Returns nanoseconds per iteration (the median of the
    /// stamped segments) and the last return code.
    pub(crate) fn run(&mut self, first: u64, repeat: u32) -> Result<(f64, u32)> {
        self.reset_from(first, u64::from(repeat))?;
        let code = test_run(program(&mut self.object, "lb_bench")?.fd()?.as_fd(), &self.bytes, repeat)?;
        let state = self.state()?.get(&0, 0)?;
        ensure!(state[2] == 0, "the harness failed {} times", state[2]);
        Ok((median_segment(&state[3..], self.repeat, repeat), code))
    }

    pub(crate) fn reset(&mut self, repeat: u64) -> Result<()> {
        self.reset_from(0, repeat)
    }

    fn reset_from(&mut self, first: u64, repeat: u64) -> Result<()> {
        let mut state = [0; STATE_WORDS];
        (state[0], state[1]) = (first, repeat);
        Ok(self.state()?.set(0, state, 0)?)
    }

    pub(crate) fn program_and_packet(&mut self) -> Result<(ProgramFd, Vec<u8>)> {
        Ok((program(&mut self.object, "lb_bench")?.fd()?.try_clone()?, self.bytes.clone()))
    }

    fn state(&mut self) -> Result<Array<&mut aya::maps::MapData, [u64; STATE_WORDS]>> {
        Ok(Array::try_from(self.object.map_mut("STATE").context("map STATE")?)?)
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// Stamp `i` was taken when `i << segment` iterations were left: descending in time.
fn median_segment(stamps: &[u64], planned: u32, repeat: u32) -> f64 {
    if repeat < planned {
        return 0.0;
    }
    let length = f64::from(planned.div_ceil(STAMPS as u32).next_power_of_two());
    let mut segments: Vec<f64> = stamps
        .windows(2)
        .filter(|pair| pair[0] != 0 && pair[1] != 0 && pair[0] > pair[1])
        .map(|pair| (pair[0] - pair[1]) as f64 / length)
        .collect();
    median(&mut segments)
}

/// The middle value; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// `BPF_PROG_TEST_RUN`; the return code.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> Result<u32> {
    run_with(program, packet, repeat, None)
}

/// The same with live frames, sent as the program's return code says, as if received by `ifindex`.
pub(crate) fn test_run_live(program: BorrowedFd<'_>, packet: &[u8], repeat: NonZeroU32, ifindex: u32) -> Result<u32> {
    run_with(program, packet, repeat.get(), Some(ifindex))
}

/// The part of `union bpf_attr` that `BPF_PROG_TEST_RUN` reads (Linux 5.18, include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

fn run_with(program: BorrowedFd<'_>, packet: &[u8], repeat: u32, live: Option<u32>) -> Result<u32> {
    let context =
        XdpMd { data_end: packet.len() as u32, ingress_ifindex: live.unwrap_or_default(), ..XdpMd::default() };
    let mut attributes = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    if live.is_some() {
        attributes.ctx_size_in = size_of::<XdpMd>() as u32;
        attributes.ctx_in = (&raw const context) as u64;
        attributes.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
        attributes.batch_size = 64;
    }
    // SAFETY: the attributes and what they point to live through the call; the size is theirs.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<TestRun>() as libc::c_long)
    };
    if result < 0 {
        bail!("BPF_PROG_TEST_RUN: {}", std::io::Error::last_os_error());
    }
    Ok(attributes.retval)
}
