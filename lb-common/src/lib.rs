//! What kernel and user space must agree on: packet layouts, the flow key and its hash, the records in the BPF maps,
//! connection tracking states, checksums, rings and the reasons that end a packet's path.
//!
//! Everything here is pure: no allocation, clock, randomness, socket or lock; `no_std`, tested on the host, compiled
//! into the XDP programs and into the daemon. It imports nothing of ours.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod capture;
pub mod checksum;
pub mod conntrack;
pub mod digest;
pub mod explain;
pub mod flow;
pub mod lease;
pub mod maglev;
pub mod maps;
pub mod node;
pub mod packet;
pub mod proof;
pub mod reason;
pub mod vip;
pub mod virtual_router;
