//! What is told of requests over HTTP/2: the bytes that were on the wire.

use super::wire::*;
use crate::{
    control::proxy::recent::Filter,
    proxy::testing::{Proxy, Recorder, http_plan, wait},
};

/// Bytes of the head's frame, and of the body, of the response on a stream.
fn response(wire: &mut Wire, stream: u32) -> u64 {
    let mut count = 0;
    loop {
        let frame = wire.read().expect("a response");
        if frame.stream != stream {
            continue;
        }
        count += frame.payload.len() as u64 + if frame.kind == HEADERS { 9 } else { 0 };
        if frame.flags & END_STREAM != 0 {
            return count;
        }
    }
}

#[test]
fn heads_count_as_they_are_on_the_wire() {
    let node = Recorder::start("HTTP/1.1 200 OK\r\nServer: node\r\nContent-Length: 2\r\n\r\nok");
    let mut plan = http_plan(&[node.address()]);
    plan.virtual_servers.get_mut("test").unwrap().recent = 4;
    let proxy = Proxy::start(plan);
    let mut wire = Wire::open(&proxy);
    wire.send(&get(1));
    let first = response(&mut wire, 1);
    // Fields that come again are shorter.
    wire.send(&get(3));
    let second = response(&mut wire, 3);
    assert!(second < first && second > 9 + 2, "{first}, then {second}");
    let sent = || proxy.handle().recent(&Filter::default()).iter().map(|record| record.bytes_sent).collect::<Vec<_>>();
    wait(|| sent().len() == 2);
    assert_eq!(sent(), [second, first]);
    assert_eq!(proxy.handle().stats().snapshot().virtual_servers["test"].bytes_sent, first + second);

    // One that is refused: it has an answer, too.
    wire.send(&request(5, &pseudo("TRACE", "/")));
    assert!(response(&mut wire, 5) > 0);
    wait(|| sent().first().is_some_and(|sent| *sent > second));
}
