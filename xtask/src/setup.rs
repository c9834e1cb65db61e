//! `cargo xtask setup`: finds what building, testing and the demonstration need, and installs what is missing, after saying
//! what and why. Where it cannot (no root, no apt-get, no network) it prints the exact missing step and fails.
//!
//! When nothing is missing it changes nothing and takes well under a second, so every verb that needs something calls it
//! first. It never removes or upgrades what it was not asked for, and starts no service.

mod apt;
mod need;
mod rust;

use std::{fs, process::Command};

use anyhow::{Result, bail};

pub(crate) use rust::bpf_rustc;

use crate::run;

/// Everything that any verb but `verify` needs.
pub(crate) fn all() -> Result<()> {
    for_build()?;
    for_tests()?;
    println!("setup: nothing is missing");
    Ok(())
}

/// The BPF toolchain.
pub(crate) fn for_build() -> Result<()> {
    rust::source()?;
    rust::bpf_linker()
}

/// The test runner, the programs that tests and the demonstration call, and the BPF file system.
pub(crate) fn for_tests() -> Result<()> {
    rust::formatter()?;
    rust::nextest()?;
    apt::provide(&need::TEST)?;
    mount_bpffs()
}

/// The peers and load generators of `bench l7`. Their packages start services where systemd runs; the benchmark needs none.
pub(crate) fn for_bench_l7() -> Result<()> {
    apt::provide(&need::BENCH_L7)
}

/// What looks at TLS, and what it looks at.
pub(crate) fn for_testssl() -> Result<()> {
    apt::provide(&need::TESTSSL)
}

/// The tools that make packages.
pub(crate) fn for_dist() -> Result<()> {
    for_build()?;
    apt::provide(&need::DIST)?;
    rust::packagers()
}

/// What a clean Debian is made with, and run.
pub(crate) fn for_walk() -> Result<()> {
    for_tests()?;
    apt::provide(&need::WALK)
}

/// The emulator that boots another kernel.
pub(crate) fn for_verify() -> Result<()> {
    apt::provide(&need::VERIFY)
}

/// Debian's packages, for what is downloaded but not installed.
pub(crate) fn download(packages: &[&str], folder: &std::path::Path) -> Result<()> {
    apt::download(packages, folder)
}

/// The BPF file system, where lbd pins its maps and programs.
fn mount_bpffs() -> Result<()> {
    const FOLDER: &str = "/sys/fs/bpf";
    let is_mounted = |mounts: &str| mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq([FOLDER, "bpf"]));
    if is_mounted(&fs::read_to_string("/proc/mounts").unwrap_or_default()) {
        return Ok(());
    }
    if !run::is_root() {
        bail!("the BPF file system is not mounted\nrun: sudo mount -t bpf bpf {FOLDER}");
    }
    eprintln!("setup: mounting the BPF file system on {FOLDER} (lbd pins its maps there)");
    run::run_aside(Command::new("mount").args(["-t", "bpf", "bpf", FOLDER]))
}
