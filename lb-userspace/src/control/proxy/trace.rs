//! What the L7 proxy would do with a request, for `lbctl trace URL`: the question and its answer. Answered by
//! `proxy::trace`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::control::plan::Admission;

/// `POST /api/v1/trace_url`: a request that is only thought of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlTraceRequest {
    /// Absolute: `https://www.example.com/path?query`.
    pub url: String,
    /// Method; `None`: GET.
    #[serde(default)]
    pub method: Option<String>,
    /// Header fields, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The client; `None`: 192.0.2.1, an address that nobody has (RFC 5737).
    #[serde(default)]
    pub client: Option<IpAddr>,
    /// The virtual server, where the URL does not say which.
    #[serde(default)]
    pub virtual_server: Option<String>,
}

/// What would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UrlTraceView {
    /// The virtual server that takes it.
    pub virtual_server: String,
    /// The address that it listens on.
    pub local: SocketAddr,
    /// What happens, in one sentence.
    pub verdict: String,
    /// The path as rules see it and nodes get it: normalised.
    pub path: String,
    /// Each rule's outcome, in order.
    pub rules: Vec<Told>,
    /// The pool that is asked; `None`: no node is.
    pub pool: Option<String>,
    /// The pool that serves: another one when its failure pool has to.
    pub pool_in_use: Option<String>,
    /// How its clients are kept on their nodes, in words; `None`: they are not.
    pub persistence: Option<String>,
    /// Nodes of the pool in use.
    pub nodes: Vec<Candidate>,
}

/// A node that may serve, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Candidate {
    /// Its name.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// What it takes.
    pub admission: Admission,
    /// Its share.
    pub weight: u32,
    /// Its priority group.
    pub priority: u32,
    /// Whether it may get this request.
    pub may_serve: bool,
    /// Why, or why not.
    pub why: String,
}

/// A rule's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Told {
    /// `request` or `response`.
    pub phase: String,
    /// The rule.
    pub rule: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why: the comparison that decided.
    pub why: String,
    /// What it did.
    pub did: Vec<String>,
}

/// What came of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its condition holds.
    Matched,
    /// Its condition holds, and it ended the list.
    Ended,
    /// Its condition does not hold.
    NotMatched,
    /// An earlier rule ended the list.
    NotReached,
}
