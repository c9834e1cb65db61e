//! How new connections are spread over the nodes, counted over thousands of them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::harness::{EchoServer, LiveStreams, Net, Nginx, Tally, Topology, http, topology::vip4, wait::let_pass};

use crate::support::{ONE_ARM, SOON, nodes4, one4, pool, service};

const CONNECTIONS: usize = 3000;
/// Longer than `lb_common::conntrack::SYN_SILENCE`.
const KEPT: Duration = Duration::from_secs(4);
const DSR: &str = "forwarding = \"dsr\"\n";

/// Whether each node has its share of the whole, within a tenth of that share.
fn shares_are(tally: &Tally, shares: &[(&str, f64)]) -> bool {
    let total = tally.answered() as f64;
    shares.iter().all(|(node, share)| {
        let got = tally.by_node.get(*node).copied().unwrap_or(0) as f64;
        (got - share * total).abs() <= 0.1 * share * total
    })
}

fn web(net: &Net) -> Result<Vec<Nginx>> {
    net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect()
}

#[test]
fn three_thousand_connections_follow_the_weights() -> Result<()> {
    let net = Topology::new("weights").nodes(3).dsr(&[vip4(1)]).build()?;
    let _web = web(&net)?;
    let config = |scheduler: &str, weights: &[u32]| {
        let settings = format!("{DSR}scheduler = \"{scheduler}\"");
        [ONE_ARM, &service("web", "one4", "tcp", 80, &settings, &nodes4(&net.nodes, 80, weights))].concat()
    };
    let lb = net.start_lb(&config("weighted_round_robin", &[1, 2, 3]))?;
    lb.wait_for_next_hops("web")?;
    let weighted = [("n1", 1.0 / 6.0), ("n2", 2.0 / 6.0), ("n3", 3.0 / 6.0)];
    let tally = http::send_many(net.client(), one4(80), CONNECTIONS, 4)?;
    ensure!(tally.answered() == CONNECTIONS && tally.failures.is_empty(), "{tally:?}");
    ensure!(shares_are(&tally, &weighted), "weighted round robin: {tally:?}");

    // A client's port that comes again keeps its node for as long as what ended the connection before may be forged.
    let_pass(KEPT);
    lb.reload(&config("round_robin", &[1, 2, 3]))?;
    let tally = http::send_many(net.client(), one4(80), 300, 2)?;
    ensure!(shares_are(&tally, &[("n1", 1.0 / 3.0), ("n2", 1.0 / 3.0), ("n3", 1.0 / 3.0)]), "round robin: {tally:?}");

    // Random by nature: the standard deviation of the smallest share is 4 % of it, a tenth is 2.4 of them at 3,000; the
    // ports a kernel picks are not independent, so these are given a fifth and must still see every weight.
    for scheduler in ["maglev", "random"] {
        lb.reload(&config(scheduler, &[1, 2, 3]))?;
        let tally = http::send_many(net.client(), one4(80), CONNECTIONS, 4)?;
        let near = |(node, share): &(&str, f64)| {
            let got = tally.by_node.get(*node).copied().unwrap_or(0) as f64 / CONNECTIONS as f64;
            (got - share).abs() <= 0.2 * share
        };
        ensure!(tally.failures.is_empty() && weighted.iter().all(near), "{scheduler}: {tally:?}");
    }
    Ok(())
}

#[test]
fn least_connections_fill_up_the_idle_node() -> Result<()> {
    let net = Topology::new("least").nodes(3).dsr(&[vip4(1)]).build()?;
    let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
    let config = |scheduler: &str, nodes: &[String]| {
        let settings = format!("{DSR}scheduler = \"{scheduler}\"");
        [ONE_ARM, &service("echo", "one4", "tcp", 7, &settings, nodes)].concat()
    };
    let all = nodes4(&net.nodes, 7, &[1, 1, 2]);
    let lb = net.start_lb(&config("least_connections", &all[..2]))?;
    lb.wait_for_next_hops("echo")?;
    let first = LiveStreams::start(net.client(), one4(7), 40)?;
    ensure!(first.by_node() == counts(&[("n1", 20), ("n2", 20)]), "{:?}", first.by_node());
    // A new node gets every connection until it has as many as the others.
    lb.reload(&config("least_connections", &all))?;
    lb.wait_for_next_hops("echo")?;
    let second = LiveStreams::start(net.client(), one4(7), 20)?;
    ensure!(second.by_node() == counts(&[("n3", 20)]), "{:?}", second.by_node());
    // By weight, it gets twice as many.
    lb.reload(&config("weighted_least_connections", &all))?;
    let third = LiveStreams::start(net.client(), one4(7), 20)?;
    ensure!(third.by_node() == counts(&[("n3", 20)]), "{:?}", third.by_node());
    for streams in [&first, &second, &third] {
        streams.all_go_on(2, SOON)?;
    }
    Ok(())
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect()
}

#[test]
fn a_client_keeps_its_node() -> Result<()> {
    let net = Topology::new("affinity").nodes(4).dsr(&[vip4(1)]).build()?;
    let _web = web(&net)?;
    let affinity = "persistence = { type = \"source_address\", prefix = 24, timeout = \"10m\" }\n\
                    scheduler = \"round_robin\"";
    let config = |settings: &str, nodes: usize| {
        let nodes = nodes4(&net.nodes[..nodes], 80, &[]);
        [ONE_ARM, &service("web", "one4", "tcp", 80, &format!("{DSR}{settings}"), &nodes)].concat()
    };
    let lb = net.start_lb(&config(affinity, 3))?;
    lb.wait_for_next_hops("web")?;
    let node_of = |source: [u8; 4]| -> Result<String> {
        Ok(net.client().run(|| http::get(one4(80), Some(IpAddr::from(source)), "/", SOON))?.node)
    };
    let round = |host: u8| (0..30).map(|subnet| node_of([10, 1, 128 + subnet, host])).collect::<Result<Vec<_>>>();
    let uses_all = |nodes: &[String]| ["n1", "n2", "n3"].iter().all(|name| nodes.iter().any(|node| node == name));
    let first = round(1)?;
    ensure!(uses_all(&first), "{first:?}");
    ensure!(round(1)? == first, "the same client, the same node");
    ensure!(round(77)? == first, "neighbours within the prefix share it");
    lb.reload(&config(affinity, 4))?;
    lb.wait_for_next_hops("web")?;
    ensure!(round(5)? == first, "a new node takes no known client");

    lb.reload(&config("scheduler = \"source_hash\"", 3))?;
    let first = round(1)?;
    ensure!(uses_all(&first), "source hash: {first:?}");
    ensure!(round(1)? == first, "source hash: the same client, the same node");
    Ok(())
}

#[test]
fn the_failure_pool_serves_while_the_pool_cannot() -> Result<()> {
    let net = Topology::new("failure").nodes(2).dsr(&[vip4(1)]).build()?;
    let _web = web(&net)?;
    let nodes = nodes4(&net.nodes, 80, &[]);
    let config = [
        ONE_ARM.to_owned(),
        service("web", "one4", "tcp", 80, &format!("{DSR}failure_pool = \"sorry\""), &nodes[..1]),
        pool("sorry", DSR, &nodes[1..]),
    ];
    let lb = net.start_lb(&config.concat())?;
    lb.wait_for_next_hops("web")?;
    let served_by = |node: &str| -> Result<()> {
        let tally = http::send_many(net.client(), one4(80), 20, 1)?;
        ensure!(tally.by_node.get(node) == Some(&20), "{node} should serve: {tally:?}");
        Ok(())
    };
    served_by("n1")?;
    lb.ctl(&["node", "disable", "web/n1"])?;
    ensure!(lb.virtual_server("web")?.pool_in_use == "sorry", "{:?}", lb.virtual_server("web")?);
    served_by("n2")?;
    lb.ctl(&["node", "enable", "web/n1"])?;
    ensure!(lb.virtual_server("web")?.pool_in_use == "web", "{:?}", lb.virtual_server("web")?);
    served_by("n1")?;
    // Without any node, a client is refused at once.
    lb.ctl(&["node", "disable", "web/n1"])?;
    lb.ctl(&["node", "disable", "sorry/n2"])?;
    let refused = net.client().run(|| http::get(one4(80), None, "/", SOON)).map_err(|error| error.kind());
    ensure!(refused.is_err_and(|kind| kind == std::io::ErrorKind::ConnectionRefused), "no node at all");
    Ok(())
}
