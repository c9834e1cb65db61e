//! The proxy's pure parts.

pub mod client_hello;
pub mod facts;
pub mod h1;
pub mod http2;
pub mod limit;
pub mod path;
pub mod pool;
pub mod proxy_protocol;
pub mod rules;
pub mod stats;
