//! What the tests, the demo and the benches of lb share: code that needs root, BPF or network namespaces.
//!
//! [`harness`] builds networks out of namespaces and runs the real `lbd`, real servers and clients in them.

pub mod golden;
pub mod harness;
pub mod model;
pub mod packet;
pub mod rig;
pub mod site;
