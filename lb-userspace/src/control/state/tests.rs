//! The rules of the control state, told by events.

mod shown;

use lb_common::conntrack::State as Conntrack;

use super::*;
use crate::control::{
    plan::{self, Admission},
    view::{NodeState, VirtualServerView},
};

const CONFIG: &str = r#"
version = 1
[interface.eth0]
[vip.web]
addresses = ["192.0.2.10"]
interface = "eth0"
raise = true
[vip.quiet]
addresses = ["192.0.2.11"]
[virtual_server.web]
vips = ["web", "quiet"]
protocol = "tcp"
ports = 80
pool = "web"
[virtual_server.api]
vips = ["web"]
protocol = "tcp"
ports = 443
pool = "api"
[pool.web]
forwarding = "dsr"
scheduler = "round_robin"
persistence = { type = "source_address", timeout = "1m" }
on_node_failure = "reset"
monitors = ["port", "alive"]
failure_pool = "sorry"
[pool.web.node.n1]
address = "10.0.0.11"
[pool.web.node.n2]
address = "10.0.0.12:80"
weight = 3
[pool.sorry]
forwarding = "nat"
source_nat = true
source_address = "10.0.0.1"
[pool.sorry.node.s1]
address = "10.0.0.21:8080"
[pool.api]
forwarding = "nat"
monitors = ["alive"]
[pool.api.node.n1]
address = "10.0.0.31:8443"
[pool.api.node.a2]
address = "10.0.0.32"
[monitor.port]
type = "tcp"
delay = "1s"
[monitor.alive]
type = "ping"
"#;

fn config(text: &str) -> Config {
    Config::parse("test.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn state() -> State {
    State::new(config(CONFIG))
}

impl State {
    fn finds(&mut self, pool: &str, node: &str, monitor: &str, health: Health) {
        let reason = (health == Health::Down).then(|| "no answer".to_owned());
        let (pool, node, monitor) = (pool.to_owned(), node.to_owned(), monitor.to_owned());
        self.apply(Event::Health { pool, node, monitor, health, reason }).unwrap();
    }

    fn set_state(&mut self, node: &str, state: NodeState) {
        self.apply(Event::Order(Order::SetNodeState { pool: None, node: node.to_owned(), state })).unwrap();
    }

    fn set_forwarding(&mut self, pool: &str, forwarding: Forwarding) -> Result<(), QueryError> {
        self.apply(Event::Order(Order::SetForwarding { pool: pool.to_owned(), forwarding }))
    }

    fn reload(&mut self, text: &str) {
        self.apply(Event::NewConfig(Box::new(config(text)))).unwrap();
    }

    fn admissions(&self, server: &str) -> Vec<(String, Admission)> {
        let nodes = self.plan().virtual_servers[server].nodes.clone();
        nodes.into_iter().map(|node| (format!("{}/{}", node.pool, node.name), node.admission)).collect()
    }
}

fn admits(list: &[(&str, Admission)]) -> Vec<(String, Admission)> {
    list.iter().map(|(node, admission)| ((*node).to_owned(), *admission)).collect()
}

#[test]
fn configured_state_and_health_say_what_a_node_takes() {
    use Admission::{All, Nothing, Tracked};
    use Health::{Down, Unknown, Up};
    use NodeState::{Active, Disabled, Draining};
    let table = [
        (Active, Unknown, All),
        (Active, Up, All),
        (Active, Down, Nothing),
        (Draining, Unknown, Tracked),
        (Draining, Up, Tracked),
        (Draining, Down, Nothing),
        (Disabled, Unknown, Nothing),
        (Disabled, Up, Nothing),
        (Disabled, Down, Nothing),
    ];
    for (node_state, health, expected) in table {
        let mut state = state();
        state.set_state("web/n2", node_state);
        state.finds("web", "n2", "alive", health);
        state.finds("web", "n2", "port", Health::Up);
        assert_eq!(state.admissions("web")[1], ("web/n2".to_owned(), expected), "{node_state:?} {health:?}");
    }
}

impl State {
    fn node_health(&self, pool: &str, node: &str) -> (Health, Option<String>) {
        let facts = self.facts(pool);
        (facts.health(node), facts.reason(node))
    }
}

#[test]
fn a_node_is_down_when_one_of_its_monitors_says_so() {
    let mut state = state();
    let health = |state: &State| state.node_health("web", "n1");
    assert_eq!(health(&state), (Health::Unknown, None));
    state.finds("web", "n1", "alive", Health::Up);
    assert_eq!(health(&state).0, Health::Unknown, "one of two");
    state.finds("web", "n1", "port", Health::Up);
    assert_eq!(health(&state).0, Health::Up);
    state.finds("web", "n1", "port", Health::Down);
    assert_eq!(health(&state), (Health::Down, Some("port: no answer".to_owned())));
    state.finds("web", "n1", "alive", Health::Down);
    state.finds("web", "n1", "port", Health::Up);
    assert_eq!(health(&state), (Health::Down, Some("alive: no answer".to_owned())));
    assert_eq!(state.node_health("sorry", "s1").0, Health::Unknown, "no monitor");
}

#[test]
fn a_node_that_recovers_by_hand_waits_for_it() {
    let manual = CONFIG.replace("type = \"tcp\"", "type = \"tcp\"\nrecovery = \"manual\"");
    let mut state = State::new(config(&manual));
    let up = |state: &mut State| state.apply(Event::Order(Order::TakeNodeIn { pool: None, node: "web/n1".to_owned() }));
    assert!(up(&mut state).unwrap_err().to_string().contains("does not wait to be taken in"));
    state.finds("web", "n1", "port", Health::Down);
    assert_eq!(state.node_health("web", "n1"), (Health::Down, Some("port: no answer".to_owned())));
    assert!(up(&mut state).unwrap_err().to_string().contains("still says of node web/n1: no answer"));
    state.finds("web", "n1", "port", Health::Up);
    state.finds("web", "n1", "alive", Health::Up);
    let waits = "port: no answer; it answers again and waits for: lbctl node up web/n1";
    assert_eq!(state.node_health("web", "n1"), (Health::Down, Some(waits.to_owned())));
    assert_eq!(state.admissions("web")[0].1, Admission::Nothing);

    // Neither a restart nor another configuration takes it in.
    let overrides = serde_json::from_str(&serde_json::to_string(state.overrides()).unwrap()).unwrap();
    let restarted = State::new(config(&manual)).with_overrides(overrides);
    let unchecked = Some("port: no answer; not checked since".to_owned());
    assert_eq!(restarted.node_health("web", "n1"), (Health::Down, unchecked));
    state.reload(&manual.replace("weight = 3", "weight = 4"));
    assert_eq!(state.node_health("web", "n1").0, Health::Down);

    up(&mut state).unwrap();
    assert_eq!(state.node_health("web", "n1"), (Health::Up, None));
    assert_eq!(state.overrides(), &Overrides::default());
    // One that recovers by itself does not wait.
    state.finds("web", "n1", "alive", Health::Down);
    state.finds("web", "n1", "alive", Health::Up);
    assert_eq!(state.node_health("web", "n1").0, Health::Up);
    // When the monitor changes its mind about recovery, nobody waits any longer.
    state.finds("web", "n1", "port", Health::Down);
    state.finds("web", "n1", "port", Health::Up);
    state.reload(CONFIG);
    assert_eq!(state.node_health("web", "n1").0, Health::Up);
}

#[test]
fn the_failure_pool_serves_while_no_own_node_takes_new_connections() {
    use Admission::{All, Nothing, Tracked};
    let mut state = state();
    let own_pool = admits(&[("web/n1", All), ("web/n2", All), ("sorry/s1", Tracked)]);
    assert_eq!(state.admissions("web"), own_pool);

    state.finds("web", "n1", "alive", Health::Down);
    assert_eq!(state.admissions("web"), admits(&[("web/n1", Nothing), ("web/n2", All), ("sorry/s1", Tracked)]));
    assert_eq!(state.plan().virtual_servers["web"].pool, "web");

    state.set_state("web/n2", NodeState::Draining);
    assert_eq!(state.admissions("web"), admits(&[("web/n1", Nothing), ("web/n2", Tracked), ("sorry/s1", All)]));
    let server = state.plan().virtual_servers["web"].clone();
    assert_eq!((server.pool.as_str(), server.forwarding), ("sorry", Forwarding::NatSource));
    assert_eq!((server.scheduler, server.affinity), (plan::Scheduler::Maglev, None), "of the pool in use");
    assert_eq!(server.on_node_failure, plan::OnNodeFailure::Reset, "of the own pool");

    state.finds("web", "n1", "alive", Health::Up);
    state.set_state("web/n2", NodeState::Active);
    assert_eq!(state.admissions("web"), own_pool);

    // When nobody can, the own pool is the one that is named.
    for node in ["web/n1", "web/n2", "sorry/s1"] {
        state.set_state(node, NodeState::Disabled);
    }
    assert_eq!(state.plan().virtual_servers["web"].pool, "web");
    assert_eq!(state.admissions("web"), admits(&[("web/n1", Nothing), ("web/n2", Nothing), ("sorry/s1", Nothing)]));
}

#[test]
fn the_plan_says_all_that_the_data_path_needs() {
    let plan = state().plan();
    assert_eq!(plan.interfaces.keys().collect::<Vec<_>>(), ["eth0"]);
    let web = &plan.virtual_servers["web"];
    assert_eq!(web.addresses, ["192.0.2.10".parse::<IpAddr>().unwrap(), "192.0.2.11".parse().unwrap()]);
    assert_eq!((web.ports.as_slice(), web.forwarding), ([(80, 80)].as_slice(), Forwarding::Dsr));
    assert_eq!(web.timeouts.0[Conntrack::Affinity as usize], 60);
    assert_eq!((web.source_ports, web.flood_limit), ((1024, 32_767), 20_000));
    assert_eq!(web.ring_seed, crate::config::ring_seed(crate::config::DEFAULT_RING_SEED));
    let addresses: Vec<String> = web.nodes.iter().map(|node| node.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.11:0", "10.0.0.12:80", "10.0.0.21:8080"]);
    assert_eq!((web.nodes[1].weight, web.nodes[1].source_address), (3, None));
    assert_eq!(web.nodes[2].source_address, Some("10.0.0.1".parse().unwrap()));
}

#[test]
fn overrides_outlive_a_reload_that_does_not_concern_them() {
    let mut state = state();
    state.set_state("web/n1", NodeState::Draining);
    let weight = Order::SetNodeWeight { pool: Some("web".into()), node: "n2".into(), weight: 9 };
    state.apply(Event::Order(weight)).unwrap();
    state.set_forwarding("web", Forwarding::NatSource).unwrap();
    let set = |state: &State| {
        let web = &state.plan().virtual_servers["web"];
        (web.nodes[0].admission, web.nodes[1].weight, web.forwarding)
    };
    let expected = (Admission::Tracked, 9, Forwarding::NatSource);
    assert_eq!(set(&state), expected);

    state.reload(&CONFIG.replace("10.0.0.32", "10.0.0.33"));
    assert_eq!((set(&state), state.generation()), (expected, 2));

    // A restart: what was kept in a file comes back.
    let kept = serde_json::to_string(state.overrides()).unwrap();
    let back = State::new(config(CONFIG)).with_overrides(serde_json::from_str(&kept).unwrap());
    assert_eq!(set(&back), expected);

    // The configuration changes the very values: it has the last word, for each of them.
    let mut other = back.clone();
    other.reload(&CONFIG.replace("weight = 3", "weight = 4"));
    assert_eq!(set(&other), (Admission::Tracked, 4, Forwarding::NatSource));
    other.reload(&CONFIG.replace("address = \"10.0.0.11\"", "address = \"10.0.0.11\"\nstate = \"disabled\""));
    assert_eq!(set(&other), (Admission::Nothing, 3, Forwarding::NatSource));
    other.reload(&CONFIG.replace("\"dsr\"", "\"nat\""));
    assert_eq!(set(&other), (Admission::All, 3, Forwarding::Nat));
    assert_eq!(*other.overrides(), Overrides::default());

    // The node goes and comes back: it is another one.
    let mut other = back.clone();
    other.reload(&CONFIG.replace("web.node.n1", "web.node.n0"));
    other.reload(CONFIG);
    assert_eq!(set(&other).0, Admission::All);
}

#[test]
fn an_override_to_what_is_configured_is_none() {
    let mut state = state();
    state.set_state("web/n1", NodeState::Disabled);
    state.set_state("web/n1", NodeState::Active);
    state.set_forwarding("web", Forwarding::Nat).unwrap();
    state.set_forwarding("web", Forwarding::Dsr).unwrap();
    assert_eq!(*state.overrides(), Overrides::default());
}

#[test]
fn a_pool_with_a_port_mapping_cannot_forward_by_dsr() {
    let mut state = state();
    let before = state.clone();
    let error = state.set_forwarding("api", Forwarding::Dsr).unwrap_err();
    let expected = "pool \"api\" cannot forward by dsr: node \"n1\" has port 8443, but virtual server \"api\" listens on port 443; \
                    with dsr only MAC addresses change, so that nodes see the VIP and its port";
    assert_eq!(error, QueryError::Invalid(expected.to_owned()));
    let error = state.set_forwarding("sorry", Forwarding::Dsr).unwrap_err();
    assert!(error.to_string().contains("virtual server \"web\""), "as a failure pool: {error}");
    assert_eq!(state, before, "nothing changed");

    // A reload that brings a mapping ends DSR that was chosen at run time.
    let mapless = CONFIG.replace(":8443", "");
    state.reload(&mapless);
    state.set_forwarding("api", Forwarding::Dsr).unwrap();
    state.reload(CONFIG);
    assert_eq!(state.forwarding("api"), Some(Forwarding::Nat));
}

#[test]
fn nat_means_as_it_is_configured() {
    let mut state = State::new(config(&CONFIG.replace("10.0.0.21:8080", "10.0.0.21")));
    state.set_forwarding("sorry", Forwarding::Dsr).unwrap();
    assert_eq!(state.forwarding("sorry"), Some(Forwarding::Dsr));
    state.set_forwarding("sorry", Forwarding::Nat).unwrap();
    assert_eq!(state.forwarding("sorry"), Some(Forwarding::NatSource));
    state.set_forwarding("api", Forwarding::NatSource).unwrap();
    assert_eq!(state.forwarding("api"), Some(Forwarding::NatSource));
}

#[test]
fn orders_that_name_nothing_say_what_there_is() {
    let node = |pool: Option<&str>, node: &str| Order::SetNodeState {
        pool: pool.map(str::to_owned),
        node: node.to_owned(),
        state: NodeState::Draining,
    };
    let rows = [
        (node(None, "n2"), Ok(())),
        (node(None, "web/n1"), Ok(())),
        (node(Some("api"), "n1"), Ok(())),
        (node(None, "n1"), Err("several pools have a node \"n1\": say which of api/n1, web/n1")),
        (node(None, "zz"), Err("no pool has a node \"zz\"; nodes: api/a2, api/n1, sorry/s1, web/n1, web/n2")),
        (node(None, "zz/n1"), Err("there is no pool \"zz\"; pools: api, sorry, web")),
        (node(Some("web"), "a2"), Err("pool \"web\" has no node \"a2\"; its nodes: n1, n2")),
        (
            Order::SetForwarding { pool: "zz".into(), forwarding: Forwarding::Dsr },
            Err("there is no pool \"zz\"; pools: api, sorry, web"),
        ),
        (
            Order::SetNodeWeight { pool: None, node: "n2".into(), weight: 0 },
            Err(
                "weight 0 of node web/n2 is not within 1 to 65535; to send it no new connections, drain it: lbctl node \
                 drain web/n2",
            ),
        ),
    ];
    for (order, expected) in rows {
        let mut state = state();
        let said = state.apply(Event::Order(order.clone())).map_err(|error| error.to_string());
        assert_eq!(said, expected.map_err(str::to_owned), "{order:?}");
    }
}

#[test]
fn findings_outlive_a_reload_where_the_check_is_the_same() {
    let mut state = state();
    state.finds("web", "n1", "alive", Health::Down);
    state.finds("api", "a2", "alive", Health::Down);
    state.reload(&CONFIG.replace("10.0.0.32", "10.0.0.33").replace("delay = \"1s\"", "delay = \"3s\""));
    assert_eq!(state.node_health("web", "n1").0, Health::Down);
    assert_eq!(state.node_health("api", "a2").0, Health::Unknown, "another address");

    // Late words about what is gone change nothing.
    let before = state.clone();
    state.finds("gone", "n1", "alive", Health::Down);
    state.finds("api", "a2", "port", Health::Down);
    assert_eq!(state, before);
}

#[test]
fn a_refused_reload_is_remembered_until_one_succeeds() {
    let mut state = state();
    state.apply(Event::ConfigRefused("bad".into())).unwrap();
    assert_eq!(state.status(&Default::default()).config_error.as_deref(), Some("bad"));
    assert_eq!(state.generation(), 1);
    state.reload(CONFIG);
    assert_eq!(state.status(&Default::default()).config_error, None);
    assert!(matches!(state.apply(Event::Order(Order::Upgrade)), Err(QueryError::Invalid(_))));
}

#[test]
fn checks_go_to_the_nodes_own_address_and_port() {
    let checks = state().monitors();
    let seen: Vec<String> =
        checks.iter().map(|c| format!("{}/{} {} {:?} {}", c.pool, c.node, c.monitor, c.kind, c.address)).collect();
    let expected = [
        "api/a2 alive Ping 10.0.0.32:0",
        "api/n1 alive Ping 10.0.0.31:0",
        "web/n1 port Tcp 10.0.0.11:80",
        "web/n1 alive Ping 10.0.0.11:0",
        "web/n2 port Tcp 10.0.0.12:80",
        "web/n2 alive Ping 10.0.0.12:0",
    ];
    assert_eq!(seen, expected);
    assert_eq!((checks[2].delay, checks[2].failures), (Duration::from_secs(1), 3));
    // The monitor's own port comes first.
    let state = State::new(config(&CONFIG.replace("type = \"tcp\"", "type = \"tcp\"\nport = 81")));
    assert_eq!(state.monitors()[2].address, "10.0.0.11:81".parse().unwrap());
}

#[test]
fn only_vips_that_are_to_be_raised_are_listed() {
    let web = RaisedVip { group: "web".into(), address: "192.0.2.10".parse().unwrap(), interface: "eth0".into() };
    assert_eq!(state().vips(), VipPlan { fixed: vec![web], ..VipPlan::default() });
}

#[test]
fn what_is_set_for_a_while_is_undone_in_time_and_not_before() {
    let mut state = state();
    let before = state.plan();
    let (pool, node) = (Some("web".to_owned()), "n1".to_owned());
    let drain = Order::SetNodeState { pool: pool.clone(), node: node.clone(), state: NodeState::Draining };
    let weigh = Order::SetNodeWeight { pool, node, weight: 7 };
    state.apply(Event::Order(Order::Until(Box::new(drain.clone()), 100))).unwrap();
    state.apply(Event::Order(Order::Until(Box::new(weigh), 200))).unwrap();
    for (now, ends) in [(99, false), (100, true)] {
        assert_eq!(state.overrides().has_ended(now), ends, "at {now}");
    }
    state.apply(Event::Time(100)).unwrap();
    let set = state.overrides().node("web", "n1").copied().unwrap();
    assert!(set.state.is_none() && set.weight.is_some());
    state.apply(Event::Time(200)).unwrap();
    assert_eq!(state.plan(), before);
    // What is set again without an end has none.
    state.apply(Event::Order(Order::Until(Box::new(drain.clone()), 300))).unwrap();
    state.apply(Event::Order(drain)).unwrap();
    assert!(!state.overrides().has_ended(u64::MAX));
    let move_on = Order::Until(Box::new(Order::Maintenance(true)), 300);
    assert!(matches!(state.apply(Event::Order(move_on)), Err(QueryError::Invalid(_))));
}

#[test]
fn a_group_is_announced_while_its_virtual_servers_are_known_to_serve() {
    let announced = |when: &str| {
        let mode = format!("mode = \"everywhere\"\n{when}");
        State::new(config(&CONFIG.replace("raise = true", &mode).replace("failure_pool = \"sorry\"\n", "")))
    };
    let withheld = |state: &State| state.vips().everywhere[0].withheld.clone();
    let health = |pool: &str, node: &str, monitor: &str, health| Event::Health {
        pool: pool.into(),
        node: node.into(),
        monitor: monitor.into(),
        health,
        reason: None,
    };
    let up = |state: &mut State, pool: &str, node: &str, monitors: &[&str]| {
        for monitor in monitors {
            state.apply(health(pool, node, monitor, Health::Up)).unwrap();
        }
    };
    let (mut any, mut all) = (announced("announce_when = \"any\""), announced("announce_when = \"all\""));
    assert_eq!(withheld(&any).as_deref(), Some("no node is known to serve api, web"), "nobody was asked yet");
    assert_eq!(withheld(&announced("announce_when = \"always\"")), None);
    for state in [&mut any, &mut all] {
        up(state, "web", "n1", &["port", "alive"]);
    }
    assert_eq!(withheld(&any), None);
    assert_eq!(withheld(&all).as_deref(), Some("no node is known to serve api"));
    up(&mut all, "api", "a2", &["alive"]);
    assert_eq!(withheld(&all), None);
    any.apply(health("web", "n1", "port", Health::Down)).unwrap();
    assert_eq!(withheld(&any).as_deref(), Some("no node is known to serve api, web"));
    let drain = Order::SetNodeState { pool: Some("api".into()), node: "a2".into(), state: NodeState::Draining };
    all.apply(Event::Order(drain)).unwrap();
    assert_eq!(withheld(&all).as_deref(), Some("no node is known to serve api"), "it takes no new connections");
    assert_eq!(all.vips().everywhere[0].vips.len(), 1);
}
