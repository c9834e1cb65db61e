//! `cargo xtask build`: the whole workspace, XDP programs included (`lb-userspace/build.rs` builds those).

use anyhow::Result;

use crate::{run, setup};

/// `build`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Optimised, as it is deployed.
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    setup::for_build()?;
    workspace(options.release)?;
    let profile = if options.release { "release" } else { "debug" };
    println!("built {0}/lbd and {0}/lbctl", run::target().join(profile).display());
    Ok(())
}

fn workspace(release: bool) -> Result<()> {
    run::run(run::cargo().args(["build", "--locked", "--workspace"]).args(release.then_some("--release")))
}
