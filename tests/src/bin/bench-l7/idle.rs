//! Resident memory of 10,000 idle connections, plain and TLS: `bench-l7 --idle`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result};

use crate::peers::{self, Port, Proxy};

const CONNECTIONS: usize = 10_000;

/// Measures and prints.
pub(crate) fn measure() -> Result<()> {
    raise_limit()?;
    let folder = tempfile::Builder::new().prefix("lb-bench-l7-").tempdir()?;
    let nodes = peers::start_nodes(folder.path())?;
    let proxy = peers::start(Proxy::Lb, folder.path())?;
    let pid = proxy.pids()[0];
    let warm = open(20)?;
    let before = resident(pid)?;
    let kept = open(CONNECTIONS)?;
    let after = resident(pid)?;
    println!("plain: {:.2} KiB per idle connection", (after - before) / CONNECTIONS as f64);
    drop((kept, warm, proxy, nodes));
    Ok(())
}

/// Connections that had a request each.
fn open(count: usize) -> Result<Vec<TcpStream>> {
    let mut kept = Vec::with_capacity(count);
    let mut answer = vec![0; 4096];
    for _ in 0..count {
        let mut client = TcpStream::connect(("127.0.0.1", Proxy::Lb.port(Port::Http)))?;
        client.write_all(b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let count = client.read(&mut answer)?;
        anyhow::ensure!(answer[..count].starts_with(b"HTTP/1.1 200"), "no answer");
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
