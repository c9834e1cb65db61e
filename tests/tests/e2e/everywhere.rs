//! VIP groups that every machine has: announced by BGP to a router that spreads clients over the machines (ECMP), by lbd itself
//! to FRR and BIRD, and by a BIRD beside lbd.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb::control::view::{NeighborState, VipState};
use lb_tests::harness::{EchoServer, Host, Lb, Net, Probe, Router, Stop, Topology, eventually, wait::let_pass};

use super::support::SOON;

const PORT: u16 = 7;
const VIP4: &str = "10.50.0.1";
const VIP6: &str = "fd00:50::1";
/// A second one, for reloads.
const MORE: &str = "10.50.0.2";
const PASSWORD: &str = "correct-horse";

/// The bounds of the issue, in what a client sees. What an observer sees of the route has room for his questions.
const WITHDRAWN: Duration = Duration::from_millis(50);
const KILLED: Duration = Duration::from_millis(100);
const SEEN: Duration = Duration::from_millis(400);

fn network(name: &str) -> Result<Net> {
    let vips = [VIP4, VIP6, MORE].map(|vip| vip.parse::<IpAddr>().expect("an address"));
    let net = Topology::new(name).pair().routed().nodes(1).dsr(&vips).build()?;
    let router = net.router.as_ref().context("a network without a router")?;
    // By addresses and ports: one client's flows go to all machines.
    router.sysctls(&[("net/ipv4/fib_multipath_hash_policy", "1"), ("net/ipv6/fib_multipath_hash_policy", "1")])?;
    Ok(net)
}

fn frr(host: &Host) -> Result<Router> {
    let neighbor = |last: u8| {
        format!(
            " neighbor 10.1.0.{last} remote-as 65001\n neighbor 10.1.0.{last} passive\n neighbor 10.1.0.{last} password {PASSWORD}\n"
        )
    };
    let family = |family: &str| {
        format!(
            " address-family {family} unicast\n  neighbor 10.1.0.2 activate\n  neighbor 10.1.0.3 activate\n  maximum-paths 8\n exit-address-family\n"
        )
    };
    let neighbors = neighbor(2) + &neighbor(3);
    let config = format!(
        "no zebra nexthop kernel enable\nrouter bgp 65000\n bgp router-id 10.1.0.1\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{neighbors}{}{}",
        family("ipv4"),
        family("ipv6")
    );
    Router::frr(host, &["bgpd"], &config)
}

fn bird(host: &Host) -> Result<Router> {
    let neighbor = |name: &str, last: u8| {
        format!(
            "protocol bgp {name} {{ local as 65000; neighbor 10.1.0.{last} as 65001; passive on; password \"{PASSWORD}\";\n\
             ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n"
        )
    };
    let config = format!(
        "log stderr all;\nrouter id 10.1.0.1;\nprotocol device {{ }}\n\
         protocol kernel {{ merge paths on; ipv4 {{ export all; }}; }}\n\
         protocol kernel {{ merge paths on; ipv6 {{ export all; }}; }}\n{}{}",
        neighbor("lb1", 2),
        neighbor("lb2", 3)
    );
    Router::bird(host, &config)
}

/// The configuration of one of the machines.
fn config(number: u8, password: &Path, more: &str, node: &Host) -> String {
    let password = password.display();
    format!(
        r#"
[interface.eth0]
[bgp]
as = 65001
communities = ["65001:{number}"]
[bgp.neighbor.r1]
address = "10.1.0.1"
as = 65000
password_file = "{password}"
next_hop6 = "fd00:1::{}"
{}"#,
        number + 1,
        service(more, node)
    )
}

/// An echo service on VIPs that every machine has.
fn service(more: &str, node: &Host) -> String {
    format!(
        r#"
[vip.web]
addresses = ["{VIP4}", "{VIP6}"{more}]
mode = "everywhere"
[virtual_server.echo]
vips = ["web"]
protocol = "udp"
ports = {PORT}
pool = "echo"
[pool.echo]
forwarding = "dsr"
monitors = ["alive"]
node.n1 = {{ address = "{}" }}
node.n2 = {{ address = "{}" }}
[monitor.alive]
type = "ping"
delay = "200ms"
timeout = "200ms"
"#,
        node.v4, node.v6
    )
}

/// Two machines behind a router, and a client.
struct Site<'n> {
    net: &'n Net,
    lbs: [Lb<'n>; 2],
    router: Router,
    probe: Probe,
    _echo: EchoServer,
    secrets: tempfile::TempDir,
}

impl<'n> Site<'n> {
    fn start(net: &'n Net, router: fn(&Host) -> Result<Router>) -> Result<Self> {
        let secrets = tempfile::tempdir()?;
        let password = secrets.path().join("bgp.key");
        fs::write(&password, format!("{PASSWORD}\n"))?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        let second = net.second.as_ref().context("a network without a second machine")?;
        let node = &net.nodes[0];
        let echo = EchoServer::start(node, PORT)?;
        let router = router(gateway(net))?;
        let lbs = [
            Lb::start(net, &config(1, &password, "", node))?,
            Lb::start_on(net, second, &config(2, &password, "", node))?,
        ];
        let probe = Probe::start(net.client(), SocketAddr::new(VIP4.parse()?, PORT))?;
        let site = Self { net, lbs, router, probe, _echo: echo, secrets };
        site.wait_for(&[2, 3], 3 * SOON).context("both machines are announced")?;
        eventually("the VIP answers", SOON, || site.probe.is_answered())?;
        Ok(site)
    }

    /// Waits until the router has routes over just these machines, by the last byte of their addresses; how long it took.
    fn wait_for(&self, machines: &[u8], within: Duration) -> Result<Duration> {
        let mut last = String::new();
        let outcome = eventually(&format!("the routes lead over {machines:?}"), within, || {
            let found = [VIP4, VIP6].map(|vip| next_hops(gateway(self.net), vip).unwrap_or_default());
            last = format!("{found:?}");
            found.iter().all(|hops| hops == machines)
        });
        outcome.with_context(|| format!("{last}\n{}", self.router.log()))
    }

    /// The client's gap while something is done that makes the routes lead over these machines alone.
    fn gap(&self, machines: &[u8], what: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let mark = self.probe.mark();
        what()?;
        self.wait_for(machines, SOON)?;
        let_pass(Duration::from_millis(500));
        Ok(self.probe.gap_since(mark).0)
    }
}

fn gateway(net: &Net) -> &Host {
    net.router.as_ref().expect("the network has a router")
}

/// The machines that a router's route to a VIP leads over, by the last byte of their addresses.
fn next_hops(router: &Host, vip: &str) -> Result<Vec<u8>> {
    let family = if vip.contains(':') { "-6" } else { "-4" };
    let text = router.sh(&format!("ip {family} -o route show {vip}"))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let via = words.windows(2).filter(|pair| pair[0] == "via").map(|pair| pair[1]);
    let mut last: Vec<u8> = via.filter_map(|address| address.rsplit(['.', ':']).next()?.parse().ok()).collect();
    last.sort_unstable();
    Ok(last)
}

fn state(lb: &Lb<'_>) -> Result<VipState> {
    Ok(lb.vips()?.groups[0].state)
}

#[test]
fn frr_spreads_clients_over_the_machines_that_announce() -> Result<()> {
    announced(&network("bgp-frr")?, frr)
}

#[test]
fn bird_spreads_clients_over_the_machines_that_announce() -> Result<()> {
    announced(&network("bgp-bird")?, bird)
}

fn announced(net: &Net, router: fn(&Host) -> Result<Router>) -> Result<()> {
    let mut site = Site::start(net, router)?;
    ensure!(state(&site.lbs[0])? == VipState::Announced, "lb1 announces");
    let neighbor = site.lbs[0].vips()?.neighbors.remove(0);
    ensure!((neighbor.state, neighbor.announced) == (NeighborState::Established, 2), "{neighbor:?}");

    for (index, other) in [(0, 3), (1, 2)] {
        let lb = &site.lbs[index];
        let gap = site.gap(&[other], || lb.ctl(&["vip", "maintenance", "on"]).map(drop))?;
        ensure!(gap < WITHDRAWN, "maintenance of machine {index}: {gap:?} without an answer");
        ensure!(state(lb)? == VipState::Withdrawn, "{:?}", lb.vips()?);
        let host = [&net.balancer, net.second.as_ref().context("no second machine")?][index];
        ensure!(host.has_address(VIP4.parse()?)?, "what is on its way is still served");
        let gap = site.gap(&[2, 3], || lb.ctl(&["vip", "maintenance", "off"]).map(drop))?;
        ensure!(gap < WITHDRAWN, "back from maintenance of machine {index}: {gap:?} without an answer");
    }

    for node in ["n1", "n2"] {
        site.lbs[1].ctl(&["node", "disable", &format!("echo/{node}")])?;
    }
    site.wait_for(&[2], SOON).context("the second machine has no node left")?;
    let why = site.lbs[1].vips()?.groups[0].why.clone().unwrap_or_default();
    ensure!(why == "no node is known to serve echo", "{why}");
    site.lbs[1].ctl(&["node", "enable", "echo/n1"])?;
    site.wait_for(&[2, 3], SOON).context("it has one again")?;

    for index in 0..2 {
        let mark = site.probe.mark();
        site.lbs[index].stop(Stop::Kill)?;
        let took = site.wait_for(&[[3, 2][index]], SOON)?;
        ensure!(took < SEEN, "the router went on for {took:?} after lbd {index} was killed");
        let_pass(Duration::from_millis(500));
        let (gap, _) = site.probe.gap_since(mark);
        ensure!(gap < KILLED, "kill -9 of machine {index}: {gap:?} without an answer");
        site.lbs[index].launch()?;
        site.wait_for(&[2, 3], 3 * SOON).context("it comes back")?;
    }
    reloaded(&site)?;
    site.lbs[0].stop(Stop::Graceful)?;
    site.wait_for(&[3], SOON).context("a machine that stops")?;
    Ok(())
}

/// Other VIPs are announced in the session that stands; a neighbour that is gone hears a withdrawal.
fn reloaded(site: &Site<'_>) -> Result<()> {
    let (lb, node) = (&site.lbs[1], &site.net.nodes[0]);
    let password = site.secrets.path().join("bgp.key");
    // Long enough for its age in whole seconds to say whether it is the same one.
    let_pass(Duration::from_millis(1_100));
    lb.reload(&config(2, &password, &format!(", \"{MORE}\""), node))?;
    let hops = || next_hops(gateway(site.net), MORE).unwrap_or_default();
    eventually("the new VIP is announced", SOON, || hops() == [3])?;
    ensure!(lb.vips()?.neighbors[0].since_s >= 1, "the session goes on: {:?}", lb.vips()?.neighbors);
    lb.reload(&config(2, &password, "", node))?;
    eventually("it is withdrawn", SOON, || hops().is_empty())?;
    fs::write(&password, "wrong")?;
    lb.reload(&config(2, &password, "", node))?;
    site.wait_for(&[2], 2 * SOON).context("with the wrong password there is no session")?;
    let warned = |text: &str| lb.status().is_ok_and(|status| status.warnings.iter().any(|w| w.contains(text)));
    eventually("the status says so", SOON * 2, || warned("there is no BGP session with r1 (10.1.0.1)"))?;
    fs::write(&password, PASSWORD)?;
    lb.reload(&config(2, &password, "", node))?;
    site.wait_for(&[2, 3], 2 * SOON).map(drop)
}

/// A BIRD beside lbd, that announces what lbd raises on the loopback interface.
fn beside(host: &Host) -> Result<Router> {
    Router::bird(
        host,
        "log stderr all;\nrouter id 10.1.0.2;\nprotocol device { }\n\
         protocol direct { ipv4; ipv6; interface \"lo\"; }\n\
         filter vips { if net ~ [10.50.0.0/24+] then accept; reject; }\n\
         protocol bgp r1 { local as 65001; neighbor 10.1.0.1 as 65000;\n\
         ipv4 { import none; export filter vips; next hop self; }; }\n",
    )
}

#[test]
fn a_routing_daemon_beside_lbd_announces_what_it_raises() -> Result<()> {
    let net = network("bgp-beside")?;
    let node = &net.nodes[0];
    let _echo = EchoServer::start(node, PORT)?;
    let _router = Router::bird(
        gateway(&net),
        "log stderr all;\nrouter id 10.1.0.1;\nprotocol device { }\nprotocol kernel { ipv4 { export all; }; }\n\
         protocol bgp lb1 { local as 65000; neighbor 10.1.0.2 as 65001; passive on; ipv4 { import all; export none; }; }\n",
    )?;
    let _beside = beside(&net.balancer)?;
    let config = format!("[interface.eth0]\n{}", service("", node));
    let mut lb = Lb::start(&net, &config)?;
    let hops = || next_hops(gateway(&net), VIP4).unwrap_or_default();
    eventually("the VIP is announced", 4 * SOON, || hops() == [2])?;
    let probe = Probe::start(net.client(), SocketAddr::new(VIP4.parse()?, PORT))?;
    eventually("the VIP answers", SOON, || probe.is_answered())?;
    lb.ctl(&["vip", "maintenance", "on"])?;
    let took = eventually("the VIP is withdrawn", SOON, || hops().is_empty())?;
    ensure!(took < SEEN, "{took:?} until the route was gone");
    ensure!(!net.balancer.has_address(VIP4.parse()?)?, "the address is what BIRD announces");
    lb.ctl(&["vip", "maintenance", "off"])?;
    eventually("the VIP is announced again", SOON, || hops() == [2])?;
    lb.stop(Stop::Kill)?;
    let took = eventually("the guard withdraws it", SOON, || hops().is_empty())?;
    ensure!(took < SEEN, "{took:?} until the route was gone after lbd was killed");
    lb.launch()?;
    eventually("the VIP is announced once more", SOON, || hops() == [2]).map(drop)
}
