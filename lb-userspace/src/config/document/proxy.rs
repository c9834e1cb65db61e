//! What only the L7 proxy has, as it is written: certificates, TLS, HTTP, limits, retries. Text for operators, as in
//! [`super`]; defaults are those of `control::proxy`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{super::at::At, AbsolutePath, Period};
use crate::{
    config::text::{ByteRate, KeyText, NetworkText, Rate, Size},
    control::proxy::{
        http::{Coding, Identity, Strictness},
        pool::{NodeTimeouts, Passive, Retry},
        tls::Version,
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Proxy {
    /// Threads of the worker; by default one for each CPU. Takes effect when lbd is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub(in crate::config) threads: Option<At<u32>>,
    /// The user that the worker runs as; it needs no file. Takes effect when lbd is started again.
    pub(in crate::config) user: At<String>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct TlsDefaults {
    /// Least version of TLS.
    pub(in crate::config) min_version: At<Version>,
    /// Cipher suites by IANA name, in order of preference; by default those of rustls.
    pub(in crate::config) cipher_suites: Vec<At<String>>,
    /// Key exchange groups by IANA name, in order of preference; by default those of rustls.
    pub(in crate::config) curves: Vec<At<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct Certificate {
    /// PEM file: the certificate, then its intermediates.
    #[schemars(required)]
    pub(in crate::config) chain: Option<At<AbsolutePath>>,
    /// PEM file: the private key.
    #[schemars(required)]
    pub(in crate::config) key: Option<At<AbsolutePath>>,
    /// DER file: the OCSP response that is stapled.
    pub(in crate::config) ocsp: Option<At<AbsolutePath>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct RateClass {
    /// Requests per second that are let through.
    #[schemars(required)]
    pub(in crate::config) rate: Option<At<Rate>>,
    /// Requests that may come at once beyond.
    #[serde(default)]
    pub(in crate::config) burst: At<u32>,
    /// What is limited each for itself: `client_address` (`client_address/24/56`: its first bits), `header:NAME`,
    /// `cookie:NAME`, `query:NAME`, `path` or `host`.
    #[serde(default = "client_address")]
    pub(in crate::config) key: At<KeyText>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct BandwidthClass {
    /// Bytes per second, both directions together.
    #[schemars(required)]
    pub(in crate::config) rate: Option<At<ByteRate>>,
}

/// TLS with clients.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct ServerTls {
    /// Names of certificates: the one whose names fit the server name that the client asks for is shown, ECDSA before RSA
    /// where the client can.
    #[schemars(required, length(min = 1))]
    pub(in crate::config) certificates: Option<Vec<At<String>>>,
    /// Name of the certificate for clients that ask for no, or an unknown, server name; by default the first one of
    /// `certificates`. `"none"`: they are refused.
    pub(in crate::config) default_certificate: Option<At<String>>,
    /// Least version of TLS; by default that of `[tls]`.
    pub(in crate::config) min_version: Option<At<Version>>,
    /// As in `[tls]`.
    pub(in crate::config) cipher_suites: Option<Vec<At<String>>>,
    /// As in `[tls]`.
    pub(in crate::config) curves: Option<Vec<At<String>>>,
    /// Whether clients show certificates.
    #[serde(default)]
    pub(in crate::config) client_certificates: At<ClientCertificates>,
    /// PEM file: who may have signed them.
    pub(in crate::config) client_ca: Option<At<AbsolutePath>>,
    /// PEM file: lists of those that were revoked.
    pub(in crate::config) client_crl: Option<At<AbsolutePath>>,
    /// Whether session tickets are given out.
    #[serde(default = "yes")]
    pub(in crate::config) tickets: At<bool>,
    /// File of 32 or more random bytes, the key of tickets, the same on all machines of a cluster; by default lbd makes
    /// random ones and changes them every twelve hours.
    pub(in crate::config) ticket_key: Option<At<AbsolutePath>>,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ClientCertificates {
    /// They are not asked.
    #[default]
    None,
    /// They are asked; one without is let in, one with a bad one is not.
    Request,
    /// They must.
    Require,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Http {
    /// Whether HTTP/2 is spoken: by ALPN with `https`, by prior knowledge with `http`.
    pub(in crate::config) http2: At<bool>,
    /// Most bytes of a request's line and header fields together; more is answered 431, or 414.
    pub(in crate::config) max_head: At<Size>,
    /// Most header fields of a request; more is answered 431.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) max_fields: At<u16>,
    /// Most bytes of a request body; more is answered 413. By default any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) max_body: Option<At<Size>>,
    /// Whether lines may end by LF alone.
    pub(in crate::config) allow_bare_lf: At<bool>,
    /// Whether header names may contain `_`; else such fields are taken out.
    pub(in crate::config) allow_underscore: At<bool>,
    /// Whether `%2f` and `%5c` may stand in a path; else 400.
    pub(in crate::config) allow_encoded_slash: At<bool>,
    /// Whether several slashes in a row count, and are forwarded, as one.
    pub(in crate::config) merge_slashes: At<bool>,
    /// Whether WebSocket and other upgrades may pass.
    pub(in crate::config) allow_upgrade: At<bool>,
    /// Codings that responses are compressed with where the client can and the node did not, in order of preference.
    pub(in crate::config) compression: Vec<At<Coding>>,
    /// Least size of a body that is compressed, where it is known.
    pub(in crate::config) compression_min: At<Size>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct IdentityTable {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub(in crate::config) x_forwarded: At<bool>,
    /// `X-Real-IP`.
    pub(in crate::config) x_real_ip: At<bool>,
    /// `X-Cluster-Client-IP`.
    pub(in crate::config) x_cluster_client_ip: At<bool>,
    /// `Forwarded` (RFC 7239).
    pub(in crate::config) forwarded: At<bool>,
    /// `Via`, in both directions.
    pub(in crate::config) via: At<bool>,
    /// `traceparent`: made when there is none.
    pub(in crate::config) traceparent: At<bool>,
    /// Networks of proxies in front of this one: what they say of their client is believed and added to. What others say is
    /// taken out.
    pub(in crate::config) trusted: Vec<At<NetworkText>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct ErrorPage {
    /// Whether the connection is closed without an answer.
    pub(in crate::config) close: At<bool>,
    /// File with the body of an own page; images are best put into it as `data:` URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) file: Option<At<AbsolutePath>>,
    /// With `file`: its media type; by default `text/html; charset=utf-8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) content_type: Option<At<String>>,
    /// With `file`: the status; by default that of the failure, such as 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub(in crate::config) status: Option<At<u16>>,
    /// With `file`: further header fields, as `{ Retry-After = "30" }`.
    pub(in crate::config) headers: super::Named<At<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Limits {
    /// Connections at a time; 0: any number.
    pub(in crate::config) connections: At<u32>,
    /// Connections of one client address at a time; 0: any number.
    pub(in crate::config) connections_per_client: At<u32>,
    /// New requests (connections, where there are no requests) of one client address; by default any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) requests_per_client: Option<At<Rate>>,
    /// TLS handshakes of one client address; by default any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) handshakes_per_client: Option<At<Rate>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::config) struct AccessLog {
    /// The file; opened anew at SIGUSR1.
    #[schemars(required)]
    pub(in crate::config) path: Option<At<AbsolutePath>>,
    /// `"combined"`, `"json"`, or a line of one's own with macros, as `"%{client_address} %{method} %{status}"`.
    #[serde(default = "combined")]
    pub(in crate::config) format: At<String>,
    /// One request of so many is logged; errors always.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub(in crate::config) sample: At<u32>,
}

/// TLS with nodes.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct NodeTls {
    /// Whether the node's certificate and name are verified. Without, anybody between can read and change what is said.
    pub(in crate::config) verify: At<bool>,
    /// PEM file: who may have signed the node's certificate; by default the system's store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ca: Option<At<AbsolutePath>>,
    /// PEM file: lists of certificates that were revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) crl: Option<At<AbsolutePath>>,
    /// The name that is asked for and verified; by default the node's DNS name, or the request's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) server_name: Option<At<String>>,
    /// Name of the certificate that is shown to nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) certificate: Option<At<String>>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct NodeTimeoutsTable {
    /// Until the connection, and TLS, stand. While a node answers nothing, a second connection is begun after a third of it (below 3 s, or
    /// the kernel's own repetition comes first): one lost packet fails nothing.
    pub(in crate::config) connect: At<Period>,
    /// From the end of the request to the end of the response's head.
    pub(in crate::config) reply: At<Period>,
    /// Without a byte within a body, or of an upgraded or generic connection.
    pub(in crate::config) idle: At<Period>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct RetryTable {
    /// Attempts in all, the first one included.
    #[schemars(range(min = 1, max = 20))]
    pub(in crate::config) attempts: At<u32>,
    /// Attempts that may time out waiting for the reply, the first one included.
    #[schemars(range(min = 1, max = 20))]
    pub(in crate::config) timed_out_attempts: At<u32>,
    /// Statuses of a node after which another one is tried (idempotent requests only).
    #[schemars(inner(range(min = 400, max = 599)))]
    pub(in crate::config) statuses: Vec<At<u16>>,
    /// Retries may make up this share of requests, in percent of the last 10 s; some are always allowed.
    #[schemars(range(min = 0, max = 100))]
    pub(in crate::config) budget: At<u8>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct PassiveTable {
    /// Whether failing requests take a node out.
    pub(in crate::config) enabled: At<bool>,
    /// How long it is out before a request tries it again.
    pub(in crate::config) node_fail_time: At<Period>,
    /// Failed connects in a row that take it out.
    #[schemars(range(min = 1))]
    pub(in crate::config) connect_failures: At<u32>,
    /// Connections closed before a response, in a row.
    #[schemars(range(min = 1))]
    pub(in crate::config) early_closes: At<u32>,
    /// Replies that timed out, in a row.
    #[schemars(range(min = 1))]
    pub(in crate::config) reply_timeouts: At<u32>,
    /// Statuses that count as failure.
    #[schemars(inner(range(min = 400, max = 599)))]
    pub(in crate::config) statuses: Vec<At<u16>>,
    /// How many of these in a row.
    #[schemars(range(min = 1))]
    pub(in crate::config) status_failures: At<u32>,
}

fn client_address() -> At<KeyText> {
    At::default_of(KeyText(crate::control::proxy::pool::Key::ClientAddress { prefix4: 32, prefix6: 128 }))
}

fn yes() -> At<bool> {
    At::default_of(true)
}

fn one() -> At<u32> {
    At::default_of(1)
}

fn combined() -> At<String> {
    At::default_of("combined".to_owned())
}

/// A period with its default.
pub(super) fn period(time: Duration) -> At<Period> {
    At::default_of(Period(time))
}

fn written(list: &[u16]) -> Vec<At<u16>> {
    list.iter().map(|one| At::default_of(*one)).collect()
}

impl Default for Proxy {
    fn default() -> Self {
        Self { threads: None, user: At::default_of("lb-worker".to_owned()) }
    }
}

impl Default for Http {
    fn default() -> Self {
        let strict = Strictness::default();
        Self {
            http2: yes(),
            max_head: At::default_of(Size(strict.max_head_bytes.into())),
            max_fields: At::default_of(strict.max_fields),
            max_body: None,
            allow_bare_lf: At::default_of(strict.allow_bare_lf),
            allow_underscore: At::default_of(strict.allow_underscore),
            allow_encoded_slash: At::default_of(strict.allow_encoded_slash),
            merge_slashes: At::default_of(strict.merge_slashes),
            allow_upgrade: At::default_of(strict.allow_upgrade),
            compression: Vec::new(),
            compression_min: At::default_of(Size(1024)),
        }
    }
}

impl Default for IdentityTable {
    fn default() -> Self {
        let Identity { x_forwarded, x_real_ip, x_cluster_client_ip, forwarded, via, traceparent, trusted: _ } =
            Identity::default();
        Self {
            x_forwarded: At::default_of(x_forwarded),
            x_real_ip: At::default_of(x_real_ip),
            x_cluster_client_ip: At::default_of(x_cluster_client_ip),
            forwarded: At::default_of(forwarded),
            via: At::default_of(via),
            traceparent: At::default_of(traceparent),
            trusted: Vec::new(),
        }
    }
}

impl Default for NodeTls {
    fn default() -> Self {
        Self { verify: yes(), ca: None, crl: None, server_name: None, certificate: None }
    }
}

impl Default for NodeTimeoutsTable {
    fn default() -> Self {
        let NodeTimeouts { connect, reply, idle } = NodeTimeouts::default();
        Self { connect: period(connect), reply: period(reply), idle: period(idle) }
    }
}

impl Default for RetryTable {
    fn default() -> Self {
        let Retry { attempts, timed_out_attempts, statuses, budget_percent } = Retry::default();
        Self {
            attempts: At::default_of(attempts),
            timed_out_attempts: At::default_of(timed_out_attempts),
            statuses: written(&statuses),
            budget: At::default_of(budget_percent),
        }
    }
}

impl Default for PassiveTable {
    fn default() -> Self {
        let passive = Passive::default();
        Self {
            enabled: yes(),
            node_fail_time: period(passive.node_fail_time),
            connect_failures: At::default_of(passive.connect_failures),
            early_closes: At::default_of(passive.early_closes),
            reply_timeouts: At::default_of(passive.reply_timeouts),
            statuses: written(&passive.statuses),
            status_failures: At::default_of(passive.status_failures),
        }
    }
}
