//! The pure parsers of lb-userspace, compiled from their files (`src/control` and `src/proxy` are links): a fuzz target then
//! needs no BPF tools and builds in a minute.
//!
//! The module tree repeats as much of lb-userspace's as those files name by `crate::`.

pub mod control;
pub mod failover;
pub mod proxy;
