//! The contract between daemon and worker.

pub mod plan;
pub mod proxy;
pub mod shared;
