//! HTTP/1.1: one request, one answer, the connection is closed. Redirects are not followed: they are statuses like others.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    machine::Outcome,
    probe::{self, MOST_BYTES, Verdict, failed},
    tcp::{self, Io, Pace},
    tls::Client,
};
use crate::control::probe::{Http, Pattern};

/// The most header fields of an answer.
const MOST_FIELDS: usize = 256;

/// Asks, and judges the answer.
pub(super) async fn check(address: SocketAddr, http: &Http, tls: Option<&Client>) -> Verdict {
    let host = http.host.clone().unwrap_or_else(|| host(address, tls.is_some()));
    let io = tcp::open(address, tls, without_port(&host)).await?;
    let mut connecting = http1::Builder::new();
    connecting.max_buf_size(MOST_BYTES).max_headers(MOST_FIELDS);
    let io = TokioIo::new(Bounded { io, left: 2 * MOST_BYTES });
    let (mut sender, connection) = connecting.handshake(io).await.map_err(|error| probe::of_chain(&error))?;
    let request = request(http, &host)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| probe::of_chain(&error))?;
        judge(http, response).await
    };
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange);
    tokio::select! {
        verdict = &mut exchange => verdict,
        // It ends before the exchange when the node closes early; the exchange knows what that means.
        _ = &mut connection => exchange.await,
    }
}

/// As a browser would write it.
fn host(address: SocketAddr, secure: bool) -> String {
    let usual = if secure { 443 } else { 80 };
    match (address.port() == usual, address.is_ipv6()) {
        (true, true) => format!("[{}]", address.ip()),
        (true, false) => address.ip().to_string(),
        (false, _) => address.to_string(),
    }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn request(http: &Http, host: &str) -> Result<Request<Empty<&'static [u8]>>, Outcome> {
    // The configuration was checked: what is wrong here is no fault of the node.
    let wrong = |error: http::Error| Outcome::Untested(format!("no request can be made of the monitor: {error}"));
    let path: Uri = http.path.parse().map_err(|error: http::uri::InvalidUri| wrong(error.into()))?;
    let mut request = Request::builder().method(http.method.as_str()).uri(path).header(header::HOST, host);
    request = request.header(header::CONNECTION, "close");
    let fields = request.headers_mut();
    if let Some(fields) = fields {
        for (name, value) in [("user-agent", concat!("lb/", env!("CARGO_PKG_VERSION"))), ("accept", "*/*")] {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        for (name, value) in &http.headers {
            let name = HeaderName::try_from(name).map_err(|error| wrong(error.into()))?;
            fields.insert(name, HeaderValue::try_from(value).map_err(|error| wrong(error.into()))?);
        }
    }
    request.body(Empty::new()).map_err(wrong)
}

async fn judge(http: &Http, response: Response<Incoming>) -> Verdict {
    let status = response.status().as_u16();
    if !http.statuses.iter().any(|range| (range.0..=range.1).contains(&status)) {
        return failed(format!("status {status}"));
    }
    match &http.body {
        Some(pattern) => judge_body(pattern, response.into_body()).await,
        None => Ok(()),
    }
}

/// Reads no more than is needed to see the pattern.
async fn judge_body(pattern: &Pattern, mut body: Incoming) -> Verdict {
    let (mut read, mut pace) = (Vec::new(), Pace::default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| probe::of_chain(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        read.extend_from_slice(&data[..data.len().min(MOST_BYTES - read.len())]);
        if pattern.end_of_match(&read).is_some() {
            return Ok(());
        }
        if read.len() >= MOST_BYTES {
            return failed(format!("the first {MOST_BYTES} bytes of the body do not match"));
        }
        pace.wait().await;
    }
    // Also a pattern that matches nothing at all.
    if pattern.end_of_match(&read).is_some() {
        return Ok(());
    }
    failed(format!("the body does not match: {}", probe::repeat(&read)))
}

/// A connection that ends when more than a sound answer has come: a flood of 1xx answers has no other end.
struct Bounded {
    io: Box<dyn Io>,
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the answer is too long")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
