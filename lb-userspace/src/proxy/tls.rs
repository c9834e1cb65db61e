//! TLS of both sides (rustls, aws-lc-rs): what is agreed with clients and nodes, certificates, tickets, encrypted streams.
//!
//! A [`ServerSetup`] is built once for each virtual server and plan, a [`ClientSetup`] for each pool; connections hold an
//! `Arc` of theirs, so a new plan changes new handshakes only. [`accept`] and [`connect`] make a [`TlsStream`] of a TCP
//! connection within a deadline. Nothing here opens a file: certificates come as text in the plan. 0-RTT is off
//! (THREATS.md, T2). Called by `serve` and `upstream`, which catch a panic per connection (T7).

mod catalogue;
mod client;
mod gate;
mod handshake;
mod hello;
mod peer;
mod policy;
mod scratch;
mod server;
mod stream;
mod tickets;

use std::io;

pub(crate) use self::policy::{ALERT, CERTIFICATE};
pub(super) use self::tickets::random_secret;
pub use self::{
    client::{ClientSetup, Roots},
    gate::Gate,
    handshake::{accept, connect},
    server::ServerSetup,
    stream::TlsStream,
    tickets::TicketKeys,
};
use crate::certificate::CertificateError;

/// Why a setup cannot be built. The plan was checked by lbd, so this means a plan that lbd would not have sent.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate of the catalogue.
    #[error("certificate {name:?}: {source}")]
    Certificate {
        /// Its name in the configuration.
        name: String,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// A name that the catalogue does not have.
    #[error("certificate {0:?} is not configured")]
    UnknownCertificate(String),
    /// Authorities or revocation lists that cannot be read.
    #[error("authorities: {0}")]
    Authorities(String),
    /// A cipher suite or group that we do not have, or a set that no version can use.
    #[error("{what} {name:?} is not supported; known: {known}")]
    UnknownAlgorithm {
        /// `cipher suite` or `curve`.
        what: &'static str,
        /// As configured.
        name: String,
        /// What can be configured.
        known: String,
    },
    /// What rustls refuses as a whole.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
}

/// Why a handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not done by the deadline.
    #[error("not done in time")]
    Timeout,
    /// The peer went away in the middle.
    #[error("closed by the peer")]
    Closed,
    /// Plain HTTP on a TLS port; it was answered 400.
    #[error("plain HTTP on a TLS port")]
    PlainHttp,
    /// Too many handshakes wait on this thread.
    #[error("too many handshakes at a time")]
    Busy,
    /// The server name is none of ours, and there is no default certificate.
    #[error("unknown server name {0:?}")]
    UnknownName(Option<String>),
    /// A session was resumed whose client certificate is missing, has expired, or was revoked since (T3).
    #[error("client certificate of a resumed session: {0}")]
    ResumedClient(rustls::Error),
    /// What the peer sent, or its certificate, is not acceptable.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl HandshakeError {
    /// Label for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::PlainHttp => "plain_http",
            Self::Busy => "busy",
            Self::UnknownName(_) => "unknown_name",
            Self::ResumedClient(_) => "client_certificate",
            Self::Io(_) => "io",
            Self::Tls(error) => policy::reason(error),
        }
    }
}

#[cfg(test)]
mod tests;
