//! What a request says: its body and its query, read within limits. A mistake is answered as a problem document that says
//! where it is.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::Refusal;
use crate::control::api::problem_type;

/// Deepest nesting of a JSON body.
const MAX_DEPTH: usize = 64;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        // Also keeps out what a browser sends across origins without asking: forms and plain text.
        if !(essence.eq_ignore_ascii_case("application/json")
            || essence.eq_ignore_ascii_case("application/merge-patch+json"))
        {
            let detail = format!("the body is {essence:?}: application/json is understood");
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                problem_type::INVALID,
                "Unsupported media type",
                detail,
            ));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            Refusal::new(error.status(), problem_type::INVALID, "The body cannot be taken", error.body_text())
        })?;
        Ok(Self(read(&bytes)?))
    }
}

/// Reads a JSON document, at most [`MAX_DEPTH`] deep.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if depth(bytes) > MAX_DEPTH {
        return Err(Refusal::invalid(format!("the body is nested deeper than {MAX_DEPTH}")));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                problem_type::INVALID,
                "Invalid request",
                if pointer.is_empty() { error.to_string() } else { format!("{pointer}: {error}") },
            )
            .at(pointer),
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => Refusal::invalid(format!("the body is not JSON: {error}")),
        }
    })?;
    reader.end().map_err(|error| Refusal::invalid(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => {
            format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
        }
        Segment::Unknown => pointer,
    })
}

/// How deep a JSON text is nested; text that is not JSON may seem deeper than it is.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The parameters of a query.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refusal::invalid(rejection.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::NodePatch;

    #[test]
    fn nesting_is_counted_outside_of_texts() {
        let rows = [("", 0), ("1", 0), ("[]", 1), ("[[],[[]]]", 3), (r#"{"a":"[[[[","b":"\"[["}"#, 1), ("]]][", 1)];
        for (text, expected) in rows {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
        }
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read::<serde_json::Value>(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(read::<serde_json::Value>(nested(MAX_DEPTH + 1).as_bytes()).is_err());
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let refused = |text: &str| {
            let error = read::<Vec<NodePatch>>(text.as_bytes()).unwrap_err();
            error.problem().errors.iter().map(|error| error.pointer.clone()).collect::<Vec<_>>()
        };
        assert_eq!(refused(r#"[{}, {"weight": "much"}]"#), ["/1/weight"]);
        assert_eq!(refused(r#"[{}, {"weight": 1}"#), [""; 0]);
        assert_eq!(refused("[] []"), [""; 0]);
    }
}
