//! `cargo xtask fuzz`: the targets of `fuzz/`, each for some seconds. Needs a nightly toolchain and cargo-fuzz.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::run;

/// Every target, by the name of its file in `fuzz/fuzz_targets`.
const TARGETS: [&str; 6] = ["h1", "http2", "path", "proxy_protocol", "client_hello", "rules"];

/// What is fuzzed, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One target; without it, each of them.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    check_tools()?;
    for target in TARGETS.iter().filter(|target| options.target.as_deref().is_none_or(|only| only == **target)) {
        // What a run finds is kept beside the build, not among the seeds in the repository.
        let found = run::target().join("fuzz-corpus").join(target);
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut fuzz = Command::new("rustup");
        fuzz.current_dir(run::root()).args(["run", "nightly", "cargo", "fuzz", "run", target]);
        fuzz.arg(found).arg(format!("fuzz/corpus/{target}"));
        fuzz.args(["--", "-max_len=4096", "-timeout=10"]).arg(format!("-max_total_time={}", options.seconds));
        run::run(&mut fuzz)?;
    }
    Ok(())
}

/// Says what to install, rather than let cargo say that it knows no such command.
fn check_tools() -> Result<()> {
    if run::find("rustup").is_none() {
        bail!("fuzzing needs a nightly toolchain by rustup, and there is no rustup\nsee https://rustup.rs");
    }
    let works = |args: &[&str]| Command::new("rustup").args(args).output().is_ok_and(|output| output.status.success());
    if !works(&["run", "nightly", "rustc", "--version"]) {
        bail!("fuzzing needs a nightly toolchain\nrun: rustup toolchain install nightly");
    }
    if !works(&["run", "nightly", "cargo", "fuzz", "--version"]) {
        bail!("fuzzing needs cargo-fuzz\nrun: cargo install --locked cargo-fuzz");
    }
    Ok(())
}
