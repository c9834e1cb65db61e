//! placeholder
use anyhow::Result;
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}
pub(crate) fn run(_: &Options) -> Result<()> {
    crate::setup::for_verify()?;
    crate::setup::download(&[], std::path::Path::new("/"))
}
