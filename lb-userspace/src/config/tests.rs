//! What is understood, what is refused, and with which words.

mod alerts;
mod hostile_texts;
mod mistakes;
mod monitors;
mod proxy;
mod proxy_mistakes;
mod values;

use lb_common::conntrack::State;

use super::*;
use crate::control::probe::Kind;

/// A valid configuration that the tests change.
const BASE: &str = r#"version = 1

[interface.eth0]
vlans = [100]

[vip.web]
addresses = ["192.0.2.10"]

[vip.dns]
addresses = ["192.0.2.53"]
interface = "eth0"
raise = true

[virtual_server.web]
vips = ["web"]
protocol = "tcp"
ports = 80
pool = "web"

[virtual_server.api]
vips = ["web"]
protocol = "tcp"
ports = [443, "8000-8100"]
pool = "api"

[virtual_server.dns]
vips = ["dns"]
protocol = "udp"
ports = 53
pool = "dns"

[pool.web]
forwarding = "dsr"
scheduler = "maglev"
monitors = ["alive"]
failure_pool = "sorry"

[pool.web.node.n1]
address = "10.0.0.11"
weight = 2

[pool.web.node.n2]
address = "10.0.0.12:80"

[pool.sorry]
forwarding = "nat"

[pool.sorry.node.s1]
address = "10.0.0.21"

[pool.api]
forwarding = "nat"
monitors = ["alive"]
persistence = { type = "source_address", prefix = 24, timeout = "5m" }

[pool.api.node.a1]
address = "10.0.0.31"

[pool.dns]
forwarding = "nat"
source_nat = true
source_address = "10.0.0.1"

[pool.dns.node.d1]
address = "10.0.0.53:5353"

[monitor.alive]
type = "ping"
delay = "2s"

[monitor.connects]
type = "tcp"
"#;

fn parse(text: &str) -> Config {
    Config::parse("lb.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

#[test]
fn every_example_is_valid() {
    let names = std::fs::read_dir(example("")).unwrap().map(|entry| entry.unwrap().path());
    let configs: Vec<_> = names.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(configs.len() >= 3, "{configs:?}");
    for path in configs {
        if let Err(errors) = Config::load(&path) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_reference_in_docs_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let now = reference::markdown();
    if std::env::var("LB_UPDATE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &now).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == now, "docs/config.md is out of date: LB_UPDATE_DOCS=1 cargo test -p lb-userspace config");
}

#[test]
fn what_is_not_said_has_a_default() {
    let config = parse("version = 1\n");
    assert_eq!(config.daemon.socket, Path::new("/run/lb/admin.sock"));
    assert_eq!(config.daemon.state_dir, Path::new("/var/lib/lb"));
    assert_eq!((config.daemon.on_stop, config.daemon.shutdown_timeout), (OnStop::Keep, Duration::from_secs(10)));
    assert_eq!(config.dataplane.pin_dir, Path::new("/sys/fs/bpf/lb"));
    assert_eq!((config.dataplane.max_flows, config.dataplane.max_half_open), (1_048_576, 65_536));
    assert_eq!((config.dataplane.source_ports, config.dataplane.flood_limit), ((1024, 32_767), 20_000));
    assert_eq!(config.dataplane.ring_seed, ring_seed(DEFAULT_RING_SEED));

    let config = parse(BASE);
    assert_eq!(config.virtual_servers["web"].timeouts, Timeouts::default());
    let monitor = Monitor {
        kind: Kind::Tcp,
        delay: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        failures: 3,
        successes: 1,
        recovery: Recovery::Automatic,
        port: None,
        address: None,
        via: Via::Node,
        files: MonitorFiles::default(),
    };
    assert_eq!(config.monitors["connects"], monitor);
    let node = Node { address: "10.0.0.31".parse().unwrap(), port: None, weight: 1, state: NodeState::Active };
    assert_eq!(config.pools["api"].nodes["a1"], node);
    let web = &config.vips["web"];
    let interface = web.interfaces.get(&web.addresses[0]).map(String::as_str);
    assert_eq!((web.mode, interface), (cluster::VipMode::External, Some("eth0")), "the only interface");
}

#[test]
fn what_is_said_is_understood() {
    let config = parse(BASE);
    assert_eq!(config.interfaces["eth0"].vlans, [100]);
    assert_eq!(config.virtual_servers["api"].ports, [(443, 443), (8000, 8100)]);
    assert_eq!(config.virtual_servers["web"].single_port(), Some(80));
    assert_eq!(config.virtual_servers["api"].single_port(), None);
    assert_eq!(config.pools["web"].nodes["n1"].weight, 2);
    assert_eq!(config.pools["web"].nodes["n2"].port, Some(80));
    assert_eq!(config.pools["dns"].forwarding, Forwarding::NatSource);
    assert_eq!(config.pools["dns"].source_address4, Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(config.pools["api"].affinity, Some(SourceAffinity { prefix4: 24, prefix6: 128, timeout_s: 300 }));
    let chain: Vec<_> = config.pool_chain("web").into_iter().map(|(name, _)| name).collect();
    assert_eq!(chain, ["web", "sorry"]);
    assert_eq!(config.users_of("sorry").map(|(name, _)| name).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn each_family_of_a_virtual_server_needs_a_ring() {
    assert_eq!((parse(BASE).rings(), parse(BASE).dataplane.max_rings), (3, None));
    let both = r#"version = 1
[dataplane]
max_rings = 1000
[interface.eth0]
[vip.web]
addresses = ["192.0.2.10", "192.0.2.11", "2001:db8::10"]
[virtual_server.web]
vips = ["web"]
protocol = "tcp"
ports = 80
pool = "web"
[pool.web]
forwarding = "nat"
[pool.web.node.four]
address = "10.0.0.1"
[pool.web.node.six]
address = "2001:db8::2"
"#;
    let config = parse(both);
    assert_eq!((config.rings(), config.dataplane.max_rings), (2, Some(1000)));
}

#[test]
fn timeouts_reach_the_states_they_are_for() {
    let names = [
        ("syn_sent", State::SynSent),
        ("established", State::Established),
        ("fin_wait", State::FinWait),
        ("time_wait", State::TimeWait),
        ("closed", State::Closed),
        ("udp_new", State::UdpNew),
        ("udp", State::Udp),
    ];
    for (name, state) in names {
        let text = BASE.replace("ports = 80", &format!("ports = 80\ntimeouts = {{ {name} = \"1h1s\" }}"));
        let timeouts = parse(&text).virtual_servers["web"].timeouts;
        for other in State::ALL {
            let half_open = state == State::SynSent && other == State::SynReceived;
            let expected = if other == state || half_open { 3601 } else { Timeouts::default().0[other as usize] };
            assert_eq!(timeouts.0[other as usize], expected, "{name}: {other:?}");
        }
    }
}

#[test]
fn all_ports_may_hold_smaller_ranges_of_other_virtual_servers() {
    let text = BASE.replace("ports = [443, \"8000-8100\"]", "ports = \"all\"");
    assert_eq!(parse(&text).virtual_servers["api"].ports, [(1, 65_535)]);
}

#[test]
fn the_ring_seed_never_changes() {
    // Balancers of different versions must agree: these numbers, computed apart from this program, may not change.
    assert_eq!(ring_seed(""), 2_414_115_369_415_646_414);
    assert_eq!(ring_seed("lb"), 1_639_583_330_031_416_673);
    assert_ne!(ring_seed("a"), ring_seed("b"));
}

#[test]
fn files_of_conf_d_complement_the_main_one() {
    let directory = tempfile::tempdir().unwrap();
    let (main, fragments) = (directory.path().join("lb.toml"), directory.path().join("conf.d"));
    std::fs::create_dir(&fragments).unwrap();
    let (first, second) = BASE.split_once("[pool.sorry]").unwrap();
    std::fs::write(&main, first).unwrap();
    std::fs::write(fragments.join("20-pools.toml"), format!("[pool.sorry]{second}")).unwrap();
    std::fs::write(fragments.join("30-seed.toml"), "version = 1\n[dataplane]\nring_seed = \"x\"\n").unwrap();
    std::fs::write(fragments.join("notes.txt"), "not TOML").unwrap();
    let mut expected = parse(BASE);
    expected.dataplane.ring_seed = ring_seed("x");
    assert_eq!(Config::load(&main).unwrap(), expected);

    // Mistakes are placed in the file that they are in, and see what other files define.
    std::fs::write(
        fragments.join("40-more.toml"),
        "# more\n[pool.web]\nforwarding = \"nat\"\n[vip.x]\nadresses = []\n",
    )
    .unwrap();
    let errors = Config::load(&main).unwrap_err().errors;
    let seen: Vec<_> = errors.iter().map(|e| (e.message.as_str(), e.place.as_ref().unwrap())).collect();
    let [(twice, twice_at), (unknown, unknown_at)] = &seen[..] else { panic!("{errors:?}") };
    assert_eq!(*twice, "[pool.web] is defined twice");
    assert!(twice_at.file.ends_with("conf.d/40-more.toml") && (twice_at.line, twice_at.column) == (2, 7), "{twice_at}");
    let first = &errors[0].related[0];
    assert!(first.0.file.ends_with("lb.toml") && first.0.line == 32 && first.1 == "defined here first", "{first:?}");
    assert_eq!(*unknown, "unknown key \"adresses\" in [vip.x]");
    assert!(unknown_at.file.ends_with("conf.d/40-more.toml") && unknown_at.line == 5, "{unknown_at}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing.toml");
    let errors = Config::load(&path).unwrap_err();
    assert!(errors.errors[0].message.contains("missing.toml"), "{errors}");
    assert!(errors.errors[0].help.as_ref().unwrap().contains("--config"), "{errors}");
    std::fs::write(&path, b"version = 1\n# \xff\n").unwrap();
    let errors = Config::load(&path).unwrap_err();
    assert!(errors.to_string().contains("line 2 is not UTF-8"), "{errors}");
}

#[test]
fn every_truncation_of_a_document_is_answered_without_a_panic() {
    for end in (0..=BASE.len()).filter(|end| BASE.is_char_boundary(*end)) {
        match Config::parse("lb.toml", &BASE[..end]) {
            Ok(_) => {}
            Err(errors) => assert!(!errors.errors.is_empty() && !errors.report(true).is_empty()),
        }
    }
}
