//! What HTTP/2 needs on both sides (RFC 9113), beside the `h2` crate: heads between its form and HTTP/1.1's, the
//! connection's bytes with a watch over their frames.
//!
//! A request over HTTP/2 is judged by the parser of HTTP/1.1: its head is written as one, and read by `h1`, so that both
//! have the same rules, refusals and normal paths, and whatever forwards it sees no difference. Must never let a field
//! through that only concerns one connection. Called by `serve` (clients) and `upstream` (nodes).

pub(crate) mod glitch;
pub(crate) mod head;
pub(crate) mod io;
pub(crate) mod outgoing;
