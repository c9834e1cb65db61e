//! The monitors against real sockets. Those that are ignored make network namespaces and need root:
//! `cargo test -p lb-userspace --lib health::tests -- --ignored --nocapture`.

#![expect(clippy::print_stdout, reason = "measured times, shown by --nocapture")]

use std::{
    net::{IpAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use super::*;

mod hostile;
mod many;

fn settings(kind: Kind) -> Settings {
    Settings { kind, delay: Duration::from_millis(50), timeout: Duration::from_millis(500), failures: 2, successes: 1 }
}

fn tcp() -> Settings {
    settings(Kind::Tcp)
}

fn target(node: &str, address: SocketAddr, settings: Settings) -> Target {
    Target { pool: "web".into(), node: node.into(), address, monitor: "m".into(), settings }
}

fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("ends in time") });
}

/// Waits until the node is reported so, and gives the reason.
async fn reported(reports: &mut mpsc::Receiver<Report>, node: &str, health: Health) -> Option<String> {
    loop {
        let report = reports.recv().await.expect("the monitors run");
        if report.node == node && report.health == health {
            return report.reason;
        }
    }
}

#[test]
fn a_port_that_opens_and_closes_is_up_and_down() {
    on_one_thread(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        // One place: the other reports wait for it while the checks go on.
        let (sender, mut reports) = mpsc::channel(1);
        let monitors = Monitors::spawn(sender, Outside::default());
        let without_port = SocketAddr::new(address.ip(), 0);
        monitors.set(vec![target("n1", address, tcp()), target("n3", without_port, tcp())]);
        let mut first = Vec::new();
        while first.len() < 2 {
            let report = reports.recv().await.expect("the monitors run");
            first.push((report.node, report.health, report.reason));
        }
        first.sort_by(|a, b| a.0.cmp(&b.0));
        let nowhere = "neither the node nor the monitor has a port: give the monitor one";
        assert_eq!(first, [("n1".into(), Health::Up, None), ("n3".into(), Health::Unknown, Some(nowhere.into()))]);
        monitors.set(vec![target("n1", address, tcp())]);
        drop(listener);
        assert_eq!(reported(&mut reports, "n1", Health::Down).await.as_deref(), Some("connection refused"));
        let _listener = TcpListener::bind(address).expect("the same port");
        assert_eq!(reported(&mut reports, "n1", Health::Up).await, None);
    });
}

#[test]
fn the_engine_ends_with_its_handle() {
    on_one_thread(async {
        let (sender, mut reports) = mpsc::channel(1);
        drop(Monitors::spawn(sender, Outside::default()));
        assert_eq!(reports.recv().await, None);
    });
}

/// A namespace for the test's thread, and one with a node, joined by a veth pair.
struct Net {
    node: String,
}

impl Net {
    fn new(name: &str) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, to make network namespaces");
        let net = Self { node: format!("lb-{name}-{}", std::process::id()) };
        let node = &net.node;
        sh(&format!("ip netns add {node}"));
        sh("ip link set lo up");
        sh(&format!("ip link add lb0 type veth peer name eth0 netns {node}"));
        sh("ip link set lb0 up && ip addr add 10.1.0.1/24 dev lb0 && ip addr add fd00:1::1/64 dev lb0 nodad");
        net.at_node("ip link set eth0 up && ip link set lo up");
        net.at_node("ip addr add 10.1.0.11/24 dev eth0 && ip addr add fd00:1::11/64 dev eth0 nodad");
        net
    }

    fn at_node(&self, script: &str) {
        sh(&format!("ip netns exec {} sh -c '{script}'", self.node));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.node));
    }
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-c", script]).status().expect("sh runs");
    assert!(status.success(), "{script}");
}

struct Nginx(Child);

impl Nginx {
    fn start(net: &Net, directory: &std::path::Path) -> Self {
        let config = directory.join("nginx.conf");
        let text = format!(
            "daemon off; master_process off; error_log stderr; pid {0}/pid; events {{}}
             http {{ access_log off; server {{ listen 80; listen [::]:80; return 200 ok; }} }}",
            directory.display()
        );
        std::fs::write(&config, text).expect("writes the configuration");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &net.node, "nginx", "-c"]).arg(config).stderr(Stdio::null());
        Self(command.spawn().expect("nginx runs"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // `ip netns exec` became nginx.
        self.0.kill().and_then(|()| self.0.wait()).expect("nginx ends");
    }
}

#[test]
#[ignore = "makes network namespaces: needs root, ip and nginx"]
fn tcp_against_nginx_up_down_and_swallowed() {
    let net = Net::new("tcp");
    let directory = tempfile::tempdir().expect("a directory");
    on_one_thread(async {
        let (sender, mut reports) = mpsc::channel(16);
        let monitors = Monitors::spawn(sender, Outside::default());
        let addresses: [IpAddr; 2] = ["10.1.0.11".parse().expect("v4"), "fd00:1::11".parse().expect("v6")];
        for (node, ip) in ["n4", "n6"].into_iter().zip(addresses) {
            monitors.set(vec![target(node, SocketAddr::new(ip, 80), tcp())]);
            assert_eq!(reported(&mut reports, node, Health::Down).await.as_deref(), Some("connection refused"));
            let nginx = Nginx::start(&net, directory.path());
            reported(&mut reports, node, Health::Up).await;
            drop(nginx);
            assert_eq!(reported(&mut reports, node, Health::Down).await.as_deref(), Some("connection refused"));
        }
        // A neighbour that does not exist swallows what is sent to it.
        sh("ip neigh add 10.1.0.99 lladdr 02:00:00:00:00:99 dev lb0");
        let begun = std::time::Instant::now();
        monitors.set(vec![target("n9", "10.1.0.99:80".parse().expect("an address"), tcp())]);
        assert_eq!(reported(&mut reports, "n9", Health::Down).await.as_deref(), Some("no answer within 500ms"));
        println!("swallowed: down after {:?}", begun.elapsed());
        monitors.set(vec![target("n8", "192.0.2.1:80".parse().expect("an address"), tcp())]);
        assert_eq!(reported(&mut reports, "n8", Health::Down).await.as_deref(), Some("network unreachable"));
        // Nobody answers ARP: the kernel gives up after 3 s.
        let patient = Settings { timeout: Duration::from_secs(10), failures: 1, ..tcp() };
        monitors.set(vec![target("n7", "10.1.0.77:80".parse().expect("an address"), patient)]);
        assert_eq!(reported(&mut reports, "n7", Health::Down).await.as_deref(), Some("no route to host"));
    });
}

#[test]
#[ignore = "makes network namespaces: needs root and ip"]
fn ping_of_both_families() {
    let net = Net::new("ping");
    on_one_thread(async {
        let (sender, mut reports) = mpsc::channel(64);
        let monitors = Monitors::spawn(sender, Outside::default());
        let ping = settings(Kind::Ping);
        let node = |name, ip: &str, settings| target(name, SocketAddr::new(ip.parse().expect("ip"), 0), settings);
        monitors.set(vec![node("n4", "10.1.0.11", ping.clone())]);
        reported(&mut reports, "n4", Health::Up).await;
        monitors.set(vec![node("n6", "fd00:1::11", ping.clone())]);
        reported(&mut reports, "n6", Health::Up).await;
        println!("up: both");

        net.at_node("sysctl -qw net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1");
        assert_eq!(reported(&mut reports, "n6", Health::Down).await.as_deref(), Some("no answer within 500ms"));
        monitors.set(vec![node("n4", "10.1.0.11", ping.clone())]);
        assert_eq!(reported(&mut reports, "n4", Health::Down).await.as_deref(), Some("no answer within 500ms"));
        net.at_node("sysctl -qw net.ipv4.icmp_echo_ignore_all=0 net.ipv6.icmp.echo_ignore_all=0");
        reported(&mut reports, "n4", Health::Up).await;
        println!("ignored echoes: down, then up");

        let patient = Settings { timeout: Duration::from_secs(10), failures: 1, ..ping };
        let begun = std::time::Instant::now();
        monitors.set(vec![node("n7", "10.1.0.77", patient.clone())]);
        assert_eq!(reported(&mut reports, "n7", Health::Down).await.as_deref(), Some("no route to host"));
        monitors.set(vec![node("n8", "fd00:1::77", patient)]);
        assert_eq!(reported(&mut reports, "n8", Health::Down).await.as_deref(), Some("no route to host"));
        println!("nobody there: both down after {:?}, by the kernel's unreachable message", begun.elapsed());
    });
}

#[test]
#[ignore = "makes network namespaces: needs root and ip"]
fn many_pings_share_a_socket() {
    let net = Net::new("many");
    net.at_node("ip route add local 10.2.0.0/16 dev lo; sysctl -qw net.ipv4.icmp_msgs_per_sec=1000000");
    sh("ip route add 10.2.0.0/16 via 10.1.0.11");
    on_one_thread(async {
        let (sender, mut reports) = mpsc::channel(64);
        let monitors = Monitors::spawn(sender, Outside::default());
        let ping = Settings {
            kind: Kind::Ping,
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            failures: 1,
            successes: 1,
        };
        let ip = |n: u16| IpAddr::from([10, 2, (n >> 8) as u8, n as u8]);
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("proc").count();
        let before = descriptors();
        monitors.set((0..10_000).map(|n| target(&n.to_string(), SocketAddr::new(ip(n), 0), ping.clone())).collect());
        let begun = std::time::Instant::now();
        for _ in 0..10_000 {
            assert_eq!(reports.recv().await.map(|report| report.health), Some(Health::Up));
        }
        println!("10,000 up after {:?}, with {} descriptors more", begun.elapsed(), descriptors() - before);
        assert!(descriptors() - before <= 2);
        let quiet = tokio::time::timeout(Duration::from_secs(12), reports.recv()).await;
        assert!(quiet.is_err(), "a healthy node was reported: {quiet:?}");
    });
}
