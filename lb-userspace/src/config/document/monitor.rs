//! Monitors as they are written. Text for operators, as in [`super`].

use std::{net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::Named;
use crate::{
    config::{
        Recovery, Via,
        at::At,
        text::{AbsolutePath, BytesText, PatternText, Period, StatusText},
    },
    control::probe::{RecordType, ResponseCode},
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Monitor {
    /// What it does.
    #[schemars(required)]
    pub(in crate::config) r#type: Option<At<MonitorWord>>,
    /// From the start of a check to the start of the next one.
    #[serde(default = "default_delay")]
    pub(in crate::config) delay: At<Period>,
    /// A check without an answer fails after this: from its first packet to the last one that it needs.
    #[serde(default = "default_timeout")]
    pub(in crate::config) timeout: At<Period>,
    /// A node goes down after this many failed checks in a row.
    #[serde(default = "default_failures")]
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::config) failures: At<u32>,
    /// A node comes up after this many successful checks in a row.
    #[serde(default = "default_successes")]
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::config) successes: At<u32>,
    /// Whether a node that was down comes up by itself.
    #[serde(default)]
    pub(in crate::config) recovery: At<Recovery>,
    /// The port that is asked; by default the node's, or else the virtual servers', or else the one that the protocol is
    /// known by. Nodes that are one machine are checked once when they are asked the same.
    #[schemars(range(min = 1, max = 65_535))]
    pub(in crate::config) port: Option<At<u16>>,
    /// The machine that is asked, instead of each node: one check, and all nodes of all pools with this monitor are up or down
    /// by it.
    pub(in crate::config) address: Option<At<IpAddr>>,
    /// With `tcp`, for pools with `dsr`: where the connection is tried.
    pub(in crate::config) via: Option<At<Via>>,
    /// With `http`, `smtp`, `pop3`, `imap`, `ftp`, `transaction`: TLS from the first byte on. By default none.
    pub(in crate::config) tls: Option<MonitorTls>,
    /// With `http`: the method; by default `GET`.
    pub(in crate::config) method: Option<At<String>>,
    /// With `http`: the `Host` field, also the name that a certificate must be for; by default the address.
    pub(in crate::config) host: Option<At<String>>,
    /// With `http`: path and query; by default `/`.
    pub(in crate::config) path: Option<At<String>>,
    /// With `http`: further header fields.
    #[serde(default)]
    pub(in crate::config) headers: Named<At<String>>,
    /// With `http`: statuses that pass; by default `["200-499"]`: the server lives. Redirects are not followed.
    #[schemars(length(min = 1))]
    pub(in crate::config) statuses: Option<Vec<At<StatusText>>>,
    /// With `http`: what the first 64 KiB of the body must match.
    pub(in crate::config) body: Option<At<PatternText>>,
    /// With `dns`: the name that is asked for, absolute.
    pub(in crate::config) query: Option<At<String>>,
    /// With `dns`: the type of record; by default `A`.
    pub(in crate::config) record: Option<At<RecordType>>,
    /// With `dns`: the response code that passes; by default `NOERROR`.
    pub(in crate::config) rcode: Option<At<ResponseCode>>,
    /// With `dns`: one of the answers must be this, written as `dig +short` prints it, without quotes; by default any passes,
    /// also none.
    pub(in crate::config) answer: Option<At<String>>,
    /// With `udp`: the datagram's payload. `\\r`, `\\n`, `\\t`, `\\0`, `\\xNN` and `\\\\` stand for bytes, here in TOML's
    /// single quotes.
    pub(in crate::config) send: Option<At<BytesText>>,
    /// With `udp`: what the answer must match; by default any passes.
    pub(in crate::config) expect: Option<At<PatternText>>,
    /// With `transaction`: what is sent and expected in turn, such as `[{ send = "PING\r\n" }, { expect = '^\+PONG' }]`.
    #[schemars(length(min = 1, max = 32))]
    pub(in crate::config) steps: Option<Vec<Step>>,
    /// With `program`: name of a file in `daemon.monitor_dir`. See `docs/operations.md` for what it is given and how it
    /// answers.
    pub(in crate::config) program: Option<At<String>>,
    /// With `program`: its arguments; `{address}` and `{port}` stand for whom is checked.
    #[schemars(length(max = 32))]
    pub(in crate::config) arguments: Option<Vec<At<String>>>,
    /// With `program`: variables of its environment, beside `LB_ADDRESS`, `LB_PORT`, `LB_TIMEOUT_MS` and `PATH`.
    #[serde(default)]
    pub(in crate::config) environment: Named<At<String>>,
}

/// What a monitor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum MonitorWord {
    /// Opens a TCP connection to the node's own address.
    Tcp,
    /// Sends an ICMP echo request to the node's own address.
    Ping,
    /// Sends an HTTP/1.1 request.
    Http,
    /// Reads the greeting `220` and sends `QUIT`.
    Smtp,
    /// Reads the greeting `+OK` and sends `QUIT`.
    Pop3,
    /// Reads the greeting `* OK` and sends `LOGOUT`.
    Imap,
    /// Reads the greeting `220` and sends `QUIT`.
    Ftp,
    /// Asks a name server, over UDP, and over TCP when the answer was cut.
    Dns,
    /// Sends a datagram and waits for one.
    Udp,
    /// Sends and expects in turn, over TCP.
    Transaction,
    /// Runs a program, as a user without rights.
    Program,
}

/// TLS towards whom is checked.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct MonitorTls {
    /// Whether the chain and the name of the certificate are verified.
    #[serde(default = "yes")]
    pub(in crate::config) verify: At<bool>,
    /// PEM file: who may have signed it; by default the system's store.
    pub(in crate::config) ca: Option<At<AbsolutePath>>,
    /// The name that is sent and verified; by default the `host`, or the address.
    pub(in crate::config) server_name: Option<At<String>>,
    /// Name of the certificate that lbd shows; by default none.
    pub(in crate::config) certificate: Option<At<String>>,
}

/// A step of a dialogue: one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Step {
    /// Bytes to send.
    pub(in crate::config) send: Option<At<BytesText>>,
    /// What must come next.
    pub(in crate::config) expect: Option<At<PatternText>>,
}

fn yes() -> At<bool> {
    At::default_of(true)
}

fn default_delay() -> At<Period> {
    At::default_of(Period(Duration::from_secs(5)))
}

fn default_timeout() -> At<Period> {
    At::default_of(Period(Duration::from_secs(10)))
}

fn default_failures() -> At<u32> {
    At::default_of(3)
}

fn default_successes() -> At<u32> {
    At::default_of(1)
}
