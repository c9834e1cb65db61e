//! A directory that maps pass through, from one instance of a program to the next: pins are the only way that aya shares them.

use std::path::{Path, PathBuf};

use super::{NEW, PinDirectory, PinsError, make_directory, remove_all};

impl PinDirectory {
    /// An empty directory for maps on their way from one instance of a program to the next, until [`Self::clear_passage`].
    ///
    /// # Errors
    /// A file operation.
    pub fn passage(pin_dir: &Path) -> Result<PathBuf, PinsError> {
        Self::clear_passage(pin_dir)?;
        let new = pin_dir.join(NEW);
        make_directory(&new)?;
        Ok(new)
    }

    /// Removes it, also what is left of one of an earlier daemon's.
    ///
    /// # Errors
    /// A file operation.
    pub fn clear_passage(pin_dir: &Path) -> Result<(), PinsError> {
        remove_all(&pin_dir.join(NEW))
    }
}
