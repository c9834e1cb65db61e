//! Reading and writing keys and chains.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustls_pki_types::CertificateDer;

use crate::{certificate, ctl::failure::Failure};

/// The first byte of a certificate in DER (a SEQUENCE).
const SEQUENCE: u8 = 0x30;

/// Writes a file of mode 0600: whole, or not at all.
pub(super) fn write(path: &Path, content: &[u8], force: bool) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: path.to_owned(), source };
    if !force && path.symlink_metadata().is_ok() {
        return Err(failed(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is there already\nnext: --force to write over it",
        )));
    }
    let mut name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let beside = path.with_file_name(name);
    let result = write_new(&beside, content).and_then(|()| {
        // A link refuses to replace what appeared since; a rename replaces in one step.
        if force { fs::rename(&beside, path) } else { fs::hard_link(&beside, path) }
    });
    if !force || result.is_err() {
        // After a rename it is not there any more; otherwise it has done its work.
        let _ = fs::remove_file(&beside);
    }
    result.map_err(failed)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The text of a private key's file, if nobody else can read it.
pub(super) fn read_key(path: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::File { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    certificate::check_key_mode(mode).map_err(|error| Failure::of_certificate(path, error))?;
    Ok(text)
}

/// The certificates of a file, PEM or DER.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bytes = fs::read(path).map_err(|source| Failure::File { path: path.to_owned(), source })?;
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("BEGIN PKCS7") {
        return Err(Failure::Usage(format!(
            "{} is PKCS#7\nnext: openssl pkcs7 -print_certs -in {0} -out answer.pem, and import that",
            path.display()
        )));
    }
    certificate::chain(&text).map_err(|error| Failure::of_certificate(path, error))
}
