//! Networks made of namespaces, with the real `lbd`, real servers and clients in them. Called by the end-to-end tests,
//! the demo and the benches; never touches anything outside namespaces, pins and directories whose names begin `lbt-`.
//!
//! A test reads as a story: `let net = Topology::new("dsr").nodes(3).build()?; let lb = net.start_lb(CONFIG)?;`.
//! Everything is removed when its value is dropped, also by a panic; what a killed run left behind is removed by the next.

pub mod attack;
pub mod balancer;
pub mod bsd_carp;
pub mod busy;
pub mod command;
pub mod echo;
pub mod flood;
pub mod host;
pub mod http;
pub mod icmp;
pub mod namespace;
pub mod nginx;
pub mod owners;
pub mod probe;
pub mod raw;
pub mod router;
pub mod server;
pub mod streams;
pub mod topology;
pub mod udp;
pub mod wait;
pub mod xdp;

pub use attack::{Attack, Attacker, Change};
pub use balancer::{Lb, Stop};
pub use bsd_carp::BsdCarp;
pub use busy::BusyThreads;
pub use echo::EchoServer;
pub use flood::SynFlood;
pub use host::Host;
pub use http::{Requests, Tally};
pub use nginx::Nginx;
pub use owners::Owners;
pub use probe::Probe;
pub use router::Router;
pub use server::Server;
pub use streams::LiveStreams;
pub use topology::{Net, Topology};
pub use udp::{UdpSink, UdpStream};
pub use wait::eventually;
