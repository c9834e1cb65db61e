//! What is agreed with the clients of one virtual server.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest;
use rustls::{
    CommonState, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{
        NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::UnixTime;

use super::{
    TicketKeys, TlsError,
    catalogue::Catalogue,
    hello::Handshake,
    policy::{provider, versions},
    tickets::Ticketer,
};
use crate::{
    certificate,
    control::proxy::tls::{Authorities, Certificate, ClientAuth, ServerTls},
};

/// TLS of one virtual server: built for each plan, shared by its connections.
#[derive(Debug)]
pub struct ServerSetup {
    config: ServerConfig,
    pub(super) catalogue: Catalogue,
    /// `None`: no tickets.
    pub(super) ticketer: Option<Ticketer>,
    /// `None`: client certificates are not asked for.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerSetup {
    /// For the virtual server `name`, which offers `alpn` (such as `h2`, `http/1.1`; empty: none) in order of preference.
    ///
    /// # Errors
    /// When a certificate, authority or algorithm is not there or cannot be used.
    pub fn build(
        name: &str,
        tls: &ServerTls,
        certificates: &BTreeMap<String, Certificate>,
        alpn: &[&[u8]],
        keys: &TicketKeys,
    ) -> Result<Arc<Self>, TlsError> {
        let catalogue =
            Catalogue::build(&tls.certificates, tls.default_certificate.as_ref(), &|name| certificates.get(name))?;
        let provider = provider(&tls.cipher_suites, &tls.curves)?;
        let verifier = verifier(&tls.client_auth, &provider)?;
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(versions(tls.min_version))?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Nobody));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // Sessions are in tickets alone: nothing to fill, nothing that another virtual server could look into.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = if tls.tickets { 2 } else { 0 };
        config.max_early_data_size = 0;
        // Our order of suites is the one that is meant: AES first, for the machines that have it in hardware.
        config.ignore_client_order = true;
        let ticketer =
            tls.tickets.then(|| Ticketer::new(tls.ticket_secret.as_ref(), keys, scope(name, &tls.client_auth)));
        Ok(Arc::new(Self { config, catalogue, ticketer, verifier }))
    }

    /// Whether a connection that was opened for the server name `name` may ask for `host`: one certificate serves both.
    #[must_use]
    pub fn serves_alike(&self, name: &str, host: &str) -> bool {
        self.catalogue.serves_alike(name, host)
    }

    /// Whether clients are asked for certificates, which then are to be verified.
    pub(super) fn verifies_clients(&self) -> bool {
        self.verifier.is_some()
    }

    /// A connection that is to shake hands.
    pub(super) fn start(self: &Arc<Self>) -> Result<(UnbufferedServerConnection, Arc<Handshake>), rustls::Error> {
        let handshake = Arc::new(Handshake::new(self.clone()));
        let mut config = self.config.clone();
        config.cert_resolver = handshake.clone();
        config.ticketer = handshake.clone();
        Ok((UnbufferedServerConnection::new(Arc::new(config))?, handshake))
    }

    /// Checks again, on resumption, what a full handshake would check of the client's certificate (THREATS.md, T3).
    pub(super) fn recheck(&self, state: &CommonState) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match state.peer_certificates() {
            Some([end_entity, intermediates @ ..]) => {
                verifier.verify_client_cert(end_entity, intermediates, UnixTime::now()).map(drop)
            }
            Some([]) | None if verifier.client_auth_mandatory() => Err(rustls::Error::NoCertificatesPresented),
            Some([]) | None => Ok(()),
        }
    }
}

/// Stands where a handshake's own object will; resolves nothing.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// All that decides whether a client is let in: a session made under one scope is unknown in any other. Revocation lists
/// are part of it, so a new list makes everybody authenticate anew.
fn scope(name: &str, auth: &ClientAuth) -> [u8; 32] {
    let (policy, authorities) = match auth {
        ClientAuth::None => ("none", &Authorities::default()),
        ClientAuth::Request(authorities) => ("request", authorities),
        ClientAuth::Require(authorities) => ("require", authorities),
    };
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [name, policy, &authorities.ca_pem, &authorities.crl_pem] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut scope = [0; 32];
    scope.copy_from_slice(context.finish().as_ref());
    scope
}

fn verifier(
    auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let authorities = match auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request(authorities) | ClientAuth::Require(authorities) => authorities,
    };
    let unreadable = |error: certificate::CertificateError| TlsError::Authorities(error.to_string());
    let lists = certificate::revocation_lists(&authorities.crl_pem).map_err(unreadable)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider.clone());
    if !lists.is_empty() {
        // As nginx and HAProxy do it: each certificate of the chain needs a list, and an old list refuses everybody.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if matches!(auth, ClientAuth::Request(_)) {
        builder = builder.allow_unauthenticated();
    }
    Ok(Some(builder.build().map_err(|error| TlsError::Authorities(error.to_string()))?))
}

/// The certificates of `authorities` as trust anchors.
pub(super) fn roots(authorities: &Authorities) -> Result<RootCertStore, TlsError> {
    let unreadable = |error: certificate::CertificateError| TlsError::Authorities(error.to_string());
    let mut store = RootCertStore::empty();
    for der in certificate::chain(&authorities.ca_pem).map_err(unreadable)? {
        store.add(der).map_err(|error| TlsError::Authorities(error.to_string()))?;
    }
    Ok(store)
}
