//! JSON posted to a URL: one request on a connection of its own. Redirects are not followed, and of the answer only the
//! status counts (THREATS A9).

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;

use crate::{
    alerts::{
        Failure,
        net::{self, Local, Stream},
        notice::Notice,
    },
    config::{alert::Webhook, proxy::Host},
};

/// The longest answer that is read before the connection is closed.
const MOST_ANSWER: usize = 64 << 10;

pub(in crate::alerts) async fn send(
    webhook: &Webhook,
    secret: &[u8],
    tls: Option<&TlsConnector>,
    notice: &Notice,
) -> Result<(), Failure> {
    let local = if webhook.allow_local { Local::Allowed } else { Local::Refused };
    let stream = net::connect(&webhook.server, local).await?;
    let stream: Box<dyn Stream> = match (webhook.is_tls, tls) {
        (false, _) => Box::new(stream),
        (true, Some(connector)) => net::secure(connector, &webhook.server, stream).await?,
        (true, None) => return Err(Failure::never("there is no authority to verify the server by".to_owned())),
    };
    let request = request(webhook, secret, notice)?;
    let broken = |error: hyper::Error| Failure::again(format!("HTTP: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken);
    let outcome = match response {
        Ok(response) => {
            let status = response.status();
            // Read so that the server sees a clean end; what it says is not looked at.
            let _ = Limited::new(response.into_body(), MOST_ANSWER).collect().await;
            judge(status)
        }
        Err(error) => Err(error),
    };
    connection.abort();
    outcome
}

fn judge(status: StatusCode) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    let why = format!("the answer is {}", status.as_u16());
    if status.is_redirection() {
        return Err(Failure::never(format!("{why}: redirects are not followed")));
    }
    let may_pass = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    Err(if may_pass { Failure::again(why) } else { Failure::never(why) })
}

fn request(webhook: &Webhook, secret: &[u8], notice: &Notice) -> Result<Request<Full<Bytes>>, Failure> {
    let never = |error: &dyn std::fmt::Display| Failure::never(error.to_string());
    let host = match &webhook.server.host {
        Host::Ip(ip) => std::net::SocketAddr::new(*ip, webhook.server.port).to_string(),
        Host::Name(name) if webhook.server.port == if webhook.is_tls { 443 } else { 80 } => name.clone(),
        Host::Name(name) => format!("{name}:{}", webhook.server.port),
    };
    let mut request = Request::post(&webhook.path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("lbd/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    if let Some((name, value)) = header(secret)? {
        request = request.header(name, value);
    }
    request.body(Full::from(notice.json().to_string())).map_err(|error| never(&error))
}

/// The secret field of a file: `Name: value`, or a value alone for `Authorization`.
fn header(secret: &[u8]) -> Result<Option<(HeaderName, HeaderValue)>, Failure> {
    let secret = secret.trim_ascii();
    if secret.is_empty() {
        return Ok(None);
    }
    // Never quoted: it is a secret.
    let wrong = || Failure::never("header_file holds no header field as \"Name: value\"".to_owned());
    let (name, value) = match secret.iter().position(|byte| *byte == b':') {
        Some(colon) => (HeaderName::from_bytes(&secret[..colon]).map_err(|_| wrong())?, &secret[colon + 1..]),
        None => (AUTHORIZATION, secret),
    };
    let mut value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_decide_whether_it_is_tried_again() {
        for (status, expected) in [
            (200, Ok(())),
            (204, Ok(())),
            (301, Err(false)),
            (400, Err(false)),
            (404, Err(false)),
            (429, Err(true)),
            (503, Err(true)),
        ] {
            let outcome = judge(StatusCode::from_u16(status).unwrap()).map_err(|failure| failure.again);
            assert_eq!(outcome, expected, "{status}");
        }
    }

    #[test]
    fn secret_fields_are_read_and_never_quoted() {
        let field = |text: &str| {
            header(text.as_bytes())
                .map(|found| found.map(|(name, value)| format!("{name}={}", value.to_str().unwrap())))
        };
        assert_eq!(field("X-Token: abc\n").unwrap().as_deref(), Some("x-token=abc"));
        assert_eq!(field("Bearer abc\n").unwrap().as_deref(), Some("authorization=Bearer abc"));
        assert_eq!(field("\n").unwrap(), None);
        for wrong in ["X-Token: CANARY-7f3a\nHost: b", "X Token: CANARY-7f3a"] {
            let failure = field(wrong).unwrap_err();
            assert!(!failure.why.contains("CANARY"), "{failure:?}");
        }
    }
}
