//! Mistakes that concern more than one value, and how mistakes are shown: what is said, where, and what is advised. A case changes [`BASE`] and marks the place by the
//! text that the error must begin at.

use super::*;

/// Name, what is replaced in `BASE` by what, where the error begins, what is said, what is advised.
pub(super) type Case = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

#[test]
fn mistakes_between_sections() {
    check_all(MISTAKES_BETWEEN_SECTIONS);
}

const MISTAKES_BETWEEN_SECTIONS: &[Case] = &[
    (
        "no such pool",
        "pool = \"dns\"",
        "pool = \"dsn\"",
        "\"dsn\"",
        "virtual server \"dns\" names pool \"dsn\", which does not exist",
        "did you mean \"dns\"?",
    ),
    (
        "no such VIP group",
        "vips = [\"dns\"]",
        "vips = [\"dnss\"]",
        "\"dnss\"",
        "names VIP group \"dnss\"",
        "did you mean \"dns\"?",
    ),
    (
        "no such monitor",
        "[\"alive\"]\nfail",
        "[\"dead\"]\nfail",
        "\"dead\"",
        "pool \"web\" names monitor \"dead\"",
        "[monitor] sections for: \"alive\", \"connects\"",
    ),
    (
        "no such failure pool",
        "\"sorry\"",
        "\"sory\"",
        "\"sory\"",
        "names failure pool \"sory\"",
        "did you mean \"sorry\"?",
    ),
    (
        "its own failure pool",
        "\"sorry\"",
        "\"web\"",
        "\"web\"\n\n[pool.web.node.n1]",
        "failure pools go in a circle: web -> web",
        "has no failure_pool",
    ),
    (
        "a circle of failure pools",
        "forwarding = \"nat\"\n\n[pool.sorry",
        "forwarding = \"nat\"\nfailure_pool = \"web\"\n\n[pool.sorry",
        "\"web\"\n\n[pool.sorry",
        "failure pools go in a circle: sorry -> web -> sorry",
        "",
    ),
    (
        "monitor twice",
        "[\"alive\"]\nfail",
        "[\"alive\", \"alive\"]\nfail",
        "\"alive\"]\nfail",
        "names monitor \"alive\" twice",
        "remove",
    ),
    ("a VLAN twice", "[100]", "[100, 100]", "100]", "VLAN 100 is listed twice", "remove"),
    ("a loopback VIP", "\"192.0.2.53\"", "\"127.0.0.1\"", "\"127.0.0.1\"", "VIP 127.0.0.1 is a loopback address", ""),
    ("a multicast node", "\"10.0.0.11\"", "\"224.0.0.1\"", "\"224.0.0.1\"", "is a multicast address", ""),
    (
        "the VIP as a node",
        "\"10.0.0.11\"",
        "\"192.0.2.10\"",
        "\"192.0.2.10\"\nweight",
        "has the address of a VIP",
        "node's own address",
    ),
    (
        "a node twice",
        "\"10.0.0.12:80\"",
        "\"10.0.0.11\"",
        "\"10.0.0.11\"\n\n[pool.sorry]",
        "nodes \"n1\" and \"n2\" have the same address",
        "weight",
    ),
    (
        "no nodes",
        "[pool.sorry.node.s1]\naddress = \"10.0.0.21\"\n",
        "",
        "sorry]",
        "pool \"sorry\" has no nodes",
        "[pool.sorry.node.NAME]",
    ),
    ("a port for ping", "delay = \"2s\"", "port = 80", "80\n\n[monitor.con", "a ping has no port", "type = \"tcp\""),
    (
        "a monitor without a port",
        "\"nat\"\nmonitors = [\"alive\"]",
        "\"nat\"\nmonitors = [\"connects\"]",
        "\"connects\"]",
        "monitor \"connects\" does not know which port of node \"a1\" to ask",
        "add port = … to [monitor.connects]",
    ),
    (
        "pins elsewhere",
        "[pool.sorry]\n",
        "[dataplane]\npin_dir = \"/run/lb\"\n[pool.sorry]\n",
        "\"/run/lb\"",
        "pin_dir is not a directory below /sys/fs/bpf",
        "/sys/fs/bpf/lb",
    ),
    (
        "source NAT with dsr",
        "scheduler = \"maglev\"",
        "source_nat = true",
        "true\nmonitors",
        "source_nat cannot be had with dsr",
        "only MAC addresses",
    ),
    (
        "a source address with dsr",
        "scheduler = \"maglev\"",
        "source_address = \"10.0.0.1\"",
        "\"10.0.0.1\"\nmonitors",
        "source_address cannot be had with dsr",
        "",
    ),
    (
        "a source address for nothing",
        "source_nat = true\n",
        "",
        "\"10.0.0.1\"",
        "source_address has no effect without source_nat = true",
        "add source_nat",
    ),
    (
        "no interface",
        "[interface.eth0]\nvlans = [100]\n",
        "",
        "api]",
        "there is no interface to serve virtual servers on",
        "[interface.eth0]",
    ),
];

#[test]
fn port_mappings_that_cannot_be() {
    check_all(PORT_MAPPINGS_THAT_CANNOT_BE);
}

const PORT_MAPPINGS_THAT_CANNOT_BE: &[Case] = &[
    (
        "dsr with another port",
        "\"10.0.0.12:80\"",
        "\"10.0.0.12:8080\"",
        "\"10.0.0.12:8080\"",
        "pool \"web\" forwards by dsr: node \"n2\" has port 8080, but virtual server \"web\" listens on port 80; \
             with dsr only MAC addresses change, so that nodes see the VIP and its port",
        "let the node listen on port 80",
    ),
    (
        "dsr with a port for all",
        "ports = 80",
        "ports = [80, 81]",
        "\"10.0.0.12:80\"",
        "listens on several ports",
        "remove the port",
    ),
    (
        "nat with a port for several",
        "\"10.0.0.31\"",
        "\"10.0.0.31:8443\"",
        "\"10.0.0.31:8443\"",
        "node \"a1\" of pool \"api\" has port 8443, but virtual server \"api\" listens on several ports",
        "a virtual server for each port",
    ),
    (
        "the same port twice",
        "ports = [443, \"8000-8100\"]",
        "ports = [443, 80]",
        "80\npool = \"web\"",
        "virtual servers \"api\" and \"web\" both listen on 192.0.2.10 tcp port 80",
        "change the ports",
    ),
    (
        "twice in one",
        "\"8000-8100\"]",
        "\"8000-8100\", 8050]",
        "8050]",
        "virtual server \"api\" lists port 8050 twice",
        "remove",
    ),
];

#[test]
fn ranges_that_overlap_in_part() {
    let text =
        BASE.replace("ports = 80\n", "ports = [80, \"8050-8200\"]\n").replace("\"10.0.0.12:80\"", "\"10.0.0.12\"");
    let error = only_error("overlap", &text);
    assert_eq!(error.message, "virtual servers \"api\" and \"web\" both listen on 192.0.2.10 tcp port 8050-8100");
    assert!(error.help.unwrap().contains("one must lie within the other"));
    // Apart, or one within the other, is fine.
    for fine in ["\"8101-8200\"", "\"8001-8099\"", "\"8000-8099\"", "\"7000-9000\"", "8000"] {
        parse(&text.replace("\"8050-8200\"", fine));
    }
}

#[test]
fn a_vip_has_at_most_32_ranges() {
    let ranges = |count: u16| {
        let list: Vec<_> = (0..count).map(|i| format!("\"{}-{}\"", 10_000 + 10 * i, 10_005 + 10 * i)).collect();
        BASE.replace("[443, \"8000-8100\"]", &format!("[443, 444, 445, {}]", list.join(", ")))
    };
    parse(&ranges(32));
    assert_eq!(only_error("ranges", &ranges(33)).message, "VIP 192.0.2.10 has more than 32 ranges of tcp ports");
}

#[test]
fn a_pool_has_at_most_256_nodes() {
    let nodes = |count: u16| {
        let more =
            (1..count).map(|i| format!("[pool.api.node.b{i}]\naddress = \"10.9.{}.{}\"\n", i / 200, 1 + i % 200));
        BASE.replace("[pool.dns]\n", &format!("{}[pool.dns]\n", more.collect::<String>()))
    };
    parse(&nodes(256));
    assert_eq!(only_error("nodes", &nodes(257)).message, "pool \"api\" has 257 nodes; 256 are the most");
}

#[test]
fn each_address_family_of_the_vips_needs_a_node() {
    let text = BASE.replace("[\"192.0.2.53\"]", "[\"192.0.2.53\", \"2001:db8::53\"]");
    let error = only_error("no IPv6 node", &text);
    assert_eq!(error.message, "virtual server \"dns\" has IPv6 VIPs, but pool \"dns\" no IPv6 node");
    assert!(error.help.unwrap().contains("not translated between families"));
    parse(&text.replace("[monitor.alive]", "[pool.dns.node.d2]\naddress = \"[2001:db8:1::53]:5353\"\n[monitor.alive]"));

    let text = BASE.replace("[monitor.alive]", "[pool.dns.node.d2]\naddress = \"2001:db8:1::53\"\n[monitor.alive]");
    let error = only_error("IPv6 node for nothing", &text);
    assert_eq!(error.message, "node \"d2\" of pool \"dns\" is IPv6, but the pool serves no IPv6 VIP");
}

#[test]
fn vip_groups_move_only_where_everything_for_it_is_said() {
    let with = |lines: &str| BASE.replace("raise = true\n", lines);
    let router = |lines: &str| with(&format!("mode = \"failover\"\nrouter = {{ id = 42, {lines} }}\n"));
    let cases = [
        (with("mode = \"failover\"\n"), "[vip.dns] moves between machines, and there is no cluster"),
        (with("raise = true\nmode = \"static\"\n"), "[vip.dns] says both raise and mode"),
        (with("raise = true\npriority = 200\n"), "priority has no effect without mode = \"failover\" (in [vip.dns])"),
        (router("protocol = \"carp\""), "carp needs a passphrase (in [vip.dns.router])"),
        (router("protocol = \"vrrp2\", interval = \"500ms\""), "interval must be whole seconds (in [vip.dns.router])"),
        (router("protocol = \"vrrp\", unicast = true"), "unicast needs peers (in [vip.dns.router])"),
    ];
    for (text, message) in cases {
        assert_eq!(only_error(message, &text).message, message);
    }
    parse(&router("protocol = \"vrrp\", interval = \"100ms\", peers = [\"10.0.0.3\"], unicast = true"));
    let second = "[vip.second]\naddresses = [\"192.0.2.99\"]\ninterface = \"eth0\"\nmode = \"failover\"\nrouter = { id = 42, protocol = \"vrrp\" }\n";
    let own = "protocol = \"vrrp\", virtual_mac = true";
    let message = "[vip.dns] and [vip.second] have id 42 on eth0, and so the same virtual MAC address";
    let error = only_error(message, &(router(own) + second));
    assert!(error.message.contains("have id 42 on eth0, and so the same virtual MAC address"), "{}", error.message);
    for fine in [
        second.replace("id = 42", "id = 43"),
        second.replace("eth0", "eth1"),
        second.replace("192.0.2.99", "2001:db8::99"),
    ] {
        parse(&(router(own) + &fine));
    }
    parse(&(router("protocol = \"vrrp\"") + second));
    let cluster = "[cluster]\nmachine = \"lb1\"\nkey_file = \"/k\"\nlisten = [\"10.0.0.2\"]\npeer.lb2.addresses = [\"10.0.0.3:4000\"]\n";
    let config = parse(&(with("mode = \"failover\"\n") + cluster));
    let machines = config.cluster.unwrap();
    assert_eq!(machines.listen, ["10.0.0.2:3780".parse().unwrap()]);
    assert_eq!(machines.peers["lb2"], ["10.0.0.3:4000".parse().unwrap()]);
    let own = cluster.replace("peer.lb2", "peer.lb1");
    let error = only_error("a peer with this machine's name", &(with("mode = \"failover\"\n") + &own));
    assert_eq!(error.message, "[cluster.peer.lb1] has the name of this machine, \"lb1\"");
}

#[test]
fn monitors_of_the_machine_ask_somebody() {
    let cluster = "[cluster]\nmachine = \"lb1\"\nkey_file = \"/k\"\nlisten = [\"10.0.0.2\"]\nmonitors = [\"own\"]\n";
    let with = |lines: &str| format!("{BASE}{cluster}[monitor.own]\n{lines}");
    let cases = [
        (with("type = \"tcp\"\nport = 53\n"), "monitor \"own\" of [cluster] has no address: whom would it ask?"),
        (with("type = \"tcp\"\naddress = \"10.0.0.9\"\n"), "monitor \"own\" of [cluster] has no port"),
        (
            format!("{BASE}{}", cluster.replace("\"own\"", "\"onw\"")),
            "[cluster] names monitor \"onw\", which does not exist",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(only_error(message, &text).message, message);
    }
    for lines in
        ["type = \"program\"\nprogram = \"own\"\n", "type = \"dns\"\naddress = \"10.0.0.9\"\nquery = \"a.test\"\n"]
    {
        assert_eq!(parse(&with(lines)).cluster.unwrap().monitors, ["own"]);
    }
}

#[test]
fn what_is_announced_is_said_completely() {
    let with = |lines: &str| BASE.replace("raise = true\n", lines);
    let bgp = |lines: &str| {
        with("mode = \"everywhere\"\n").replace("interface = \"eth0\"\n", "") + "[bgp]\nas = 65001\n" + lines
    };
    let neighbor = |lines: &str| bgp(&format!("[bgp.neighbor.r1]\naddress = \"10.0.0.1\"\nas = 65000\n{lines}\n"));
    let cases = [
        (
            with("raise = true\nannounce_when = \"all\"\n"),
            "announce_when has no effect without mode = \"everywhere\" (in [vip.dns])",
        ),
        (BASE.to_owned() + "[bgp]\nas = 65001\n", "[bgp] has no effect without a VIP group with mode = \"everywhere\""),
        (bgp("hold_time = \"2s\"\n"), "hold_time is not whole seconds within 3s to 65535s (in [bgp])"),
        (bgp("hold_time = \"3500ms\"\n"), "hold_time is not whole seconds within 3s to 65535s (in [bgp])"),
        (
            neighbor("source_address = \"fd00::1\""),
            "source_address fd00::1 is of another family than the neighbour (in [bgp.neighbor.r1])",
        ),
        (
            neighbor("").replace("\"10.0.0.1\"\nas", "\"fd00::1\"\nas"),
            "an IPv6 session needs router_id in [bgp] (in [bgp.neighbor.r1])",
        ),
        (neighbor("source_address = \"0.0.0.0\""), "0.0.0.0 is no address of a BGP speaker (in [bgp.neighbor.r1])"),
    ];
    for (text, message) in cases {
        assert_eq!(only_error(message, &text).message, message);
    }
    let config = parse(&neighbor("next_hop6 = \"fd00::2\""));
    let group = &config.vips["dns"];
    let on = group.interfaces.values().next().map(String::as_str);
    assert_eq!((group.mode, on), (crate::config::cluster::VipMode::Everywhere, Some("lo")));
    let r1 = &config.bgp.unwrap().neighbors["r1"];
    assert_eq!((r1.port, r1.asn, r1.next_hop6), (179, 65_000, Some("fd00::2".parse().unwrap())));
}

#[test]
fn vips_of_a_network_are_raised_on_its_interface() {
    let text = BASE.replace("interface = \"eth0\"\nraise = true", "raise = true");
    let networks = "[network.\"192.0.2.0/24\"]\ninterface = \"eth7\"\n[network.\"192.0.2.53\"]\ninterface = \"eth8\"\n";
    let config = parse(&(text.clone() + networks));
    let of = |group: &str| config.vips[group].interfaces.values().next().unwrap().as_str();
    assert_eq!((of("dns"), of("web")), ("eth8", "eth7"), "the smallest network");
    let error = only_error("no network", &(text + "[network.lan]\ninterface = \"eth7\"\n"));
    assert!(error.message.contains("is no IP network"), "{}", error.message);
}

#[test]
fn a_vip_is_listed_once() {
    let text = BASE.replace("[\"192.0.2.10\"]", "[\"192.0.2.10\", \"192.0.2.10\"]");
    let error = only_error("one VIP in two places", &text);
    assert_eq!(error.message, "VIP 192.0.2.10 is listed twice (in [vip.web])");
    assert_eq!(error.related[0].1, "listed here first");
}

#[test]
fn a_vip_is_raised_on_a_known_interface() {
    let text =
        BASE.replace("interface = \"eth0\"\n", "").replace("[interface.eth0]", "[interface.eth1]\n[interface.eth0]");
    let error = only_error("raised where", &text);
    assert_eq!(error.message, "[vip.dns] does not say on which interface 192.0.2.53 is raised");
    assert!(error.help.unwrap().contains("add interface ="));
}

#[test]
fn the_version_is_said_and_known() {
    let error = only_error("no version", &BASE.replace("version = 1\n", ""));
    assert_eq!(error.message, "the configuration has no version");
    assert_eq!(error.place.map(|p| (p.line, p.column)), Some((1, 1)));
    assert_eq!(error.help.as_deref(), Some("begin the file with: version = 1"));
    for other in ["2", "\"1\"", "0"] {
        let error = only_error("another version", &BASE.replace("version = 1", &format!("version = {other}")));
        assert_eq!(error.message, "this lbd reads version 1 of the configuration format");
        assert_eq!(error.place.map(|p| (p.line, p.column)), Some((1, 1)));
    }
}

#[test]
fn what_is_not_toml_is_placed() {
    let error = only_error("syntax", &BASE.replace("weight = 2", "weight = = 2"));
    assert!(error.message.starts_with("not valid TOML: "), "{}", error.message);
    assert_eq!(error.place.map(|p| p.line), Some(40));
    let error = only_error("twice", &BASE.replace("weight = 2", "weight = 2\nweight = 3"));
    assert_eq!((error.message.as_str(), error.place.unwrap().line), ("not valid TOML: duplicate key", 41));
}

#[test]
fn three_mistakes_at_once_are_reported_so() {
    let text = BASE
        .replace("vips = [\"dns\"]", "vips = [\"dsn\"]")
        .replace("weight = 2", "wieght = 2")
        .replace("\"10.0.0.12:80\"", "\"10.0.0.12:8080\"");
    let errors = Config::parse("/etc/lb/lb.toml", &text).unwrap_err();
    let expected = r#"error: virtual server "dns" names VIP group "dsn", which does not exist
  --> /etc/lb/lb.toml:27:9
   |
27 | vips = ["dsn"]
   |         ^^^^^ no such VIP group
   = help: did you mean "dns"?

error: unknown key "wieght" in [pool.web.node.n1]
  --> /etc/lb/lb.toml:40:1
   |
40 | wieght = 2
   | ^^^^^^ not known here
   = help: did you mean "weight"?

error: pool "web" forwards by dsr: node "n2" has port 8080, but virtual server "web" listens on port 80; with dsr only MAC addresses change, so that nodes see the VIP and its port
  --> /etc/lb/lb.toml:43:11
   |
43 | address = "10.0.0.12:8080"
   |           ^^^^^^^^^^^^^^^^ port mapping
  ::: /etc/lb/lb.toml:17:9
   |
17 | ports = 80
   |         -- the ports that clients use
   = help: let the node listen on port 80 and remove the port here, or use forwarding = "nat"

3 errors in the configuration"#;
    assert_eq!(errors.to_string(), expected);
    let coloured = errors.report(true);
    assert!(coloured.contains("\x1b[1;31merror\x1b[0m"), "{coloured}");

    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json["errors"][1]["place"]["line"], 40);
    assert_eq!(json["errors"][1]["help"], "did you mean \"weight\"?");
}

pub(super) fn check_all(cases: &[Case]) {
    check_all_of(BASE, cases);
}

pub(super) fn check_all_of(base: &str, cases: &[Case]) {
    let failures: Vec<String> = cases.iter().filter_map(|case| check(base, case).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(base: &str, (name, old, new, at, message, help): &Case) -> Result<(), String> {
    assert_eq!(base.matches(old).count(), 1, "{name}: what is replaced must be there once");
    let text = base.replace(old, new);
    let offset = text.find(at).unwrap_or_else(|| panic!("{name}: no {at:?}"));
    let before: Vec<&str> = text[..offset].split('\n').collect();
    let expected = (before.len(), before[before.len() - 1].len() + 1);

    let Err(errors) = Config::parse("lb.toml", &text) else { return Err(format!("{name}: accepted")) };
    let [error] = &errors.errors[..] else { return Err(format!("{name}: {errors}")) };
    let place = error.place.as_ref().map(|place| (place.line, place.column));
    let good = error.message.contains(message) && error.help.as_deref().unwrap_or_default().contains(help);
    if good && place == Some(expected) { Ok(()) } else { Err(format!("{name}: expected at {expected:?}: {errors}")) }
}

fn only_error(name: &str, text: &str) -> ConfigError {
    let Err(errors) = Config::parse("lb.toml", text) else { panic!("{name}: accepted") };
    let [error] = &errors.errors[..] else { panic!("{name}: {errors}") };
    error.clone()
}
