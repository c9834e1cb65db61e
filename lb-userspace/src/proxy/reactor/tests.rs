//! Tasks, sockets and deadlines on a real event loop.

use std::{
    future::poll_fn,
    io::{IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use super::*;

/// A listener of the reactor and its address.
fn listener() -> (Listener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (Listener::new(listener).unwrap(), address)
}

#[test]
fn bytes_go_both_ways_and_an_end_is_read_after_them() {
    let (sent, received) = run(async {
        let (listener, address) = listener();
        let peer = std::thread::spawn(move || {
            let mut peer = TcpStream::connect(address).unwrap();
            peer.write_all(b"ping").unwrap();
            let mut answer = [0; 4];
            peer.read_exact(&mut answer).unwrap();
            peer.write_all(b"!").unwrap();
            answer
        });
        let (socket, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        let mut room = [0; 16];
        while received.len() < 4 {
            let count = poll_fn(|context| socket.poll_read(context, &mut room)).await.unwrap();
            received.extend_from_slice(&room[..count]);
        }
        let slices = [IoSlice::new(b"po"), IoSlice::new(b"ng")];
        assert_eq!(poll_fn(|context| socket.poll_write_vectored(context, &slices)).await.unwrap(), 4);
        loop {
            match poll_fn(|context| socket.poll_read(context, &mut room)).await.unwrap() {
                0 => break,
                count => received.extend_from_slice(&room[..count]),
            }
        }
        assert!(socket.has_ended() && !socket.is_quiet());
        (peer.join().unwrap(), received)
    })
    .unwrap();
    assert_eq!((&sent, received.as_slice()), (b"pong", &b"ping!"[..]));
}

#[test]
fn a_connection_is_quiet_until_something_comes() {
    run(async {
        let (listener, address) = listener();
        let mut peer = TcpStream::connect(address).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        assert!(socket.is_quiet());
        peer.write_all(b"unasked").unwrap();
        poll_fn(|context| socket.poll_readable(context)).await.unwrap();
        assert!(!socket.is_quiet());
    })
    .unwrap();
}

#[test]
fn connecting_tells_success_and_refusal() {
    run(async {
        let (listener, address) = listener();
        let socket = Socket::connect(address, None).unwrap();
        socket.connected().await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, socket.local_address().unwrap());
        drop(listener);
        let error = match Socket::connect(address, None) {
            Ok(socket) => socket.connected().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    })
    .unwrap();
}

#[test]
fn deadlines_end_waits_but_not_early() {
    run(async {
        let deadline = Deadline::new();
        let begin = now_ms();
        assert_eq!(deadline.within(begin + 150, std::future::pending::<()>()).await, Err(Elapsed));
        let took = now_ms() - begin;
        assert!((150..1000).contains(&took), "took {took} ms");
        assert_eq!(deadline.within(now_ms() + 10_000, async { 7 }).await, Ok(7));
    })
    .unwrap();
}

#[test]
fn other_threads_wake_tasks() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        sender.send(5).unwrap();
    });
    assert_eq!(run(receiver).unwrap(), Ok(5));
    other.join().unwrap();
}

#[test]
fn a_panic_ends_its_task_alone() {
    run(async {
        spawn(async { panic!("on purpose") });
        yield_now().await;
        assert_eq!(panics(), 1);
    })
    .unwrap();
    assert!(run(async { panic!("the root, on purpose") }).is_err());
}

#[test]
fn tasks_that_are_left_are_dropped_with_the_reactor() {
    let held = Rc::new(());
    let task = Rc::clone(&held);
    run(async move {
        spawn(async move {
            let _deadline = Deadline::new();
            std::future::pending::<()>().await;
            drop(task);
        });
        yield_now().await;
    })
    .unwrap();
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn splicing_moves_bytes_between_sockets() {
    run(async {
        let (listener, address) = listener();
        let mut from = TcpStream::connect(address).unwrap();
        let (source, _) = listener.accept().await.unwrap();
        let mut to = TcpStream::connect(address).unwrap();
        let (sink, _) = listener.accept().await.unwrap();
        let (pipe_out, pipe_in) = std::io::pipe().unwrap();
        from.write_all(&[9; 5000]).unwrap();
        let mut moved = 0;
        while moved < 5000 {
            let count = poll_fn(|c| source.poll_splice_to(c, pipe_in.as_fd(), 5000)).await.unwrap();
            assert_eq!(poll_fn(|c| sink.poll_splice_from(c, pipe_out.as_fd(), count, false)).await.unwrap(), count);
            moved += count;
        }
        let mut received = vec![0; 5000];
        to.read_exact(&mut received).unwrap();
        assert!(received.iter().all(|byte| *byte == 9));
    })
    .unwrap();
}

#[test]
fn long_work_lets_all_that_is_ready_and_new_events_go_first() {
    let order = run(async {
        let (listener, address) = listener();
        let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let served = std::rc::Rc::clone(&order);
        spawn(async move {
            listener.accept().await.unwrap();
            served.borrow_mut().push("event");
        });
        yield_now().await;
        let _client = TcpStream::connect(address).unwrap();
        let ready = std::rc::Rc::clone(&order);
        spawn(async move { ready.borrow_mut().push("ready") });
        next_round().await;
        // The event of this round woke its task before us.
        yield_now().await;
        order.borrow_mut().push("long work");
        order.take()
    })
    .unwrap();
    assert_eq!(order, ["ready", "event", "long work"]);
}
