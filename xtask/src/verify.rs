//! `cargo xtask verify`: the programs load and decide a short set of verdicts on this kernel and on Debian 12's 6.1, the
//! oldest that is supported, and the verifier walks no more instructions than `lb-ebpf/budget.txt` allows.
//!
//! `lb-tests`' binary `verify-guest` does the loading; it needs root, a mounted BPF file system and nothing else, takes no
//! arguments, and prints what [`report`] reads.

mod budget;
mod guest;
mod initramfs;
mod report;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{run, setup};
use report::Report;

/// `verify`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write what was measured to lb-ebpf/budget.txt, with some room, instead of comparing.
    #[arg(long)]
    update: bool,
    /// Only on one kernel.
    #[arg(long, value_enum)]
    only: Option<Kernel>,
}

/// A kernel to load the programs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kernel {
    /// The one that runs.
    Here,
    /// Debian 12's 6.1, under qemu-system with software emulation.
    Debian,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::for_build()?;
    let wants = |kernel| options.only.is_none_or(|only| only == kernel);
    let program = build()?;
    let mut reports = Vec::new();
    if wants(Kernel::Here) {
        run::require_root("loading BPF programs", "verify")?;
        let text = run::output(&mut Command::new(&program)).context("on this kernel")?;
        reports.push((here()?, Report::parse(&text).context("on this kernel")?));
    }
    if wants(Kernel::Debian) {
        setup::for_verify()?;
        reports.push(guest::boot(&program)?);
    }
    for (kernel, report) in &reports {
        println!("Linux {kernel}: {report}");
    }
    hold_to_budget(&reports, options.update)
}

/// The program that is run on each kernel. It only loads the XDP programs, which are optimised in every build; without what
/// debuggers read it is small enough for an emulated machine.
fn build() -> Result<PathBuf> {
    run::run(run::cargo().args(["build", "--locked", "-p", "lb-tests", "--bin", "verify-guest"]))?;
    let program = run::target().join("verify-guest");
    run::output(run::command("strip").arg("-o").arg(&program).arg(run::target().join("debug/verify-guest")))?;
    Ok(program)
}

/// Release of the kernel that runs.
fn here() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    Ok(release.trim().to_owned())
}

fn hold_to_budget(reports: &[(String, Report)], update: bool) -> Result<()> {
    let file = run::root().join("lb-ebpf/budget.txt");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let mut budget = budget::Budget::parse(&text).with_context(|| format!("{}", file.display()))?;
    if update {
        for (kernel, report) in reports {
            budget.set(kernel, report);
        }
        fs::write(&file, budget.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        println!("verify: wrote {}", file.display());
        return Ok(());
    }
    let excesses: Vec<String> = reports.iter().flat_map(|(kernel, report)| budget.excesses(kernel, report)).collect();
    if !excesses.is_empty() {
        bail!("{}\nwhen that is meant: cargo xtask verify --update", excesses.join("\n"));
    }
    println!("verify: all programs load and stay within lb-ebpf/budget.txt");
    Ok(())
}
