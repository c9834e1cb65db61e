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
