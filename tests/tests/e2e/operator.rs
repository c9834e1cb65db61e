//! What an operator asks is answered by the truth: `lbctl trace`, `conn ls`, `map dump`, the counters, `doctor`.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use anyhow::{Context, Result, ensure};
use lb::control::{
    history::HistoryView,
    plan::Forwarding,
    view::{Finding, MapDump, MapView, RingShare, Severity, TraceView},
};
use lb_tests::harness::{
    EchoServer, Lb, LiveStreams, Net, Stop, Topology, UdpSink, UdpStream, eventually, topology::vip4,
};

use crate::support::{ONE_ARM, SOON, nodes4, one4, service, two4};

/// UDP and TCP echo on VIP 1 by DSR and on VIP 2 by NAT, scheduled by the ring.
fn config(net: &Net) -> String {
    let nodes = nodes4(&net.nodes, 0, &[1, 2, 3]);
    let nat = "forwarding = \"nat\"\nsource_nat = true";
    [
        ONE_ARM.to_owned(),
        service("direct", "one4", "udp", 7, "forwarding = \"dsr\"", &nodes),
        service("translated", "two", "udp", 7, nat, &nodes),
        service("streams", "one4", "tcp", 7, "forwarding = \"dsr\"", &nodes),
        service("numbers", "two", "udp", 9, nat, &nodes),
    ]
    .concat()
}

fn network() -> Result<Net> {
    Topology::new("operator").nodes(3).dsr(&[vip4(1)]).build()
}

fn start(net: &Net) -> Result<(Lb<'_>, Vec<EchoServer>)> {
    let echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(&config(net))?;
    for pool in ["direct", "translated", "streams", "numbers"] {
        lb.wait_for_next_hops(pool)?;
    }
    Ok((lb, echo))
}

fn trace(lb: &Lb<'_>, protocol: &str, source: SocketAddr, target: SocketAddr) -> Result<TraceView> {
    let view = lb.ctl_json(&["trace", protocol, &source.to_string(), &target.to_string()])?;
    Ok(serde_json::from_value(view)?)
}

#[test]
fn trace_foretells_what_happens() -> Result<()> {
    let net = network()?;
    let (lb, _echo) = start(&net)?;
    for (target, forwarding) in [(one4(7), Forwarding::Dsr), (two4(7), Forwarding::NatSource)] {
        for port in 40_000..40_012 {
            let source = SocketAddr::new(net.client().v4.into(), port);
            let told = trace(&lb, "udp", source, target)?;
            ensure!(told.action == "send" && told.forwarding == Some(forwarding), "{told:?}");
            let answer = net.client().run(|| -> io::Result<String> {
                let socket = UdpSocket::bind(source)?;
                socket.set_read_timeout(Some(SOON))?;
                socket.connect(target)?;
                socket.send(b"who are you?")?;
                let mut buffer = [0; 64];
                let length = socket.recv(&mut buffer)?;
                Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
            })?;
            let node = told.node.clone().context("no node told")?;
            ensure!(answer.starts_with(&node), "{target} from {port}: told {told:?}, but {answer} answered");
        }
    }
    let source = SocketAddr::new(net.client().v4.into(), 40_100);
    for (target, reason) in
        [(one4(8), "no_virtual_server"), (SocketAddr::new(net.balancer.v4.into(), 7), "not_virtual")]
    {
        let told = trace(&lb, "tcp", source, target)?;
        ensure!(told.action == "pass" && told.reason == reason, "{target}: {told:?}");
    }
    // To ask is not to do.
    ensure!(lb.virtual_server("direct")?.connections == 12, "{:?}", lb.virtual_server("direct")?);
    Ok(())
}

#[test]
fn connections_and_maps_can_be_listed() -> Result<()> {
    let net = network()?;
    let (lb, _echo) = start(&net)?;
    let streams = LiveStreams::start(net.client(), one4(7), 30)?;
    streams.all_go_on(1, SOON)?;
    ensure!(lb.connections(&["--state", "established"])?.total == 30, "{:?}", lb.connections(&[])?);
    for (node, count) in streams.by_node() {
        let found = lb.connections(&["--vs", "streams", "--node", &node])?;
        ensure!(found.total == count as u64, "{node}: {found:?}");
        ensure!(found.connections.iter().all(|connection| connection.node == node), "{node}: {found:?}");
        ensure!(lb.node("streams", &node)?.active == count as u64, "{node}: {:?}", lb.node("streams", &node)?);
    }
    let limited = lb.connections(&["--limit", "3"])?;
    ensure!(limited.connections.len() == 3 && limited.total == 30, "{limited:?}");

    let maps: Vec<MapView> = serde_json::from_value(lb.ctl_json(&["map", "ls"])?)?;
    ensure!(maps.iter().any(|map| map.name == "FLOWS") && maps.len() > 15, "{maps:?}");
    for map in &maps {
        let dump: MapDump = serde_json::from_value(lb.ctl_json(&["map", "dump", &map.name])?)?;
        ensure!(dump.rows.iter().all(|row| row.len() == dump.columns.len()), "{dump:?}");
        ensure!(map.name != "FLOWS" || dump.rows.len() == 30, "{dump:?}");
    }
    let shares: Vec<RingShare> = serde_json::from_value(lb.ctl_json(&["map", "dump", "maglev", "--vs", "direct"])?)?;
    ensure!(shares.len() == 3 && shares.iter().map(|share| share.slots).sum::<u32>() == 65_537, "{shares:?}");
    ensure!(shares.iter().all(|share| (share.share - share.expected).abs() < 0.01), "{shares:?}");
    Ok(())
}

#[test]
fn counters_count_every_packet_once() -> Result<()> {
    let net = network()?;
    let (lb, _echo) = start(&net)?;
    let sink = UdpSink::start(&net.nodes, 9)?;
    let stream = UdpStream::start(net.client(), two4(9), 5_000, 16)?;
    stream.wait_for_more(5_000)?;
    let sent = stream.stop()?;
    sink.all_came(sent)?;
    let view = lb.virtual_server("numbers")?;
    ensure!(view.forward.packets == sent && view.connections == 16, "{sent} were sent: {view:?}");
    for (node, count) in sink.by_node() {
        let counted = view.nodes.iter().find(|view| view.name == node).context("a node is missing")?;
        ensure!(counted.forward.packets == count, "{node} got {count}: {counted:?}");
    }
    ensure!(lb.packets("forwarded_nat")? == sent, "{:?}", lb.status()?.interfaces);
    Ok(())
}

fn doctor(lb: &Lb<'_>) -> Result<Vec<Finding>> {
    // It ends with 1 when there is a problem, and says which all the same.
    let output = lb.lbctl(&["doctor", "-o", "json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

#[test]
fn doctor_finds_nothing_in_a_good_network_and_what_is_wrong_in_a_bad_one() -> Result<()> {
    let net = network()?;
    let (lb, _echo) = start(&net)?;
    let problems = |findings: &[Finding]| -> Vec<String> {
        let bad = findings.iter().filter(|finding| finding.severity == Severity::Problem);
        bad.map(|finding| format!("{} {}: {}", finding.check, finding.subject, finding.finding)).collect()
    };
    let findings = doctor(&lb)?;
    ensure!(problems(&findings).is_empty(), "{:?}", problems(&findings));
    ensure!(lb.lbctl(&["doctor"])?.status.success(), "doctor ends with 0 when all is well");

    // n1 answers ARP for the VIP; n2 does not own it; n3 is not there.
    net.nodes[0].sysctls(&[("net/ipv4/conf/all/arp_ignore", "0")])?;
    net.nodes[1].ip(&["addr del 10.1.1.1/32 dev lo".to_owned()])?;
    let found = problems(&doctor(&lb)?);
    let says =
        |check: &str, node: &str| found.iter().any(|problem| problem.starts_with(check) && problem.contains(node));
    ensure!(says("dsr_arp", "n1"), "n1 answers ARP: {found:?}");
    ensure!(says("dsr_syn", "n2"), "n2 does not own the VIP: {found:?}");
    ensure!(!says("dsr_arp", "n3") && !says("dsr_syn", "n3"), "n3 is as it should be: {found:?}");
    Ok(())
}

#[test]
fn what_is_and_what_was_can_be_looked_at() -> Result<()> {
    let net = network()?;
    let (mut lb, _echo) = start(&net)?;
    let streams = LiveStreams::start(net.client(), one4(7), 30)?;
    streams.all_go_on(1, SOON)?;
    let picture = lb.ctl(&["top", "--once", "--interval", "200ms"])?;
    let server = picture.lines().find(|line| line.starts_with("streams")).context(picture.clone())?;
    ensure!(server.split_whitespace().take(4).eq(["streams", "tcp", "3/3", "30"]), "{picture}");
    for part in ["4 VIPs", "streams/n1", "forwarded_dsr", "one4"] {
        ensure!(picture.contains(part), "{part} is not in\n{picture}");
    }
    let known = |lb: &Lb<'_>, name: &str| -> Result<Vec<f32>> {
        let view = lb.ctl_json(&["stats", "--since", "10m", "--series", name])?;
        let view: HistoryView = serde_json::from_value(view)?;
        let series = view.series.into_iter().next().with_context(|| format!("{name} of {:?}", view.names))?;
        Ok(series.values.into_iter().flatten().collect())
    };
    let active = "virtual_server.streams.active";
    eventually("three seconds of history", SOON * 3, || {
        known(&lb, active).is_ok_and(|values| values.len() >= 3 && values.last() == Some(&30.0))
    })?;
    let before = known(&lb, active)?.len();
    lb.stop(Stop::Graceful)?;
    lb.launch()?;
    // All but the second that was under way.
    let after = known(&lb, active)?;
    ensure!(after.len() + 1 >= before && after.contains(&30.0), "{before} seconds were known, now {after:?}");
    let table = lb.ctl(&["stats", "--since", "10m", "--series", "virtual_server.streams.*,packets.*"])?;
    ensure!(table.contains("packets.sent") && table.contains(active), "{table}");
    Ok(())
}
