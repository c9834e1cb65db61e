//! `lbctl check --host`: what this machine lacks for a configuration, found by looking alone: nothing is changed, and lbd need not run.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
    time::SystemTime,
};

use nix::{
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::{AccessFlags, User, access},
};

use crate::{
    config::{Config, proxy::VirtualServer},
    control::view::{Finding, Severity},
};

/// Capabilities that lbd keeps while it runs: their names and numbers (capabilities(7)).
const CAPABILITIES: [(&str, u32); 5] =
    [("CAP_NET_BIND_SERVICE", 10), ("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Looks at everything that a configuration needs of this machine. `file` is where it will be.
pub(super) fn findings(config: &Config, file: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(config.interfaces.keys().map(|name| interface(name)));
    let raised = config.vips.values().flat_map(|group| group.interfaces.values());
    found.extend(raised.filter(|name| !config.interfaces.contains_key(*name)).map(|name| interface(name)));
    found.push(bpf_filesystem(&config.dataplane.bpffs));
    found.push(capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default()));
    found.extend(source_ports(config));
    found.extend(ports(config));
    if !config.proxy.virtual_servers.is_empty() {
        found.push(user(&config.proxy.user, "proxy.user", "the L7 proxy's worker"));
    }
    found.extend(certificates(config));
    found.push(writable(&config.daemon.state_dir, "state_dir"));
    found.push(writable(file.parent().unwrap_or(Path::new(".")), "configuration"));
    found
}

fn finding(check: &str, subject: impl ToString, severity: Severity, finding: String, advice: Option<&str>) -> Finding {
    let (check, subject) = (check.to_owned(), subject.to_string());
    Finding { check, subject, severity, finding, advice: advice.map(str::to_owned) }
}

/// What is listed is of this network namespace; the state in /sys may be another's.
fn interface(name: &str) -> Finding {
    let listed = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let is_there = listed.lines().any(|line| line.split(':').next().is_some_and(|first| first.trim() == name));
    if !is_there {
        return finding("interface", name, Severity::Problem, "there is no such interface".into(), Some("ip link"));
    }
    match fs::read_to_string(format!("/sys/class/net/{name}/operstate")).as_deref().map(str::trim) {
        Ok("down" | "lowerlayerdown") => {
            let advice = format!("ip link set {name} up");
            finding("interface", name, Severity::Warning, "it is down".into(), Some(&advice))
        }
        Ok(_) | Err(_) => finding("interface", name, Severity::Ok, "is there".into(), None),
    }
}

fn bpf_filesystem(path: &Path) -> Finding {
    match statfs(path).map(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        Ok(true) => finding("bpffs", path.display(), Severity::Ok, "the BPF file system is mounted".into(), None),
        Ok(false) | Err(_) => {
            let advice = format!("mount -t bpf bpf {}", path.display());
            finding(
                "bpffs",
                path.display(),
                Severity::Problem,
                "no BPF file system is mounted there".into(),
                Some(&advice),
            )
        }
    }
}

/// Of a process as the one that asks: `status` is its /proc/self/status.
fn capabilities(status: &str) -> Finding {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    let lacking: Vec<&str> =
        CAPABILITIES.iter().filter(|(_, number)| held & (1 << number) == 0).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        return finding("capabilities", "root", Severity::Ok, "all that lbd needs are there".into(), None);
    }
    let text = format!("this user does not have {}", lacking.join(", "));
    finding("capabilities", "user", Severity::Warning, text, Some("start lbd as root, or by its systemd unit"))
}

/// Source NAT must not take ports that the machine's own connections take.
fn source_ports(config: &Config) -> Option<Finding> {
    use crate::control::plan::Forwarding;
    config.pools.values().find(|pool| pool.forwarding == Forwarding::NatSource)?;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.trim().parse().ok()?);
    let (from, to) = config.dataplane.source_ports;
    let subject = format!("{from}-{to}");
    Some(if from <= last && first <= to {
        let text = format!("source_ports overlap net.ipv4.ip_local_port_range ({first}-{last})");
        finding(
            "source_ports",
            subject,
            Severity::Problem,
            text,
            Some("sysctl net.ipv4.ip_local_port_range='32768 60999'"),
        )
    } else {
        finding("source_ports", subject, Severity::Ok, format!("apart from the machine's own ({first}-{last})"), None)
    })
}

/// Whether the L7 proxy may listen where it is to.
fn ports(config: &Config) -> Vec<Finding> {
    let runs = UnixStream::connect(&config.daemon.socket).is_ok();
    let mut found = Vec::new();
    for (name, VirtualServer { settings, .. }) in &config.proxy.virtual_servers {
        for address in &settings.listen {
            found.push(port(name, *address, TcpListener::bind(address).map(drop), runs));
        }
    }
    found
}

fn port(name: &str, address: SocketAddr, bound: io::Result<()>, runs: bool) -> Finding {
    let subject = format!("{name} {address}");
    match bound {
        Ok(()) => finding("port", subject, Severity::Ok, "is free".into(), None),
        Err(error) if error.kind() == ErrorKind::AddrInUse && runs => {
            finding("port", subject, Severity::Ok, "is in use; lbd runs, it may be its own".into(), None)
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let advice = format!("ss -ltnp 'sport = {}'", address.port());
            finding("port", subject, Severity::Problem, "another program listens there".into(), Some(&advice))
        }
        // A VIP that is raised later, or on another machine now.
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            finding("port", subject, Severity::Ok, format!("{} is not on this machine now", ip(address)), None)
        }
        Err(error) => {
            finding("port", subject, Severity::Warning, format!("cannot be tried: {error}"), Some("run it as root"))
        }
    }
}

fn ip(address: SocketAddr) -> IpAddr {
    address.ip()
}

fn user(name: &str, key: &str, whose: &str) -> Finding {
    match User::from_name(name) {
        Ok(Some(_)) => finding("user", name, Severity::Ok, format!("{whose} runs as this user"), None),
        Ok(None) | Err(_) => {
            let advice = format!("useradd --system --no-create-home --shell /usr/sbin/nologin {name}, or set {key}");
            finding(
                "user",
                name,
                Severity::Warning,
                format!("there is no such user: {whose} runs as nobody"),
                Some(&advice),
            )
        }
    }
}

/// Those that fit their keys; whatever does not is a mistake in the configuration.
fn certificates(config: &Config) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
    let facts = config.proxy.files.check_certificates(config).unwrap_or_default();
    let mut found = Vec::new();
    for (name, facts) in facts {
        found.push(match facts.expiry(now) {
            None => finding("certificate", name, Severity::Ok, format!("for {}", facts.names.join(", ")), None),
            Some(expiry) => {
                let names = facts.names.join(", ");
                finding(
                    "certificate",
                    name,
                    Severity::Warning,
                    format!("({names}) {expiry}"),
                    Some("lbctl cert show FILE"),
                )
            }
        });
    }
    found
}

fn writable(directory: &Path, what: &str) -> Finding {
    // Of one that is made when it is needed, the one above it.
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(directory);
    match access(there, AccessFlags::W_OK) {
        Ok(()) => finding(what, directory.display(), Severity::Ok, "can be written".into(), None),
        Err(error) => {
            let text = format!("{} cannot be written: {}", there.display(), error.desc());
            finding(what, directory.display(), Severity::Warning, text, Some("lbd runs as root, which must own it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_a_problem() {
        assert_eq!(interface("lo").severity, Severity::Ok);
        assert_eq!(interface("nosuch0").severity, Severity::Problem);
    }

    #[test]
    fn capabilities_are_read_as_the_kernel_writes_them() {
        assert_eq!(capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").severity, Severity::Ok);
        let some = capabilities("CapEff:\t0000000000001400\n");
        assert_eq!(some.finding, "this user does not have CAP_NET_RAW, CAP_PERFMON, CAP_BPF");
    }

    #[test]
    fn a_port_that_another_program_has_is_a_problem_unless_lbd_runs() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let bind = || TcpListener::bind(address).map(drop);
        assert_eq!(port("web", address, bind(), false).severity, Severity::Problem);
        assert_eq!(port("web", address, bind(), true).severity, Severity::Ok);
        drop(taken);
        assert_eq!(port("web", address, bind(), false).severity, Severity::Ok);
        let elsewhere: SocketAddr = "192.0.2.77:80".parse().unwrap();
        assert_eq!(port("web", elsewhere, TcpListener::bind(elsewhere).map(drop), false).severity, Severity::Ok);
    }

    #[test]
    fn a_machine_that_lacks_something_is_told_what() {
        let text = "version = 1\n[interface.nosuch0]\n[daemon]\nstate_dir = \"/nonexistent/x\"\n[dataplane]\nbpffs = \"/proc\"\n";
        let config = Config::parse("lb.toml", text).unwrap();
        let found = findings(&config, Path::new("/etc/lb/lb.toml"));
        let problems: Vec<&str> =
            found.iter().filter(|finding| finding.severity == Severity::Problem).map(|f| f.check.as_str()).collect();
        assert_eq!(problems, ["interface", "bpffs"]);
    }
}
