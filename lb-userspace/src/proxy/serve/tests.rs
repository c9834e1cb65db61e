//! Requests through the proxy on loopback, with nodes that record what they are sent.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use super::super::testing::{Proxy, Recorder, Server, http_plan, read_head, wait};

mod bodies;
mod failures;
mod greeting;
mod memory;
mod policy;
mod records;
mod shaping;
mod upgrades;
mod verdicts;

/// Reads one response: head, and a body of the length it tells.
pub(super) fn read_response(client: &mut impl Read) -> (String, Vec<u8>) {
    let head = read_head(client);
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").map(|length| length.parse().unwrap())
        })
        .unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    (head, body)
}

/// Sends `request` and reads all until the proxy closes.
pub(super) fn exchange(proxy: &Proxy, request: &[u8]) -> String {
    let mut client = proxy.connect();
    client.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end, too.
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_follow_each_other_on_one_connection_and_one_to_the_node() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.write_all(b"GET /a?b HTTP/1.1\r\nHost: example.org\r\nConnection: X-Drop\r\nX-Drop: 1\r\n\r\n").unwrap();
        let (head, body) = read_response(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, b"ok");
    }
    let requests = node.requests();
    assert_eq!((requests.len(), node.connections()), (5, 1));
    for request in requests {
        assert_eq!(
            request,
            "GET /a?b HTTP/1.1\r\nHost: example.org\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: example.org\r\n\r\n"
        );
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_none_is_lost() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    let mut all = Vec::new();
    for i in 0..20 {
        all.extend_from_slice(format!("POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").as_bytes());
        all.extend_from_slice(format!("GET /{i}/get HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    client.write_all(&all).unwrap();
    for _ in 0..40 {
        assert_eq!(read_response(&mut client).1, b"ok");
    }
    let paths: Vec<String> =
        node.requests().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect();
    let expected: Vec<String> = (0..20).flat_map(|i| [format!("/{i}"), format!("/{i}/get")]).collect();
    assert_eq!(paths, expected);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    client.set_nodelay(true).unwrap();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_response(&mut client).1, b"ok");
    assert_eq!(node.requests().len(), 1);
}

#[test]
fn refused_requests_reach_no_node_and_close() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let answer = exchange(&proxy, format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(
            answer.contains("\r\nConnection: close\r\n") && answer.contains("Proxy-Status: lb; error="),
            "{answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert!(node.requests().is_empty());
}

#[test]
fn close_is_obeyed_on_either_side() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let (head, _) = read_response(&mut client);
        assert!(!head.contains("Connection:"), "the node's is not the client's: {head}");
    }
    assert_eq!(node.connections(), 2);
    let answer = exchange(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[test]
fn http_1_0_gets_what_it_understands() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let answer = exchange(&proxy, b"GET / HTTP/1.0\r\n\r\n");
    assert!(!answer.contains("Transfer-Encoding") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(node.requests()[0].contains(&format!("Host: {}\r\n", proxy.address())));
}

#[test]
fn head_and_204_and_304_have_no_body() {
    for (method, response) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
    ] {
        let node = Recorder::start(response);
        let proxy = Proxy::start(http_plan(&[node.address()]));
        let mut client = proxy.connect();
        for _ in 0..3 {
            client.write_all(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(read_head(&mut client), response, "told as it is, and kept in step");
        }
        assert_eq!(node.connections(), 1);
    }
}

#[test]
fn slow_heads_are_answered_408_and_silence_is_closed() {
    let mut plan = http_plan(&["127.0.0.1:1".parse().unwrap()]);
    let timeouts = &mut plan.virtual_servers.get_mut("test").unwrap().timeouts;
    timeouts.request_head = Duration::from_millis(200);
    let proxy = Proxy::start(plan);
    let mut slow = proxy.connect();
    let mut writer = slow.try_clone().unwrap();
    // Byte after byte: the time is absolute (THREATS H11).
    let drip = std::thread::spawn(move || {
        for byte in b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            if writer.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    drip.join().unwrap();
    let mut silent = String::new();
    proxy.connect().read_to_string(&mut silent).unwrap();
    assert_eq!(silent, "");
}

#[test]
fn kept_connections_end_after_their_time() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.keep_alive = Duration::from_millis(200);
    let proxy = Proxy::start(plan);
    let mut client = proxy.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_response(&mut client);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn draining_closes_after_the_next_response() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_response(&mut client);
    proxy.handle().drain(Duration::from_secs(10));
    wait(|| TcpStream::connect(proxy.address()).is_err());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (head, body) = read_response(&mut client);
    assert!(head.contains("\r\nConnection: close\r\n") && body == b"ok", "{head}");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    wait(|| proxy.handle().is_done());
}

#[test]
fn a_client_that_ends_its_direction_still_gets_its_response() {
    let node = Server::start(|mut peer| {
        read_head(&mut peer);
        std::thread::sleep(Duration::from_millis(50));
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut client = proxy.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_response(&mut client).1, b"ok");
}
