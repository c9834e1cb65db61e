//! Answers of our own: refusals, failures, with `Proxy-Status` and a page.

use crate::{
    control::proxy::http::{ErrorPage, Http},
    proxy::{
        h1::{Framing, request::Refusal, write},
        upstream::failure::{Fault, Verdict},
    },
};

/// An answer of our own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// What `Proxy-Status` says after our name, RFC 9209 §2.
    pub(super) error: &'a str,
    pub(super) details: &'a str,
    /// Whether the connection is closed after it.
    pub(super) close: bool,
    /// Whether the request was HEAD: the body is told, not sent.
    pub(super) is_head: bool,
    /// When the client may come again, in seconds.
    pub(super) retry_after_s: Option<u32>,
}

impl Answer<'static> {
    /// To a request that is refused: both sides are closed.
    pub(super) fn to_refused(refusal: Refusal) -> Self {
        let error = "http_request_error";
        let (status, details) = (refusal.status(), refusal.reason());
        Self { status, error, details, close: true, is_head: false, retry_after_s: None }
    }

    /// To a request whose head did not come in time.
    pub(super) fn too_slow() -> Self {
        let (error, details) = ("http_request_error", "head-timeout");
        Self { status: 408, error, details, close: true, is_head: false, retry_after_s: None }
    }
}

/// The page of a virtual server for a failure: `None` for the short one of ours, and for failures that are the client's.
pub(super) fn page(http: &Http, fault: Fault) -> Option<&ErrorPage> {
    match (&http.error_page, fault) {
        (ErrorPage::Builtin, _) | (_, Fault::Client) => None,
        (page @ (ErrorPage::Own { .. } | ErrorPage::Close), Fault::Node | Fault::Proxy) => Some(page),
    }
}

/// Appends the answer with the short page of ours.
pub(super) fn write_builtin(out: &mut Vec<u8>, answer: &Answer<'_>) {
    let text = reason(answer.status);
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><head><title>{status} {text}</title></head>\n<body><h1>{status} {text}</h1></body></html>\n",
        status = answer.status,
    );
    write_answer(out, answer, "text/html; charset=utf-8", &[], body.as_bytes());
}

/// Appends the answer with a page of the virtual server's.
pub(super) fn write_own(
    out: &mut Vec<u8>,
    answer: &Answer<'_>,
    content_type: &str,
    fields: &[(String, String)],
    body: &[u8],
) {
    write_answer(out, answer, content_type, fields, body);
}

fn write_answer(out: &mut Vec<u8>, answer: &Answer<'_>, content_type: &str, fields: &[(String, String)], body: &[u8]) {
    write::status_line(out, answer.status, reason(answer.status).as_bytes());
    write_date(out);
    let status = format!("lb; error={}; details=\"{}\"", answer.error, answer.details);
    let own = [("Content-Type", content_type), ("Cache-Control", "no-store"), ("Proxy-Status", &status)];
    let given = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.into_iter().chain(given) {
        // A field that is none was refused with the configuration; nothing is better than a broken head.
        let _ = write::field(out, name.as_bytes(), value.as_bytes());
    }
    if let Some(seconds) = answer.retry_after_s {
        out.extend_from_slice(format!("Retry-After: {seconds}\r\n").as_bytes());
    }
    if answer.status == 405 {
        out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n");
    }
    write::framing(out, Framing::Length(body.len() as u64));
    if answer.close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !answer.is_head {
        out.extend_from_slice(body);
    }
}

/// Appends `Date`, RFC 9110 §6.6.1.
pub(super) fn write_date(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The answer to a failure.
pub(super) fn of_verdict(verdict: Verdict, details: &str, close: bool, is_head: bool) -> Answer<'_> {
    Answer { status: verdict.status, error: verdict.error, details, close, is_head, retry_after_s: None }
}

/// The usual text of a status.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
