//! `cargo xtask test`: sets up, then runs every test of the workspace under nextest (`.config/nextest.toml`).

use std::ffi::OsString;

use anyhow::Result;

use crate::{run, setup};

pub(crate) fn run(args: &[OsString]) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    run::require_root("testing", "test")?;
    // lbd and lbctl are programs that tests of another package start, so cargo does not know that those need them.
    run::run(run::cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut nextest = run::cargo();
    nextest.args(["nextest", "run", "--locked", "--workspace"]);
    // Tests of lb-userspace that need root are ignored by a plain `cargo test`. Here nothing is.
    if !args.iter().any(|arg| arg == "--run-ignored") {
        nextest.args(["--run-ignored", "all"]);
    }
    // What a test says of its failure is one line; the frames of its runner would push it out of a log that is cut.
    nextest.env("RUST_LIB_BACKTRACE", "0");
    run::run(nextest.args(args))
}
