//! `keepalived.conf`: virtual servers become L4 virtual servers, VRRP instances become VIP groups that are shared by VRRP.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::{
    blocks::{self, End, Statement},
    ipvs::{node, persistent, scheduler},
    model::{Model, period},
};

pub(super) fn read(text: &str, model: &mut Model) {
    let statements = blocks::read(text, End::Line, &['#', '!']);
    for statement in &statements {
        match statement.name() {
            "vrrp_instance" => instance(statement, model),
            "virtual_server" | "virtual_server_group" | "global_defs" => {}
            "include" => model.note(statement.line, format!("{}: give that file, too", statement.text())),
            _ => model.note(statement.line, format!("{}: not translated", statement.text())),
        }
    }
    for statement in statements.iter().filter(|statement| statement.name() == "virtual_server") {
        virtual_server(statement, &statements, model);
    }
}

/// Seconds, maybe broken, as keepalived writes them.
fn seconds(text: &str) -> Option<String> {
    let seconds: f64 = text.parse().ok()?;
    (seconds.is_finite() && seconds > 0.0).then(|| period((seconds * 1000.0) as u64))
}

fn instance(statement: &Statement, model: &mut Model) {
    let mut group = Map::new();
    let mut router = json!({ "protocol": "vrrp2" });
    let mut addresses = Vec::new();
    for inner in &statement.block {
        let value = inner.word(1);
        match inner.name() {
            "interface" => {
                group.insert("interface".to_owned(), json!(value));
                model.add_once_named("interface", value, json!({}));
            }
            "virtual_router_id" => router["id"] = json!(value.parse::<u8>().unwrap_or(1)),
            "version" if value == "3" => router["protocol"] = json!("vrrp"),
            "version" => {}
            "priority" => {
                let priority = value.parse::<u8>().unwrap_or(100).clamp(1, 254);
                group.insert("priority".to_owned(), json!(priority));
            }
            "advert_int" => {
                if let Some(interval) = seconds(value) {
                    router["interval"] = json!(interval);
                }
            }
            "nopreempt" => drop(group.insert("failback".to_owned(), json!(false))),
            "preempt_delay" => {
                if let Some(delay) = seconds(value) {
                    group.insert("failback_delay".to_owned(), json!(delay));
                }
            }
            "virtual_ipaddress" => {
                for address in &inner.block {
                    match address.name().split('/').next().unwrap_or_default().parse::<IpAddr>() {
                        Ok(ip) => addresses.push(ip),
                        Err(_) => model.note(address.line, format!("{}: no address", address.text())),
                    }
                }
            }
            "unicast_peer" => {
                let peers: Vec<&str> = inner.block.iter().map(Statement::name).collect();
                router["peers"] = json!(peers);
                router["unicast"] = json!(true);
            }
            "use_vmac" => router["virtual_mac"] = json!(true),
            "state" => {}
            _ => model.note(inner.line, format!("{}: not translated", inner.text())),
        }
    }
    if addresses.is_empty() {
        return model.note(statement.line, format!("{}: it has no addresses", statement.text()));
    }
    if router["protocol"] == "vrrp2" && addresses.iter().any(IpAddr::is_ipv6) {
        router["protocol"] = json!("vrrp");
    }
    if router.get("id").is_none() {
        router["id"] = json!(51);
        model.note(statement.line, format!("{}: it has no virtual_router_id: 51 is a guess", statement.text()));
    }
    group.insert("addresses".to_owned(), json!(addresses));
    group.insert("mode".to_owned(), json!("failover"));
    group.insert("router".to_owned(), router);
    model.add("vip", statement.word(1), Value::Object(group));
}

/// What a virtual server listens on.
fn targets(statement: &Statement, all: &[Statement], model: &mut Model) -> Vec<(IpAddr, u16)> {
    let target = |words: &[String]| {
        let address = words.first()?.split('-').next()?.parse().ok()?;
        Some((address, words.get(1).map_or(Some(0), |port| port.parse().ok())?))
    };
    match statement.word(1) {
        "group" => {
            let is_meant =
                |other: &&Statement| other.name() == "virtual_server_group" && other.word(1) == statement.word(2);
            let Some(group) = all.iter().find(is_meant) else {
                model.note(statement.line, format!("{}: there is no such group", statement.text()));
                return Vec::new();
            };
            let mut found = Vec::new();
            for line in &group.block {
                match target(&line.words) {
                    Some(target) if !line.name().contains('-') => found.push(target),
                    _ => model
                        .note(line.line, format!("{}: only single addresses with a port are translated", line.text())),
                }
            }
            found
        }
        "fwmark" => {
            model.note(statement.line, format!("{}: firewall marks are not translated", statement.text()));
            Vec::new()
        }
        _ => match target(&statement.words[1..]) {
            Some(target) => vec![target],
            None => {
                model.note(statement.line, format!("{}: the address is not understood", statement.text()));
                Vec::new()
            }
        },
    }
}

fn virtual_server(statement: &Statement, all: &[Statement], model: &mut Model) {
    let targets = targets(statement, all, model);
    let Some((first, first_port)) = targets.first().copied() else { return };
    model.needs_interface();
    let mut protocol = "tcp";
    let mut kind = "NAT";
    let mut pool = Map::new();
    let mut delay = None;
    let mut source_nat = false;
    for inner in &statement.block {
        let value = inner.word(1);
        match inner.name() {
            "protocol" if value.eq_ignore_ascii_case("udp") => protocol = "udp",
            "protocol" if value.eq_ignore_ascii_case("tcp") => {}
            "lb_kind" | "lvs_method" => {
                kind = value;
                source_nat = value.eq_ignore_ascii_case("fullnat");
                if value.eq_ignore_ascii_case("tun") {
                    model.note(inner.line, "tunnels are not forwarded by; dsr is written".to_owned());
                }
            }
            "lb_algo" | "lvs_sched" => {
                let scheduler = scheduler(value, inner.line, model);
                pool.insert("scheduler".to_owned(), json!(scheduler));
            }
            "persistence_timeout" => {
                let persistence = json!({ "type": "source_address", "timeout": persistent(value) });
                pool.insert("persistence".to_owned(), persistence);
            }
            "delay_loop" => delay = seconds(value),
            "real_server" | "sorry_server" => {}
            "ha_suspend"
            | "alpha"
            | "omega"
            | "quorum"
            | "hysteresis"
            | "quorum_up"
            | "quorum_down"
            | "virtualhost"
            | "persistence_granularity"
            | "ops" => {
                model.note(inner.line, format!("{}: not translated", inner.text()));
            }
            _ => model.note(inner.line, format!("{}: not understood", inner.text())),
        }
    }
    let forwarding = if matches!(kind.to_ascii_lowercase().as_str(), "dr" | "tun") { "dsr" } else { "nat" };
    pool.insert("forwarding".to_owned(), json!(forwarding));
    if source_nat {
        pool.insert("source_nat".to_owned(), json!(true));
    }
    let name = match statement.word(1) {
        "group" => statement.word(2).to_owned(),
        _ => format!("{first}-{first_port}-{protocol}").replace(':', "_"),
    };
    let nodes = real_servers(statement, forwarding, model);
    let monitors = monitors(statement, delay.as_deref(), model);
    pool.insert("node".to_owned(), nodes);
    if !monitors.is_empty() {
        pool.insert("monitors".to_owned(), json!(monitors));
    }
    if let Some(sorry) = statement.find("sorry_server") {
        let address = address(sorry, forwarding);
        let nodes = json!({ "n1": node(address, 1) });
        let spare = model.add("pool", &format!("{name}-sorry"), json!({ "forwarding": forwarding, "node": nodes }));
        pool.insert("failure_pool".to_owned(), json!(spare));
    }
    let pool = model.add("pool", &name, Value::Object(pool));
    // Addresses with the same ports can be one virtual server.
    let mut by_port: Vec<(u16, Vec<String>)> = Vec::new();
    for (address, port) in targets {
        let vip = model.vip_of(address);
        match by_port.iter_mut().find(|(known, _)| *known == port) {
            Some((_, vips)) if vips.contains(&vip) => {}
            Some((_, vips)) => vips.push(vip),
            None => by_port.push((port, vec![vip])),
        }
    }
    for (port, vips) in by_port {
        let ports = if port == 0 { json!("all") } else { json!(port) };
        model.add("virtual_server", &name, json!({ "vips": vips, "protocol": protocol, "ports": ports, "pool": pool }));
    }
}

fn address(server: &Statement, forwarding: &str) -> String {
    let (address, port) = (server.word(1), server.word(2).parse::<u16>().unwrap_or(0));
    match address.parse::<IpAddr>() {
        // DSR never changes the port.
        Ok(ip) if forwarding == "nat" && port != 0 => SocketAddr::new(ip, port).to_string(),
        _ => address.to_owned(),
    }
}

fn real_servers(statement: &Statement, forwarding: &str, model: &mut Model) -> Value {
    let mut nodes = Map::new();
    for server in statement.block.iter().filter(|inner| inner.name() == "real_server") {
        if server.word(1).parse::<IpAddr>().is_err() {
            model.note(server.line, format!("{}: no address", server.text()));
            continue;
        }
        let weight = server.find("weight").and_then(|weight| weight.word(1).parse().ok()).unwrap_or(1);
        nodes.insert(format!("n{}", nodes.len() + 1), node(address(server, forwarding), weight));
        for inner in &server.block {
            if matches!(inner.name(), "uthreshold" | "lthreshold" | "inhibit_on_failure" | "notify_up" | "notify_down")
            {
                model.note(inner.line, format!("{}: not translated", inner.text()));
            }
        }
    }
    Value::Object(nodes)
}

/// The checks of the first real server: with us, a pool has monitors and not each node.
fn monitors(statement: &Statement, delay: Option<&str>, model: &mut Model) -> Vec<String> {
    let servers: Vec<&Statement> = statement.block.iter().filter(|inner| inner.name() == "real_server").collect();
    let Some((first, others)) = servers.split_first() else { return Vec::new() };
    let checks = |server: &Statement| -> Vec<(usize, Value)> {
        server.block.iter().filter_map(|check| Some((check.line, monitor(check, delay)?))).collect()
    };
    let of_first = checks(first);
    let plain = |checks: &[(usize, Value)]| checks.iter().map(|(_, check)| check.clone()).collect::<Vec<_>>();
    for other in others {
        if plain(&checks(other)) != plain(&of_first) {
            model.note(
                other.line,
                format!("{}: its checks are others than the first one's, which are taken", other.text()),
            );
        }
    }
    let mut names = Vec::new();
    for (line, check) in of_first {
        if check["type"] == "unknown" {
            model.note(line, format!("{}: not translated", check["name"].as_str().unwrap_or_default()));
            continue;
        }
        let name = check["type"].as_str().unwrap_or("check").to_owned();
        names.push(model.add_once("monitor", &name, check));
    }
    names
}

/// A check as a monitor; `None`: the statement is none.
fn monitor(check: &Statement, delay: Option<&str>) -> Option<Value> {
    let mut monitor = match check.name() {
        "TCP_CHECK" => json!({ "type": "tcp" }),
        "HTTP_GET" => json!({ "type": "http" }),
        "SSL_GET" => json!({ "type": "http", "tls": { "verify": false } }),
        "SMTP_CHECK" => json!({ "type": "smtp" }),
        "PING_CHECK" => json!({ "type": "ping" }),
        name if name.ends_with("_CHECK") => return Some(json!({ "type": "unknown", "name": check.text() })),
        _ => return None,
    };
    if let Some(delay) = check.find("delay_loop").and_then(|delay| seconds(delay.word(1))).as_deref().or(delay) {
        monitor["delay"] = json!(delay);
    }
    if let Some(timeout) = check.find("connect_timeout").and_then(|timeout| seconds(timeout.word(1))) {
        monitor["timeout"] = json!(timeout);
    }
    let retries = ["retry", "nb_get_retry"].iter().find_map(|name| check.find(name)?.word(1).parse::<u32>().ok());
    if let Some(retries) = retries {
        monitor["failures"] = json!((retries + 1).clamp(1, 100));
    }
    if let Some(port) = check.find("connect_port").and_then(|port| port.word(1).parse::<u16>().ok()) {
        monitor["port"] = json!(port);
    }
    if let Some(url) = check.find("url") {
        if let Some(path) = url.find("path") {
            monitor["path"] = json!(path.word(1));
        }
        if let Some(status) = url.find("status_code").and_then(|status| status.word(1).parse::<u16>().ok()) {
            monitor["statuses"] = json!([status.to_string()]);
        }
    }
    if let Some(host) = check.find("virtualhost") {
        monitor["host"] = json!(host.word(1));
    }
    Some(monitor)
}
