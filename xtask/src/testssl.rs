//! `cargo xtask testssl`: TLS as testssl.sh sees it.

use anyhow::Result;

use crate::{run, setup};

pub(crate) fn run() -> Result<()> {
    setup::for_build()?;
    setup::for_testssl()?;
    run::run_aside(run::cargo().args(["build", "--locked", "-p", "lb-tests", "--bin", "bench-l7"]))?;
    run::run(run::built("debug", "bench-l7").arg("--testssl"))
}
