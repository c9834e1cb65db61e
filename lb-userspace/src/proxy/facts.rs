//! What rules, persistence, schedulers and logs may know of a request: one view for HTTP/1.1, HTTP/2 and generic TCP.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

mod request;

pub use request::RequestFacts;

/// A request as rules see it. Texts of a request are ASCII or were refused; everything is borrowed from its buffers.
pub trait Facts {
    /// The client's address: behind trusted proxies the one they tell.
    fn client(&self) -> IpAddr;
    /// What the client connected to.
    fn local(&self) -> SocketAddr;
    /// The method; empty for generic TCP.
    fn method(&self) -> &str;
    /// The host: lower case, without port; empty when there is none.
    fn host(&self) -> &str;
    /// The path, normalised: what is forwarded too.
    fn path(&self) -> &str;
    /// The target as it came.
    fn raw_url(&self) -> &str;
    /// The query without `?`.
    fn query(&self) -> Option<&str>;
    /// A request header field by its lower-case name; several are joined by `, ` (cookies by `; `).
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
    /// `1.0`, `1.1` or `2`.
    fn version(&self) -> &str;
    /// TLS of the client side.
    fn tls(&self) -> Option<&TlsFacts>;

    /// A cookie of the request.
    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = |header: &str| {
            let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"').to_owned())
        };
        match self.header("cookie")? {
            Cow::Borrowed(header) => {
                let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
                pairs.find(|(key, _)| *key == name).map(|(_, value)| Cow::Borrowed(value.trim_matches('"')))
            }
            Cow::Owned(header) => value(&header).map(Cow::Owned),
        }
    }
}

/// The head of a response as rules and logs see it.
pub trait ResponseFacts {
    /// The status.
    fn status(&self) -> u16;
    /// A response header field by its lower-case name; several are joined by `, `.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// Tells requests apart: in logs, events and what nodes are told. Shown as 32 hexadecimal digits, as W3C's trace ids are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// Its digits, in ASCII.
    #[must_use]
    pub fn digits(self) -> [u8; 32] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bytes = self.0.to_be_bytes();
        std::array::from_fn(|i| {
            let byte = bytes[i / 2];
            HEX[usize::from(if i % 2 == 0 { byte >> 4 } else { byte & 15 })]
        })
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What the TLS handshake with the client said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: &'static str,
    /// The server name the client asked for, lower case.
    pub server_name: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The client's verified certificate.
    pub client: Option<ClientCertificate>,
    /// Tells TLS sessions apart: the same for a session and its resumptions. For persistence.
    pub session: Option<[u8; 16]>,
}

/// A verified client certificate, as it is handed on in header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Subject, RFC 4514.
    pub subject: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER certificate, hexadecimal.
    pub fingerprint: String,
    /// PEM in one line, percent-encoded.
    pub pem: String,
}

#[cfg(test)]
pub(crate) mod sample;
