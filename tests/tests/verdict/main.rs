//! Verdicts of the XDP program, packet by packet, through `BPF_PROG_TEST_RUN`: the acceptance families A–G of the data path,
//! each in every forwarding mode. Needs root; no interface, no daemon.

mod basic;
mod capture;
mod differential;
mod flows;
mod fragments;
mod golden;
mod icmp;
mod lease;
mod malformed;
mod mutate;
mod nat;
mod nodes;
mod proofs;
mod ring;
mod scheduling;
mod support;
mod too_big;
mod two_cpus;
mod vlan;
