//! Accepting connections on the admin socket, within limits: of connections, of time for a request's head, and of time
//! to finish when lbd stops. Every request knows which process sent it.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use super::{Socket, access::Caller};

/// Connections at the same time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// Time for the head of a request, and for the next request on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for requests in flight when lbd stops.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed accept (out of descriptors): it would fail again at once.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop, or until its owner is gone.
pub(super) async fn serve(socket: Socket, router: Router, open_to_all: bool, mut stopped: watch::Receiver<bool>) {
    let listener = match socket.listener().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(path = %socket.path().display(), %error, "the admin socket cannot be served");
            return;
        }
    };
    if let Err(error) = socket.open_to_all(open_to_all) {
        tracing::error!(path = %socket.path().display(), %error, "the admin socket keeps the mode it has");
    }
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            (stream, place) = accept(&listener, &places) => {
                tokio::spawn(connection(stream, router.clone(), open_to_all, graceful.watcher(), place));
            }
        }
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::debug!("admin requests still ran when lbd stopped");
    }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &UnixListener, places: &Arc<Semaphore>) -> (UnixStream, Option<OwnedSemaphorePermit>) {
    // A semaphore that is never closed always gives a permit in the end.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: UnixStream,
    router: Router,
    open_to_all: bool,
    watcher: Watcher,
    place: Option<OwnedSemaphorePermit>,
) {
    let peer = stream.peer_cred().ok();
    let (uid, gid) = (peer.map(|peer| peer.uid()), peer.map(|peer| peer.gid()));
    let caller = Caller::local(uid, gid, peer.and_then(|peer| peer.pid()), open_to_all);
    http(stream, router.layer(Extension(caller)), HEAD_TIMEOUT, watcher).await;
    drop(place);
}

/// HTTP/1.1 on a connection until it ends, or is told to.
pub(super) async fn http<S>(stream: S, router: Router, head_timeout: Duration, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "an admin connection ended badly");
    }
}
