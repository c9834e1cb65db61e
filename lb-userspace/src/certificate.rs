//! Certificates and their keys: reading PEM, checking that a pair fits, which names it covers, when it ends.
//!
//! Pure: texts and the time come in, facts and errors with advice go out. It must never open a file or ask a clock.
//! `config` checks what it read with it, `proxy::tls` builds its catalogue with it, `ctl` shows and imports with it.

pub mod names;
mod order;
mod pem;
mod unverified;

use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use x509_parser::{certificate::X509Certificate, public_key::PublicKey};

pub use self::{
    order::complete as complete_chain,
    pem::{chain, chain_to_pem, key, revocation_lists, to_pem},
    unverified::Unverified,
};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Days before the end at which an expiry is told: at each of them once.
pub const WARN_DAYS: [i64; 3] = [30, 7, 1];

/// Permission bits that a file with a private key must not have (THREATS.md, T8).
pub const KEY_MODE_REFUSED: u32 = 0o077;

/// What is wrong with a certificate, a key, or the two together. The file is named by whoever read it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate in the text.
    #[error("no certificate in it\nnext: it must be PEM and hold a block -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// No private key in the text.
    #[error("no private key in it\nnext: it must be PEM and hold a block -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// The key is protected by a passphrase, which nobody could type at a restart.
    #[error(
        "the private key is encrypted\nnext: write it without passphrase into a file of mode 0600: \
         openssl pkey -in KEY -out NEW"
    )]
    EncryptedKey,
    /// PEM that cannot be read.
    #[error("not valid PEM: {0}")]
    Pem(String),
    /// A certificate that is not X.509, or broken.
    #[error("certificate {position} cannot be read: {reason}")]
    Malformed {
        /// Which of the file, from 1.
        position: usize,
        /// What the parser said.
        reason: String,
    },
    /// A kind of key that we cannot sign with.
    #[error(
        "the private key cannot be used: {0}\nnext: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits"
    )]
    UnsupportedKey(String),
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate of {subject}\nnext: compare openssl x509 -noout -pubkey \
         with openssl pkey -pubout; the file may have kept the key of the certificate before"
    )]
    Mismatch {
        /// Subject of the certificate.
        subject: String,
    },
    /// A certificate in the file that does not belong to the chain of the first one.
    #[error(
        "certificate {position} ({subject}) does not belong to the chain\nnext: keep the server's certificate and its \
         intermediates, nothing else"
    )]
    Stray {
        /// Which of the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// A file with a key that others may read.
    #[error("the key file has mode {mode:04o}: others could read it\nnext: chmod 600 it")]
    Mode {
        /// Permission bits.
        mode: u32,
    },
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// DNS names and addresses it is for; lower case, international names in punycode.
    pub names: Vec<String>,
    /// Kind of its key: `ECDSA P-256`, `RSA 2048`.
    pub key: String,
    /// Valid from, seconds since 1970.
    pub not_before: i64,
    /// Valid to, seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
    /// Whether it signs certificates.
    pub is_ca: bool,
}

impl Facts {
    /// Of a certificate in DER; `position` (from 1) is for the error.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(der: &[u8], position: usize) -> Result<Self, CertificateError> {
        let certificate = parse(der, position)?;
        Ok(Self {
            subject: names::distinguished(certificate.subject()),
            issuer: names::distinguished(certificate.issuer()),
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            names: names::covered(&certificate),
            key: key_kind(&certificate),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            fingerprint: fingerprint(der),
            is_ca: certificate.is_ca(),
        })
    }

    /// What there is to say of its validity at `now` (seconds since 1970): nothing while more than 30 days are left.
    #[must_use]
    pub fn expiry(&self, now: i64) -> Option<Expiry> {
        let left = self.not_after - now;
        let days = left.div_euclid(DAY);
        match left {
            _ if now < self.not_before => Some(Expiry::NotYetValid),
            ..0 => Some(Expiry::Expired),
            _ => WARN_DAYS.into_iter().rev().find(|limit| days < *limit).map(|within| Expiry::Soon { days, within }),
        }
    }
}

/// Why a certificate wants attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Its time has not come: clients refuse it.
    NotYetValid,
    /// It ends soon.
    Soon {
        /// Whole days left.
        days: i64,
        /// The step of [`WARN_DAYS`] that was passed: tell again when it changes.
        within: i64,
    },
    /// Clients refuse it.
    Expired,
}

impl std::fmt::Display for Expiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expiry::NotYetValid => f.write_str("is not valid yet; check the clock"),
            Expiry::Soon { days: 0, .. } => f.write_str("expires within a day"),
            Expiry::Soon { days, .. } => write!(f, "expires in {days} day{}", if *days == 1 { "" } else { "s" }),
            Expiry::Expired => f.write_str("has expired: clients refuse it"),
        }
    }
}

/// A checked certificate with its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The chain as it is sent: the certificate, then its intermediates in order.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the certificate says.
    pub facts: Facts,
    /// Whether the file had the chain in another order, or a root in it, which was left out.
    pub reordered: bool,
    /// Ready to sign.
    pub certified: CertifiedKey,
}

impl Pair {
    /// Reads a chain and its key and checks that they fit.
    ///
    /// # Errors
    /// When either cannot be read or used, or they do not belong together.
    pub fn read(chain_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let read = chain(chain_pem)?;
        let key = key(key_pem)?;
        Self::of(read, &key)
    }

    fn of(read: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<Self, CertificateError> {
        let signer = any_supported_type(key).map_err(|error| CertificateError::UnsupportedKey(error.to_string()))?;
        let fits =
            |der: &CertificateDer<'static>| CertifiedKey::new(vec![der.clone()], signer.clone()).keys_match().is_ok();
        let Some(first) = read.iter().position(fits) else {
            let subject = Facts::read(&read[0], 1)?.subject;
            return Err(CertificateError::Mismatch { subject });
        };
        let chain = order::sort(&read, first)?;
        let facts = Facts::read(&chain[0], first + 1)?;
        let certified = CertifiedKey::new(chain.clone(), signer);
        Ok(Self { reordered: chain != read, chain, facts, certified })
    }
}

/// Checks the permission bits of a file that holds a private key.
///
/// # Errors
/// When the group or others may do anything with it.
pub fn check_key_mode(mode: u32) -> Result<(), CertificateError> {
    let mode = mode & 0o7777;
    if mode & KEY_MODE_REFUSED == 0 { Ok(()) } else { Err(CertificateError::Mode { mode }) }
}

/// SHA-256 of a certificate, hexadecimal.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn parse(der: &[u8], position: usize) -> Result<X509Certificate<'_>, CertificateError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(CertificateError::Malformed { position, reason: "bytes after its end".into() }),
        Err(error) => Err(CertificateError::Malformed { position, reason: error.to_string() }),
    }
}

fn key_kind(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", if point.key_size() == 528 { 521 } else { point.key_size() }),
        // RFC 8410: the one algorithm beside these that we sign with has no parsed form.
        Ok(_) if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".into(),
        Ok(_) | Err(_) => info.algorithm.algorithm.to_id_string(),
    }
}

#[cfg(test)]
mod tests;
