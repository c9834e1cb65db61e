//! TCP connect: the node's port answers. The connection is closed at once, in the ordinary way (FIN), with nothing sent.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{machine::Outcome, probe};

/// Connects to the node's address, at `port` when the monitor has its own. Dropping the future gives the attempt up.
pub(super) async fn check(mut address: SocketAddr, port: Option<u16>) -> Outcome {
    if let Some(port) = port {
        address.set_port(port);
    }
    if address.port() == 0 {
        return Outcome::Untested("neither the node nor the monitor has a port: give the monitor one".into());
    }
    match TcpStream::connect(address).await {
        Ok(_connection) => Outcome::Answered,
        Err(error) => probe::outcome(&error),
    }
}
