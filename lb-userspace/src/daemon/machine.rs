//! The health of this machine, as far as others must be asked for it: whether it reaches its clients' side and its nodes, and
//! what its own monitors and programs say. What is wrong makes it give its VIP groups away. Called by `vips`.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::{
        Config,
        cluster::{Cluster, FrontEnd},
    },
    control::{probe::Kind, view::Health},
    failover::host::Faults,
    health::{Monitors, Outside, Report, Settings, Target},
};

/// Who says that no front-end address answers.
const FRONT_END: &str = "front end";
/// Who says that no node answers.
const NODES: &str = "nodes";

/// Who says that a monitor of the machine fails.
const MONITORS: &str = "monitors";

/// The gateway is looked up so often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Unanswered pings in a row.
const FAILURES: u32 = 3;
/// Nodes that are asked at most: one that answers is enough.
const MAX_NODES: usize = 64;
/// Reports that wait; the monitors keep the newest of each target beyond.
const REPORTS: usize = 64;

/// The checks. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Machine {
    questions: watch::Sender<Questions>,
    task: AbortHandle,
}

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Questions {
    front_end: Vec<FrontEnd>,
    nodes: Vec<IpAddr>,
    every: Duration,
    monitors: Vec<Target>,
}

impl Machine {
    /// Starts with nobody to ask, on the current tokio runtime; `outside` runs programs.
    pub(super) fn spawn(faults: Faults, outside: Outside) -> Self {
        let (questions, asked) = watch::channel(Questions::default());
        Self { questions, task: tokio::spawn(run(asked, faults, outside)).abort_handle() }
    }

    /// Asks whom the configuration names.
    pub(super) fn set(&self, config: &Config, cluster: &Cluster) {
        let all = config.pools.values().flat_map(|pool| pool.nodes.values()).map(|node| node.address);
        let mut nodes: Vec<IpAddr> = all.filter(|_| cluster.node_pings).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.truncate(MAX_NODES);
        let (front_end, every) = (cluster.front_end.clone(), cluster.check_interval);
        let questions = Questions { front_end, nodes, every, monitors: monitors(config, cluster) };
        self.questions.send_if_modified(|before| std::mem::replace(before, questions.clone()) != questions);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(mut asked: watch::Receiver<Questions>, faults: Faults, outside: Outside) {
    let (reports, mut reported) = mpsc::channel(REPORTS);
    let monitors = Monitors::spawn(reports, outside);
    let mut tick = interval(LOOK_AGAIN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = Answers::default();
    loop {
        tokio::select! {
            report = reported.recv() => match report {
                Some(report) => answers.hear(report),
                None => return,
            },
            changed = asked.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
        let questions = asked.borrow().clone();
        let gateway = fs::read_to_string("/proc/net/route").ok().and_then(|table| gateway(&table));
        let targets = targets(&questions, gateway);
        if targets != answers.targets {
            answers.ask(targets.clone());
            monitors.set(targets);
        }
        let no_gateway = gateway.is_none() && questions.front_end == [FrontEnd::Gateway];
        let front_end = no_gateway.then(|| "there is no default route".to_owned()).or_else(|| answers.fault(FRONT_END));
        faults.set(FRONT_END, front_end);
        faults.set(NODES, answers.fault(NODES));
        faults.set(MONITORS, answers.failing());
    }
}

/// The machine's own monitors. A program that asks nobody is told of this machine.
fn monitors(config: &Config, cluster: &Cluster) -> Vec<Target> {
    let own = cluster.listen.first().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), SocketAddr::ip);
    let target = |name: &String| {
        let monitor = config.monitors.get(name)?;
        let port = monitor.port(None, |_| None).unwrap_or(0);
        Some(Target {
            pool: MONITORS.to_owned(),
            node: name.clone(),
            address: (monitor.address.unwrap_or(own), port).into(),
            monitor: name.clone(),
            settings: Settings {
                kind: monitor.kind.clone(),
                delay: monitor.delay,
                timeout: monitor.timeout,
                failures: monitor.failures,
                successes: monitor.successes,
            },
        })
    };
    cluster.monitors.iter().filter_map(target).collect()
}

fn targets(questions: &Questions, gateway: Option<Ipv4Addr>) -> Vec<Target> {
    let front_end = questions.front_end.iter().filter_map(|front_end| match front_end {
        FrontEnd::Gateway => gateway.map(IpAddr::V4),
        FrontEnd::Address(address) => Some(*address),
    });
    let nodes = questions.nodes.iter().map(|address| (NODES, *address));
    let target = |(watcher, address): (&str, IpAddr)| Target {
        pool: watcher.to_owned(),
        node: address.to_string(),
        address: (address, 0).into(),
        monitor: "ping".to_owned(),
        settings: Settings {
            kind: Kind::Ping,
            delay: questions.every,
            timeout: questions.every,
            failures: FAILURES,
            successes: 1,
        },
    };
    let pings = front_end.map(|address| (FRONT_END, address)).chain(nodes).map(target);
    pings.chain(questions.monitors.iter().cloned()).collect()
}

/// What is known of those who are asked.
#[derive(Debug, Default)]
struct Answers {
    targets: Vec<Target>,
    /// By watcher and address; who has not been heard of counts as well.
    health: BTreeMap<(String, String), Health>,
    /// Why a monitor of the machine fails.
    reasons: BTreeMap<String, String>,
}

impl Answers {
    fn ask(&mut self, targets: Vec<Target>) {
        self.reasons.retain(|name, _| targets.iter().any(|target| target.node == *name));
        self.health.retain(|(pool, node), _| targets.iter().any(|target| (&target.pool, &target.node) == (pool, node)));
        self.targets = targets;
    }

    fn hear(&mut self, report: Report) {
        if report.pool == MONITORS {
            self.reasons.insert(report.node.clone(), report.reason.unwrap_or_default());
        }
        self.health.insert((report.pool, report.node), report.health);
    }

    /// Why the machine should own nothing: one of its monitors fails.
    fn failing(&self) -> Option<String> {
        let is_down = |(pool, node): (&String, &String)| {
            self.health.get(&(pool.clone(), node.clone())).is_some_and(|health| *health == Health::Down)
        };
        let of_monitors = self.targets.iter().filter(|target| target.pool == MONITORS);
        let down: Vec<String> = of_monitors
            .filter(|target| is_down((&target.pool, &target.node)))
            .map(|target| match self.reasons.get(&target.node).filter(|reason| !reason.is_empty()) {
                Some(reason) => format!("{} ({reason})", target.node),
                None => target.node.clone(),
            })
            .collect();
        (!down.is_empty()).then(|| down.join(", "))
    }

    /// Why the machine should own nothing: nobody of these answers.
    fn fault(&self, watcher: &str) -> Option<String> {
        let asked: Vec<&Target> = self.targets.iter().filter(|target| target.pool == watcher).collect();
        let is_down = |target: &&Target| {
            self.health.get(&(target.pool.clone(), target.node.clone())).is_some_and(|health| *health == Health::Down)
        };
        if asked.is_empty() || !asked.iter().all(is_down) {
            return None;
        }
        let names: Vec<&str> = asked.iter().take(3).map(|target| target.node.as_str()).collect();
        let more = asked.len() - names.len();
        let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
        Some(format!("no answer from {}{rest}", names.join(", ")))
    }
}

/// The gateway of the default route with the smallest metric, of `/proc/net/route`.
fn gateway(table: &str) -> Option<Ipv4Addr> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (&destination, &gateway, &metric, &mask) = (words.get(1)?, words.get(2)?, words.get(6)?, words.get(7)?);
        // Addresses are printed as the machine's own numbers.
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let is_default = destination == "00000000" && mask == "00000000" && !gateway.is_unspecified();
        is_default.then(|| Some((metric.parse::<u32>().ok()?, gateway))).flatten()
    };
    table.lines().skip(1).filter_map(row).min().map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn number(address: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(address))
    }

    #[test]
    fn the_gateway_is_that_of_the_best_default_route() {
        let row = |to: [u8; 4], via: [u8; 4], metric: u32, mask: [u8; 4]| {
            format!("eth0\t{}\t{}\t0003\t0\t0\t{metric}\t{}\t0\t0\t0\n", number(to), number(via), number(mask))
        };
        let any = [0; 4];
        let table = [
            HEAD.to_owned(),
            row([10, 0, 0, 0], any, 0, [255, 0, 0, 0]),
            row(any, [10, 0, 0, 1], 200, any),
            row(any, [10, 0, 0, 2], 100, any),
            row(any, any, 0, any),
        ];
        assert_eq!(gateway(&table.concat()), Some(Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(gateway(HEAD), None);
        assert_eq!(gateway("nonsense\nmore nonsense\n"), None);
    }

    #[test]
    fn one_that_answers_is_enough_and_nobody_asked_is_no_fault() {
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|address| FrontEnd::Address(address.parse().unwrap()));
        let questions = Questions {
            front_end: addresses.to_vec(),
            nodes: Vec::new(),
            every: Duration::from_millis(500),
            monitors: Vec::new(),
        };
        let mut answers = Answers::default();
        answers.ask(targets(&questions, None));
        let report = |node: &str, health| Report {
            pool: FRONT_END.to_owned(),
            node: node.to_owned(),
            monitor: "ping".to_owned(),
            health,
            reason: None,
        };
        assert_eq!(answers.fault(FRONT_END), None, "not heard of yet");
        answers.hear(report("10.0.0.1", Health::Down));
        assert_eq!(answers.fault(FRONT_END), None);
        answers.hear(report("10.0.0.2", Health::Down));
        assert_eq!(answers.fault(FRONT_END).as_deref(), Some("no answer from 10.0.0.1, 10.0.0.2"));
        answers.hear(report("10.0.0.1", Health::Up));
        assert_eq!(answers.fault(FRONT_END), None);
        assert_eq!(answers.fault(NODES), None, "no node is asked");
        answers.hear(report("10.0.0.1", Health::Down));
        answers.ask(targets(&Questions::default(), None));
        assert_eq!(answers.fault(FRONT_END), None, "nobody is asked any more");
    }

    #[test]
    fn each_monitor_of_the_machine_must_succeed() {
        let target = |name: &str| Target {
            pool: MONITORS.to_owned(),
            node: name.to_owned(),
            address: "192.0.2.1:25".parse().unwrap(),
            monitor: name.to_owned(),
            settings: Settings {
                kind: Kind::Tcp,
                delay: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                failures: 1,
                successes: 1,
            },
        };
        let questions = Questions { monitors: vec![target("disk"), target("mail")], ..Questions::default() };
        let mut answers = Answers::default();
        answers.ask(targets(&questions, None));
        let report = |name: &str, health, reason: Option<&str>| Report {
            pool: MONITORS.to_owned(),
            node: name.to_owned(),
            monitor: name.to_owned(),
            health,
            reason: reason.map(str::to_owned),
        };
        assert_eq!(answers.failing(), None, "not heard of yet");
        answers.hear(report("disk", Health::Up, None));
        answers.hear(report("mail", Health::Down, Some("connection refused")));
        assert_eq!(answers.failing().as_deref(), Some("mail (connection refused)"));
        assert_eq!(answers.fault(FRONT_END), None, "they are no front-end addresses");
        answers.hear(report("mail", Health::Up, None));
        assert_eq!(answers.failing(), None);
    }

    #[test]
    fn the_gateway_is_asked_where_it_is_named() {
        let questions = Questions {
            front_end: vec![FrontEnd::Gateway],
            nodes: vec!["10.0.0.9".parse().unwrap()],
            every: Duration::from_millis(500),
            monitors: Vec::new(),
        };
        let names = |gateway| targets(&questions, gateway).into_iter().map(|target| target.node).collect::<Vec<_>>();
        assert_eq!(names(Some(Ipv4Addr::new(10, 0, 0, 1))), ["10.0.0.1", "10.0.0.9"]);
        assert_eq!(names(None), ["10.0.0.9"]);
    }
}
