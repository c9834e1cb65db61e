//! What good clients notice of 1,000 that send or read as slowly as they can (THREATS H11): `bench-l7 --slow`.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use lb_tests::harness::wait::let_pass;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

use crate::{
    CASES, Case, idle,
    load::{self, Sample},
    peers::{self, Port, Proxy},
};

const SLOW: usize = 1000;

/// Between two bytes of a slow client. Their turns are spread over it: a thousand bytes at once, on the core where the good clients
/// are, would hold those up for 10 ms, whoever serves.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two slow clients that come: at once, their kernels would ask a thousand full windows in one instant, again and again.
const COMING: Duration = Duration::from_millis(2);

/// How long each part runs: less than the shortest timeout that sends a slow client away.
const TIME: Duration = Duration::from_secs(6);

/// What a slow client says at once, and whether it is slow at reading or at sending.
const KINDS: [(&str, &str, bool); 3] = [
    ("head", "GET /1k HTTP/1.1\r\nHost: localhost\r\nX-Long: ", false),
    ("body", "PUT /up/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", false),
    ("read", "GET /100k HTTP/1.1\r\nHost: localhost\r\n\r\n", true),
];

/// Measures and prints, for each proxy: requests of good clients alone, then beside slow ones of each kind.
pub(crate) fn measure() -> Result<()> {
    idle::raise_limit()?;
    // As all load: what starts from here chooses its own core.
    let mut core = CpuSet::new();
    core.set(1)?;
    sched_setaffinity(Pid::from_raw(0), &core)?;
    let folder = tempfile::Builder::new().prefix("lb-bench-l7-").tempdir()?;
    let nodes = peers::start_nodes(folder.path())?;
    let case = CASES.into_iter().find(|case| case.name == "h1_1k").context("there is such a case")?;
    let good = Case { connections: 16, ..case };
    let show = |name: &str, kind: &str, sample: &Sample, alone: &Sample| {
        let (rate, p99) = (sample.requests as f64 / sample.seconds, sample.p99_ms);
        let times = p99 / alone.p99_ms;
        println!(
            "{name:<8} {kind:<5} {rate:>7.0} requests/s, p99 {p99:>6.2} ms ({times:.1}), {} errors",
            sample.errors
        );
    };
    for proxy in Proxy::ALL {
        let running = peers::start(proxy, folder.path())?;
        load::run(good, &running, Duration::from_secs(1))?;
        let alone = load::run(good, &running, TIME)?;
        show(proxy.name(), "alone", &alone, &alone);
        for (kind, first, reads) in KINDS {
            let slow = SlowClients::start(proxy.port(Port::Http), first, reads)?;
            let_pass(PAUSE);
            show(proxy.name(), kind, &load::run(good, &running, TIME)?, &alone);
            drop(slow);
            let_pass(PAUSE);
        }
    }
    drop(nodes);
    Ok(())
}

/// Clients that are slow until they are dropped.
struct SlowClients {
    ends: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl SlowClients {
    fn start(port: u16, first: &str, reads: bool) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let open = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // Else whole pages wait in the client's kernel.
            socket.set_recv_buffer_size(4096)?;
            socket.connect(&address.into())?;
            let mut stream = TcpStream::from(socket);
            stream.write_all(first.as_bytes())?;
            stream.set_nonblocking(true)?;
            let_pass(COMING);
            std::io::Result::Ok(stream)
        };
        let mut connections = (0..SLOW).map(open).collect::<std::io::Result<Vec<_>>>()?;
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for stream in &mut connections {
                    // Whoever was sent away stays so.
                    let _ = if reads { stream.read(&mut [0; 1]) } else { stream.write(b"a") };
                    let_pass(PAUSE / SLOW as u32);
                }
            }
        });
        Ok(Self { ends, thread: Some(thread) })
    }
}

impl Drop for SlowClients {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It neither panics nor stays.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
