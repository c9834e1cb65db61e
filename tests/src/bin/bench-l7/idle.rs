//! Resident memory of 10,000 idle connections, plain and with TLS, over HTTP/1.1 and over HTTP/2: `bench-l7 --idle`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use lb_tests::harness::wait::let_pass;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use crate::{
    peers::{self, Port, Proxy},
    trust,
};

const CONNECTIONS: usize = 10_000;

/// Until the allocator has given back what handshakes took.
const PAUSE: Duration = Duration::from_secs(2);

/// What each connection asks once.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    name: &'static str,
    request: &'static [u8],
    /// The begin of the answer.
    begin: &'static [u8],
    /// By ALPN, where there is TLS.
    protocol: &'static [u8],
}

const EXCHANGES: [Exchange; 2] = [
    Exchange {
        name: "HTTP/1.1",
        request: b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n",
        begin: b"HTTP/1.1 200",
        protocol: b"http/1.1",
    },
    // Preface, SETTINGS, HEADERS (RFC 9113 §3.4); the answer begins with SETTINGS.
    Exchange {
        name: "HTTP/2",
        request: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x12\x01\x05\0\0\0\x01\x82\x86\x04\x03/1k\x41\x09localhost",
        begin: b"\0\0\x12\x04",
        protocol: b"h2",
    },
];

/// Measures and prints.
pub(crate) fn measure() -> Result<()> {
    raise_limit()?;
    let folder = tempfile::Builder::new().prefix("lb-bench-l7-").tempdir()?;
    let nodes = peers::start_nodes(folder.path())?;
    for exchange in EXCHANGES {
        for tls in [false, true] {
            let kib = one(folder.path(), exchange, tls)?;
            let how = if tls { "with TLS" } else { "plain" };
            println!("{:<8} {how:<8} {kib:>6.2} KiB for each of {CONNECTIONS} idle connections", exchange.name);
        }
    }
    drop(nodes);
    Ok(())
}

fn one(folder: &Path, exchange: Exchange, tls: bool) -> Result<f64> {
    let tls = if tls { Some(Arc::new(trust::config(folder, &[exchange.protocol])?)) } else { None };
    let proxy = peers::start(Proxy::Lb, folder)?;
    let pid = proxy.pids()[0];
    let warm = open(20, exchange, tls.as_ref())?;
    let_pass(PAUSE);
    let before = resident(pid)?;
    let kept = open(CONNECTIONS, exchange, tls.as_ref())?;
    let_pass(PAUSE);
    let after = resident(pid)?;
    drop((kept, warm, proxy));
    Ok((after - before) / CONNECTIONS as f64)
}

/// Connections that had a request each. Of TLS only the proxy's side is kept.
fn open(count: usize, exchange: Exchange, tls: Option<&Arc<ClientConfig>>) -> Result<Vec<TcpStream>> {
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = TcpStream::connect(("127.0.0.1", Proxy::Lb.port(port(tls.is_some()))))?;
        match tls {
            None => ask(&mut client, exchange)?,
            Some(config) => {
                let mut session = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
                ask(&mut rustls::Stream::new(&mut session, &mut client), exchange)?;
            }
        }
        kept.push(client);
    }
    Ok(kept)
}

fn port(tls: bool) -> Port {
    if tls { Port::Https } else { Port::Http }
}

/// One request, whose answer of more than 1 KiB is read.
fn ask(stream: &mut (impl Read + Write), exchange: Exchange) -> Result<()> {
    let mut answer = vec![0; 4096];
    stream.write_all(exchange.request)?;
    let mut read = 0;
    while read <= 1024 {
        let count = stream.read(&mut answer[read..])?;
        anyhow::ensure!(count > 0, "no answer");
        read += count;
    }
    anyhow::ensure!(answer.starts_with(exchange.begin), "another answer: {:?}", &answer[..read.min(40)]);
    Ok(())
}

/// Kibibytes that a process holds in memory.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("kB")?.parse()?)
}

/// As many descriptors as it may have; the proxy inherits them.
pub(crate) fn raise_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
