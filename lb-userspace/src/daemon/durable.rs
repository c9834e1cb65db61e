//! Files that survive a crash, a full disk and a power cut as a whole: the old one or the new one, never a part. What is only
//! ours carries a checksum, so that damage is seen.
//!
//! A file is written under another name, synced, and renamed into its place; then its directory is synced. After a failed
//! sync nothing is known of what the disk has: the whole file is written anew, the sync alone is never tried again.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

/// What every sealed file begins with; then the checksum of the rest, in hexadecimal, and a line break.
const SEAL: &[u8] = b"lb-sealed 1 sha256:";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 64;

/// A file that is on the disk as a whole, under another name than it will have. Removed when it is dropped.
#[derive(Debug)]
pub(super) struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
    done: bool,
}

/// Writes what [`Prepared::commit`] puts into its place. A file that is there keeps its mode, a new one gets `mode`.
pub(super) fn prepare(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Prepared> {
    let mode = fs::metadata(path).map_or(mode, |there| there.permissions().mode() & 0o777);
    let temporary = temporary_name(path);
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let prepared = Prepared { temporary, path: path.to_owned(), done: false };
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(prepared)
}

impl Prepared {
    /// Puts it into its place.
    pub(super) fn commit(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        self.done = true;
        sync_directory_of(&self.path)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.done {
            // What is left is overwritten by the next one.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    sync_directory_of(path)
}

/// Makes a directory, and those above it, that only root may look into.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Bytes with a checksum before them.
pub(super) fn seal(bytes: &[u8]) -> Vec<u8> {
    [SEAL, checksum(bytes).as_bytes(), b"\n", bytes].concat()
}

/// What was sealed; `None`: it is damaged, or something else.
pub(super) fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let rest = sealed.strip_prefix(SEAL)?;
    let (sum, bytes) = rest.split_at_checked(DIGITS)?;
    let bytes = bytes.strip_prefix(b"\n")?;
    (checksum(bytes).as_bytes() == sum).then_some(bytes)
}

/// SHA-256 in hexadecimal.
pub(super) fn checksum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a file aside that is damaged: its new name.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".damaged");
    let aside = path.with_file_name(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// The name that a file has until it is whole.
pub(super) fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Only then does a new name survive a power cut.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let prepared = prepare(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(prepared);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left of what was not wanted");
        fs::write(temporary_name(&path), "a leftover").unwrap();
        prepare(&path, b"new", 0o600).unwrap().commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_seen() {
        let sealed = seal(b"version = 1\n");
        assert_eq!(unseal(&sealed), Some(&b"version = 1\n"[..]));
        for length in 0..sealed.len() {
            assert_eq!(unseal(&sealed[..length]), None, "{length} bytes");
        }
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&damaged), None, "bit {bit}");
        }
        assert_eq!(unseal(&vec![0; sealed.len()]), None);
    }
}
