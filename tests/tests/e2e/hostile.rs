//! Attacks: established connections do not break, and new ones still get through.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Result, ensure};
use lb_tests::harness::{EchoServer, LiveStreams, Nginx, SynFlood, Topology, http, topology::vip4};

use crate::support::{ONE_ARM, SOON, nodes4, one4, service, two4};

const STREAMS: usize = 300;
const CONNECTS: usize = 200;
/// SYNs a second: many times what `max_half_open` below can hold.
const RATE: u64 = 20_000;
const SETTINGS: &str = "[dataplane]\nmax_half_open = 4096\nflood_limit = 2000\n";

#[test]
fn a_syn_flood_breaks_nothing() -> Result<()> {
    for (name, forwarding, target) in [
        ("dsr", "forwarding = \"dsr\"\nscheduler = \"least_connections\"", one4 as fn(u16) -> SocketAddr),
        ("nat", "forwarding = \"nat\"\nsource_nat = true\nscheduler = \"least_connections\"", two4),
    ] {
        let net = Topology::new("flood").clients(2).nodes(3).dsr(&[vip4(1)]).build()?;
        let _echo = net.nodes.iter().map(|node| EchoServer::start(node, 7)).collect::<Result<Vec<_>>>()?;
        let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
        let (vip, nodes) = (if name == "dsr" { "one4" } else { "two" }, nodes4(&net.nodes, 0, &[]));
        let config = [
            ONE_ARM.to_owned(),
            SETTINGS.to_owned(),
            service("echo", vip, "tcp", 7, forwarding, &nodes),
            service("web", vip, "tcp", 80, forwarding, &nodes),
        ];
        let lb = net.start_lb(&config.concat())?;
        lb.wait_for_next_hops("web")?;
        let streams = LiveStreams::start(net.client(), target(7), STREAMS)?;
        let SocketAddr::V4(victim) = target(80) else { unreachable!("an IPv4 VIP") };
        let mac = net.balancer.mac("eth0")?;
        let web_flood = SynFlood::start(&net.clients[1], victim, &mac, RATE / 2)?;
        let echo_flood = SynFlood::start(&net.clients[1], SocketAddrV4::new(*victim.ip(), 7), &mac, RATE / 2)?;
        web_flood.wait_for_more(RATE / 2)?;
        let tally = http::send_many(net.client(), target(80), CONNECTS, 2)?;
        web_flood.wait_for_more(RATE)?;
        let sent = web_flood.stop()? + echo_flood.stop()?;
        ensure!(sent > RATE, "{name}: only {sent} SYNs were sent");
        ensure!(tally.answered() * 100 >= CONNECTS * 99, "{name}: {tally:?}");
        streams.all_go_on(3, SOON)?;
        ensure!(streams.broken().is_empty(), "{name}: {:?}", streams.broken());
        let view = lb.virtual_server("web")?;
        ensure!(view.flood_limited > 0, "{name}: the flood guard did not act: {view:?}");
        // Half-open connections never count as active.
        ensure!(lb.virtual_server("echo")?.active == STREAMS as u64, "{name}: {:?}", lb.virtual_server("echo")?);
    }
    Ok(())
}
