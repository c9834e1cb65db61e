//! `lbctl trace` and `lbctl doctor` against the real `lbd`: what they say is what happens. Needs root and BPF.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb::control::view::{Finding, Severity, TraceView};
use lb_tests::harness::{
    Host, Lb, Nginx, Topology, http,
    topology::{vip4, vip6},
};

const CONFIG: &str = r#"
[interface.eth0]
[vip.one]
addresses = ["10.1.1.1", "fd00:1::1:1"]
interface = "eth0"
raise = true
[vip.two]
addresses = ["10.1.1.2"]
interface = "eth0"
raise = true
[virtual_server.direct]
vips = ["one"]
protocol = "tcp"
ports = [80]
pool = "direct"
[virtual_server.translated]
vips = ["two"]
protocol = "tcp"
ports = [80]
pool = "translated"
[pool.translated]
forwarding = "nat"
source_nat = true
scheduler = "source_hash"
node.n1.address = "10.1.2.1:8080"
node.n2.address = "10.1.2.2:8080"
[pool.direct]
forwarding = "dsr"
scheduler = "source_hash"
node.n1.address = "10.1.2.1"
node.n2.address = "10.1.2.2"
node.six.address = "fd00:1::2:1"
"#;

fn trace(lb: &Lb<'_>, source: &str, destination: &str, more: &[&str]) -> Result<TraceView> {
    let arguments = [&["trace", "tcp", source, destination], more].concat();
    Ok(serde_json::from_value(lb.ctl_json(&arguments)?)?)
}

/// Whatever the exit status says: it is 1 when there is a problem.
fn doctor(lb: &Lb<'_>) -> Result<Vec<Finding>> {
    let output = lb.lbctl(&["doctor", "-o", "json"])?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("lbctl doctor: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The worst that a check found on what begins with `subject`.
fn worst(findings: &[Finding], check: &str, subject: &str) -> Option<Severity> {
    let about = findings.iter().filter(|finding| finding.check == check && finding.subject.starts_with(subject));
    about.map(|finding| finding.severity).max()
}

fn mac(host: &Host) -> Result<String> {
    host.mac("eth0")
}

#[test]
fn a_trace_says_what_becomes_of_a_connection_and_changes_nothing() -> Result<()> {
    let net = Topology::new("trace").nodes(2).dsr(&[vip4(1), vip6(1)]).build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80, 8080])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(CONFIG)?;
    lb.wait_for_next_hops("direct")?;
    lb.wait_for_next_hops("translated")?;
    let client = SocketAddr::new(net.client().v4.into(), 40_000).to_string();
    for (target, server, reason) in
        [("10.1.1.1:80", "direct", "forwarded_dsr"), ("10.1.1.2:80", "translated", "forwarded_nat")]
    {
        let told = trace(&lb, &client, target, &[])?;
        ensure!(told.reason == reason && told.virtual_server.as_deref() == Some(server), "{told:?}");
        let node = told.node.clone().with_context(|| format!("{told:?}"))?;
        let machine = net.nodes.iter().find(|machine| machine.name == node).context("a node of ours")?;
        let hop = told.next_hop.clone().unwrap_or_default();
        ensure!(hop.starts_with(&mac(machine)?), "the next hop is the node: {told:?}");
        ensure!(lb.virtual_server(server)?.connections == 0, "asking opens no connection");
        ensure!(lb.connections(&["--vs", server])?.total == 0, "asking leaves no record");
        let tally = http::send_many(net.client(), target.parse()?, 5, 1)?;
        ensure!(tally.by_node.keys().eq([&node]), "by the client's address, as told: {tally:?}, {told:?}");
    }
    let rewrites = trace(&lb, &client, "10.1.1.2:80", &[])?.rewrites;
    for expected in ["destination address: 10.1.1.2 -> ", "destination port: 80 -> 8080", "TTL: 64 -> 63"] {
        ensure!(rewrites.iter().any(|rewrite| rewrite.starts_with(expected)), "no {expected} in {rewrites:?}");
    }
    Ok(())
}

#[test]
fn a_trace_says_why_not_and_what_to_do() -> Result<()> {
    let net = Topology::new("why-not").nodes(2).dsr(&[vip4(1)]).build()?;
    let lb = net.start_lb(CONFIG)?;
    lb.wait_for_next_hops("direct")?;
    let cases: [(&str, &[&str], &str, &str); 4] = [
        ("10.1.1.1:81", &[], "no_virtual_server", "served there: direct (tcp 80)"),
        ("10.1.1.9:80", &[], "not_virtual", "10.1.1.1, 10.1.1.2"),
        ("10.1.1.2:80", &["--flags", "A"], "answered_reset", "lbctl conn ls --client"),
        ("10.1.1.1:80", &["--flags", "SF"], "bad_tcp_header", "break the standard"),
    ];
    for (target, more, reason, advice) in cases {
        let told = trace(&lb, "10.1.3.1:40000", target, more)?;
        ensure!(told.reason == reason, "{target}: {told:?}");
        ensure!(told.advice.as_ref().is_some_and(|text| text.contains(advice)), "{target}: {told:?}");
    }
    for node in ["direct/n1", "direct/n2"] {
        lb.ctl(&["node", "disable", node])?;
    }
    let told = trace(&lb, "10.1.3.1:40000", "10.1.1.1:80", &[])?;
    ensure!(told.advice.as_ref().is_some_and(|text| text.contains("n1: down or disabled")), "{told:?}");
    Ok(())
}

#[test]
fn doctor_finds_nothing_wrong_where_nothing_is() -> Result<()> {
    let net = Topology::new("healthy").nodes(2).dsr(&[vip4(1), vip6(1)]).build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80, 8080])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(CONFIG)?;
    lb.wait_for_next_hops("direct")?;
    lb.wait_for_next_hops("translated")?;
    let findings = doctor(&lb)?;
    let problems: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Problem).collect();
    ensure!(problems.is_empty(), "{problems:#?}");
    for check in ["pins", "layout", "attached", "driver_mode", "xdp_peer", "neighbour", "dsr_arp", "dsr_syn"] {
        ensure!(worst(&findings, check, "") == Some(Severity::Ok), "{check}: {findings:#?}");
    }
    ensure!(lb.packets("forwarded_dsr")? == 0, "probes do not pass the data path");
    Ok(())
}

#[test]
fn doctor_finds_the_mistakes_that_are_made_with_dsr_nodes() -> Result<()> {
    let net = Topology::new("mistakes").nodes(2).build()?;
    let [first, second] = &net.nodes[..] else { unreachable!("two nodes were asked for") };
    // The first owns the VIPs and tells everybody, and has no server; the second does not own them.
    first.ip(&["addr add 10.1.1.1/32 dev lo".to_owned(), "addr add fd00:1::1:1/128 dev eth0 nodad".to_owned()])?;
    let lb = net.start_lb(CONFIG)?;
    lb.wait_for_next_hops("direct")?;
    let findings = doctor(&lb)?;
    for vip in ["10.1.1.1", "fd00:1::1:1"] {
        ensure!(worst(&findings, "dsr_arp", vip) == Some(Severity::Problem), "{vip}: {findings:#?}");
    }
    let of = |node: &str| {
        let mut found = findings.iter().filter(|f| f.check == "dsr_syn" && f.subject.starts_with(node));
        found.find(|finding| finding.severity == Severity::Problem).map(|finding| finding.finding.clone())
    };
    let (refused, silent) = (of("direct/n1").unwrap_or_default(), of("direct/n2").unwrap_or_default());
    ensure!(refused.contains("nothing listens"), "{findings:#?}");
    ensure!(silent.contains("does not own"), "{findings:#?}");
    // What the advice says mends it.
    let _web = Nginx::start(first, &[80])?;
    first.sysctls(&[("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")])?;
    first.ip(&["addr del fd00:1::1:1/128 dev eth0".to_owned(), "addr add fd00:1::1:1/128 dev lo nodad".to_owned()])?;
    second.own_vips(&[vip4(1)])?;
    let _web2 = Nginx::start(second, &[80])?;
    let findings = doctor(&lb)?;
    ensure!(worst(&findings, "dsr_arp", "") == Some(Severity::Ok), "{findings:#?}");
    ensure!(worst(&findings, "dsr_syn", "") == Some(Severity::Ok), "{findings:#?}");
    Ok(())
}

#[test]
fn doctor_sees_an_interface_that_is_down() -> Result<()> {
    let net = Topology::new("down").nodes(1).build()?;
    let lb = net.start_lb(CONFIG)?;
    ensure!(worst(&doctor(&lb)?, "link", "eth0").is_none(), "nothing is said of what is up");
    net.balancer.ip(&["link set eth0 down".to_owned()])?;
    let findings = doctor(&lb)?;
    ensure!(worst(&findings, "link", "eth0") == Some(Severity::Problem), "{findings:#?}");
    ensure!(worst(&findings, "neighbour", "direct/n1") == Some(Severity::Problem), "{findings:#?}");
    ensure!(worst(&findings, "dsr_syn", "direct/n1") == Some(Severity::Warning), "it cannot be asked: {findings:#?}");
    Ok(())
}
