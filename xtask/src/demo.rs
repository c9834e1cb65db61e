//! `cargo xtask demo`: sets up, builds, and runs `lb-tests`' demonstration.

use std::ffi::OsString;

use anyhow::Result;

use crate::{run, setup};

pub(crate) fn run(args: &[OsString]) -> Result<()> {
    setup::for_build()?;
    setup::for_tests()?;
    run::require_root("the demonstration", "demo")?;
    // One build for all: asked for one by one, the packages would be built with other features each time.
    run::run(run::cargo().args(["build", "--locked", "--bins", "-p", "lb-userspace", "-p", "lb-tests"]))?;
    run::run(run::built("debug", "demo").args(args))
}
