//! Nodes that leave, come back and are all gone, while clients go on (THREATS X7, X8).

use std::{
    io::{Read, Write},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Lb, Net, Nginx, Requests, Topology, eventually, http};

use super::{PATIENCE, SOON, config, full::rests, kept::Kept, serves, web, worker};

const GET: &str = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n";

fn served(lb: &Lb<'_>, node: &str) -> Result<u64> {
    Ok(lb.node("web", node)?.proxy.context("no L7 part")?.requests.total)
}

#[test]
fn x7_nodes_that_are_drained_disabled_and_removed_fail_nobody() -> Result<()> {
    let net = Topology::new("l7leave").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let kept = Kept::start(net.client(), web(), 2, GET, Duration::ZERO)?;
    let load = Requests::start(net.client(), web(), 2, 0, PATIENCE)?;
    let go_on = || kept.wait_for_more(50, SOON).and_then(|()| load.wait_for_more(50, SOON));
    go_on()?;
    for (out, state) in [("drain", "draining"), ("disable", "disabled")] {
        lb.ctl(&["node", out, "web/n1"])?;
        // What was on its way when the order was answered has come to its end.
        go_on()?;
        let before = served(&lb, "n1")?;
        go_on()?;
        ensure!(served(&lb, "n1")? == before, "a node that is {state} gets requests");
        lb.ctl(&["node", "enable", "web/n1"])?;
        eventually("the node serves again", SOON, || served(&lb, "n1").is_ok_and(|now| now > before))?;
    }
    let both = config(&net, "");
    let (first, rest) = both.split_once("[pool.web.node.n1]").context("no node")?;
    let (_, others) = rest.split_once("\n[").context("nothing after it")?;
    for _ in 0..3 {
        lb.reload(&format!("{first}[{others}"))?;
        go_on()?;
        ensure!(lb.pool("web")?.nodes.len() == 1, "it is still there");
        lb.reload(&both)?;
        go_on()?;
    }
    let (kept, tally) = (kept.stop()?, load.stop()?);
    ensure!(kept.failures.is_empty() && kept.answered > 500, "{kept:?}");
    ensure!(tally.failures.is_empty() && tally.answered() > 500, "{tally:?}");
    // No node was asked for too little to be noticed: connections to nodes come and go, those of clients stay.
    ensure!(kept.connections == 2, "{} connections of two clients", kept.connections);
    Ok(())
}

/// The first line of the answer to a request.
fn status(net: &Net) -> std::io::Result<String> {
    net.client().run(|| {
        let mut stream = http::connect(web(), None, PATIENCE)?;
        stream.write_all(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
    })
}

#[test]
fn x8_without_nodes_clients_are_told_at_once_and_served_as_soon_as_there_is_one() -> Result<()> {
    let monitor = "[monitor.quick]\ntype = \"tcp\"\ndelay = \"200ms\"\nfailures = 2\n";
    let net = Topology::new("l7none").nodes(2).build()?;
    let mut nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let text = config(&net, monitor).replace("[pool.web]", "[pool.web]\nmonitors = [\"quick\"]");
    let lb = net.start_lb(&text)?;
    serves(&net)?;
    nginx.iter_mut().try_for_each(Nginx::kill)?;
    let is_down = || lb.pool("web").is_ok_and(|pool| pool.nodes_available == 0);
    eventually("all nodes are seen to be down", SOON, is_down)?;
    let tried = |name| lb.node("web", name).map(|node| node.proxy.map(|proxy| proxy.connect_failures));
    let before = [tried("n1")?, tried("n2")?];
    for _ in 0..50 {
        let status = status(&net)?;
        ensure!(status.starts_with("HTTP/1.1 503 "), "{status:?}");
    }
    ensure!([tried("n1")?, tried("n2")?] == before, "nodes that are down were tried");
    rests(worker(&lb)?)?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    serves(&net)
}
