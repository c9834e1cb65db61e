//! When descriptors run out (THREATS X19), nothing is accepted for a while and everything else goes on; when nobody reads the log
//! (X28), everything does.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb::control::view::Health;
use lb_tests::harness::{Lb, Net, Nginx, Stop, Topology, eventually, http, wait::let_pass};

use super::{PATIENCE, SOON, config, serves, web, worker};

/// Descriptors of the worker: 64 are for itself, a quarter of the others for connections to nodes.
const DESCRIPTORS: u32 = 264;
const ADMITTED: u64 = 150;
/// As many of them may be kept connections to nodes.
const KEPT: u64 = 10;
const CLIENTS: usize = 400;
/// Over this the CPU time is looked at, of which a fifth may be used.
const WHILE: Duration = Duration::from_secs(2);

const MORE: &str =
    "timeouts = { request_head = \"60s\" }\n[monitor.quick]\ntype = \"tcp\"\ndelay = \"200ms\"\nfailures = 2\n";

/// With a monitor that sees soon what becomes of nodes.
fn watched(net: &Net, more: &str) -> String {
    config(net, &[more, MORE].concat()).replace("[pool.web]", "[pool.web]\nmonitors = [\"quick\"]")
}

/// Clients that sent a part of a head each.
fn crowd(net: &Net) -> Result<Vec<TcpStream>> {
    let connections = net.client().run(|| {
        let open = |_| {
            let mut stream = http::connect(web(), None, PATIENCE)?;
            stream.write_all(b"GET / HTTP/1.1\r\n")?;
            std::io::Result::Ok(stream)
        };
        (0..CLIENTS).map(open).collect::<std::io::Result<Vec<_>>>()
    })?;
    Ok(connections)
}

/// The CPU time of a process, in hundredths of a second (proc(5), `utime` and `stime`).
fn cpu(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// A process that has nothing to do uses no CPU.
pub(super) fn rests(pid: i32) -> Result<()> {
    let before = cpu(pid)?;
    let_pass(WHILE);
    let used = cpu(pid)? - before;
    ensure!(used < 40, "{used} hundredths of CPU time in {WHILE:?}");
    Ok(())
}

/// lbd answers, takes a reload, and its monitors see a node die.
fn lbd_goes_on(net: &Net, lb: &Lb<'_>, nginx: &mut Nginx) -> Result<()> {
    lb.status()?;
    lb.reload(&watched(net, "limits = { connections = 5000 }\n"))?;
    nginx.kill()?;
    eventually("the monitor sees that the node is gone", SOON, || {
        lb.node("web", "n1").is_ok_and(|node| node.health == Health::Down)
    })?;
    *nginx = Nginx::start(&net.nodes[0], &[80])?;
    eventually("the monitor sees it again", SOON, || lb.node("web", "n1").is_ok_and(|node| node.health == Health::Up))?;
    Ok(())
}

fn pauses(lb: &Lb<'_>) -> Result<u64> {
    let metrics = lb.metrics()?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("lb_proxy_accept_pauses_total "));
    Ok(line.context("no such metric")?.parse()?)
}

#[test]
fn more_clients_than_descriptors_wait_and_those_inside_are_served() -> Result<()> {
    let net = Topology::new("l7full").nodes(2).build()?;
    let mut nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = Lb::prepare(&net, &watched(&net, ""))?.with_own_program()?;
    let built = Lb::built_program()?;
    lb.install_script(&format!("ulimit -n {DESCRIPTORS}\nexec {} \"$@\"", built.display()))?;
    lb.launch()?;
    serves(&net)?;
    let pid = worker(&lb)?;

    let mut clients = crowd(&net)?;
    let open = || lb.virtual_server("web").map_or(0, |vs| vs.active);
    eventually("all places are taken", SOON, || open() >= ADMITTED - KEPT)?;
    rests(pid)?;
    ensure!(open() <= ADMITTED, "{} are inside", open());
    ensure!(pauses(&lb)? > 0, "nothing tells of it");
    lbd_goes_on(&net, &lb, &mut nginx[0])?;
    // The first ones are inside: each gets its answer, though nobody else is let in, and makes room for another.
    let (client, answer) = (&mut clients[0], &mut [0; 12]);
    client.write_all(b"Host: lb.test\r\n\r\n")?;
    client.read_exact(answer)?;
    ensure!(answer == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(answer));
    drop(clients);
    let freed = eventually("requests are served again", SOON, || {
        net.client().run(|| http::get(web(), None, "/", PATIENCE)).is_ok()
    })?;
    ensure!(freed < Duration::from_secs(1), "after {freed:?}");
    ensure!(lb.log().contains("cannot accept connections"), "{}", lb.log());
    ensure!(worker(&lb)? == pid, "the worker was replaced");
    Ok(())
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() -> Result<()> {
    let net = Topology::new("log-full").nodes(1).build()?;
    let mut nginx = Nginx::start(&net.nodes[0], &[80])?;
    let (unread, log) = io::pipe()?;
    let mut lb = Lb::prepare(&net, &watched(&net, ""))?.with_log(File::from(OwnedFd::from(log.try_clone()?)));
    lb.launch()?;
    serves(&net)?;
    fill(&log)?;
    for _ in 0..3 {
        lbd_goes_on(&net, &lb, &mut nginx)?;
        serves(&net)?;
    }
    // The last words are waited for, for half a second.
    drop((log, unread));
    lb.stop(Stop::Graceful)
}

/// Writes into a pipe what goes in.
fn fill(pipe: &io::PipeWriter) -> Result<()> {
    // An open file of its own: lbd's must not become one that never waits.
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut pipe = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let full = loop {
        if let Err(error) = pipe.write_all(&[b'.'; 512]) {
            break error;
        }
    };
    ensure!(full.kind() == io::ErrorKind::WouldBlock, "{full}");
    Ok(())
}
