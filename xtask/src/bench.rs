//! `cargo xtask bench`: measurements, always of optimised programs.

use std::ffi::OsString;

use anyhow::Result;

use crate::{run, setup};

/// What is measured.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// Nanoseconds per packet of the XDP programs, and packets per second through veth. ARGS as `--json`, `--only NAME`,
    /// `--capture nothing|everything` (what it costs while somebody captures) are passed on.
    Datapath(crate::Rest),
    /// How long a client waits while a VIP moves, and that nothing moves it under attack, beside Debian's keepalived and ucarp.
    /// ARGS as `--json`, `--only CASE`, `--daemon NAME`, `--runs N`, `--seconds S`.
    Failover(crate::Rest),
    /// How long `lbctl`, one node's change and a scrape take at 1,000 virtual servers and 10,000 nodes. ARGS as `--json`, `--runs N`.
    Admin(crate::Rest),
    /// Nanoseconds per head of the HTTP/1.1 codec.
    Codec,
    /// Requests per CPU-second of the L7 proxy beside Debian's haproxy and nginx. ARGS as `--json`, `--only CASE`, `--quick`; or
    /// one of `--idle` (memory of idle connections), `--flood` (of handshakes) and `--slow` (1,000 slow clients beside good ones).
    L7(crate::Rest),
}

pub(crate) fn run(what: &What) -> Result<()> {
    match what {
        What::Datapath(rest) => datapath(&rest.args),
        What::Failover(rest) => failover(&rest.args),
        What::Admin(rest) => admin(&rest.args),
        What::Codec => codec(),
        What::L7(rest) => l7(&rest.args),
    }
}

fn datapath(args: &[OsString]) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    run::require_root("measuring the data path", "bench datapath")?;
    run::run(run::cargo().args(["build", "--locked", "--release", "-p", "lb-tests", "--bin", "bench-datapath"]))?;
    run::run(run::built("release", "bench-datapath").args(args))
}

fn failover(args: &[OsString]) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    run::require_root("measuring failover", "bench failover")?;
    beside_lbd("bench-failover", args)
}

fn admin(args: &[OsString]) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    run::require_root("measuring the admin API", "bench admin")?;
    beside_lbd("bench-admin", args)
}

/// Runs a measurement that starts lbd.
fn beside_lbd(bench: &str, args: &[OsString]) -> Result<()> {
    let programs = ["build", "--locked", "--release", "-p", "lb-userspace", "--bins"];
    run::run(run::cargo().args(programs))?;
    run::run(run::cargo().args(["build", "--locked", "--release", "-p", "lb-tests", "--bin", bench]))?;
    run::run(run::built("release", bench).args(args))
}

fn codec() -> Result<()> {
    setup::for_build()?;
    run::run(run::cargo().args(["bench", "--locked", "-p", "lb-userspace", "--bench", "codec"]))
}

fn l7(args: &[OsString]) -> Result<()> {
    setup::for_build()?;
    setup::for_bench_l7()?;
    run::run_aside(run::cargo().args(["build", "--locked", "--release", "-p", "lb-tests", "--bin", "bench-l7"]))?;
    run::run(run::built("release", "bench-l7").args(args))
}
