//! Alerts and event types: keys that their type does not have, keys that it needs, and what they name.

use super::Checker;
use crate::config::{
    alert::{Encryption, SnmpVersion, Transport},
    at::At,
    check::monitors::{wrong_program, wrong_word},
    document::alert::{Alert, AlertWord},
    error::Problem,
    source::Span,
};

use AlertWord::{Email, Program, Snmp, Syslog, Webhook};

/// Longest address of a mail, in bytes (RFC 5321 §4.5.3.1.3).
const MOST_ADDRESS: usize = 254;

/// Longest user name of SNMP version 3 (RFC 3414 §2.4).
const MOST_SNMP_USER: usize = 32;

impl Checker<'_> {
    pub(super) fn alerts(&mut self) {
        let document = self.document;
        let event_types: Vec<&str> = document.event_type.keys().map(|name| name.value.as_str()).collect();
        for (name, alert) in &document.alert {
            let who = format!("alert {:?}", name.value);
            self.exist(&who, "event type", "event_type", alert.event_types.iter(), &event_types);
            let Some(word) = alert.r#type.as_ref().map(|word| word.value) else { continue };
            let section = format!("[alert.{}]", name.value);
            self.alert_keys(&section, word, alert);
            self.alert_needs(&section, name, word, alert);
            self.alert_values(&section, word, alert);
        }
    }

    fn alert_keys(&mut self, section: &str, word: AlertWord, alert: &Alert) {
        for (key, span, types) in keys(alert) {
            let Some(span) = span.filter(|_| !types.contains(&word)) else { continue };
            let known: Vec<&str> = types.iter().map(|word| word.name()).collect();
            let message = format!("an alert of type {:?} has no {key} (in {section})", word.name());
            let help = format!("remove it, or use type = \"{}\"", known.join("\" or \""));
            self.report(Problem::new(span, message, format!("not with {}", word.name())).help(help));
        }
    }

    fn alert_needs(&mut self, section: &str, name: &At<String>, word: AlertWord, alert: &Alert) {
        if self.pruned {
            return;
        }
        let version = alert.version.as_ref().map_or(SnmpVersion::V3, |version| version.value);
        let is_local = alert.transport.as_ref().is_none_or(|transport| transport.value == Transport::Unix);
        let server = ("server", alert.server.is_none(), "\"192.0.2.25\": the machine that is told");
        let needed = match word {
            AlertWord::Log => Vec::new(),
            Email => vec![
                server,
                ("from", alert.from.is_none(), "\"lb@example.com\": the sender"),
                ("to", alert.to.is_none(), "[\"ops@example.com\"]: the recipients"),
                ("password_file", alert.user.is_some() && alert.password_file.is_none(), "\"/etc/lb/mail.password\""),
                ("user", alert.user.is_none() && alert.password_file.is_some(), "\"lb\": whose password it is"),
            ],
            Syslog if is_local => Vec::new(),
            Syslog => vec![server],
            Snmp if version == SnmpVersion::V2c => {
                vec![server, ("community_file", alert.community_file.is_none(), "\"/etc/lb/community\"")]
            }
            Snmp => vec![
                server,
                ("user", alert.user.is_none(), "\"lb\": the user of version 3, or version = \"2c\""),
                ("auth_password_file", alert.auth_password_file.is_none(), "\"/etc/lb/snmp.auth\""),
                ("privacy_password_file", alert.privacy_password_file.is_none(), "\"/etc/lb/snmp.privacy\""),
            ],
            Webhook => vec![("url", alert.url.is_none(), "\"https://hooks.example.com/lb\": where JSON is posted to")],
            Program => vec![("program", alert.program.is_none(), "\"tell\": a file in daemon.monitor_dir")],
        };
        for (key, _, example) in needed.into_iter().filter(|(_, missing, _)| *missing) {
            let message = format!("{section} has no {key:?}");
            let help = format!("add {key} = {example}");
            self.report(Problem::new(&name.span, message, format!("{key:?} is missing")).help(help));
        }
    }

    fn alert_values(&mut self, section: &str, word: AlertWord, alert: &Alert) {
        let of_unix = alert.transport.as_ref().is_none_or(|transport| transport.value == Transport::Unix);
        let is_syslog = word == Syslog;
        if let (true, true, Some(server)) = (is_syslog, of_unix, &alert.server) {
            let message = format!("server has no effect with transport \"unix\" (in {section})");
            self.report(
                Problem::new(&server.span, message, "would not be used").help("say transport = \"udp\" or \"tcp\""),
            );
        }
        if let (true, false, Some(socket)) = (is_syslog, of_unix, &alert.socket) {
            let message = format!("socket has no effect without transport = \"unix\" (in {section})");
            self.report(Problem::new(&socket.span, message, "would not be used").help("remove it, or transport"));
        }
        if let (Email, Some(Encryption::None), Some(user)) =
            (word, alert.encryption.as_ref().map(|e| e.value), &alert.user)
        {
            let message = format!("the password of {:?} could be read on its way (in {section})", user.value);
            self.report(
                Problem::new(&user.span, message, "in the clear").help("say encryption = \"starttls\" or \"tls\""),
            );
        }
        let refused = |key, at: &At<String>, wrong: fn(&str) -> Option<&'static str>| {
            wrong(&at.value).map(|wrong| (key, at.span.clone(), at.value.clone(), wrong))
        };
        let mut found = Vec::new();
        found.extend(alert.from.iter().filter_map(|at| refused("from", at, wrong_address)));
        found.extend(alert.to.iter().flatten().filter_map(|at| refused("to", at, wrong_address)));
        found.extend(alert.user.iter().filter_map(|at| refused("user", at, wrong_user)));
        found.extend(alert.program.iter().filter_map(|at| refused("program", at, wrong_program)));
        found.extend(alert.arguments.iter().flatten().filter_map(|at| refused("arguments", at, wrong_word)));
        for (key, span, text, wrong) in found {
            self.report(Problem::new(&span, format!("{key} {text:?} {wrong} (in {section})"), "this"));
        }
    }
}

/// Keys that not all types have: where each is written, and the types.
fn keys(alert: &Alert) -> Vec<(&'static str, Option<&Span>, &'static [AlertWord])> {
    fn span<T>(at: Option<&At<T>>) -> Option<&Span> {
        at.map(|at| &at.span)
    }
    vec![
        ("server", span(alert.server.as_ref()), &[Email, Syslog, Snmp]),
        ("from", span(alert.from.as_ref()), &[Email]),
        ("to", span(alert.to.as_ref().and_then(|to| to.first())), &[Email]),
        ("encryption", span(alert.encryption.as_ref()), &[Email]),
        ("ca", span(alert.ca.as_ref()), &[Email, Webhook]),
        ("user", span(alert.user.as_ref()), &[Email, Snmp]),
        ("password_file", span(alert.password_file.as_ref()), &[Email]),
        ("transport", span(alert.transport.as_ref()), &[Syslog]),
        ("socket", span(alert.socket.as_ref()), &[Syslog]),
        ("facility", span(alert.facility.as_ref()), &[Syslog]),
        ("version", span(alert.version.as_ref()), &[Snmp]),
        ("community_file", span(alert.community_file.as_ref()), &[Snmp]),
        ("auth_password_file", span(alert.auth_password_file.as_ref()), &[Snmp]),
        ("privacy_password_file", span(alert.privacy_password_file.as_ref()), &[Snmp]),
        ("url", span(alert.url.as_ref()), &[Webhook]),
        ("header_file", span(alert.header_file.as_ref()), &[Webhook]),
        ("allow_local", Some(&alert.allow_local.span).filter(|span| !span.is_empty()), &[Webhook]),
        ("program", span(alert.program.as_ref()), &[Program]),
        ("arguments", span(alert.arguments.as_ref().and_then(|list| list.first())), &[Program]),
    ]
}

/// Addresses go into commands and headers of mails: nothing in them may end a line or a path (RFC 5321 §4.1.2, without quoted
/// local parts).
fn wrong_address(text: &str) -> Option<&'static str> {
    let Some((local, domain)) = text.rsplit_once('@') else { return Some("has no @") };
    let plain = |c: char| c.is_ascii_graphic() && !"<>()[]\\,;:\"@ ".contains(c);
    let is_domain = !domain.is_empty() && domain.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    if text.len() > MOST_ADDRESS {
        Some("is too long")
    } else if local.is_empty() || !local.chars().all(plain) || !is_domain {
        Some("is no plain mail address")
    } else {
        None
    }
}

fn wrong_user(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > MOST_SNMP_USER.max(MOST_ADDRESS) {
        Some("is empty or too long")
    } else if text.chars().any(char::is_control) {
        Some("has a control character")
    } else {
        None
    }
}
