//! NAT connections and persistence go on when a VIP group moves: the machines tell each other of them.

use std::{collections::BTreeSet, fs, net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use lb::control::view::{SharingView, VipState};
use lb_tests::harness::{EchoServer, Lb, LiveStreams, Net, Stop, Topology, eventually, topology::vip4, wait::let_pass};

use super::support::SOON;

const PORT: u16 = 7;
const STREAMS: usize = 200;

/// Two machines with one-arm NAT: nodes see the VIP, which moves with the group.
fn config(number: u8, key: &str, net: &Net) -> String {
    let (other, priority) = if number == 1 { (2, 200) } else { (1, 100) };
    let (own4, other4) = (number + 1, other + 1);
    let node = |index: usize| format!("node.n{} = {{ address = \"{}\" }}", index + 1, net.nodes[index].v4);
    // The nodes in another order, beside one more virtual server: slots and ids are not the same on both.
    let (first, second, more) = match number {
        1 => (node(0), node(1), String::new()),
        _ => (
            node(1),
            node(0),
            "[virtual_server.another]\nvips = [\"web\"]\nprotocol = \"udp\"\nports = 9\npool = \"another\"\n\
             [pool.another]\nforwarding = \"nat\"\nsource_nat = true\nsource_address = \"10.1.1.1\"\n\
             node.n1 = { address = \"10.1.2.1\" }\n"
                .to_owned(),
        ),
    };
    format!(
        r#"
[interface.eth0]
[cluster]
machine = "lb{number}"
key_file = "{key}"
listen = ["10.1.0.{own4}", "10.2.0.{own4}"]
peer.lb{other}.addresses = ["10.1.0.{other4}", "10.2.0.{other4}"]
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
forwarding = "nat"
source_nat = true
source_address = "10.1.1.1"
scheduler = "round_robin"
{first}
{second}
{more}"#
    )
}

struct Pair<'n> {
    lbs: [Lb<'n>; 2],
    _key: tempfile::TempDir,
    _echoes: Vec<EchoServer>,
}

impl<'n> Pair<'n> {
    fn start(net: &'n Net, more: &str) -> Result<Self> {
        let key = tempfile::tempdir()?;
        let file = key.path().join("cluster.key");
        fs::write(&file, [7; 32])?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let file = file.display().to_string();
        let echoes = net.nodes.iter().map(|node| EchoServer::start(node, PORT)).collect::<Result<_>>()?;
        let second = net.second.as_ref().context("a network without a second balancer")?;
        let with = |number: u8| config(number, &file, net) + more;
        let lbs = [Lb::start(net, &with(1))?, Lb::start_on(net, second, &with(2))?];
        let pair = Self { lbs, _key: key, _echoes: echoes };
        eventually("the first machine owns", SOON, || pair.states().is_ok_and(|states| states[0] == VipState::Active))?;
        for lb in &pair.lbs {
            lb.wait_for_next_hops("echo")?;
            eventually("they are connected", SOON, || {
                sharing(lb).is_ok_and(|view| view.machines.iter().all(|machine| machine.is_connected))
            })
            .with_context(|| format!("{:?}", sharing(lb)))?;
        }
        Ok(pair)
    }

    fn states(&self) -> Result<[VipState; 2]> {
        let state = |lb: &Lb<'_>| anyhow::Ok(lb.vips()?.groups[0].state);
        Ok([state(&self.lbs[0])?, state(&self.lbs[1])?])
    }
}

fn sharing(lb: &Lb<'_>) -> Result<SharingView> {
    lb.vips()?.cluster.and_then(|cluster| cluster.sharing).context("the machine shares nothing")
}

#[test]
fn nat_connections_go_on_when_a_machine_dies_and_when_the_group_comes_back() -> Result<()> {
    let net = Topology::new("sharing-nat").pair().nodes(2).build()?;
    let mut pair = Pair::start(&net, "")?;
    let streams = LiveStreams::start(net.client(), SocketAddr::new(vip4(1), PORT), STREAMS)?;
    ensure!(streams.by_node().len() == 2, "both nodes have some: {:?}", streams.by_node());
    eventually("the second machine knows them", SOON, || {
        sharing(&pair.lbs[0]).is_ok_and(|view| view.machines[0].told >= STREAMS as u64)
            && pair.lbs[1].connections(&[]).is_ok_and(|found| found.total >= STREAMS as u64)
    })
    .with_context(|| format!("{:?} {:?}", sharing(&pair.lbs[0]), sharing(&pair.lbs[1])))?;
    let before = pair.lbs[1].connections(&["--limit", "500"])?;
    let nodes: BTreeSet<&str> = before.connections.iter().map(|connection| connection.node.as_str()).collect();
    ensure!(nodes == BTreeSet::from(["n1", "n2"]), "their nodes have names there: {nodes:?}");

    pair.lbs[0].stop(Stop::Kill)?;
    eventually("the second machine takes over", SOON, || {
        pair.lbs[1].vips().is_ok_and(|view| view.groups[0].state == VipState::Active)
    })?;
    alive(&streams, "the first machine was killed")?;

    // It learns all of them, also those that it had itself, and gets them back.
    pair.lbs[0].launch()?;
    eventually("the first machine knows them again", 2 * SOON, || {
        sharing(&pair.lbs[1]).is_ok_and(|view| view.machines[0].told >= STREAMS as u64 * 99 / 100)
    })
    .with_context(|| format!("{:?}", sharing(&pair.lbs[1])))?;
    let_pass(Duration::from_millis(500));
    pair.lbs[1].ctl(&["vip", "failover", "web"])?;
    eventually("the first machine owns again", SOON, || {
        pair.states().is_ok_and(|states| states == [VipState::Active, VipState::Backup])
    })?;
    alive(&streams, "the group went back")?;
    drop(streams);
    eventually("what is over is over on both", 3 * SOON, || {
        let established = |lb: &Lb<'_>| lb.connections(&["--state", "established"]).map_or(1, |found| found.total);
        pair.lbs.iter().all(|lb| established(lb) == 0)
    })?;
    let counters = pair.lbs[1].metrics()?;
    ensure!(counters.contains("lb_share_up{machine=\"lb1\"} 1"), "{counters}");
    Ok(())
}

/// The bar of the issue: 99 of 100.
fn alive(streams: &LiveStreams, what: &str) -> Result<()> {
    let rounds = |streams: &LiveStreams| -> Vec<u64> { streams.states().iter().map(|state| state.rounds).collect() };
    let before = rounds(streams);
    let_pass(Duration::from_secs(3));
    let going = rounds(streams).iter().zip(&before).filter(|(now, before)| now > before).count();
    let broken: Vec<_> = streams.states().into_iter().filter_map(|state| state.broken).collect();
    ensure!(going * 100 >= STREAMS * 99, "{what}: {going} of {STREAMS} go on; broken: {broken:?}");
    Ok(())
}

#[test]
fn clients_keep_their_nodes_on_the_other_machine() -> Result<()> {
    let net = Topology::new("sharing-clients").pair().nodes(2).build()?;
    // In the table of the pool, which stands last.
    let pair = Pair::start(&net, "[pool.echo.persistence]\ntype = \"source_address\"\n")?;
    let connect = || LiveStreams::start(net.client(), SocketAddr::new(vip4(1), PORT), 1);
    let node = |stream: &LiveStreams| stream.states().remove(0).node;
    // Alive until the other machine knows both, the connection and the client.
    let stream = connect()?;
    let first = node(&stream);
    eventually("the second machine knows the client", SOON, || {
        sharing(&pair.lbs[1]).is_ok_and(|view| view.fates["installed"] >= 2)
    })
    .with_context(|| format!("{:?}", sharing(&pair.lbs[1])))?;
    drop(stream);
    pair.lbs[0].ctl(&["vip", "failover", "web"])?;
    eventually("the second machine owns", SOON, || {
        pair.states().is_ok_and(|states| states == [VipState::Backup, VipState::Active])
    })?;
    // Round robin would go on to the other node at each connection.
    for _ in 0..6 {
        ensure!(node(&connect()?) == first, "the client was with {first} before");
    }
    Ok(())
}
