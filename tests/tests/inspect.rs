//! The data plane's reading half on real maps: the collector, and every question that the admin API asks. In a network
//! namespace of its own, without interfaces: nothing is sent. Flow records are written as the XDP programs write them.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lb::{
    control::{
        plan::{Admission, Forwarding, Node, OnNodeFailure, Plan, Protocol, Refusal, Scheduler, VirtualServer},
        query::{ConnectionFilter, DataPath, QueryError},
    },
    dataplane::{
        apply::Applied,
        clock::now,
        collect::{
            Collected, Collector,
            pass::{Findings, Pass},
        },
        inspect::{Context, Inspector},
        load::TableSizes,
        maps::{Maps, NAMES},
        owner::{Dataplane, Options},
        rings::GRACE,
        task,
    },
};
use lb_common::{
    conntrack::{State, Timeouts},
    digest::Digest,
    flow::{Control, FlowKey, FlowRecord, flag},
    proof::Proof,
};
use nix::sched::{CloneFlags, unshare};

/// A data path in a namespace, withdrawn at the end.
struct Balancer {
    dataplane: Option<Dataplane>,
    context: Context,
    options: Options,
}

impl Balancer {
    fn start(name: &str) -> Self {
        Self::start_with(name, 2, plan())
    }

    fn start_with(name: &str, max_rings: u32, plan: Plan) -> Self {
        // This thread alone: sockets opened from here on see an empty network.
        unshare(CloneFlags::CLONE_NEWNET).expect("root");
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/lb-test-{name}-{}", std::process::id()));
        let sizes = TableSizes { max_flows: 1024, max_half_open: 256, max_rings };
        let options = Options { pin_dir, sizes };
        let (dataplane, _) = Dataplane::start(&options, &Arc::new(plan)).expect("the data path starts");
        let context = Context::new(&dataplane, Collected::default());
        Self { dataplane: Some(dataplane), context, options }
    }

    /// The plan that follows; what it did, and how long it took.
    fn apply(&mut self, plan: Plan) -> (Applied, Duration) {
        let start = Instant::now();
        let applied = self.dataplane.as_mut().expect("running").apply(&Arc::new(plan)).expect("applied");
        (applied, start.elapsed())
    }

    /// Nodes in a virtual server's ring, and how many of its slots have none.
    fn ring_of(&self, server: &str) -> (Vec<String>, u32) {
        let shares = Inspector::new(self.context.clone()).ring(server).expect("a ring");
        let slots: u32 = shares.iter().map(|share| share.slots).sum();
        let filled = shares.into_iter().filter(|share| share.slots > 0);
        (filled.map(|share| share.node).collect(), lb_common::maglev::RING_SLOTS - slots)
    }

    fn maps(&self) -> &Maps {
        &self.context.maps
    }

    /// Slot and generation of a node.
    fn slot(&self, node: &str) -> (u16, u16) {
        let names = self.context.names.snapshot();
        let found = names.slots.iter().find(|(_, info)| info.node == node);
        found.map(|(slot, info)| (*slot, info.generation)).expect("a node of the plan")
    }

    /// A connection of a node that was silent for `idle` ticks, and its client port.
    fn record(&self, node: &str, port: u16, state: State, flags: u8, idle: u32) -> FlowRecord {
        let (slot, generation) = self.slot(node);
        let names = self.context.names.snapshot();
        let id = *names.virtual_servers.keys().next().expect("a virtual server");
        FlowRecord {
            key: FlowKey::v4([192, 0, 2, 9], [198, 51, 100, 1], port, 80, 6),
            control: Control { seen: now() - idle, state: state as u8, flags, generation },
            node: slot,
            virtual_server: id,
            nat_port: port.to_be(),
            timeout: 60,
            peer: 0,
            created: now() - idle,
        }
    }

    fn active(&self, node: &str) -> i64 {
        self.maps().node_loads.read(self.slot(node).0.into()).active.cast_signed()
    }

    fn whole_pass(&self) -> Findings {
        Pass::new(Arc::clone(&self.context.maps)).advance(u32::MAX, now()).expect("one call walks over all")
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(dataplane) = self.dataplane.take() {
            dataplane.withdraw().expect("withdrawn");
        }
        let pin_dir = &self.options.pin_dir;
        assert!(!pin_dir.exists() || std::fs::remove_dir(pin_dir).is_ok(), "{} is empty", pin_dir.display());
    }
}

fn plan() -> Plan {
    let node = |name: &str, address: &str, weight| Node {
        pool: "p".to_owned(),
        name: name.to_owned(),
        address: address.parse().expect("an address"),
        weight,
        admission: Admission::All,
        source_address: None,
    };
    let server = VirtualServer {
        addresses: vec!["198.51.100.1".parse().expect("an address")],
        protocol: Protocol::Tcp,
        ports: vec![(80, 80), (8000, 8100)],
        pool: "p".to_owned(),
        forwarding: Forwarding::Nat,
        scheduler: Scheduler::Maglev,
        affinity: None,
        on_node_failure: OnNodeFailure::Reschedule,
        refusal: Refusal::Reset,
        timeouts: Timeouts::default(),
        flood_limit: 1000,
        ring_seed: 7,
        source_ports: (1024, 2047),
        nodes: vec![node("n1", "10.0.0.1:8080", 1), node("n2", "10.0.0.2:8080", 3)],
    };
    Plan { virtual_servers: [("web".to_owned(), server)].into(), ..Plan::default() }
}

/// `servers` virtual servers of an address each and `nodes` nodes each.
fn many(servers: u32, nodes: u32) -> Plan {
    let web = plan().virtual_servers.remove("web").expect("it is there");
    let address = |net: u32, host: u32| IpAddr::from((net << 24 | host).to_be_bytes());
    let server = |i: u32| {
        let node = |n: u32| Node {
            name: format!("n{n}"),
            address: (address(10, i << 8 | n), 80).into(),
            weight: 1,
            ..web.nodes[0].clone()
        };
        let (addresses, ports) = (vec![address(100, i + 1)], vec![(80, 80)]);
        let server = VirtualServer { addresses, ports, nodes: (1..=nodes).map(node).collect(), ..web.clone() };
        (format!("s{i}"), server)
    };
    Plan { virtual_servers: (0..servers).map(server).collect(), ..Plan::default() }
}

/// The answering half of a connection at `connection`.
fn half(of: &FlowRecord, connection: u32, idle: u32) -> FlowRecord {
    let flags = flag::NAT | flag::REPLY;
    FlowRecord {
        key: FlowKey::v4([10, 0, 0, 1], [192, 0, 2, 9], 8080, of.key.source_port(), 6),
        control: Control { seen: now() - idle, flags, ..of.control },
        timeout: 0,
        peer: connection + 1,
        ..*of
    }
}

const NAT: u8 = flag::NAT | flag::ACTIVE;

#[test]
fn the_collector_frees_the_dead_with_all_that_is_theirs_and_nothing_else() {
    let lb = Balancer::start("collect");
    let flows = &lb.maps().flows;
    let connection = |index: u32, half_at: u32, idle| {
        let record = lb.record("n1", 1000 + index as u16, State::Established, NAT, idle);
        flows.write(index, &FlowRecord { peer: half_at + 1, ..record });
        flows.write(half_at, &half(&record, index, idle));
        lb.maps().node_loads.add_active(record.node.into(), 1);
    };
    connection(10, 500, 64);
    let fresh = Digest { name: 1, fresh: u64::from(now() as u16 + 60) };
    for index in [10, 500, 12] {
        lb.maps().digests.write(index, &fresh);
    }
    connection(501, 11, 64);
    connection(12, 502, 59);
    let orphan = lb.record("n1", 7, State::Established, NAT, 0);
    flows.write(503, &half(&orphan, 10, 3));
    flows.write(504, &half(&orphan, 600, 0));
    flows.write(13, &FlowRecord { control: Control { state: 1, ..lb_control(11) }, ..FlowRecord::default() });
    flows.write(14, &FlowRecord { control: Control { state: 1, ..lb_control(1) }, ..FlowRecord::default() });
    let half_open = lb.record("n2", 1, State::SynSent, flag::PENDING, 64);
    lb.maps().pending.write(5, &half_open);
    lb.maps().node_loads.add_pending(half_open.node.into(), 1);
    lb.maps().affinity.write(3, &lb.record("n2", 0, State::Affinity, 0, 64));
    lb.maps().affinity.write(4, &lb.record("n2", 0, State::Affinity, 0, 60));
    lb.maps().fragments.write(3, &lb.record("n2", 0, State::Fragment, flag::REPLY, 64));

    let proof = |idle| Proof::new(0, half_open.node, half_open.control.generation, false, now() - idle);
    lb.maps().proofs.write(5, &proof(0));
    lb.maps().proofs.write(9, &proof(60));

    let findings = lb.whole_pass();

    let left: Vec<u32> = (0..flows.len()).filter(|index| flows.control(*index).state != 0).collect();
    assert_eq!(left, [12, 14, 502, 504]);
    let fresh = |index| lb.maps().digests.read(index).fresh != 0;
    assert_eq!([10, 500, 12].map(fresh), [false, false, true], "nothing is forwarded by what was freed");
    assert_eq!((lb.active("n1"), lb.maps().node_loads.read(half_open.node.into()).pending), (1, 0));
    assert_eq!(findings.removed, 4 + 2 + 1 + 1 + 1, "connections and halves, orphan and claimed, and three entries");
    let used: Vec<u64> =
        ["FLOWS", "PENDING", "PROOFS", "AFFINITY", "FRAGMENTS"].map(|name| findings.tables[name].used).into();
    assert_eq!(used, [3, 0, 1, 1, 0]);
    assert_eq!(findings.tables["FLOWS"].capacity, 2048);
    assert_eq!(findings.translated, BTreeSet::from([lb.slot("n1").0]));
}

/// A control word last touched `idle` ticks ago.
fn lb_control(idle: u32) -> Control {
    Control { seen: now() - idle, ..Control::default() }
}

#[test]
fn an_orphan_anywhere_in_the_flow_table_is_found_within_sixteen_passes() {
    let lb = Balancer::start("orphan");
    let connection = lb.record("n1", 1, State::Established, NAT, 0);
    for index in [500, 1500] {
        lb.maps().flows.write(index, &half(&connection, 10, 3));
    }
    let mut pass = Pass::new(Arc::clone(&lb.context.maps));
    let used = |pass: &mut Pass| pass.advance(u32::MAX, now()).map(|findings| findings.tables["FLOWS"].used);
    let passes: Vec<_> = (0..17).map_while(|_| used(&mut pass)).collect();
    assert_eq!((passes.len(), passes[0], passes[16]), (17, 1, 0));
}

#[test]
fn loads_that_a_killed_daemon_left_too_high_come_right_within_two_passes() {
    let lb = Balancer::start("recount");
    lb.maps().flows.write(10, &lb.record("n1", 1, State::Established, flag::ACTIVE, 0));
    lb.maps().node_loads.add_active(lb.slot("n1").0.into(), 3);
    lb.maps().node_loads.add_active(lb.slot("n2").0.into(), -1);
    let mut pass = Pass::new(Arc::clone(&lb.context.maps));
    pass.advance(u32::MAX, now()).expect("a pass");
    assert_eq!((lb.active("n1"), lb.active("n2")), (3, -1), "one pass may have been unlucky");
    pass.advance(u32::MAX, now()).expect("a pass");
    assert_eq!((lb.active("n1"), lb.active("n2")), (1, 0));
}

#[test]
fn a_node_that_left_its_slot_is_not_subtracted_from_its_successor() {
    let lb = Balancer::start("generation");
    let mut stale = lb.record("n1", 1, State::Established, NAT, 64);
    stale.control.generation -= 1;
    lb.maps().flows.write(10, &stale);
    lb.maps().flows.write(11, &FlowRecord { control: Control { seen: now(), ..stale.control }, ..stale });
    let findings = lb.whole_pass();
    assert_eq!((lb.active("n1"), findings.tables["FLOWS"].used), (0, 1));
    assert_eq!(findings.translated, BTreeSet::new());
    let listed = Inspector::new(lb.context.clone()).connections(&ConnectionFilter::default()).expect("connections");
    assert_eq!((listed.total, listed.connections[0].node.as_str()), (1, "(removed)"));
}

#[test]
fn the_running_collector_reports_and_stops() {
    let mut lb = Balancer::start("thread");
    lb.maps().flows.write(10, &lb.record("n1", 1, State::Established, 0, 64));
    let (handle, thread) = task::start(lb.dataplane.take().expect("started")).expect("a thread");
    let collector = Collector::spawn(lb.context.clone(), handle.clone()).expect("a thread");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while lb.context.collected.tables().is_empty() {
        assert!(std::time::Instant::now() < deadline, "no pass was finished");
        std::thread::yield_now();
    }
    assert_eq!(lb.maps().flows.control(10), Control::default());
    drop(collector);
    drop(handle);
    thread.join().expect("the data plane's thread");
    lb.dataplane = Some(Dataplane::open(&lb.options).expect("adopted, to be withdrawn"));
}

#[test]
fn every_question_is_answered_from_the_maps() {
    let lb = Balancer::start("questions");
    let record = lb.record("n1", 40_000, State::Established, NAT, 2);
    lb.maps().flows.write(10, &FlowRecord { peer: 12, ..record });
    lb.maps().flows.write(11, &half(&record, 10, 2));
    let name = Digest::name_of(0x1234_5678_9abc_def0, NAT, record.node);
    let fresh = Digest::fresh_of(9, now() + 60, record.nat_port, record.control.generation);
    lb.maps().digests.write(10, &Digest { name, fresh });
    lb.maps().pending.write(2, &lb.record("n2", 40_001, State::SynSent, 0, 0));
    lb.maps().flows.write(20, &lb.record("n2", 40_002, State::Established, 0, 64));
    lb.maps().node_loads.add_active(record.node.into(), 1);
    let inspector = Inspector::new(lb.context.clone());

    let all = inspector.connections(&ConnectionFilter::default()).expect("connections");
    let nodes: Vec<&str> = all.connections.iter().map(|connection| connection.node.as_str()).collect();
    assert_eq!((all.total, nodes), (2, vec!["n1", "n2"]), "established first, the dead one and the half not at all");
    let first = inspector.connections(&ConnectionFilter { limit: Some(1), ..ConnectionFilter::default() });
    assert_eq!(first.map(|found| (found.total, found.connections.len())), Ok((2, 1)));

    let counters = inspector.counters().expect("counters");
    let id = ("web".to_owned(), "p".to_owned(), "n1".to_owned());
    assert_eq!((counters.nodes.len(), counters.nodes[&id].active), (2, 1));
    assert_eq!(counters.flood_limited.get("web"), Some(&0));

    let ring = inspector.ring("web").expect("a ring");
    let slots: u32 = ring.iter().map(|share| share.slots).sum();
    assert_eq!((ring.len(), slots), (2, lb_common::maglev::RING_SLOTS));
    assert!(ring.iter().all(|share| (share.share - share.expected).abs() < 0.01), "{ring:?}");
    assert!(matches!(inspector.ring("wbe"), Err(QueryError::NotFound(_))));

    let maps = inspector.maps().expect("maps");
    assert_eq!(maps.iter().map(|map| map.name.as_str()).collect::<BTreeSet<_>>(), NAMES.into_iter().collect());
    assert!(maps.iter().all(|map| map.memory > 0), "{maps:?}");
}

#[test]
fn every_map_can_be_dumped() {
    let lb = Balancer::start("dump");
    let record = lb.record("n1", 40_000, State::Established, NAT, 2);
    lb.maps().flows.write(10, &FlowRecord { peer: 12, ..record });
    lb.maps().flows.write(11, &half(&record, 10, 2));
    let name = Digest::name_of(0x1234_5678_9abc_def0, NAT, record.node);
    let fresh = Digest::fresh_of(9, now() + 60, record.nat_port, record.control.generation);
    lb.maps().digests.write(10, &Digest { name, fresh });
    lb.maps().pending.write(2, &lb.record("n2", 40_001, State::SynSent, 0, 0));
    lb.maps().proofs.write(5, &Proof::new(7 << 40, record.node, record.control.generation, false, now()));
    lb.maps().affinity.write(4, &lb.record("n2", 0, State::Affinity, 0, 6));
    lb.maps().fragments.write(3, &lb.record("n2", 0, State::Fragment, 0, 1));
    lb.maps().node_loads.add_active(record.node.into(), 1);
    let inspector = Inspector::new(lb.context.clone());
    let nothing_yet = [
        "LEASED",
        "VIRTUAL_ROUTERS",
        "CURSORS",
        "FLOOD",
        "NODE_STATS",
        "VLANS",
        "REASONS",
        "INTERFACES",
        "DEVICES",
        "EXPLANATION",
    ];
    for name in NAMES.into_iter().chain(["SCRATCH"]) {
        let dump = inspector.dump_map(name, 50).expect(name);
        assert_eq!(dump.rows.is_empty(), nothing_yet.contains(&name), "{name}: {dump:?}");
        assert!(dump.rows.iter().all(|row| row.len() == dump.columns.len()), "{name}: {dump:?}");
    }
    let rings = inspector.dump_map("rings", 5).expect("any case");
    assert_eq!((rings.rows.len(), rings.more), (5, u64::from(lb_common::maglev::RING_CHUNKS) - 5));
    assert!(matches!(inspector.dump_map("FLOW", 5), Err(QueryError::NotFound(text)) if text.contains("FLOWS")));
}

#[test]
#[expect(clippy::print_stdout, reason = "how long it took is for people to see")]
fn a_thousand_virtual_servers_have_rings_and_one_nodes_change_builds_one() {
    let mut plan = many(1000, 10);
    let begun = Instant::now();
    let mut lb = Balancer::start_with("thousand", 1000, plan.clone());
    println!("1,000 virtual servers of 10 nodes: {:?}", begun.elapsed());
    let all: Vec<String> = (1..=10).map(|n| format!("n{n}")).collect();
    for server in ["s0", "s500", "s999"] {
        let (mut nodes, empty) = lb.ring_of(server);
        nodes.sort_by_key(|name| name[1..].parse::<u32>().ok());
        assert_eq!((nodes, empty), (all.clone(), 0), "{server}");
    }
    plan.virtual_servers.get_mut("s500").expect("it is there").nodes[3].admission = Admission::Tracked;
    let (applied, took) = lb.apply(plan.clone());
    println!("one node's change: {took:?}");
    assert_eq!((applied.rings_built, applied.records_written, applied.slots_taken), (1, 1, 0));
    assert!(!lb.ring_of("s500").0.contains(&"n4".to_owned()));
    let (applied, _) = lb.apply(plan);
    assert_eq!((applied.rings_built, applied.records_written), (0, 0));
}

#[test]
fn rings_that_have_no_room_beside_the_old_ones_are_replaced_in_turns() {
    // Room for six.
    let mut plan = many(4, 2);
    let mut lb = Balancer::start_with("turns", 3, plan.clone());
    for server in plan.virtual_servers.values_mut() {
        server.nodes[0].admission = Admission::Tracked;
    }
    let (applied, took) = lb.apply(plan.clone());
    assert_eq!((applied.rings_built, applied.records_written), (4, 4));
    assert!(
        took >= GRACE,
        "the last ones take the place of the first ones, which packets may still have read: {took:?}"
    );
    for server in ["s0", "s1", "s2", "s3"] {
        assert_eq!(lb.ring_of(server), (vec!["n2".to_owned()], 0), "{server}");
    }
    let one_more = many(5, 2);
    let refused =
        lb.dataplane.as_mut().expect("running").apply(&Arc::new(one_more)).expect_err("no room for one at a time");
    assert!(refused.to_string().contains("max_rings"), "{refused}");
    assert_eq!(lb.ring_of("s3"), (vec!["n2".to_owned()], 0), "as it was");
}
