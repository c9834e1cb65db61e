//! What the views say.

use super::*;
use crate::control::{
    query::{Counters, NodeCounters, Nodes},
    view::{InterfaceView, TableUse, Traffic, Way},
};

fn counters() -> Counters {
    let counted = |n: u64| NodeCounters {
        active: n,
        connections: 10 * n,
        rescheduled: 1,
        evicted: 1,
        forward: Traffic { packets: n, bytes: 100 * n },
        reply: Traffic { packets: 2 * n, bytes: 200 * n },
        mac: (n == 2).then(|| "02:00:00:00:00:02".to_owned()),
        interface: None,
    };
    let id = |server: &str, pool: &str, node: &str| (server.to_owned(), pool.to_owned(), node.to_owned());
    let nodes = [
        (id("web", "web", "n1"), counted(1)),
        (id("web", "web", "n2"), counted(2)),
        (id("web", "sorry", "s1"), counted(4)),
        (id("second", "web", "n2"), counted(8)),
    ];
    Counters {
        nodes: nodes.into(),
        flood_limited: [("web".to_owned(), 7)].into(),
        tables: [("FLOWS".to_owned(), TableUse { used: 75, capacity: 100 })].into(),
        ..Counters::default()
    }
}

fn server(state: &State, name: &str) -> VirtualServerView {
    state.virtual_servers(&counters(), Nodes::Shown).into_iter().find(|server| server.name == name).unwrap()
}

#[test]
fn a_virtual_server_shows_its_own_counters() {
    let web = server(&state(), "web");
    assert_eq!((web.active, web.connections, web.flood_limited), (7, 70, 7));
    assert_eq!((web.forward.bytes, web.reply.packets), (700, 14));
    assert_eq!((web.pool.as_str(), web.pool_in_use.as_str()), ("web", "web"));
    assert_eq!((web.nodes_available, web.nodes_total), (2, 2));
    let nodes: Vec<_> = web.nodes.iter().map(|node| (node.pool.as_str(), node.address.as_str(), node.active)).collect();
    assert_eq!(nodes, [("web", "10.0.0.11", 1), ("web", "10.0.0.12:80", 2), ("sorry", "10.0.0.21:8080", 4)]);
    assert_eq!(web.nodes[1].mac.as_deref(), Some("02:00:00:00:00:02"));
}

#[test]
fn a_virtual_server_shows_the_pool_in_use() {
    let mut state = state();
    state.set_state("web/n1", NodeState::Disabled);
    state.finds("web", "n2", "alive", Health::Down);
    let web = server(&state, "web");
    assert_eq!((web.pool.as_str(), web.pool_in_use.as_str()), ("web", "sorry"));
    assert_eq!((web.nodes_available, web.nodes_total, web.forwarding), (1, 1, Way::NatSource));
    let n1 = &web.nodes[0];
    assert_eq!((n1.state, n1.state_overridden, n1.admission), (NodeState::Disabled, true, Admission::Nothing));
    let n2 = &web.nodes[1];
    assert_eq!((n2.health, n2.health_reason.as_deref()), (Health::Down, Some("alive: no answer")));
}

#[test]
fn a_pool_shows_the_sum_over_its_virtual_servers() {
    let second =
        "[virtual_server.second]\nvips = [\"quiet\"]\nprotocol = \"udp\"\nports = 80\npool = \"web\"\n[pool.web]";
    let with_port = "[monitor.port]\nport = 80";
    let text = CONFIG.replace("[pool.web]", second).replace("[monitor.port]", with_port);
    let mut state = State::new(config(&text));
    state.set_forwarding("web", Forwarding::Nat).unwrap();
    let pools = state.pools(&counters(), Nodes::Shown);
    for pool in &pools {
        assert_eq!(state.pool(&pool.name, &counters()).as_ref(), Some(pool), "one alone is shown as among all");
    }
    assert_eq!(state.pool("nothing", &counters()), None);
    for server in state.virtual_servers(&counters(), Nodes::Shown) {
        assert_eq!(state.virtual_server(&server.name, &counters()).as_ref(), Some(&server));
    }
    assert_eq!(pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["api", "sorry", "web"]);
    let web = &pools[2];
    assert_eq!(web.virtual_servers, ["second", "web"]);
    assert_eq!((web.forwarding, web.forwarding_overridden), (Way::Nat, true));
    assert_eq!((web.nodes[1].active, web.nodes[1].connections, web.nodes[1].rescheduled), (10, 100, 2));
    assert_eq!(web.nodes[1].evicted, 2);
    assert_eq!((web.nodes[0].admission, web.failure_pool.as_deref()), (Admission::All, Some("sorry")));
    assert_eq!(pools[1].nodes[0].admission, Admission::Tracked, "not in use");
}

#[test]
fn status_warns_of_what_needs_an_operator() {
    let mut state = state();
    let native = InterfaceView { name: "eth0".into(), mode: "native".into(), ..InterfaceView::default() };
    let healthy = Counters { interfaces: vec![native.clone()], ..Counters::default() };
    assert_eq!(state.status(&healthy).warnings, [""; 0]);

    state.finds("web", "n1", "port", Health::Down);
    state.set_state("web/n2", NodeState::Disabled);
    state.set_state("api/n1", NodeState::Draining);
    state.set_state("api/a2", NodeState::Draining);
    state.set_forwarding("web", Forwarding::Nat).unwrap();
    state.apply(Event::ConfigRefused("bad".into())).unwrap();
    let generic = InterfaceView { mode: "generic".into(), ..native };
    let status = state.status(&Counters { interfaces: vec![generic], ..counters() });
    let expected = [
        "the last reload was refused: the configuration in force is an older one",
        "virtual server \"api\": no node takes new connections",
        "virtual server \"web\": failure pool \"sorry\" serves, no node of \"web\" can",
        "node web/n1 is down: port: no answer",
        "interface \"eth0\": the program runs in generic mode, which is slow",
        "table FLOWS is 75 % full",
        "pool \"web\" forwards by nat, set at run time; the configuration says dsr",
    ];
    assert_eq!(status.warnings, expected);
    let status = state.status(&Counters::default());
    assert_eq!(status.interfaces[0].mode, "absent");
    assert!(status.warnings.iter().any(|w| w == "interface \"eth0\" does not exist: packets there are not balanced"));
}

#[test]
fn lists_without_nodes_say_the_same_of_all_else() {
    let mut state = state();
    state.finds("web", "n1", "port", Health::Down);
    state.set_state("web/n2", NodeState::Draining);
    let mut servers = state.virtual_servers(&counters(), Nodes::Shown);
    assert!(servers.iter().all(|server| !server.nodes.is_empty()));
    servers.iter_mut().for_each(|server| server.nodes.clear());
    assert_eq!(state.virtual_servers(&counters(), Nodes::Counted), servers);
    let mut pools = state.pools(&counters(), Nodes::Shown);
    for pool in &mut pools {
        let takes_new = pool.nodes.iter().filter(|node| node.admission == Admission::All).count();
        assert_eq!((pool.nodes_available, pool.nodes_total), (takes_new, pool.nodes.len()), "{}", pool.name);
        assert_eq!(pool.active, pool.nodes.iter().map(|node| node.active).sum::<u64>(), "{}", pool.name);
        pool.nodes.clear();
    }
    assert!(pools.iter().any(|pool| pool.nodes_available < pool.nodes_total));
    assert_eq!(state.pools(&counters(), Nodes::Counted), pools);
}
