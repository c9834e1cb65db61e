//! Clients that keep their connection, and notice when it is closed under them.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, anyhow};
use lb_tests::harness::{Host, eventually, http, wait::let_pass};

/// What became of the requests of [`Kept`].
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Answered by a 200.
    pub(super) answered: u64,
    /// Connections that were opened.
    pub(super) connections: u64,
    /// Everything else, in words: also a kept connection that was closed without being announced.
    pub(super) failures: Vec<String>,
}

/// Requests over kept connections that go on until stopped.
#[derive(Debug)]
pub(super) struct Kept {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Outcome>>,
}

impl Kept {
    /// Starts `threads` clients, each of which asks for `path` again and again over one connection, `pause` between two
    /// requests, until a response says `Connection: close`. `%` in the path is replaced by a number of its own.
    pub(super) fn start(
        client: &Host,
        target: SocketAddr,
        threads: u64,
        request: &'static str,
        pause: Duration,
    ) -> Result<Self> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut running = Self { stop, done, threads: Vec::new() };
        for thread in 0..threads {
            let (stop, done) = (Arc::clone(&running.stop), Arc::clone(&running.done));
            let work = move || {
                let mut outcome = Outcome::default();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    outcome.connections += 1;
                    let mut ask = |stream: &mut TcpStream| {
                        number += 1;
                        let answer = exchange(stream, &request.replace('%', &format!("{thread}-{number}")));
                        done.fetch_add(1, Ordering::Relaxed);
                        let_pass(pause);
                        answer
                    };
                    let stream = http::connect(target, None, super::PATIENCE);
                    let ended = stream.and_then(|mut stream| {
                        while !stop.load(Ordering::Relaxed) {
                            let keeps = ask(&mut stream)?;
                            outcome.answered += 1;
                            if !keeps {
                                break;
                            }
                        }
                        Ok(())
                    });
                    outcome.failures.extend(ended.err().map(|error| error.to_string()));
                    if outcome.failures.len() >= 50 {
                        break;
                    }
                }
                outcome
            };
            running.threads.push(client.spawn(work)?);
        }
        Ok(running)
    }

    /// Waits until `count` more requests are done.
    pub(super) fn wait_for_more(&self, count: u64, deadline: Duration) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + count;
        eventually(&format!("{count} more requests are done"), deadline, || self.done.load(Ordering::Relaxed) >= goal)
            .map(drop)
    }

    /// Stops; what became of all of them.
    pub(super) fn stop(mut self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Outcome::default();
        for thread in std::mem::take(&mut self.threads) {
            let one = thread.join().map_err(|_| anyhow!("a client thread panicked"))?;
            sum.answered += one.answered;
            sum.connections += one.connections;
            sum.failures.extend(one.failures);
        }
        Ok(sum)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One request and its response; whether the connection is kept.
pub(super) fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<bool> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(wrong(format!("closed after {} bytes of a response", answer.len())));
        }
        answer.extend_from_slice(&buffer[..read]);
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(wrong(head.lines().next().unwrap_or_default().to_owned()));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let length = length.ok_or_else(|| wrong(format!("no length: {head}")))?;
        if answer.len() >= end + 4 + length {
            return Ok(!head.contains("\r\nconnection: close"));
        }
    }
}
