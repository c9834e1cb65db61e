//! What must not make a VIP move: what comes back, late, often, damaged or forged.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lb_tests::harness::{Attack, Attacker, BusyThreads, Change, Probe, Topology, topology::vip4, wait::let_pass};

use super::{
    Run,
    machines::{Machines, Maker, Setup},
};

const EVERYBODY: &[Maker] = &[Maker::Lb, Maker::LbVrrp, Maker::LbCarp, Maker::Keepalived, Maker::Ucarp, Maker::FreeBsd];
/// Whose advertisements cannot be made without a key; the rest is shown beside.
const SIGNED: &[Maker] = &[Maker::Lb, Maker::Keepalived, Maker::Ucarp];
/// Threads of the case `busy`: the load of the machine is at least so much.
const BUSY: usize = 10;
const MILLISECOND: Duration = Duration::from_millis(1);

/// A case, and who can be asked for it.
pub(crate) const CASES: [(&str, &[Maker]); 10] = [
    ("hairpin", EVERYBODY),
    ("storm", EVERYBODY),
    ("delayed", EVERYBODY),
    ("replay", SIGNED),
    ("replay_dead", SIGNED),
    ("bad_checksum", EVERYBODY),
    ("bad_hmac", SIGNED),
    ("bad_ttl", EVERYBODY),
    ("forged", SIGNED),
    ("busy", EVERYBODY),
];

fn attack(case: &str, maker: Maker) -> Attack {
    let interval = match maker {
        Maker::Lb | Maker::LbVrrp | Maker::LbVirtualMac | Maker::Keepalived => 100 * MILLISECOND,
        Maker::LbCarp | Maker::Ucarp | Maker::FreeBsd => 1_000 * MILLISECOND,
    };
    match case {
        "storm" => Attack::Reflect { copies: 100, delay: Duration::ZERO },
        "delayed" => Attack::Reflect { copies: 2, delay: interval * 3 / 2 },
        "replay" => Attack::Replay(interval / 2),
        "replay_dead" => Attack::Replay(interval),
        "bad_checksum" => Attack::Flood(Change::Checksum),
        "bad_hmac" => Attack::Flood(Change::Tag),
        "bad_ttl" => Attack::Flood(Change::Ttl),
        "forged" => Attack::Flood(Change::Priority),
        _ => Attack::Watch,
    }
}

/// For so long.
pub(crate) fn measure(case: &str, maker: Maker, time: Duration) -> Result<Run> {
    if !CASES.iter().any(|(known, _)| *known == case) {
        bail!("there is no case {case}");
    }
    let net = Topology::new("bench-failover").pair().build()?;
    let machines = Machines::start(&net, maker, Setup::default())?;
    let probe = Probe::ping(net.client(), vip4(1))?;
    machines.owned_by(0, &probe)?;
    let before = rate(&net, maker, time.min(Duration::from_secs(10)))?;
    let attacker = Attacker::start(&net, attack(case, maker))?;
    if case == "hairpin" {
        hairpin(&net, true)?;
    }
    if case == "replay_dead" {
        // He must have something to replay.
        let_pass(Duration::from_secs(3));
    }
    let _busy = (case == "busy").then(|| BusyThreads::start(BUSY));
    let (start, mark) = (Instant::now(), probe.mark());
    if case == "replay_dead" {
        machines.lose(0)?;
    }
    let_pass(time);
    let heard = attacker.heard_since(start).iter().filter(|heard| is_owners(maker, heard.machine)).count();
    let (gap, lost) = probe.gap_since(mark);
    let asked = probe.mark() - mark;
    let loss_percent = 100.0 * lost as f64 / asked.max(1) as f64;
    let rate_percent = (before > 0.0).then(|| 100.0 * heard as f64 / time.as_secs_f64() / before);
    let seen = machines.seen_since(start);
    let rate_percent = rate_percent.filter(|_| case != "replay_dead");
    Ok(Run { gap, seen, complete: None, loss_percent: Some(loss_percent), rate_percent })
}

/// Advertisements of the owner in a second.
fn rate(net: &lb_tests::harness::Net, maker: Maker, time: Duration) -> Result<f64> {
    let watcher = Attacker::start(net, Attack::Watch)?;
    let start = Instant::now();
    let_pass(time);
    let heard = watcher.heard_since(start).iter().filter(|heard| is_owners(maker, heard.machine)).count();
    Ok(heard as f64 / time.as_secs_f64())
}

/// The first machine owns; where heartbeats are, the second one has its own.
fn is_owners(maker: Maker, machine: usize) -> bool {
    maker != Maker::Lb || machine == 0
}

fn hairpin(net: &lb_tests::harness::Net, on: bool) -> Result<()> {
    for machine in ["lb", "lb2"] {
        for interface in ["eth0", "eth1"] {
            net.hairpin(machine, interface, on)?;
        }
    }
    Ok(())
}
