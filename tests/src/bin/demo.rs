//! `cargo xtask demo`: a client, a balancer and three real nginx nodes in network namespaces; real HTTP through a DSR and
//! a NAT pool, while a pool is toggled, a node dies, and lbd is killed. Prints what went where; ends with 1 when a
//! request failed. Uses the harness only; what it shows is tested by `tests/tests/e2e`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demonstration talks to who runs it")]

use std::{
    io::IsTerminal,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lb_tests::harness::{
    Lb, Net, Nginx, Requests, Stop, Tally, Topology, eventually, http, nginx::PAGE_BYTES, topology::vip4,
};

const CONFIG: &str = include_str!("../../../examples/demo.toml");
const DSR: &str = "web-dsr";
const NAT: &str = "web-nat";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Requests of each of the first two phases.
const REQUESTS: usize = 600;
/// Requests between two acts of the later phases.
const BETWEEN: u64 = 150;
/// Clients that ask at the same time.
const CLIENTS: usize = 4;
/// How often a client repeats a GET whose connection broke before the answer was whole (RFC 9110, section 9.2.2).
const REPEATS: usize = 2;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demonstration failed: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize> {
    let start = Instant::now();
    say("lb demonstration", "client c1, balancer lb and nginx nodes n1 n2 n3 in network namespaces, one segment");
    let net = Topology::new("demo").nodes(3).dsr(&[vip4(1)]).build()?;
    let nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80, 8080])).collect::<Result<Vec<_>>>()?;
    let lb = net.start_lb(CONFIG)?.quiet();
    let mut demo = Demo { net: &net, lb, nginx, rows: Vec::new() };
    let result = demo.story();
    if result.is_err() || demo.failed() > 0 {
        eprintln!("--- lbd's log\n{}---", demo.lb.log());
    }
    result?;
    demo.report(start.elapsed());
    Ok(demo.failed())
}

/// One phase, done.
struct Row {
    title: &'static str,
    tally: Tally,
    traffic: Passed,
}

/// Packets and bytes through the balancer.
#[derive(Clone, Copy, Default)]
struct Passed {
    to_nodes: u64,
    to_client: u64,
    bytes: u64,
}

struct Demo<'n> {
    net: &'n Net,
    lb: Lb<'n>,
    nginx: Vec<Nginx>,
    rows: Vec<Row>,
}

impl Demo<'_> {
    fn story(&mut self) -> Result<()> {
        for pool in [DSR, NAT] {
            self.lb.wait_for_next_hops(pool)?;
        }
        say("1  DSR", "10.1.1.1:80: the balancer changes MAC addresses only, nodes answer the client directly");
        self.phase("DSR pool", |demo| demo.send(vip4(1)))?;
        say("2  NAT", "10.1.1.2:80 -> nodes' port 8080, weights 2:1:1; answers pass the balancer");
        self.phase("NAT pool", |demo| demo.send(vip4(2)))?;
        say("3  toggle", "lbctl pool set web-dsr forwarding=nat_source, then dsr, three times while requests run");
        self.phase("toggle DSR <-> NAT", Self::toggle)?;
        say("4  a node dies", "n3's cable is pulled and its nginx killed: nobody says good-bye");
        self.phase("node n3 dies, returns", Self::node_death)?;
        say("5  lbd dies", "kill -9 while requests run; the XDP program forwards on; a new lbd adopts it");
        self.phase("lbd killed, restarted", Self::lbd_death)
    }

    fn phase(&mut self, title: &'static str, act: impl FnOnce(&mut Self) -> Result<Tally>) -> Result<()> {
        let before = self.passed()?;
        let tally = act(self).with_context(|| title.to_owned())?;
        let after = self.passed()?;
        let traffic = Passed {
            to_nodes: after.to_nodes - before.to_nodes,
            to_client: after.to_client - before.to_client,
            bytes: after.bytes - before.bytes,
        };
        self.rows.push(Row { title, tally, traffic });
        Ok(())
    }

    fn passed(&self) -> Result<Passed> {
        let mut sum = Passed::default();
        for name in [DSR, NAT] {
            let view = self.lb.virtual_server(name)?;
            sum.to_nodes += view.forward.packets;
            sum.to_client += view.reply.packets;
            sum.bytes += view.forward.bytes + view.reply.bytes;
        }
        Ok(sum)
    }

    fn send(&mut self, vip: std::net::IpAddr) -> Result<Tally> {
        http::send_many(self.net.client(), SocketAddr::new(vip, 80), REQUESTS, CLIENTS)
    }

    fn traffic(&self, vip: u8, clients: usize) -> Result<Requests> {
        Requests::start(self.net.client(), SocketAddr::new(vip4(vip), 80), clients, REPEATS, CLIENT_TIMEOUT)
    }

    fn toggle(&mut self) -> Result<Tally> {
        let requests = self.traffic(1, CLIENTS)?;
        for forwarding in ["nat_source", "dsr", "nat_source", "dsr", "nat_source", "dsr"] {
            requests.wait_for_more(BETWEEN, DEADLINE)?;
            self.lb.ctl(&["pool", "set", DSR, &format!("forwarding={forwarding}")])?;
        }
        requests.wait_for_more(BETWEEN, DEADLINE)?;
        requests.stop()
    }

    fn node_death(&mut self) -> Result<Tally> {
        let (dsr, nat) = (self.traffic(1, CLIENTS / 2)?, self.traffic(2, CLIENTS / 2)?);
        dsr.wait_for_more(BETWEEN, DEADLINE)?;
        self.net.pull_cable("n3")?;
        self.nginx[2].kill()?;
        let noticed = self.wait_for_health(lb::control::view::Health::Down)?;
        println!(
            "     the monitors mark n3 down after {noticed:.1?}; SYNs to it were lost, the client's TCP repeats them"
        );
        dsr.wait_for_more(BETWEEN, DEADLINE)?;
        nat.wait_for_more(BETWEEN, DEADLINE)?;
        self.net.plug_cable("n3")?;
        self.nginx[2] = Nginx::start(&self.net.nodes[2], &[80, 8080])?;
        let back = self.wait_for_health(lb::control::view::Health::Up)?;
        println!("     n3 is started again and up after {back:.1?}");
        dsr.wait_for_more(BETWEEN, DEADLINE)?;
        nat.wait_for_more(BETWEEN, DEADLINE)?;
        let mut tally = dsr.stop()?;
        tally.add(nat.stop()?);
        Ok(tally)
    }

    fn wait_for_health(&self, health: lb::control::view::Health) -> Result<Duration> {
        eventually(&format!("n3 is {health:?}"), DEADLINE, || {
            [DSR, NAT].iter().all(|pool| self.lb.node(pool, "n3").is_ok_and(|node| node.health == health))
        })
    }

    fn lbd_death(&mut self) -> Result<Tally> {
        let (dsr, nat) = (self.traffic(1, CLIENTS / 2)?, self.traffic(2, CLIENTS / 2)?);
        dsr.wait_for_more(BETWEEN, DEADLINE)?;
        self.lb.stop(Stop::Kill)?;
        dsr.wait_for_more(BETWEEN, DEADLINE)?;
        nat.wait_for_more(BETWEEN, DEADLINE)?;
        let took = self.lb.launch()?;
        println!("     lbd is back and has adopted the data path after {took:.1?}");
        dsr.wait_for_more(BETWEEN, DEADLINE)?;
        nat.wait_for_more(BETWEEN, DEADLINE)?;
        let mut tally = dsr.stop()?;
        tally.add(nat.stop()?);
        Ok(tally)
    }

    fn failed(&self) -> usize {
        self.rows.iter().map(|row| row.tally.failures.len()).sum()
    }

    fn report(&self, took: Duration) {
        println!();
        let head =
            ["phase", "requests", "failed", "repeated", "n1", "n2", "n3", "pkts to nodes", "to client", "slowest"];
        println!("{}", bold(&line(&head.map(str::to_owned))));
        for row in &self.rows {
            println!("{}", line(&cells(row)));
        }
        if let [dsr, nat, ..] = &self.rows[..] {
            let (dsr, nat) = (dsr.traffic, nat.traffic);
            let packets = |passed: Passed| (passed.to_nodes + passed.to_client) as f64 / REQUESTS as f64;
            let kib = |passed: Passed| passed.bytes as f64 / 1024.0 / REQUESTS as f64;
            println!(
                "\nThrough the balancer for one page of {} KiB: DSR {:.1} packets, {:.1} KiB; NAT {:.1} packets, {:.1} KiB. \
                 DSR saves {:.0} % of the packets and {:.0} % of the bytes.",
                PAGE_BYTES / 1024,
                packets(dsr),
                kib(dsr),
                packets(nat),
                kib(nat),
                100.0 * (1.0 - packets(dsr) / packets(nat)),
                100.0 * (1.0 - kib(dsr) / kib(nat)),
            );
        }
        println!(
            "repeated: the connection broke before the answer was whole (its node had died); the client asked once more,\n\
             as browsers do for GET (RFC 9110, section 9.2.2). failed: no answer even so."
        );
        let failures = self.rows.iter().flat_map(|row| &row.tally.failures);
        failures.take(5).for_each(|failure| println!("  {failure}"));
        let total: usize = self.rows.iter().map(|row| row.tally.answered() + row.tally.failures.len()).sum();
        let verdict = format!("{total} requests in {:.0} s: {} failed requests", took.as_secs_f64(), self.failed());
        println!("\n{}", bold(&verdict));
    }
}

fn cells(row: &Row) -> [String; 10] {
    let Tally { by_node, repeated, failures, slowest } = &row.tally;
    let node = |name: &str| by_node.get(name).copied().unwrap_or(0).to_string();
    [
        row.title.to_owned(),
        (row.tally.answered() + failures.len()).to_string(),
        failures.len().to_string(),
        repeated.to_string(),
        node(NODES[0]),
        node(NODES[1]),
        node(NODES[2]),
        row.traffic.to_nodes.to_string(),
        row.traffic.to_client.to_string(),
        format!("{:.0} ms", slowest.as_secs_f64() * 1000.0),
    ]
}

fn line(cells: &[String; 10]) -> String {
    let [phase, numbers @ ..] = cells;
    let widths = [9, 7, 9, 6, 6, 6, 14, 10, 9];
    let numbers = numbers.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}"));
    format!("{phase:<22}{}", numbers.collect::<String>())
}

fn say(title: &str, text: &str) {
    println!("{}  {text}", bold(&format!("{title:<15}")));
}

fn bold(text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stdout().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[1m{text}\x1b[0m") }
}
