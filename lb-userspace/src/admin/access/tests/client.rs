//! A served API, and clients of it that trust its certificate.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs::default_provider};
use serde_json::{Value, json};

use crate::{admin::tests::Api, certificate};

pub(super) const PASSWORD: &str = "a good password";

/// The API on a unix socket and by HTTPS.
pub(super) struct Https {
    pub(super) local: Api,
    pub(super) address: SocketAddr,
    pub(super) origin: String,
    settings: String,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Https {
    pub(super) fn start(settings: &str) -> Self {
        // Nobody else takes the port in between: the kernel gives away others first.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = format!("listen = \"{address}\"\n{settings}");
        let api = Self { local: Api::with(&settings), address, origin: format!("https://{address}"), settings };
        api.wait();
        api
    }

    /// Ends it and starts it again with the state it left.
    pub(super) fn restart(&mut self) {
        self.local.restart(&self.settings);
        self.wait();
    }

    /// Until it listens.
    pub(super) fn wait(&self) {
        let listens = || TcpStream::connect(self.address).is_ok();
        assert!(
            (0..500).any(|_| listens() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }),
            "nobody listens"
        );
    }

    /// A connection whose handshake is done, or why not.
    pub(super) fn connect(&self) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read_to_string(self.local.state("api.pem"))?;
        roots.add(certificate::chain(&pem).unwrap().remove(0)).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = self.address.ip().into();
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub(super) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut stream = self.connect().unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request += "content-type: application/json\r\n";
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        write!(stream, "{request}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        let mut buffer = [0; 16 * 1024];
        // A stream of events has no end: its head is enough.
        while !(answer.contains("text/event-stream") && answer.contains("\r\n\r\n")) {
            let count = stream.read(&mut buffer).unwrap();
            answer += std::str::from_utf8(&buffer[..count]).unwrap();
            if count == 0 {
                break;
            }
        }
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// A stream of events that is open: reading it ends with it.
    pub(super) fn listen(&self, (name, value): (&str, &str)) -> StreamOwned<ClientConnection, TcpStream> {
        let mut stream = self.connect().unwrap();
        write!(stream, "GET /api/v1/events/stream HTTP/1.1\r\nhost: {}\r\n{name}: {value}\r\n\r\n", self.address)
            .unwrap();
        let mut head = String::new();
        let mut byte = [0];
        while !head.ends_with("\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(char::from(byte[0]));
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        stream
    }

    /// Adds a user with [`PASSWORD`], as root.
    pub(super) fn add(&self, name: &str, role: &str) {
        let body = json!({"name": name, "role": role, "password": PASSWORD}).to_string();
        let (status, _, answer) = self.local.request("POST", "/api/v1/users", &body);
        assert_eq!(status, 200, "{answer}");
    }

    pub(super) fn log_in(&self, name: &str, password: &str) -> Option<Session<'_>> {
        let answer = self.send("POST", "/api/v1/session", &[], Some(json!({"name": name, "password": password})));
        let cookie = answer.header("set-cookie")?.split(';').next()?.to_owned();
        Some(Session { api: self, cookie, csrf: answer.json()["csrf"].as_str()?.to_owned() })
    }

    /// Makes a token, as root.
    pub(super) fn token(&self, role: &str, paths: Value) -> Token<'_> {
        let body = json!({"name": "test", "role": role, "paths": paths}).to_string();
        let (status, _, answer) = self.local.request("POST", "/api/v1/tokens", &body);
        assert_eq!(status, 200, "{answer}");
        let made: Value = serde_json::from_str(&answer).unwrap();
        Token { api: self, secret: made["secret"].as_str().unwrap().to_owned() }
    }
}

/// A browser that has logged in.
pub(super) struct Session<'a> {
    api: &'a Https,
    pub(super) cookie: String,
    pub(super) csrf: String,
}

impl Session<'_> {
    pub(super) fn get(&self, path: &str) -> Answer {
        self.api.send("GET", path, &[("cookie", &self.cookie)], None)
    }

    pub(super) fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let headers = [("cookie", self.cookie.as_str()), ("x-csrf-token", &self.csrf), ("origin", &self.api.origin)];
        self.api.send(method, path, &headers, body)
    }
}

/// A script with a token.
pub(super) struct Token<'a> {
    api: &'a Https,
    pub(super) secret: String,
}

impl Token<'_> {
    pub(super) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    pub(super) fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.api.send(method, path, &[("authorization", &format!("Bearer {}", self.secret))], body)
    }

    pub(super) fn id(&self) -> &str {
        self.secret.split('_').nth(1).unwrap()
    }
}
