//! The data plane in user space: loads, pins and adopts the XDP programs and their maps, applies a [`crate::control::plan::Plan`],
//! keeps next hops resolved, and reads the maps for everyone else.

pub mod attach;
pub mod filter;
pub mod load;
pub mod maps;
pub mod netlink;
pub mod network;
pub mod pins;
pub mod rings;
pub mod services;
pub mod slots;
pub mod table;
