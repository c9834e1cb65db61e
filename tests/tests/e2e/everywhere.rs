//! VIP groups that every machine has: announced by BGP to a router that spreads clients over the machines (ECMP), by lbd itself
//! to FRR and BIRD, and by a BIRD beside lbd.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb::control::view::{NeighborState, VipState};
use lb_tests::{
    harness::{EchoServer, Host, Lb, Net, Probe, Router, Stop, eventually, wait::let_pass},
    site::{MORE, PASSWORD, PORT, Site, VIP4, bird, config, frr, gateway, network, next_hops, service},
};

use super::support::SOON;

/// The bounds of the issue, in what a client sees. What an observer sees of the route has room for his questions.
const WITHDRAWN: Duration = Duration::from_millis(50);
const KILLED: Duration = Duration::from_millis(100);
const SEEN: Duration = Duration::from_millis(400);

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
    reloaded(net, &site)?;
    site.lbs[0].stop(Stop::Graceful)?;
    site.wait_for(&[3], SOON).context("a machine that stops")?;
    Ok(())
}

/// Other VIPs are announced in the session that stands; a neighbour that is gone hears a withdrawal.
fn reloaded(net: &Net, site: &Site<'_>) -> Result<()> {
    let (lb, node) = (&site.lbs[1], &net.nodes[0]);
    let password = site.password();
    // Long enough for its age in whole seconds to say whether it is the same one.
    let_pass(Duration::from_millis(1_100));
    lb.reload(&config(2, &password, &format!(", \"{MORE}\""), node))?;
    let hops = || next_hops(gateway(net), MORE).unwrap_or_default();
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
