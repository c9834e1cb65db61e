//! `cargo xtask fuzz`: the targets of `fuzz/`, each for some seconds. Needs a nightly toolchain and cargo-fuzz. `fuzz api` sends what
//! the OpenAPI document allows, and what it does not, to a real lbd, as each role; needs root.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::{run, setup};

/// Every target, by the name of its file in `fuzz/fuzz_targets`.
const TARGETS: [&str; 10] =
    ["h1", "http2", "path", "proxy_protocol", "client_hello", "rules", "heartbeat", "advertisement", "bgp", "share"];

/// The target that is no parser.
const API: &str = "api";

/// What reads an OpenAPI document and makes requests of it (PyPI).
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// What is fuzzed, and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One parser, or `api`; without it, each of the parsers.
    #[arg(value_parser = PossibleValuesParser::new(TARGETS.into_iter().chain([API])))]
    target: Option<String>,
    /// Seconds for each target; of `api`, for each role.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.target.as_deref() == Some(API) {
        return api(options.seconds);
    }
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

/// The admin API, as each role.
fn api(seconds: u32) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    run::require_root("fuzzing the admin API", "fuzz api")?;
    let folder = run::tools().join("schemathesis");
    let program = folder.join("bin/schemathesis");
    let wanted = SCHEMATHESIS.replace("==", ", version ");
    if !run::output(Command::new(&program).arg("--version")).is_ok_and(|text| text.trim() == wanted) {
        eprintln!("setup: installing {SCHEMATHESIS} into {}", folder.display());
        run::run_aside(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run::run_aside(Command::new(folder.join("bin/pip")).args(["install", "--quiet", SCHEMATHESIS]))?;
    }
    run::run(run::cargo().args(["build", "--locked", "-p", "lb-userspace", "--bins"]))?;
    run::run(run::cargo().args(["build", "--locked", "-p", "lb-tests", "--bin", "fuzz-api"]))?;
    run::run(run::built("debug", "fuzz-api").arg(program).arg(seconds.to_string()))
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
