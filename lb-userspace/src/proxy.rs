//! The L7 proxy: TLS, HTTP and generic TCP virtual servers, in a worker process without privileges.
//!
//! Owns the worker (threads, listeners, connections to clients and nodes) and its supervision. It parses the Internet's
//! bytes, so it holds no privilege: sockets and an immutable `control::proxy::ProxyPlan` come from lbd over a socketpair.
//! It must never open files or bind ports in the worker, and never touch BPF maps. Called by `daemon`.

pub mod access_log;
pub mod buffer;
pub mod channel;
pub mod client_hello;
pub mod compress;
pub mod facts;
pub mod h1;
mod http2;
pub mod identity;
pub mod limit;
pub mod message;
pub mod path;
pub mod pool;
pub mod process;
pub mod proxy_protocol;
pub mod reactor;
pub mod recent;
pub mod rules;
mod serve;
pub mod spawner;
pub mod stats;
pub mod stream;
pub mod supervisor;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod trace;
pub mod transfer;
pub mod transparent;
mod upstream;
pub mod worker;
