//! What HAProxy and nginx have in common: listeners that become L7 virtual servers, servers that become nodes of pools.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::model::Model;

/// A listener in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Front {
    pub(super) name: String,
    /// Addresses (`None`: all) and ports, and whether TLS is spoken there.
    pub(super) binds: Vec<(Option<IpAddr>, u16, bool)>,
    /// Names of its certificates.
    pub(super) certificates: Vec<String>,
    /// Whether HTTP is spoken.
    pub(super) is_http: bool,
    pub(super) pool: Option<String>,
    pub(super) rules: Vec<Value>,
    /// Pools by server name, where TLS is passed on.
    pub(super) server_names: Map<String, Value>,
    /// Further keys.
    pub(super) settings: Map<String, Value>,
}

impl Front {
    /// Writes it: one virtual server for what is plain and one for what has TLS.
    pub(super) fn write(self, line: usize, model: &mut Model) {
        for is_tls in [false, true] {
            let binds: Vec<_> = self.binds.iter().filter(|(_, _, tls)| *tls == is_tls).collect();
            // With several addresses and ports, not each port is on each address.
            let mut by_addresses: Vec<(Vec<IpAddr>, Vec<u16>)> = Vec::new();
            for port in sorted(binds.iter().map(|(_, port, _)| *port)) {
                let on_port = binds.iter().filter(|(_, other, _)| *other == port);
                let addresses = sorted(on_port.map(|(address, _, _)| address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())));
                match by_addresses.iter_mut().find(|(known, _)| *known == addresses) {
                    Some((_, ports)) => ports.push(port),
                    None => by_addresses.push((addresses, vec![port])),
                }
            }
            for (addresses, ports) in by_addresses {
                self.write_one(line, &addresses, &ports, is_tls, model);
            }
        }
    }

    fn write_one(&self, line: usize, addresses: &[IpAddr], ports: &[u16], is_tls: bool, model: &mut Model) {
        let protocol = match (self.is_http, is_tls) {
            _ if !self.server_names.is_empty() => "tls_passthrough",
            (true, true) => "https",
            (true, false) => "http",
            (false, true) => "tls",
            (false, false) => "tcp_proxy",
        };
        let mut server = self.settings.clone();
        server.insert("protocol".to_owned(), json!(protocol));
        server.insert("listen".to_owned(), json!(addresses));
        server.insert("ports".to_owned(), if let [port] = ports { json!(port) } else { json!(ports) });
        if !self.is_http {
            for key in ["http", "identity", "access_log"] {
                server.remove(key);
            }
            if let Some(Value::Object(timeouts)) = server.get_mut("timeouts") {
                timeouts.retain(|key, _| key == "idle");
            }
        }
        if is_tls {
            if self.certificates.is_empty() {
                model.note(line, format!("{}: TLS without a certificate is not translated", self.name));
                return;
            }
            server.insert("tls".to_owned(), json!({ "certificates": self.certificates }));
        }
        if let Some(pool) = &self.pool {
            server.insert("pool".to_owned(), json!(pool));
        }
        if !self.server_names.is_empty() {
            server.insert("server_names".to_owned(), Value::Object(self.server_names.clone()));
        }
        let rules: Vec<&Value> = self.rules.iter().filter(|_| self.is_http).collect();
        if !rules.is_empty() {
            server.insert("rule".to_owned(), json!(rules));
        }
        if self.pool.is_none() && rules.is_empty() && self.server_names.is_empty() {
            model.note(line, format!("{}: nothing that was translated serves there; it is left out", self.name));
            return;
        }
        let has_both = self.binds.iter().any(|(_, _, tls)| *tls != is_tls);
        let name = if has_both && is_tls { format!("{}-tls", self.name) } else { self.name.clone() };
        model.add("virtual_server", &name, Value::Object(server));
    }
}

/// All addresses of a family.
pub(super) fn all(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// A certificate by the files of its chain and key.
pub(super) fn certificate(chain: &str, key: &str, line: usize, model: &mut Model) -> Option<String> {
    if !chain.starts_with('/') || !key.starts_with('/') {
        model.note(line, format!("{chain}: only absolute paths of certificates are translated"));
        return None;
    }
    let name = chain.rsplit('/').next().unwrap_or("site").split('.').next().unwrap_or("site");
    // Let's Encrypt has the name in the directory.
    let directory = chain.rsplit('/').nth(1).unwrap_or_default();
    let name = if matches!(name, "fullchain" | "cert" | "tls" | "chain") { directory } else { name };
    Some(model.add_once("certificate", name, json!({ "chain": chain, "key": key })))
}

/// A condition of which all, or one, must hold.
pub(super) fn joined(key: &str, mut conditions: Vec<Value>) -> Value {
    match conditions.len() {
        1 => conditions.remove(0),
        _ => json!({ key: conditions }),
    }
}

/// A rule.
pub(super) fn rule(name: &str, when: Option<Value>, then: Vec<Value>) -> Value {
    let mut rule = json!({ "name": name, "then": then });
    if let Some(when) = when {
        rule["when"] = when;
    }
    rule
}

/// Backups serve when no other node does: priorities, where there are any.
pub(super) fn prioritise(nodes: &mut Map<String, Value>, backups: &[String]) {
    if backups.is_empty() || backups.len() == nodes.len() {
        return;
    }
    for (name, node) in nodes.iter_mut() {
        if !backups.contains(name) {
            node["priority"] = json!(1);
        }
    }
}
