//! Nodes that fail in every way, and what becomes of the request.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{exchange, read_response};
use crate::{
    control::proxy::Service,
    control::proxy::http::ErrorPage,
    proxy::testing::{Proxy, Recorder, Server, http_plan, read_head, read_request, wait},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An address that refuses connections.
fn closed() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_refusing_node_is_passed_over_even_for_post() {
    let node = Recorder::start(std::str::from_utf8(OK).unwrap());
    let proxy = Proxy::start(http_plan(&[closed(), node.address()]));
    for _ in 0..4 {
        let answer =
            exchange(&proxy, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
        assert!(answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(node.requests().len(), 4);
}

#[test]
fn when_no_node_is_there_the_answer_says_so() {
    let proxy = Proxy::start(http_plan(&[closed()]));
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    assert!(answer.contains("Proxy-Status: lb; error=connection_refused"), "{answer}");
}

#[test]
fn own_pages_keep_their_status_fields_and_body() {
    let mut plan = http_plan(&[closed()]);
    let Service::Http(http) = &mut plan.virtual_servers.get_mut("test").unwrap().service else { unreachable!() };
    http.error_page = ErrorPage::Own {
        status: Some(500),
        fields: vec![("X-Sorry".to_owned(), "yes".to_owned())],
        body: b"sorry".to_vec(),
        content_type: "text/plain".to_owned(),
    };
    let proxy = Proxy::start(plan);
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("\r\nX-Sorry: yes\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nsorry"), "{answer}");
}

/// A node whose first connection ends as `first` says after one request, and whose others serve.
fn failing_once(first: impl Fn(std::net::TcpStream) + Send + Sync + 'static) -> (Server, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let connections = AtomicUsize::new(0);
    let node = Server::start(move |mut peer| {
        let is_first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        while read_request(&mut peer).is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
            if is_first {
                return first(peer);
            }
            peer.write_all(OK).unwrap();
        }
    });
    (node, requests)
}

#[test]
fn a_get_that_got_no_answer_is_tried_elsewhere_and_a_post_is_not() {
    for (request, status, requests) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, 2),
        ("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", 200, 2),
        ("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", 502, 1),
    ] {
        let (failing, first) = failing_once(drop);
        let served = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&served);
        let other = Server::start(move |mut peer| {
            while read_request(&mut peer).is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                peer.write_all(OK).unwrap();
            }
        });
        let mut plan = http_plan(&[failing.address(), other.address()]);
        // The failing node is the one that is chosen first.
        plan.pools.get_mut("nodes").unwrap().scheduler = crate::control::proxy::pool::Scheduler::LeastConnections;
        plan.pools.get_mut("nodes").unwrap().nodes.get_mut("node0").unwrap().priority = 10;
        plan.pools.get_mut("nodes").unwrap().min_live_nodes = 1;
        let proxy = Proxy::start(plan);
        let answer = exchange(&proxy, request.as_bytes());
        let tried = first.load(Ordering::SeqCst) + served.load(Ordering::SeqCst);
        assert!(tried <= requests, "{request}: {tried} times");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) || status == 200 && tried == 1,
            "{request}: {answer}"
        );
    }
}

#[test]
fn a_kept_connection_that_the_node_closes_costs_no_request() {
    let node = Server::start(|mut peer| {
        // One response, then the connection is closed without a word.
        if read_request(&mut peer).is_some() {
            peer.write_all(OK).unwrap();
        }
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    for _ in 0..50 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (head, body) = read_response(&mut client);
        assert!(head.starts_with("HTTP/1.1 200") && body == b"ok", "{head}");
    }
}

#[test]
fn a_body_that_is_cut_off_is_not_taken_for_complete() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nshort",
    ] {
        let node = Server::start(move |mut peer| {
            read_head(&mut peer);
            peer.write_all(response.as_bytes()).unwrap();
        });
        let proxy = Proxy::start(http_plan(&[node.address()]));
        let mut client = proxy.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.ends_with("0\r\n\r\n") && answer.matches("HTTP/1.1").count() <= 1, "{answer}");
    }
}

#[test]
fn what_is_no_response_is_answered_502_and_never_passed_on() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    ] {
        let node = Server::start(move |mut peer| {
            read_head(&mut peer);
            peer.write_all(response.as_bytes()).unwrap();
        });
        let proxy = Proxy::start(http_plan(&[node.address()]));
        let answer = exchange(&proxy, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 502 "), "{response:?}: {answer}");
    }
}

#[test]
fn bytes_after_a_response_meet_no_other_request() {
    let node = Server::start(|mut peer| {
        while read_request(&mut peer).is_some() {
            peer.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            )
            .unwrap();
        }
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut client).1, b"ok");
    }
}

#[test]
fn a_silent_node_is_given_up_in_time() {
    let silent = Server::start(|mut peer| drop(peer.read_to_end(&mut Vec::new())));
    let mut plan = http_plan(&[silent.address()]);
    plan.pools.get_mut("nodes").unwrap().timeouts.reply = Duration::from_millis(200);
    let proxy = Proxy::start(plan);
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("error=http_response_timeout"), "{answer}");
}

#[test]
fn a_slow_body_is_answered_408() {
    let node = Recorder::start(std::str::from_utf8(OK).unwrap());
    let mut plan = http_plan(&[node.address()]);
    let timeouts = &mut plan.virtual_servers.get_mut("test").unwrap().timeouts;
    timeouts.body_grace = Duration::from_millis(300);
    let proxy = Proxy::start(plan);
    let answer = exchange(&proxy, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nslow");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(node.requests().is_empty());
}

/// A listener whose backlog is full: SYNs to it are dropped, as by a machine that is gone. With what keeps it so.
fn blackhole() -> (std::net::SocketAddr, Vec<socket2::Socket>) {
    let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut kept = vec![listener];
    for _ in 0..4 {
        let client = new();
        client.set_nonblocking(true).unwrap();
        // In progress, for ever or not.
        let _ = client.connect(&address);
        kept.push(client);
    }
    (address.as_socket().unwrap(), kept)
}

#[test]
fn a_node_that_drops_every_packet_is_passed_over_within_the_connect_timeout() {
    let (gone, _kept) = blackhole();
    let node = Recorder::start(std::str::from_utf8(OK).unwrap());
    let mut plan = http_plan(&[gone, node.address()]);
    plan.pools.get_mut("nodes").unwrap().timeouts.connect = Duration::from_millis(300);
    let proxy = Proxy::start(plan);
    let begin = std::time::Instant::now();
    for _ in 0..4 {
        let answer =
            exchange(&proxy, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
        assert!(answer.ends_with("ok"), "{answer}");
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(300), "nobody was waited for: {took:?}");
    assert!(took < Duration::from_secs(3), "took {took:?}");
    assert_eq!(node.requests().len(), 4, "none twice");
}

/// Drops what comes to a listener from this port; from all, without one.
fn deaf_to(listener: &socket2::Socket, port: Option<u16>) {
    use nix::libc::{BPF_ABS, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    let take = |code: u32, jump: (u8, u8), value: u32| {
        socket2::SockFilter::new(u16::try_from(code).unwrap(), jump.0, jump.1, value)
    };
    let program = match port {
        None => vec![take(BPF_RET | BPF_K, (0, 0), 0)],
        // The first two bytes of a TCP header are the source port.
        Some(port) => vec![
            take(BPF_LD | BPF_H | BPF_ABS, (0, 0), 0),
            take(BPF_JMP | BPF_JEQ | BPF_K, (0, 1), port.into()),
            take(BPF_RET | BPF_K, (0, 0), 0),
            take(BPF_RET | BPF_K, (0, 0), u32::MAX),
        ],
    };
    listener.attach_filter(&program).unwrap();
}

/// Local ports of connections to `to` whose SYN was not answered.
fn waiting(to: std::net::SocketAddr) -> Vec<u16> {
    let remote = format!("0100007F:{:04X} 02", to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ports = table.lines().filter(|line| line.contains(&remote)).filter_map(|line| {
        let local = line.split_whitespace().nth(1)?;
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    });
    ports.collect()
}

#[test]
fn x6_a_lost_syn_fails_no_request() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    deaf_to(&listener, None);
    listener.listen(8).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let accepting = TcpListener::from(listener.try_clone().unwrap());
    std::thread::spawn(move || {
        for peer in accepting.incoming() {
            let mut peer = peer.unwrap();
            read_request(&mut peer);
            peer.write_all(OK).unwrap();
        }
    });
    let mut plan = http_plan(&[address]);
    // The second connection comes before the first SYN again; whatever comes of the first is lost.
    plan.pools.get_mut("nodes").unwrap().timeouts.connect = Duration::from_millis(2700);
    let proxy = Proxy::start(plan);
    let mut client = proxy.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    wait(|| waiting(address).len() == 1);
    deaf_to(&listener, waiting(address).first().copied());
    let (head, body) = read_response(&mut client);
    assert!(head.starts_with("HTTP/1.1 200 ") && body == b"ok", "{head}");
    wait(|| waiting(address).is_empty());
    let counted = proxy.handle().stats().snapshot().nodes["nodes"]["node0"].clone();
    assert_eq!((counted.connect_failures, counted.connected), (0, 1), "{counted:?}");
}

#[test]
fn a_client_that_takes_nothing_is_cut_after_the_write_stall() {
    let node = Server::start(|mut peer| {
        read_request(&mut peer);
        let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
        while peer.write_all(&[0; 65_536]).is_ok() {}
    });
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.write_stall = Duration::from_millis(300);
    let proxy = Proxy::start(plan);
    let mut client = proxy.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait(|| proxy.handle().states()[0].connections == 1);
    let begin = std::time::Instant::now();
    wait(|| proxy.handle().states()[0].connections == 0);
    assert!(begin.elapsed() >= Duration::from_millis(200), "it had its time");
}
