//! VIP groups under load: connections that outlive the loss of their machine, and a machine that is busy and not dead.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{
    BusyThreads, EchoServer, Lb, LiveStreams, Net, Owners, Topology, eventually,
    owners::Seen,
    topology::{vip4, vip6},
    wait::let_pass,
};
use nix::sys::signal::Signal;

use super::{
    pair::{NO_FAILBACK, Pair, cluster, network, priority},
    support::SOON,
};

const PORT: u16 = 7;
const STREAMS: usize = 200;

/// The same pool on both machines: their rings are the same.
fn config(net: &Net, number: u8, key: &str) -> String {
    let (cluster, priority) = (cluster(number, key), priority(number));
    let nodes: Vec<String> =
        net.nodes.iter().map(|node| format!("node.{} = {{ address = \"{}\" }}", node.name, node.v4)).collect();
    format!(
        r#"
[interface.eth0]
{cluster}
[vip.web]
addresses = ["10.1.1.1"]
mode = "failover"
priority = {priority}
failback = false
[virtual_server.echo]
vips = ["web"]
protocol = "tcp"
ports = {PORT}
pool = "echo"
[pool.echo]
forwarding = "dsr"
scheduler = "maglev"
{}
"#,
        nodes.join("\n")
    )
}

#[test]
fn two_hundred_dsr_streams_outlive_their_machine() -> Result<()> {
    let net = Topology::new("failover-streams").pair().nodes(3).dsr(&[vip4(1), vip6(1)]).build()?;
    let _echoes = net.nodes.iter().map(|node| EchoServer::start(node, PORT)).collect::<Result<Vec<_>>>()?;
    let key = tempfile::tempdir()?;
    let file = key.path().join("cluster.key");
    fs::write(&file, [7; 32])?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let file = file.display().to_string();
    let second = net.second.as_ref().context("a network without a second balancer")?;
    let first_lb = Lb::start(&net, &config(&net, 1, &file))?;
    let second_lb = Lb::start_on(&net, second, &config(&net, 2, &file))?;
    let owners = Owners::watch(&[&net.balancer, second], &[vip4(1)])?;
    eventually("the first machine owns", SOON, || owners.only() == Some(0))?;
    for lb in [&first_lb, &second_lb] {
        lb.wait_for_next_hops("echo")?;
    }
    let streams = LiveStreams::start(net.client(), SocketAddr::new(vip4(1), PORT), STREAMS)?;
    streams.all_go_on(3, 2 * SOON)?;
    let placed = streams.by_node();
    ensure!(placed.len() == 3, "every node has some: {placed:?}");
    net.isolate("lb")?;
    eventually("the second machine owns", SOON, || second.has_address(vip4(1)).unwrap_or(false))?;
    streams.all_go_on(5, 2 * SOON).context("after the machine was lost")?;
    ensure!(streams.broken().is_empty() && streams.by_node() == placed, "{:?}", streams.broken());
    ensure!(second_lb.packets("forwarded_dsr")? >= STREAMS as u64, "the second machine forwards them");
    Ok(())
}

#[test]
fn a_busy_machine_is_not_dead() -> Result<()> {
    let net = network("failover-busy")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let owners = Owners::watch(&pair.machines(), &[vip4(1)])?;
    eventually("the first machine owns", SOON, || owners.only() == Some(0))?;
    let start = Instant::now();
    let load = BusyThreads::start(10);
    let_pass(Duration::from_secs(20));
    drop(load);
    let seen = owners.since(start);
    ensure!(seen == Seen { owners_max: 1, ..Seen::default() }, "{seen:?}");
    let transitions = pair.second.vips()?.groups[0].transitions;
    ensure!(transitions == Some(0), "the second machine took the group {transitions:?} times");
    ensure!(pair.first.packets("lease_ended")? == 0, "the lease ended on a machine that was only busy");
    Ok(())
}

/// A hypervisor's pause of the machine that waits: what it did not hear meanwhile is in its socket.
#[test]
fn a_machine_that_did_not_listen_takes_nothing() -> Result<()> {
    let net = network("failover-deaf")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let owners = Owners::watch(&pair.machines(), &[vip4(1)])?;
    eventually("the first machine owns", SOON, || owners.only() == Some(0))?;
    let start = Instant::now();
    for pause in (150..=300).step_by(10).cycle().take(32) {
        pair.second.signal(Signal::SIGSTOP)?;
        let_pass(Duration::from_millis(pause));
        pair.second.signal(Signal::SIGCONT)?;
        let_pass(Duration::from_millis(100));
    }
    let seen = owners.since(start);
    ensure!(seen == Seen { owners_max: 1, ..Seen::default() }, "{seen:?}");
    let transitions = pair.second.vips()?.groups[0].transitions;
    ensure!(transitions == Some(0), "the second machine took the group {transitions:?} times");
    Ok(())
}
