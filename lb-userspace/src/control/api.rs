//! The documents of the admin API that are neither a view nor a question: what both of its ends (`admin` and `ctl`)
//! must agree on. Plain values; field names are the JSON keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    plan::Forwarding,
    proxy::stats::Snapshot,
    view::{InterfaceView, NodeState, TableUse, Traffic},
};

/// Where the API's routes begin.
pub const PREFIX: &str = "/api/v1";

/// An error of the API (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problem {
    /// What kind: one of [`problem_type`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What happened, to what, and what to do next.
    pub detail: String,
    /// Where in the request it is wrong, when that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A mistake at a place of the request's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901), such as `/nodes/n1/weight`.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// Values of [`Problem::kind`].
pub mod problem_type {
    /// The named thing does not exist.
    pub const NOT_FOUND: &str = "urn:lb:problem:not_found";
    /// The request makes no sense as it is.
    pub const INVALID: &str = "urn:lb:problem:invalid";
    /// It does not fit the configuration or the state in force.
    pub const CONFLICT: &str = "urn:lb:problem:conflict";
    /// The configuration file is not valid; the one in force stays.
    pub const CONFIG_INVALID: &str = "urn:lb:problem:config_invalid";
    /// Another revision is in force than the one that the request builds on.
    pub const STALE: &str = "urn:lb:problem:stale";
    /// The kernel or lbd's own state refused.
    pub const FAILED: &str = "urn:lb:problem:failed";
    /// Who asks has not proved who it is.
    pub const UNAUTHENTICATED: &str = "urn:lb:problem:unauthenticated";
    /// Who asks may not.
    pub const FORBIDDEN: &str = "urn:lb:problem:forbidden";
    /// Asked too often.
    pub const TOO_MANY: &str = "urn:lb:problem:too_many";
    /// lbd answers, but does not do all that it should.
    pub const UNREADY: &str = "urn:lb:problem:unready";
    /// No answer in time.
    pub const TIMEOUT: &str = "urn:lb:problem:timeout";
}

/// A body that says nothing: of requests that need none, and of answers that are in their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Empty {}

/// `PATCH /api/v1/pools/{name}`: fields that are left out stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolPatch {
    /// How new connections are forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
    /// Undone after so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// `PATCH /api/v1/pools/{pool}/nodes/{node}`: fields that are left out stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// State.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Share of new connections, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Takes in a node that a monitor with manual recovery took out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// State and weight are undone after so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
}

/// `POST /api/v1/vips/{group}/move`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// To this machine; without it to the best other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// `PUT /api/v1/maintenance`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// Whether this machine leaves all VIP groups to the others.
    pub on: bool,
}

/// `GET /api/v1/stats`: every counter at one moment. Counters count from the creation of the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Stats {
    /// Milliseconds of lbd's monotonic clock: rates are differences divided by the difference of this.
    pub clock_ms: u64,
    /// Interfaces, with their reasons.
    pub interfaces: Vec<InterfaceView>,
    /// Fill of the tables.
    pub tables: BTreeMap<String, TableUse>,
    /// Nodes, by virtual server.
    pub nodes: Vec<NodeStats>,
    /// New connections placed by the ring because `flood_limit` was exceeded, by virtual server.
    pub flood_limited: BTreeMap<String, u64>,
    /// What the L7 proxy counted since its worker started.
    #[serde(default)]
    pub proxy: Snapshot,
}

/// Counters of a node within one virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NodeStats {
    /// Virtual server.
    pub virtual_server: String,
    /// Pool.
    pub pool: String,
    /// Node.
    pub node: String,
    /// Active connections.
    pub active: u64,
    /// Connections so far.
    pub connections: u64,
    /// Of these, moved here from failed nodes.
    pub rescheduled: u64,
    /// Brief and long silent DSR connections that were taken out of the full table.
    #[serde(default)]
    pub evicted: u64,
    /// Client → node.
    pub forward: Traffic,
    /// Node → client (NAT only).
    pub reply: Traffic,
}
