//! What stands before every handler: who it is, whether they may, how often; and what is written down after it.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use axum::{
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{task::spawn_blocking, time::timeout};

use super::{Access, Caller, Via, lock};
use crate::{
    admin::{
        problem::{Detail, Refusal},
        table::{Needs, Terms},
    },
    control::{access::AuditEntry, api::problem_type},
};

/// What a handler has to say to the audit log. Never a secret.
#[derive(Clone, Debug, Default)]
pub(in crate::admin) struct Note(Arc<Mutex<Noted>>);

#[derive(Clone, Debug, Default)]
struct Noted {
    who: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
}

impl Note {
    /// Who it was, where the request itself did not say.
    pub(in crate::admin) fn who(&self, name: &str) {
        lock(&self.0).who = Some(name.to_owned());
    }

    /// What was there before, and what is there now.
    pub(in crate::admin) fn change(&self, before: Value, after: Value) {
        let mut noted = lock(&self.0);
        (noted.before, noted.after) = (Some(before).filter(|v| !v.is_null()), Some(after).filter(|v| !v.is_null()));
    }
}

/// Lets a request through to its handler if its caller may, and writes down what it changed. Gives up on one that takes too
/// long: what that started on a blocking thread runs to its end unheard.
pub(in crate::admin) async fn guard(access: Arc<Access>, terms: Terms, mut request: Request, next: Next) -> Response {
    let note = Note::default();
    request.extensions_mut().insert(note.clone());
    let caller = request.extensions().get::<Caller>().cloned();
    let path = request.uri().path().to_owned();
    let response = match access.admit(caller.as_ref(), terms, &path) {
        Ok(()) => answer(terms.limit, request, next).await,
        Err(refusal) => refusal.into_response(),
    };
    let class = usize::from(response.status().as_u16() / 100).min(5);
    access.counters.requests[class].fetch_add(1, Ordering::Relaxed);
    if let Some(caller) = caller.filter(|_| terms.changes)
        && access.is_worth_a_line(&caller)
    {
        let entry = entry(&caller, terms.method, &path, &response, &note);
        if spawn_blocking(move || access.record(entry)).await.is_err() {
            tracing::error!("a line of the audit log is lost by a panic");
        }
    }
    response
}

impl Access {
    /// Whether a caller may use a route, now.
    fn admit(&self, caller: Option<&Caller>, terms: Terms, path: &str) -> Result<(), Refusal> {
        let Some(caller) = caller else { return Err(Refusal::unauthenticated()) };
        if let Some(address) = caller.address() {
            let who = if caller.role.is_some() { caller.name.clone() } else { address.to_string() };
            if !lock(&self.rates).take(&who, 1.0, self.now()) {
                return Err(Refusal::wait(Duration::from_secs(1)));
            }
        }
        if let Via::Token { paths, .. } = &caller.via
            && !paths.is_empty()
            && !paths.iter().any(|scope| is_below(path, scope))
        {
            let detail = format!("this token is for {} alone", paths.join(", "));
            return Err(Refusal::new(StatusCode::FORBIDDEN, problem_type::FORBIDDEN, "Forbidden", detail));
        }
        match (terms.needs, caller.role) {
            (Needs::Nothing, _) | (Needs::Identity, Some(_)) => Ok(()),
            (Needs::Role(needed), Some(role)) if role >= needed => Ok(()),
            (Needs::Role(needed), Some(role)) => {
                let detail = format!("{} {} is for the role {needed}; yours is {role}", terms.method, terms.path);
                Err(Refusal::new(StatusCode::FORBIDDEN, problem_type::FORBIDDEN, "Forbidden", detail))
            }
            (Needs::Role(_) | Needs::Identity, None) => Err(Refusal::unauthenticated()),
        }
    }

    /// Strangers can make as many requests as they like: so many of them as one a second get a line each.
    fn is_worth_a_line(&self, caller: &Caller) -> bool {
        let Via::Nobody { .. } = caller.via else { return true };
        // A hundred requests a second is what one caller has: a line costs as much as all of them.
        lock(&self.rates).take("lines of strangers", 100.0, self.now())
    }
}

/// Whether a path is this one or below it; a path that a proxy or a browser would read in another way is neither.
fn is_below(path: &str, scope: &str) -> bool {
    let scope = scope.trim_end_matches('/');
    let rest = path.strip_prefix(scope);
    let is_plain = !path.contains("//") && !path.split('/').any(|part| part == "." || part == "..");
    is_plain && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn answer(limit: Option<Duration>, request: Request, next: Next) -> Response {
    let Some(limit) = limit else { return next.run(request).await };
    let route = request.uri().path().to_owned();
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(route, seconds = limit.as_secs(), "an admin request was given up");
            Refusal::timeout(format!("{route}: no answer within {} s; see lbd's log", limit.as_secs())).into_response()
        }
    }
}

fn entry(caller: &Caller, method: &str, path: &str, response: &Response, note: &Note) -> AuditEntry {
    /// Longest path and explanation that are written down.
    const LONGEST: usize = 1024;
    let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
    let noted = lock(&note.0).clone();
    AuditEntry {
        who: noted.who.map_or_else(|| caller.name.clone(), |who| short(&who)),
        role: caller.role,
        from: caller.place(),
        what: format!("{method} {}", short(path)),
        status: response.status().as_u16(),
        detail: response.extensions().get::<Detail>().map(|Detail(detail)| short(detail)),
        before: noted.before,
        after: noted.after,
        ..AuditEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_ends_at_a_slash() {
        let rows = [
            ("/api/v1/pools", "/api/v1/pools", true),
            ("/api/v1/pools/web", "/api/v1/pools", true),
            ("/api/v1/pools/web", "/api/v1/pools/", true),
            ("/api/v1/pools2", "/api/v1/pools", false),
            ("/api/v1/users", "/api/v1/pools", false),
            ("/api/v1/pools/../users", "/api/v1/pools", false),
            ("/api/v1//users", "/api/v1", false),
            ("/metrics", "/metrics", true),
        ];
        for (path, scope, expected) in rows {
            assert_eq!(is_below(path, scope), expected, "{path} below {scope}");
        }
    }
}
