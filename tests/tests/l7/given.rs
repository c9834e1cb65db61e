//! What lbd does for the worker, because it has the right to: it opens files of access logs, and makes sockets that may have
//! clients' addresses.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{
    Nginx, Topology, eventually, http,
    topology::{vip4, vip6},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, SOON, config, replaced, serves, web, worker};

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
}

#[test]
fn access_logs_are_written_reopened_and_outlive_the_worker() -> Result<()> {
    let net = Topology::new("l7log").nodes(1).build()?;
    let _nginx = Nginx::start(&net.nodes[0], &[80])?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("access.log");
    let logged =
        |path: &Path| config(&net, &format!("access_log = {{ path = \"{}\", format = \"json\" }}", path.display()));
    let lb = net.start_lb(&logged(&path))?;
    serves(&net)?;
    let get = |url: &str| net.client().run(|| http::get(web(), None, url, PATIENCE));
    let has = |path: &Path, url: &str| lines(path).iter().any(|line| line["url"] == url);
    get("/?first")?;
    eventually("the line is in the file", SOON, || has(&path, "/?first"))?;
    let line = lines(&path).into_iter().rfind(|line| line["url"] == "/?first").context("just seen")?;
    ensure!(
        line["status"] == 200 && line["node"] == "n1" && line["client_address"] == net.client().v4.to_string(),
        "{line}"
    );
    ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == 0o640);

    let rotated = dir.path().join("access.log.1");
    fs::rename(&path, &rotated)?;
    kill(Pid::from_raw(lb.pid()?.cast_signed()), Signal::SIGUSR1)?;
    eventually("another file is there", SOON, || path.exists())?;
    get("/?second")?;
    eventually("the line is in the new file", SOON, || has(&path, "/?second"))?;
    ensure!(!has(&rotated, "/?second"), "written to the old file, too");

    let pid = worker(&lb)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    replaced(&lb, pid)?;
    get("/?third")?;
    eventually("the next worker writes on", SOON, || has(&path, "/?third") && has(&path, "/?second"))?;

    let nowhere = lb.reload(&logged(Path::new("/nowhere/access.log")));
    let why = nowhere.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(why.contains("/nowhere/access.log cannot be opened"), "{why}");
    get("/?fourth")?;
    eventually("nothing was changed", SOON, || has(&path, "/?fourth"))?;
    let other = dir.path().join("other.log");
    lb.reload(&logged(&other))?;
    get("/?fifth")?;
    eventually("the other log is written", SOON, || has(&other, "/?fifth"))?;
    ensure!(!has(&path, "/?fifth"));
    Ok(())
}

#[test]
fn nodes_of_a_transparent_pool_see_the_clients_address() -> Result<()> {
    let net = Topology::new("l7transparent").nodes(2).two_arm().build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    // As docs/operations.md says.
    for line in [
        "ip rule add iif eth1 lookup 100",
        "ip route add local default dev lo table 100",
        "ip -6 rule add iif eth1 lookup 100",
        "ip -6 route add local default dev lo table 100",
    ] {
        net.balancer.sh(line)?;
    }
    let transparent =
        |text: String| text.replace("forwarding = \"proxy\"", "forwarding = \"proxy\"\ntransparent = true");
    let lb = net.start_lb(&transparent(config(&net, "")))?;
    serves(&net)?;
    let seen = |target: SocketAddr, source: IpAddr| {
        net.client().run(|| http::get(target, Some(source), "/large", PATIENCE)).map(|reply| reply.remote)
    };
    for last in 1..=8 {
        let source = IpAddr::V4(Ipv4Addr::new(10, 1, 128, last));
        ensure!(seen(web(), source)? == source.to_string());
    }
    // The worker got no right for it.
    let status = fs::read_to_string(format!("/proc/{}/status", worker(&lb)?))?;
    ensure!(status.contains("CapEff:\t0000000000000000"), "{status}");

    // The supply bridges a time without lbd, and is filled again.
    let pid = Pid::from_raw(lb.pid()?.cast_signed());
    kill(pid, Signal::SIGSTOP)?;
    let bridged = (0..100).try_for_each(|_| seen(web(), net.client().v4.into()).map(drop));
    kill(pid, Signal::SIGCONT)?;
    bridged?;
    for _ in 0..300 {
        seen(web(), net.client().v4.into())?;
    }

    let v6 = |text: String| {
        let nodes = net
            .nodes
            .iter()
            .fold(text, |text, node| text.replace(&format!("{}:80", node.v4), &format!("[{}]:80", node.v6)));
        nodes.replace("10.1.1.1", &vip6(1).to_string())
    };
    lb.reload(&v6(transparent(config(&net, ""))))?;
    let target = SocketAddr::new(vip6(1), 80);
    let source = IpAddr::V6(net.client().v6);
    eventually("the VIP answers over IPv6", SOON, || seen(target, source).is_ok())?;
    ensure!(seen(target, source)? == source.to_string());

    // Clients over one, nodes over the other.
    let mixed = v6(transparent(config(&net, ""))).replace(&vip6(1).to_string(), &vip4(1).to_string());
    let why = lb.reload(&mixed).err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(why.contains("is transparent, but virtual server \"web\" has clients over IPv4"), "{why}");
    let _: Ipv6Addr = net.client().v6;
    Ok(())
}
