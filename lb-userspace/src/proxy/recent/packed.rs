//! A finished request as a ring holds it: numbers, and all of its texts one after another, so that writing it touches a few
//! neighbouring cache lines.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::{
    control::proxy::recent::{REQUEST_FIELDS, RESPONSE_FIELDS, Record},
    proxy::{access_log::Entry, facts::RequestId},
};

/// Bytes of a text that are kept.
pub(super) const MAX_TEXT: usize = 256;

/// Texts before those of header fields, in the order of [`Packed::fill`].
const NAMES: usize = 9;
const TEXTS: usize = NAMES + REQUEST_FIELDS.len() + RESPONSE_FIELDS.len();

/// A request of the ring's virtual server; see [`Record`] for units.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) at_us: u64,
    request_id: RequestId,
    client: IpAddr,
    local: SocketAddr,
    bytes_received: u64,
    bytes_sent: u64,
    queue_us: u64,
    connect_us: u64,
    head_us: u64,
    total_us: u64,
    status: u16,
    retries: u8,
    ended: [u8; 2],
    /// Where each text ends.
    ends: [u16; TEXTS],
    text: Vec<u8>,
}

const _: () = assert!(TEXTS * MAX_TEXT <= u16::MAX as usize, "the end of the last text fits");

impl Default for Packed {
    fn default() -> Self {
        Self {
            at_us: 0,
            request_id: RequestId::default(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            local: SocketAddr::from(([0, 0, 0, 0], 0)),
            bytes_received: 0,
            bytes_sent: 0,
            queue_us: 0,
            connect_us: 0,
            head_us: 0,
            total_us: 0,
            status: 0,
            retries: 0,
            ended: [b'-'; 2],
            ends: [0; TEXTS],
            text: Vec::new(),
        }
    }
}

impl Packed {
    /// Writes a request over what was here; the memory of texts is used again.
    pub(super) fn fill(&mut self, entry: &Entry<'_>) {
        let facts = entry.facts;
        self.at_us = micros(entry.at);
        self.request_id = entry.request_id;
        self.client = facts.client();
        self.local = facts.local();
        self.bytes_received = entry.bytes_received;
        self.bytes_sent = entry.bytes_sent;
        self.queue_us = micros(entry.timings.queue);
        self.connect_us = micros(entry.timings.connect);
        self.head_us = micros(entry.timings.head);
        self.total_us = micros(entry.timings.total);
        self.status = entry.status;
        self.retries = entry.retries;
        self.ended = entry.ended.letters();
        self.text.clear();
        let names: [&str; NAMES] = [
            facts.method(),
            facts.host(),
            facts.raw_url(),
            facts.version(),
            entry.pool,
            entry.node,
            entry.rule,
            entry.reason,
            facts.tls().map_or("", |tls| tls.version),
        ];
        for (at, text) in names.into_iter().enumerate() {
            self.put(at, text);
        }
        for (at, name) in (NAMES..).zip(REQUEST_FIELDS) {
            self.put(at, facts.header(name).as_deref().unwrap_or(""));
        }
        for (at, name) in (NAMES + REQUEST_FIELDS.len()..).zip(RESPONSE_FIELDS) {
            self.put(at, entry.response.and_then(|response| response.header(name)).as_deref().unwrap_or(""));
        }
    }

    fn put(&mut self, at: usize, text: &str) {
        self.text.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX_TEXT)]);
        // No more than TEXTS * MAX_TEXT.
        self.ends[at] = self.text.len() as u16;
    }

    /// What is shown of it.
    pub(super) fn unpack(&self, virtual_server: &str) -> Record {
        let mut begin = 0;
        let mut texts = self.ends.iter().map(|end| {
            let text = String::from_utf8_lossy(&self.text[begin..usize::from(*end)]).into_owned();
            begin = usize::from(*end);
            text
        });
        let mut next = || texts.next().unwrap_or_default();
        let (method, host, url, version, pool) = (next(), next(), next(), next(), next());
        let (node, rule, reason, tls) = (next(), next(), next(), next());
        let mut fields = |names: &[&str]| {
            let all = names.iter().map(|name| ((*name).to_owned(), next()));
            all.filter(|(_, value)| !value.is_empty()).collect()
        };
        Record {
            at_us: self.at_us,
            request_id: self.request_id.to_string(),
            virtual_server: virtual_server.to_owned(),
            client: self.client,
            local: self.local,
            method,
            host,
            url,
            version,
            status: self.status,
            pool,
            node,
            rule,
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            queue_us: self.queue_us,
            connect_us: self.connect_us,
            head_us: self.head_us,
            total_us: self.total_us,
            retries: self.retries,
            tls,
            termination: self.ended.map(char::from).iter().collect(),
            reason,
            request_fields: fields(&REQUEST_FIELDS),
            response_fields: fields(&RESPONSE_FIELDS),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
