//! Starting: the VIP is announced; what is in the way is refused with one clear error, and nothing is changed.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{
    Lb, Nginx, Topology, command::sh, flood::parse_mac, raw::RawSocket, topology::vip4, wait::until, xdp::PassProgram,
};

use crate::support::{ONE_ARM, SOON, ask, nodes4, one4, service};

const SETTINGS: &str = "forwarding = \"nat\"\nsource_nat = true";

#[test]
fn raised_vips_are_announced() -> Result<()> {
    let net = Topology::new("announce").nodes(1).build()?;
    let mac = parse_mac(&net.balancer.mac("eth0")?)?;
    let socket = net.client().run(|| RawSocket::open("eth0", Duration::from_millis(20)))?;
    let nodes = nodes4(&net.nodes, 80, &[]);
    let _lb = net.start_lb(&[ONE_ARM, &service("web", "one4", "tcp", 80, SETTINGS, &nodes)].concat())?;
    ensure!(net.balancer.has_address(vip4(1))?, "ready means that the VIPs are raised");
    let mut buffer = [0; 2048];
    let mut seen = (false, false);
    until("gratuitous ARP and unsolicited neighbour advertisement", SOON, || {
        while let Some(frame) = socket.receive(&mut buffer)? {
            seen.0 |= is_gratuitous_arp(frame, mac, [10, 1, 1, 1]);
            seen.1 |= is_advertisement(frame, mac);
        }
        Ok::<_, anyhow::Error>((seen == (true, true)).then_some(()))
    })
    .with_context(|| format!("seen: {seen:?}"))?;
    Ok(())
}

/// Broadcast, sender and target are the address (RFC 5227 section 3).
fn is_gratuitous_arp(frame: &[u8], mac: [u8; 6], address: [u8; 4]) -> bool {
    let field = |from: usize, bytes: &[u8]| frame.get(from..from + bytes.len()) == Some(bytes);
    field(0, &[0xff; 6]) && field(12, &[8, 6]) && field(22, &mac) && field(28, &address) && field(38, &address)
}

/// To all nodes, ICMPv6 type 136, target fd00:1::1:1, override flag, our MAC as target link-layer address (RFC 4861
/// section 4.4).
fn is_advertisement(frame: &[u8], mac: [u8; 6]) -> bool {
    let field = |from: usize, bytes: &[u8]| frame.get(from..from + bytes.len()) == Some(bytes);
    let target = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
    let override_flag = frame.get(58).is_some_and(|flags| flags & 0x20 != 0);
    field(12, &[0x86, 0xdd])
        && field(54, &[136, 0])
        && override_flag
        && field(62, &target)
        && field(78, &[2, 1])
        && field(80, &mac)
}

#[test]
fn a_second_lbd_on_the_same_pins_is_refused() -> Result<()> {
    let net = Topology::new("second").nodes(1).build()?;
    let _web = Nginx::start(&net.nodes[0], &[80])?;
    let config = [ONE_ARM, &service("web", "one4", "tcp", 80, SETTINGS, &nodes4(&net.nodes, 80, &[]))].concat();
    let lb = net.start_lb(&config)?;
    lb.wait_for_next_hops("web")?;
    let mut second = Lb::prepare(&net, &config)?.with_pins(lb.pins())?;
    let (status, said) = second.launch_to_fail()?;
    ensure!(!status.success() && said.contains(&lb.pins().display().to_string()), "{status}: {said}");
    // The dying second one has not taken the first one's pins along.
    ask(&net, one4(80), "/")?;
    ensure!(lb.status()?.warnings.is_empty(), "{:?}", lb.status()?);
    drop(lb);
    Ok(())
}

#[test]
fn an_interface_with_another_program_is_refused_and_left_alone() -> Result<()> {
    let net = Topology::new("busy").nodes(1).build()?;
    let _foreign = net.balancer.run(|| PassProgram::attach("eth0"))?;
    let before = net.balancer.sh("ip -j link show dev eth0")?;
    let config = [ONE_ARM, &service("web", "one4", "tcp", 80, SETTINGS, &nodes4(&net.nodes, 80, &[]))].concat();
    let mut lb = Lb::prepare(&net, &config)?;
    let (status, said) = lb.launch_to_fail()?;
    ensure!(!status.success() && said.contains("eth0") && said.contains("XDP"), "{status}: {said}");
    ensure!(net.balancer.sh("ip -j link show dev eth0")? == before, "the interface was changed");
    ensure!(!net.balancer.has_address(vip4(1))?, "the VIP was raised");
    ensure!(is_empty(&lb), "pins were left");
    Ok(())
}

#[test]
fn pins_of_somebody_else_are_refused_and_left_alone() -> Result<()> {
    let net = Topology::new("foreign").nodes(1).build()?;
    let config = [ONE_ARM, &service("web", "one4", "tcp", 80, SETTINGS, &nodes4(&net.nodes, 80, &[]))].concat();
    let mut lb = Lb::prepare(&net, &config)?;
    fs::create_dir(lb.pins())?;
    let pin = lb.pins().join("META");
    sh(&format!("bpftool map create {} type array key 4 value 8 entries 1 name META", pin.display()))?;
    let (status, said) = lb.launch_to_fail()?;
    ensure!(!status.success() && said.contains(&lb.pins().display().to_string()), "{status}: {said}");
    ensure!(pin.exists(), "the foreign pin was removed");
    ensure!(!net.balancer.sh("ip -j link show dev eth0")?.contains("xdp"), "a program was attached");
    ensure!(!net.balancer.has_address(vip4(1))?, "the VIP was raised");
    // With the obstacle gone, it starts.
    fs::remove_dir_all(lb.pins())?;
    lb.launch()?;
    Ok(())
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place_and_changes_nothing() -> Result<()> {
    let net = Topology::new("wrong").nodes(1).build()?;
    let _web = Nginx::start(&net.nodes[0], &[80])?;
    let good = [ONE_ARM, &service("web", "one4", "tcp", 80, SETTINGS, &nodes4(&net.nodes, 80, &[]))].concat();
    let bad = good.replace("pool = \"web\"", "pool = \"wbe\"");
    let mut lb = Lb::prepare(&net, &bad)?;
    let (status, said) = lb.launch_to_fail()?;
    ensure!(status.code() == Some(3) && said.contains("wbe") && said.contains("lb.toml:"), "{status}: {said}");
    ensure!(is_empty(&lb) && !net.balancer.has_address(vip4(1))?, "something was changed");

    let lb = net.start_lb(&good)?;
    lb.wait_for_next_hops("web")?;
    let error = lb.reload(&bad).map_err(|error| format!("{error:#}"));
    ensure!(error.as_ref().is_err_and(|error| error.contains("wbe")), "{error:?}");
    ask(&net, one4(80), "/")?;
    ensure!(lb.status()?.config_error.is_some(), "{:?}", lb.status()?);
    lb.reload(&good)?;
    ensure!(lb.status()?.config_error.is_none(), "{:?}", lb.status()?);
    Ok(())
}

/// Whether there is nothing in the pin directory, or no such directory.
fn is_empty(lb: &Lb<'_>) -> bool {
    fs::read_dir(lb.pins()).into_iter().flatten().count() == 0
}
