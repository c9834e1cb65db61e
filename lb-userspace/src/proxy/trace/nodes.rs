//! Which nodes of a pool a traced request may get, and why.

use std::time::Duration;

use super::Out;
use crate::{
    control::{
        plan::Admission,
        proxy::{
            ProxyPlan,
            pool::{Failure, Key, NodeChange, Persistence, PersistenceKind, Scheduler},
            trace::{Candidate, UrlTraceView},
        },
    },
    proxy::{
        facts::RequestFacts,
        pool::{NodeSet, Pool, Pools, Shared, Thread},
    },
};

/// Choices that are compared: when all of them are the same node, the request itself decides.
const SAMPLES: u64 = 8;

/// The clock of pools that are only asked.
const NOW: Duration = Duration::from_secs(1);

/// Fills in what pools say.
pub(super) fn ask(plan: &ProxyPlan, out: &Out, name: &str, facts: &RequestFacts<'_>, view: &mut UrlTraceView) {
    view.pool = Some(name.to_owned());
    let mut plan = plan.clone();
    for (pool, node) in out.keys() {
        if let Some(node) = plan.pools.get_mut(pool).and_then(|pool| pool.nodes.get_mut(node)) {
            node.admission = Admission::Nothing;
        }
    }
    let pools = Pools::compile(&plan, &Shared::new(), None, Thread { index: 0, count: 1 }, NOW);
    let Some(first) = pools.id(name) else { return };
    let chosen: Vec<_> = (0..SAMPLES)
        .filter_map(|sample| {
            let random = sample.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let lease = pools.choose(first, facts, &NodeSet::default(), NOW, random).ok()?;
            Some((lease.pool().name().to_owned(), lease.node().name().to_owned()))
        })
        .collect();
    let in_use = chosen.first().map_or(name, |(pool, _)| pool.as_str());
    view.pool_in_use = Some(in_use.to_owned());
    if in_use != name {
        view.verdict.push_str(&format!("; no node of it is live, so pool {in_use:?} stands in"));
    }
    let Some(pool) = pools.id(in_use).and_then(|id| pools.pool(id)) else { return };
    if chosen.is_empty() {
        view.verdict.push_str("; no node of it is live: the error page is sent");
    }
    view.persistence = pool.settings().persistence.as_ref().map(persistence);
    let fixed = decided(pool, &chosen);
    let ready = pool.candidates(NOW);
    let nodes = plan.pools.get(in_use).into_iter().flat_map(|pool| &pool.nodes);
    view.nodes = nodes
        .map(|(node, settings)| {
            let change = out.get(&(in_use.to_owned(), node.clone()));
            let may_serve = match &fixed {
                Some(one) => one == node,
                None => ready.iter().any(|name| name == node),
            };
            let why = match (change, settings.admission) {
                (Some(change), _) => left_out(*change),
                (None, _) if settings.addresses.is_empty() => "its name has no address".to_owned(),
                (None, Admission::Nothing) => "disabled, or down".to_owned(),
                (None, Admission::Tracked) => "draining: it keeps the clients that it has".to_owned(),
                (None, Admission::All) if may_serve && fixed.is_some() => {
                    "what the request says leads to it".to_owned()
                }
                (None, Admission::All) if may_serve => "it may be its turn".to_owned(),
                (None, Admission::All) if fixed.is_some() => "the request leads to another".to_owned(),
                (None, Admission::All) => "nodes of a higher priority serve".to_owned(),
            };
            Candidate {
                node: node.clone(),
                addresses: settings.addresses.clone(),
                admission: settings.admission,
                weight: settings.weight,
                priority: settings.priority,
                may_serve,
                why,
            }
        })
        .collect();
}

/// The node that the request itself decides on, by a hash or a cookie of ours.
fn decided(pool: &Pool, chosen: &[(String, String)]) -> Option<String> {
    let persistence = pool.settings().persistence.as_ref().map(|persistence| &persistence.kind);
    let hashed = match &pool.settings().scheduler {
        Scheduler::ConsistentHash(
            Key::ClientAddress { .. } | Key::Header(_) | Key::Cookie(_) | Key::Query(_) | Key::Path | Key::Host,
        ) => true,
        Scheduler::RoundRobin
        | Scheduler::WeightedRoundRobin
        | Scheduler::LeastConnections
        | Scheduler::WeightedLeastConnections
        | Scheduler::FastestResponse
        | Scheduler::Perceptive
        | Scheduler::RandomOfTwo => false,
    };
    let by_cookie = matches!(persistence, Some(PersistenceKind::Cookie { .. }));
    let (_, first) = chosen.first()?;
    let same = chosen.iter().all(|(_, node)| node == first);
    ((hashed || by_cookie) && same && pool.candidates(NOW).len() > 1).then(|| first.clone())
}

fn left_out(change: NodeChange) -> String {
    match change {
        NodeChange::Out { reason, in_a_row } => {
            let what = match reason {
                Failure::Connect => "failed connects",
                Failure::EarlyClose => "connections closed before a response",
                Failure::ReplyTimeout => "replies that did not come in time",
                Failure::Status => "bad statuses",
            };
            format!("out by passive monitoring: {in_a_row} {what} in a row")
        }
        NodeChange::Back => "back since a moment".to_owned(),
    }
}

fn persistence(persistence: &Persistence) -> String {
    let by_table = |what: &str| format!("{what}; the worker remembers which node a client has");
    match &persistence.kind {
        PersistenceKind::SourceAddress { prefix4, prefix6 } => {
            by_table(&format!("by the client's address (/{prefix4}, /{prefix6})"))
        }
        PersistenceKind::Cookie { name, .. } => format!("by cookie {name}, which is ours and says which node"),
        PersistenceKind::ApplicationCookie(name) => by_table(&format!("by the application's cookie {name}")),
        PersistenceKind::Header(name) => by_table(&format!("by header field {name}")),
        PersistenceKind::Query(name) => by_table(&format!("by parameter {name} of the query")),
        PersistenceKind::Jsession => by_table("by JSESSIONID"),
        PersistenceKind::AspNet => by_table("by ASP.NET's session"),
        PersistenceKind::TlsSession => by_table("by the TLS session"),
    }
}
