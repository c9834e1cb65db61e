//! Looking at pins that another lbd owns.

use std::path::Path;

use lb_common::maps::Meta;

use super::{PinDirectory, PinsError, check_owner};

impl PinDirectory {
    /// What is pinned there and can be adopted, without taking it: another lbd may own it.
    ///
    /// # Errors
    /// See [`PinDirectory::adoptable`].
    pub fn look(path: &Path) -> Result<Option<(Self, Meta)>, PinsError> {
        if !path.exists() {
            return Ok(None);
        }
        check_owner(path)?;
        let pins = Self { path: path.to_owned(), _lock: None };
        Ok(pins.adoptable()?.map(|meta| (pins, meta)))
    }
}
