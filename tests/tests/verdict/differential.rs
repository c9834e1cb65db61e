//! G: a million packets, plausible and mutated, through the program and through the model: action, reason and bytes agree,
//! and what both remember agrees, too. `LB_FUZZ_SEED` replays one run, `LB_FUZZ_STEPS` makes it shorter or longer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb::dataplane::clock;
use lb_common::{
    conntrack::{STATE_SLOTS, Timeouts},
    flow::{MAX_GRACE, flag},
    vip::scheduler,
};
use lb_tests::{
    model::{
        self, Hint,
        parse::{Part, Tuple, parse},
        state::State,
    },
    packet::sum,
    rig::{
        Rig, Sizes, action, tables,
        world::{self, MODES, Mode, TCP, UDP, VLAN, World},
    },
};

use crate::{
    mutate::{Random, packet},
    support::hex,
};

/// Packets of each of the four tests.
const STEPS: usize = 250_000;
/// Packets between two beginnings with empty tables: few enough that nothing is ever evicted.
const BATCH: usize = 1000;

/// Servers of every mode, family, protocol, scheduler and policy.
fn world() -> World {
    let mut world = World::empty();
    let schedulers =
        [scheduler::RING_FLOW, scheduler::SEQUENCE, scheduler::RING_SOURCE, scheduler::LEAST, scheduler::RANDOM];
    for (i, (mode, v4, protocol)) in crate::support::combinations().enumerate() {
        let server = world.add(mode, v4, protocol, 3);
        server.scheduler = schedulers[i % schedulers.len()];
        server.counts_pending = server.scheduler == scheduler::LEAST;
        server.resets = i % 3 == 1;
        server.resets_on_failure = i % 4 == 1;
        server.persistence = (i % 5 == 2).then_some(if v4 { 30 } else { 126 });
        server.nat_ports = if i % 2 == 0 { (2000, 5) } else { (1024, 31_744) };
        // Another server of the same VIP and protocol: fragments without ports belong to neither.
        server.owns_fragments = mode == Mode::Dsr && protocol == UDP;
    }
    for mode in MODES {
        let server = world.add(mode, true, TCP, 2);
        (server.ports, server.ranges, server.owns_fragments) = (Vec::new(), vec![(8000, 8010)], false);
        server.flood_limit = 0;
        server.scheduler = scheduler::SEQUENCE;
        let server = world.add(mode, false, TCP, 0);
        (server.ports, server.owns_fragments, server.resets) = (vec![81], false, true);
    }
    for server in &mut world.servers {
        server.timeouts = Timeouts([30_000; STATE_SLOTS]);
    }
    for node in world.nodes.values_mut() {
        // Every node can serve every mode: the mode of a server changes under way.
        node.port = lb_tests::rig::world::NODE_PORT;
    }
    world
}

/// Another configuration with the same members: nodes fail and come back, pools change their forwarding.
fn vary(random: &mut Random, base: &World) -> World {
    let mut world = base.clone();
    for node in world.nodes.values_mut() {
        node.usable = !random.percent(10);
        node.resolved = !random.percent(4);
        node.mtu = random.pick(&[0, 0, 1400]);
        node.vlan = random.pick(&[0, 0, VLAN, 300]);
    }
    // A random choice that leaves no record cannot be judged: those nodes are always resolved and take any size.
    for server in world.servers.iter().filter(|server| server.scheduler == scheduler::RANDOM) {
        for member in &server.members {
            world.nodes.entry(*member).and_modify(|node| (node.resolved, node.mtu) = (true, 0));
        }
    }
    for server in &mut world.servers {
        if random.percent(15) {
            server.mode = random.pick(&MODES);
        }
        server.resets ^= random.percent(10);
        server.resets_on_failure ^= random.percent(10);
    }
    world
}

struct Run {
    seed: u64,
    step: usize,
    random: Random,
    rig: Rig,
    state: State,
    base: World,
    flows: Vec<Tuple>,
    seen: BTreeMap<&'static str, u64>,
    batch_began: Instant,
}

impl Run {
    fn new(seed: u64) -> Self {
        let sizes = Sizes { flows: 1 << 14, pending: 1 << 17, affinity: 1 << 15, fragments: 1 << 15 };
        let base = world();
        let rig = Rig::with(base.clone(), sizes).expect("the program loads");
        let state = State::new(base.clone());
        let random = Random(seed);
        let batch_began = Instant::now();
        Self { seed, step: 0, random, rig, state, base, flows: Vec::new(), seen: BTreeMap::new(), batch_began }
    }

    fn begin_batch(&mut self) {
        self.configure();
        self.rig.forget_connections().expect("maps can be written");
        self.state.forget();
        self.flows.clear();
        self.batch_began = Instant::now();
    }

    fn configure(&mut self) {
        // Slots are given to other nodes, for good: generations only rise.
        for (slot, node) in &mut self.base.nodes {
            if self.random.percent(5) {
                node.generation += 1;
                self.rig.loads.store(u32::from(*slot), 0, 0);
                self.rig.loads.store(u32::from(*slot), 1, 0);
            }
        }
        let world = vary(&mut self.random, &self.base);
        self.rig.configure(world.clone()).expect("maps can be written");
        self.state.configure(world);
    }

    fn step(&mut self) {
        if self.step.is_multiple_of(BATCH) {
            self.begin_batch();
        } else if self.step.is_multiple_of(200) {
            self.configure();
        } else if self.step.is_multiple_of(390) {
            self.expire_one();
        } else if self.step.is_multiple_of(30) {
            self.silence_one();
        }
        let frame = packet(&mut self.random, &self.state, &self.flows);
        let outcome = self.rig.run(&frame).unwrap_or_else(|error| self.fail(&frame, &format!("{error:#}")));
        let before = self.state.connections.len();
        let slow = self.batch_began.elapsed() > Duration::from_secs(2);
        let hint = Hint { reason: outcome.reason, out: &outcome.bytes, slow, noted: self.noted(&frame) };
        let expected = model::step(&mut self.state, &frame, hint);
        if (outcome.action, outcome.reason) != (expected.action, expected.reason) {
            let (found, right) = (action::name(outcome.action), action::name(expected.action));
            self.fail(
                &frame,
                &format!("found {found} {}, expected {right} {}", outcome.reason.name(), expected.reason.name()),
            );
        }
        if let Some(bytes) = &expected.bytes
            && *bytes != outcome.bytes
        {
            self.fail(&frame, &format!("found    {}\nexpected {}", hex(&outcome.bytes), hex(bytes)));
        }
        *self.seen.entry(outcome.reason.name()).or_default() += 1;
        if outcome.action == action::TX {
            self.right_stays_right(&frame, &outcome.bytes);
        }
        if self.state.connections.len() > before {
            self.flows.extend(parse(&frame, |_| true).map(|packet| packet.tuple));
        }
        if self.step % BATCH == BATCH - 1 {
            self.compare_memory(&frame);
        }
        self.step += 1;
    }

    /// Node and source port of the half-open connection that a packet made, if it did.
    fn noted(&self, frame: &[u8]) -> Option<(u16, u16)> {
        noted(&self.rig, frame)
    }

    fn fail(&self, frame: &[u8], what: &str) -> ! {
        panic!(
            "seed {} step {} (LB_FUZZ_SEED={} replays): {what}\nin       {}\nparsed   {:?}",
            self.seed,
            self.step,
            self.seed,
            hex(frame),
            parse(frame, |_| true)
        );
    }

    /// A packet with right checksums is sent with right checksums, recomputed in full.
    fn right_stays_right(&self, frame: &[u8], out: &[u8]) {
        if !right_stays_right(frame, out) {
            self.fail(frame, &format!("its checksum came out wrong\nfound    {}", hex(out)));
        }
    }

    /// A connection falls silent, for longer than a forger needs and shorter than any timeout.
    fn silence_one(&mut self) {
        if self.flows.is_empty() {
            return;
        }
        let tuple = self.random.pick(&self.flows);
        let Some(connection) = self.state.connections.get_mut(&tuple) else { return };
        if let Some((index, _)) = tables::find(&self.rig.flows, &key_of(&tuple)) {
            tables::age(&self.rig.flows, index, 3);
            connection.silent = true;
        }
    }

    /// A connection expires.
    fn expire_one(&mut self) {
        if self.flows.is_empty() {
            return;
        }
        let tuple = self.random.pick(&self.flows);
        if self.state.remove(&tuple).is_none() {
            return;
        }
        // Its load goes when the record does, which is when the next packet finds it expired or the daemon collects it. Here
        // it is collected at once.
        let key = key_of(&tuple);
        self.rig.doubt();
        for table in [&self.rig.flows, &self.rig.pending] {
            if let Some((index, record)) = tables::find(table, &key) {
                if record.control.flags & (flag::ACTIVE | flag::PENDING) == 0 {
                    tables::age(table, index, 30_002 + u32::from(MAX_GRACE));
                    return;
                }
                let node = u32::from(record.node);
                if self.rig.world.nodes[&record.node].generation == record.control.generation {
                    self.rig.loads.add_active(node, -i64::from(record.control.flags & flag::ACTIVE != 0));
                    self.rig.loads.add_pending(node, -i64::from(record.control.flags & flag::PENDING != 0));
                }
                if record.peer != 0 {
                    table.write(record.peer - 1, &lb_common::flow::FlowRecord::default());
                }
                table.write(index, &lb_common::flow::FlowRecord::default());
            }
        }
        if let Some((index, _)) = tables::find_proof(&self.rig.proofs, &key) {
            tables::age_proof(&self.rig.proofs, index, 30_002 + u32::from(MAX_GRACE));
        }
    }

    /// The tables hold the connections that the model remembers.
    fn compare_memory(&self, frame: &[u8]) {
        let mut found = BTreeMap::new();
        // What `expire_one` aged seems to be from long before the youngest.
        let both = || tables::records(&self.rig.pending).chain(tables::records(&self.rig.flows));
        let newest = both().map(|(_, record)| record.control.seen as i32).max().unwrap_or_default();
        for table in [&self.rig.flows, &self.rig.pending] {
            for (_, record) in tables::records(table) {
                let dead = newest.wrapping_sub(record.control.seen as i32) > 29_000;
                if record.control.flags & flag::REPLY != 0 || dead {
                    continue;
                }
                let key = record.key.words();
                let value = (record.control.state, record.node, record.virtual_server, record.control.generation);
                assert!(
                    found.insert(key, value).is_none(),
                    "seed {} step {}: twice in the tables",
                    self.seed,
                    self.step
                );
            }
        }
        // Proofs have no keys: what the model knows must be there, and no more of them.
        let mut proven = 0;
        for (tuple, connection) in &self.state.connections {
            let key = key_of(tuple);
            if connection.phase.is_half_open() && tables::find(&self.rig.pending, &key).is_none() {
                let Some((_, proof)) = tables::find_proof(&self.rig.proofs, &key) else { continue };
                let generation = if proof.is_generation(connection.generation) { connection.generation } else { 0 };
                let server = world::server_of(proof.node());
                found.insert(key.words(), (proof.state() as u8, proof.node(), server, generation));
                proven += 1;
            }
        }
        let now = clock::now();
        let live = tables::proofs(&self.rig.proofs).filter(|proof| proof.age(now) < 29_000).count();
        if live != proven {
            self.fail(frame, &format!("{live} proofs, expected {proven}"));
        }
        let expected: BTreeMap<_, _> = self
            .state
            .connections
            .iter()
            .map(|(tuple, c)| (key_of(tuple).words(), (c.phase.number(), c.node, c.server, c.generation)))
            .collect();
        for (slot, (active, pending)) in &self.state.loads {
            let load = self.rig.loads.read(u32::from(*slot));
            if (load.active as i64, load.pending as i64) != (*active, *pending) {
                self.fail(frame, &format!("load of slot {slot}: {load:?}, expected {active} and {pending}"));
            }
        }
        if found != expected {
            let missing: Vec<_> =
                expected.iter().filter(|(key, value)| found.get(*key) != Some(value)).take(3).collect();
            let extra: Vec<_> = found.iter().filter(|(key, value)| expected.get(*key) != Some(value)).take(3).collect();
            self.fail(frame, &format!("tables differ: expected {missing:x?}, found {extra:x?}"));
        }
    }
}

/// Node and source port of the half-open connection that a packet made, if it did.
pub(crate) fn noted(rig: &Rig, frame: &[u8]) -> Option<(u16, u16)> {
    let tuple = parse(frame, |_| true).ok()?.tuple;
    let record = rig.half_open(&key_of(&tuple))?;
    Some((record.node, u16::from_be(record.nat_port)))
}

/// Whether a packet with right checksums came out with right checksums, recomputed in full.
pub(crate) fn right_stays_right(frame: &[u8], out: &[u8]) -> bool {
    is_right(frame) != Some(true) || is_right(out) != Some(false)
}

fn key_of(tuple: &Tuple) -> lb_common::flow::FlowKey {
    let sixteen = |address| {
        let mut bytes = [0; 16];
        let octets = sum::octets(address);
        bytes[..octets.len()].copy_from_slice(&octets);
        bytes
    };
    let family = if tuple.source.is_ipv4() { 4 } else { 6 };
    let (source, destination) = (sixteen(tuple.source), sixteen(tuple.destination));
    lb_common::flow::FlowKey::from_parts(family, source, destination, tuple.ports.0, tuple.ports.1, tuple.protocol)
}

/// Whether a whole packet's checksums are right; `None` where there is none to judge.
fn is_right(frame: &[u8]) -> Option<bool> {
    let packet = parse(frame, |_| true).ok()?;
    if packet.problem.is_some() || packet.part != Part::Whole {
        return None;
    }
    let body = frame.get(packet.l4..packet.end)?;
    let tuple = packet.tuple;
    let header_right = match tuple.source.is_ipv4() {
        true => sum::add(&frame[packet.l3..packet.l4]) == 0xffff,
        false => true,
    };
    let covered = match tuple.protocol {
        17 if body[6..8] == [0, 0] => return None,
        17 if usize::from(u16::from_be_bytes([body[4], body[5]])) != body.len() => return None,
        6 | 17 | 58 => {
            [&sum::pseudo_header(tuple.source, tuple.destination, tuple.protocol, body.len())[..], body].concat()
        }
        1 if body.len() >= 8 => body.to_vec(),
        _ => return None,
    };
    Some(header_right && sum::add(&covered) == 0xffff)
}

fn fuzz(default_seed: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("LB_FUZZ_SEED").unwrap_or(default_seed);
    let steps = number("LB_FUZZ_STEPS").map_or(STEPS, |steps| steps as usize);
    let mut run = Run::new(seed);
    while run.step < steps {
        run.step();
    }
    // The run must have been about something.
    if steps >= STEPS {
        for reason in [
            "forwarded_dsr",
            "forwarded_nat",
            "forwarded_reply",
            "answered_echo",
            "forwarded_icmp_error",
            "answered_reset",
        ] {
            assert!(run.seen.get(reason).is_some_and(|count| *count > 500), "{reason}: {:?}", run.seen);
        }
        assert!(run.seen.len() >= 28, "reasons seen: {:?}", run.seen);
    }
}

#[test]
fn program_and_model_agree_about_a_million_packets_first_quarter() {
    fuzz(0x1b00_0001);
}

#[test]
fn program_and_model_agree_about_a_million_packets_second_quarter() {
    fuzz(0x1b00_0002);
}

#[test]
fn program_and_model_agree_about_a_million_packets_third_quarter() {
    fuzz(0x1b00_0003);
}

#[test]
fn program_and_model_agree_about_a_million_packets_fourth_quarter() {
    fuzz(0x1b00_0004);
}
