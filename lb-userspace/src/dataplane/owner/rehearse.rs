//! Whether the data path could be had, without having it.

use super::{Dataplane, DataplaneError, Options};
use crate::dataplane::{
    load::{self, Purpose},
    pins::PinDirectory,
};

impl Dataplane {
    /// Everything of [`Dataplane::open`] that changes nothing, also while another lbd owns the data path: what is pinned can be
    /// adopted, and the kernel takes the program.
    ///
    /// # Errors
    /// Why it could not be had.
    pub fn rehearse(options: &Options) -> Result<(), DataplaneError> {
        load::check_system()?;
        if let Some((pins, meta)) = PinDirectory::look(&options.pin_dir)? {
            drop(load::load(&pins.maps(), &meta, Purpose::EXPLAIN)?);
        }
        Ok(())
    }
}
