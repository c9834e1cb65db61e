//! A small blocking HTTP/1.1 client: one new TCP connection a request, the whole body read and measured. And [`Requests`],
//! which sends them one after the other until told to stop, and counts who answered.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use socket2::{Domain, Socket, Type};

use super::{host::Host, wait};

/// Response header: the node's name.
pub const HEADER_NODE: &str = "X-Node";
/// Response header: the client's address as the node saw it.
pub const HEADER_REMOTE: &str = "X-Remote";
/// Response header: the address, a blank, and the port the request came to, as the node saw it.
pub const HEADER_LOCAL: &str = "X-Local";

/// Failures after which [`send_many`] gives up.
const ENOUGH: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer with status 200 and a whole body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Who answered.
    pub node: String,
    /// The client's address as the node saw it.
    pub remote: String,
    /// Where the node was asked.
    pub local: Option<SocketAddr>,
    /// Bytes of the body.
    pub bytes: usize,
}

/// Opens a TCP connection from `source` (`None`: the kernel's choice).
///
/// # Errors
/// Of the connect; `TimedOut` after `timeout`.
pub fn connect(target: SocketAddr, source: Option<IpAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&target.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket.into())
}

/// Gets a page on a connection of its own.
///
/// # Errors
/// Of the connection; `TimedOut` or `WouldBlock` when nothing comes for `timeout`; `InvalidData` when the answer is cut
/// short or not a 200.
pub fn get(target: SocketAddr, source: Option<IpAddr>, path: &str, timeout: Duration) -> io::Result<Reply> {
    let mut stream = connect(target, source, timeout)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> io::Result<Reply> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| wrong("no whole header"))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Err(wrong(status));
    }
    let headers: BTreeMap<String, &str> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let header = |name: &str| headers.get(&name.to_ascii_lowercase()).map(|value| (*value).to_owned());
    let bytes = answer.len() - end - 4;
    if header("Content-Length").and_then(|length| length.parse().ok()) != Some(bytes) {
        return Err(wrong("the body is cut short"));
    }
    Ok(Reply {
        node: header(HEADER_NODE).ok_or_else(|| wrong("no X-Node"))?,
        remote: header(HEADER_REMOTE).unwrap_or_default(),
        local: header(HEADER_LOCAL).and_then(|local| socket_address(&local)),
        bytes,
    })
}

fn socket_address(words: &str) -> Option<SocketAddr> {
    let (address, port) = words.split_once(' ')?;
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}

/// What became of many requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests answered, by node.
    pub by_node: BTreeMap<String, usize>,
    /// Requests answered only when repeated.
    pub repeated: usize,
    /// Why the others failed.
    pub failures: Vec<String>,
    /// The longest time one took.
    pub slowest: Duration,
}

impl Tally {
    /// Requests answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.by_node.values().sum()
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Tally) {
        for (node, count) in other.by_node {
            *self.by_node.entry(node).or_default() += count;
        }
        self.repeated += other.repeated;
        self.failures.extend(other.failures);
        self.slowest = self.slowest.max(other.slowest);
    }

    /// Sends one request, repeated up to `repeats` times when it fails, and counts it.
    fn send(&mut self, target: SocketAddr, source: Option<IpAddr>, repeats: usize, timeout: Duration) {
        let start = Instant::now();
        let mut tries = 0;
        let result = loop {
            match get(target, source, "/", timeout) {
                Err(_) if tries < repeats => tries += 1,
                result => break result,
            }
        };
        match result {
            Ok(reply) => {
                *self.by_node.entry(reply.node).or_default() += 1;
                self.repeated += usize::from(tries > 0);
            }
            Err(error) => self.failures.push(format!("{target} after {:?}: {error}", start.elapsed())),
        }
        self.slowest = self.slowest.max(start.elapsed());
    }
}

/// Sends `count` requests from a machine, one after the other on each of `threads` threads. A thread stops after
/// [`ENOUGH`] failures: each may have taken the whole timeout.
///
/// # Errors
/// When a thread cannot be made.
pub fn send_many(client: &Host, target: SocketAddr, count: usize, threads: usize) -> Result<Tally> {
    let share = move |index: usize| count / threads + usize::from(index < count % threads);
    let start = |index: usize| {
        client.spawn(move || {
            let mut tally = Tally::default();
            for _ in 0..share(index) {
                tally.send(target, None, 0, TIMEOUT);
                if tally.failures.len() >= ENOUGH {
                    break;
                }
            }
            tally
        })
    };
    collect((0..threads).map(start).collect::<Result<Vec<_>>>()?)
}

fn collect(threads: Vec<JoinHandle<Tally>>) -> Result<Tally> {
    let mut sum = Tally::default();
    for thread in threads {
        sum.add(thread.join().map_err(|_| anyhow!("a client thread panicked"))?);
    }
    Ok(sum)
}

/// Requests that go on until stopped.
#[derive(Debug)]
pub struct Requests {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Requests {
    /// Starts `threads` clients on a machine, each sending one request after the other. A request that fails is repeated
    /// up to `repeats` times before it counts as failed.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start(client: &Host, target: SocketAddr, threads: usize, repeats: usize, timeout: Duration) -> Result<Self> {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut running = Self { stop, done, threads: Vec::new() };
        for _ in 0..threads {
            let (stop, done) = (Arc::clone(&running.stop), Arc::clone(&running.done));
            running.threads.push(client.spawn(move || {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    tally.send(target, None, repeats, timeout);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                tally
            })?);
        }
        Ok(running)
    }

    /// Waits until `count` more requests are done.
    ///
    /// # Errors
    /// When they are not within the deadline.
    pub fn wait_for_more(&self, count: u64, deadline: Duration) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + count;
        wait::eventually(&format!("{count} more requests are done"), deadline, || {
            self.done.load(Ordering::Relaxed) >= goal
        })
        .map(drop)
    }

    /// Stops; what became of all of them.
    ///
    /// # Errors
    /// When a client panicked.
    pub fn stop(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        collect(std::mem::take(&mut self.threads))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself; here the test is failing already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-Node: n1\r\n\r\n";

    #[test]
    fn only_whole_answers_count() {
        let reply = parse(format!("{HEAD}hello").as_bytes()).unwrap();
        assert_eq!((reply.node.as_str(), reply.bytes), ("n1", 5));
        for wrong in [
            format!("{HEAD}hell"),
            HEAD[..HEAD.len() - 1].to_owned(),
            String::new(),
            format!("{HEAD}hello").replace("200", "502"),
            format!("{HEAD}hello").replace("X-Node", "Y-Node"),
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
