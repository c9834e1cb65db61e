//! `lbd --withdraw`: takes away what an lbd that has ended left forwarding. For who has stopped lbd with `on_stop = "keep"`
//! and means to stop forwarding as well, and for the removal of its package.

use std::path::Path;

use super::{PATIENCE, StartError, options, pid::PidFile, system};
use crate::{
    config::Config,
    dataplane::{owner::DataplaneError, pins::PinDirectory},
    failover::StaticVips,
};

/// Takes VIPs off the interfaces, detaches the programs and removes the pins. Nothing left is no error.
///
/// # Errors
/// When an lbd runs, or something cannot be removed.
pub fn withdraw(config_path: &Path) -> Result<(), StartError> {
    let config = Config::load(config_path)?;
    let _alone = PidFile::create(&config.daemon.socket, PATIENCE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // The addresses first: the neighbours turn elsewhere before packets are not forwarded any more.
    runtime.map_err(system("start the event loop"))?.block_on(async {
        let vips = StaticVips::spawn(&config.daemon.state_dir)?;
        vips.withdraw().await
    })?;
    let pins = options(&config).pin_dir;
    if pins.exists() {
        PinDirectory::open(&pins).and_then(|pins| pins.remove()).map_err(DataplaneError::from)?;
    }
    Ok(())
}
