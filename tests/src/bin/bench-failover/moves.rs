//! What makes a VIP move, and what a client sees of it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lb_tests::harness::{
    Probe, Topology, eventually,
    topology::{vip4, vip6},
    wait::let_pass,
};
use nix::sys::signal::Signal;

use super::{
    Begun, Run,
    machines::{LONG, Machines, Maker, Setup},
    observe,
};

/// How long a hang and a partition last.
const PAUSE: Duration = Duration::from_secs(8);
/// What comes late after a move belongs to it.
const AFTER: Duration = Duration::from_millis(800);
/// Clients of keepalived wait for up to 34 s after a partition: it does not always announce that it still owns.
const BLACK: Duration = Duration::from_secs(60);
const EVERYBODY: &[Maker] = &[Maker::Lb, Maker::LbVirtualMac, Maker::Keepalived, Maker::Ucarp];
const COMMANDED: &[Maker] = &[Maker::Lb, Maker::LbVirtualMac];
const OURS: &[Maker] = &[Maker::Lb];

/// A case, and who can be asked for it. `heal` belongs to `silent_partition`.
pub(crate) const CASES: [(&str, &[Maker]); 11] = [
    ("host_loss", EVERYBODY),
    ("silent_partition", EVERYBODY),
    ("carrier_loss", EVERYBODY),
    ("term", EVERYBODY),
    ("kill9", EVERYBODY),
    ("sigstop", EVERYBODY),
    ("planned", COMMANDED),
    ("maintenance", COMMANDED),
    ("fail_back", EVERYBODY),
    ("ipv6", OURS),
    ("vips200", OURS),
];

/// Runs a case so often; by name of the row.
pub(crate) fn measure(case: &str, maker: Maker, runs: usize) -> Result<Vec<(&'static str, Vec<Run>)>> {
    let net = Topology::new("bench-failover").pair().build()?;
    let setup =
        Setup { failback: case == "fail_back", vips: if case == "vips200" { 200 } else { 1 }, ipv6: case == "ipv6" };
    let mut machines = Machines::start(&net, maker, setup)?;
    let probe = Probe::ping(net.client(), if case == "ipv6" { vip6(1) } else { vip4(1) })?;
    machines.owned_by(0, &probe)?;
    let mut rows: Vec<(&'static str, Vec<Run>)> = Vec::new();
    for _ in 0..runs {
        machines.settle()?;
        for (name, run) in once(case, &mut machines, &probe)? {
            match rows.iter_mut().find(|(row, _)| *row == name) {
                Some((_, runs)) => runs.push(run),
                None => rows.push((name, vec![run])),
            }
        }
    }
    Ok(rows)
}

/// One move by this; the machines are whole again then.
fn once(case: &str, machines: &mut Machines<'_>, probe: &Probe) -> Result<Vec<(&'static str, Run)>> {
    let (owner, other) = machines.roles()?;
    let moved = |machines: &Machines<'_>, act: &dyn Fn() -> Result<()>| {
        observe(machines, probe, || {
            act()?;
            machines.owned_by(other, probe)
        })
    };
    match case {
        "host_loss" => {
            let run = observe(machines, probe, || {
                machines.lose(owner)?;
                answered(probe)
            })?;
            machines.revive(owner)?;
            machines.owned_by(other, probe)?;
            Ok(vec![("host_loss", run)])
        }
        "silent_partition" => {
            let lost = observe(machines, probe, || {
                machines.cut(owner)?;
                answered(probe)
            })?;
            machines.forget_neighbors()?;
            let_pass(PAUSE);
            let healed = observe(machines, probe, || {
                machines.heal(owner)?;
                let_pass(Duration::from_secs(2));
                answered(probe)
            })?;
            machines.settle()?;
            Ok(vec![("silent_partition", lost), ("heal", healed)])
        }
        "carrier_loss" => {
            let run = observe(machines, probe, || {
                machines.net.pull_cable(machines.name(owner))?;
                answered(probe)
            })?;
            machines.net.plug_cable(machines.name(owner))?;
            machines.settle()?;
            Ok(vec![("carrier_loss", run)])
        }
        "term" | "kill9" => {
            let signal = if case == "term" { Signal::SIGTERM } else { Signal::SIGKILL };
            let run = observe(machines, probe, || {
                machines.signal(owner, signal)?;
                let_pass(AFTER);
                answered(probe)
            })?;
            machines.revive(owner)?;
            machines.owned_by(other, probe)?;
            Ok(vec![(if case == "term" { "term" } else { "kill9" }, run)])
        }
        "sigstop" => {
            let run = observe(machines, probe, || {
                machines.signal(owner, Signal::SIGSTOP)?;
                let_pass(PAUSE);
                machines.signal(owner, Signal::SIGCONT)?;
                let_pass(AFTER);
                answered(probe)
            })?;
            machines.settle()?;
            Ok(vec![("sigstop", run)])
        }
        "planned" | "ipv6" => {
            let run = moved(machines, &|| machines.ctl(owner, &["vip", "failover", "web"]))?;
            Ok(vec![(if case == "ipv6" { "ipv6" } else { "planned" }, run)])
        }
        "vips200" => {
            let start = Instant::now();
            let mut run = moved(machines, &|| machines.ctl(owner, &["vip", "failover", "web"]))?;
            run.complete = machines.owners.complete_since(other, start).map(|at| at.duration_since(start));
            Ok(vec![("vips200", run)])
        }
        "maintenance" => {
            let run = moved(machines, &|| machines.ctl(owner, &["vip", "maintenance", "on"]))?;
            machines.ctl(owner, &["vip", "maintenance", "off"])?;
            Ok(vec![("maintenance", run)])
        }
        "fail_back" => {
            machines.signal(owner, Signal::SIGTERM)?;
            machines.owned_by(other, probe)?;
            let begun = Begun::now(probe);
            machines.revive(owner)?;
            eventually("the VIP comes back", LONG, || machines.owners.only() == Some(owner))?;
            answered(probe)?;
            Ok(vec![("fail_back", begun.end(machines, probe))])
        }
        other => bail!("there is no case {other}"),
    }
}

fn answered(probe: &Probe) -> Result<()> {
    let_pass(AFTER);
    eventually("the VIP answers again", BLACK, || probe.is_answered())?;
    let_pass(AFTER);
    Ok(())
}
