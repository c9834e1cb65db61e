//! What one choice of a node costs, by scheduler and number of nodes: `cargo bench -p lb-userspace --bench pool`.
//!
//! Each row is the best of several rounds of choosing and giving back, with as many leases held as there are nodes.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use lb::{
    control::{
        plan::Admission,
        proxy::{
            ProxyPlan, Secret,
            pool::{
                Key, Node, NodeGone, NodeProtocol, NodeTimeouts, Passive, Persistence, PersistenceKind, Pool, Retry,
                Scheduler,
            },
        },
    },
    proxy::{
        facts::{Facts, TlsFacts},
        pool::{NodeSet, Pools, Shared, Thread},
    },
};

const ROUNDS: u32 = 20;
const CHOICES: u32 = 50_000;

/// A request without any header but a cookie.
struct Request(String);

impl Facts for Request {
    fn client(&self) -> IpAddr {
        Ipv4Addr::new(198, 51, 100, 7).into()
    }
    fn local(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 80))
    }
    fn method(&self) -> &str {
        "GET"
    }
    fn host(&self) -> &str {
        "example.org"
    }
    fn path(&self) -> &str {
        "/"
    }
    fn raw_url(&self) -> &str {
        "/"
    }
    fn query(&self) -> Option<&str> {
        None
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "cookie").then_some(Cow::Borrowed(&self.0))
    }
    fn version(&self) -> &str {
        "1.1"
    }
    fn tls(&self) -> Option<&TlsFacts> {
        None
    }
}

fn node(i: u8, max_connections: u32) -> Node {
    Node {
        addresses: vec![SocketAddr::from(([10, 0, 0, i], 80))],
        weight: 1 + u32::from(i % 3),
        priority: 1,
        admission: Admission::All,
        max_connections,
    }
}

fn pool(nodes: u8, scheduler: Scheduler, max_connections: u32, kind: Option<PersistenceKind>) -> Pool {
    let timeout = Duration::from_secs(600);
    let persistence =
        kind.map(|kind| Persistence { kind, timeout, max_entries: 1000, node_gone: NodeGone::ChooseAnew });
    Pool {
        nodes: (1..=nodes).map(|i| (format!("n{i}"), node(i, max_connections))).collect::<BTreeMap<_, _>>(),
        scheduler,
        hash_load_percent: 0,
        min_live_nodes: 0,
        slow_start: Duration::ZERO,
        persistence,
        failure_pool: None,
        protocol: NodeProtocol::Http1,
        tls: None,
        proxy_protocol: None,
        transparent: false,
        keep_alive: 32,
        keep_alive_timeout: Duration::from_secs(60),
        timeouts: NodeTimeouts::default(),
        retry: Retry::default(),
        passive: Passive::default(),
        queue: 0,
        queue_timeout: Duration::from_secs(5),
    }
}

/// Nanoseconds of one choice with its outcome and its end.
fn measure(pool: Pool, cookie: bool) -> f64 {
    let plan = ProxyPlan { pools: [("web".to_owned(), pool)].into(), secret: Secret([7; 32]), ..ProxyPlan::default() };
    let begin = Instant::now();
    let now = || begin.elapsed() + Duration::from_secs(1000);
    let shared = Shared::new();
    shared.size_tables(&plan);
    let pools = Pools::compile(&plan, &shared, None, Thread { index: 0, count: 1 }, now());
    let id = pools.id("web").expect("the plan has it");
    let tried = NodeSet::default();
    let mut request = Request("a=b; c=d".to_owned());
    let choose = |request: &Request, random: u64, now| {
        pools.choose(black_box(id), request, &tried, now, random).expect("all nodes are live")
    };
    if cookie {
        let set = choose(&request, 0, now()).learn([], None, now()).expect("a stranger gets one").to_owned();
        request = Request(format!("a=b; {set}"));
    }
    let count = pools.pool(id).map_or(0, |pool| pool.nodes().len());
    let _held: Vec<_> = (0..count as u64).map(|i| choose(&request, i, now())).collect();
    let mut best = f64::MAX;
    for round in 0..ROUNDS {
        let now = now();
        let start = Instant::now();
        for i in 0..CHOICES {
            let random = u64::from(i.wrapping_mul(0x9e37_79b9)) << 32 | u64::from(i ^ round);
            let lease = choose(&request, random, now);
            lease.responded(200, Duration::from_micros(300), now);
            drop(black_box(lease));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CHOICES));
    }
    best
}

fn main() {
    let by_address = Key::ClientAddress { prefix4: 32, prefix6: 64 };
    let schedulers = [
        Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnections,
        Scheduler::WeightedLeastConnections,
        Scheduler::FastestResponse,
        Scheduler::Perceptive,
        Scheduler::RandomOfTwo,
        Scheduler::ConsistentHash(by_address),
    ];
    for scheduler in schedulers {
        let costs: Vec<_> =
            [2, 10, 100].iter().map(|nodes| measure(pool(*nodes, scheduler.clone(), 0, None), false)).collect();
        let name = format!("{scheduler:?}");
        let name = name.split('(').next().unwrap_or_default();
        println!(
            "{name:26} 2 nodes {:6.1} ns   10 nodes {:6.1} ns   100 nodes {:6.1} ns",
            costs[0], costs[1], costs[2]
        );
    }
    let limited = measure(pool(10, Scheduler::RoundRobin, 1_000_000, None), false);
    println!("{:26} 10 nodes {limited:6.1} ns", "RoundRobin, limited");
    let address = PersistenceKind::SourceAddress { prefix4: 32, prefix6: 64 };
    let address = measure(pool(10, Scheduler::RoundRobin, 0, Some(address)), false);
    println!("{:26} 10 nodes {address:6.1} ns", "persistence by address");
    let cookie = PersistenceKind::Cookie { name: "lb".to_owned(), attributes: "Path=/".to_owned() };
    let cookie = measure(pool(10, Scheduler::RoundRobin, 0, Some(cookie)), true);
    println!("{:26} 10 nodes {cookie:6.1} ns", "persistence by cookie");
}
