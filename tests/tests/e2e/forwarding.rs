//! Each way of forwarding, with real nginx: who sees which address, and what passes the balancer.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_tests::harness::{
    Nginx, Topology, eventually, http,
    nginx::{LARGE_BYTES, PAGE_BYTES},
    topology::{vip4, vip6},
};

use crate::support::{ONE_ARM, SOON, TWO_ARM, ask, nodes4, nodes6, one4, one6, service, two4};

#[test]
fn dsr_nodes_see_client_and_vip_and_answer_directly() -> Result<()> {
    let net = Topology::new("dsr").nodes(3).dsr(&[vip4(1), vip6(1)]).build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let config = [
        ONE_ARM.to_owned(),
        service("web4", "one4", "tcp", 80, "forwarding = \"dsr\"", &nodes4(&net.nodes, 80, &[])),
        service("web6", "one6", "tcp", 80, "forwarding = \"dsr\"", &nodes6(&net.nodes, 80)),
    ];
    let lb = net.start_lb(&config.concat())?;
    for (name, target, client) in
        [("web4", one4(80), IpAddr::from(net.client().v4)), ("web6", one6(80), net.client().v6.into())]
    {
        lb.wait_for_next_hops(name)?;
        let reply = ask(&net, target, "/large")?;
        ensure!(reply.remote == client.to_string() && reply.local == Some(target), "{name}: {reply:?}");
        ensure!(reply.bytes == LARGE_BYTES, "{name}: {reply:?}");
        let tally = http::send_many(net.client(), target, 60, 2)?;
        ensure!(tally.failures.is_empty() && tally.by_node.len() == 3, "{name}: {tally:?}");
        let view = lb.virtual_server(name)?;
        ensure!(view.connections == 61, "{name}: {} connections", view.connections);
        ensure!(view.forward.packets > 300 && view.reply.packets == 0, "{name}: {view:?}");
        ensure!(view.reply.bytes == 0 && view.forward.bytes < LARGE_BYTES as u64, "{name}: {view:?}");
    }
    Ok(())
}

#[test]
fn nat_nodes_see_the_client_and_answer_through_the_balancer() -> Result<()> {
    let net = Topology::new("nat").nodes(2).two_arm().build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80, 8080])).collect::<Result<Vec<_>>>()?;
    let config = [
        ONE_ARM.to_owned() + TWO_ARM,
        service("web4", "one4", "tcp", 80, "forwarding = \"nat\"", &nodes4(&net.nodes, 8080, &[])),
        service("web6", "one6", "tcp", 80, "forwarding = \"nat\"", &nodes6(&net.nodes, 80)),
    ];
    let lb = net.start_lb(&config.concat())?;
    for (name, target, client, port) in
        [("web4", one4(80), IpAddr::from(net.client().v4), 8080), ("web6", one6(80), net.client().v6.into(), 80)]
    {
        lb.wait_for_next_hops(name)?;
        let reply = ask(&net, target, "/large")?;
        let node = net.nodes.iter().find(|node| node.name == reply.node).expect("a node of ours");
        let address = if target.is_ipv4() { IpAddr::from(node.v4) } else { node.v6.into() };
        ensure!(reply.remote == client.to_string(), "{name}: the node sees the client: {reply:?}");
        ensure!(reply.local == Some(SocketAddr::new(address, port)), "{name}: port translation: {reply:?}");
        ensure!(reply.bytes == LARGE_BYTES, "{name}: {reply:?}");
        let tally = http::send_many(net.client(), target, 60, 2)?;
        ensure!(tally.failures.is_empty() && tally.by_node.len() == 2, "{name}: {tally:?}");
        let view = lb.virtual_server(name)?;
        ensure!(view.connections == 61 && view.reply.bytes > LARGE_BYTES as u64, "{name}: {view:?}");
    }
    Ok(())
}

#[test]
fn one_arm_nat_hides_the_client_and_lets_nodes_use_the_vip() -> Result<()> {
    let net = Topology::new("snat").nodes(2).build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80, 8080])).collect::<Result<Vec<_>>>()?;
    let settings = "forwarding = \"nat\"\nsource_nat = true\nscheduler = \"round_robin\"";
    let config = [
        ONE_ARM.to_owned(),
        service("web4", "one4", "tcp", 80, settings, &nodes4(&net.nodes, 8080, &[])),
        service("web6", "one6", "tcp", 80, settings, &nodes6(&net.nodes, 80)),
    ];
    let lb = net.start_lb(&config.concat())?;
    for (name, target, balancer) in
        [("web4", one4(80), IpAddr::from(net.balancer.v4)), ("web6", one6(80), net.balancer.v6.into())]
    {
        lb.wait_for_next_hops(name)?;
        let reply = ask(&net, target, "/large")?;
        ensure!(reply.remote == balancer.to_string(), "{name}: the node sees the balancer: {reply:?}");
        ensure!(reply.bytes == LARGE_BYTES, "{name}: {reply:?}");
        // Hairpin: a node is the client, and is also its own server half of the time.
        let tally = http::send_many(&net.nodes[0], target, 20, 1)?;
        ensure!(tally.failures.is_empty() && tally.by_node.len() == 2, "{name}: hairpin: {tally:?}");
    }
    let connections = lb.connections(&["--vs", "web4", "--client", &net.nodes[0].v4.to_string()])?;
    ensure!(connections.total == 20, "{connections:?}");
    ensure!(connections.connections.iter().all(|connection| connection.source.is_some()), "{connections:?}");
    Ok(())
}

#[test]
fn what_is_no_virtual_server_is_left_to_the_host() -> Result<()> {
    let net = Topology::new("pass").nodes(1).dsr(&[vip4(1)]).build()?;
    let _web = Nginx::start(&net.nodes[0], &[80])?;
    let on_host = Nginx::start(&net.balancer, &[8081])?;
    let nodes = nodes4(&net.nodes, 80, &[]);
    let lb = net.start_lb(&[ONE_ARM, &service("web", "one4", "tcp", 80, "forwarding = \"dsr\"", &nodes)].concat())?;
    lb.wait_for_next_hops("web")?;
    // An unused port of the VIP is answered by the host: TCP by a reset, UDP (as traceroute asks) by ICMP.
    let refused = net.client().run(|| http::get(one4(81), None, "/", SOON)).map_err(|error| error.kind());
    ensure!(refused.is_err_and(|kind| kind == std::io::ErrorKind::ConnectionRefused), "TCP to an unused port");
    let unreachable = net.client().run(|| -> std::io::Result<usize> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(SOON))?;
        socket.connect(one4(33_434))?;
        socket.send(b"where are you?")?;
        socket.recv(&mut [0; 16])
    });
    ensure!(
        unreachable.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused),
        "{unreachable:?}"
    );
    // The host's own service, on its own address and on the VIP.
    for address in [net.balancer.v4.into(), vip4(1)] {
        ensure!(ask(&net, SocketAddr::new(address, 8081), "/")?.node == "lb", "{address}");
    }
    drop(on_host);
    ensure!(lb.packets("no_virtual_server")? > 0 && lb.packets("not_virtual")? > 0, "{:?}", lb.status()?.interfaces);
    ensure!(ask(&net, one4(80), "/")?.bytes == PAGE_BYTES, "the virtual server itself");
    Ok(())
}

#[test]
fn a_virtual_server_has_one_port_several_a_range_or_all() -> Result<()> {
    let net = Topology::new("ports").nodes(2).dsr(&[vip4(1)]).build()?;
    let ports = [80, 443, 8000, 8050, 8100, 8101, 9000];
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &ports)).collect::<Result<Vec<_>>>()?;
    let on_host = Nginx::start(&net.balancer, &[8101, 9000])?;
    let nodes = nodes4(&net.nodes, 0, &[]);
    let several = service("several", "one4", "tcp", 80, "forwarding = \"dsr\"", &nodes)
        .replace("ports = [80]", "ports = [80, 443, \"8000-8100\"]");
    let all = service("all", "two", "tcp", 80, "forwarding = \"nat\"\nsource_nat = true", &nodes)
        .replace("ports = [80]", "ports = \"all\"");
    let lb = net.start_lb(&[ONE_ARM, &several, &all].concat())?;
    lb.wait_for_next_hops("several")?;
    lb.wait_for_next_hops("all")?;
    for port in [80, 443, 8000, 8050, 8100] {
        ensure!(ask(&net, one4(port), "/")?.node != "lb", "port {port} is served by nodes");
    }
    ensure!(ask(&net, one4(8101), "/")?.node == "lb", "port 8101 is beyond the range");
    for port in ports {
        let reply = ask(&net, two4(port), "/")?;
        ensure!(reply.node != "lb" && reply.local.is_some_and(|local| local.port() == port), "{port}: {reply:?}");
    }
    drop(on_host);
    Ok(())
}

#[test]
fn one_machine_serves_dsr_and_nat_side_by_side() -> Result<()> {
    let net = Topology::new("both").nodes(2).dsr(&[vip4(1)]).build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let nodes = nodes4(&net.nodes, 80, &[]);
    let config = [
        ONE_ARM.to_owned(),
        service("direct", "one4", "tcp", 80, "forwarding = \"dsr\"", &nodes),
        service("translated", "two", "tcp", 80, "forwarding = \"nat\"\nsource_nat = true", &nodes),
    ];
    let lb = net.start_lb(&config.concat())?;
    for (name, target) in [("direct", one4(80)), ("translated", two4(80))] {
        lb.wait_for_next_hops(name)?;
        let tally = http::send_many(net.client(), target, 100, 2)?;
        ensure!(tally.failures.is_empty(), "{name}: {tally:?}");
    }
    let passed = |name| lb.virtual_server(name).map(|view| view.forward.packets + view.reply.packets);
    ensure!(passed("direct")? < passed("translated")?, "DSR sends fewer packets through the balancer");
    // Every connection has ended: nothing is counted as active once the closing handshakes are through.
    eventually("no connection is active", SOON, || lb.virtual_server("translated").is_ok_and(|view| view.active == 0))?;
    Ok(())
}
