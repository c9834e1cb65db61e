//! Clients that are slow, broken, in a hurry or in the wrong place (THREATS.md, T6), and certificates that change (X12).

use std::{
    cell::Cell,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt, sync::oneshot};

use super::fixtures::{Accepted, Authority, catalogue, listen, on_worker, setup, shake, soon};
use crate::proxy::{
    reactor::{self, Deadline},
    tls::{Gate, HandshakeError, ServerSetup, TlsStream, accept},
};

fn server() -> Arc<ServerSetup> {
    let certificates = catalogue([("a", Authority::new("ca").ecdsa(&["a.test"]))]);
    setup(&certificates, |tls| tls.default_certificate = Some("a".into()))
}

/// Serves one connection of `client`, which runs on a thread of its own; both results.
async fn meet<T: Send + 'static>(
    server: &Arc<ServerSetup>,
    at_ms: u64,
    client: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Accepted, T) {
    let (listener, address) = listen();
    let (say, said) = oneshot::channel();
    thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = say.send(client(stream));
    });
    let (io, _) = listener.accept().await.unwrap();
    let gate = Gate::new(4);
    let accepted = accept(io, server, &gate, &[], &Deadline::new(), at_ms).await;
    assert_eq!(gate.inside(), 0, "the place at the gate is given back");
    (accepted, said.await.unwrap())
}

/// All that a peer says until it closes.
fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset after the answer is an end as well.
    let _ = stream.read_to_end(&mut said);
    said
}

/// The first flight of an openssl client, as it is on the wire.
fn client_hello() -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut openssl = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "a.test"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl is installed by `cargo xtask setup`");
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut body).unwrap();
    drop(stream);
    openssl.wait().unwrap();
    [&head[..], &body].concat()
}

/// The same handshake message in records of `size` bytes each.
fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let records = hello[5..].chunks(size).map(|part| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1, length[0], length[1]], part].concat()
    });
    records.collect::<Vec<_>>().concat()
}

/// Whether a peer answered with a ServerHello.
fn is_server_hello(answer: &[u8]) -> bool {
    answer.len() > 5 && answer[0] == 22 && answer[5] == 2
}

#[test]
fn a_client_hello_may_come_in_pieces() {
    let hello = client_hello();
    on_worker(async move {
        let server = server();
        let rows = [
            ("whole", hello.clone(), 5000),
            ("one-byte records", fragmented(&hello, 1), 5000),
            ("records of 100", fragmented(&hello, 100), 5000),
            ("one byte a packet", hello.clone(), 1),
        ];
        for (case, bytes, packet) in rows {
            let (accepted, answer) = meet(&server, soon(), move |mut stream| {
                stream.set_nodelay(true).unwrap();
                for part in bytes.chunks(packet) {
                    stream.write_all(part).unwrap();
                }
                let mut answer = vec![0; 6];
                stream.read_exact(&mut answer).unwrap();
                answer
            })
            .await;
            assert!(is_server_hello(&answer), "{case}: {answer:?}");
            assert!(matches!(accepted.unwrap_err(), HandshakeError::Closed), "{case}");
        }
    });
}

#[test]
fn a_truncated_client_hello_gets_nothing_and_costs_its_deadline_at_most() {
    let hello = client_hello();
    on_worker(async move {
        let server = server();
        for length in [0, 1, 4, 5, 6, hello.len() / 2, hello.len() - 1] {
            let part = hello[..length].to_vec();
            let (accepted, answer) = meet(&server, soon(), move |mut stream| {
                stream.write_all(&part).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                rest(&stream)
            })
            .await;
            assert!(matches!(accepted.unwrap_err(), HandshakeError::Closed), "{length}");
            assert_eq!(answer, b"", "{length}");
        }
        let begin = Instant::now();
        let part = hello[..20].to_vec();
        let (accepted, _) = meet(&server, reactor::now_ms() + 300, move |mut stream| {
            stream.write_all(&part).unwrap();
            rest(&stream)
        })
        .await;
        let error = accepted.unwrap_err();
        assert!(matches!(error, HandshakeError::Timeout), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(3));
    });
}

#[test]
fn rubbish_is_answered_by_an_alert_and_never_by_a_panic() {
    let hello = client_hello();
    let mut oversized = vec![22, 3, 1, 0xff, 0xff];
    oversized.resize(70_000, 0);
    // A handshake message of 16 MB, as its length says, that goes on and on.
    let endless = [&[1, 0xff, 0xff, 0xff][..], &[0; 200_000]].concat();
    let mut cases = vec![
        ("a record too long", oversized),
        ("a message too long", fragmented(&[&[0; 5][..], &endless].concat(), 16_000)),
        ("application data", vec![23, 3, 3, 0, 5, 1, 2, 3, 4, 5]),
        ("SSLv2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("zeros", vec![0; 1000]),
    ];
    // Every byte of a good greeting changed, one at a time.
    for at in 0..hello.len() {
        let mut changed = hello.clone();
        changed[at] ^= 0xa5;
        cases.push(("a changed byte", changed));
    }
    on_worker(async move {
        let server = server();
        for (case, bytes) in cases {
            let (accepted, answer) = meet(&server, soon(), move |mut stream| {
                // The server may close before it has read all of it.
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                rest(&stream)
            })
            .await;
            assert!(accepted.is_err(), "{case}");
            // What could not be told apart from a good greeting is answered like one.
            let begins = answer.first().copied();
            assert!(matches!(begins, None | Some(21 | 22)), "{case}: {answer:?}");
        }
    });
}

#[test]
fn plain_http_is_told_to_use_https() {
    on_worker(async {
        let server = server();
        for request in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST"] {
            let (accepted, answer) = meet(&server, soon(), move |mut stream| {
                stream.write_all(request.as_bytes()).unwrap();
                rest(&stream)
            })
            .await;
            assert!(matches!(accepted.unwrap_err(), HandshakeError::PlainHttp), "{request}");
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
        }
    });
}

#[test]
fn only_so_many_handshakes_at_a_time() {
    on_worker(async {
        let server = server();
        let (listener, address) = listen();
        let gate = Gate::new(2);
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = Vec::new();
        for _ in 0..3 {
            accepted.push(listener.accept().await.unwrap().0);
        }
        let at_ms = reactor::now_ms() + 300;
        let (last, second, first) = (accepted.pop().unwrap(), accepted.pop().unwrap(), accepted.pop().unwrap());
        let deadlines = [Deadline::new(), Deadline::new(), Deadline::new()];
        let (first, second, last) = tokio::join!(
            accept(first, &server, &gate, &[], &deadlines[0], at_ms),
            accept(second, &server, &gate, &[], &deadlines[1], at_ms),
            accept(last, &server, &gate, &[], &deadlines[2], at_ms),
        );
        assert!(matches!(first.unwrap_err(), HandshakeError::Timeout));
        assert!(matches!(second.unwrap_err(), HandshakeError::Timeout));
        assert!(matches!(last.unwrap_err(), HandshakeError::Busy));
    });
}

#[test]
fn who_has_greeted_does_not_wait_for_those_who_only_begin() {
    on_worker(async {
        let authority = Authority::new("ca");
        let server = setup(&catalogue([("a", authority.ecdsa(&["a.test"]))]), |_| ());
        let config = Arc::new(authority.rustls_client());
        let (listener, address) = listen();
        let (answered, was_answered) = oneshot::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut client = rustls::ClientConnection::new(config, "a.test".try_into().unwrap()).unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            client.write_tls(&mut stream).unwrap();
            while client.is_handshaking() {
                client.read_tls(&mut stream).unwrap();
                client.process_new_packets().unwrap();
            }
            answered.send(()).unwrap();
            goes_on.recv().unwrap();
            while client.wants_write() {
                client.write_tls(&mut stream).unwrap();
            }
            let _ = stream.read(&mut [0; 1]);
        });
        let (io, _) = listener.accept().await.unwrap();
        let (gate, deadline) = (Gate::new(4), Deadline::new());
        let begins = async {
            was_answered.await.unwrap();
            let place = gate.enter().unwrap();
            let _turn = place.turn().await;
            go_on.send(()).unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            accepted = accept(io, &server, &gate, &[], &deadline, soon()) => drop(accepted.unwrap()),
            () = begins => {}
        }
    });
}

#[test]
fn a_greeting_in_pieces_waits_for_its_turn() {
    on_worker(async {
        let (server, hello) = (server(), client_hello());
        let (listener, address) = listen();
        let (began, has_begun) = oneshot::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let (say, said) = oneshot::channel();
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&hello[..40]).unwrap();
            // Time for the first step, which has nothing to do.
            thread::sleep(Duration::from_millis(50));
            began.send(()).unwrap();
            goes_on.recv().unwrap();
            stream.write_all(&hello[40..]).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = say.send(stream.read(&mut [0; 1]).is_ok());
        });
        let (io, _) = listener.accept().await.unwrap();
        let (gate, deadline) = (Gate::new(4), Deadline::new());
        let waits = async {
            has_begun.await.unwrap();
            let place = gate.enter().unwrap();
            let _turn = place.turn().await;
            go_on.send(()).unwrap();
            said.await.unwrap()
        };
        tokio::select! {
            accepted = accept(io, &server, &gate, &[], &deadline, soon()) => panic!("it did not wait: {:?}", accepted.err()),
            was_answered = waits => assert!(!was_answered, "it was answered while another had its turn"),
        }
    });
}

/// Accepts for ever by what `current` holds, and reads each connection to its end.
async fn serve_current(listener: reactor::Listener, current: Rc<Cell<Option<Arc<ServerSetup>>>>, gate: Rc<Gate>) {
    loop {
        let (io, _) = listener.accept().await.unwrap();
        let server = current.take().unwrap();
        current.set(Some(server.clone()));
        let gate = gate.clone();
        reactor::spawn(async move {
            let accepted = accept(io, &server, &gate, &[], &Deadline::new(), soon()).await;
            let (mut stream, _): (TlsStream, _) = accepted.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    }
}

#[test]
fn fifty_rotations_under_handshakes_fail_nobody() {
    on_worker(async {
        let authority = Authority::new("ca");
        let fresh = |authority: &Authority| setup(&catalogue([("a", authority.ecdsa(&["a.test"]))]), |_| ());
        let (listener, address) = listen();
        let current = Rc::new(Cell::new(Some(fresh(&authority))));
        reactor::spawn(serve_current(listener, current.clone(), Rc::new(Gate::new(64))));
        let client = authority.client(|_| (), &catalogue([]));
        let node = SocketAddr::from(([127, 0, 0, 1], 443));
        let mut serials = std::collections::BTreeSet::new();
        for _ in 0..50 {
            // Some begin under the old certificate and end under the new one.
            let early = super::fixtures::dial(address).await;
            current.set(Some(fresh(&authority)));
            for socket in [early, super::fixtures::dial(address).await] {
                let (deadline, at_ms) = (Deadline::new(), soon());
                let stream =
                    crate::proxy::tls::connect(socket, &client, node, "a.test", &deadline, at_ms).await.unwrap();
                serials.insert(stream.state().peer_certificates().unwrap()[0].to_vec());
            }
        }
        assert!(serials.len() >= 50, "new certificates were served: {}", serials.len());
        assert_eq!(reactor::panics(), 0);
        // The two sides still agree.
        shake(&fresh(&authority), &client, "a.test").await.0.unwrap();
    });
}
