//! The machine's own health, and lbd's own life, as VIP groups see them: front-end addresses, monitors and programs, a guard that
//! is killed, upgrades, another configuration of the cluster, and neighbours that claim a VIP.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb::{control::view::VipState, failover::announce::Announcement};
use lb_tests::harness::{
    Lb, Owners, Stop, eventually,
    owners::Seen,
    raw::RawSocket,
    topology::{vip4, vip6},
    wait::let_pass,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    failover::children,
    pair::{LOST, MOVED, NO_FAILBACK, Pair, network, state},
    support::SOON,
};

fn fault(lb: &Lb<'_>) -> Option<String> {
    lb.vips().ok()?.cluster?.fault
}

fn transitions(lb: &Lb<'_>) -> Result<Option<u64>> {
    Ok(lb.vips()?.groups[0].transitions)
}

#[test]
fn a_machine_that_does_not_reach_its_clients_gives_its_groups_to_one_that_does() -> Result<()> {
    let net = network("machine-front-end")?;
    let front_end = format!("front_end = [\"{}\", \"10.1.0.77\"]\ncheck_interval = \"100ms\"", net.client().v4);
    let pair = Pair::with(&net, NO_FAILBACK, [&front_end, &front_end], Ok)?;
    let_pass(Duration::from_secs(1));
    ensure!(fault(&pair.first).is_none(), "one that answers is enough: {:?}", fault(&pair.first));
    // Its carrier stays, and so does the other network, by which the machines hear each other.
    let gap = pair.gap(|| {
        net.cut("lb", "eth0")?;
        pair.wait_for(VipState::Backup, VipState::Active)
    })?;
    let why = fault(&pair.first).unwrap_or_default();
    ensure!(why.starts_with("front end: no answer from ") && why.contains("10.1.0.77"), "{why:?}");
    ensure!(gap < Duration::from_millis(1_500), "{gap:?} without an answer");
    // Where nobody reaches anybody, a group stays: never none.
    net.client().ip(&["link set eth0 down".to_owned()])?;
    eventually("the second machine has a fault as well", SOON, || fault(&pair.second).is_some())?;
    let_pass(Duration::from_secs(1));
    ensure!(state(&pair.second.vips()?) == Some(VipState::Active), "it gave its group to nobody");
    Ok(())
}

/// A program that root alone can change, for a user without rights to run.
fn program(dir: &TempDir, name: &str, text: &str) -> Result<()> {
    let path = dir.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[test]
fn a_monitor_of_the_machine_that_fails_gives_its_groups_away() -> Result<()> {
    let net = network("machine-monitors")?;
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    program(&dir, "disk", "test ! -e \"$(dirname \"$0\")/full\"")?;
    let lines = format!(
        "monitors = [\"gate\", \"disk\"]\n\
         [daemon]\nmonitor_dir = \"{}\"\nmonitor_user = \"nobody\"\n\
         [monitor.gate]\ntype = \"tcp\"\naddress = \"{}\"\nport = 99\ndelay = \"200ms\"\ntimeout = \"200ms\"\nfailures = 2\n\
         [monitor.disk]\ntype = \"program\"\nprogram = \"disk\"\ndelay = \"300ms\"\ntimeout = \"2s\"\nfailures = 1\n",
        dir.path().display(),
        net.client().v4
    );
    let gate = net.client().run(|| TcpListener::bind("0.0.0.0:99"))?;
    let pair = Pair::with(&net, NO_FAILBACK, [&lines, ""], Ok)?;
    let_pass(Duration::from_secs(1));
    ensure!(fault(&pair.first).is_none(), "{:?}", fault(&pair.first));
    let gap = pair.gap(|| {
        drop(gate);
        pair.wait_for(VipState::Backup, VipState::Active)
    })?;
    let why = fault(&pair.first).unwrap_or_default();
    ensure!(why.starts_with("monitors: gate (") && why.contains("refused"), "{why:?}");
    ensure!(gap < MOVED, "{gap:?} without an answer");
    let _gate = net.client().run(|| TcpListener::bind("0.0.0.0:99"))?;
    eventually("it is well again", SOON, || fault(&pair.first).is_none())?;
    // The other one knows it by the next heartbeat.
    eventually("the group is given back", SOON, || {
        pair.second.lbctl(&["vip", "failover", "web"]).is_ok_and(|output| output.status.success())
    })?;
    pair.wait_for(VipState::Active, VipState::Backup)?;
    fs::write(dir.path().join("full"), "")?;
    pair.wait_for(VipState::Backup, VipState::Active)?;
    let why = fault(&pair.first).unwrap_or_default();
    ensure!(why.starts_with("monitors: disk ("), "{why:?}");
    Ok(())
}

#[test]
fn a_machine_that_cannot_say_that_it_owns_gives_its_groups_away() -> Result<()> {
    let net = network("machine-mute")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    // The kernel refuses heartbeats on every path; those of the other machine come in as before.
    net.balancer.ip(&["rule add prio 1 ipproto udp dport 3780 prohibit".to_owned()])?;
    pair.wait_for(VipState::Backup, VipState::Active)?;
    let why = fault(&pair.first).unwrap_or_default();
    ensure!(why == "heartbeats: they cannot be sent on any path", "{why:?}");
    ensure!(!net.balancer.has_address(vip4(1))?, "its address is gone");
    net.balancer.ip(&["rule del prio 1".to_owned()])?;
    eventually("it is well again", SOON, || fault(&pair.first).is_none())?;
    pair.wait_for(VipState::Backup, VipState::Active)
}

fn guards(lb: &Lb<'_>) -> Result<Vec<Pid>> {
    let is_guard = |pid: &Pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"guard")
    };
    Ok(children(lb)?.into_iter().filter(is_guard).collect())
}

#[test]
fn a_guard_that_was_killed_is_replaced() -> Result<()> {
    let net = network("machine-guard")?;
    let mut pair = Pair::start(&net, NO_FAILBACK)?;
    let before = guards(&pair.first)?;
    ensure!(before.len() == 1, "{before:?}");
    for _ in 0..2 {
        let old = guards(&pair.first)?;
        kill(old[0], Signal::SIGKILL)?;
        eventually("there is another guard", SOON, || {
            guards(&pair.first).is_ok_and(|now| now.len() == 1 && now != old)
        })?;
        let_pass(Duration::from_millis(1_200));
    }
    // Field 41 of proc_pid_stat(5), behind the name in brackets, which ends field 2: 1 is SCHED_FIFO.
    let stat = fs::read_to_string(format!("/proc/{}/stat", guards(&pair.first)?[0]))?;
    let policy = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(38));
    ensure!(policy == Some("1"), "it is not on time: policy {policy:?}");
    ensure!(transitions(&pair.first)? == Some(1), "nothing moved");
    pair.first.stop(Stop::Kill)?;
    for vip in [vip4(1), vip6(1)] {
        eventually("the new guard takes the addresses down", SOON, || {
            net.balancer.has_address(vip).is_ok_and(|has| !has)
        })?;
    }
    eventually("the second machine owns it", SOON, || {
        pair.second.vips().is_ok_and(|view| state(&view) == Some(VipState::Active))
    })
    .map(drop)
}

#[test]
fn an_upgrade_gives_the_groups_to_the_other_machine_or_keeps_them() -> Result<()> {
    let net = network("machine-upgrade")?;
    let mut pair = Pair::with(&net, NO_FAILBACK, ["", ""], Lb::with_own_program)?;
    let upgrade = |pair: &Pair<'_>, round: u64| -> Result<()> {
        pair.first.install()?;
        pair.first.ctl(&["upgrade"])?;
        eventually("the new program answers", 2 * SOON, || {
            pair.first.status().is_ok_and(|status| status.upgrades == round)
        })
        .map(drop)
    };
    let owners = Owners::watch(&pair.machines(), &[vip4(1)])?;
    let gap = pair.gap(|| {
        upgrade(&pair, 1)?;
        pair.wait_for(VipState::Backup, VipState::Active)
    })?;
    ensure!(gap < MOVED, "handed over: {gap:?}");
    let back = pair.gap(|| {
        pair.second.ctl(&["vip", "failover", "web"])?;
        pair.wait_for(VipState::Active, VipState::Backup)
    })?;
    ensure!(back < MOVED, "and back: {back:?}");
    ensure!(!pair.first.log().contains("no real-time priority"), "heartbeats are late: {}", pair.first.log());

    pair.second.stop(Stop::Graceful)?;
    eventually("the first machine knows that it is alone", SOON, || {
        pair.first.vips().is_ok_and(|view| view.cluster.is_some_and(|cluster| !cluster.machines[0].alive))
    })?;
    let start = Instant::now();
    let gap = pair.gap(|| upgrade(&pair, 2))?;
    ensure!(gap < MOVED, "alone: {gap:?}");
    let seen = owners.since(start);
    ensure!(seen == Seen { owners_max: 1, ..Seen::default() }, "the address stayed: {seen:?}");
    ensure!(state(&pair.first.vips()?) == Some(VipState::Active), "it owns on");
    let why = pair.first.vips()?.groups[0].why.clone().unwrap_or_default();
    ensure!(why == "lbd was replaced, and goes on", "{why:?}");
    Ok(())
}

#[test]
fn another_configuration_of_the_cluster_moves_nothing() -> Result<()> {
    let net = network("machine-reload")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let hear = || {
        let hears = |lb: &Lb<'_>| {
            lb.vips().is_ok_and(|v| v.cluster.is_some_and(|c| c.machines.iter().all(|m| m.alive && m.hears_us)))
        };
        hears(&pair.first) && hears(&pair.second)
    };
    let new = pair.key.path().join("new.key");
    fs::write(&new, [9; 32])?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    let (old, new) = (pair.key_file.clone(), new.display().to_string());
    let both = format!("key_file = \"{new}\"\nold_key_file = \"{old}\"");
    let first_of_both = format!("key_file = \"{old}\"\nold_key_file = \"{new}\"");
    let gap = pair.gap(|| {
        // First all can read the new key, then all sign with it, then the old one goes.
        for lines in [first_of_both.clone(), both.clone(), format!("key_file = \"{new}\"")] {
            for lb in [&pair.first, &pair.second] {
                let config = fs::read_to_string(lb.config_file())?;
                let kept: Vec<&str> = config.lines().filter(|line| !line.contains("key_file")).collect();
                lb.reload(&kept.join("\n").replace("[cluster]", &format!("[cluster]\n{lines}")))?;
                // The configuration is followed within a second.
                let_pass(Duration::from_millis(1_300));
            }
            eventually("the machines hear each other", SOON, hear)?;
        }
        for lb in [&pair.first, &pair.second] {
            let config = fs::read_to_string(lb.config_file())?;
            lb.reload(&config.replace("[cluster]", "[cluster]\ninterval = \"50ms\""))?;
        }
        let_pass(Duration::from_secs(2));
        Ok(())
    })?;
    ensure!(gap < MOVED, "{gap:?} without an answer");
    ensure!((transitions(&pair.first)?, transitions(&pair.second)?) == (Some(1), Some(0)), "something moved");
    let warnings = pair.first.status()?.warnings;
    ensure!(!warnings.iter().any(|warning| warning.contains("cluster")), "{warnings:?}");
    let counters = || Ok::<_, anyhow::Error>(pair.first.vips()?.cluster.context("a cluster")?.counters.heard);
    let before = counters()?;
    let_pass(Duration::from_secs(2));
    let heard = counters()? - before;
    ensure!(heard > 30, "twice as many heartbeats: {heard} in two seconds");
    // And a machine that is lost is found out in half the time.
    let gap = pair.gap(|| net.isolate("lb"))?;
    ensure!(gap < LOST, "{gap:?} without an answer");
    Ok(())
}

#[test]
fn a_neighbour_that_claims_a_vip_is_counted_and_contradicted() -> Result<()> {
    let net = network("machine-claims")?;
    let pair = Pair::start(&net, NO_FAILBACK)?;
    let claims = |lb: &Lb<'_>| Ok::<_, anyhow::Error>(lb.vips()?.cluster.context("a cluster")?.claims);
    let before = claims(&pair.first)?;
    let intruder = net.nodes[0].mac("eth0")?;
    let mac: Vec<u8> = intruder.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let mac = mac.try_into().ok().context("six bytes")?;
    let frame = Announcement { address: vip4(1), mac, is_router: false }.frame();
    let socket = net.nodes[0].run(|| RawSocket::open("eth0", Duration::from_millis(10)))?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        socket.send(&frame)?;
        let_pass(Duration::from_millis(10));
    }
    eventually("the client believes the owner again", SOON, || {
        net.client().sh("ip neigh show 10.1.1.1").is_ok_and(|found| !found.contains(&intruder))
    })?;
    let claimed = claims(&pair.first)? - before;
    // Four answers a second at most: no war.
    ensure!((3..=14).contains(&claimed), "{claimed} claims in three seconds");
    ensure!((transitions(&pair.first)?, transitions(&pair.second)?) == (Some(1), Some(0)), "something moved");
    Ok(())
}
