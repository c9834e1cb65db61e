//! Packets per second through a veth pair on one core: generator, both ends' NAPI and the program together.
//!
//! The generator is `lb-bench` with live frames: sent out of one end, they arrive at the other, where the program under
//! test sends them back; an XDP program at the first end drops and counts them.

use std::{
    num::NonZeroU32,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use aya::programs::{Xdp, xdp::XdpMode};

use crate::{
    LARGE, cases,
    harness::{Harness, MEASURED, test_run_live},
    subject::Subject,
    system,
};

/// Frames of one measurement.
const FRAMES: u32 = 1 << 22;

struct Pair {
    here: String,
    there: String,
}

impl Pair {
    fn new() -> Result<Self> {
        let id = std::process::id() % 100_000;
        let pair = Self { here: format!("lbb{id}a"), there: format!("lbb{id}b") };
        system(&["ip", "link", "add", &pair.here, "type", "veth", "peer", "name", &pair.there])?;
        for end in [&pair.here, &pair.there] {
            system(&["ip", "link", "set", end, "up"])?;
        }
        Ok(pair)
    }

    fn index(&self, name: &str) -> Result<u32> {
        Ok(nix::net::if_::if_nametoindex(name)?)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = system(&["ip", "link", "del", &self.here]);
    }
}

/// Measures the program with 1 and 1 Mi flows, and the swap as a floor.
#[expect(clippy::print_stdout, reason = "it prints a table")]
pub(crate) fn report(object: &Path) -> Result<()> {
    println!("\nthrough veth, one core, generator included:");
    let pair = Pair::new()?;
    let there = pair.index(&pair.there)?;
    let directory = PathBuf::from(format!("/sys/fs/bpf/lb-bench-{}", std::process::id()));
    let mut subject = Subject::new(&directory.join("veth"), LARGE, there, None)?;
    for flows in [1, 1 << 16, 1 << 20] {
        let all = cases::all();
        let case = all
            .iter()
            .find(|case| case.name == "tcp4_established" && case.flows == flows)
            .context("the case exists")?;
        crate::fill(object, &mut subject, std::slice::from_ref(case))?;
        let mpps = rate(object, &pair, case, Some(&mut subject))?;
        println!("  tcp4_established, {flows:>7} flows: {mpps:>6.2} Mpps");
    }
    let all = cases::all();
    let mpps = rate(object, &pair, &all[0], None)?;
    println!("  floor: swap MACs and TX:         {mpps:>6.2} Mpps");
    Ok(())
}

fn rate(object: &Path, pair: &Pair, case: &cases::Case, subject: Option<&mut Subject>) -> Result<f64> {
    let image = std::fs::read(object)?;
    let mut ends = aya::Ebpf::load(&image)?;
    let drop: &mut Xdp = ends.program_mut("lb_bench_drop").context("program lb_bench_drop")?.try_into()?;
    drop.load()?;
    drop.attach(&pair.here, XdpMode::Driver)?;
    let _attached = match subject {
        Some(subject) => Some(subject.attach(&pair.there)?),
        None => {
            let swap: &mut Xdp = ends.program_mut("lb_bench_swap").context("program lb_bench_swap")?.try_into()?;
            swap.load()?;
            swap.attach(&pair.there, XdpMode::Driver)?;
            None
        }
    };
    let mut generator = Harness::new(object, &case.packet, case.flows, MEASURED, FRAMES)?;
    let send = generator.own("lb_bench_send")?;
    generator.set_subject(&send)?;
    let before = received(&pair.here)?;
    let start = Instant::now();
    generator.run_live(FRAMES, pair.index(&pair.here)?)?;
    let seconds = start.elapsed().as_secs_f64();
    let back = received(&pair.here)? - before;
    ensure!(back > u64::from(FRAMES) / 2, "only {back} of {FRAMES} frames came back");
    Ok(back as f64 / seconds / 1e6)
}

/// Frames that an interface's XDP program saw.
fn received(name: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{name}/statistics/rx_packets");
    Ok(std::fs::read_to_string(&path).with_context(|| path)?.trim().parse()?)
}

impl Harness {
    /// Sends `frames` out of `ifindex`.
    pub(crate) fn run_live(&mut self, frames: u32, ifindex: u32) -> Result<()> {
        self.reset(u64::from(frames))?;
        let (program, packet) = self.program_and_packet()?;
        let frames = NonZeroU32::new(frames).context("frames: at least one")?;
        test_run_live(program.as_fd(), &packet, frames, ifindex)?;
        Ok(())
    }
}
