//! PEM in and out (RFC 7468).

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{Error, PemObject},
};

use super::CertificateError;

/// The certificates of a text, as they stand there.
///
/// # Errors
/// When there is none, or the PEM is broken.
pub fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|error| broken(&error))?;
    if found.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(found) }
}

/// The private key of a text: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// When there is none, it is encrypted, or the PEM is broken.
pub fn key(text: &str) -> Result<PrivateKeyDer<'static>, CertificateError> {
    // PKCS#8 (RFC 5958) says so in the label, the older form in a header (RFC 1421).
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(CertificateError::EncryptedKey);
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => Ok(key),
        Err(Error::NoItemsFound) => Err(CertificateError::NoKey),
        Err(error) => Err(broken(&error)),
    }
}

/// The revocation lists of a text; none is no mistake.
///
/// # Errors
/// When the PEM is broken.
pub fn revocation_lists(text: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    CertificateRevocationListDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| broken(&error))
}

/// A block of PEM.
#[must_use]
pub fn to_pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    /// Characters of a line (RFC 7468 §2).
    const WIDTH: usize = 64;
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut column = 0;
    for group in der.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let sextet = (bits >> (18 - 6 * index) & 0x3f) as usize;
            text.push(if index <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
        column += 4;
        if column == WIDTH {
            text.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// A chain as PEM, in its order.
#[must_use]
pub fn chain_to_pem(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| to_pem("CERTIFICATE", der)).collect()
}

fn broken(error: &Error) -> CertificateError {
    CertificateError::Pem(error.to_string())
}
