//! TLS of virtual servers and towards nodes.

use serde::{Deserialize, Serialize};

use super::Secret;

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// PEM: the certificate, then its intermediates.
    pub chain_pem: String,
    /// PEM: the private key (PKCS#8, PKCS#1 or SEC1).
    pub key_pem: String,
    /// DER: the OCSP response that is stapled.
    pub ocsp: Option<Vec<u8>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// TLS with clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTls {
    /// Names of certificates: the one whose names fit the server name is taken; ECDSA before RSA where the client can.
    pub certificates: Vec<String>,
    /// The certificate for clients without, or with an unknown, server name; `None`: `unrecognized_name`.
    pub default_certificate: Option<String>,
    /// Least version.
    pub min_version: Version,
    /// Cipher suites by IANA name; empty: the defaults.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups by IANA name; empty: the defaults.
    pub curves: Vec<String>,
    /// Client certificates.
    pub client_auth: ClientAuth,
    /// Whether session tickets are given out.
    pub tickets: bool,
    /// Key of tickets, the same on all machines of a cluster; `None`: random and changed every day.
    pub ticket_secret: Option<Secret>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// Client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// Not asked for.
    #[default]
    None,
    /// Asked for; a client without one is let in, one with a bad one is not.
    Request(Authorities),
    /// Needed.
    Require(Authorities),
}

/// Who may sign certificates of the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// PEM: their certificates.
    pub ca_pem: String,
    /// PEM: revocation lists.
    pub crl_pem: String,
}

/// TLS with nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTls {
    /// Whether chain and name are verified. Off only by an explicit `verify = false`.
    pub verify: bool,
    /// Who may have signed; empty: the system's store, which lbd reads.
    pub authorities: Authorities,
    /// The name that is sent and verified; `None`: the node's DNS name, or the request's host.
    pub server_name: Option<String>,
    /// Name of the certificate that we show.
    pub certificate: Option<String>,
}
