//! A live pool changes between DSR and NAT: tracked connections finish in the mode they began in.

use anyhow::{Result, ensure};
use lb::control::plan::Forwarding;
use lb_tests::harness::{EchoServer, Lb, LiveStreams, Nginx, Requests, Stop, Topology, topology::vip4};

use crate::support::{ONE_ARM, SOON, nodes4, one4, service};

/// Established connections of virtual server `echo` that are forwarded this way.
fn established(lb: &Lb<'_>, forwarding: &str) -> Result<u64> {
    Ok(lb.connections(&["--vs", "echo", "--forwarding", forwarding, "--state", "established"])?.total)
}

#[test]
fn connections_finish_in_the_mode_they_began_in() -> Result<()> {
    let net = Topology::new("toggle").nodes(3).dsr(&[vip4(1)]).build()?;
    let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
    let settings = "forwarding = \"dsr\"";
    let config = [ONE_ARM, &service("echo", "one4", "tcp", 7, settings, &nodes4(&net.nodes, 0, &[]))].concat();
    let mut lb = net.start_lb(&config)?;
    lb.wait_for_next_hops("echo")?;

    let direct = LiveStreams::start(net.client(), one4(7), 30)?;
    lb.ctl(&["pool", "set", "echo", "forwarding=nat_source"])?;
    let translated = LiveStreams::start(net.client(), one4(7), 20)?;
    direct.all_go_on(3, SOON)?;
    translated.all_go_on(3, SOON)?;
    ensure!(established(&lb, "dsr")? == 30, "{:?}", lb.connections(&[])?);
    ensure!(established(&lb, "nat_source")? == 20, "{:?}", lb.connections(&[])?);
    ensure!(lb.pool("echo")?.forwarding_overridden, "{:?}", lb.pool("echo")?);

    // What the operator chose survives lbd.
    lb.restart(Stop::Kill)?;
    let later = LiveStreams::start(net.client(), one4(7), 5)?;
    ensure!(established(&lb, "nat_source")? == 25, "after a restart: {:?}", lb.connections(&[])?);

    lb.ctl(&["pool", "set", "echo", "forwarding=dsr"])?;
    let again = LiveStreams::start(net.client(), one4(7), 10)?;
    for streams in [&direct, &translated, &later, &again] {
        streams.all_go_on(3, SOON)?;
    }
    ensure!(established(&lb, "dsr")? == 40 && established(&lb, "nat_source")? == 25, "{:?}", lb.connections(&[])?);
    Ok(())
}

#[test]
fn no_request_fails_while_a_pool_is_toggled() -> Result<()> {
    let net = Topology::new("toggle").nodes(2).dsr(&[vip4(1)]).build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let settings = "forwarding = \"dsr\"";
    let config = [ONE_ARM, &service("web", "one4", "tcp", 80, settings, &nodes4(&net.nodes, 0, &[]))].concat();
    let lb = net.start_lb(&config)?;
    lb.wait_for_next_hops("web")?;
    let requests = Requests::start(net.client(), one4(80), 4, 0, SOON)?;
    for _ in 0..5 {
        for forwarding in ["forwarding=nat_source", "forwarding=dsr"] {
            requests.wait_for_more(50, SOON)?;
            lb.ctl(&["pool", "set", "web", forwarding])?;
        }
    }
    requests.wait_for_more(50, SOON)?;
    let tally = requests.stop()?;
    ensure!(tally.failures.is_empty() && tally.answered() > 500, "{tally:?}");
    ensure!(lb.virtual_server("web")?.reply.packets > 0, "some went by NAT");
    Ok(())
}

#[test]
fn back_to_nat_means_nat_as_it_is_configured() -> Result<()> {
    let net = Topology::new("toggle").nodes(1).dsr(&[vip4(1)]).build()?;
    let _echo = EchoServer::start(&net.nodes[0], 7)?;
    let settings = "forwarding = \"nat\"\nsource_nat = true";
    let config = [ONE_ARM, &service("echo", "one4", "tcp", 7, settings, &nodes4(&net.nodes, 0, &[]))].concat();
    let lb = net.start_lb(&config)?;
    lb.wait_for_next_hops("echo")?;
    for (order, forwarding) in [("forwarding=dsr", Forwarding::Dsr), ("forwarding=nat", Forwarding::NatSource)] {
        lb.ctl(&["pool", "set", "echo", order])?;
        ensure!(lb.pool("echo")?.forwarding == forwarding, "{order}: {:?}", lb.pool("echo")?);
        LiveStreams::start(net.client(), one4(7), 3)?.all_go_on(2, SOON)?;
    }
    Ok(())
}

#[test]
fn dsr_is_refused_where_ports_are_mapped() -> Result<()> {
    let net = Topology::new("toggle").nodes(1).build()?;
    let settings = "forwarding = \"nat\"\nsource_nat = true";
    let config = [ONE_ARM, &service("web", "one4", "tcp", 80, settings, &nodes4(&net.nodes, 8080, &[]))].concat();
    let lb = net.start_lb(&config)?;
    let output = lb.lbctl(&["pool", "set", "web", "forwarding=dsr"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("8080") && said.contains("dsr"), "{output:?}");
    ensure!(lb.pool("web")?.forwarding == Forwarding::NatSource, "nothing changed");
    Ok(())
}
