//! End-to-end tests: the real `lbd`, real servers and clients in network namespaces. Need root and BPF, and fail without.
//! `cargo xtask test` builds the binaries first.

mod network;
