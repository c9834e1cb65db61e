//! Arguments of `lbctl conn ls`.

use std::net::IpAddr;

use clap::Args;

use super::{forwarding, protocol, requests::RequestArguments};
use crate::control::{
    plan::{Forwarding, Protocol},
    proxy::{Network, recent::Filter},
    query::ConnectionFilter,
};

/// Which connections.
#[derive(Debug, Args)]
pub struct ConnectionArguments {
    /// Of this virtual server
    #[arg(long, value_name = "NAME")]
    vs: Option<String>,
    /// Of nodes of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Of this node
    #[arg(long, value_name = "[POOL/]NODE")]
    node: Option<String>,
    /// Of this client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Of this protocol
    #[arg(long, value_name = "tcp|udp", value_parser = protocol)]
    protocol: Option<Protocol>,
    /// In this state: syn-sent, syn-received, established, fin-wait, time-wait, closed, udp-new, udp
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Forwarded this way
    #[arg(long, value_name = "dsr|nat|nat_source", value_parser = forwarding)]
    forwarding: Option<Forwarding>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Of the L7 proxy.
    #[command(flatten)]
    requests: RequestArguments,
}

impl ConnectionArguments {
    /// Whether requests are meant, not connections.
    #[must_use]
    pub fn is_l7(&self) -> bool {
        self.requests.l7
    }

    /// Which requests, as the API takes them.
    ///
    /// # Errors
    /// When a filter of connections is among them.
    pub fn requests(self) -> Result<Filter, String> {
        for (name, given) in [
            ("--protocol", self.protocol.is_some()),
            ("--state", self.state.is_some()),
            ("--forwarding", self.forwarding.is_some()),
        ] {
            if given {
                return Err(format!("{name} is for connections, not with --l7"));
            }
        }
        let (pool, node) = split(self.node);
        let filter = Filter {
            virtual_server: self.vs,
            pool: self.pool.or(pool),
            node,
            client: self.client.map(|address| Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } }),
            limit: Some(self.limit),
            ..Filter::default()
        };
        Ok(self.requests.onto(filter))
    }

    /// As the API takes them; `POOL/NODE` names the pool unless `--pool` does.
    #[must_use]
    pub fn filter(self) -> ConnectionFilter {
        let (pool, node) = split(self.node);
        ConnectionFilter {
            virtual_server: self.vs,
            pool: self.pool.or(pool),
            node,
            client: self.client,
            protocol: self.protocol,
            state: self.state,
            forwarding: self.forwarding,
            limit: Some(self.limit),
        }
    }
}

/// `POOL/NODE` or `NODE`.
fn split(node: Option<String>) -> (Option<String>, Option<String>) {
    match node {
        Some(node) => match node.split_once('/') {
            Some((pool, node)) => (Some(pool.to_owned()), Some(node.to_owned())),
            None => (None, Some(node)),
        },
        None => (None, None),
    }
}
