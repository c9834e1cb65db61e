//! Compression of responses by us: gzip, Brotli, Zstandard, as the client prefers. Off unless configured.
//!
//! **BREACH (H14)**: whoever can make a browser send requests and see the size of encrypted answers can guess a secret that a
//! compressed answer has beside text of the attacker's choice. Applications that echo requests beside secrets should not be
//! compressed, or mask their secrets. So compression is off by default, and never begun for an answer that sets a cookie.
//!
//! Nothing is ever decompressed here: there is no decompression bomb to fear.

mod accept;
mod encoder;

use std::borrow::Cow;

pub use encoder::Encoder;

use super::{
    facts::{Facts, ResponseFacts},
    rules::HeaderEdits,
};
use crate::control::proxy::http::{Coding, Http};

/// What is to be done with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is not of a kind that is compressed.
    Leave,
    /// Sent as it is, because of what the client accepts: caches must know (`Vary`).
    Identity,
    /// Compressed.
    Encode(Coding),
}

impl Coding {
    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Decides for a response whose body has `length` bytes, where that is known.
#[must_use]
pub fn decide(http: &Http, request: &dyn Facts, response: &dyn ResponseFacts, length: Option<u64>) -> Decision {
    if http.compression.is_empty() || !is_compressible(http, request, response, length) {
        return Decision::Leave;
    }
    match request.header("accept-encoding").and_then(|accepted| accept::choose(&accepted, &http.compression)) {
        Some(coding) => Decision::Encode(coding),
        None => Decision::Identity,
    }
}

fn is_compressible(http: &Http, request: &dyn Facts, response: &dyn ResponseFacts, length: Option<u64>) -> bool {
    let status = response.status();
    let has_body = request.method() != "HEAD" && status >= 200 && ![204, 205, 304].contains(&status);
    // 206: a range of the node's bytes is no range of ours. HTTP/1.0 clients seldom decode and know no chunks.
    if !has_body || status == 206 || request.version() == "1.0" {
        return false;
    }
    if length.is_some_and(|length| length == 0 || length < http.compression_min_bytes) {
        return false;
    }
    // Digests are of the bytes that the node sent; who sent them wants these bytes to arrive.
    let untouchable = ["content-encoding", "content-range", "set-cookie", "content-digest", "digest", "content-md5"];
    if untouchable.iter().any(|name| response.header(name).is_some_and(|value| !value.eq_ignore_ascii_case("identity")))
    {
        return false;
    }
    let no_transform =
        |value: Cow<'_, str>| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("no-transform"));
    let forbidden = response.header("cache-control").is_some_and(no_transform)
        || request.header("cache-control").is_some_and(no_transform);
    !forbidden && response.header("content-type").is_some_and(|media| is_text(&media))
}

/// Whether bodies of a media type shrink.
fn is_text(media: &str) -> bool {
    const TYPES: [&str; 12] = [
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/wasm",
        "application/x-javascript",
        "application/xml",
        "application/x-ndjson",
        "application/graphql",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/x-icon",
    ];
    let media = media.split(';').next().unwrap_or("").trim();
    let ends = |suffix: &str| {
        media
            .len()
            .checked_sub(suffix.len())
            .and_then(|at| media.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    media.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
        || ends("+json")
        || ends("+xml")
        || TYPES.iter().any(|known| media.eq_ignore_ascii_case(known))
}

/// What changes in the head of the response. The engine takes the length out by its choice of framing.
pub fn edit_head(decision: Decision, response: &dyn ResponseFacts, edits: &mut HeaderEdits) {
    let coding = match decision {
        Decision::Leave => return,
        Decision::Identity => None,
        Decision::Encode(coding) => Some(coding),
    };
    let vary = response.header("vary").unwrap_or_default();
    if !vary.split(',').any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("accept-encoding")) {
        let separator = if vary.is_empty() { "" } else { ", " };
        edits.set("vary", &format!("{vary}{separator}Accept-Encoding"));
    }
    let Some(coding) = coding else { return };
    edits.set("content-encoding", coding.name());
    edits.remove("accept-ranges");
    edits.remove("content-length");
    // The bytes are others, the meaning is the same: RFC 9110 §8.8.1.
    if let Some(tag) = response.header("etag").filter(|tag| tag.starts_with('"')) {
        edits.set("etag", &format!("W/{tag}"));
    }
}

#[cfg(test)]
mod tests;
