//! Requests and their responses: between every two versions of HTTP, with bodies, trailers, failures and draining.

use std::{
    future::Future,
    io::{Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::wire::{self, GOAWAY, HEADERS, Wire};
use crate::{
    control::proxy::{ProxyPlan, Service, http::Coding, pool::NodeProtocol},
    proxy::testing::{Proxy, Recorder, Server, http_plan, read_request, wait},
};

/// Runs a test's client on a runtime of its own: the proxy's is not that one.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.unwrap() })
}

async fn connect(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// A node over HTTP/2; `serve` answers each request.
fn node<F>(
    serve: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond));
                    }
                });
            }
        });
    });
    (address, connections)
}

/// Answers with what came, and with the trailers that came and one more.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if stream.send_data(data, false).is_err() {
            return;
        }
    }
    let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}

fn h2_plan(nodes: &[SocketAddr]) -> ProxyPlan {
    let mut plan = http_plan(nodes);
    plan.pools.get_mut("nodes").unwrap().protocol = NodeProtocol::Http2;
    plan
}

fn message(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://a.test{path}"))
}

async fn read(body: &mut RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.unwrap())
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, data: &[u8]) {
    let mut left = data;
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        let count =
            std::future::poll_fn(|context| stream.poll_capacity(context)).await.unwrap().unwrap().min(left.len());
        stream.send_data(Bytes::copy_from_slice(&left[..count]), false).unwrap();
        left = &left[count..];
    }
}

#[test]
fn h2_to_h1_a_node_gets_one_request_in_its_form() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nConnection: x-b\r\nX-B: 1\r\nX-C: 2\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    block_on(async {
        let mut sender = connect(proxy.address()).await;
        let request =
            message("GET", "/a/../b?c").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
        let (response, _) = sender.send_request(request.header("x_y", "z").body(()).unwrap(), true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers().get("content-length").unwrap()),
            (200, &HeaderValue::from(2))
        );
        assert!(response.headers().get("x-c").is_some() && response.headers().get("x-b").is_none());
        assert!(response.headers().get("connection").is_none());
        assert_eq!(read(response.body_mut()).await.0, b"ok");
    });
    assert_eq!(
        node.last().0,
        "GET /b?c HTTP/1.1\r\nHost: a.test\r\nCookie: a=1; b=2\r\nTE: trailers\r\nConnection: TE\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: a.test\r\n\r\n"
    );
}

#[test]
fn h2_to_h1_bodies_of_any_length_go_both_ways() {
    let node = Server::start(|mut peer| {
        while let Some((_, body)) = read_request(&mut peer) {
            use std::io::Write;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if peer.write_all(head.as_bytes()).and_then(|()| peer.write_all(&body)).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let data: Vec<u8> = (0..1_500_000_u32).map(|i| (i % 251) as u8).collect();
    block_on(async {
        for told in [false, true] {
            let mut sender = connect(proxy.address()).await;
            let mut request = message("POST", "/");
            if told {
                request = request.header("content-length", data.len());
            }
            let (response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            send_all(&mut stream, &data).await;
            stream.send_data(Bytes::new(), true).unwrap();
            let (body, trailers) = read(response.await.unwrap().body_mut()).await;
            assert!(body == data && trailers.is_none(), "{} bytes came back", body.len());
        }
    });
}

#[test]
fn requests_of_a_connection_do_not_wait_for_each_other() {
    let node = Server::start(|mut peer| {
        use std::io::Write;
        while let Some((head, _)) = read_request(&mut peer) {
            if head.starts_with("GET /slow ") {
                std::thread::sleep(Duration::from_millis(500));
            }
            peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    block_on(async {
        let mut sender = connect(proxy.address()).await;
        let (slow, _) = sender.send_request(message("GET", "/slow").body(()).unwrap(), true).unwrap();
        let (fast, _) = sender.send_request(message("GET", "/").body(()).unwrap(), true).unwrap();
        tokio::select! {
            biased;
            _ = slow => panic!("the slow one came first"),
            fast = fast => assert_eq!(fast.unwrap().status().as_u16(), 204),
        }
    });
}

#[test]
fn a_stream_that_is_reset_leaves_the_node_alone_and_the_others_alive() {
    let ended = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&ended);
    let node = Server::start(move |mut peer| {
        use std::io::Read;
        read_request(&mut peer);
        // The proxy closes its connection, because nobody waits for the answer.
        assert_eq!(peer.read(&mut [0; 1]).unwrap_or(0), 0);
        seen.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut wire = Wire::open(&proxy);
    wire.send(&wire::get(1));
    std::thread::sleep(Duration::from_millis(100));
    wire.send(&wire::frame(wire::RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    wait(|| ended.load(Ordering::SeqCst) == 1);
    wire.send(&wire::frame(wire::PING, 0, 0, &[1; 8]));
    assert!(wire.read_kind(wire::PING).is_some());
}

#[test]
fn failures_are_answered_with_a_page_and_the_connection_goes_on() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(http_plan(&[closed]));
    block_on(async {
        let mut sender = connect(proxy.address()).await;
        for method in ["GET", "HEAD", "POST"] {
            let (response, _) = sender.send_request(message(method, "/").body(()).unwrap(), true).unwrap();
            let mut response = response.await.unwrap();
            assert!([502, 503].contains(&response.status().as_u16()), "{response:?}");
            assert!(response.headers().get("proxy-status").is_some() && response.headers().get("connection").is_none());
            let (body, _) = read(response.body_mut()).await;
            assert_eq!(body.is_empty(), method == "HEAD");
        }
    });
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut wire = Wire::open(&proxy);
    let block = [wire::pseudo("POST", "/"), wire::fields(&[("expect", "100-continue")])].concat();
    wire.send(&wire::begin(1, &block));
    assert_eq!(wire.read_kind(HEADERS).unwrap().status(), 100);
    wire.send(&wire::frame(wire::DATA, wire::END_STREAM, 1, b"x"));
    assert!(wire.read_kind(HEADERS).is_some());
    assert_eq!(node.last().1, b"x");
}

#[test]
fn draining_says_goaway_and_ends_what_runs() {
    let node = Server::start(|mut peer| {
        use std::io::Write;
        read_request(&mut peer);
        std::thread::sleep(Duration::from_millis(1200));
        let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut wire = Wire::open(&proxy);
    wire.send(&wire::get(1));
    std::thread::sleep(Duration::from_millis(100));
    proxy.handle().drain(Duration::from_secs(10));
    let (mut goaway, mut answered) = (false, false);
    while let Some(frame) = wire.read() {
        match frame.kind {
            GOAWAY => {
                assert_eq!(frame.code(), 0);
                goaway = true;
            }
            wire::PING if frame.flags == 0 => wire.send(&wire::frame(wire::PING, wire::ACK, 0, &frame.payload)),
            HEADERS => {
                assert!(goaway && frame.status() == 200, "GOAWAY comes while the request runs");
                answered = true;
            }
            _ => {}
        }
    }
    assert!(answered && !wire.is_silent);
    wait(|| proxy.handle().is_done());
}

#[test]
fn grpc_goes_through_with_trailers_both_ways() {
    let (address, connections) = node(echo);
    let proxy = Proxy::start(h2_plan(&[address]));
    block_on(async {
        let mut sender = connect(proxy.address()).await;
        for round in 0..3 {
            let request = message("POST", "/pkg.Service/Method")
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let (response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            let mut response = response.await.unwrap();
            // Both directions at the same time: a message comes back before the next is sent.
            for part in [b"\0\0\0\0\x02hi".as_slice(), b"\0\0\0\0\x02ho"] {
                stream.send_data(Bytes::copy_from_slice(part), false).unwrap();
                let data = response.body_mut().data().await.unwrap().unwrap();
                assert_eq!(data, part, "round {round}");
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-own", HeaderValue::from_static("1"));
            trailers.insert("x-forwarded-for", HeaderValue::from_static("9.9.9.9"));
            stream.send_trailers(trailers).unwrap();
            let (rest, trailers) = read(response.body_mut()).await;
            let trailers = trailers.unwrap();
            assert!(rest.is_empty() && trailers["grpc-status"] == "0" && trailers["x-own"] == "1", "{trailers:?}");
            assert!(trailers.get("x-forwarded-for").is_none());
        }
    });
    assert_eq!(connections.load(Ordering::SeqCst), 1, "streams share a connection");
}

#[test]
fn h1_to_h2_a_client_sees_no_difference() {
    let (address, connections) = node(|request, mut respond| async move {
        let path = request.uri().path().to_owned();
        assert_eq!((request.uri().authority().unwrap().as_str(), request.headers().get("host")), ("a.test", None));
        assert_eq!(request.headers()["x-forwarded-for"], "127.0.0.1");
        if path == "/echo" {
            return echo(request, respond).await;
        }
        let response = Response::builder().status(if path == "/none" { 204 } else { 200 }).body(()).unwrap();
        let _ = respond.send_response(response, true);
    });
    let proxy = Proxy::start(h2_plan(&[address]));
    let mut client = proxy.connect();
    use std::io::Write;
    for (request, status, body) in [
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "200", ""),
        ("GET /none HTTP/1.1\r\nHost: a.test\r\n\r\n", "204", ""),
        ("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n", "200", ""),
        ("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", "200", "hello"),
        (
            "POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "200",
            "abc",
        ),
        ("GET /?a=<b>\" HTTP/1.1\r\nHost: a.test\r\n\r\n", "200", ""),
    ] {
        client.write_all(request.as_bytes()).unwrap();
        let (head, read) = read_response(&mut client);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert_eq!(read, body.as_bytes(), "{request}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// Reads a response, whose body may come in chunks, by a reading of its own.
fn read_response(client: &mut impl std::io::Read) -> (String, Vec<u8>) {
    let head = crate::proxy::testing::read_head(client);
    let mut body = Vec::new();
    if head.contains("Transfer-Encoding: chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
            }
            let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            client.read_exact(&mut chunk).unwrap();
            if length == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }
    (head, body)
}

#[test]
fn requests_that_a_node_refused_go_elsewhere_even_when_not_idempotent() {
    let (refusing, _) = node(|_, mut respond| async move { respond.send_reset(h2::Reason::REFUSED_STREAM) });
    let (serving, _) = node(echo);
    let proxy = Proxy::start(h2_plan(&[refusing, serving]));
    block_on(async {
        let mut sender = connect(proxy.address()).await;
        for _ in 0..6 {
            let (response, mut stream) = sender.send_request(message("POST", "/").body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from_static(b"body"), true).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(response.status().as_u16(), 200);
            assert_eq!(read(response.body_mut()).await.0, b"body");
        }
    });
}

#[test]
fn requests_that_may_have_been_executed_are_not_sent_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let serve = move |_: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) }
    };
    let (address, _) = node(serve);
    let proxy = Proxy::start(h2_plan(&[address, address]));
    block_on(async {
        let mut sender = connect(proxy.address()).await;
        let (response, _) = sender.send_request(message("POST", "/").body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status().as_u16(), 502);
    });
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn windows_hold_and_bytes_that_nobody_took_count() {
    let node = Server::start(|mut peer| {
        read_request(&mut peer);
        std::thread::sleep(Duration::from_secs(5));
    });
    let mut plan = http_plan(&[node.address()]);
    let pool = plan.pools.get_mut("nodes").unwrap();
    pool.nodes.values_mut().for_each(|node| node.max_connections = 1);
    (pool.queue, pool.queue_timeout) = (8, Duration::from_secs(10));
    let proxy = Proxy::start(plan);
    let mut wire = Wire::open(&proxy);
    // The first one has the only connection: the others wait, and take nothing.
    wire.send(&wire::get(1));
    let part = |stream| wire::frame(wire::DATA, 0, stream, &[7; 16_384]);
    wire.send(&[wire::post(3), part(3).repeat(4)].concat());
    wire.send(&wire::frame(wire::PING, 0, 0, &[1; 8]));
    assert!(wire.read_kind(wire::PING).is_some(), "as much as the window: 64 KiB");
    wire.send(&wire::frame(wire::DATA, 0, 3, b"x"));
    let reset = wire.read_kind(wire::RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.code()), (3, 3), "FLOW_CONTROL_ERROR");
    // What the reset stream held is given back, but for a byte that is not worth a frame: two streams fill the connection's
    // window, a byte more breaks it.
    let last = wire::frame(wire::DATA, 0, 7, &[7; 16_383]);
    wire.send(&[wire::post(5), part(5).repeat(4), wire::post(7), part(7).repeat(3), last].concat());
    wire.send(&wire::frame(wire::PING, 0, 0, &[2; 8]));
    assert!(wire.read_kind(wire::PING).is_some());
    wire.send(&[wire::post(9), wire::frame(wire::DATA, 0, 9, b"x")].concat());
    assert_eq!(wire.read_kind(GOAWAY).unwrap().code(), 3);
}

#[test]
fn an_answer_before_the_body_came_ends_the_stream_alone() {
    let node = Server::start(|mut peer| {
        use std::io::{Read, Write};
        let _ = peer.read(&mut [0; 4096]);
        let _ = peer.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        std::thread::sleep(Duration::from_secs(2));
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut wire = Wire::open(&proxy);
    wire.send(&[wire::post(1), wire::frame(wire::DATA, 0, 1, b"begun")].concat());
    assert_eq!(wire.read_kind(HEADERS).unwrap().status(), 413);
    let reset = wire.read_kind(wire::RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.code()), (1, 0), "NO_ERROR: RFC 9113 §8.1");
    // What was on its way is no mistake.
    wire.send(&[wire::frame(wire::DATA, 0, 1, b"more"), wire::frame(wire::PING, 0, 0, &[1; 8])].concat());
    assert!(wire.read_kind(wire::PING).is_some());
}

#[test]
fn responses_are_compressed_for_clients_over_h2_and_end_with_their_trailers() {
    let body = "the same words over and over. ".repeat(10_000);
    let text = body.clone();
    let node = Server::start(move |mut peer| {
        while read_request(&mut peer).is_some() {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = format!("{:x}\r\n{text}\r\n0\r\nx-sum: 1\r\n\r\n", text.len());
            peer.write_all([head, &chunk].concat().as_bytes()).unwrap();
        }
    });
    let mut plan = http_plan(&[node.address()]);
    let Service::Http(http) = &mut plan.virtual_servers.get_mut("test").unwrap().service else { unreachable!() };
    http.compression = vec![Coding::Gzip];
    let proxy = Proxy::start(plan);
    block_on(async {
        let mut sender = connect(proxy.address()).await;
        let request = message("GET", "/").header("accept-encoding", "gzip").header("te", "trailers");
        let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert!(response.headers().get("content-length").is_none());
        let (bytes, trailers) = read(response.body_mut()).await;
        assert!(bytes.len() < body.len() / 10, "{}", bytes.len());
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, body);
        assert_eq!(trailers.unwrap()["x-sum"], "1");
    });
}
