//! Long random runs against the rules that hold at all times. `LB_SEED` replays one.

use super::*;
use crate::control::proxy::pool::{NodeGone, Persistence, PersistenceKind};

/// A request under way.
struct Open {
    lease: Lease,
    /// It tried a node that was out.
    probe: bool,
}

struct Run {
    threads: Vec<Bench>,
    open: Vec<Open>,
    seed: u64,
    step: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut pool = plan_pool(SCHEDULERS[seed as usize % 8].clone(), 8);
        let dice = |n: u64, sides: u64| lb_common::flow::mix64(seed ^ n << 8) % sides;
        for (i, node) in pool.nodes.values_mut().enumerate() {
            let i = i as u64;
            node.weight = 1 + dice(i, 5) as u32;
            node.priority = dice(i + 50, 3) as u32;
            node.max_connections = if dice(i + 100, 3) == 0 { 2 } else { 0 };
        }
        pool.min_live_nodes = dice(200, 6) as u32;
        pool.slow_start = ms(dice(201, 3) * 5000);
        pool.hash_load_percent = if dice(202, 2) == 0 { 0 } else { 150 };
        pool.persistence = (dice(203, 2) == 0).then(|| Persistence {
            kind: PersistenceKind::SourceAddress { prefix4: 32, prefix6: 64 },
            timeout: ms(60_000),
            max_entries: 64,
            node_gone: NodeGone::ChooseAnew,
        });
        let first = Bench::new(pool);
        let second = first.sibling(1);
        Self { threads: vec![first, second], open: Vec::new(), seed, step: 0 }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.threads[0].random() % sides
    }

    fn step(&mut self) {
        self.step += 1;
        match self.dice(20) {
            0..=9 => self.choose(),
            10..=15 => self.end(),
            16 | 17 => {
                let time = ms(self.dice(3000));
                self.threads.iter_mut().for_each(|bench| bench.now += time);
            }
            18 => self.admission(),
            _ => {
                let name = format!("n{:02}", 1 + self.dice(8));
                let bench = &self.threads[0];
                bench.pools.shared().bring_back("web", &name, bench.now);
            }
        }
    }

    fn choose(&mut self) {
        let client = self.dice(40) as u8;
        let tried_bits = self.dice(256) & self.dice(256);
        let at = self.dice(2) as usize;
        let bench = &mut self.threads[at];
        bench.request = TestRequest::from([10, 0, 0, client]);
        let pool = Rc::clone(bench.pools.pool(bench.web()).unwrap());
        let mut tried = NodeSet::default();
        pool.nodes()
            .iter()
            .enumerate()
            .filter(|(i, _)| tried_bits >> i & 1 == 1)
            .for_each(|(_, n)| tried.insert(n.id()));
        let was_out: Vec<bool> = pool.nodes().iter().map(|node| node.state.shared.is_out()).collect();
        let (now, context) = (bench.now, (self.seed, self.step));
        match bench.choose_but(&tried) {
            Ok(lease) => {
                let node = lease.node();
                let index = node.id().index();
                let in_use = self.open.iter().filter(|open| open.lease.node().name() == node.name());
                assert!(!tried.contains(node.id()), "{context:?}: tried before");
                assert_ne!(node.admission, Admission::Nothing, "{context:?}: takes nothing");
                assert!(node.admission == Admission::All || pool.persistence.is_some(), "{context:?}: draining");
                assert!(node.max_connections == 0 || in_use.clone().count() < 2, "{context:?}: over its limit");
                if was_out[index] {
                    assert_eq!(in_use.filter(|open| open.probe).count(), 0, "{context:?}: two try it");
                    assert!(now >= node.state.shared.last_resort_at(), "{context:?}: too early");
                }
                if pool.persistence.is_none() {
                    assert!(self.group_serves(&pool, node, &was_out), "{context:?}: {} waits", node.name());
                }
                self.open.push(Open { lease, probe: was_out[index] });
            }
            Err(_) if pool.persistence.is_some() => {}
            Err(none) => {
                let free = |node: &&Node| {
                    let i = node.id().index();
                    !tried.contains(node.id()) && node.admission == Admission::All && !was_out[i] && node.has_room()
                };
                let left = pool.nodes().iter().find(|node| free(node) && self.group_serves(&pool, node, &was_out));
                assert!(left.is_none(), "{context:?}: {none:?}, and {:?} could serve", left.map(Node::name));
            }
        }
    }

    /// Whether fewer live nodes than are needed have a higher priority: computed anew, the plain way.
    fn group_serves(&self, pool: &Pool, node: &Node, was_out: &[bool]) -> bool {
        let live = |other: &&Node| other.admission == Admission::All && !was_out[other.id().index()];
        let above = pool.nodes().iter().filter(live).filter(|other| other.priority > node.priority).count();
        // Without any live node those that are out are tried, whatever their group.
        let none_live = !pool.nodes().iter().any(|other| live(&other));
        above < pool.settings.min_live_nodes as usize || pool.settings.min_live_nodes == 0 || none_live
    }

    fn end(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.dice(self.open.len() as u64) as usize;
        let (lease, now) = (self.open.swap_remove(at).lease, self.threads[0].now);
        match self.dice(8) {
            0 => lease.connect_failed(ms(3), now),
            1 => lease.early_close(now),
            2 => lease.reply_timeout(ms(50), now),
            3 => {}
            time => lease.responded(200, ms(time), now),
        }
    }

    fn admission(&mut self) {
        let name = format!("n{:02}", 1 + self.dice(8));
        let admission = [Admission::All, Admission::All, Admission::Tracked, Admission::Nothing][self.dice(4) as usize];
        for (index, bench) in self.threads.iter_mut().enumerate() {
            bench.plan.pools.get_mut("web").unwrap().nodes.get_mut(&name).unwrap().admission = admission;
            let thread = Thread { index, count: 2 };
            bench.pools = Pools::compile(&bench.plan, bench.pools.shared(), Some(&bench.pools), thread, bench.now);
        }
    }
}

#[test]
fn rules_hold_in_random_runs() {
    let seeds = match std::env::var("LB_SEED") {
        Ok(seed) => vec![seed.parse().expect("LB_SEED is a number")],
        Err(_) => (0..64).collect(),
    };
    for seed in seeds {
        let mut run = Run::new(seed);
        for _ in 0..1500 {
            run.step();
        }
        run.open.clear();
        for bench in &run.threads {
            let pool = bench.pools.pool(bench.web()).unwrap();
            assert!(pool.nodes().iter().all(|node| node.open() == 0), "seed {seed}: every request was given back");
            let counts = pool.nodes().iter().map(|node| node.state.shared.clone());
            assert!(counts.clone().all(|shared| shared.has_room(1)), "seed {seed}: and every connection");
            assert!(counts.clone().all(|shared| shared.start_probe()), "seed {seed}: and every probe");
            counts.for_each(|shared| shared.probed());
        }
    }
}
