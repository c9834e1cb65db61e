//! `cargo xtask ci`: what must hold of every commit: formatting, lints, tidy, tests; and of its dependencies, where cargo-deny
//! is installed (`cargo install cargo-deny --locked`).

use anyhow::Result;

use crate::{run, setup, test, tidy};

pub(crate) fn run() -> Result<()> {
    run::run(run::cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    dependencies()?;
    setup::for_build()?;
    lint()?;
    test::run(&[])
}

/// Licences, sources and bans of `deny.toml`. Not the advisories: their database is on the network, which a build may lack.
fn dependencies() -> Result<()> {
    if run::cargo().args(["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return run::run(run::cargo().args(["deny", "--locked", "check", "bans", "licenses", "sources"]));
    }
    println!("ci: cargo-deny is not installed: dependencies are not checked against deny.toml");
    Ok(())
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
