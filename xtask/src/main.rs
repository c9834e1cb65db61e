//! `cargo xtask VERB`: the project's own commands, one verb a module.
//!
//! Builds without root and without the BPF tools, so that it can install them. Nothing else calls it but people, `.ci/run`
//! and its own tests.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line: what it prints is its result")]

mod bench;
mod build;
mod ci;
mod demo;
mod dist;
mod fuzz;
mod run;
mod setup;
mod test;
mod testssl;
mod tidy;
mod verify;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what building, testing and the demo need, after saying what and why.
    Setup,
    /// Set up what building needs, then build everything: XDP programs, daemon, command line, tests.
    Build(build::Options),
    /// Set up and build, then run the demonstration: real HTTP through DSR and NAT pools in network namespaces.
    Demo(Rest),
    /// Set up, then run every test there is; ARGS go to `cargo nextest run`.
    Test(Rest),
    /// Measure.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Load the programs on this kernel and on Debian 12's 6.1 kernel, and hold them to lb-ebpf/budget.txt.
    Verify(verify::Options),
    /// Make the packages that users install, .deb and .rpm, into target/dist.
    Dist(dist::Options),
    /// Feed the parsers what nobody thought of; needs nightly and cargo-fuzz.
    Fuzz(fuzz::Options),
    /// Look at TLS of an L7 virtual server with testssl.sh: clean but for what is explained. Takes a minute or two.
    Testssl,
    /// Check what lints cannot: module headers, import directions, file sizes.
    Tidy,
    /// Formatting, lints, tidy and tests.
    Ci,
}

/// Arguments that are passed on as they are.
#[derive(Debug, Args)]
struct Rest {
    /// Passed on.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Setup => setup::all(),
        Verb::Build(options) => build::run(&options),
        Verb::Demo(rest) => demo::run(&rest.args),
        Verb::Test(rest) => test::run(&rest.args),
        Verb::Bench { what } => bench::run(&what),
        Verb::Verify(options) => verify::run(&options),
        Verb::Dist(options) => dist::run(&options),
        Verb::Fuzz(options) => fuzz::run(&options),
        Verb::Testssl => testssl::run(),
        Verb::Tidy => tidy::run(),
        Verb::Ci => ci::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
