//! Handshakes of both sides, with a deadline.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll};

use rustls::{CommonState, Error, HandshakeKind, ProtocolVersion};

use super::{
    Gate, HandshakeError,
    client::ClientSetup,
    gate::Place,
    hello::Handshake,
    peer,
    server::ServerSetup,
    stream::{Event, Order, Session, TlsStream},
};
use crate::proxy::{
    facts::TlsFacts,
    reactor::{Deadline, Socket},
};

/// Content type of a handshake record (RFC 8446 §5.1): the first byte of every TLS connection.
const HANDSHAKE: u8 = 22;

/// A fatal alert `unrecognized_name` (RFC 6066 §3, RFC 8446 §6) as a plain record: the ClientHello was not answered yet.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// For who speaks HTTP where TLS is expected.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 50\r\n\
Connection: close\r\n\r\nThis port speaks HTTPS: use https:// in the URL.\r\n";

/// Bytes that are read and dropped so that a refusal arrives before the connection is reset.
const DRAIN: usize = 64 * 1024;

/// Shakes hands with a client. `already` are bytes of it that were read before (behind a PROXY header).
///
/// The caller has counted the client against its limit of handshakes. What goes wrong has been told to the client; the
/// connection is closed.
///
/// # Errors
/// When the handshake is not done by `at_ms` (of [`crate::proxy::reactor::now_ms`]), or fails.
pub async fn accept(
    io: Socket,
    setup: &Arc<ServerSetup>,
    gate: &Gate,
    already: &[u8],
    deadline: &Deadline,
    at_ms: u64,
) -> Result<(TlsStream, TlsFacts), HandshakeError> {
    let place = gate.enter()?;
    let (session, handshake) = setup.start()?;
    let mut stream = TlsStream::new(io, Session::Server(Box::new(session)), already);
    let work = serve(&mut stream, setup, &place, &handshake);
    let outcome = deadline.within(at_ms, work).await.unwrap_or(Err(HandshakeError::Timeout));
    let facts = outcome.map(|()| peer::facts(stream.state(), &handshake.seen()))?;
    Ok((stream, facts))
}

/// Whether key exchange and signature are behind us. Not by the number of steps: greetings come in pieces, or are asked for a second
/// time, and in TLS 1.2 the exchange ends with the client's answer.
fn has_answered(session: &CommonState) -> bool {
    let is_answer = |kind| matches!(kind, HandshakeKind::Full | HandshakeKind::Resumed);
    session.protocol_version() == Some(ProtocolVersion::TLSv1_3) && session.handshake_kind().is_some_and(is_answer)
}

async fn serve(
    stream: &mut TlsStream,
    setup: &ServerSetup,
    place: &Place<'_>,
    handshake: &Handshake,
) -> Result<(), HandshakeError> {
    let mut is_first = true;
    loop {
        if !is_first || stream.input().is_empty() {
            receive(stream).await?;
        }
        if is_first && looks_like_http(stream.input().filled()) {
            stream.output().push(PLAIN_HTTP);
            refuse(stream).await;
            return Err(HandshakeError::PlainHttp);
        }
        is_first = false;
        // Whoever is nearly done does not wait behind all who only begin.
        let is_costly = setup.verifies_clients() || !has_answered(stream.state());
        let turn = if is_costly { Some(place.turn().await) } else { None };
        match advance(stream) {
            Ok(true) => {
                // In TLS 1.2 the client waits for our last words; tickets of TLS 1.3 can go along with the first answer.
                if stream.state().protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                    poll_fn(|cx| stream.poll_send(cx)).await?;
                }
                break;
            }
            Ok(false) => {}
            Err(error) => {
                let unknown = handshake.seen().unknown_name;
                stream.collect_alerts();
                if unknown {
                    // rustls says access_denied, by which a client would not know what it did wrong.
                    let said = stream.output().filled().len();
                    stream.output().consume(said);
                    stream.output().push(&UNRECOGNIZED_NAME);
                }
                refuse(stream).await;
                return Err(if unknown {
                    HandshakeError::UnknownName(handshake.seen().server_name.clone())
                } else {
                    failed(error)
                });
            }
        }
        poll_fn(|cx| stream.poll_send(cx)).await?;
        if let Some(turn) = turn {
            turn.end().await;
        }
    }
    if stream.state().handshake_kind() == Some(HandshakeKind::Resumed)
        && let Err(error) = setup.recheck(stream.state())
    {
        // Not a byte of the client's is handed on. The handshake is over, so there is no alert that would say why.
        let _ = stream.turn(&mut Order::Close);
        refuse(stream).await;
        return Err(HandshakeError::ResumedClient(error));
    }
    Ok(())
}

/// Shakes hands with a node. `server_name` is sent (unless it is an address) and verified.
///
/// # Errors
/// When the handshake is not done by `at_ms` (of [`crate::proxy::reactor::now_ms`]), or fails: the node's certificate does not fit, for example.
pub async fn connect(
    io: Socket,
    setup: &ClientSetup,
    node: SocketAddr,
    server_name: &str,
    deadline: &Deadline,
    at_ms: u64,
) -> Result<TlsStream, HandshakeError> {
    let session = setup.start(node, server_name)?;
    let mut stream = TlsStream::new(io, Session::Client(Box::new(session)), &[]);
    let work = async {
        loop {
            let is_done = match advance(&mut stream) {
                Ok(is_done) => is_done,
                Err(error) => {
                    stream.collect_alerts();
                    refuse(&mut stream).await;
                    return Err(failed(error));
                }
            };
            poll_fn(|cx| stream.poll_send(cx)).await?;
            if is_done {
                return Ok(());
            }
            receive(&mut stream).await?;
        }
    };
    deadline.within(at_ms, work).await.unwrap_or(Err(HandshakeError::Timeout))?;
    Ok(stream)
}

/// Lets rustls work on what is there; says whether the handshake is done.
fn advance(stream: &mut TlsStream) -> Result<bool, Error> {
    loop {
        match stream.turn(&mut Order::Handshake)? {
            Event::Ready => return Ok(true),
            Event::NeedsInput => return Ok(false),
            // A peer that says goodbye within the handshake closes the connection next.
            Event::PeerClosed if stream.state().is_handshaking() => return Ok(false),
            Event::Again | Event::Plain | Event::PeerClosed => {}
        }
    }
}

async fn receive(stream: &mut TlsStream) -> Result<(), HandshakeError> {
    match poll_fn(|cx| stream.poll_receive(cx)).await {
        Ok(0) => Err(HandshakeError::Closed),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Err(HandshakeError::Closed),
        Err(error) => Err(error.into()),
    }
}

/// Sends what is left to say. Unread bytes would make the kernel reset the connection, and the client lose our words.
async fn refuse(stream: &mut TlsStream) {
    // The connection ends either way.
    let _ = poll_fn(|cx| stream.poll_finish(cx)).await;
    let mut left = DRAIN;
    let mut dropped = [0; 1024];
    poll_fn(|context| {
        while left > 0 {
            match stream.socket().poll_read(context, &mut dropped) {
                Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => break,
                Poll::Ready(Ok(count)) => left = left.saturating_sub(count),
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// Whether the first bytes are those of an HTTP request: a method, or what there is of one.
fn looks_like_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first != HANDSHAKE) && bytes.iter().take(3).all(u8::is_ascii_uppercase)
}

fn failed(error: Error) -> HandshakeError {
    HandshakeError::Tls(error)
}
