//! The pure parsers of lb-userspace, compiled from their files (`src/control` and `src/proxy` are links): a fuzz target then
//! needs neither BPF tools nor the TLS library, and builds in seconds.
//!
//! The module tree repeats as much of lb-userspace's as those files name by `crate::`.

pub mod control;
pub mod proxy;
