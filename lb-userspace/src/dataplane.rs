//! The data plane in user space: loads, pins and adopts the XDP programs and their maps, applies a
//! [`Plan`](crate::control::plan::Plan), keeps next hops resolved, and reads the maps for everyone else.
//!
//! The writing half is owned by one thread: [`owner::Dataplane`], run by [`task`]. What it knows reaches readers as
//! snapshots ([`names`]); the maps themselves are read through shared handles ([`maps`]). It must never wait for anything
//! but the kernel, and never detach a program that forwards. Called by `daemon` alone.

pub mod apply;
pub mod attach;
pub mod capture;
pub mod clock;
pub mod collect;
pub mod connections;
pub mod counters;
pub mod doctor;
pub mod dump;
pub mod filter;
pub mod inspect;
pub mod lease;
pub mod load;
pub mod maps;
pub mod names;
pub mod netlink;
pub mod network;
pub mod nodes;
pub mod owner;
pub mod pins;
mod records;
pub mod rings;
pub mod services;
pub mod share;
pub mod slots;
pub mod table;
pub mod task;
pub mod trace;
