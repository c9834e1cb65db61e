//! HTTP of a virtual server: versions, strictness, what is told to nodes about clients, pages of our own.

use serde::{Deserialize, Serialize};

use super::{Network, rule::Rules};

/// HTTP with clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// Whether HTTP/2 is spoken: by ALPN with TLS, by prior knowledge without.
    pub http2: bool,
    /// What is refused, and what is let pass by choice.
    pub strictness: Strictness,
    /// What nodes are told about the client.
    pub identity: Identity,
    /// Rules, in order.
    pub rules: Rules,
    /// Compression of responses by us; empty: none. In order of preference.
    pub compression: Vec<Coding>,
    /// Least size of a body that is compressed, where it is known.
    pub compression_min_bytes: u64,
    /// What is answered when no node can.
    pub error_page: ErrorPage,
}

/// Choices about requests that RFC 9112 leaves open. The defaults are the strict ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strictness {
    /// Bytes of a request's line and header fields together; more: 431 (414 for the line).
    pub max_head_bytes: u32,
    /// Header fields; more: 431.
    pub max_fields: u16,
    /// Bytes of a request body; 0: any. More: 413.
    pub max_body_bytes: u64,
    /// Whether lines may end by LF alone.
    pub allow_bare_lf: bool,
    /// Whether header names may contain `_`; else such fields are taken out.
    pub allow_underscore: bool,
    /// Whether `%2f` and `%5c` may stand in a path; else 400.
    pub allow_encoded_slash: bool,
    /// Whether several slashes in a row count, and are forwarded, as one.
    pub merge_slashes: bool,
    /// Whether WebSocket and other upgrades may pass.
    pub allow_upgrade: bool,
}

impl Default for Strictness {
    fn default() -> Self {
        Self {
            max_head_bytes: 32 * 1024,
            max_fields: 100,
            max_body_bytes: 0,
            allow_bare_lf: false,
            allow_underscore: false,
            allow_encoded_slash: false,
            merge_slashes: true,
            allow_upgrade: true,
        }
    }
}

/// What nodes are told about the client. Fields of that name from clients that are not trusted are taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    pub x_forwarded: bool,
    /// `X-Real-IP`.
    pub x_real_ip: bool,
    /// `X-Cluster-Client-IP`.
    pub x_cluster_client_ip: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `Via` (RFC 9110 §7.6.3), in both directions.
    pub via: bool,
    /// `traceparent` (W3C): made when there is none.
    pub traceparent: bool,
    /// Proxies in front of us: what they say of their client is believed, appended to, and the client's address taken from
    /// it (rightmost untrusted).
    pub trusted: Vec<Network>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            x_forwarded: true,
            x_real_ip: false,
            x_cluster_client_ip: false,
            forwarded: false,
            via: false,
            traceparent: false,
            trusted: Vec::new(),
        }
    }
}

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Br,
    /// `gzip` (RFC 1952).
    Gzip,
}

/// What a client gets when no node can answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorPage {
    /// A short page of ours with the status of the failure.
    #[default]
    Builtin,
    /// An own page.
    Own {
        /// Status; `None`: that of the failure.
        status: Option<u16>,
        /// Additional header fields.
        fields: Vec<(String, String)>,
        /// The whole body.
        body: Vec<u8>,
        /// Its media type.
        content_type: String,
    },
    /// The connection is closed without an answer.
    Close,
}
