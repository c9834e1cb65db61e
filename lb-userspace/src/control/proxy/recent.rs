//! Finished requests (connections of generic TCP) as the worker remembers them, and which of them are asked for. Kept by
//! `proxy::recent`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Network;

/// Request header fields that are kept. None that carries a secret.
pub const REQUEST_FIELDS: [&str; 5] = ["user-agent", "referer", "content-type", "accept-encoding", "x-forwarded-for"];
/// Response header fields that are kept.
pub const RESPONSE_FIELDS: [&str; 3] = ["content-type", "location", "server"];

/// Records listed unless a limit is given.
const DEFAULT_LIMIT: usize = 100;
/// Records listed at most.
const MAX_LIMIT: usize = 10_000;

/// A finished request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Record {
    /// Microseconds since 1970 when its first byte came.
    pub at_us: u64,
    /// 32 hexadecimal digits, as in logs.
    pub request_id: String,
    /// The virtual server.
    pub virtual_server: String,
    /// The client.
    pub client: IpAddr,
    /// What it connected to.
    pub local: SocketAddr,
    /// Its method; empty: generic TCP, or nothing that could be parsed.
    pub method: String,
    /// Its host.
    pub host: String,
    /// Its target as it came, the first 256 bytes.
    pub url: String,
    /// `1.0`, `1.1` or `2`.
    pub version: String,
    /// Status that the client got; 0: none.
    pub status: u16,
    /// The pool that served.
    pub pool: String,
    /// The node that served.
    pub node: String,
    /// The last rule that matched.
    pub rule: String,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// Bytes to the client.
    pub bytes_sent: u64,
    /// Microseconds waiting for a node.
    pub queue_us: u64,
    /// Microseconds connecting to it.
    pub connect_us: u64,
    /// Microseconds from the request to the head of the response.
    pub head_us: u64,
    /// Microseconds in all.
    pub total_us: u64,
    /// Attempts beyond the first.
    pub retries: u8,
    /// Version of TLS; empty: plain.
    pub tls: String,
    /// How it ended: two letters, as in logs.
    pub termination: String,
    /// Why we refused or failed.
    pub reason: String,
    /// Some header fields of the request, empty ones left out of texts.
    pub request_fields: Vec<(String, String)>,
    /// Some header fields of the response.
    pub response_fields: Vec<(String, String)>,
}

#[cfg(test)]
impl Default for Record {
    fn default() -> Self {
        Self {
            at_us: 0,
            request_id: String::new(),
            virtual_server: String::new(),
            client: IpAddr::from([0; 4]),
            local: SocketAddr::from(([0; 4], 0)),
            method: String::new(),
            host: String::new(),
            url: String::new(),
            version: String::new(),
            status: 0,
            pool: String::new(),
            node: String::new(),
            rule: String::new(),
            bytes_received: 0,
            bytes_sent: 0,
            queue_us: 0,
            connect_us: 0,
            head_us: 0,
            total_us: 0,
            retries: 0,
            tls: String::new(),
            termination: String::new(),
            reason: String::new(),
            request_fields: Vec::new(),
            response_fields: Vec::new(),
        }
    }
}

/// What a record must be; what is not given fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The virtual server.
    pub virtual_server: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// Where the client is: an address, or a network such as `10.0.0.0/8`.
    #[serde(with = "network", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub client: Option<Network>,
    /// The host.
    pub host: Option<String>,
    /// Part of the URL.
    pub url: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// Least status.
    pub min_status: Option<u16>,
    /// Greatest status.
    pub max_status: Option<u16>,
    /// Least microseconds in all.
    pub min_total_us: Option<u64>,
    /// Whether it ended before its time.
    pub failed: Option<bool>,
    /// Records at most, the newest: 100 unless given.
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether a record is meant.
    #[must_use]
    pub fn passes(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        is(&self.virtual_server, &record.virtual_server)
            && is(&self.pool, &record.pool)
            && is(&self.node, &record.node)
            && is(&self.rule, &record.rule)
            && is(&self.host, &record.host)
            && is(&self.request_id, &record.request_id)
            && self.client.is_none_or(|network| network.contains(record.client))
            && self.url.as_deref().is_none_or(|part| record.url.contains(part))
            && self.min_status.is_none_or(|least| record.status >= least)
            && self.max_status.is_none_or(|most| record.status <= most)
            && self.min_total_us.is_none_or(|least| record.total_us >= least)
            && self
                .failed
                .is_none_or(|failed| failed != matches!(record.termination.as_bytes().first(), Some(b'-' | b'L')))
    }

    /// How many records are asked for, at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)
    }
}

/// A network as one word, so that it can stand in a URL.
mod network {
    use std::net::IpAddr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Network;

    pub(super) fn serialize<S: Serializer>(network: &Option<Network>, serializer: S) -> Result<S::Ok, S::Error> {
        match network {
            Some(network) => serializer.collect_str(&format_args!("{}/{}", network.address, network.prefix)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Network>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let (address, prefix) = text.split_once('/').unwrap_or((&text, ""));
        let address: IpAddr = address.parse().map_err(D::Error::custom)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = if prefix.is_empty() { most } else { prefix.parse().map_err(D::Error::custom)? };
        if prefix > most {
            return Err(D::Error::custom(format!("/{prefix} is more than /{most}")));
        }
        Ok(Some(Network { address, prefix }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_word() {
        let of = |text: &str| serde_json::from_value::<Filter>(serde_json::json!({ "client": text }));
        for (text, expected) in [("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.1", "10.0.0.1/32"), ("::1", "::1/128")] {
            let json = serde_json::to_value(of(text).unwrap()).unwrap();
            assert_eq!(json["client"], expected);
        }
        for wrong in ["10.0.0.0/33", "x", "10.0.0.0/y"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(serde_json::from_str::<Filter>("{}").unwrap().client, None);
    }
}
