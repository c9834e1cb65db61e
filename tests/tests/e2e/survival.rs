//! Nothing is lost when lbd dies, restarts, is replaced, or takes a new configuration: 500 live streams and a UDP stream
//! of 20,000 numbered packets a second watch.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{
    EchoServer, Host, Lb, LiveStreams, Net, Stop, Topology, UdpSink, UdpStream, eventually,
    topology::{vip4, vip6},
};

use crate::support::{ONE_ARM, SOON, nodes4, one4, pool, program_on, service, two4};

const RATE: u64 = 20_000;
const FLOWS: usize = 32;
const STREAMS: usize = 500;

/// TCP echo by DSR on VIP 1 and by NAT on VIP 2; a UDP sink by DSR on VIP 1.
fn config(net: &Net) -> String {
    let nodes = nodes4(&net.nodes, 0, &[]);
    [
        ONE_ARM.to_owned(),
        service("direct", "one4", "tcp", 7, "forwarding = \"dsr\"", &nodes),
        service("translated", "two", "tcp", 7, "forwarding = \"nat\"\nsource_nat = true", &nodes),
        service("numbers", "one4", "udp", 9, "forwarding = \"dsr\"", &nodes),
    ]
    .concat()
}

fn network() -> Result<Net> {
    Topology::new("survival").nodes(3).dsr(&[vip4(1), vip6(1)]).build()
}

fn echo(nodes: &[Host]) -> Result<Vec<EchoServer>> {
    nodes.iter().map(|node| EchoServer::start(node, 7)).collect()
}

#[test]
fn nothing_breaks_when_lbd_is_killed_and_restarted() -> Result<()> {
    let net = network()?;
    let _echo = echo(&net.nodes)?;
    let sink = UdpSink::start(&net.nodes, 9)?;
    let mut lb = net.start_lb(&config(&net))?;
    for pool in ["direct", "translated", "numbers"] {
        lb.wait_for_next_hops(pool)?;
    }
    let direct = LiveStreams::start(net.client(), one4(7), STREAMS / 2)?;
    let translated = LiveStreams::start(net.client(), two4(7), STREAMS / 2)?;
    let both_go_on = |rounds| -> Result<()> {
        direct.all_go_on(rounds, SOON)?;
        translated.all_go_on(rounds, SOON)
    };
    both_go_on(2)?;
    let numbers = UdpStream::start(net.client(), one4(9), RATE, FLOWS)?;
    numbers.wait_for_more(RATE / 2)?;

    lb.stop(Stop::Kill)?;
    numbers.wait_for_more(RATE)?;
    both_go_on(3)?;
    // New connections are forwarded without lbd, too.
    let meanwhile = LiveStreams::start(net.client(), one4(7), 10)?;

    let took = lb.launch()?;
    numbers.wait_for_more(RATE)?;
    both_go_on(3)?;
    meanwhile.all_go_on(3, SOON)?;
    let status = lb.status()?;
    ensure!(status.data_path == "adopted", "{status:?}");
    ensure!(took < Duration::from_secs(1), "lbd needed {took:?} to adopt the data path");
    sink.all_came(numbers.stop()?)?;
    for streams in [&direct, &translated, &meanwhile] {
        ensure!(streams.broken().is_empty(), "{:?}", streams.broken());
    }
    // The counts are still true.
    let active = |name| lb.virtual_server(name).map(|view| view.active);
    ensure!(active("direct")? == STREAMS as u64 / 2 + 10, "{} active by DSR", active("direct")?);
    ensure!(active("translated")? == STREAMS as u64 / 2, "{} active by NAT", active("translated")?);
    Ok(())
}

#[test]
fn nothing_is_lost_over_a_hundred_configuration_changes() -> Result<()> {
    let net = network()?;
    let _echo = echo(&net.nodes)?;
    let sink = UdpSink::start(&net.nodes, 9)?;
    let base = config(&net);
    let lb = net.start_lb(&base)?;
    for pool in ["direct", "numbers"] {
        lb.wait_for_next_hops(pool)?;
    }
    let streams = LiveStreams::start(net.client(), one4(7), 50)?;
    let numbers = UdpStream::start(net.client(), one4(9), RATE, FLOWS)?;
    let other = |change: usize| {
        // Nodes come and go, weights and schedulers change, in the pool beside; every fifth change removes it all.
        let weights = [1 + change as u32 % 7, 2, 1 + change as u32 % 3];
        let nodes = nodes4(&net.nodes[..1 + change % 3], 0, &weights);
        let scheduler = ["maglev", "weighted_round_robin", "least_connections", "source_hash"][change % 4];
        let settings = format!("forwarding = \"dsr\"\nscheduler = \"{scheduler}\"");
        if change % 5 == 4 {
            pool("idle", &settings, &nodes)
        } else {
            service("other", "one4", "tcp", 70, &settings, &nodes)
        }
    };
    for change in 0..100 {
        lb.reload(&(base.clone() + &other(change))).with_context(|| format!("change {change}"))?;
    }
    ensure!(lb.status()?.config_generation > 100, "{:?}", lb.status()?);
    numbers.wait_for_more(RATE / 2)?;
    sink.all_came(numbers.stop()?)?;
    streams.all_go_on(2, SOON)?;
    Ok(())
}

#[test]
fn nothing_is_lost_when_the_program_is_replaced() -> Result<()> {
    let net = network()?;
    let _echo = echo(&net.nodes)?;
    let sink = UdpSink::start(&net.nodes, 9)?;
    let mut lb = net.start_lb(&config(&net))?;
    for pool in ["direct", "numbers"] {
        lb.wait_for_next_hops(pool)?;
    }
    let streams = LiveStreams::start(net.client(), one4(7), 50)?;
    let numbers = UdpStream::start(net.client(), one4(9), RATE, FLOWS)?;
    let mut programs = vec![program_on(&net.balancer)?];
    for _ in 0..3 {
        numbers.wait_for_more(RATE / 4)?;
        lb.stop(Stop::Graceful)?;
        // lbd keeps a program of its own build: let it think that another build made this one, as after an upgrade.
        for note in fs::read_dir(lb.pins().join("builds"))? {
            fs::remove_file(note?.path())?;
        }
        lb.launch()?;
        programs.push(program_on(&net.balancer)?);
    }
    numbers.wait_for_more(RATE / 4)?;
    sink.all_came(numbers.stop()?)?;
    streams.all_go_on(2, SOON)?;
    let different: std::collections::BTreeSet<_> = programs.iter().collect();
    ensure!(different.len() == programs.len(), "each start brings its own program: {programs:?}");
    Ok(())
}

#[test]
fn a_graceful_stop_keeps_or_withdraws_forwarding_as_configured() -> Result<()> {
    let net = network()?;
    let _echo = echo(&net.nodes)?;
    let mut lb = net.start_lb(&config(&net))?;
    lb.wait_for_next_hops("direct")?;
    let streams = LiveStreams::start(net.client(), one4(7), 10)?;
    lb.stop(Stop::Graceful)?;
    streams.all_go_on(3, SOON)?;
    ensure!(net.balancer.has_address(vip4(1))?, "keep: the VIP stays");
    LiveStreams::start(net.client(), one4(7), 5).context("keep: new connections are forwarded")?;

    lb.launch()?;
    ensure!(!lb.withdraw()?.status.success(), "a running lbd's forwarding was withdrawn");
    streams.all_go_on(3, SOON)?;
    lb.reload(&(config(&net) + "[daemon]\non_stop = \"withdraw\"\n"))?;
    lb.stop(Stop::Graceful)?;
    nothing_is_left(&net, &lb)?;

    // And it can be started again.
    lb.launch()?;
    ensure!(lb.status()?.data_path == "created", "{:?}", lb.status()?);
    lb.wait_for_next_hops("direct")?;
    LiveStreams::start(net.client(), one4(7), 5)?.all_go_on(2, SOON)?;

    // What was kept can be taken away afterwards, twice if one likes.
    lb.reload(&config(&net))?;
    lb.stop(Stop::Graceful)?;
    for _ in 0..2 {
        let done = lb.withdraw()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        nothing_is_left(&net, &lb)?;
    }
    Ok(())
}

fn nothing_is_left(net: &Net, lb: &Lb<'_>) -> Result<()> {
    ensure!(!net.balancer.has_address(vip4(1))?, "the VIP is still there");
    eventually("the program is gone", SOON, || program_on(&net.balancer).is_err())?;
    let left: Vec<_> = fs::read_dir(lb.pins()).into_iter().flatten().flatten().map(|pin| pin.path()).collect();
    ensure!(left.is_empty(), "pins are left: {left:?}");
    Ok(())
}
