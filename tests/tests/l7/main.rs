//! The worker process of the L7 proxy: what it may do, and what clients notice when it, its configuration or lbd changes.

mod clients;
mod confined;
mod failures;
mod full;
mod given;
mod kept;
mod memory;
mod names;
mod nodes;
mod remembered;
mod restart;
mod seen;
mod slow;
mod tls;
mod upgrade;

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{
    Lb, Nginx, Requests, Stop, Topology, eventually, http,
    topology::{Net, vip4},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Long enough for anything that must happen soon.
const SOON: Duration = Duration::from_secs(8);
/// What a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An HTTP virtual server on VIP 1, with further lines of its own, before two nodes.
fn config(net: &Net, more: &str) -> String {
    let nodes = net.nodes.iter().map(|node| format!("[pool.web.node.{}]\naddress = \"{}:80\"\n", node.name, node.v4));
    format!(
        "[interface.eth0]\n[vip.one]\naddresses = [\"10.1.1.1\"]\nraise = true\n[virtual_server.web]\nvips = [\"one\"]\n\
         protocol = \"http\"\nports = 80\npool = \"web\"\n{more}\n[pool.web]\nforwarding = \"proxy\"\n{}\n[proxy]\nthreads = 2\n",
        nodes.collect::<String>()
    )
}

fn web() -> SocketAddr {
    SocketAddr::new(vip4(1), 80)
}

/// The process of the worker, as lbd noted it.
fn worker(lb: &Lb<'_>) -> Result<i32> {
    let note = lb.config_file().parent().context("no directory")?.join("state/worker.json");
    let note: serde_json::Value = serde_json::from_slice(&fs::read(note)?)?;
    Ok(i32::try_from(note["pid"].as_i64().context("no pid")?)?)
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until another worker than `before` serves; how long that took.
fn replaced(lb: &Lb<'_>, before: i32) -> Result<Duration> {
    eventually("another worker runs", SOON, || worker(lb).is_ok_and(|pid| pid != before && is_alive(pid)))
}

fn serves(net: &Net) -> Result<()> {
    eventually("the virtual server answers", SOON, || {
        net.client().run(|| http::get(web(), None, "/", PATIENCE)).is_ok()
    })?;
    Ok(())
}

#[test]
fn the_worker_serves_without_any_right() -> Result<()> {
    let net = Topology::new("l7rights").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let pid = worker(&lb)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    ensure!(field("Uid").iter().chain(&field("Gid")).all(|id| id != "0"), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        ensure!(field(set) == ["0000000000000000"], "{set}: {status}");
    }
    ensure!(field("Groups").iter().all(|group| group != "0"), "{status}");
    ensure!(field("NoNewPrivs") == ["1"] && field("Seccomp") == ["2"], "{status}");
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        ensure!(status.contains("Seccomp:\t2") && status.contains("CapEff:\t0000000000000000"), "{status}");
    }
    // Not dumpable: its files in /proc are root's, not its own.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/environ"))?);
    ensure!(owner == 0, "dumpable: /proc/{pid}/environ belongs to {owner}");
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    ensure!(environment.is_empty() || environment.starts_with(b"LB_LOG="), "{}", String::from_utf8_lossy(&environment));
    Ok(())
}

#[test]
fn a_killed_or_frozen_worker_is_replaced_and_no_connection_is_refused() -> Result<()> {
    let net = Topology::new("l7kill").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 4, 0, PATIENCE)?;
    let mut times = Vec::new();
    for _ in 0..3 {
        load.wait_for_more(50, SOON)?;
        let pid = worker(&lb)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        times.push(replaced(&lb, pid)?);
        load.wait_for_more(50, SOON)?;
    }
    // What a busy machine adds is not the same each time.
    ensure!(times.iter().any(|took| *took < Duration::from_millis(200)), "replaced after {times:?}");
    let tally = load.stop()?;
    // What the killed workers were doing is lost: at most what each client had open.
    ensure!(tally.failures.len() <= 12, "{} of {}: {:?}", tally.failures.len(), tally.answered(), tally.failures);
    ensure!(tally.failures.iter().all(|why| !why.contains("refused")), "{:?}", tally.failures);

    let pid = worker(&lb)?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    replaced(&lb, pid)?;
    eventually("the frozen worker was killed", SOON, || !is_alive(pid))?;
    serves(&net)
}

#[test]
fn thirty_reloads_under_load_fail_no_request_and_keep_the_worker() -> Result<()> {
    let net = Topology::new("l7reload").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let pid = worker(&lb)?;
    let load = Requests::start(net.client(), web(), 4, 0, PATIENCE)?;
    for round in 0..30 {
        lb.reload(&config(&net, &format!("limits = {{ connections = {} }}", 1000 + round)))?;
        load.wait_for_more(5, SOON)?;
    }
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty() && tally.answered() >= 150, "{tally:?}");
    ensure!(worker(&lb)? == pid, "the worker was replaced");

    // An address comes, and goes again.
    let more = "[virtual_server.more]\nvips = [\"one\"]\nprotocol = \"http\"\nports = 81\npool = \"web\"\n";
    lb.reload(&[&config(&net, ""), more].concat())?;
    let other = SocketAddr::new(vip4(1), 81);
    net.client().run(|| http::get(other, None, "/", PATIENCE))?;
    lb.reload(&config(&net, ""))?;
    eventually("its port is closed", SOON, || {
        net.client()
            .run(|| http::connect(other, None, PATIENCE))
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    })?;
    Ok(())
}

#[test]
fn clients_do_not_notice_that_lbd_died_and_came_back() -> Result<()> {
    let net = Topology::new("l7crash").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 4, 0, PATIENCE)?;
    load.wait_for_more(50, SOON)?;
    let before = worker(&lb)?;
    lb.stop(Stop::Kill)?;
    load.wait_for_more(50, SOON)?;
    ensure!(is_alive(before), "the worker died with lbd");
    lb.launch()?;
    replaced(&lb, before)?;
    eventually("the worker of the lbd before has drained", SOON, || !is_alive(before))?;
    load.wait_for_more(50, SOON)?;
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.answered(), tally.failures);
    Ok(())
}

#[test]
fn a_graceful_stop_ends_the_worker() -> Result<()> {
    let net = Topology::new("l7stop").nodes(1).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let pid = worker(&lb)?;
    let begun = Instant::now();
    lb.stop(Stop::Graceful)?;
    ensure!(!is_alive(pid), "the worker outlived lbd");
    ensure!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    Ok(())
}
