//! The test network without a balancer: what every other test takes for granted.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::harness::{EchoServer, LiveStreams, Nginx, Topology, UdpSink, UdpStream, eventually, http, icmp};

use crate::support::SOON;

#[test]
fn machines_reach_each_other_in_every_topology() -> Result<()> {
    for (name, topology) in [
        ("one segment", Topology::new("net").clients(2).nodes(2)),
        ("routed", Topology::new("net").nodes(1).routed()),
        ("two arms", Topology::new("net").nodes(1).two_arm()),
    ] {
        let net = topology.build()?;
        for client in &net.clients {
            for address in net.balancer.addresses() {
                client.run(|| icmp::ping(address, 1, Duration::from_secs(2)))?;
            }
        }
        for node in &net.nodes {
            for address in node.addresses() {
                ensure!(
                    net.balancer.run(|| icmp::ping(address, 1, Duration::from_secs(2))).is_ok(),
                    "{name}: {address}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn servers_and_clients_work_without_a_balancer() -> Result<()> {
    let net = Topology::new("net").nodes(1).build()?;
    let node = &net.nodes[0];
    let _nginx = Nginx::start(node, &[80])?;
    let _echo = EchoServer::start(node, 7)?;
    let address = |port| SocketAddr::new(node.v4.into(), port);

    let source = "10.1.200.1".parse()?;
    let reply = net.client().run(|| http::get(address(80), Some(source), "/large", Duration::from_secs(5)))?;
    ensure!(reply.node == "n1" && reply.remote == "10.1.200.1" && reply.local == Some(address(80)), "{reply:?}");
    let tally = http::send_many(net.client(), SocketAddr::new(node.v6.into(), 80), 50, 2)?;
    ensure!(tally.answered() == 50 && tally.failures.is_empty(), "{tally:?}");

    let streams = LiveStreams::start(net.client(), address(7), 50)?;
    streams.all_go_on(3, Duration::from_secs(5))?;

    let sink = UdpSink::start(&net.nodes, 9)?;
    let stream = UdpStream::start(net.client(), address(9), 20_000, 8)?;
    stream.wait_for_more(20_000)?;
    sink.all_came(stream.stop()?)
}

#[test]
fn what_breaks_is_noticed() -> Result<()> {
    let net = Topology::new("net").nodes(1).build()?;
    let node = &net.nodes[0];
    let echo = EchoServer::start(node, 7)?;
    let sink = UdpSink::start(&net.nodes, 9)?;
    let streams = LiveStreams::start(net.client(), SocketAddr::new(node.v4.into(), 7), 5)?;
    let numbers = UdpStream::start(net.client(), SocketAddr::new(node.v4.into(), 9), 5_000, 2)?;
    streams.all_go_on(2, SOON)?;
    numbers.wait_for_more(500)?;
    net.pull_cable("n1")?;
    numbers.wait_for_more(500)?;
    ensure!(streams.all_go_on(1, Duration::from_millis(300)).is_err(), "streams without a cable go on");
    net.plug_cable("n1")?;
    numbers.wait_for_more(500)?;
    let lost = sink.all_came(numbers.stop()?).map_err(|error| error.to_string());
    ensure!(lost.as_ref().is_err_and(|why| why.contains("datagrams are lost")), "{lost:?}");
    streams.all_go_on(2, SOON)?;
    drop(echo);
    eventually("the streams break with their server", SOON, || streams.broken().len() == 5)?;
    Ok(())
}
