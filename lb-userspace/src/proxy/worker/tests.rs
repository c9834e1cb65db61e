//! The engine over loopback.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::proxy::testing::{self, Server};

#[test]
fn bytes_go_through_whoever_speaks_first_and_half_closed() {
    let greeter = Server::start(|mut peer| {
        peer.write_all(b"220 hello\r\n").unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        peer.write_all(&all).unwrap();
    });
    let proxy = testing::Proxy::start(testing::stream_plan(&[greeter.address()]));
    let mut client = proxy.connect();
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
    // More than sockets and pipes hold, so that every way of moving bytes is used.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

#[test]
fn another_node_serves_when_one_refuses() {
    let node = Server::start(|mut peer| peer.write_all(b"served").unwrap());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = testing::Proxy::start(testing::stream_plan(&[closed, node.address()]));
    for _ in 0..4 {
        let mut answer = String::new();
        proxy.connect().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "served");
    }
}

#[test]
fn a_new_plan_cuts_nothing_and_serves_new_connections_by_itself() {
    let echo = |mut peer: TcpStream| {
        let mut byte = [0; 1];
        while peer.read_exact(&mut byte).is_ok() {
            peer.write_all(&byte).unwrap();
        }
    };
    let (old, new) = (Server::start(echo), Server::start(|mut peer| peer.write_all(b"new").unwrap()));
    let proxy = testing::Proxy::start(testing::stream_plan(&[old.address()]));
    let mut kept = proxy.connect();
    exchange(&mut kept);
    proxy.swap(testing::stream_plan(&[new.address()]));
    let mut answer = String::new();
    proxy.connect().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "new");
    exchange(&mut kept);
}

fn exchange(kept: &mut TcpStream) {
    kept.write_all(b"x").unwrap();
    let mut byte = [0; 1];
    kept.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn draining_refuses_new_connections_and_cuts_what_stays_open_in_the_end() {
    let node = Server::start(|mut peer| drop(peer.read(&mut [0; 1])));
    let proxy = testing::Proxy::start(testing::stream_plan(&[node.address()]));
    let mut open = proxy.connect();
    testing::wait(|| proxy.handle().states()[0].connections == 1);
    let begin = Instant::now();
    proxy.handle().drain(Duration::from_millis(300));
    testing::wait(|| proxy.handle().is_done());
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn an_idle_tunnel_ends() {
    let node = Server::start(|mut peer| drop(peer.read(&mut [0; 1])));
    let mut plan = testing::stream_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.idle = Duration::from_millis(200);
    let proxy = testing::Proxy::start(plan);
    assert_eq!(proxy.connect().read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn listeners_of_addresses_that_are_gone_are_closed() {
    let node = Server::start(|mut peer| peer.write_all(b"served").unwrap());
    let proxy = testing::Proxy::start(testing::stream_plan(&[node.address()]));
    drop(proxy.connect());
    let mut plan = testing::stream_plan(&[node.address()]);
    plan.virtual_servers.clear();
    proxy.swap(plan);
    testing::wait(|| TcpStream::connect(proxy.address()).is_err());
}

#[test]
fn each_virtual_server_has_its_own_time_to_drain() {
    let node = Server::start(|mut peer| drop(peer.read(&mut [0; 1])));
    let mut plan = testing::stream_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.drain = Duration::from_millis(300);
    let proxy = testing::Proxy::start(plan);
    let mut open = proxy.connect();
    testing::wait(|| proxy.handle().states()[0].connections == 1);
    let begin = Instant::now();
    proxy.handle().drain(Duration::from_secs(3600));
    assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    testing::wait(|| proxy.handle().is_done());
}

#[test]
fn connections_of_a_virtual_server_that_is_gone_end_in_its_time() {
    let node = Server::start(|mut peer| drop(peer.read(&mut [0; 1])));
    let mut plan = testing::stream_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.drain = Duration::from_millis(300);
    let mut without = plan.clone();
    without.virtual_servers.clear();
    let proxy = testing::Proxy::start(plan.clone());
    let mut stays = proxy.connect();
    testing::wait(|| proxy.handle().states()[0].connections == 1);
    proxy.swap(without.clone());
    proxy.swap(plan);
    stays.set_read_timeout(Some(Duration::from_millis(1200))).unwrap();
    assert!(stays.read(&mut [0; 1]).is_err(), "it is back: nothing is cut");
    let begin = Instant::now();
    proxy.swap(without);
    stays.set_read_timeout(None).unwrap();
    assert_eq!(stays.read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[test]
fn idle_connections_to_nodes_that_are_gone_are_closed_at_once() {
    let (closed, waits) = std::sync::mpsc::channel();
    let node = Server::start(move |mut peer| {
        while testing::read_request(&mut peer).is_some() {
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
        closed.send(Instant::now()).unwrap();
    });
    let tunnel = Server::start(|mut peer| {
        testing::read_head(&mut peer);
        peer.write_all(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n").unwrap();
        let _ = peer.read(&mut [0; 1]);
    });
    let proxy = testing::Proxy::start(testing::http_plan(&[node.address()]));
    let mut client = proxy.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    testing::read_head(&mut client);
    client.read_exact(&mut [0; 2]).unwrap();
    // A node comes beside it, and an upgraded connection holds on to the plan of its begin.
    proxy.swap(testing::http_plan(&[tunnel.address(), node.address()]));
    for _ in 0..2 {
        let mut upgraded = proxy.connect();
        upgraded.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n").unwrap();
        testing::read_head(&mut upgraded);
        std::mem::forget(upgraded);
    }
    let begin = Instant::now();
    let mut without = testing::http_plan(&[tunnel.address()]);
    without.pools.get_mut("nodes").unwrap().keep_alive_timeout = Duration::from_secs(3600);
    proxy.swap(without);
    let at = waits.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(at.saturating_duration_since(begin) < Duration::from_secs(2));
}

#[test]
fn connections_come_with_their_first_bytes_where_clients_speak_first() {
    let node = Server::start(|mut peer| {
        while testing::read_request(&mut peer).is_some() {
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
        let _ = peer.write_all(b"server first");
    });
    let proxy = testing::Proxy::start(testing::http_plan(&[node.address()]));
    testing::wait(|| proxy.handle().states()[0].generation == 1);
    let mut silent = proxy.connect();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(proxy.handle().states()[0].connections, 0, "the kernel keeps it");
    silent.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    silent.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // One that stays silent is ours after a second: time-outs hold for it.
    let _mute = proxy.connect();
    testing::wait(|| proxy.handle().states()[0].connections == 2);
    // The same listener for servers that speak first.
    proxy.swap(testing::stream_plan(&[node.address()]));
    let begin = Instant::now();
    let _waits = proxy.connect();
    testing::wait(|| proxy.handle().states()[0].connections == 3);
    assert!(begin.elapsed() < Duration::from_millis(900), "took {:?}", begin.elapsed());
}
