//! Clients' connections when their machine is lost: how many of them go on at the other one.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result};
use lb::control::view::VipState;
use lb_tests::harness::{
    EchoServer, Lb, LiveStreams, Net, Topology, eventually,
    topology::{vip4, vip6},
};

/// Cases, by how the pool forwards.
pub(crate) const CASES: [&str; 2] = ["streams_dsr", "streams_nat"];

/// How many connections; the bar is 99.9 % of them with DSR, 99 % with NAT.
const STREAMS: usize = 200;
const PORT: u16 = 7;
/// More lines that a connection has to get back afterwards, and within which time: as long as TCP needs to send again.
const ROUNDS: u64 = 5;
const WITHIN: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(15);

/// The same pool on both machines.
fn config(net: &Net, case: &str, number: u8, key: &str) -> String {
    let (other, priority) = if number == 1 { (2, 200) } else { (1, 100) };
    let (own4, other4) = (number + 1, other + 1);
    let nodes: Vec<String> =
        net.nodes.iter().map(|node| format!("node.{} = {{ address = \"{}\" }}", node.name, node.v4)).collect();
    let pool = match case {
        "streams_nat" => "forwarding = \"nat\"\nsource_nat = true\nsource_address = \"10.1.1.1\"",
        _ => "forwarding = \"dsr\"\nscheduler = \"maglev\"",
    };
    format!(
        "[interface.eth0]\n[cluster]\nmachine = \"lb{number}\"\nkey_file = \"{key}\"\n\
         listen = [\"10.1.0.{own4}\", \"10.2.0.{own4}\"]\npeer.lb{other}.addresses = [\"10.1.0.{other4}\", \"10.2.0.{other4}\"]\n\
         [vip.web]\naddresses = [\"10.1.1.1\"]\nmode = \"failover\"\npriority = {priority}\nfailback = false\n\
         [virtual_server.echo]\nvips = [\"web\"]\nprotocol = \"tcp\"\nports = {PORT}\npool = \"echo\"\n\
         [pool.echo]\n{pool}\n{}\n",
        nodes.join("\n")
    )
}

/// One loss of the machine that owns: the share of connections that go on, in percent.
pub(crate) fn measure(case: &str) -> Result<f64> {
    let mut topology = Topology::new("bench-streams").pair().nodes(3);
    if case == "streams_dsr" {
        topology = topology.dsr(&[vip4(1), vip6(1)]);
    }
    let net = topology.build()?;
    let _echoes = net.nodes.iter().map(|node| EchoServer::start(node, PORT)).collect::<Result<Vec<_>>>()?;
    let secrets = tempfile::tempdir()?;
    let file = secrets.path().join("cluster.key");
    fs::write(&file, [7; 32])?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let file = file.display().to_string();
    let host = net.second.as_ref().context("a network without a second machine")?;
    let first = Lb::start(&net, &config(&net, case, 1, &file))?.quiet();
    let second = Lb::start_on(&net, host, &config(&net, case, 2, &file))?.quiet();
    let owns = |lb: &Lb<'_>| lb.vips().is_ok_and(|view| view.groups[0].state == VipState::Active);
    eventually("the first machine owns", SOON, || owns(&first) && !owns(&second))?;
    for lb in [&first, &second] {
        lb.wait_for_next_hops("echo")?;
    }
    let streams = LiveStreams::start(net.client(), SocketAddr::new(vip4(1), PORT), STREAMS)?;
    streams.all_go_on(3, SOON)?;
    if case == "streams_nat" {
        // What is told is younger than that: connections that have just begun are not what is measured.
        eventually("the second machine knows them", SOON, || {
            second.connections(&[]).is_ok_and(|found| found.total >= STREAMS as u64)
        })?;
    }
    net.isolate("lb")?;
    eventually("the second machine owns", SOON, || owns(&second))?;
    let before: Vec<u64> = streams.states().iter().map(|state| state.rounds).collect();
    let gone_on = || {
        let states = streams.states().into_iter().zip(&before);
        states.filter(|(state, before)| state.broken.is_none() && state.rounds >= **before + ROUNDS).count()
    };
    // Those that do not are the result.
    let _ = eventually("all go on", WITHIN, || gone_on() == STREAMS);
    Ok(gone_on() as f64 * 100.0 / STREAMS as f64)
}
