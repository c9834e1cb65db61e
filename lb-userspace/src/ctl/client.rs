//! One request at a time to lbd's admin API, HTTP/1.1 over its unix socket or HTTPS.

use std::{path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    runtime::Runtime,
    task::JoinHandle,
    time::timeout,
};

use super::{failure::Failure, remote::Remote};
use crate::control::{
    api::{PREFIX, Problem},
    query::ConnectionFilter,
};

/// Longer than the API's own limits: its error is worth more than ours.
const TIMEOUT: Duration = Duration::from_secs(75);

/// Largest answer taken.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// An answer: as sent, and understood.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) json: String,
    pub(super) value: T,
}

/// Where to ask.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
    runtime: Runtime,
}

/// Where lbd is.
#[derive(Debug)]
enum Place {
    /// On this machine.
    Socket(PathBuf),
    /// On another one.
    Remote(Remote),
}

impl Client {
    /// Of the lbd on this machine.
    pub(super) fn new(socket: PathBuf) -> Result<Self, Failure> {
        Self::at(Place::Socket(socket))
    }

    /// Of an lbd on another machine.
    pub(super) fn remote(remote: Remote) -> Result<Self, Failure> {
        Self::at(Place::Remote(remote))
    }

    fn at(place: Place) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { place, runtime })
    }

    /// Whether lbd is on this machine.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.place, Place::Socket(_))
    }

    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        self.request(Method::DELETE, path, None::<&()>)
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        self.request(Method::GET, path, None::<&()>)
    }

    /// The JSON of a long list as it comes, for those who want no more than that: reading it takes as long as all else together.
    pub(super) fn raw(&self, path: &str) -> Result<String, Failure> {
        let (status, json) = self.send(Method::GET, &format!("{PREFIX}/{path}"), Vec::new())?;
        if status.is_success() {
            Ok(json)
        } else {
            self.understand::<IgnoredAny>(status, json).map(|answer| answer.json)
        }
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<Answer<T>, Failure> {
        self.request(Method::POST, path, Some(body))
    }

    pub(super) fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<Answer<T>, Failure> {
        self.request(Method::PATCH, path, Some(body))
    }

    pub(super) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<Answer<T>, Failure> {
        self.request(Method::PUT, path, Some(body))
    }

    /// Text that is not JSON, from the root of the server.
    pub(super) fn text(&self, path: &str) -> Result<String, Failure> {
        let (status, text) = self.send(Method::GET, path, Vec::new())?;
        if !status.is_success() {
            return Err(self.bad_answer(format!("status {status}")));
        }
        Ok(text)
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer<T>, Failure> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| self.bad_answer(error))?,
            None => Vec::new(),
        };
        let (status, json) = self.send(method, &format!("{PREFIX}/{path}"), body)?;
        self.understand(status, json)
    }

    /// An answer that comes for as long as it likes: each piece as it comes. `false` from `take` ends it.
    pub(super) fn stream(
        &self,
        path: &str,
        take: &mut dyn FnMut(&[u8]) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let request = self.to_request(Method::GET, &format!("{PREFIX}/{path}"), Vec::new())?;
        self.runtime.block_on(async {
            let (response, connection) = match &self.place {
                Place::Socket(socket) => {
                    let stream = UnixStream::connect(socket).await;
                    self.ask_on(stream.map_err(|error| Failure::unreachable(socket.clone(), error))?, request).await
                }
                Place::Remote(remote) => {
                    let stream = remote.connect().await;
                    self.ask_on(stream.map_err(|error| Failure::unreachable_at(&remote.url, error))?, request).await
                }
            }?;
            let (status, mut body) = (response.status(), response.into_body());
            if !status.is_success() {
                let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| self.bad_answer(error))?;
                let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                return self.understand::<Value>(status, text).map(|_| ());
            }
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.bad_answer(error))?;
                if let Some(piece) = frame.data_ref()
                    && !take(piece)?
                {
                    break;
                }
            }
            connection.abort();
            Ok(())
        })
    }

    fn send(&self, method: Method, uri: &str, body: Vec<u8>) -> Result<(StatusCode, String), Failure> {
        let request = self.to_request(method, uri, body)?;
        let exchange = async { timeout(TIMEOUT, self.exchange(request)).await };
        let (status, body) = self
            .runtime
            .block_on(exchange)
            .map_err(|_| self.bad_answer(format!("no answer within {} s", TIMEOUT.as_secs())))??;
        let text = String::from_utf8(body.into()).map_err(|error| self.bad_answer(error))?;
        Ok((status, text))
    }

    fn to_request(&self, method: Method, uri: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, Failure> {
        let (host, token) = match &self.place {
            Place::Socket(_) => ("lbd", None),
            Place::Remote(remote) => (remote.authority.as_str(), remote.token.as_ref()),
        };
        let mut request =
            Request::builder().method(method).uri(uri).header(HOST, host).header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(Bytes::from(body))).map_err(|error| self.bad_answer(error))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
        match &self.place {
            Place::Socket(socket) => {
                let stream = UnixStream::connect(socket).await;
                self.exchange_on(stream.map_err(|error| Failure::unreachable(socket.clone(), error))?, request).await
            }
            Place::Remote(remote) => {
                let stream = remote.connect().await;
                self.exchange_on(stream.map_err(|error| Failure::unreachable_at(&remote.url, error))?, request).await
            }
        }
    }

    async fn exchange_on<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (response, connection) = self.ask_on(stream, request).await?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| self.bad_answer(error))?;
        connection.abort();
        Ok((status, body.to_bytes()))
    }

    /// The head of the answer, and the task that reads on.
    async fn ask_on<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.bad_answer(error))?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.bad_answer(error))?;
        Ok((response, connection))
    }

    fn understand<T: DeserializeOwned>(&self, status: StatusCode, json: String) -> Result<Answer<T>, Failure> {
        if !status.is_success() {
            return Err(match serde_json::from_str::<Problem>(&json) {
                Ok(problem) => Failure::Refused(problem),
                Err(_) => self.bad_answer(format!("status {status} without an explanation")),
            });
        }
        match serde_json::from_str(&json) {
            Ok(value) => Ok(Answer { json, value }),
            Err(error) => Err(self.bad_answer(format!(
                "its answer is not understood ({error}); are lbctl and lbd of the same version (lbctl --version, lbd --version)?"
            ))),
        }
    }

    fn bad_answer(&self, what: impl ToString) -> Failure {
        let socket = match &self.place {
            Place::Socket(socket) => socket.clone(),
            Place::Remote(remote) => PathBuf::from(&remote.url),
        };
        Failure::BadAnswer { socket, what: what.to_string() }
    }
}

/// A name as a segment of a path, or as a value of a query: all but unreserved characters encoded (RFC 3986 §2.3).
pub(super) fn encode(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// A path with a query of the fields that are set.
pub(super) fn query_path(path: &str, filter: &impl Serialize) -> Result<String, Failure> {
    let fields = serde_json::to_value(filter).map_err(std::io::Error::other)?;
    let texts = fields.as_object().into_iter().flatten().filter_map(|(key, value)| match value {
        Value::Null => None,
        Value::String(text) => Some((key, text.clone())),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Some((key, other.to_string()))
        }
    });
    let query: Vec<String> = texts.map(|(key, text)| format!("{key}={}", encode(&text))).collect();
    Ok(format!("{path}?{}", query.join("&")))
}

/// The path of a connection list.
pub(super) fn connections_path(filter: &ConnectionFilter) -> String {
    let forwarding = filter.forwarding.map(|forwarding| super::views::word(&forwarding));
    let protocol = filter.protocol.map(|protocol| super::views::word(&protocol));
    let fields = [
        ("virtual_server", filter.virtual_server.clone()),
        ("pool", filter.pool.clone()),
        ("node", filter.node.clone()),
        ("client", filter.client.map(|address| address.to_string())),
        ("protocol", protocol),
        ("state", filter.state.clone()),
        ("forwarding", forwarding),
        ("limit", filter.limit.map(|limit| limit.to_string())),
    ];
    let query: Vec<String> =
        fields.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", encode(&value?)))).collect();
    format!("connections?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::plan::{Forwarding, Protocol};

    #[test]
    fn names_cannot_escape_their_segment() {
        assert_eq!(encode("web-1.a_b~"), "web-1.a_b~");
        assert_eq!(encode("../x?y=1&z #"), "..%2Fx%3Fy%3D1%26z%20%23");
        assert_eq!(encode("ü"), "%C3%BC");
    }

    #[test]
    fn filters_become_a_query() {
        let filter = ConnectionFilter {
            pool: Some("a b".into()),
            client: Some("2001:db8::1".parse().unwrap()),
            protocol: Some(Protocol::Tcp),
            forwarding: Some(Forwarding::NatSource),
            limit: Some(5),
            ..ConnectionFilter::default()
        };
        let expected = "connections?pool=a%20b&client=2001%3Adb8%3A%3A1&protocol=tcp&forwarding=nat_source&limit=5";
        assert_eq!(connections_path(&filter), expected);
    }

    #[test]
    fn a_missing_daemon_is_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().join("none.sock")).unwrap();
        assert!(matches!(client.get::<()>("status"), Err(Failure::Unreachable { .. })));
    }
}
