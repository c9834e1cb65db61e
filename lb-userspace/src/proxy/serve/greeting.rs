//! What comes before a client's first own byte: a PROXY header, a TLS handshake. Within one deadline, from accept on.

use std::{future::poll_fn, rc::Rc};

use super::Ends;
use crate::proxy::{
    buffer::Buffer,
    proxy_protocol,
    reactor::{Deadline, Socket},
    stats::Refused,
    stream::Stream,
    tls,
    upstream::after,
    worker::{
        plan::VirtualServer,
        thread::{Worker, now},
    },
};

/// The connection as it is after its greeting, with bytes that came too early for it; `None`: it was refused.
pub(super) async fn begin(
    worker: &Rc<Worker>,
    server: &VirtualServer,
    socket: Socket,
    mut ends: Ends,
) -> Option<(Stream, Ends, Option<Buffer>)> {
    let deadline = Deadline::new();
    let until = after(server.settings.timeouts.handshake);
    let mut early = None;
    if let Some(trusted) = &server.settings.proxy_protocol {
        // THREATS H8: from trusted networks alone, and never without one.
        if !trusted.iter().any(|network| network.contains(ends.client.ip())) {
            tracing::debug!(client = %ends.client, "not trusted to send a PROXY header");
            server.stats.refuse(Refused::ProxyProtocol);
            return None;
        }
        let header = deadline.within(until, proxy_header(&socket, &mut ends)).await.ok().flatten();
        let Some(rest) = header else {
            server.stats.refuse(Refused::ProxyProtocol);
            return None;
        };
        early = rest;
    }
    if server.settings.tls.is_none() {
        return Some((Stream::Plain(socket), ends, early));
    }
    let setup = server.tls.as_ref()?;
    if server.limits.handshake(ends.client.ip(), now()).is_err() {
        server.stats.refuse(Refused::HandshakesPerClient);
        return None;
    }
    let already = early.as_ref().map_or(&[][..], |early: &Buffer| early.bytes());
    match tls::accept(socket, setup, &worker.gate, already, &deadline, until).await {
        Ok((stream, facts)) => {
            if facts.resumed { &server.stats.tls_resumed } else { &server.stats.tls_full }.add(1);
            ends.tls = Some(Box::new(facts));
            Some((Stream::Tls(Box::new(stream)), ends, None))
        }
        Err(error) => {
            tracing::debug!(client = %ends.client, %error, "no TLS");
            server.stats.tls_failed.add(1);
            server.stats.refuse(Refused::Handshake);
            None
        }
    }
}

/// Reads the PROXY header and takes its addresses; what came after it.
async fn proxy_header(socket: &Socket, ends: &mut Ends) -> Option<Option<Buffer>> {
    let mut buffer = Buffer::take();
    loop {
        match proxy_protocol::parse(buffer.bytes()) {
            Ok(Some(header)) => {
                if let Some((source, destination)) = header.addresses {
                    (ends.client, ends.local) = (source, destination);
                }
                let length = header.length;
                buffer.consume(length);
                return Some((!buffer.is_empty()).then_some(buffer));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(client = %ends.client, %error, "no PROXY header");
                return None;
            }
        }
        match poll_fn(|context| socket.poll_read(context, buffer.room())).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => buffer.filled(count),
        }
    }
}
