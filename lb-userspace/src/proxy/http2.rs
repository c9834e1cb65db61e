//! HTTP/2 (RFC 9113). Clients are served by a codec of our own (`server`, with `frame`, `hpack` and `request`); nodes by the
//! `h2` crate, to which this adds heads between its form and HTTP/1.1's and a watch over frames.
//!
//! Why not `h2` for clients: docs/decisions/0008-own-http2-for-clients.md.
//!
//! A request over HTTP/2 is judged by the parser of HTTP/1.1: its head is written as one, and read by `h1`, so that both
//! have the same rules, refusals and normal paths, and whatever forwards it sees no difference. Must never let a field
//! through that only concerns one connection. Called by `serve` (clients) and `upstream` (nodes).

pub(crate) mod frame;
pub(crate) mod glitch;
pub(crate) mod head;
mod hpack;
pub(crate) mod io;
pub(crate) mod outgoing;
mod request;
pub(crate) mod server;

pub(crate) use request::Head;
