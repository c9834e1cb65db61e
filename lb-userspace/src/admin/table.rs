//! The table of routes: of each its method, its path, who may use it, what it says of itself and who answers.
//!
//! The router, the check of rights, the audit log and the OpenAPI document are all made from these rows, so that none of
//! them knows a route that the others do not. A row cannot be written without a right: what nobody thought of is refused.

use std::time::Duration;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    middleware,
    routing::{MethodRouter, delete, get, patch, post, put},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{Backend, access::guard};
use crate::control::access::Role;

/// Largest request body where a row says nothing else.
const MAX_BODY: usize = 64 * 1024;

/// Time for a request, body and answer included, where a row says nothing else.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Everybody: it tells nothing of the machine.
    Nothing,
    /// Whoever has proved who it is.
    Identity,
    /// Whoever has this role, or a greater one.
    Role(Role),
}

impl From<Role> for Needs {
    fn from(role: Role) -> Self {
        Self::Role(role)
    }
}

/// What is done before a handler runs, and after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    /// Whether it is written to the audit log: it changes something, or shows what clients send.
    pub(super) changes: bool,
    /// Time for the request; `None`: as long as it takes (streams).
    pub(super) limit: Option<Duration>,
}

/// How the schema of a type is had, once there is a generator.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A row of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) terms: Terms,
    /// What it does, in one line.
    pub(super) summary: &'static str,
    /// Its query, as an object of parameters.
    pub(super) query: Option<SchemaOf>,
    /// Its body; `None`: any or none.
    pub(super) body: Option<SchemaOf>,
    /// Its answer; `None`: not JSON, or of many shapes.
    pub(super) answer: Option<SchemaOf>,
    /// Media type of the answer.
    pub(super) media: &'static str,
    max_body: usize,
    handler: MethodRouter<Backend>,
}

impl Route {
    fn new(
        method: &'static str,
        path: &'static str,
        needs: impl Into<Needs>,
        summary: &'static str,
        handler: MethodRouter<Backend>,
    ) -> Self {
        let changes = method != "GET";
        let terms = Terms { method, path, needs: needs.into(), changes, limit: Some(REQUEST_TIMEOUT) };
        let (query, body, answer) = (None, None, None);
        Self { terms, summary, query, body, answer, media: "application/json", max_body: MAX_BODY, handler }
    }

    pub(super) fn get<H, T>(path: &'static str, needs: impl Into<Needs>, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Backend>,
        T: 'static,
    {
        Self::new("GET", path, needs, summary, get(handler))
    }

    pub(super) fn post<H, T>(path: &'static str, needs: impl Into<Needs>, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Backend>,
        T: 'static,
    {
        Self::new("POST", path, needs, summary, post(handler))
    }

    pub(super) fn put<H, T>(path: &'static str, needs: impl Into<Needs>, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Backend>,
        T: 'static,
    {
        Self::new("PUT", path, needs, summary, put(handler))
    }

    pub(super) fn patch<H, T>(path: &'static str, needs: impl Into<Needs>, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Backend>,
        T: 'static,
    {
        Self::new("PATCH", path, needs, summary, patch(handler))
    }

    pub(super) fn delete<H, T>(path: &'static str, needs: impl Into<Needs>, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Backend>,
        T: 'static,
    {
        Self::new("DELETE", path, needs, summary, delete(handler))
    }

    /// It asks, whatever its method is: nothing for the audit log.
    pub(super) fn asks(mut self) -> Self {
        self.terms.changes = false;
        self
    }

    /// It shows what no other answer shows: who asked is written to the audit log.
    pub(super) fn recorded(mut self) -> Self {
        self.terms.changes = true;
        self
    }

    /// It may take so long; `None`: as long as its client likes.
    pub(super) fn within(mut self, limit: Option<Duration>) -> Self {
        self.terms.limit = limit;
        self
    }

    /// Its body may have so many bytes.
    pub(super) fn takes_up_to(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    pub(super) fn queries<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| T::json_schema(generator));
        self
    }

    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    pub(super) fn answers<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Its answer is of this media type.
    pub(super) fn with_media(mut self, media: &'static str) -> Self {
        self.media = media;
        self
    }
}

/// The router of a table: each row behind its guard.
pub(super) fn router(rows: Vec<Route>, backend: &Backend) -> Router<Backend> {
    rows.into_iter().fold(Router::new(), |router, Route { terms, max_body, handler, .. }| {
        let access = backend.access.clone();
        let guard = middleware::from_fn(move |request, next| guard(access.clone(), terms, request, next));
        router.route(terms.path, handler.layer(DefaultBodyLimit::max(max_body)).layer(guard))
    })
}
