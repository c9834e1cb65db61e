//! Monitors: keys that their type does not have, keys that it needs, and what they name.

use std::net::IpAddr;

use super::Checker;
use crate::config::{
    at::At,
    document::{ForwardingWord, Monitor, MonitorWord, Pool, Step},
    error::Problem,
    monitor::Via,
    rules::common_port,
    source::Span,
    text,
};

use MonitorWord::{Dns, Ftp, Http, Imap, Ping, Pop3, Program, Smtp, Tcp, Transaction, Udp};

/// Types that have a port.
const WITH_PORT: &[MonitorWord] = &[Tcp, Http, Smtp, Pop3, Imap, Ftp, Dns, Udp, Transaction, Program];
/// Types that may have TLS.
const WITH_TLS: &[MonitorWord] = &[Http, Smtp, Pop3, Imap, Ftp, Transaction];

/// A key that not all types have: where it is written, and the types.
type Key<'m> = (&'static str, Option<&'m Span>, &'static [MonitorWord]);

impl Checker<'_> {
    pub(super) fn monitors(&mut self) {
        let document = self.document;
        for (name, monitor) in &document.monitor {
            let Some(word) = monitor.r#type.as_ref().map(|word| word.value) else { continue };
            let section = format!("[monitor.{}]", name.value);
            self.keys_of_type(&section, word, monitor);
            self.keys_needed(&section, name, word, monitor);
            self.values(&section, monitor);
            self.where_it_asks(&section, monitor);
        }
        for (name, pool) in &document.pool {
            self.monitored_ports(&name.value, pool);
            self.monitored_vips(&name.value, pool);
        }
    }

    fn keys_of_type(&mut self, section: &str, word: MonitorWord, monitor: &Monitor) {
        for (key, span, types) in keys(monitor) {
            let Some(span) = span.filter(|_| !types.contains(&word)) else { continue };
            let known: Vec<&str> = types.iter().map(|word| word_of(*word)).collect();
            let message = format!("{} has no {key} (in {section})", article(word));
            let help = format!("remove it, or use type = \"{}\"", known.join("\", \""));
            self.report(Problem::new(span, message, format!("not with {}", word_of(word))).help(help));
        }
    }

    fn keys_needed(&mut self, section: &str, name: &At<String>, word: MonitorWord, monitor: &Monitor) {
        let missing = match word {
            Dns if monitor.query.is_none() => ("query", "\"example.com\": the name that is asked for"),
            Udp if monitor.send.is_none() => ("send", "'\\x00': the datagram's payload"),
            Transaction if monitor.steps.is_none() => ("steps", "[{ send = \"PING\\r\\n\" }, { expect = '^\\+PONG' }]"),
            Program if monitor.program.is_none() => ("program", "\"check_it\": a file in daemon.monitor_dir"),
            Tcp | Ping | Http | Smtp | Pop3 | Imap | Ftp | Dns | Udp | Transaction | Program => return,
        };
        if !self.pruned {
            let message = format!("{section} has no {:?}", missing.0);
            let help = format!("add {} = {}", missing.0, missing.1);
            self.report(Problem::new(&name.span, message, format!("{:?} is missing", missing.0)).help(help));
        }
    }

    fn values(&mut self, section: &str, monitor: &Monitor) {
        let refused = |at: Option<&At<String>>, wrong: fn(&str) -> Option<&'static str>| {
            at.and_then(|at| Some((at.span.clone(), at.value.clone(), wrong(&at.value)?)))
        };
        let mut found = vec![
            ("method", refused(monitor.method.as_ref(), |text| (!text::is_token(text)).then_some("is no method"))),
            ("host", refused(monitor.host.as_ref(), wrong_host)),
            ("path", refused(monitor.path.as_ref(), wrong_path)),
            ("query", refused(monitor.query.as_ref(), wrong_query)),
            ("program", refused(monitor.program.as_ref(), wrong_program)),
            ("server_name", refused(monitor.tls.as_ref().and_then(|tls| tls.server_name.as_ref()), wrong_server_name)),
        ];
        found.extend(monitor.headers.values().map(|value| ("headers", refused(Some(value), wrong_value))));
        found.extend(monitor.arguments.iter().flatten().map(|text| ("arguments", refused(Some(text), wrong_word))));
        found.extend(monitor.environment.values().map(|text| ("environment", refused(Some(text), wrong_word))));
        found.extend(monitor.environment.keys().map(|name| ("environment", refused(Some(name), wrong_variable))));
        let names = monitor.headers.keys().filter(|name| {
            ["host", "connection", "content-length", "transfer-encoding"]
                .contains(&name.value.to_ascii_lowercase().as_str())
        });
        found.extend(
            names.map(|name| ("headers", refused(Some(name), |_| Some("is set by lbd; host is a key of its own")))),
        );
        for (key, (span, value, wrong)) in found.into_iter().filter_map(|(key, found)| Some((key, found?))) {
            self.report(Problem::new(&span, format!("{key} {value:?} {wrong} (in {section})"), "not usable"));
        }
        for Step { send, expect } in monitor.steps.iter().flatten() {
            let (Some(send), Some(_)) = (send, expect) else { continue };
            let message = format!("a step sends or expects, not both (in {section})");
            let help = "write two steps: [{ send = … }, { expect = … }]";
            self.report(Problem::new(&send.span, message, "and expects, too").help(help));
        }
        let certificate = monitor.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        let there: Vec<&str> = self.document.certificate.keys().map(|name| name.value.as_str()).collect();
        self.exist(section, "certificate", "certificate", certificate.into_iter(), &there);
    }

    fn where_it_asks(&mut self, section: &str, monitor: &Monitor) {
        let vip = monitor.via.as_ref().filter(|via| via.value == Via::Vip);
        let Some(address) = &monitor.address else { return };
        self.usable("monitored address", &address.value, &address.span);
        if let std::net::IpAddr::V4(v4) = address.value
            && v4.is_link_local()
        {
            let message = format!("monitored address {v4} is a link-local address (in {section})");
            let help = "clouds answer there for whoever asks, with secrets";
            self.report(Problem::new(&address.span, message, "a link-local address").help(help));
        }
        if let Some(via) = vip {
            let message = format!("via = \"vip\" asks each node, and address one machine for all (in {section})");
            self.report(Problem::new(&via.span, message, "one of the two").related(&address.span, "asks this one"));
        }
    }

    /// A monitor must know a port for every node it checks.
    fn monitored_ports(&mut self, name: &str, pool: &Pool) {
        let users = self.users_of(name);
        let nodes = self.config.pools.get(name).map(|pool| &pool.nodes);
        for monitor in &pool.monitors {
            let Some(known) = self.config.monitors.get(&monitor.value).filter(|known| known.needs_port()) else {
                continue;
            };
            let proxied = self.config.proxy.pools.contains_key(name) && known.address.is_some();
            let lost = match nodes.filter(|_| !users.is_empty()) {
                Some(nodes) => nodes
                    .iter()
                    .find(|(_, node)| known.port(node.port, |protocol| common_port(&users, protocol)).is_none())
                    .map(|(node, _)| node.clone()),
                None if proxied && known.port(None, |_| None).is_none() => Some("any".to_owned()),
                None => None,
            };
            if let Some(node) = lost {
                let message = format!("monitor {:?} does not know which port of node {node:?} to ask", monitor.value);
                let help = format!(
                    "add port = … to [monitor.{}]; the virtual servers of pool {name:?} do not have one port in common",
                    monitor.value
                );
                self.report(Problem::new(&monitor.span, message, "which port?").help(help));
            }
        }
    }

    /// VIPs are asked for at nodes of DSR pools.
    fn monitored_vips(&mut self, name: &str, pool: &Pool) {
        let forwarding = pool.forwarding.as_ref().filter(|word| word.value != ForwardingWord::Dsr);
        let Some(forwarding) = forwarding else { return };
        for monitor in &pool.monitors {
            if self.config.monitors.get(&monitor.value).is_some_and(|known| known.via == Via::Vip) {
                let message =
                    format!("monitor {:?} asks for VIPs, which nodes of pool {name:?} do not own", monitor.value);
                let problem = Problem::new(&monitor.span, message, "needs forwarding = \"dsr\"");
                let help = "with other forwarding nodes are reached at their own addresses: use a monitor without via = \"vip\"";
                self.report(problem.related(&forwarding.span, "forwards otherwise").help(help));
            }
        }
    }
}

/// All keys that not all types have.
fn keys(monitor: &Monitor) -> Vec<Key<'_>> {
    fn of<T>(at: Option<&At<T>>) -> Option<&Span> {
        at.map(|at| &at.span)
    }
    let tls = monitor.tls.as_ref();
    // A table has no place of its own: that of the first key in it must do.
    let tls_span = tls.and_then(|tls| {
        let verify = Some(&tls.verify.span).filter(|span| !span.is_empty());
        verify.or(of(tls.ca.as_ref())).or(of(tls.server_name.as_ref())).or(of(tls.certificate.as_ref()))
    });
    let steps = monitor.steps.iter().flatten().find_map(|step| of(step.send.as_ref()).or(of(step.expect.as_ref())));
    vec![
        ("port", of(monitor.port.as_ref()), WITH_PORT),
        ("via", of(monitor.via.as_ref()), &[Tcp]),
        ("tls", tls_span, WITH_TLS),
        ("method", of(monitor.method.as_ref()), &[Http]),
        ("host", of(monitor.host.as_ref()), &[Http]),
        ("path", of(monitor.path.as_ref()), &[Http]),
        ("headers", monitor.headers.keys().next().map(|name| &name.span), &[Http]),
        ("statuses", monitor.statuses.iter().flatten().next().map(|status| &status.span), &[Http]),
        ("body", of(monitor.body.as_ref()), &[Http]),
        ("query", of(monitor.query.as_ref()), &[Dns]),
        ("record", of(monitor.record.as_ref()), &[Dns]),
        ("rcode", of(monitor.rcode.as_ref()), &[Dns]),
        ("answer", of(monitor.answer.as_ref()), &[Dns]),
        ("send", of(monitor.send.as_ref()), &[Udp]),
        ("expect", of(monitor.expect.as_ref()), &[Udp]),
        ("steps", steps, &[Transaction]),
        ("program", of(monitor.program.as_ref()), &[Program]),
        ("arguments", monitor.arguments.iter().flatten().next().map(|text| &text.span), &[Program]),
        ("environment", monitor.environment.keys().next().map(|name| &name.span), &[Program]),
    ]
}

fn word_of(word: MonitorWord) -> &'static str {
    match word {
        Tcp => "tcp",
        Ping => "ping",
        Http => "http",
        Smtp => "smtp",
        Pop3 => "pop3",
        Imap => "imap",
        Ftp => "ftp",
        Dns => "dns",
        Udp => "udp",
        Transaction => "transaction",
        Program => "program",
    }
}

fn article(word: MonitorWord) -> String {
    match word {
        Ping | Transaction | Program => format!("a {}", word_of(word)),
        Tcp | Http | Smtp | Pop3 | Imap | Ftp | Dns | Udp => format!("type {:?}", word_of(word)),
    }
}

fn wrong_host(host: &str) -> Option<&'static str> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "/@?#".contains(c) || !c.is_ascii();
    (host.is_empty() || host.contains(bad)).then_some("is no host")
}

/// A name that is asked for and verified in TLS.
pub(super) fn wrong_server_name(name: &str) -> Option<&'static str> {
    (!text::is_host_name(name) && name.parse::<IpAddr>().is_err()).then_some("is neither a DNS name nor an address")
}

fn wrong_path(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("does not begin with /");
    }
    path.contains(|c: char| !c.is_ascii_graphic() || c == '#').then_some("has characters that must be written as %NN")
}

fn wrong_query(name: &str) -> Option<&'static str> {
    (name != "." && !text::is_host_name(name)).then_some("is no name that can be asked for")
}

/// The directory is what an administrator has registered: nothing beside it can be named.
pub(super) fn wrong_program(name: &str) -> Option<&'static str> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    (!plain || name.is_empty() || name.starts_with('.')).then_some("is no name of a file in daemon.monitor_dir")
}

fn wrong_value(value: &str) -> Option<&'static str> {
    value.contains(|c: char| !(c.is_ascii_graphic() || c == ' ')).then_some("has characters that no header field has")
}

pub(super) fn wrong_word(word: &str) -> Option<&'static str> {
    const MOST: usize = 1024;
    (word.len() > MOST || word.contains('\0')).then_some("is too long, or contains a zero byte")
}

fn wrong_variable(name: &str) -> Option<&'static str> {
    let plain =
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if !plain {
        return Some("is no name of a variable");
    }
    (name.starts_with("LB_") || name.starts_with("LD_") || name == "PATH").then_some("is not to be set here")
}
