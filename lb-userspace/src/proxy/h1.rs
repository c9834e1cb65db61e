//! The HTTP/1.1 codec, RFC 9112: heads and bodies from bytes, and heads to bytes. Strict, and pure: no sockets, no clock.
//!
//! What two parsers could read differently is refused here (the HTTP table of the threat model); what passes is written
//! anew by [`write`] from parsed facts, so that a node never sees a byte of framing that a client wrote. Must never copy a
//! body, nor allocate for an ordinary head. Called by `proxy`'s connections, towards clients and towards nodes.
//!
//! **Own grammar, not httparse**: that crate does not tell a line that ended by LF from one that ended by CRLF, starts anew
//! at every read, and wants its headers in an array that borrows the buffer. It is the oracle of the fuzz target instead.

pub mod body;
mod field;
mod host;
mod known;
pub mod request;
pub mod response;
mod scan;
mod slots;
#[cfg(test)]
mod tests;
pub mod write;

pub use field::Field;
pub(crate) use field::content_length;
pub use known::{Known, KnownSet};
pub(crate) use scan::is_token;
pub use slots::Slots;

/// A version of HTTP/1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 (RFC 1945).
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

impl Version {
    /// As rules and logs name it: `1.0` or `1.1`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
        }
    }
}

/// How the body of a message is delimited, RFC 9112 §6.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    #[default]
    None,
    /// So many bytes; at most `i64::MAX`.
    Length(u64),
    /// By the chunked transfer coding.
    Chunked,
    /// By the end of the connection (responses only).
    UntilClose,
}
