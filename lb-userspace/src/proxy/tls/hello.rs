//! One handshake, as rustls shows it to us: the name the client asks for, and the tickets it brings and gets.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand;
use rustls::{
    server::{ClientHello, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::server::ServerSetup;

/// Bytes that name a session, the same for all its resumptions.
const SESSION_LEN: usize = 16;

/// Stands in rustls' configuration of one handshake: the unbuffered connection does not tell the server name, and the
/// session's name travels inside our tickets.
#[derive(Debug)]
pub(super) struct Handshake {
    setup: Arc<ServerSetup>,
    seen: Mutex<Seen>,
}

/// What was seen of the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Lower case.
    pub(super) server_name: Option<String>,
    /// No certificate is for it.
    pub(super) unknown_name: bool,
    /// Of this session: made for it, or that of the ticket which resumed it.
    pub(super) session: [u8; SESSION_LEN],
}

impl Handshake {
    pub(super) fn new(setup: Arc<ServerSetup>) -> Self {
        let mut session = [0; SESSION_LEN];
        // Without random bytes the handshake itself fails.
        let _ = rand::fill(&mut session);
        Self { setup, seen: Mutex::new(Seen { session, ..Seen::default() }) }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Handshake {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.setup.catalogue.choose(hello.server_name(), hello.signature_schemes());
        let mut seen = self.seen();
        seen.server_name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name).to_owned());
        seen.unknown_name = chosen.is_none();
        chosen
    }
}

impl ProducesTickets for Handshake {
    fn enabled(&self) -> bool {
        self.setup.ticketer.is_some()
    }

    fn lifetime(&self) -> u32 {
        super::tickets::Ticketer::lifetime_s()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut named = self.seen().session.to_vec();
        named.extend_from_slice(plain);
        self.setup.ticketer.as_ref()?.seal(&named, unix_seconds())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let mut named = self.setup.ticketer.as_ref()?.open(ticket, unix_seconds())?;
        let session = *named.first_chunk::<SESSION_LEN>()?;
        named.drain(..SESSION_LEN);
        // rustls asks for one ticket after the other until it takes one: the last asked for is the one that resumes.
        self.seen().session = session;
        Some(named)
    }
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
