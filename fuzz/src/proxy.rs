//! The proxy's pure parts.

pub mod client_hello;
pub mod h1;
pub mod path;
pub mod proxy_protocol;
