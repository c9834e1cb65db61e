//! The data plane in user space: loads, pins and adopts the XDP programs and their maps, applies a [`crate::control::plan::Plan`],
//! keeps next hops resolved, and reads the maps for everyone else.

pub mod apply;
pub mod attach;
pub mod filter;
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
pub mod slots;
pub mod table;
pub mod task;
