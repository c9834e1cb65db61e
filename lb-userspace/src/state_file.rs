//! Files that hold lbd's own state: replaced whole and atomically, for their owner alone, and sealed, so that what is read
//! is exactly what was written or is known to be damaged.
//!
//! Called by whoever keeps something over a restart. A write that fails leaves the file before it in place; after a failed
//! fsync everything is written again, never fsync alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

/// Mode of the files.
const MODE: u32 = 0o600;

/// What a sealed file begins with; the digest and a line feed follow.
const SEAL: &[u8] = b"lb-state sha256 ";

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

/// Replaces a file: on success the new content survives a power cut, on an error the one before is in place.
///
/// # Errors
/// When the kernel refuses any step.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let temporary = temporary(path);
    match fs::remove_file(&temporary) {
        // A leftover of a write that was cut short.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The refusal is the error worth telling; the leftover is removed by the next write.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // Only then does the new name survive a power cut.
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Beside the file, so that a rename is enough.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Replaces a file by content with a checksum in front.
///
/// # Errors
/// As [`replace`].
pub fn replace_sealed(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut sealed = SEAL.to_vec();
    sealed.extend_from_slice(hex(digest(&SHA256, content).as_ref()).as_bytes());
    sealed.push(b'\n');
    sealed.extend_from_slice(content);
    replace(path, &sealed)
}

/// What [`replace_sealed`] wrote; `None`: there is no file.
///
/// # Errors
/// When it cannot be read, or was damaged since.
pub fn read_sealed(path: &Path) -> Result<Option<Vec<u8>>, Damage> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let sealed = bytes.strip_prefix(SEAL).ok_or(Damage::Broken)?;
    let (seal, content) = sealed.split_at_checked(64).ok_or(Damage::Broken)?;
    let content = content.strip_prefix(b"\n").ok_or(Damage::Broken)?;
    if hex(digest(&SHA256, content).as_ref()).as_bytes() != seal {
        return Err(Damage::Broken);
    }
    Ok(Some(content.to_vec()))
}

/// Moves a damaged file out of the way, to be looked at; whether that worked.
pub fn put_aside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    fs::rename(path, path.with_file_name(format!("{name}.broken"))).is_ok()
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_read_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/users.json");
        assert!(read_sealed(&path).unwrap().is_none());
        for content in [b"".as_slice(), b"{}", b"two\nlines"] {
            replace_sealed(&path, content).unwrap();
            assert_eq!(read_sealed(&path).unwrap().unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, MODE);
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
        assert!(put_aside(&path));
        assert!(!path.exists() && dir.path().join("users.json.broken").exists());
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
