//! Static VIPs against the kernel, in network namespaces of their own. Needs root:
//! `cargo test -p lb-userspace --lib failover::tests -- --ignored --nocapture`.

#![expect(clippy::print_stdout, reason = "packets as seen, shown by --nocapture")]

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use super::*;

/// A namespace for the test's thread, and one with a neighbour, joined by a veth pair (`eth0` here, `peer` there).
struct Net {
    neighbour: String,
}

impl Net {
    fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, to make network namespaces");
        let net = Self { neighbour: format!("lb-vips-{}", std::process::id()) };
        sh(&format!("ip netns add {}", net.neighbour));
        net
    }

    fn add_link(&self) {
        let neighbour = &self.neighbour;
        sh(&format!("ip link add eth0 address 02:00:00:00:00:01 type veth peer name peer netns {neighbour}"));
        sh("ip link set eth0 up");
        self.at_neighbour("ip link set peer up && ip addr add 192.0.2.1/24 dev peer");
    }

    fn at_neighbour(&self, script: &str) {
        sh(&format!("ip netns exec {} sh -c '{script}'", self.neighbour));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.neighbour));
    }
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().expect("sh runs").success(), "{script}");
}

fn addresses() -> String {
    let shown = Command::new("ip").args(["-br", "addr", "show", "dev", "eth0"]).output().expect("ip runs");
    String::from_utf8(shown.stdout).expect("text")
}

/// What arrives at the neighbour, as tcpdump tells it.
struct Tcpdump {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tcpdump {
    fn start(net: &Net) -> Self {
        let what = "arp or (icmp6 and ip6[40] == 136)";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &net.neighbour, "tcpdump", "-lnnevi", "peer", "-Q", "in", what]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tcpdump runs");
        let mut ready = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            ready.read_line(&mut line).expect("tcpdump says that it listens");
        }
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// Waits for so many packets that say all this, and prints the last.
    fn see(&mut self, count: usize, words: &[&str]) {
        let mut packet = String::new();
        let mut seen = 0;
        while seen < count {
            let line = self.lines.next().expect("tcpdump runs").expect("text");
            if !line.starts_with(char::is_whitespace) {
                packet.clear();
            }
            packet.push_str(&line);
            if words.iter().all(|word| packet.contains(word)) {
                seen += 1;
                println!("{packet}");
                packet.clear();
            }
        }
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // `ip netns exec` became tcpdump.
        self.child.kill().and_then(|()| self.child.wait()).expect("tcpdump ends");
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}; addresses: {}", addresses());
}

fn vip(address: &str) -> RaisedVip {
    RaisedVip { address: address.parse().expect("an address"), interface: "eth0".into(), virtual_mac: None }
}

#[test]
#[ignore = "makes network namespaces: needs root, ip and tcpdump"]
fn vips_are_raised_announced_kept_over_a_restart_and_withdrawn() {
    let net = Net::new();
    let state = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let first = StaticVips::spawn(state.path()).expect("root");
        first.set(vec![vip("192.0.2.10"), vip("192.0.2.11"), vip("2001:db8::10")]);
        until("the missing interface is a problem", || {
            first.problems().iter().any(|problem| problem.contains("192.0.2.10 on eth0: the interface does not exist"))
        })
        .await;

        net.add_link();
        let mut tcpdump = Tcpdump::start(&net);
        let all_up =
            || ["192.0.2.10/32", "192.0.2.11/32", "2001:db8::10/128"].iter().all(|ip| addresses().contains(ip));
        until("all VIPs are up", all_up).await;
        println!("raised: {}", addresses());
        assert_eq!(first.problems(), Vec::<String>::new());
        let dumped = tokio::task::spawn_blocking(move || {
            tcpdump.see(2, &["ff:ff:ff:ff:ff:ff", "ARP", "Request who-has 192.0.2.10 tell 192.0.2.10", "length 60"]);
            tcpdump.see(
                2,
                &["33:33:00:00:00:01", "hlim 255", "tgt is 2001:db8::10", "Flags [override]", "02:00:00:00:00:01"],
            );
            tcpdump
        });
        let mut tcpdump = dumped.await.expect("no panic");

        sh("ip addr del 192.0.2.10/32 dev eth0");
        until("a VIP that others removed is back", all_up).await;

        drop(first);
        assert!(all_up(), "VIPs stay when lbd goes");
        sh("ip addr add 192.0.2.77/32 dev eth0");
        let second = StaticVips::spawn(state.path()).expect("root");
        second.set(vec![vip("192.0.2.10"), vip("2001:db8::10"), vip("192.0.2.77")]);
        until("the one that left the configuration is gone", || !addresses().contains("192.0.2.11/32")).await;

        let wait = tokio::task::spawn_blocking(move || {
            // The five of the second start, and one more after the carrier was lost.
            tcpdump.see(5, &["ARP", "tell 192.0.2.77"]);
            tcpdump
        });
        let mut tcpdump = wait.await.expect("no panic");
        net.at_neighbour("ip link set peer down && ip link set peer up");
        tokio::task::spawn_blocking(move || tcpdump.see(5, &["ARP", "tell 192.0.2.77"])).await.expect("no panic");
        println!("announced anew after the carrier came back");

        second.withdraw().await.expect("takes all down");
        assert!(!addresses().contains("192.0.2.10/32") && !addresses().contains("2001:db8::10"), "{}", addresses());
        assert!(addresses().contains("192.0.2.77/32"), "an address that is not lbd's was taken down");
        println!("withdrawn: {}", addresses());
    });
}
