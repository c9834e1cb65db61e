//! Nodes that mean harm, or are broken: each kind of check against each of them. All that may come of it is "down", in time
//! and within bounds (THREATS A10).

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    time,
};

use super::{on_one_thread, target};
use crate::{
    control::{
        probe::{Dns, Greeting, Http, Kind, RecordType, ResponseCode, StatusRange, Step, Tls, Transaction, Udp},
        view::Health,
    },
    health::{Monitors, Outside, Settings},
};

/// A check is given up after this.
const TIMEOUT: Duration = Duration::from_secs(2);
/// And is told by then.
const IN_TIME: Duration = Duration::from_millis(3500);
/// What all of them together may take of memory, beside what they read: 64 KiB each.
const MEMORY: usize = 64 << 20;

/// What a node does with a connection.
const TCP: [(&str, Tcp); 22] = [
    ("says nothing", Tcp::Says(b"", End::Waits)),
    ("closes at once", Tcp::Says(b"", End::Closes)),
    ("resets", Tcp::Resets),
    ("a banner without end", Tcp::Repeats(b"x")),
    ("lines without end", Tcp::Repeats(b"220-and\r\n")),
    ("zeros", Tcp::Repeats(b"\0")),
    ("garbage", Tcp::Repeats(b"\x16\x03\xff\x80\x81\n\r\xfe\x00\x07*+2")),
    ("a byte now and then", Tcp::Drips(b"HTTP/1.1 200 OK\r\nx: ")),
    ("a fast drip", Tcp::Repeats1(b"220-")),
    ("fields without end", Tcp::SaysAndRepeats(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n")),
    ("one field without end", Tcp::SaysAndRepeats(b"HTTP/1.1 200 OK\r\na: ", b"b")),
    ("provisional answers without end", Tcp::Repeats(b"HTTP/1.1 100 Continue\r\n\r\n")),
    (
        "chunks without end",
        Tcp::SaysAndRepeats(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"3\r\nabc\r\n"),
    ),
    (
        "a chunk of a size that is none",
        Tcp::Says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", End::Waits),
    ),
    (
        "a chunk that is too large",
        Tcp::Says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", End::Waits),
    ),
    ("a body that does not come", Tcp::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", End::Waits)),
    ("two lengths", Tcp::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", End::Waits)),
    ("a version from nowhere", Tcp::Says(b"HTTP/9.9 200 OK\r\n\r\nready", End::Closes)),
    (
        "a redirect to itself",
        Tcp::Says(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 5\r\n\r\nready", End::Closes),
    ),
    ("half of an answer", Tcp::Says(b"HTTP/1.1 200 OK\r\ncontent-le", End::Closes)),
    ("a record of TLS that does not end", Tcp::Says(b"\x16\x03\x03\x40\x00\x02\x00", End::Waits)),
    (
        "compressed, and so unreadable",
        Tcp::Says(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0", End::Closes),
    ),
];

#[derive(Clone, Copy)]
enum Tcp {
    Says(&'static [u8], End),
    Resets,
    Repeats(&'static [u8]),
    SaysAndRepeats(&'static [u8], &'static [u8]),
    /// A byte every 50 ms, and no end.
    Drips(&'static [u8]),
    /// A byte in each packet, as fast as it goes.
    Repeats1(&'static [u8]),
}

#[derive(Clone, Copy)]
enum End {
    Waits,
    Closes,
}

impl Tcp {
    async fn act(self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        match self {
            Tcp::Says(words, End::Waits) => {
                stream.write_all(words).await?;
                stream.read_to_end(&mut Vec::new()).await?;
            }
            Tcp::Says(words, End::Closes) => {
                stream.write_all(words).await?;
                stream.shutdown().await?;
                stream.read_to_end(&mut Vec::new()).await?;
            }
            Tcp::Resets => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
            Tcp::Repeats(words) => loop {
                stream.write_all(&words.repeat(1000)).await?;
            },
            Tcp::SaysAndRepeats(first, words) => {
                stream.write_all(first).await?;
                loop {
                    stream.write_all(&words.repeat(1000)).await?;
                }
            }
            Tcp::Drips(words) => {
                for byte in words.iter().chain(std::iter::repeat(&b'a')) {
                    stream.write_all(&[*byte]).await?;
                    time::sleep(Duration::from_millis(50)).await;
                }
            }
            Tcp::Repeats1(words) => {
                for byte in words.iter().cycle() {
                    stream.write_all(&[*byte]).await?;
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(())
    }

    async fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // That the other side has had enough is what is tested.
                tokio::spawn(async move { drop(self.act(stream).await) });
            }
        });
        address
    }
}

/// What a node does with a query.
const UDP: [(&str, Answer); 9] = [
    ("says nothing", |_| vec![]),
    ("another number", |query| vec![[&[!query[0], query[1]], &response(query)[2..]].concat()]),
    ("another number, without end", |query| vec![[&[!query[0], query[1]], &response(query)[2..]].concat(); 1000]),
    ("the question itself", |query| vec![query.to_vec()]),
    ("another question", |query| {
        let mut answer = response(query);
        answer[13] ^= 1;
        vec![answer]
    }),
    ("garbage", |query| vec![[&query[..2], &[0xff; 1000][..]].concat()]),
    ("a name that points at itself", |query| {
        let mut answer = response(query);
        answer[12..14].copy_from_slice(&[0xc0, 12]);
        vec![answer]
    }),
    ("more records than there are", |query| {
        let mut answer = response(query);
        answer[6..12].copy_from_slice(&[0xff; 6]);
        vec![answer]
    }),
    ("cut, and no TCP", |query| {
        let mut answer = response(query);
        answer[2] |= 2;
        vec![answer]
    }),
];

type Answer = fn(&[u8]) -> Vec<Vec<u8>>;

/// An answer without records, which would pass.
fn response(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer
}

async fn serve_udp(answers: Answer) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut query).await {
            for answer in answers(&query[..length.max(14)]) {
                // The client may have heard enough.
                let _ = socket.send_to(&answer, client).await;
            }
        }
    });
    address
}

/// Every kind of check that makes connections.
fn kinds() -> Vec<(&'static str, Kind)> {
    let tls = || Some(Arc::new(Tls { verify: false, ..Tls::default() }));
    let http = |tls| {
        Kind::Http(Arc::new(Http {
            method: "GET".into(),
            host: None,
            path: "/".into(),
            headers: Default::default(),
            statuses: vec![StatusRange(200, 299)],
            body: Some("ready".parse().unwrap()),
            tls,
        }))
    };
    let steps = || vec![Step::Send("PING\\r\\n".parse().unwrap()), Step::Expect("\\+PONG".parse().unwrap())];
    vec![
        ("http", http(None)),
        ("https", http(tls())),
        ("smtp", Kind::Greeting(Greeting::Smtp, None)),
        ("pop3", Kind::Greeting(Greeting::Pop3, None)),
        ("imap", Kind::Greeting(Greeting::Imap, None)),
        ("ftp", Kind::Greeting(Greeting::Ftp, tls())),
        ("transaction", Kind::Transaction(Arc::new(Transaction { steps: steps(), tls: None }))),
    ]
}

fn dns() -> Kind {
    let (record, rcode) = (RecordType::A, ResponseCode::NoError);
    Kind::Dns(Arc::new(Dns { name: "example.com".into(), record, rcode, answer: None }))
}

fn once(kind: Kind) -> Settings {
    Settings { kind, delay: Duration::from_secs(3600), timeout: TIMEOUT, failures: 1, successes: 1 }
}

/// Of this process, in bytes.
fn memory() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn hostile_nodes_are_down_in_time_and_nothing_else() {
    on_one_thread(async {
        let mut targets = Vec::new();
        for (node, tcp) in TCP {
            let address = tcp.serve().await;
            targets.extend(
                kinds().into_iter().map(|(kind, check)| target(&format!("{kind}: {node}"), address, once(check))),
            );
        }
        for (node, answers) in UDP {
            let address = serve_udp(answers).await;
            targets.push(target(&format!("dns: {node}"), address, once(dns())));
        }
        let garbled = Udp { send: "\\x00".parse().unwrap(), expect: Some("^never".parse().unwrap()) };
        targets.push(target(
            "udp: echo",
            serve_udp(|query| vec![query.to_vec()]).await,
            once(Kind::Udp(Arc::new(garbled))),
        ));
        let count = targets.len();
        let (sender, mut reports) = mpsc::channel(count);
        let before = memory();
        let begun = Instant::now();
        let monitors = Monitors::spawn(sender, Outside::default());
        monitors.set(targets);
        let mut latest = Duration::ZERO;
        for _ in 0..count {
            let report = reports.recv().await.expect("the monitors run");
            assert_eq!(report.health, Health::Down, "{}: {:?}", report.node, report.reason);
            let reason = report.reason.expect("why");
            assert!(reason.len() < 300 && !reason.contains(char::is_control), "{}: {reason:?}", report.node);
            latest = begun.elapsed();
            assert!(latest <= IN_TIME, "{} after {latest:?}: {reason}", report.node);
        }
        assert!(memory().saturating_sub(before) < MEMORY, "{} bytes more", memory() - before);
        println!("{count} checks, the last told after {latest:?}, {} KiB more", memory().saturating_sub(before) >> 10);
    });
}

#[test]
fn a_sound_answer_passes_the_same_checks() {
    on_one_thread(async {
        let sound: [(usize, &'static [u8]); 5] = [
            (0, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n"),
            (2, b"220-hello\r\n220 mail\r\n221 bye\r\n"),
            (3, b"+OK ready\r\n"),
            (4, b"* OK ready\r\n* BYE\r\nlb OK\r\n"),
            (6, b"+PONG\r\n"),
        ];
        let mut targets = Vec::new();
        for (kind, words) in sound {
            let (name, check) = kinds().swap_remove(kind);
            targets.push(target(name, Tcp::Says(words, End::Closes).serve().await, once(check)));
        }
        targets.push(target("dns", serve_udp(|query| vec![b"stray".to_vec(), response(query)]).await, once(dns())));
        let (sender, mut reports) = mpsc::channel(targets.len());
        let count = targets.len();
        let monitors = Monitors::spawn(sender, Outside::default());
        monitors.set(targets);
        for _ in 0..count {
            let report = reports.recv().await.expect("the monitors run");
            assert_eq!(report.health, Health::Up, "{}: {:?}", report.node, report.reason);
        }
    });
}
