//! Versions, cipher suites and groups: configuration by IANA names, and names for logs.

use std::sync::Arc;

use rustls::{
    CipherSuite, Error, ProtocolVersion, SupportedProtocolVersion,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, ALL_CIPHER_SUITES, DEFAULT_CIPHER_SUITES, kx_group},
    },
    version::{TLS12, TLS13},
};

use super::TlsError;
use crate::control::proxy::tls::Version;

/// Groups that can be configured. The defaults are the first four, in this order: hybrid post-quantum where the client has it.
static GROUPS: [(&str, &dyn SupportedKxGroup); 7] = [
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
    ("x25519", kx_group::X25519),
    ("secp256r1", kx_group::SECP256R1),
    ("secp384r1", kx_group::SECP384R1),
    ("SecP256r1MLKEM768", kx_group::SECP256R1MLKEM768),
    ("MLKEM768", kx_group::MLKEM768),
    ("MLKEM1024", kx_group::MLKEM1024),
];

/// How many of [`GROUPS`] are offered by default.
const DEFAULT_GROUPS: usize = 4;

/// Algorithms for a list of IANA names each; an empty list means the defaults.
pub(super) fn provider(suites: &[String], groups: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    let cipher_suites = if suites.is_empty() {
        DEFAULT_CIPHER_SUITES.to_vec()
    } else {
        let known = ALL_CIPHER_SUITES.iter().map(|suite| (suite_name(suite.suite()), *suite));
        choose("cipher suite", suites, &known.collect::<Vec<_>>())?
    };
    let kx_groups = if groups.is_empty() {
        GROUPS.iter().take(DEFAULT_GROUPS).map(|(_, group)| *group).collect()
    } else {
        choose("curve", groups, &GROUPS)?
    };
    Ok(Arc::new(CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() }))
}

fn choose<T: Copy>(what: &'static str, names: &[String], known: &[(&str, T)]) -> Result<Vec<T>, TlsError> {
    let find = |name: &String| {
        let found = known.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value).ok_or_else(|| TlsError::UnknownAlgorithm {
            what,
            name: name.clone(),
            known: known.iter().map(|(own, _)| *own).collect::<Vec<_>>().join(", "),
        })
    };
    names.iter().map(find).collect()
}

/// The versions from `least` on.
pub(super) fn versions(least: Version) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_13: [&SupportedProtocolVersion; 1] = [&TLS13];
    match least {
        Version::Tls12 => &FROM_12,
        Version::Tls13 => &FROM_13,
    }
}

/// The IANA name of a cipher suite.
#[expect(clippy::wildcard_enum_match_arm, reason = "IANA has hundreds; the three that rustls names otherwise are here")]
pub(super) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        // The others have IANA's names in rustls.
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// `1.2` or `1.3`.
pub(super) fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "unknown",
    }
}

/// The peer showed none, or none that can be trusted.
pub(crate) const CERTIFICATE: &str = "certificate";
/// The peer refused us by an alert.
pub(crate) const ALERT: &str = "alert_received";

/// Label of a failed handshake for counters: few, and by whose matter it is.
#[expect(clippy::wildcard_enum_match_arm, reason = "labels of counters: what has no own is malformed")]
pub(super) fn reason(error: &Error) -> &'static str {
    match error {
        Error::PeerIncompatible(_) => "incompatible",
        Error::NoApplicationProtocol => "no_application_protocol",
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented | Error::InvalidCertRevocationList(_) => {
            CERTIFICATE
        }
        Error::AlertReceived(_) => ALERT,
        _ => "malformed",
    }
}
