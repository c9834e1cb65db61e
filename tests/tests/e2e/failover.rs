//! VIP groups move between two balancers, and a client that asks every 2 ms hardly notices.
//!
//! The bounds are those of docs/operations.md with room for a machine that does other things as well: `cargo xtask bench
//! failover` measures.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb::control::view::{VipState, VipsView};
use lb_tests::harness::{
    Host, Lb, Stop, eventually,
    raw::RawSocket,
    topology::{vip4, vip6},
    wait::let_pass,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    pair::{LOST, MOVED, NO_FAILBACK, Pair, network, state},
    support::SOON,
};

#[test]
fn a_lost_machine_is_replaced_and_takes_the_group_back_when_it_is_well_again() -> Result<()> {
    let net = network("failover-lost")?;
    let pair = Pair::start(&net, "failback_delay = \"2s\"")?;
    let gap = pair.gap(|| net.isolate("lb"))?;
    ensure!(gap < LOST, "{gap:?} without an answer");
    ensure!(state(&pair.second.vips()?) == Some(VipState::Active), "the second machine owns the group");
    // Both own it now: the first one cannot know better.
    ensure!(state(&pair.first.vips()?) == Some(VipState::Active), "nobody told the first machine");
    let healed = pair.gap(|| {
        net.rejoin("lb")?;
        pair.wait_for(VipState::Active, VipState::Backup)
    })?;
    ensure!(healed < Duration::from_millis(300), "{healed:?} without an answer after the network was whole again");
    Ok(())
}

#[test]
fn a_machine_that_stops_a_planned_move_and_maintenance_leave_no_gap() -> Result<()> {
    let net = network("failover-moved")?;
    let mut pair = Pair::start(&net, "failback_delay = \"1s\"")?;
    let moved = pair.gap(|| {
        pair.first.ctl(&["vip", "failover", "web", "--to", "lb2"])?;
        pair.wait_for(VipState::Backup, VipState::Active)
    })?;
    ensure!(moved < MOVED, "a planned move: {moved:?}");
    let back = pair.gap(|| pair.wait_for(VipState::Active, VipState::Backup))?;
    ensure!(back < MOVED, "failback: {back:?}");
    let maintenance = pair.gap(|| {
        pair.first.ctl(&["vip", "maintenance", "on"])?;
        pair.wait_for(VipState::Idle, VipState::Active)
    })?;
    ensure!(maintenance < MOVED, "maintenance: {maintenance:?}");
    ensure!(pair.first.status()?.warnings.iter().any(|warning| warning.contains("maintenance")), "status says so");
    pair.first.restart(Stop::Graceful)?;
    pair.wait_for(VipState::Idle, VipState::Active).context("maintenance survives a restart")?;
    let back = pair.gap(|| {
        pair.first.ctl(&["vip", "maintenance", "off"])?;
        pair.wait_for(VipState::Active, VipState::Backup)
    })?;
    ensure!(back < MOVED, "back from maintenance: {back:?}");

    let mark = pair.probe.mark();
    pair.first.stop(Stop::Graceful)?;
    eventually("the second machine owns it", SOON, || {
        pair.second.vips().is_ok_and(|view| state(&view) == Some(VipState::Active))
    })?;
    let_pass(Duration::from_millis(500));
    let (gap, _) = pair.probe.gap_since(mark);
    ensure!(gap < MOVED, "SIGTERM: {gap:?}");
    ensure!(!net.balancer.has_address(vip4(1))?, "the VIP is gone from the machine that stopped");
    Ok(())
}

#[test]
fn an_interface_without_carrier_gives_the_group_away_by_the_other_path() -> Result<()> {
    let net = network("failover-carrier")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let gap = pair.gap(|| net.pull_cable("lb"))?;
    ensure!(gap < Duration::from_millis(200), "{gap:?} without an answer");
    ensure!(state(&pair.second.vips()?) == Some(VipState::Active), "the second machine owns the group");
    let fault = pair.first.vips()?.cluster.and_then(|cluster| cluster.fault).unwrap_or_default();
    ensure!(fault == "carrier: eth0 is down or has no carrier", "{fault:?}");
    net.plug_cable("lb")?;
    eventually("the fault is over", SOON, || {
        pair.first.vips().is_ok_and(|view| view.cluster.is_some_and(|cluster| cluster.fault.is_none()))
    })?;
    pair.wait_for(VipState::Backup, VipState::Active)
}

#[test]
fn the_guard_gives_the_group_away_when_lbd_is_killed() -> Result<()> {
    let net = network("failover-killed")?;
    let mut pair = Pair::start(&net, NO_FAILBACK)?;
    let mark = pair.probe.mark();
    pair.first.stop(Stop::Kill)?;
    eventually("the second machine owns it", SOON, || {
        pair.second.vips().is_ok_and(|view| state(&view) == Some(VipState::Active))
    })?;
    for vip in [vip4(1), vip6(1)] {
        ensure!(!net.balancer.has_address(vip)?, "{vip} is still on the machine whose lbd was killed");
    }
    let_pass(Duration::from_millis(500));
    let (gap, _) = pair.probe.gap_since(mark);
    ensure!(gap < Duration::from_millis(100), "{gap:?} without an answer");
    pair.first.launch()?;
    pair.wait_for(VipState::Backup, VipState::Active)
}

#[test]
fn a_machine_that_stood_still_owns_nothing_and_says_nothing_of_the_kind() -> Result<()> {
    let net = network("failover-stopped")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let mark = pair.probe.mark();
    pair.first.signal(Signal::SIGSTOP)?;
    eventually("the second machine owns it", SOON, || {
        pair.second.vips().is_ok_and(|view| state(&view) == Some(VipState::Active))
    })?;
    eventually("the addresses are gone", SOON, || net.balancer.has_address(vip4(1)).is_ok_and(|has| !has))?;
    let_pass(Duration::from_secs(2));
    let transitions = |lb: &Lb<'_>| Ok::<_, anyhow::Error>(lb.vips()?.groups[0].transitions);
    let before = transitions(&pair.second)?;
    let ears = net.client().run(|| RawSocket::open("eth0", Duration::from_millis(5)))?;
    pair.first.signal(Signal::SIGCONT)?;
    pair.wait_for(VipState::Backup, VipState::Active)?;
    let own: Vec<u8> =
        net.balancer.mac("eth0")?.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let (start, mut buffer) = (Instant::now(), [0; 2048]);
    while start.elapsed() < Duration::from_secs(1) {
        if let Some(frame) = ears.receive(&mut buffer)? {
            let announces = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[28..32] == [10, 1, 1, 1];
            ensure!(!announces || frame[22..28] != own[..], "it announces what another machine has");
        }
    }
    let (gap, _) = pair.probe.gap_since(mark);
    ensure!(gap < Duration::from_millis(250), "{gap:?} without an answer");
    ensure!(transitions(&pair.second)? == before, "the second machine owned it all the time");
    // It is believed again, and can have the group back.
    pair.second.ctl(&["vip", "failover", "web"])?;
    pair.wait_for(VipState::Active, VipState::Backup)
}

/// Processes below lbd: its guard, spawner and worker.
pub(crate) fn children(lb: &Lb<'_>) -> Result<Vec<Pid>> {
    let mut children = Vec::new();
    // By the thread that started them.
    for task in fs::read_dir(format!("/proc/{}/task", lb.pid()?))? {
        // A thread may end in between.
        let text = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in text.split_whitespace() {
            children.push(Pid::from_raw(child.parse()?));
        }
    }
    Ok(children)
}

#[test]
fn a_machine_that_stands_still_with_its_guard_is_silent_for_what_another_one_has() -> Result<()> {
    let net = network("failover-frozen")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let leased = || pair.first.ctl(&["map", "dump", "LEASED"]);
    ensure!(leased()?.contains("10.1.1.1"), "the VIP has a lease: {}", leased()?);
    ensure!(pair.first.vips()?.groups[0].replaceable == Some(true), "and the view says so");
    let frozen = || -> Result<Vec<Pid>> {
        let mut all = children(&pair.first)?;
        all.push(Pid::from_raw(pair.first.pid()?.cast_signed()));
        Ok(all)
    };
    let mark = pair.probe.mark();
    for pid in frozen()? {
        kill(pid, Signal::SIGSTOP)?;
    }
    eventually("the second machine owns it", SOON, || {
        pair.second.vips().is_ok_and(|view| state(&view) == Some(VipState::Active))
    })?;
    // Nobody could take the addresses down: only the data path keeps them silent.
    ensure!(net.balancer.has_address(vip4(1))?, "the guard acted, which was stopped");
    let mac = |host: &Host| host.mac("eth0");
    let (first, second) = (mac(&net.balancer)?, mac(pair.machines()[1])?);
    for _ in 0..5 {
        net.client().ip(&["neigh flush dev eth0".to_owned()])?;
        let_pass(Duration::from_millis(200));
        let found = net.client().sh("ip neigh show 10.1.1.1")?;
        ensure!(!found.contains(&first) && found.contains(&second), "who answers for the VIP: {found}");
    }
    let (gap, _) = pair.probe.gap_since(mark);
    ensure!(gap < LOST, "{gap:?} without an answer");
    for pid in frozen()? {
        kill(pid, Signal::SIGCONT)?;
    }
    pair.wait_for(VipState::Backup, VipState::Active)?;
    ensure!(pair.first.packets("lease_ended")? > 0, "what was refused is counted");
    ensure!(!leased()?.contains("10.1.1.1"), "it owns nothing any more");
    Ok(())
}

#[test]
fn a_machine_without_others_keeps_its_vips_when_lbd_hangs_or_dies() -> Result<()> {
    let net = network("failover-alone")?;
    let mut pair = Pair::start(&net, NO_FAILBACK)?;
    pair.second.stop(Stop::Graceful)?;
    let gap = pair.gap(|| {
        eventually("the first machine knows that it is alone", SOON, || {
            let alive = |view: VipsView| view.cluster.is_some_and(|cluster| cluster.machines[0].alive);
            pair.first.vips().is_ok_and(|view| !alive(view))
        })?;
        pair.first.signal(Signal::SIGSTOP)?;
        let_pass(Duration::from_secs(1));
        pair.first.signal(Signal::SIGCONT)
    })?;
    ensure!(gap < MOVED, "{gap:?} without an answer");
    let mark = pair.probe.mark();
    pair.first.stop(Stop::Kill)?;
    let_pass(Duration::from_millis(500));
    let (gap, _) = pair.probe.gap_since(mark);
    ensure!(gap < MOVED, "{gap:?} without an answer after lbd was killed");
    ensure!(net.balancer.has_address(vip4(1))?, "nobody else could take the VIP");
    Ok(())
}

#[test]
fn orders_that_cannot_be_are_refused_with_the_reason() -> Result<()> {
    let net = network("failover-orders")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let refused = |lb: &Lb<'_>, arguments: &[&str], reason: &str| -> Result<()> {
        let output = lb.lbctl(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(reason), "{arguments:?} said {said:?}, not {reason:?}");
        Ok(())
    };
    refused(&pair.second, &["vip", "failover", "web"], "ask lb1")?;
    refused(&pair.first, &["vip", "failover", "web", "--to", "lb3"], "there is no machine \"lb3\"")?;
    refused(&pair.first, &["vip", "failover", "dns"], "there is no VIP group \"dns\"")?;
    let metrics = pair.first.metrics()?;
    for line in [
        "lb_failover_state{vip=\"web\",state=\"active\"} 1",
        "lb_failover_state{vip=\"web\",state=\"backup\"} 0",
        "lb_failover_transitions_total{vip=\"web\"} 1",
        "lb_failover_machine_alive{machine=\"lb2\"} 1",
    ] {
        ensure!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    Ok(())
}

#[test]
fn frames_that_come_back_change_nothing() -> Result<()> {
    let net = network("failover-hairpin")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    for interface in ["eth0", "eth1"] {
        net.hairpin("lb", interface, true)?;
        net.hairpin("lb2", interface, true)?;
    }
    let gap = pair.gap(|| {
        let_pass(Duration::from_secs(3));
        Ok(())
    })?;
    ensure!(gap < MOVED, "{gap:?} without an answer");
    pair.wait_for(VipState::Active, VipState::Backup)?;
    // It is announced when it comes back, and the announcement comes back as well.
    net.balancer.ip(&["addr del 10.1.1.1/32 dev eth0".into()])?;
    eventually("the address is back", SOON, || net.balancer.has_address(vip4(1)).unwrap_or(false))?;
    let_pass(Duration::from_secs(1));
    let claims = pair.first.vips()?.cluster.context("a cluster")?.claims;
    ensure!(claims == 0, "{claims} claims of others, and nobody else was there");
    let transitions = |lb: &Lb<'_>| Ok::<_, anyhow::Error>(lb.vips()?.groups[0].transitions);
    ensure!((transitions(&pair.first)?, transitions(&pair.second)?) == (Some(1), Some(0)), "something changed");
    Ok(())
}

#[test]
fn addresses_that_somebody_deletes_come_back() -> Result<()> {
    let net = network("failover-deleted")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    for vip in ["10.1.1.1/32", "fd00:1::1:1/128"] {
        net.balancer.ip(&[format!("addr del {vip} dev eth0")])?;
    }
    let took = eventually("the addresses are back", SOON, || {
        [vip4(1), vip6(1)].into_iter().all(|vip| net.balancer.has_address(vip).unwrap_or(false))
    })?;
    ensure!(took < Duration::from_millis(1_200), "{took:?}");
    pair.wait_for(VipState::Active, VipState::Backup)
}
