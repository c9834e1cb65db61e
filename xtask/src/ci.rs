//! `cargo xtask ci`: what must hold of every commit: formatting, lints, tidy, tests.

use anyhow::Result;

use crate::{run, setup, test, tidy};

pub(crate) fn run() -> Result<()> {
    run::run(run::cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    setup::for_build()?;
    lint()?;
    test::run(&[])
}

fn lint() -> Result<()> {
    let deny = ["--", "-D", "warnings"];
    run::run(run::cargo().args(["clippy", "--locked", "--workspace", "--all-targets"]).args(deny))?;
    // Again for its own target: on the host lb-ebpf is an empty program.
    let mut bpf = run::cargo();
    bpf.args(["clippy", "--locked", "-p", "lb-ebpf", "--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    bpf.env("RUSTC_BOOTSTRAP", "1");
    if let Some(rustc) = setup::bpf_rustc() {
        bpf.env("RUSTC", rustc);
    }
    run::run(bpf.args(deny))
}
