//! End-to-end tests: the real `lbd`, real servers and clients in network namespaces. Need root and BPF, and fail without.
//! `cargo xtask test` builds the binaries first.

mod admin;
mod alerts;
mod attacks;
mod capture;
mod clocks;
mod everywhere;
mod failover;
mod failover_load;
mod forwarding;
mod hostile;
mod icmp;
mod iperf;
mod machine;
mod monitors;
mod network;
mod nodes;
mod operator;
mod pair;
mod remembered;
mod revisions;
mod routers;
mod scheduling;
mod sharing;
mod snmp;
mod start;
mod support;
mod survival;
mod terminal;
mod toggle;
mod virtual_mac;
