//! ICMP and fragments: what a balancer must not break although it looks at ports.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, UdpSocket},
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{
    EchoServer, Host, Nginx, Topology, http, icmp,
    nginx::LARGE_BYTES,
    topology::{vip4, vip6},
};

use crate::support::{ONE_ARM, SOON, TWO_ARM, ask, nodes4, nodes6, one4, one6, service};

#[test]
fn vips_answer_ping() -> Result<()> {
    let net = Topology::new("ping").nodes(1).build()?;
    let settings = "forwarding = \"nat\"\nsource_nat = true";
    let config = [
        ONE_ARM,
        &service("web4", "one4", "tcp", 80, settings, &nodes4(&net.nodes, 80, &[])),
        &service("web6", "one6", "tcp", 80, settings, &nodes6(&net.nodes, 80)),
    ];
    let lb = net.start_lb(&config.concat())?;
    for address in [vip4(1), vip6(1)] {
        for sequence in 1..=5 {
            net.client().run(|| icmp::ping(address, sequence, SOON))?;
        }
    }
    ensure!(lb.packets("answered_echo")? == 10, "{:?}", lb.status()?.interfaces);
    // The balancer's own address is none of its business.
    net.client().run(|| icmp::ping(net.balancer.v4.into(), 1, SOON))?;
    ensure!(lb.packets("answered_echo")? == 10, "{:?}", lb.status()?.interfaces);
    Ok(())
}

#[test]
fn a_narrow_path_is_found_in_every_mode() -> Result<()> {
    for (name, settings) in [("dsr", "forwarding = \"dsr\""), ("nat", "forwarding = \"nat\"\nsource_nat = true")] {
        let net = Topology::new("mtu").nodes(2).routed().dsr(&[vip4(1), vip6(1)]).build()?;
        let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
        let config = [
            ONE_ARM,
            &service("web4", "one4", "tcp", 80, settings, &nodes4(&net.nodes, 80, &[])),
            &service("web6", "one6", "tcp", 80, settings, &nodes6(&net.nodes, 80)),
        ];
        let lb = net.start_lb(&config.concat())?;
        // The client does not know of it and announces a large MSS; the router refuses the nodes' large segments.
        let router = net.router.as_ref().context("the topology is routed")?;
        router.ip(&["link set client mtu 1300".to_owned()])?;
        for (service, target) in [("web4", one4(80)), ("web6", one6(80))] {
            lb.wait_for_next_hops(service)?;
            let reply = ask(&net, target, "/large").with_context(|| format!("{name} {service}"))?;
            ensure!(reply.bytes == LARGE_BYTES, "{name} {service}: {reply:?}");
            let tally = http::send_many(net.client(), target, 20, 1)?;
            ensure!(tally.failures.is_empty(), "{name} {service}: {tally:?}");
        }
        ensure!(lb.packets("forwarded_icmp_error")? >= 2, "{name}: {:?}", lb.status()?.interfaces);
    }
    Ok(())
}

#[test]
fn a_client_is_told_of_a_narrow_way_to_its_node() -> Result<()> {
    let net = Topology::new("narrow").nodes(1).two_arm().build()?;
    let _echo = EchoServer::start(&net.nodes[0], 7)?;
    let settings = "forwarding = \"nat\"\nsource_nat = true";
    let config = [
        ONE_ARM,
        TWO_ARM,
        &service("echo4", "one4", "tcp", 7, settings, &nodes4(&net.nodes, 7, &[])),
        &service("echo6", "one6", "tcp", 7, settings, &nodes6(&net.nodes, 7)),
    ];
    // The client does not know of it: the node announces segments of a full Ethernet frame all the same.
    net.balancer.ip(&["link set eth1 mtu 1400".to_owned()])?;
    net.nodes[0].ip(&[
        "link set eth0 mtu 1400".to_owned(),
        "route replace 10.2.0.0/16 dev eth0 advmss 1460".to_owned(),
        "route replace fd00:2::/64 dev eth0 metric 256 advmss 1440".to_owned(),
    ])?;
    let lb = net.start_lb(&config.concat())?;
    for (service, target) in [("echo4", SocketAddr::new(vip4(1), 7)), ("echo6", SocketAddr::new(vip6(1), 7))] {
        lb.wait_for_next_hops(service)?;
        let before = lb.packets("answered_too_big")?;
        let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let echoed = net.client().run(|| -> io::Result<Vec<u8>> {
            let mut stream = http::connect(target, None, SOON)?;
            let mut writer = stream.try_clone()?;
            let mut name = Vec::new();
            let mut byte = [0];
            while name.last() != Some(&b'\n') {
                stream.read_exact(&mut byte)?;
                name.push(byte[0]);
            }
            let mut echoed = vec![0; sent.len()];
            let (writing, reading) = std::thread::scope(|scope| {
                let writing = scope.spawn(|| writer.write_all(&sent));
                let reading = stream.read_exact(&mut echoed);
                (writing.join().map_err(|_| io::ErrorKind::Other), reading)
            });
            writing??;
            reading?;
            Ok(echoed)
        });
        ensure!(echoed.with_context(|| format!("{service}: what was sent"))? == sent, "{service}: it comes back whole");
        ensure!(lb.packets("answered_too_big")? > before, "{service}: {:?}", lb.status()?.interfaces);
    }
    Ok(())
}

/// Sends one datagram and gives the answer without the node's name, which comes first.
fn exchange(client: &Host, target: SocketAddr, datagram: &[u8]) -> Result<(String, Vec<u8>)> {
    let answer = client.run(|| -> io::Result<Vec<u8>> {
        let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(SOON))?;
        socket.connect(target)?;
        socket.send(datagram)?;
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    })?;
    let blank = answer.iter().position(|byte| *byte == b' ').context("no name in the answer")?;
    Ok((String::from_utf8(answer[..blank].to_vec())?, answer[blank + 1..].to_vec()))
}

#[test]
fn large_datagrams_arrive_whole_in_every_mode() -> Result<()> {
    for (name, two_arm, settings) in [
        ("dsr", false, "forwarding = \"dsr\""),
        ("one-arm nat", false, "forwarding = \"nat\"\nsource_nat = true"),
        ("nat", true, "forwarding = \"nat\""),
    ] {
        let topology = Topology::new("fragments").nodes(3);
        let net = match (two_arm, name) {
            (true, _) => topology.two_arm(),
            (false, "dsr") => topology.dsr(&[vip4(1), vip6(1)]),
            (false, _) => topology,
        }
        .build()?;
        let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
        let config = [
            ONE_ARM,
            if two_arm { TWO_ARM } else { "" },
            &service("echo4", "one4", "udp", 7, settings, &nodes4(&net.nodes, 0, &[])),
            &service("echo6", "one6", "udp", 7, settings, &nodes6(&net.nodes, 0)),
        ];
        let lb = net.start_lb(&config.concat())?;
        for (service, target) in [("echo4", one4(7)), ("echo6", one6(7))] {
            lb.wait_for_next_hops(service)?;
            for size in [1, 1400, 1473, 4000, 20_000] {
                let datagram: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
                let (_, answer) = exchange(net.client(), target, &datagram)
                    .with_context(|| format!("{name} {service}: {size} bytes: {:?}", lb.status()))?;
                ensure!(answer == datagram, "{name} {service}: {size} bytes came back changed");
            }
        }
    }
    Ok(())
}
