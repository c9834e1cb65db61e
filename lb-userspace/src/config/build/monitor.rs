//! Monitors, from the document to the values by meaning.

use std::{collections::BTreeMap, sync::Arc};

use super::Building;
use crate::{
    config::{
        Monitor, MonitorFiles,
        at::At,
        document::{self, MonitorTls, MonitorWord, Named},
    },
    control::probe::{Bytes, Dns, Greeting, Http, Kind, Program, StatusRange, Step, Tls, Transaction, Udp},
};

/// A server that answers so lives, whatever it thinks of the request.
const ALIVE: StatusRange = StatusRange(200, 499);

pub(super) fn monitor(building: &Building<'_>, raw: &document::Monitor) -> Option<Monitor> {
    Some(Monitor {
        kind: kind(raw)?,
        delay: raw.delay.value.0,
        timeout: raw.timeout.value.0,
        failures: raw.failures.value,
        successes: raw.successes.value,
        recovery: raw.recovery.value,
        port: raw.port.as_ref().map(|port| port.value),
        address: raw.address.as_ref().map(|address| address.value),
        via: raw.via.as_ref().map(|via| via.value).unwrap_or_default(),
        files: raw.tls.as_ref().map(|tls| files(building, tls)).unwrap_or_default(),
    })
}

fn files(building: &Building<'_>, raw: &MonitorTls) -> MonitorFiles {
    MonitorFiles { ca: raw.ca.as_ref().map(|path| building.file(path)), certificate: text(raw.certificate.as_ref()) }
}

fn kind(raw: &document::Monitor) -> Option<Kind> {
    let greeting = |greeting| Kind::Greeting(greeting, tls(raw));
    Some(match raw.r#type.as_ref()?.value {
        MonitorWord::Tcp => Kind::Tcp,
        MonitorWord::Ping => Kind::Ping,
        MonitorWord::Http => Kind::Http(Arc::new(http(raw))),
        MonitorWord::Smtp => greeting(Greeting::Smtp),
        MonitorWord::Pop3 => greeting(Greeting::Pop3),
        MonitorWord::Imap => greeting(Greeting::Imap),
        MonitorWord::Ftp => greeting(Greeting::Ftp),
        MonitorWord::Dns => Kind::Dns(Arc::new(Dns {
            name: text(raw.query.as_ref())?,
            record: raw.record.as_ref().map(|record| record.value).unwrap_or_default(),
            rcode: raw.rcode.as_ref().map(|rcode| rcode.value).unwrap_or_default(),
            answer: text(raw.answer.as_ref()),
        })),
        MonitorWord::Udp => Kind::Udp(Arc::new(Udp {
            send: raw.send.as_ref().map_or_else(Bytes::default, |send| send.value.0.clone()),
            expect: raw.expect.as_ref().map(|expect| expect.value.0.clone()),
        })),
        MonitorWord::Transaction => {
            let steps = raw.steps.iter().flatten().filter_map(step).collect();
            Kind::Transaction(Arc::new(Transaction { steps, tls: tls(raw) }))
        }
        MonitorWord::Program => Kind::Program(Arc::new(Program {
            name: text(raw.program.as_ref())?,
            arguments: raw.arguments.iter().flatten().map(|argument| argument.value.clone()).collect(),
            environment: texts(&raw.environment),
        })),
    })
}

fn http(raw: &document::Monitor) -> Http {
    let statuses = raw.statuses.as_ref().map(|list| list.iter().map(|range| range.value.0).collect());
    Http {
        method: text(raw.method.as_ref()).unwrap_or_else(|| "GET".to_owned()),
        host: text(raw.host.as_ref()),
        path: text(raw.path.as_ref()).unwrap_or_else(|| "/".to_owned()),
        headers: texts(&raw.headers),
        statuses: statuses.unwrap_or_else(|| vec![ALIVE]),
        body: raw.body.as_ref().map(|body| body.value.0.clone()),
        tls: tls(raw),
    }
}

fn step(raw: &document::Step) -> Option<Step> {
    match (&raw.send, &raw.expect) {
        (Some(send), _) => Some(Step::Send(send.value.0.clone())),
        (None, Some(expect)) => Some(Step::Expect(expect.value.0.clone())),
        (None, None) => None,
    }
}

/// Without the content of files, which is read later.
fn tls(raw: &document::Monitor) -> Option<Arc<Tls>> {
    let raw = raw.tls.as_ref()?;
    let (verify, server_name) = (raw.verify.value, text(raw.server_name.as_ref()));
    Some(Arc::new(Tls { verify, server_name, ..Tls::default() }))
}

fn text(raw: Option<&At<String>>) -> Option<String> {
    raw.map(|raw| raw.value.clone())
}

fn texts(raw: &Named<At<String>>) -> BTreeMap<String, String> {
    raw.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect()
}
