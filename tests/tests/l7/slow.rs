//! A thousand clients that send or read as slowly as they can, beside good ones (slowloris, slow POST, slow read).

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Net, Nginx, Server, Topology, http, wait::let_pass};
use socket2::{Domain, Socket, Type};

use crate::{PATIENCE, clients::PROGRAMS, config, serves, web};

const SLOW: usize = 1000;
/// What a slow client sends, a byte at a time, goes on for longer than any of the timeouts.
const PAUSE: Duration = Duration::from_millis(500);
/// By then every one must be gone: the longest of the timeouts below, the five seconds in which the answer may be read, and some.
const GONE_WITHIN: Duration = Duration::from_secs(20);
const REQUESTS: usize = 400;

/// Beside a thousand slow readers on a busy machine a connect to a node can take longer than the second that is the default.
const TIMEOUTS: &str = "timeouts = { request_head = \"3s\", body_grace = \"2s\", body_rate = \"500B/s\", write_stall = \"8s\" }\n\
     [[virtual_server.web.rule]]\nwhen = { path = { prefix = \"/put\" } }\nthen = [{ pool = \"app\" }]\n\
     [pool.web.timeouts]\nconnect = \"4s\"\n\
     [pool.app]\nforwarding = \"proxy\"\n";

/// Connections of slow clients.
struct SlowClients {
    connections: Vec<TcpStream>,
    reads: bool,
}

impl SlowClients {
    /// Opens them all, each of which says `first` at once.
    fn open(net: &Net, first: &str, reads: bool) -> Result<Self> {
        let connections = net.clients[1].run(|| {
            let open = |_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                // Else whole pages wait in the client's kernel.
                socket.set_recv_buffer_size(4096)?;
                socket.connect_timeout(&web().into(), PATIENCE)?;
                let mut stream = TcpStream::from(socket);
                stream.write_all(first.as_bytes())?;
                stream.set_nonblocking(true)?;
                std::io::Result::Ok(stream)
            };
            (0..SLOW).map(open).collect::<std::io::Result<Vec<_>>>()
        })?;
        Ok(Self { connections, reads })
    }

    /// One byte more from each, or to each.
    fn drip(&mut self) {
        for stream in &mut self.connections {
            // What was sent away stays so: the balancer is asked who is left.
            let _ = if self.reads { stream.read(&mut [0; 1]) } else { stream.write(b"a") };
        }
    }
}

/// Connections that the balancer's host has with clients, in whatever state but TIME-WAIT.
fn left(net: &Net) -> Result<usize> {
    let sockets = net.balancer.sh("ss -Htan sport = :80")?;
    Ok(sockets.lines().filter(|line| !line.starts_with("LISTEN") && !line.starts_with("TIME-WAIT")).count())
}

/// The time that 99 of 100 requests did not exceed.
fn p99(net: &Net) -> Result<Duration> {
    let mut times = net.client().run(|| {
        let one = |_| {
            let start = Instant::now();
            http::get(web(), None, "/", PATIENCE).map(|_| start.elapsed())
        };
        (0..REQUESTS).map(one).collect::<std::io::Result<Vec<_>>>()
    })?;
    times.sort_unstable();
    times.get(REQUESTS * 99 / 100).copied().context("no requests")
}

#[test]
fn a_thousand_slow_clients_are_sent_away_and_the_others_do_not_notice() -> Result<()> {
    let net = Topology::new("slow").clients(2).nodes(2).build()?;
    let _web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let app =
        format!("gunicorn --log-level critical --chdir {PROGRAMS} -k gthread --threads 4 -b 0.0.0.0:8000 app:app");
    let _app = Server::start(&net.nodes[0], &app, 8000)?;
    let _lb = net.start_lb(&config(&net, &format!("{TIMEOUTS}node.n1.address = \"{}:8000\"\n", net.nodes[0].v4)))?;
    serves(&net)?;
    let alone = p99(&net)?;
    let kinds = [
        ("head", "GET / HTTP/1.1\r\nHost: lb.test\r\nX-Long: ", false),
        ("body", "POST /put HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 100000\r\n\r\n", false),
        ("read", "GET /large HTTP/1.1\r\nHost: lb.test\r\n\r\n", true),
    ];
    for (kind, first, reads) in kinds {
        let mut slow = SlowClients::open(&net, first, reads).with_context(|| format!("slow {kind}"))?;
        let opened = Instant::now();
        slow.drip();
        ensure!(left(&net)? >= SLOW, "slow {kind}: sent away too early");
        let beside = p99(&net)?;
        // Shorter times are noise of two cores that run all machines; whoever waits for slow ones waits for seconds.
        let most = (2 * alone).max(Duration::from_millis(100));
        ensure!(beside <= most, "slow {kind}: p99 {beside:?}, alone {alone:?}");
        while left(&net)? > 0 {
            ensure!(opened.elapsed() < GONE_WITHIN, "slow {kind}: {} stay", left(&net)?);
            slow.drip();
            let_pass(PAUSE);
        }
    }
    Ok(())
}
