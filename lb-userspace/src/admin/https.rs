//! The API over HTTPS: a listener that follows the configuration, on the admin thread. Every bound of it is here: of
//! clients that may connect, of connections, of time for handshakes and heads, of time without progress.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{access::Access, problem::Refusal, serve};
use crate::certificate::{self, CertificateError};

/// Connections at the same time, of all clients and of one.
const MAX_CONNECTIONS: usize = 64;
const MAX_OF_CLIENT: usize = 16;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Time for the head of a request, and for the next request on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that takes nothing of what is sent for so long is gone.
const STALL: Duration = Duration::from_secs(30);

/// Between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(5);

/// What every answer says to browsers.
const HEADERS: [(HeaderName, &str); 8] = [
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Where HTTPS is spoken, and by which certificate.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) address: SocketAddr,
    /// PEM.
    pub(super) chain: String,
    /// PEM.
    pub(super) key: String,
}

impl std::fmt::Debug for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listen").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Serves where the settings say, until told to stop.
pub(super) async fn serve(router: Router, access: Arc<Access>, mut stopped: watch::Receiver<bool>) {
    let mut wanted = access.listen();
    let graceful = GracefulShutdown::new();
    let shared = Shared { access, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), clients: Arc::default() };
    loop {
        let now = wanted.borrow_and_update().clone();
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            changed = wanted.changed() => if changed.is_err() { break },
            () = serve_at(now, &router, &shared, &graceful) => {}
        }
    }
    // Connections that are idle end now; those with a request in progress end with it, or with the thread.
    drop(timeout(serve::DRAIN_TIMEOUT, graceful.shutdown()).await);
}

/// What connections share.
#[derive(Clone, Debug)]
struct Shared {
    access: Arc<Access>,
    places: Arc<Semaphore>,
    clients: Clients,
}

/// Connections by client.
type Clients = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Serves at one place, for ever; where there is none, waits.
async fn serve_at(listen: Option<Listen>, router: &Router, shared: &Shared, graceful: &GracefulShutdown) {
    let Some(listen) = listen else { return std::future::pending().await };
    let (listener, acceptor) = loop {
        match open(&listen).await {
            Ok(opened) => break opened,
            Err(error) => {
                tracing::error!(address = %listen.address, error, "the admin API cannot listen; it is tried again");
                shared
                    .access
                    .cannot_listen(Some(format!("the admin API cannot listen on {}: {error}", listen.address)));
                sleep(AGAIN).await;
            }
        }
    };
    shared.access.cannot_listen(None);
    tracing::info!(address = %listen.address, "the admin API listens for HTTPS");
    loop {
        // A semaphore that is never closed always gives a permit in the end.
        let place = Arc::clone(&shared.places).acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, client)) => {
                let client = client.ip().to_canonical();
                if let Some(counted) = admit(shared, client) {
                    let held = (place, counted);
                    let watcher = graceful.watcher();
                    tokio::spawn(connection(
                        stream,
                        client,
                        acceptor.clone(),
                        router.clone(),
                        shared.access.clone(),
                        watcher,
                        held,
                    ));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                sleep(serve::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A client may connect: its place among its own connections.
fn admit(shared: &Shared, client: IpAddr) -> Option<Counted> {
    if !shared.access.settings().allows(client) {
        tracing::debug!(%client, "a connection to the admin API from a network that is not allowed");
        return None;
    }
    let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
    let count = clients.entry(client).or_insert(0);
    if *count >= MAX_OF_CLIENT {
        tracing::debug!(%client, "too many connections to the admin API");
        return None;
    }
    *count += 1;
    Some(Counted { client, clients: shared.clients.clone() })
}

/// A connection of a client, while it lasts.
#[derive(Debug)]
struct Counted {
    client: IpAddr,
    clients: Clients,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

async fn open(listen: &Listen) -> Result<(TcpListener, TlsAcceptor), String> {
    let acceptor = acceptor(listen).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(listen.address).await.map_err(|error| error.to_string())?;
    Ok((listener, acceptor))
}

fn acceptor(listen: &Listen) -> Result<TlsAcceptor, TlsError> {
    let (chain, key) = (certificate::chain(&listen.chain)?, certificate::key(&listen.key)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

async fn connection(
    stream: TcpStream,
    client: IpAddr,
    acceptor: TlsAcceptor,
    router: Router,
    access: Arc<Access>,
    watcher: Watcher,
    held: (Option<OwnedSemaphorePermit>, Counted),
) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%client, %error, "an admin connection could not be set up");
    }
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let router =
                router.layer(middleware::from_fn(move |request, next| receive(access.clone(), client, request, next)));
            serve::http(stream, router, HEAD_TIMEOUT, watcher).await;
        }
        Ok(Err(error)) => tracing::debug!(%client, %error, "a TLS handshake with the admin API failed"),
        Err(_) => tracing::debug!(%client, "a TLS handshake with the admin API took too long"),
    }
    drop(held);
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(STALL))
}

/// Finds out who sends a request, and gives the answer the headers that browsers go by.
async fn receive(access: Arc<Access>, client: IpAddr, mut request: Request, next: Next) -> Response {
    let mut response = match authenticated(&access, client, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn authenticated(access: &Access, client: IpAddr, request: &Request) -> Result<super::access::Caller, Refusal> {
    let path = request.uri().path();
    // One reading of a path: what another program would take for another path is none.
    let is_plain =
        !path.contains("//") && !path.contains(['\\', ';']) && !path.split('/').any(|part| part == "." || part == "..");
    if !is_plain {
        return Err(Refusal::invalid("the path has an empty or a dotted segment, \\ or ;"));
    }
    access.authenticate(client, request.method(), request.headers())
}
