//! Event types and alerts: from what is written to their meaning.

use std::path::PathBuf;

use super::{Building, each};
use crate::config::{
    alert::{
        Action, Alert, Alerts, Email, EventType, Server, Snmp, SnmpSecurity, SnmpVersion, Syslog, SyslogTo, Transport,
        Trust, Webhook,
    },
    at::At,
    document::alert::{self as written, AlertWord},
    proxy::Host,
    text::{NodeAddress, Url},
};

/// Ports where none is said: submission and submissions (RFC 8314), syslog (RFC 5426), traps (RFC 3417).
const SUBMISSION: u16 = 587;
const SUBMISSIONS: u16 = 465;
const SMTP: u16 = 25;
const SYSLOG: u16 = 514;
const SYSLOG_TCP: u16 = 601;
const TRAPS: u16 = 162;

pub(super) fn alerts(building: &Building<'_>) -> Alerts {
    let document = building.document;
    Alerts {
        event_types: each(&document.event_type, |raw| Some(event_type(raw))),
        alerts: each(&document.alert, |raw| alert(building, raw)),
    }
}

fn event_type(raw: &written::EventType) -> EventType {
    EventType {
        events: raw.events.iter().map(|name| name.value).collect(),
        objects: texts(&raw.objects),
        severity: raw.severity.value,
    }
}

fn alert(building: &Building<'_>, raw: &written::Alert) -> Option<Alert> {
    Some(Alert {
        event_types: texts(&raw.event_types),
        recoveries: raw.recoveries.value,
        limit: raw.limit.value,
        per: raw.per.value.0,
        timeout: raw.timeout.value.0,
        retries: raw.retries.value,
        action: action(building, raw)?,
    })
}

fn action(building: &Building<'_>, raw: &written::Alert) -> Option<Action> {
    let trust = || Trust { ca: raw.ca.as_ref().map(|path| building.file(path)) };
    Some(match raw.r#type.as_ref()?.value {
        AlertWord::Log => Action::Log,
        AlertWord::Email => Action::Email(email(building, raw, trust())?),
        AlertWord::Syslog => Action::Syslog(syslog(raw)?),
        AlertWord::Snmp => Action::Snmp(snmp(building, raw)?),
        AlertWord::Webhook => {
            let Url { is_tls, host, port, path } = raw.url.as_ref()?.value.clone();
            Action::Webhook(Webhook {
                is_tls,
                server: Server { host, port },
                path,
                trust: trust(),
                header: raw.header_file.as_ref().map(|path| building.file(path)),
                allow_local: raw.allow_local.value,
            })
        }
        AlertWord::Program => Action::Program {
            name: raw.program.as_ref()?.value.clone(),
            arguments: raw.arguments.as_deref().map(texts).unwrap_or_default(),
        },
    })
}

fn email(building: &Building<'_>, raw: &written::Alert, trust: Trust) -> Option<Email> {
    use crate::config::alert::Encryption;
    let encryption = raw.encryption.as_ref().map(|encryption| encryption.value).unwrap_or_default();
    let port = match encryption {
        Encryption::Starttls => SUBMISSION,
        Encryption::Tls => SUBMISSIONS,
        Encryption::None => SMTP,
    };
    let login = raw.user.as_ref().zip(raw.password_file.as_ref());
    Some(Email {
        server: server(raw.server.as_ref()?, port),
        encryption,
        trust,
        login: login.map(|(user, file)| (user.value.clone(), building.file(file))),
        from: raw.from.as_ref()?.value.clone(),
        to: texts(raw.to.as_ref()?),
    })
}

fn syslog(raw: &written::Alert) -> Option<Syslog> {
    let to = match raw.transport.as_ref().map(|transport| transport.value).unwrap_or_default() {
        Transport::Udp => SyslogTo::Udp(server(raw.server.as_ref()?, SYSLOG)),
        Transport::Tcp => SyslogTo::Tcp(server(raw.server.as_ref()?, SYSLOG_TCP)),
        Transport::Unix => SyslogTo::Unix(
            raw.socket.as_ref().map_or_else(|| PathBuf::from("/dev/log"), |socket| socket.value.0.clone()),
        ),
    };
    Some(Syslog { to, facility: raw.facility.as_ref().map(|facility| facility.value).unwrap_or_default() })
}

fn snmp(building: &Building<'_>, raw: &written::Alert) -> Option<Snmp> {
    let security = match raw.version.as_ref().map_or(SnmpVersion::V3, |version| version.value) {
        SnmpVersion::V2c => SnmpSecurity::Community(building.file(raw.community_file.as_ref()?)),
        SnmpVersion::V3 => SnmpSecurity::User {
            name: raw.user.as_ref()?.value.clone(),
            authentication: building.file(raw.auth_password_file.as_ref()?),
            privacy: building.file(raw.privacy_password_file.as_ref()?),
        },
    };
    Some(Snmp { server: server(raw.server.as_ref()?, TRAPS), security })
}

fn server(raw: &At<NodeAddress>, port: u16) -> Server {
    Server { host: Host::clone(&raw.value.host), port: raw.value.port.unwrap_or(port) }
}

fn texts(list: &[At<String>]) -> Vec<String> {
    list.iter().map(|at| at.value.clone()).collect()
}
