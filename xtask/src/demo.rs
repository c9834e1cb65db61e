//! `cargo xtask demo`: sets up, builds, and runs `lb-tests`' demonstration.

use std::ffi::OsString;

use anyhow::Result;

use crate::{run, setup};

pub(crate) fn run(args: &[OsString]) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    run::require_root("the demonstration", "demo")?;
    // lbd and lbctl are programs that the demonstration starts, so cargo does not know that it needs them.
    run::run(run::cargo().args(["build", "--locked", "-p", "lb-userspace", "--bins"]))?;
    run::run(run::cargo().args(["run", "--locked", "-p", "lb-tests", "--bin", "demo", "--"]).args(args))
}
