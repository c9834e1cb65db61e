//! Nodes by DNS name: their addresses are followed, and kept while nobody answers (THREATS X26).

use std::fs;

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Lb, Nginx, Server, Topology, eventually, http, topology::Net};

use super::{PATIENCE, SOON, serves, web};

/// Who answers a request.
fn node(net: &Net) -> Result<String> {
    Ok(net.client().run(|| http::get(web(), None, "/", PATIENCE))?.node)
}

#[test]
fn x26_nodes_by_name_follow_the_dns_and_stay_where_they_were_without_it() -> Result<()> {
    let net = Topology::new("l7names").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display().to_string();
    let hosts = |node: usize| fs::write(dir.path().join("hosts"), format!("{} web.lb.test\n", net.nodes[node].v4));
    hosts(0)?;
    fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    let dns = format!(
        "dnsmasq -k --no-resolv --no-hosts --user=root --pid-file={path}/dns.pid --addn-hosts={path}/hosts --local-ttl=1 \
         --local=/lb.test/ --listen-address=127.0.0.1 --bind-interfaces"
    );
    let server = Server::start(&net.balancer, &dns, 53)?;
    let config = "[interface.eth0]\n[vip.one]\naddresses = [\"10.1.1.1\"]\nraise = true\n[virtual_server.web]\nvips = [\"one\"]\n\
                  protocol = \"http\"\nports = 80\npool = \"web\"\n[pool.web]\nforwarding = \"proxy\"\n\
                  [pool.web.node.named]\naddress = \"web.lb.test:80\"\n[proxy]\nthreads = 1\n";
    let mut lb = Lb::prepare(&net, config)?.with_own_program()?;
    // It alone sees another resolv.conf.
    lb.install_script(&format!(
        "exec unshare --mount sh -c 'mount --bind {path}/resolv.conf /etc/resolv.conf && exec {} \"$@\"' lbd \"$@\"",
        Lb::built_program()?.display()
    ))?;
    lb.launch()?;
    serves(&net)?;
    let (first, second) = (&net.nodes[0].name, &net.nodes[1].name);
    ensure!(node(&net)? == *first, "{}", node(&net)?);

    hosts(1)?;
    let pid: i32 = fs::read_to_string(format!("{path}/dns.pid"))?.trim().parse().context("a pid")?;
    // It reads its file again.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP)?;
    eventually("the name leads to the other node", SOON, || node(&net).is_ok_and(|now| now == *second))?;

    drop(server);
    eventually("lbd says that nobody answers", SOON, || {
        lb.status()
            .is_ok_and(|status| status.warnings.iter().any(|warning| warning.contains("last known addresses are kept")))
    })?;
    ensure!(node(&net)? == *second, "the last known address was given up");
    Ok(())
}
