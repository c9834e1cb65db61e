//! Pools in virtual time: requests, nodes and what becomes of them.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::*;
use crate::{
    control::{
        plan::Admission,
        proxy::{
            ProxyPlan, Secret,
            pool::{Key, Node as PlanNode, NodeProtocol, NodeTimeouts, Passive, Pool as PlanPool, Retry, Scheduler},
        },
    },
    proxy::facts::TlsFacts,
};

mod allocation;
mod basics;
mod limits;
mod passive;
mod persist;
mod random;
mod schedule;

/// A time at which every test begins: not zero, as no clock of a worker is.
const START: Duration = Duration::from_secs(1000);

const BY_ADDRESS: Scheduler = Scheduler::ConsistentHash(Key::ClientAddress { prefix4: 32, prefix6: 64 });

const SCHEDULERS: [Scheduler; 8] = [
    Scheduler::RoundRobin,
    Scheduler::WeightedRoundRobin,
    Scheduler::LeastConnections,
    Scheduler::WeightedLeastConnections,
    Scheduler::FastestResponse,
    Scheduler::Perceptive,
    Scheduler::RandomOfTwo,
    BY_ADDRESS,
];

const ONE_THREAD: Thread = Thread { index: 0, count: 1 };

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A request for tests.
#[derive(Clone, Debug)]
struct TestRequest {
    client: IpAddr,
    path: &'static str,
    query: Option<String>,
    headers: BTreeMap<&'static str, String>,
    tls: Option<TlsFacts>,
}

impl TestRequest {
    fn from(client: [u8; 4]) -> Self {
        Self { client: Ipv4Addr::from(client).into(), path: "/", query: None, headers: BTreeMap::new(), tls: None }
    }

    fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.insert(header, value.into());
        self
    }
}

impl Facts for TestRequest {
    fn client(&self) -> IpAddr {
        self.client
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
        self.path
    }
    fn raw_url(&self) -> &str {
        self.path
    }
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
    fn version(&self) -> &str {
        "1.1"
    }
    fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }
}

fn plan_node(i: u8) -> PlanNode {
    PlanNode {
        addresses: vec![SocketAddr::from(([10, 0, 0, i], 80))],
        weight: 1,
        priority: 1,
        admission: Admission::All,
        max_connections: 0,
    }
}

/// A pool of nodes `n01`, `n02` … with addresses 10.0.0.1 and so on.
fn plan_pool(scheduler: Scheduler, nodes: u8) -> PlanPool {
    PlanPool {
        nodes: (1..=nodes).map(|i| (format!("n{i:02}"), plan_node(i))).collect(),
        scheduler,
        hash_load_percent: 0,
        min_live_nodes: 0,
        slow_start: Duration::ZERO,
        persistence: None,
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

fn plan_of(pools: impl IntoIterator<Item = (&'static str, PlanPool)>) -> ProxyPlan {
    let pools = pools.into_iter().map(|(name, pool)| (name.to_owned(), pool)).collect();
    ProxyPlan { pools, secret: Secret([7; 32]), ..ProxyPlan::default() }
}

/// One worker thread with one pool, `web`.
struct Bench {
    pools: Pools,
    plan: ProxyPlan,
    now: Duration,
    random: u64,
    request: TestRequest,
}

impl Bench {
    fn new(pool: PlanPool) -> Self {
        Self::of(plan_of([("web", pool)]))
    }

    fn of(plan: ProxyPlan) -> Self {
        let shared = Shared::new();
        shared.size_tables(&plan);
        let pools = Pools::compile(&plan, &shared, None, ONE_THREAD, START);
        Self { pools, plan, now: START, random: 1, request: TestRequest::from([198, 51, 100, 1]) }
    }

    /// Another thread of the same worker.
    fn sibling(&self, index: usize) -> Self {
        let thread = Thread { index, count: index + 1 };
        let pools = Pools::compile(&self.plan, self.pools.shared(), None, thread, self.now);
        Self { pools, plan: self.plan.clone(), now: self.now, random: 99, request: self.request.clone() }
    }

    /// Changes the pool by a new plan.
    fn change(&mut self, change: impl FnOnce(&mut PlanPool)) {
        change(self.plan.pools.get_mut("web").unwrap());
        self.pools.shared().size_tables(&self.plan);
        self.pools = Pools::compile(&self.plan, self.pools.shared(), Some(&self.pools), ONE_THREAD, self.now);
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn web(&self) -> PoolId {
        self.pools.id("web").unwrap()
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        lb_common::flow::mix64(self.random)
    }

    fn choose(&mut self) -> Result<Lease, NoNode> {
        self.choose_but(&NodeSet::default())
    }

    fn choose_but(&mut self, tried: &NodeSet) -> Result<Lease, NoNode> {
        let random = self.random();
        self.pools.choose(self.web(), &self.request, tried, self.now, random)
    }

    /// Nodes of requests that end at once.
    fn names(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.choose().unwrap().node().name().to_owned()).collect()
    }

    /// How many of `count` requests that end at once each node gets.
    fn shares(&mut self, count: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for name in self.names(count) {
            *shares.entry(name).or_default() += 1;
        }
        shares
    }
}
