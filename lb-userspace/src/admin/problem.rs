//! Errors of the API: a [`QueryError`] or a refused request becomes one `application/problem+json` document (RFC 9457).

use axum::{
    extract::rejection::{JsonRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::control::{
    api::{Problem, problem_type},
    query::QueryError,
};

/// The media type of RFC 9457.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A problem on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal(Problem);

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        let (kind, title, detail) = (kind.to_owned(), title.to_owned(), detail.into());
        Self(Problem { kind, title, status: status.as_u16(), detail })
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, problem_type::INVALID, "Invalid request", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, problem_type::NOT_FOUND, "Not found", detail)
    }

    pub(super) fn failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, problem_type::FAILED, "Failed", detail)
    }

    pub(super) fn timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, problem_type::TIMEOUT, "No answer in time", detail)
    }

    /// A reload that was refused: an invalid file is a kind of its own, since `lbctl` exits differently.
    pub(super) fn of_reload(error: QueryError) -> Self {
        match error {
            QueryError::Invalid(detail) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                problem_type::CONFIG_INVALID,
                "The configuration is not valid; the one in force stays",
                detail,
            ),
            QueryError::NotFound(_) | QueryError::Conflict(_) | QueryError::Failed(_) => error.into(),
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NotFound(detail) => Self::not_found(detail),
            QueryError::Invalid(detail) => Self::invalid(detail),
            QueryError::Conflict(detail) => Self::new(StatusCode::CONFLICT, problem_type::CONFLICT, "Conflict", detail),
            QueryError::Failed(detail) => Self::failed(detail),
        }
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), problem_type::INVALID, "Invalid request", rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        response
    }
}
