//! Errors of the API: a [`QueryError`] or a refused request becomes one `application/problem+json` document (RFC 9457).

use std::time::Duration;

use axum::{
    body::to_bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::control::{
    api::{FieldError, Problem, problem_type},
    query::QueryError,
};

/// The media type of RFC 9457.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A problem on its way to the client, and after how many seconds it may try again.
#[derive(Debug)]
pub(super) struct Refusal(Problem, Option<u64>);

/// What a refusal says, for the audit log: an extension of the response.
#[derive(Clone, Debug)]
pub(super) struct Detail(pub(super) String);

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        let (kind, title, detail) = (kind.to_owned(), title.to_owned(), detail.into());
        Self(Problem { kind, title, status: status.as_u16(), detail, errors: Vec::new() }, None)
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, problem_type::INVALID, "Invalid request", detail)
    }

    /// Says where in the body it is wrong: a JSON pointer (RFC 6901).
    pub(super) fn at(mut self, pointer: String) -> Self {
        self.0.errors.push(FieldError { pointer, detail: self.0.detail.clone() });
        self
    }

    /// The same words whatever was wrong with the credentials.
    pub(super) fn unauthenticated() -> Self {
        let detail = "log in (POST /api/v1/session), or send Authorization: Bearer with a token that is valid";
        Self::new(StatusCode::UNAUTHORIZED, problem_type::UNAUTHENTICATED, "Not authenticated", detail)
    }

    /// A request by a session's cookie that no page of ours made.
    pub(super) fn forged() -> Self {
        let detail = "a request with a session's cookie needs the header X-CSRF-Token that the login answered, and the Origin of \
                      this API";
        Self::new(StatusCode::FORBIDDEN, problem_type::FORBIDDEN, "Forbidden", detail)
    }

    /// Not before this time.
    pub(super) fn wait(time: Duration) -> Self {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let detail = format!("too many attempts or requests: try again in {seconds} s");
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, problem_type::TOO_MANY, "Too many requests", detail);
        refusal.1 = Some(seconds);
        refusal
    }

    #[cfg(test)]
    pub(super) fn problem(&self) -> &Problem {
        &self.0
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, problem_type::NOT_FOUND, "Not found", detail)
    }

    pub(super) fn failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, problem_type::FAILED, "Failed", detail)
    }

    pub(super) fn unready() -> Self {
        let detail = "not everything that the configuration says is in force; lbctl status says why";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, problem_type::UNREADY, "Not ready", detail)
    }

    pub(super) fn timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, problem_type::TIMEOUT, "No answer in time", detail)
    }
}

impl Refusal {
    /// An order that was read, and cannot be carried out as it is.
    pub(super) fn of_order(error: QueryError) -> Self {
        match error {
            QueryError::Invalid(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, problem_type::INVALID, "Invalid request", detail)
            }
            QueryError::NotFound(_)
            | QueryError::Conflict(_)
            | QueryError::ConfigInvalid(_)
            | QueryError::Stale(_)
            | QueryError::Failed(_) => error.into(),
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NotFound(detail) => Self::not_found(detail),
            QueryError::Invalid(detail) => Self::invalid(detail),
            QueryError::Conflict(detail) => Self::new(StatusCode::CONFLICT, problem_type::CONFLICT, "Conflict", detail),
            // A kind of its own, since `lbctl` exits differently.
            QueryError::ConfigInvalid(detail) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                problem_type::CONFIG_INVALID,
                "The configuration is not valid; the one in force stays",
                detail,
            ),
            QueryError::Stale(detail) => {
                Self::new(StatusCode::PRECONDITION_FAILED, problem_type::STALE, "Another revision is in force", detail)
            }
            QueryError::Failed(detail) => Self::failed(detail),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let detail = Detail(self.0.detail.clone());
        let mut response = (status, axum::Json(self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        if let Some(seconds) = self.1 {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(detail);
        response
    }
}

/// Every error of the API is a problem document, also those that libraries below answer in words of their own.
pub(super) async fn of_every_error(response: Response) -> Response {
    /// Longest words that are taken over.
    const WORDS: usize = 4096;
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
    if !(status.is_client_error() || status.is_server_error()) || is_problem {
        return response;
    }
    let (parts, body) = response.into_parts();
    let words = to_bytes(body, WORDS).await.unwrap_or_default();
    let detail = String::from_utf8_lossy(&words).into_owned();
    let title = status.canonical_reason().unwrap_or("Refused");
    let detail = if detail.is_empty() { title.to_owned() } else { detail };
    let kind = if status.is_server_error() { problem_type::FAILED } else { problem_type::INVALID };
    let mut response = Refusal::new(status, kind, title, detail).into_response();
    response.headers_mut().extend(
        parts.headers.into_iter().filter(|(name, _)| {
            name.as_ref().is_some_and(|name| *name == header::ALLOW || *name == header::RETRY_AFTER)
        }),
    );
    response
}
