//! What limits and rules say about a request before it goes to a pool, and how what they say is written.

use std::time::Duration;

use super::answer;
use crate::proxy::{
    facts::{Facts, RequestFacts, RequestId},
    h1::{Framing, request::RequestHead, write},
    pool::PoolId,
    reactor,
    rules::{Edits, HeaderEdits, Scope, Verdict},
    stats::Refused,
    worker::{
        plan::{Compiled, VirtualServer},
        thread::{Worker, now},
    },
};

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// A pool serves it; `None`: there is none for it.
    Forward(Option<PoolId>),
    /// We answer: body, media type, location and fields are in the edits.
    Answer { status: u16, retry_after: Option<Duration>, refused: Refused },
    /// The connection is closed without an answer.
    Drop,
}

/// What tells the request apart, for its rules and who is told of it; without any it costs nothing.
pub(super) fn request_id(worker: &Worker, server: &VirtualServer) -> RequestId {
    if server.hits.is_empty() && !server.is_watched() {
        return RequestId::default();
    }
    RequestId(u128::from(worker.random()) << 64 | u128::from(worker.random()))
}

/// Asks limits and rules, in this order.
pub(super) fn decide(
    plan: &Compiled,
    server: &VirtualServer,
    facts: &RequestFacts<'_>,
    request_id: RequestId,
    edits: &mut Edits,
) -> Decision {
    if server.limits.request(facts.client(), now()).is_err() {
        return Decision::Answer { status: 429, retry_after: None, refused: Refused::RequestsPerClient };
    }
    let Some(rules) = &server.rules else { return Decision::Drop };
    if server.hits.is_empty() {
        return Decision::Forward(server.pool);
    }
    let scope = Scope {
        facts,
        response: None,
        virtual_server: &server.name,
        pool: "",
        node: "",
        request_id,
        now: now(),
        unix_s: reactor::unix().as_secs(),
        hits: &server.hits,
    };
    match rules.evaluate_request(&scope, edits) {
        Verdict::Continue => Decision::Forward(server.pool),
        // Rules are compiled for the plan whose pools these are.
        Verdict::Pool(pool) => Decision::Forward(plan.pools.pool(pool).map(|pool| pool.id())),
        other @ (Verdict::Respond { .. }
        | Verdict::Redirect { .. }
        | Verdict::Limited { .. }
        | Verdict::Refuse { .. }
        | Verdict::Drop) => of_verdict(other),
    }
}

/// What a verdict other than a pool means.
pub(super) fn of_verdict(verdict: Verdict) -> Decision {
    let answer = |status, refused| Decision::Answer { status, retry_after: None, refused };
    match verdict {
        Verdict::Continue | Verdict::Pool(_) => Decision::Forward(None),
        Verdict::Respond { status } | Verdict::Redirect { status } => answer(status, Refused::Rule),
        Verdict::Limited { status, retry_after } => {
            let refused = if status == 429 { Refused::Rate } else { Refused::RuleConnections };
            Decision::Answer { status, retry_after, refused }
        }
        Verdict::Refuse { status } => answer(status, Refused::RuleText),
        Verdict::Drop => Decision::Drop,
    }
}

/// Names of the request's fields that rules take out.
pub(super) fn removed<'a>(head: &RequestHead<'a>, edits: &Edits) -> Vec<&'a str> {
    if edits.request.is_empty() {
        return Vec::new();
    }
    let names = head.fields().filter_map(|field| std::str::from_utf8(field.name).ok());
    names.filter(|name| edits.request.removes(&name.to_ascii_lowercase())).collect()
}

/// Appends the fields that rules add.
pub(super) fn write_added(out: &mut Vec<u8>, edits: &HeaderEdits) {
    for (name, value) in edits.added() {
        // Names were checked when the rules were compiled, values when they were expanded.
        let _ = write::field(out, name.as_bytes(), value.as_bytes());
    }
}

/// Appends the answer of a rule or a limit.
pub(super) fn write_answer(
    out: &mut Vec<u8>,
    status: u16,
    retry_after: Option<Duration>,
    edits: &Edits,
    close: bool,
    is_head: bool,
) {
    write::status_line(out, status, answer::reason(status).as_bytes());
    answer::write_date(out);
    for (name, value) in [("Location", edits.location()), ("Content-Type", edits.content_type())] {
        if !value.is_empty() {
            // Checked when it was expanded.
            let _ = write::field(out, name.as_bytes(), value.as_bytes());
        }
    }
    if let Some(wait) = retry_after {
        let seconds = wait.as_secs().max(1).to_string();
        let _ = write::field(out, b"Retry-After", seconds.as_bytes());
    }
    write_added(out, &edits.response);
    write::framing(out, Framing::Length(edits.body().len() as u64));
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(edits.body().as_bytes());
    }
}
