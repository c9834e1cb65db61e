//! Two machines that share VIPs, by the daemon of one maker.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lb_tests::harness::{
    BsdCarp, Host, Lb, Net, Owners, Probe, Router, Stop, eventually, owners::Seen, topology::vip6, wait::let_pass,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Long enough for every maker's slowest takeover.
pub(crate) const LONG: Duration = Duration::from_secs(25);
const PASSPHRASE: &str = "secret";

/// Whose daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// lbd, by heartbeats.
    Lb,
    /// lbd, by VRRP version 3.
    LbVrrp,
    /// The same with a virtual MAC address.
    LbVirtualMac,
    /// lbd, by CARP.
    LbCarp,
    /// keepalived, VRRP version 3.
    Keepalived,
    /// ucarp.
    Ucarp,
    /// The logic of FreeBSD's CARP: the negative control of attacks.
    FreeBsd,
}

impl Maker {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Maker::Lb => "lb",
            Maker::LbVrrp => "lb-vrrp",
            Maker::LbVirtualMac => "lb-virtual-mac",
            Maker::LbCarp => "lb-carp",
            Maker::Keepalived => "keepalived",
            Maker::Ucarp => "ucarp",
            Maker::FreeBsd => "freebsd-logic",
        }
    }

    fn is_lb(self) -> bool {
        matches!(self, Maker::Lb | Maker::LbVrrp | Maker::LbVirtualMac | Maker::LbCarp)
    }

    /// How long after a start everybody knows everybody.
    fn settles_in(self) -> Duration {
        match self {
            Maker::Lb => Duration::from_millis(500),
            Maker::LbVrrp | Maker::LbVirtualMac | Maker::Keepalived => Duration::from_millis(1_500),
            Maker::LbCarp | Maker::Ucarp | Maker::FreeBsd => Duration::from_secs(5),
        }
    }
}

/// What they share, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// The first machine takes the VIPs back.
    pub(crate) failback: bool,
    /// How many; the first is 10.1.1.1.
    pub(crate) vips: u8,
    /// And fd00:1::1:1.
    pub(crate) ipv6: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { failback: false, vips: 1, ipv6: false }
    }
}

/// The two.
pub(crate) struct Machines<'n> {
    pub(crate) net: &'n Net,
    pub(crate) maker: Maker,
    pub(crate) owners: Owners,
    setup: Setup,
    hosts: [&'n Host; 2],
    daemons: [Option<Daemon<'n>>; 2],
    secrets: TempDir,
}

enum Daemon<'n> {
    Lb(Box<Lb<'n>>),
    Other(Router),
    Bsd(#[expect(dead_code, reason = "it runs until it is dropped")] BsdCarp),
}

impl<'n> Machines<'n> {
    /// Started; the first one owns.
    pub(crate) fn start(net: &'n Net, maker: Maker, setup: Setup) -> Result<Self> {
        let hosts = [&net.balancer, net.second.as_ref().context("a network without a second machine")?];
        let secrets = tempfile::tempdir()?;
        for (name, secret) in [("cluster.key", &[7; 32][..]), ("carp.key", PASSPHRASE.as_bytes())] {
            fs::write(secrets.path().join(name), secret)?;
            fs::set_permissions(secrets.path().join(name), fs::Permissions::from_mode(0o600))?;
        }
        let owners = Owners::watch(&hosts, &vips(setup))?;
        let mut machines = Self { net, maker, owners, setup, hosts, daemons: [None, None], secrets };
        machines.launch(0)?;
        if maker != Maker::Lb {
            eventually("the first one owns", LONG, || machines.owners.only() == Some(0))?;
        }
        machines.launch(1)?;
        eventually("the first one owns", LONG, || machines.owners.only() == Some(0))?;
        machines.settle()?;
        Ok(machines)
    }

    /// Starts a machine's daemon.
    pub(crate) fn launch(&mut self, machine: usize) -> Result<()> {
        if let Some(Daemon::Lb(lb)) = &mut self.daemons[machine] {
            lb.launch()?;
            return Ok(());
        }
        let host = self.hosts[machine];
        let preempt = self.setup.failback;
        let daemon = match self.maker {
            Maker::Lb | Maker::LbVrrp | Maker::LbVirtualMac | Maker::LbCarp => {
                Daemon::Lb(Box::new(Lb::start_on(self.net, host, &self.config(machine))?.quiet()))
            }
            Maker::Keepalived => Daemon::Other(keepalived(host, 150 - 50 * machine, preempt)?),
            Maker::Ucarp => Daemon::Other(ucarp(host, 50 * machine, preempt)?),
            Maker::FreeBsd => Daemon::Bsd(BsdCarp::start(host, Ipv4Addr::new(10, 1, 1, 1))?),
        };
        self.daemons[machine] = Some(daemon);
        Ok(())
    }

    /// Waits until everybody knows everybody.
    pub(crate) fn settle(&self) -> Result<()> {
        if self.maker == Maker::Lb {
            eventually("the machines hear each other", LONG, || {
                self.daemons.iter().flatten().all(|daemon| match daemon {
                    Daemon::Lb(lb) => lb.vips().is_ok_and(|view| {
                        view.cluster.is_some_and(|cluster| cluster.machines.iter().all(|machine| machine.hears_us))
                    }),
                    Daemon::Other(_) | Daemon::Bsd(_) => true,
                })
            })?;
        }
        let_pass(self.maker.settles_in());
        Ok(())
    }

    /// The machine that owns alone, and the other.
    pub(crate) fn roles(&self) -> Result<(usize, usize)> {
        let owner = self.owners.only().context("not one machine owns")?;
        Ok((owner, 1 - owner))
    }

    pub(crate) fn name(&self, machine: usize) -> &str {
        &self.hosts[machine].name
    }

    pub(crate) fn signal(&self, machine: usize, signal: Signal) -> Result<()> {
        match &self.daemons[machine] {
            Some(Daemon::Lb(lb)) => lb.signal(signal),
            Some(Daemon::Other(router)) => router.signal(signal),
            Some(Daemon::Bsd(_)) | None => bail!("it takes no signals"),
        }
    }

    /// Everything on a machine is gone, and its cables with it.
    pub(crate) fn lose(&self, machine: usize) -> Result<()> {
        // Asked before: this takes a while, in which a machine that is cut off would go on talking.
        let pids = self.net.switch().sh(&format!("ip netns pids {}", self.hosts[machine].namespace()))?;
        self.cut(machine)?;
        for pid in pids.lines() {
            // It may have ended by now.
            let _ = kill(Pid::from_raw(pid.trim().parse()?), Signal::SIGKILL);
        }
        Ok(())
    }

    /// After its daemon has ended, one way or another: starts it again with a whole network and no address left.
    pub(crate) fn revive(&mut self, machine: usize) -> Result<()> {
        match &mut self.daemons[machine] {
            // What has ended by a signal was no success.
            Some(Daemon::Lb(lb)) => drop(lb.stop(Stop::Kill)),
            other => *other = None,
        }
        for vip in vips(self.setup) {
            let length = if vip.is_ipv4() { 32 } else { 128 };
            // Most are not there.
            let _ = self.hosts[machine].ip(&[format!("addr del {vip}/{length} dev eth0")]);
        }
        self.heal(machine)?;
        self.launch(machine)?;
        self.settle()
    }

    pub(crate) fn cut(&self, machine: usize) -> Result<()> {
        self.net.isolate(self.name(machine))
    }

    /// The machines forget where their neighbours are, as they do in a long partition.
    pub(crate) fn forget_neighbors(&self) -> Result<()> {
        let flush = ["eth0", "eth1"].map(|interface| format!("neigh flush dev {interface}"));
        self.hosts.iter().try_for_each(|host| host.ip(&flush))
    }

    pub(crate) fn heal(&self, machine: usize) -> Result<()> {
        self.net.rejoin(self.name(machine))
    }

    /// `lbctl` on a machine.
    pub(crate) fn ctl(&self, machine: usize, arguments: &[&str]) -> Result<()> {
        match &self.daemons[machine] {
            Some(Daemon::Lb(lb)) => lb.ctl(arguments).map(drop),
            Some(Daemon::Other(_) | Daemon::Bsd(_)) | None => bail!("it has no such command"),
        }
    }

    /// Waits until this machine owns alone and the client is answered.
    pub(crate) fn owned_by(&self, machine: usize, probe: &Probe) -> Result<()> {
        eventually("the VIP moves, and answers", LONG, || self.owners.only() == Some(machine) && probe.is_answered())
            .map(drop)
    }

    pub(crate) fn seen_since(&self, start: Instant) -> Seen {
        self.owners.since(start)
    }

    fn config(&self, machine: usize) -> String {
        let file = |name: &str| self.secrets.path().join(name).display().to_string();
        let (number, other) = (machine + 1, 2 - machine);
        let (own4, other4) = (number + 1, other + 1);
        let mut text = String::new();
        // Writing to a String cannot fail.
        if self.maker == Maker::Lb {
            let _ = write!(
                text,
                "[cluster]\nmachine = \"lb{number}\"\nkey_file = \"{}\"\nlisten = [\"10.1.0.{own4}\", \"10.2.0.{own4}\"]\n\
                 peer.lb{other}.addresses = [\"10.1.0.{other4}\", \"10.2.0.{other4}\"]\n",
                file("cluster.key")
            );
        }
        let addresses: Vec<String> = vips(self.setup).iter().map(|vip| format!("\"{vip}\"")).collect();
        let _ = write!(
            text,
            "[vip.web]\naddresses = [{}]\ninterface = \"eth0\"\nmode = \"failover\"\npriority = {}\nfailback = {}\n\
             failback_delay = \"1s\"\n",
            addresses.join(", "),
            200 - 100 * machine,
            self.setup.failback
        );
        match self.maker {
            Maker::LbVrrp => text.push_str("router = { protocol = \"vrrp\", id = 42, interval = \"100ms\" }\n"),
            Maker::LbVirtualMac => {
                // A backup is never heard: the guard has to be told that there is one.
                let _ = writeln!(
                    text,
                    "router = {{ protocol = \"vrrp\", id = 42, interval = \"100ms\", virtual_mac = true, \
                     peers = [\"10.1.0.{other4}\"] }}"
                );
            }
            Maker::LbCarp => {
                let _ = writeln!(
                    text,
                    "router = {{ protocol = \"carp\", id = 42, passphrase_file = \"{}\" }}",
                    file("carp.key")
                );
            }
            Maker::Lb | Maker::Keepalived | Maker::Ucarp | Maker::FreeBsd => {}
        }
        debug_assert!(self.maker.is_lb());
        text
    }
}

fn vips(setup: Setup) -> Vec<IpAddr> {
    let v4 = (1..=setup.vips).map(|number| Ipv4Addr::new(10, 1, 1, number).into());
    v4.chain(setup.ipv6.then(|| vip6(1))).collect()
}

fn keepalived(host: &Host, priority: usize, preempt: bool) -> Result<Router> {
    let preempt = if preempt { "" } else { "nopreempt\n" };
    Router::keepalived(
        host,
        &format!(
            "state BACKUP\n{preempt}interface eth0\nvirtual_router_id 42\npriority {priority}\nversion 3\nadvert_int 0.1\n\
             virtual_ipaddress {{\n10.1.1.1/32\n}}"
        ),
    )
    .map(Router::quiet)
}

fn ucarp(host: &Host, skew: usize, preempt: bool) -> Result<Router> {
    let skew = format!("--advskew={skew}");
    let mut arguments = vec!["--vhid=42", "--advbase=1", &skew];
    if preempt {
        arguments.push("--preempt");
    }
    Router::ucarp(host, "10.1.1.1", PASSPHRASE, &arguments).map(Router::quiet)
}
