//! Floods, and what they cost (THREATS H12): the connection is closed, and other clients do not notice.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::wire::*;
use crate::proxy::testing::{Proxy, Recorder, http_plan, wait};

/// Most frames that a flood sends: far more than are taken.
const FRAMES: usize = 200_000;

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Sends `one` again and again until the proxy closes; frames that were sent, and what code it said.
fn flood(proxy: &Proxy, first: &[u8], one: impl Fn(usize) -> Vec<u8>) -> (usize, Option<u32>) {
    use std::io::Write;
    let mut wire = Wire::open(proxy);
    wire.send(first);
    let mut reader = Wire { socket: wire.socket.try_clone().unwrap(), is_silent: false };
    let reading = std::thread::spawn(move || {
        let mut code = None;
        while let Some(frame) = reader.read() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        assert!(!reader.is_silent, "the connection stays");
        code
    });
    let mut sent = 0;
    while sent < FRAMES {
        let batch: Vec<u8> = (sent..sent + 100).flat_map(&one).collect();
        if wire.socket.write_all(&batch).is_err() {
            break;
        }
        sent += 100;
    }
    (sent, reading.join().unwrap())
}

#[test]
fn h12_floods_are_ended_and_cost_little() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    type Flood = (&'static str, Vec<u8>, fn(usize) -> Vec<u8>);
    let floods: [Flood; 8] = [
        ("PING", vec![], |_| frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS", vec![], |_| frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", vec![], |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 5])),
        ("WINDOW_UPDATE", vec![], |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("an unknown kind", vec![], |_| frame(0x42, 0, 0, &[])),
        ("empty DATA", post(1), |_| frame(DATA, 0, 1, &[])),
        ("rapid reset", vec![], |i| {
            let stream = i as u32 * 2 + 1;
            [post(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        }),
        ("CONTINUATION", frame(HEADERS, END_STREAM, 1, &pseudo("GET", "/")), |_| {
            frame(CONTINUATION, 0, 1, &field(b"x", b"y"))
        }),
    ];
    for (name, first, one) in floods {
        let (all, own) = (cpu(ClockId::ProcessCPUTime), cpu(ClockId::ThreadCPUTime));
        let (sent, code) = flood(&proxy, &first, one);
        let own = cpu(ClockId::ThreadCPUTime) - own;
        let other = (cpu(ClockId::ProcessCPUTime) - all).saturating_sub(own);
        assert!(sent < FRAMES, "{name}: all of it was taken");
        assert!(matches!(code, None | Some(11)), "{name}: a reset, or ENHANCE_YOUR_CALM: {code:?}");
        // A flood that is over at once cost next to nothing on both sides.
        assert!(other < own * 100 || other < Duration::from_millis(100), "{name}: {own:?} cost us {other:?}");
        let mut wire = Wire::open(&proxy);
        wire.send(&get(1));
        assert_eq!(wire.read_kind(HEADERS).unwrap().status(), 200, "after {name}");
    }
}

#[test]
fn h12_a_warning_comes_before_the_end() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::start(http_plan(&[node.address()]));
    let mut wire = Wire::open(&proxy);
    wire.send(&frame(PING, 0, 0, &[7; 8]).repeat(850));
    let goaway = wire.read_kind(GOAWAY).unwrap();
    assert_eq!(goaway.code(), 0);
}

#[test]
fn h11_a_client_that_takes_nothing_is_not_waited_for() {
    let node = Recorder::start(concat!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "0123456789"));
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.write_stall = Duration::from_millis(300);
    let proxy = Proxy::start(plan);
    let mut wire = Wire::open(&proxy);
    wire.send(&frame(SETTINGS, 0, 0, &setting(4, 0)));
    wire.send(&get(1));
    assert!(wire.read_kind(RST_STREAM).is_some(), "no window: the stream is reset");
}

#[test]
fn h11_a_connection_without_requests_ends_after_its_time() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.keep_alive = Duration::from_millis(200);
    let proxy = Proxy::start(plan);
    let mut wire = Wire::open(&proxy);
    assert_eq!(wire.read_kind(GOAWAY).unwrap().code(), 0);
}

#[test]
fn h11_answers_that_are_complete_wait_no_longer_than_the_write_stall() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n";
    let node = Recorder::start((head.to_owned() + &"x".repeat(30_000)).leak());
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().timeouts.write_stall = Duration::from_millis(300);
    let proxy = Proxy::start(plan);
    let mut wire = Wire::open(&proxy);
    // Windows without end: what holds it back is that nobody reads.
    wire.send(
        &[frame(SETTINGS, 0, 0, &setting(4, 0x7fff_ffff)), frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])].concat(),
    );
    for stream in 0..1000 {
        wire.send(&get(stream * 2 + 1));
        if stream % 50 == 49 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    wait(|| proxy.handle().states()[0].connections == 0);
}
