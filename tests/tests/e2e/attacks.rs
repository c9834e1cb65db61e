//! Advertisements that come back, late, a hundredfold, damaged or forged move nothing, lose nothing and make nobody louder; a
//! machine with FreeBSD's CARP logic shows that the network of these tests would show it.

use std::{
    cell::Cell,
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lb::control::view::HeartbeatCounters;
use lb_tests::harness::{
    Attack, Attacker, BsdCarp, Change, Lb, Net, Owners, Probe, Topology, eventually, owners::Seen, topology::vip4,
    wait::let_pass,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    failover::children,
    pair::{cluster, priority},
    support::SOON,
};

const MS: Duration = Duration::from_millis(1);
/// How long each attack lasts.
const TIME: Duration = Duration::from_secs(3);
/// How often it is counted how often the owner speaks, before that is held against it.
const TRIES: usize = 3;
/// Three heartbeats and a quarter, and what the machine needs.
const LOST: Duration = Duration::from_millis(500);

/// Two balancers that share one VIP, and a client that pings it.
struct Pair<'n> {
    net: &'n Net,
    first: Lb<'n>,
    _second: Lb<'n>,
    owners: Owners,
    probe: Probe,
    /// Advertisements of the owner while nothing happens.
    quiet: Cell<Option<usize>>,
    _secrets: TempDir,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Heartbeats,
    Vrrp,
    Carp,
}

impl<'n> Pair<'n> {
    fn start(net: &'n Net, speaks: Speaks) -> Result<Self> {
        let secrets = tempfile::tempdir()?;
        let file = secrets.path().join("key");
        fs::write(&file, "thirty-two bytes of a shared key")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let second = net.second.as_ref().context("a network without a second balancer")?;
        let config = |number| config(number, speaks, &file.display().to_string());
        let first = Lb::start(net, &config(1))?;
        let owners = Owners::watch(&[&net.balancer, second], &[vip4(1)])?;
        let probe = Probe::ping(net.client(), vip4(1))?;
        if speaks != Speaks::Heartbeats {
            eventually("the first machine owns", SOON, || owners.only() == Some(0))?;
        }
        let _second = Lb::start_on(net, second, &config(2))?;
        eventually("the VIP answers, of the first machine", 2 * SOON, || {
            owners.only() == Some(0) && probe.is_answered()
        })?;
        let pair = Self { net, first, _second, owners, probe, quiet: Cell::new(None), _secrets: secrets };
        if speaks == Speaks::Heartbeats {
            eventually("the machines hear each other", SOON, || {
                let hears = |lb: &Lb<'_>| {
                    lb.vips().is_ok_and(|v| v.cluster.is_some_and(|c| c.machines.iter().all(|m| m.hears_us)))
                };
                hears(&pair.first) && hears(&pair._second)
            })?;
        }
        Ok(pair)
    }

    fn counters(&self) -> Result<HeartbeatCounters> {
        Ok(self.first.vips()?.cluster.context("there is a cluster")?.counters)
    }

    /// Nothing moves, nothing is lost, and the owner speaks as often as before. Returns how many frames each machine was sent.
    fn withstands(&self, attack: Attack, what: &str) -> Result<u64> {
        let watch = |attack| {
            let attacker = Attacker::start(self.net, attack)?;
            let (start, mark) = (Instant::now(), self.probe.mark());
            let_pass(TIME);
            let heard = attacker.heard_since(start).iter().filter(|heard| heard.machine == 0).count();
            // A busy machine lets more time pass.
            let heard = (heard as f64 * TIME.as_secs_f64() / start.elapsed().as_secs_f64()).round() as usize;
            let (_, lost) = self.probe.gap_since(mark);
            Ok::<_, anyhow::Error>((heard, lost, self.probe.mark() - mark, self.owners.since(start), attacker.sent()))
        };
        let mut counted = Vec::new();
        while counted.len() < TRIES {
            let before = match self.quiet.get() {
                Some(before) => before,
                None => watch(Attack::Watch)?.0,
            };
            let (heard, lost, asked, seen, sent) = watch(attack)?;
            ensure!(attack == Attack::Watch || sent > 0, "{what}: nothing was sent");
            ensure!(seen == Seen { owners_max: 1, ..Seen::default() }, "{what}: {seen:?}");
            ensure!(lost * 1000 <= asked, "{what}: {lost} of {asked} pings were lost");
            // A tenth, and one that falls into the next time.
            if heard.abs_diff(before) <= before / 10 + 1 {
                self.quiet.set(Some(before));
                return Ok(sent / 2);
            }
            // A busy machine counts some of them late, here or before: both are counted anew.
            self.quiet.set(None);
            counted.push(format!("{heard} instead of {before}"));
        }
        bail!("{what}: another number of advertisements each time: {counted:?}")
    }
}

fn config(number: u8, speaks: Speaks, key: &str) -> String {
    let (cluster, priority) = (cluster(number, key), priority(number));
    let group = format!(
        "[vip.web]\naddresses = [\"10.1.1.1\"]\ninterface = \"eth0\"\nmode = \"failover\"\npriority = {priority}\n\
         failback = false\n"
    );
    match speaks {
        Speaks::Heartbeats => format!("{cluster}{group}"),
        Speaks::Vrrp => format!("{group}router = {{ protocol = \"vrrp\", id = 42, interval = \"100ms\" }}\n"),
        Speaks::Carp => {
            format!("{group}router = {{ protocol = \"carp\", id = 42, passphrase_file = \"{key}\" }}\n")
        }
    }
}

fn hairpin(net: &Net) -> Result<()> {
    for machine in ["lb", "lb2"] {
        for interface in ["eth0", "eth1"] {
            net.hairpin(machine, interface, true)?;
        }
    }
    Ok(())
}

#[test]
fn the_logic_of_freebsd_flaps_where_frames_come_back() -> Result<()> {
    let net = Topology::new("attack-control").pair().build()?;
    let machine = BsdCarp::start(&net.balancer, Ipv4Addr::new(10, 1, 1, 1))?;
    let owners = Owners::watch(&[&net.balancer], &[vip4(1)])?;
    eventually("it owns", SOON, || owners.only() == Some(0))?;
    let_pass(TIME);
    ensure!(machine.transitions() == 1, "nothing comes back, and it changed {} times", machine.transitions());
    hairpin(&net)?;
    let start = Instant::now();
    let_pass(3 * TIME);
    // Every three seconds it owns anew, and yields to itself at once.
    let seen = owners.since(start);
    ensure!(machine.transitions() >= 5 && seen.transitions >= 2, "{} changes, {seen:?}", machine.transitions());
    Ok(())
}

#[test]
fn heartbeats_withstand_what_comes_back_late_and_often() -> Result<()> {
    let net = Topology::new("attack-reflect").pair().build()?;
    let pair = Pair::start(&net, Speaks::Heartbeats)?;
    let before = pair.counters()?;
    let storm = pair.withstands(Attack::Reflect { copies: 100, delay: Duration::ZERO }, "a storm of reflections")?;
    let after = pair.counters()?;
    // Half of them are its own, half the other's.
    let counted = [after.looped_back - before.looped_back, after.stale - before.stale];
    ensure!(counted.iter().all(|count| *count > storm / 4), "of {storm} are counted: {counted:?}");
    pair.withstands(Attack::Reflect { copies: 2, delay: 150 * MS }, "late copies")?;
    pair.withstands(Attack::Replay(50 * MS), "a recording")?;
    hairpin(&net)?;
    pair.withstands(Attack::Watch, "a hairpin").map(drop)
}

#[test]
fn heartbeats_withstand_damage_and_forgery() -> Result<()> {
    let net = Topology::new("attack-forge").pair().build()?;
    let pair = Pair::start(&net, Speaks::Heartbeats)?;
    pair.withstands(Attack::Flood(Change::Checksum), "wrong checksums")?;
    pair.withstands(Attack::Flood(Change::Ttl), "another TTL")?;
    for (change, what) in [(Change::Tag, "wrong authentication"), (Change::Priority, "priorities 255 and 0")] {
        let before = pair.counters()?;
        let sent = pair.withstands(Attack::Flood(change), what)?;
        let forged = pair.counters()?.forged - before.forged;
        ensure!(forged > sent / 2, "{what}: of {sent}, {forged} are counted as forged");
    }
    Ok(())
}

#[test]
fn vrrp_and_carp_withstand_what_comes_back() -> Result<()> {
    for speaks in [Speaks::Vrrp, Speaks::Carp] {
        let net = Topology::new("attack-routers").pair().build()?;
        let pair = Pair::start(&net, speaks)?;
        let withstands = |attack, what: &str| pair.withstands(attack, &format!("{speaks:?}, {what}"));
        withstands(Attack::Reflect { copies: 100, delay: Duration::ZERO }, "a storm of reflections")?;
        withstands(Attack::Reflect { copies: 2, delay: 150 * MS }, "late copies")?;
        withstands(Attack::Flood(Change::Checksum), "wrong checksums")?;
        withstands(Attack::Flood(Change::Ttl), "another TTL")?;
        if speaks == Speaks::Carp {
            withstands(Attack::Flood(Change::Tag), "wrong authentication")?;
        }
        hairpin(&net)?;
        withstands(Attack::Watch, "a hairpin")?;
    }
    Ok(())
}

#[test]
fn what_a_dead_owner_said_does_not_keep_it_alive() -> Result<()> {
    let net = Topology::new("attack-dead").pair().build()?;
    let pair = Pair::start(&net, Speaks::Heartbeats)?;
    let attacker = Attacker::start(&net, Attack::Replay(50 * MS))?;
    eventually("something is recorded", SOON, || attacker.sent() > 20)?;
    let mark = pair.probe.mark();
    net.isolate("lb")?;
    // Dead indeed: what it would say now the attacker would only pass on.
    for pid in children(&pair.first)?.into_iter().chain([Pid::from_raw(pair.first.pid()?.cast_signed())]) {
        kill(pid, Signal::SIGKILL)?;
    }
    let_pass(Duration::from_secs(2));
    eventually("the VIP answers again", SOON, || pair.probe.is_answered())?;
    let (gap, _) = pair.probe.gap_since(mark);
    ensure!(gap < LOST, "{gap:?} without an answer");
    Ok(())
}
