//! What clients get while the machine is short of memory (THREATS X20).

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    thread,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Net, Nginx, Topology, command::sh, eventually, http};
use nix::sched::{CloneFlags, unshare};

use super::{PATIENCE, SOON, config, serves, web};

/// What the machine says of itself, always of the same length: it is written over while it is read.
fn meminfo(available_mib: u64) -> String {
    format!("MemTotal:        4194304 kB\nMemFree:           10000 kB\nMemAvailable: {:>10} kB\n", available_mib << 10)
}

/// The whole answer to a request on a connection of its own.
fn ask(net: &Net) -> std::io::Result<String> {
    net.client().run(|| {
        let mut stream = http::connect(web(), None, PATIENCE)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n")?;
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
    })
}

/// Makes this thread, and what starts from it, see another `/proc/meminfo`.
fn pretend(file: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    sh("mount --make-rprivate /")?;
    sh(&format!("mount --bind {} /proc/meminfo", file.display())).map(drop)
}

#[test]
fn x20_requests_are_answered_503_while_the_machine_has_no_memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("meminfo");
    fs::write(&path, meminfo(3000))?;
    let file = File::options().write(true).open(&path)?;
    let net = Topology::new("l7mem").nodes(1).build()?;
    let _nginx = Nginx::start(&net.nodes[0], &[80])?;
    // What starts from this thread sees what it sees.
    let start = || pretend(&path).and_then(|()| net.start_lb(&config(&net, "")));
    let lb = thread::scope(|scope| scope.spawn(start).join()).map_err(|_| anyhow::anyhow!("it panicked"))??;
    serves(&net)?;
    for round in 1..=2 {
        file.write_all_at(meminfo(100).as_bytes(), 0)?;
        let is_refused = || ask(&net).is_ok_and(|answer| answer.starts_with("HTTP/1.1 503 "));
        eventually("requests are refused", SOON, is_refused)?;
        let answer = ask(&net)?;
        ensure!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "), "{round}: {answer}");
        file.write_all_at(meminfo(3000).as_bytes(), 0)?;
        serves(&net)?;
    }
    let refused = lb.virtual_server("web")?.proxy.context("no L7 part")?.refused;
    ensure!(refused.get("memory").is_some_and(|count| *count >= 4), "{refused:?}");
    ensure!(lb.log().contains("memory is short"), "{}", lb.log());
    Ok(())
}
