//! Files that survive a crash, a full disk and a power cut as a whole: the old one or the new one, never a part. What is only
//! lbd's is sealed, so that what is read is exactly what was written or is known to be damaged.
//!
//! A file is written under another name, synced, and renamed into its place; then its directory is synced. After a failed
//! fsync nothing is known of what the disk has: everything is written again, never fsync alone. Called by whoever keeps
//! something over a restart.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

/// Mode of files that are lbd's alone.
const PRIVATE: u32 = 0o600;

/// What a sealed file begins with; the digest and a line feed follow.
const SEAL: &[u8] = b"lb-state sha256 ";

/// Hexadecimal digits of a digest.
const DIGITS: usize = 64;

/// Why a sealed file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("its content does not fit its checksum")]
    Broken,
}

/// A file that is on the disk as a whole, under another name than it will have. Removed when it is dropped.
#[derive(Debug)]
#[must_use = "nothing is in its place until it is committed"]
pub struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
    is_done: bool,
}

/// Writes what [`Prepared::commit`] puts into its place, for its owner alone.
///
/// # Errors
/// When the kernel refuses any step.
pub fn prepare(path: &Path, content: &[u8]) -> io::Result<Prepared> {
    write(path, content, PRIVATE)
}

/// The same for a file that others may look at: one that is there keeps its mode, a new one gets `mode`.
///
/// # Errors
/// When the kernel refuses any step.
pub fn prepare_shared(path: &Path, content: &[u8], mode: u32) -> io::Result<Prepared> {
    write(path, content, fs::metadata(path).map_or(mode, |there| there.permissions().mode() & 0o777))
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<Prepared> {
    let (prepared, file) = create(path, content, mode)?;
    file.sync_all()?;
    Ok(prepared)
}

fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<(Prepared, File)> {
    let temporary = temporary(path);
    // A leftover of a write that was cut short.
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&temporary)?;
    let prepared = Prepared { temporary, path: path.to_owned(), is_done: false };
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    Ok((prepared, file))
}

impl Prepared {
    /// Puts it into its place.
    ///
    /// # Errors
    /// When the kernel refuses; after that of the last step, it may be there or not.
    pub fn commit(self) -> io::Result<()> {
        let path = self.path.clone();
        self.put_in_place()?;
        sync_directory_of(&path)
    }

    fn put_in_place(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.is_done {
            // What is left is removed by the next write.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Replaces a file: on success the new content survives a power cut, on an error the one before is in place.
///
/// # Errors
/// When the kernel refuses any step.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory_of(path))?;
    prepare(path, content)?.commit()
}

/// Replaces a file by content with a checksum in front.
///
/// # Errors
/// As [`replace`].
pub fn replace_sealed(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, &seal(content))
}

/// As [`replace_sealed`], and does not wait for the disk: a power cut may leave the file damaged, which is seen when it is read.
///
/// # Errors
/// When the kernel refuses any step.
pub fn replace_sealed_unsynced(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory_of(path))?;
    let (prepared, _) = create(path, &seal(content), PRIVATE)?;
    prepared.put_in_place()
}

/// What [`replace_sealed`] wrote; `None`: there is no file.
///
/// # Errors
/// When it cannot be read, or was damaged since.
pub fn read_sealed(path: &Path) -> Result<Option<Vec<u8>>, Damage> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(unseal(&bytes).ok_or(Damage::Broken)?.to_vec())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Content with a checksum in front.
#[must_use]
pub fn seal(content: &[u8]) -> Vec<u8> {
    [SEAL, checksum(content).as_bytes(), b"\n", content].concat()
}

/// What was sealed; `None`: it was damaged since, or never sealed.
#[must_use]
pub fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (sum, content) = sealed.strip_prefix(SEAL)?.split_at_checked(DIGITS)?;
    let content = content.strip_prefix(b"\n")?;
    (checksum(content).as_bytes() == sum).then_some(content)
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn checksum(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

/// Removes a file that may not be there.
///
/// # Errors
/// When the kernel refuses.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    sync_directory_of(path)
}

/// Makes a directory, and those above it, that only their owner may look into.
///
/// # Errors
/// When the kernel refuses.
pub fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Moves a damaged file out of the way, to be looked at: its new name.
///
/// # Errors
/// When the kernel refuses.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".damaged");
    let aside = path.with_file_name(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// The name that a file has until it is whole: beside it, so that a rename is enough.
#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
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

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Only then does a new name survive a power cut.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

/// The bytes of hexadecimal digits; `None` when they are none.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_committed_was_never_there_and_its_mode_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        drop(prepare_shared(&path, b"new", PRIVATE).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left of what was not wanted");
        prepare_shared(&path, b"new", PRIVATE).unwrap().commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        replace(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/users.json");
        assert!(read_sealed(&path).unwrap().is_none());
        for content in [b"".as_slice(), b"{}", b"two\nlines"] {
            replace_sealed(&path, content).unwrap();
            assert_eq!(read_sealed(&path).unwrap().unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, PRIVATE);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.json");
        replace_sealed(&path, b"{\"role\":\"viewer\"}").unwrap();
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert!(matches!(read_sealed(&path), Err(Damage::Broken)), "bit {bit}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(read_sealed(&path), Err(Damage::Broken)), "{length} bytes");
        }
        assert_eq!(put_aside(&path).unwrap(), dir.path().join("users.json.damaged"));
        assert!(!path.exists());
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.json");
        replace(&path, b"before").unwrap();
        // Something that cannot be removed stands where the temporary file would be.
        fs::create_dir(temporary(&path)).unwrap();
        assert!(replace(&path, b"after").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        fs::remove_dir(temporary(&path)).unwrap();
        // The leftover of a killed write is no obstacle.
        fs::write(temporary(&path), b"half").unwrap();
        replace(&path, b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
    }

    #[test]
    fn digits_are_read_back() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(unhex("001fff"), Some(vec![0, 0x1f, 0xff]));
        for wrong in ["0", "0g", "ü"] {
            assert!(unhex(wrong).is_none(), "{wrong}");
        }
    }
}
