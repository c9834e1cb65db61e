//! What an operator sees of the L7 proxy, also while the worker or lbd hangs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb::control::{
    proxy::{recent::Record, trace::UrlTraceView},
    view::{Health, NodeView},
};
use lb_tests::harness::{Nginx, Requests, Topology, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, SOON, config, serves, web, worker};

#[test]
fn what_the_worker_does_is_seen() -> Result<()> {
    let net = Topology::new("l7seen").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 2, 0, PATIENCE)?;
    load.wait_for_more(100, SOON)?;
    let answered = load.stop()?.answered() as u64;

    let vs = lb.virtual_server("web")?;
    let proxy = vs.proxy.as_ref().context("no L7 part")?;
    ensure!(proxy.requests.total > answered && proxy.requests.by_class["2xx"] > answered, "{vs:?}");
    ensure!(proxy.bytes_sent > answered * 16 * 1024 && proxy.requests.p99_us.is_some(), "{vs:?}");
    ensure!((vs.nodes_available, vs.nodes_total) == (2, 2) && vs.protocol == "http", "{vs:?}");
    let pool = lb.pool("web")?;
    let by_node: u64 = pool.nodes.iter().filter_map(|node| Some(node.proxy.as_ref()?.requests.total)).sum();
    ensure!(by_node == proxy.requests.total, "{pool:?}");
    for (command, expected) in [
        (&["vs", "ls"][..], "http"),
        (&["vs", "show", "web"], "p99"),
        (&["pool", "ls"], "proxy"),
        (&["pool", "show", "web"], "retries"),
        (&["node", "ls"], "web/n1"),
        (&["node", "show", "web/n1"], "replies too late"),
        (&["status"], "L7 worker"),
        (&["stats"], "L7 VIRTUAL SERVER"),
    ] {
        let text = lb.ctl(command)?;
        ensure!(text.contains(expected), "lbctl {command:?} has no {expected:?}:\n{text}");
    }
    let watched = lb.ctl(&["stats", "--watch", "--interval", "200ms", "--count", "1"])?;
    ensure!(watched.contains("REQUESTS/S"), "{watched}");

    let trace: UrlTraceView = serde_json::from_value(lb.ctl_json(&["trace", "http://10.1.1.1/x"])?)?;
    ensure!(trace.pool.as_deref() == Some("web") && trace.nodes.iter().all(|node| node.may_serve), "{trace:?}");
    let nobody = lb.lbctl(&["trace", "https://10.1.1.1/"])?;
    ensure!(nobody.status.code() == Some(1), "{nobody:?}");
    Ok(())
}

#[test]
fn a_node_that_fails_requests_is_shown_and_can_be_brought_back() -> Result<()> {
    let net = Topology::new("l7out").nodes(2).build()?;
    let mut nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let passive = "[pool.web.passive]\nnode_fail_time = \"1h\"\n";
    let lb = net.start_lb(&[&config(&net, ""), passive].concat())?;
    serves(&net)?;
    nginx[0].kill()?;
    let load = Requests::start(net.client(), web(), 2, 0, PATIENCE)?;
    let node = || -> Result<NodeView> { lb.node("web", "n1") };
    eventually("the node is shown as out", SOON, || node().is_ok_and(|node| node.health == Health::Down))?;
    let reason = node()?.health_reason.unwrap_or_default();
    ensure!(reason.starts_with("passive monitoring: 1 failed connects"), "{reason}");
    ensure!(lb.status()?.warnings.iter().any(|warning| warning.contains("web/n1 is out by passive monitoring")));
    nginx[0] = Nginx::start(&net.nodes[0], &[80])?;
    lb.ctl(&["node", "enable", "web/n1"])?;
    eventually("the node is shown as in", SOON, || node().is_ok_and(|node| node.health != Health::Down))?;
    let before = node()?.proxy.context("no L7 part")?.requests.total;
    load.wait_for_more(50, SOON)?;
    ensure!(node()?.proxy.context("no L7 part")?.requests.total > before, "it serves: {:?}", node()?);
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    Ok(())
}

#[test]
fn an_lbd_that_is_stopped_does_not_matter_to_requests() -> Result<()> {
    let net = Topology::new("l7cold").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let (before, pid) = (worker(&lb)?, Pid::from_raw(lb.pid()?.cast_signed()));
    let load = Requests::start(net.client(), web(), 4, 0, PATIENCE)?;
    kill(pid, Signal::SIGSTOP)?;
    let begun = Instant::now();
    // Longer than a silent worker may live: it is lbd that did not listen.
    while begun.elapsed() < Duration::from_secs(7) {
        load.wait_for_more(50, SOON)?;
    }
    kill(pid, Signal::SIGCONT)?;
    eventually("lbd answers", SOON, || lb.status().is_ok())?;
    load.wait_for_more(200, SOON)?;
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    ensure!(worker(&lb)? == before, "the worker was replaced");
    ensure!(lb.status()?.worker.is_some_and(|worker| worker.failures == 0), "{:?}", lb.status()?);
    Ok(())
}

#[test]
fn a_worker_that_is_stopped_does_not_hold_up_lbctl() -> Result<()> {
    let net = Topology::new("l7stuck").nodes(1).build()?;
    let _nginx = Nginx::start(&net.nodes[0], &[80])?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let total = || -> Result<u64> { Ok(lb.virtual_server("web")?.proxy.context("no L7 part")?.requests.total) };
    ensure!(total()? > 0, "it served");
    let pid = worker(&lb)?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    let begun = Instant::now();
    let known = total()?;
    ensure!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    ensure!(known > 0, "what was known before is told");
    lb.status()?;
    let records = lb.lbctl(&["conn", "ls", "--l7"])?;
    let said = String::from_utf8_lossy(&records.stderr).into_owned();
    ensure!(records.status.code() == Some(1) && said.contains("worker"), "{records:?}");
    serves(&net)
}

#[test]
fn requests_that_ended_are_listed() -> Result<()> {
    let net = Topology::new("l7list").nodes(1).build()?;
    let _nginx = Nginx::start(&net.nodes[0], &[80])?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 1, 0, PATIENCE)?;
    load.wait_for_more(20, SOON)?;
    drop(load.stop()?);
    let list = |filters: &[&str]| -> Result<Vec<Record>> {
        Ok(serde_json::from_value(lb.ctl_json(&[&["conn", "ls", "--l7"], filters].concat())?)?)
    };
    ensure!(list(&["--limit", "5"])?.len() == 5, "{:?}", list(&[])?);
    let all = list(&["--vs", "web", "--node", "web/n1", "--status", "2xx", "--path", "/"])?;
    ensure!(all.len() > 20 && all.iter().all(|record| record.status == 200 && record.node == "n1"), "{all:?}");
    ensure!(list(&["--status", "5xx"])?.is_empty() && list(&["--slower-than", "1h"])?.is_empty(), "filters");
    ensure!(
        list(&["--client", &net.client().v4.to_string()])?.len() > 20 && list(&["--client", "10.9.9.9"])?.is_empty()
    );
    Ok(())
}
