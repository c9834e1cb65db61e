//! A large site: its configuration, and the way to its nodes.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::Result;
use lb_tests::harness::Net;

/// Virtual servers that share a VIP.
const PER_VIP: usize = 100;
/// The port of the first of them; each further one has the next.
const FIRST_PORT: usize = 8_000;
/// Nodes of a pool at most: the address plan.
const MOST_NODES: usize = 60;
/// Its nodes are in here.
const NETWORK: &str = "10.64.0.0/10";

const L4: &str = "forwarding = \"nat\"\nsource_nat = true\n";
const L7: &str = "forwarding = \"proxy\"\n";

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) virtual_servers: usize,
    /// Of each.
    pub(crate) nodes: usize,
    /// Virtual servers that XDP forwards; the others are the proxy's.
    pub(crate) l4: usize,
}

impl Default for Site {
    fn default() -> Self {
        Self { virtual_servers: 1_000, nodes: 10, l4: 500 }
    }
}

impl Site {
    /// Whether the commands of the bench find what they ask for, and addresses suffice.
    pub(crate) fn fits(self) -> bool {
        (501..=4_000).contains(&self.virtual_servers)
            && (4..=MOST_NODES).contains(&self.nodes)
            && self.l4 <= self.virtual_servers
    }

    /// The nodes are behind the only neighbour.
    pub(crate) fn route(self, net: &Net) -> Result<()> {
        net.balancer.ip(&[format!("route add {NETWORK} via {}", net.nodes[0].v4)])
    }

    pub(crate) fn config(self) -> String {
        let mut text = "[interface.eth0]\n[proxy]\nthreads = 2\n".to_owned();
        for vip in 0..self.virtual_servers.div_ceil(PER_VIP) {
            let address = Ipv4Addr::new(10, 1, 1, vip as u8 + 1);
            write(
                &mut text,
                format_args!("[vip.vip{vip}]\naddresses = [\"{address}\"]\ninterface = \"eth0\"\nraise = true\n"),
            );
        }
        for number in 0..self.virtual_servers {
            let (protocol, forwarding) = if number < self.l4 { ("tcp", L4) } else { ("http", L7) };
            let (vip, port) = (number / PER_VIP, FIRST_PORT + number % PER_VIP);
            write(
                &mut text,
                format_args!(
                    "[virtual_server.vs{number}]\nvips = [\"vip{vip}\"]\nprotocol = \"{protocol}\"\nports = {port}\n\
                     pool = \"pool{number}\"\n[pool.pool{number}]\n{forwarding}"
                ),
            );
            for node in 0..self.nodes {
                let address = Ipv4Addr::new(10, 64 + node as u8, (number / 250) as u8, (number % 250) as u8 + 1);
                write(&mut text, format_args!("node.node{node} = {{ address = \"{address}:80\", weight = 10 }}\n"));
            }
        }
        text
    }
}

fn write(text: &mut String, line: std::fmt::Arguments<'_>) {
    // A string takes all.
    let _ = text.write_fmt(line);
}
