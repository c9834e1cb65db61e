//! The lb daemon and its command line, as a library: `bin/lbd.rs` and `bin/lbctl.rs` are thin.
//!
//! The subsystems (`dataplane`, `proxy`, `health`, `failover`, `alerts`, `snmp`, `admin`) use `config` and the types of `control`, never each other;
//! `daemon` is the one composition root that knows them all. `cargo xtask tidy` checks this.

pub mod admin;
pub mod alerts;
mod capability;
pub mod certificate;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod dataplane;
pub mod failover;
pub mod health;
pub mod proxy;
pub mod snmp;
pub mod state_file;
pub mod telemetry;
pub mod visible;
