//! Who asks, and whether they may: the guard before every handler.
//!
//! Whoever cannot be told, and whatever no row of the table allows, is refused.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use nix::unistd::{Uid, User};
use tokio::time::timeout;

use super::{
    problem::Refusal,
    table::{Needs, Terms},
};
use crate::control::{access::Role, api::problem_type};

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// How it is known: a user's name.
    pub(super) name: String,
    /// What it may do; `None`: nothing that needs a role.
    pub(super) role: Option<Role>,
    /// How it came.
    pub(super) via: Via,
}

/// How a request came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// By the unix socket, from this process.
    Socket { uid: Option<u32>, pid: Option<i32> },
}

impl Caller {
    /// A process on the unix socket, which only root and the group `lb` can open.
    pub(super) fn local(uid: Option<u32>, pid: Option<i32>) -> Self {
        let user = uid.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten()).map(|user| user.name);
        let name = user.or_else(|| uid.map(|uid| format!("uid {uid}"))).unwrap_or_else(|| "unknown".to_owned());
        Self { name, role: Some(Role::Admin), via: Via::Socket { uid, pid } }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.via {
            Via::Socket { pid: Some(pid), .. } => write!(f, "{} (process {pid})", self.name),
            Via::Socket { pid: None, .. } => f.write_str(&self.name),
        }
    }
}

/// What decides over all requests together.
#[derive(Debug, Default)]
pub struct Access {}

/// Lets a request through to its handler if its caller may, and gives up on one that takes too long: what that started on a
/// blocking thread runs to its end unheard.
pub(super) async fn guard(_access: Arc<Access>, terms: Terms, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    if let Err(refusal) = admit(caller, terms) {
        return refusal.into_response();
    }
    answer(terms.limit, request, next).await
}

/// Whether a caller may use a route.
fn admit(caller: Option<&Caller>, terms: Terms) -> Result<(), Refusal> {
    let role = caller.and_then(|caller| caller.role);
    match (terms.needs, role) {
        (Needs::Nothing, _) | (Needs::Identity, Some(_)) => Ok(()),
        (Needs::Role(needed), Some(role)) if role >= needed => Ok(()),
        (Needs::Role(needed), Some(role)) => {
            let detail = format!("{} {} is for the role {needed}; yours is {role}", terms.method, terms.path);
            Err(Refusal::new(StatusCode::FORBIDDEN, problem_type::FORBIDDEN, "Forbidden", detail))
        }
        (Needs::Role(_) | Needs::Identity, None) => Err(Refusal::unauthenticated()),
    }
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
