//! What the stories share: configurations put together from a few words, and short ways to ask.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use lb_tests::harness::{
    Host, Net, http,
    http::Reply,
    topology::{vip4, vip6},
};

/// Long enough for anything that must happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// VIP 1 in both families, and VIP 2, raised on `eth0`, where the program is.
pub(crate) const ONE_ARM: &str = r#"
[interface.eth0]
[vip.one4]
addresses = ["10.1.1.1"]
interface = "eth0"
raise = true
[vip.one6]
addresses = ["fd00:1::1:1"]
interface = "eth0"
raise = true
[vip.two]
addresses = ["10.1.1.2"]
interface = "eth0"
raise = true
"#;

/// The balancer's program on both of its interfaces.
pub(crate) const TWO_ARM: &str = "[interface.eth1]\n";

/// A virtual server on a VIP group with a pool of the same name and these settings and nodes.
pub(crate) fn service(name: &str, vip: &str, protocol: &str, port: u16, pool: &str, nodes: &[String]) -> String {
    format!(
        "[virtual_server.{name}]\nvips = [\"{vip}\"]\nprotocol = \"{protocol}\"\nports = [{port}]\npool = \"{name}\"\n{}",
        self::pool(name, pool, nodes)
    )
}

/// A pool alone.
pub(crate) fn pool(name: &str, settings: &str, nodes: &[String]) -> String {
    format!("[pool.{name}]\n{settings}\n{}\n", nodes.join("\n"))
}

/// The pool lines of these machines: IPv4, with a port (0: the packet's) and a weight each.
pub(crate) fn nodes4(machines: &[Host], port: u16, weights: &[u32]) -> Vec<String> {
    let weight = |index: usize| weights.get(index).copied().unwrap_or(1);
    machines.iter().enumerate().map(|(index, node)| entry(&node.name, node.v4.into(), port, weight(index))).collect()
}

/// As [`nodes4`], IPv6 and weight 1.
pub(crate) fn nodes6(machines: &[Host], port: u16) -> Vec<String> {
    machines.iter().map(|node| entry(&node.name, node.v6.into(), port, 1)).collect()
}

fn entry(name: &str, address: IpAddr, port: u16, weight: u32) -> String {
    let address = if port == 0 { address.to_string() } else { SocketAddr::new(address, port).to_string() };
    format!("node.{name} = {{ address = \"{address}\", weight = {weight} }}")
}

/// VIP 1, IPv4.
pub(crate) fn one4(port: u16) -> SocketAddr {
    SocketAddr::new(vip4(1), port)
}

/// VIP 1, IPv6.
pub(crate) fn one6(port: u16) -> SocketAddr {
    SocketAddr::new(vip6(1), port)
}

/// VIP 2, IPv4.
pub(crate) fn two4(port: u16) -> SocketAddr {
    SocketAddr::new(vip4(2), port)
}

/// A page, from the first client.
pub(crate) fn ask(net: &Net, target: SocketAddr, path: &str) -> Result<Reply> {
    Ok(net.client().run(|| http::get(target, None, path, SOON))?)
}

/// Id of the XDP program on `eth0`.
pub(crate) fn program_on(host: &Host) -> Result<u64> {
    let link: serde_json::Value = serde_json::from_str(&host.sh("ip -j link show dev eth0")?)?;
    link[0]["xdp"]["prog"]["id"].as_u64().with_context(|| format!("no XDP program on eth0: {link}"))
}
