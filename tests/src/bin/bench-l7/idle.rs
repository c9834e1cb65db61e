//! Resident memory of 10,000 idle plain connections, over HTTP/1.1 and over HTTP/2: `bench-l7 --idle`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result};

use crate::peers::{self, Port, Proxy};

const CONNECTIONS: usize = 10_000;

/// A request and the begin of its answer, over HTTP/1.1.
const HTTP1: (&[u8], &[u8]) = (b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200");

/// The same over HTTP/2: preface, SETTINGS, HEADERS (RFC 9113 §3.4); the answer begins with SETTINGS.
const HTTP2: (&[u8], &[u8]) = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x12\x01\x05\0\0\0\x01\x82\x86\x04\x03/1k\x41\x09localhost",
    b"\0\0\x12\x04",
);

/// Measures and prints.
pub(crate) fn measure() -> Result<()> {
    raise_limit()?;
    let folder = tempfile::Builder::new().prefix("lb-bench-l7-").tempdir()?;
    let nodes = peers::start_nodes(folder.path())?;
    for (name, exchange) in [("HTTP/1.1", HTTP1), ("HTTP/2", HTTP2)] {
        let proxy = peers::start(Proxy::Lb, folder.path())?;
        let pid = proxy.pids()[0];
        let warm = open(20, exchange)?;
        let before = resident(pid)?;
        let kept = open(CONNECTIONS, exchange)?;
        let after = resident(pid)?;
        println!("{name}: {:.2} KiB per idle connection", (after - before) / CONNECTIONS as f64);
        drop((kept, warm, proxy));
    }
    drop(nodes);
    Ok(())
}

/// Connections that had a request each, whose answer of more than 1 KiB was read.
fn open(count: usize, (request, begin): (&[u8], &[u8])) -> Result<Vec<TcpStream>> {
    let mut kept = Vec::with_capacity(count);
    let mut answer = vec![0; 4096];
    for _ in 0..count {
        let mut client = TcpStream::connect(("127.0.0.1", Proxy::Lb.port(Port::Http)))?;
        client.write_all(request)?;
        let mut read = 0;
        while read <= 1024 {
            let count = client.read(&mut answer[read..])?;
            anyhow::ensure!(count > 0, "no answer");
            read += count;
        }
        anyhow::ensure!(answer.starts_with(begin), "another answer: {:?}", &answer[..read.min(40)]);
        kept.push(client);
    }
    Ok(kept)
}

/// Kibibytes that a process holds in memory.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("kB")?.parse()?)
}

fn raise_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
