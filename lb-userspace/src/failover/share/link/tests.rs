//! Two machines, and one that does not belong there, on the loopback interface.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::*;
use crate::control::shared;

/// Tells one connection after each restart, and one more whenever it is asked for.
struct Once {
    port: u16,
    told: bool,
}

fn ended(port: u16) -> Shared {
    let at = |host, port| SocketAddr::from(([192, 0, 2, host], port));
    Shared::Ended(shared::Ends { protocol: 6, client: at(1, port), vip: at(2, 80) })
}

impl Source for Once {
    fn restart(&mut self) {
        self.told = false;
    }

    fn advance(&mut self, out: &mut Vec<Shared>) -> bool {
        out.extend((!std::mem::replace(&mut self.told, true)).then(|| ended(self.port)));
        true
    }

    fn told(&self) -> usize {
        self.told.into()
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Shared>>>);

impl Sink for Heard {
    fn take(&mut self, shared: &Shared) {
        self.0.lock().unwrap().push(shared.clone());
    }

    fn taken(&mut self) {}
}

impl Heard {
    fn all(&self) -> Vec<Shared> {
        self.0.lock().unwrap().clone()
    }
}

/// A free port of the loopback interface.
fn place() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn machine(own: (&str, SocketAddr), other: (&str, SocketAddr), secrets: &[&[u8]], port: u16) -> (Sharing, Heard) {
    let (heard, settings) = (Heard::default(), settings(own, other, secrets));
    let sharing = start(settings, move || Box::new(Once { port, told: false }), Box::new(heard.clone())).unwrap();
    (sharing, heard)
}

fn settings(own: (&str, SocketAddr), other: (&str, SocketAddr), secrets: &[&[u8]]) -> Settings {
    Settings {
        machine: own.0.to_owned(),
        secrets: secrets.iter().map(|secret| secret.to_vec()).collect(),
        listen: vec![own.1],
        peers: BTreeMap::from([(other.0.to_owned(), vec![other.1])]),
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn machines_tell_each_other_also_when_one_comes_back_and_while_keys_are_changed() {
    let (a, b) = (("lb1", place()), ("lb2", place()));
    let (first, heard_by_first) = machine(a, b, &[b"new secret", b"old secret"], 1);
    let (second, heard_by_second) = machine(b, a, &[b"old secret", b"new secret"], 2);
    wait_for("both hear", || heard_by_first.all() == [ended(2)] && heard_by_second.all() == [ended(1)]);
    let told = first.status().peers["lb2"].clone();
    assert_eq!((told.is_connected, told.told, told.sent, told.received), (true, 1, 1, 1));
    drop(second);
    wait_for("the loss is seen", || !first.status().peers["lb2"].is_connected);
    let (_second, heard_by_second) = machine(b, a, &[b"old secret", b"new secret"], 3);
    wait_for("all is told anew", || heard_by_second.all() == [ended(1)] && heard_by_first.all().contains(&ended(3)));
}

#[test]
fn another_name_and_another_key_are_refused_on_both_sides() {
    let (a, b) = (("lb1", place()), ("lb2", place()));
    let (first, heard_by_first) = machine(a, b, &[b"secret"], 1);
    // It has the key, and the place of another machine: what it tells is of nobody that is known, and nobody means to tell it.
    let (second, heard_by_second) = machine(("lb3", b.1), a, &[b"secret"], 2);
    let why = |of: &Sharing, peer: &str| of.status().peers.get(peer).and_then(|peer| peer.why.clone());
    let refused = |of: &Sharing, peer: &str| why(of, peer).is_some_and(|why| why.contains("another name"));
    wait_for("the stranger is refused", || first.status().refused > 0 && refused(&second, "lb1"));
    wait_for("the stranger refuses", || second.status().refused > 0 && refused(&first, "lb2"));
    assert!(!first.status().peers["lb2"].is_connected && !second.status().peers["lb1"].is_connected);
    drop(second);
    let (third, heard_by_third) = machine(b, a, &[b"another secret"], 3);
    let before = first.status().refused;
    wait_for("the other key is refused", || first.status().refused > before && third.status().refused > 0);
    assert!(why(&third, "lb1").is_some_and(|why| why.contains("key")), "{:?}", third.status());
    for heard in [heard_by_first, heard_by_second, heard_by_third] {
        assert_eq!(heard.all(), []);
    }
}

#[test]
fn other_keys_machines_and_addresses_are_followed() {
    let (a, b, c) = (("lb1", place()), ("lb2", place()), ("lb3", place()));
    let elsewhere = place();
    let (first, heard_by_first) = machine(a, b, &[b"secret"], 1);
    let (_second, heard_by_second) = machine(b, a, &[b"secret"], 2);
    wait_for("both hear", || heard_by_first.all() == [ended(2)] && heard_by_second.all() == [ended(1)]);
    first.configure(settings(a, b, &[b"secret"]));
    assert!(first.status().peers["lb2"].is_connected, "the same settings change nothing");
    let (_third, heard_by_third) = machine(c, (a.0, elsewhere), &[b"new secret"], 3);
    first.configure(settings((a.0, elsewhere), c, &[b"new secret"]));
    wait_for("the new machine hears and is heard", || {
        heard_by_third.all() == [ended(1)] && heard_by_first.all().contains(&ended(3))
    });
    assert_eq!(first.status().peers.keys().collect::<Vec<_>>(), ["lb3"]);
    wait_for("nobody listens at the old place", || std::net::TcpStream::connect(a.1).is_err());
}

#[test]
fn a_port_that_is_taken_is_had_when_it_is_free() {
    let (a, b) = (("lb1", place()), ("lb2", place()));
    let taken = std::net::TcpListener::bind(a.1).unwrap();
    let (first, heard) = machine(a, b, &[b"secret"], 1);
    wait_for("it is said", || first.status().deaf.contains_key(&a.1));
    drop(taken);
    let (_second, _) = machine(b, a, &[b"secret"], 2);
    wait_for("it is heard", || heard.all() == [ended(2)] && first.status().deaf.is_empty());
}

#[test]
fn what_is_new_is_told_by_a_flush_and_not_to_machines_that_are_away() {
    let (a, b) = (("lb1", place()), ("lb2", place()));
    let (first, _) = machine(a, b, &[b"secret"], 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let flush = |sharing: &Sharing| runtime.block_on(sharing.flush());
    flush(&first);
    let (_second, heard) = machine(b, a, &[b"secret"], 2);
    wait_for("it is told", || {
        first.status().peers.get("lb2").is_some_and(|peer| peer.is_connected) && heard.all() == [ended(1)]
    });
    for flushes in 2..5 {
        flush(&first);
        wait_for("a whole pass was told", || first.status().peers["lb2"].flushed == flushes);
    }
}

#[test]
fn garbage_and_silence_cost_a_connection_and_nothing_else() {
    use std::io::{Read, Write};
    let (a, b) = (("lb1", place()), ("lb2", place()));
    let (first, heard) = machine(a, b, &[b"secret"], 1);
    wait_for("it listens", || std::net::TcpStream::connect(a.1).is_ok());
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"LBS2\xff", b"LBS2\x03lb2", &[0xff; 4096]] {
        let mut stream = std::net::TcpStream::connect(a.1).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    wait_for("they are refused", || first.status().refused >= 4);
    let (_second, _) = machine(b, a, &[b"secret"], 2);
    wait_for("the other machine is heard all the same", || heard.all() == [ended(2)]);
}

#[test]
fn much_is_told_in_frames_that_fit() {
    let seal = || Seal::new(b"s", &[[0; RANDOM]; 2], Ends { caller: "lb1", listener: "lb2" }, Direction::Told).unwrap();
    let all: Vec<Shared> = (0..5_000).map(ended).collect();
    let bytes = frames(&all, &mut seal(), true);
    let (mut reader, mut rest, mut read) = (seal(), bytes.as_slice(), Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = seal::frame_length(*length).unwrap();
        let (frame, after) = after.split_at(length);
        read.extend(Shared::read_all(reader.open(&mut frame.to_vec()).unwrap()).unwrap());
        rest = after;
    }
    assert_eq!(read, all);
    assert_eq!(frames(&[], &mut seal(), true).len(), 4 + TAG);
    assert!(frames(&[], &mut seal(), false).is_empty());
}
