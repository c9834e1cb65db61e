//! `cargo xtask dist --walk`: what a stranger does with lb's Debian package, on a clean Debian run by systemd, between a
//! client and nginx nodes in network namespaces: install, look, serve HTTPS and L4, reload, upgrade and restart under load,
//! crash, remove, purge. Arguments: the Debian as a tar archive, the package, and a later version of it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it tells who runs it what it does and what went wrong")]

mod machine;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Nginx, Requests, Topology, eventually, http, topology::vip4};

use machine::Machine;

const CONFIG: &str = include_str!("walk.toml");
const DEADLINE: Duration = Duration::from_secs(20);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Requests between two acts under load.
const BETWEEN: u64 = 200;
/// What a package may leave: configuration that was changed stays until it is purged.
const LEFT_AFTER_REMOVAL: &[&str] = &["/etc/lb/lb.toml", "/var/lib/lb"];

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [debian, package, next] = arguments.as_slice() else {
        eprintln!("usage: package-walk DEBIAN.tar PACKAGE.deb LATER.deb");
        return ExitCode::from(2);
    };
    match run(debian, package, next) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the walk ended early: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(debian: &Path, package: &Path, next: &Path) -> Result<()> {
    let net = Topology::new("pkg").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80, 8080])).collect::<Result<Vec<_>>>()?;
    let machine = Machine::boot(&net.balancer, debian)?;
    let walk = Walk { machine: &machine, net: &net };
    let result = walk.all(package, next);
    if result.is_err() {
        eprintln!("--- journal of lbd\n{}---", machine.run("journalctl -u lbd --no-pager -n 80").unwrap_or_default());
    }
    result
}

struct Walk<'n> {
    machine: &'n Machine,
    net: &'n lb_tests::harness::Net,
}

impl Walk<'_> {
    fn all(&self, package: &Path, next: &Path) -> Result<()> {
        self.install(package).context("install")?;
        self.serve().context("serve")?;
        self.under_load("systemctl reload lbd", || self.machine.run("systemctl reload lbd").map(drop))?;
        self.under_load("upgrade of the package", || self.upgrade(next))?;
        self.under_load("lbctl upgrade --rollback", || self.roll_back())?;
        self.l4_alone("systemctl restart lbd", || self.machine.run("systemctl restart lbd").map(drop))?;
        self.l4_alone("lbd killed, started again by systemd", || self.crash())?;
        self.remove().context("remove")?;
        self.purge().context("purge")
    }

    fn install(&self, package: &Path) -> Result<()> {
        say("install", "apt-get install ./lb.deb: enabled, started, answers");
        self.machine.copy(package, "/root/lb.deb")?;
        self.machine.run("apt-get install -y -q --no-install-recommends /root/lb.deb")?;
        self.machine.run("systemctl is-enabled lbd")?;
        self.machine.run("systemctl is-active lbd")?;
        println!("{}", self.machine.run("lbctl status")?);
        for page in ["lbctl", "lbctl-node-drain", "lbd", "lb.toml"] {
            self.machine.run(&format!("man -w {page}"))?;
        }
        self.machine.run("getent group lb")?;
        self.machine.run("getent passwd lb-worker")?;
        self.machine.run("logrotate --debug /etc/logrotate.d/lbd")?;
        let mode = self.machine.run("stat -c %a:%U:%G /run/lb/admin.sock /var/lib/lb /etc/lb/lb.toml")?;
        ensure!(mode == "660:root:lb\n700:root:root\n640:root:root\n", "modes are {mode}");
        Ok(())
    }

    fn serve(&self) -> Result<()> {
        say("serve", "a certificate by lbctl cert, the configuration, lbctl check, lbctl reload");
        self.machine.run("install -d -m 0700 /etc/lb/tls")?;
        self.machine.run("lbctl cert new-key /etc/lb/tls/site.key")?;
        self.machine.run(
            "lbctl cert self-signed --key /etc/lb/tls/site.key --out /etc/lb/tls/site.pem --name www.example.com",
        )?;
        self.machine.write("/etc/lb/lb.toml", &self.config())?;
        self.machine.run("lbctl check /etc/lb/lb.toml")?;
        self.machine.run("lbctl reload")?;
        eventually("HTTPS answers", DEADLINE, || self.https().is_ok())?;
        let l4 = SocketAddr::new(vip4(2), 80);
        let asked = || self.net.client().run(|| http::get(l4, None, "/", CLIENT_TIMEOUT));
        eventually("L4 answers", DEADLINE, || asked().is_ok())?;
        for command in ["lbctl status", "lbctl vs ls", "lbctl node ls", "lbctl doctor"] {
            println!("# {command}\n{}", self.machine.run_any(command)?);
        }
        Ok(())
    }

    /// The configuration, with the addresses of the nodes.
    fn config(&self) -> String {
        let [n1, n2] = [0, 1].map(|i| self.net.nodes[i].v4.to_string());
        CONFIG.replace("@n1@", &n1).replace("@n2@", &n2)
    }

    /// One request over TLS, by curl.
    fn https(&self) -> Result<String> {
        let address = vip4(1);
        self.net
            .client()
            .sh(&format!("curl -sS -m 3 --fail -k --resolve www.example.com:443:{address} https://www.example.com/"))
    }

    /// L4 and HTTP requests all the while: none may fail.
    fn under_load(&self, what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
        say(what, "while requests come by L4 and by L7");
        let l7 = Requests::start(self.net.client(), SocketAddr::new(vip4(1), 80), 2, 0, CLIENT_TIMEOUT)?;
        self.l4_alone(what, act)?;
        let tally = l7.stop()?;
        println!("L7: {} answered, {} failed", tally.answered(), tally.failures.len());
        ensure!(tally.failures.is_empty(), "{what}: {:?}", tally.failures);
        Ok(())
    }

    fn l4_alone(&self, what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let l4 = Requests::start(self.net.client(), SocketAddr::new(vip4(2), 80), 2, 0, CLIENT_TIMEOUT)?;
        l4.wait_for_more(BETWEEN, DEADLINE)?;
        act().context(what.to_owned())?;
        l4.wait_for_more(BETWEEN, DEADLINE)?;
        let tally = l4.stop()?;
        println!("{what}: L4: {} answered, {} failed", tally.answered(), tally.failures.len());
        ensure!(tally.failures.is_empty(), "{what}: {:?}", tally.failures);
        self.machine.run("systemctl is-active lbd")?;
        Ok(())
    }

    fn upgrade(&self, next: &Path) -> Result<()> {
        let before = self.pid()?;
        self.machine.copy(next, "/root/lb-next.deb")?;
        self.machine.run("apt-get install -y -q --no-install-recommends /root/lb-next.deb")?;
        ensure!(self.pid()? == before, "the package has restarted lbd");
        let said = self.machine.run("journalctl -u lbd --no-pager -o cat")?;
        ensure!(said.contains("replaced by the installed program"), "lbd was not replaced");
        let config = self.machine.run("cat /etc/lb/lb.toml")?;
        ensure!(config == self.config(), "the upgrade has touched the configuration");
        Ok(())
    }

    /// To the programs before the package's upgrade, and back to the new ones.
    fn roll_back(&self) -> Result<()> {
        let sums = || self.machine.run("sha256sum /usr/sbin/lbd /usr/bin/lbctl");
        let kept = self.machine.run("cd /usr/lib/lb/previous && sha256sum lbd lbctl")?;
        self.machine.run("lbctl upgrade --rollback")?;
        let installed = sums()?;
        let digests = |text: &str| text.lines().map(|line| line.chars().take(64).collect()).collect::<Vec<String>>();
        ensure!(digests(&installed) == digests(&kept), "{installed} is not {kept}");
        self.machine.run("lbctl upgrade --rollback").map(drop)
    }

    fn crash(&self) -> Result<()> {
        let before = self.pid()?;
        self.machine.run(&format!("kill -9 {before}"))?;
        eventually("systemd starts lbd again", DEADLINE, || {
            self.pid().is_ok_and(|pid| pid != before) && self.machine.run("lbctl status").is_ok()
        })?;
        Ok(())
    }

    fn pid(&self) -> Result<String> {
        let pid = self.machine.run("systemctl show -p MainPID --value lbd")?;
        ensure!(pid.trim() != "0", "lbd does not run");
        Ok(pid.trim().to_owned())
    }

    fn remove(&self) -> Result<()> {
        say("remove", "lbd stops, VIPs and programs go, the configuration stays");
        self.machine.run("apt-get remove -y -q lb")?;
        ensure!(!self.net.balancer.has_address(vip4(1))?, "the VIP is still there");
        ensure!(!self.net.balancer.sh("ip link show dev eth0")?.contains("xdp"), "the XDP program is still there");
        for file in LEFT_AFTER_REMOVAL {
            self.machine.run(&format!("test -e {file}"))?;
        }
        ensure!(self.machine.run("pgrep lbd").is_err(), "something of lbd runs on");
        Ok(())
    }

    fn purge(&self) -> Result<()> {
        say("purge", "nothing is left");
        self.machine.run("rm -rf /etc/lb/tls")?; // the administrator's own
        self.machine.run("apt-get purge -y -q lb")?;
        for folder in
            ["/etc/lb", "/var/lib/lb", "/var/log/lb", "/run/lb", "/sys/fs/bpf/lb", "/usr/share/lb", "/usr/lib/lb"]
        {
            self.machine.run(&format!("test ! -e {folder}")).with_context(|| format!("{folder} was left"))?;
        }
        Ok(())
    }
}

fn say(what: &str, meaning: &str) {
    println!("\n== {what}: {meaning}");
}
