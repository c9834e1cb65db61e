//! Nodes come, drain, are disabled, die, return, and change their network card.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb::control::{plan::Admission, view::Health};
use lb_tests::harness::{EchoServer, LiveStreams, Nginx, Topology, eventually, http, topology::vip4};

use crate::support::{ONE_ARM, SOON, nodes4, one4, service, two4};

const DSR: &str = "forwarding = \"dsr\"\nscheduler = \"round_robin\"\n";
const MONITORS: &str = r#"
[monitor.connect]
type = "tcp"
delay = "100ms"
timeout = "200ms"
failures = 2
[monitor.echo]
type = "ping"
delay = "100ms"
timeout = "200ms"
failures = 2
"#;

#[test]
fn a_drained_node_keeps_its_streams_and_gets_no_new_ones() -> Result<()> {
    let net = Topology::new("drain").nodes(2).dsr(&[vip4(1)]).build()?;
    let echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
    let nodes = nodes4(&net.nodes, 0, &[]);
    let lb = net.start_lb(&[ONE_ARM, &service("echo", "one4", "tcp", 7, DSR, &nodes)].concat())?;
    lb.wait_for_next_hops("echo")?;
    let before = LiveStreams::start(net.client(), one4(7), 20)?;
    ensure!(echo[0].accepted() == 10, "{:?}", before.by_node());
    lb.ctl(&["node", "drain", "echo/n1"])?;
    ensure!(lb.node("echo", "n1")?.admission == Admission::Tracked, "{:?}", lb.node("echo", "n1")?);
    let after = LiveStreams::start(net.client(), one4(7), 20)?;
    ensure!(echo[0].accepted() == 10 && echo[1].accepted() == 30, "{:?}", after.by_node());
    before.all_go_on(5, SOON)?;
    ensure!(lb.node("echo", "n1")?.active == 10, "{:?}", lb.node("echo", "n1")?);
    drop(before);
    eventually("the last connection of the drained node has ended", SOON, || {
        lb.node("echo", "n1").is_ok_and(|node| node.active == 0)
    })?;
    lb.ctl(&["node", "undrain", "echo/n1"])?;
    let back = LiveStreams::start(net.client(), one4(7), 10)?;
    ensure!(back.by_node().get("n1") == Some(&5), "{:?}", back.by_node());
    after.all_go_on(2, SOON)
}

#[test]
fn only_the_streams_of_a_disabled_node_end() -> Result<()> {
    let nat = "forwarding = \"nat\"\nsource_nat = true\nscheduler = \"round_robin\"\n";
    for (policy, forwarding) in [("reschedule", DSR), ("reset", DSR), ("reschedule", nat), ("reset", nat)] {
        let net = Topology::new("disable").nodes(3).dsr(&[vip4(1)]).build()?;
        let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
        let settings = format!("{forwarding}on_node_failure = \"{policy}\"");
        let nodes = nodes4(&net.nodes, 0, &[]);
        let lb = net.start_lb(&[ONE_ARM, &service("echo", "one4", "tcp", 7, &settings, &nodes)].concat())?;
        lb.wait_for_next_hops("echo")?;
        let streams = LiveStreams::start(net.client(), one4(7), 60)?;
        lb.ctl(&["node", "disable", "echo/n2"])?;
        // Either the balancer resets them, or the node they are moved to, which does not know them.
        eventually(&format!("{policy} {forwarding}: the streams of n2 end"), SOON, || streams.broken().len() == 20)?;
        ensure!(streams.broken().iter().all(|why| why.starts_with("n2:")), "{:?}", streams.broken());
        ensure!(streams.broken().iter().all(|why| why.contains("reset")), "{:?}", streams.broken());
        streams.go_on(5, SOON, |stream| stream.node != "n2")?;
        let moved: u64 = lb.pool("echo")?.nodes.iter().map(|node| node.rescheduled).sum();
        ensure!((moved > 0) == (policy == "reschedule"), "{policy} {forwarding}: {moved} moved");
        // The client asks again and is served.
        let tally = LiveStreams::start(net.client(), one4(7), 20)?.by_node();
        ensure!(!tally.contains_key("n2"), "{tally:?}");
    }
    Ok(())
}

#[test]
fn nodes_come_and_go_while_streams_run() -> Result<()> {
    let net = Topology::new("live").nodes(4).dsr(&[vip4(1)]).build()?;
    let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
    let all = nodes4(&net.nodes, 0, &[]);
    let config = |nodes: &[String], scheduler: &str| {
        let settings = format!("forwarding = \"dsr\"\nscheduler = \"{scheduler}\"");
        [ONE_ARM, &service("echo", "one4", "tcp", 7, &settings, nodes)].concat()
    };
    let lb = net.start_lb(&config(&all[..3], "round_robin"))?;
    lb.wait_for_next_hops("echo")?;
    let streams = LiveStreams::start(net.client(), one4(7), 60)?;
    // A fourth node, another scheduler, other weights: nobody moves.
    lb.reload(&config(&all, "maglev"))?;
    lb.ctl(&["node", "set", "echo/n1", "weight=9"])?;
    streams.all_go_on(3, SOON)?;
    // n2 is removed: only its streams end.
    let without: Vec<String> = all.iter().filter(|line| !line.contains("n2")).cloned().collect();
    lb.reload(&config(&without, "maglev"))?;
    eventually("the streams of n2 end", SOON, || streams.broken().len() == 20)?;
    ensure!(streams.broken().iter().all(|why| why.starts_with("n2:")), "{:?}", streams.broken());
    streams.go_on(3, SOON, |stream| stream.node != "n2")?;
    let after = LiveStreams::start(net.client(), one4(7), 60)?.by_node();
    ensure!(!after.contains_key("n2") && after.contains_key("n4"), "{after:?}");
    ensure!(after["n1"] > 35, "weight 9 of 11: {after:?}");
    Ok(())
}

#[test]
fn monitors_take_a_dead_node_out_and_bring_it_back() -> Result<()> {
    let net = Topology::new("death").nodes(3).dsr(&[vip4(1)]).build()?;
    let mut web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let nodes = nodes4(&net.nodes, 80, &[]);
    let config = [
        ONE_ARM.to_owned(),
        MONITORS.to_owned(),
        service("web", "one4", "tcp", 80, &format!("{DSR}monitors = [\"connect\"]"), &nodes),
        service(
            "pinged",
            "two",
            "tcp",
            80,
            "forwarding = \"nat\"\nsource_nat = true\nscheduler = \"round_robin\"\nmonitors = [\"echo\"]",
            &nodes,
        ),
    ];
    let lb = net.start_lb(&config.concat())?;
    lb.wait_for_next_hops("web")?;
    let health_is = |pool: &str, node: &str, health: Health| {
        eventually(&format!("{pool}/{node} is {health:?}"), SOON, || {
            lb.node(pool, node).is_ok_and(|node| node.health == health)
        })
    };
    for node in ["n1", "n2", "n3"] {
        health_is("web", node, Health::Up)?;
        health_is("pinged", node, Health::Up)?;
    }
    // nginx dies: connecting fails, the machine still answers a ping.
    web[0].kill()?;
    let took = health_is("web", "n1", Health::Down)?;
    ensure!(took < Duration::from_secs(2), "two failed checks took {took:?}");
    let down = lb.node("web", "n1")?;
    ensure!(down.admission == Admission::Nothing && down.health_reason.is_some(), "{down:?}");
    let tally = http::send_many(net.client(), one4(80), 60, 2)?;
    ensure!(tally.failures.is_empty() && !tally.by_node.contains_key("n1"), "{tally:?}");
    ensure!(lb.node("pinged", "n1")?.health == Health::Up, "{:?}", lb.node("pinged", "n1")?);

    // The machine dies.
    net.pull_cable("n3")?;
    health_is("pinged", "n3", Health::Down)?;
    let tally = http::send_many(net.client(), two4(80), 1, 1)?;
    ensure!(!tally.by_node.contains_key("n3"), "{tally:?}");

    web[0] = Nginx::start(&net.nodes[0], &[80])?;
    net.plug_cable("n3")?;
    health_is("web", "n1", Health::Up)?;
    health_is("web", "n3", Health::Up)?;
    health_is("pinged", "n3", Health::Up)?;
    for target in [one4(80), two4(80)] {
        let tally = http::send_many(net.client(), target, 60, 2)?;
        ensure!(tally.failures.is_empty() && tally.by_node.len() == 3, "{tally:?}");
    }
    Ok(())
}

#[test]
fn streams_of_other_nodes_do_not_notice_a_death() -> Result<()> {
    let net = Topology::new("death").nodes(3).dsr(&[vip4(1)]).build()?;
    let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
    let settings = format!("{DSR}monitors = [\"echo\"]\non_node_failure = \"reset\"");
    let nodes = nodes4(&net.nodes, 0, &[]);
    let lb = net.start_lb(&[ONE_ARM, MONITORS, &service("echo", "one4", "tcp", 7, &settings, &nodes)].concat())?;
    lb.wait_for_next_hops("echo")?;
    let streams = LiveStreams::start(net.client(), one4(7), 60)?;
    net.pull_cable("n1")?;
    // The client learns it by the reset that its next retransmission meets, long before its own timeout. Each comes after twice
    // the time of the one before: on a busy machine, which sees the death late, the next may be the one after six seconds.
    eventually("the streams of n1 are reset", SOON * 4, || streams.broken().len() == 20)?;
    ensure!(streams.broken().iter().all(|why| why.starts_with("n1:")), "{:?}", streams.broken());
    streams.go_on(5, SOON, |stream| stream.node != "n1")
}

#[test]
fn a_new_network_card_is_used_within_a_second() -> Result<()> {
    for (name, forwarding) in [("dsr", "forwarding = \"dsr\""), ("nat", "forwarding = \"nat\"\nsource_nat = true")] {
        let net = Topology::new("mac").nodes(1).dsr(&[vip4(1)]).build()?;
        let node = &net.nodes[0];
        let _echo = EchoServer::start(node, 7)?;
        // As a machine that takes over another's address does, it announces its new MAC address (RFC 5227).
        node.sysctls(&[("net/ipv4/conf/eth0/arp_notify", "1")])?;
        let nodes = nodes4(&net.nodes, 0, &[]);
        let lb = net.start_lb(&[ONE_ARM, &service("echo", "one4", "tcp", 7, forwarding, &nodes)].concat())?;
        lb.wait_for_next_hops("echo")?;
        let streams = LiveStreams::start(net.client(), one4(7), 10)?;
        // The kernel ignores a second announcement within its lock time (1 s) after an ARP reply: let that pass.
        streams.all_go_on(12, SOON)?;
        let mac = "02:00:00:00:be:ef";
        node.ip(&[format!("link set eth0 address {mac}")])?;
        let took = eventually(&format!("{name}: lbd uses the new MAC"), SOON, || {
            lb.node("echo", "n1").is_ok_and(|node| node.mac.as_deref() == Some(mac))
        })?;
        ensure!(took < Duration::from_secs(1), "{name}: {took:?}");
        streams.all_go_on(3, SOON)?;
    }
    Ok(())
}

#[test]
fn the_balancer_takes_frames_to_its_own_mac_address_alone_and_follows_a_change_of_it() -> Result<()> {
    let net = Topology::new("own").nodes(1).dsr(&[vip4(1)]).build()?;
    let _echo = EchoServer::start(&net.nodes[0], 7)?;
    let nodes = nodes4(&net.nodes, 0, &[]);
    let lb = net.start_lb(&[ONE_ARM, &service("echo", "one4", "tcp", 7, DSR, &nodes)].concat())?;
    lb.wait_for_next_hops("echo")?;
    let streams = LiveStreams::start(net.client(), one4(7), 10)?;
    streams.all_go_on(3, SOON)?;
    ensure!(lb.packets("not_for_us")? == 0, "{:?}", lb.status()?.interfaces);
    let neighbour =
        |mac: &str| net.client().sh(&format!("ip neigh replace 10.1.1.1 lladdr {mac} dev eth0 nud permanent"));
    // The bridge knows nobody of this address and floods: the balancer sees the frames and leaves them alone.
    neighbour("02:00:00:00:00:99")?;
    eventually("flooded frames are seen", SOON, || lb.packets("not_for_us").is_ok_and(|packets| packets > 5))?;
    // A change of the interface's own address is noticed by itself.
    let mac = "02:00:00:00:be:ef";
    net.balancer.ip(&[format!("link set eth0 address {mac}")])?;
    neighbour(mac)?;
    streams.all_go_on(3, SOON)
}
