//! What is agreed with the nodes of one pool.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, Error, RootCertStore,
    client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{DnsName, ServerName};

use super::{TlsError, policy, server};
use crate::{
    certificate::{self, Pair, Unverified},
    control::proxy::tls::{Certificate, ClientTls, Version},
};

/// Sessions that are kept of one node.
const SESSIONS: usize = 8;

/// Nodes whose sessions are kept; addresses of DNS names may come and go without end.
const NODES: usize = 1024;

/// The certificates that are trusted where a pool names none: the system's store, which lbd reads.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Of PEM text. What cannot be read in it is left out, as system stores hold the odd relic.
    #[must_use]
    pub fn of_system(pem: &str) -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificate::chain(pem).unwrap_or_default());
        Self(Arc::new(store))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// TLS towards the nodes of one pool.
#[derive(Debug)]
pub struct ClientSetup {
    config: ClientConfig,
    server_name: Option<String>,
    /// Each node has its own sessions: those of another one with the same name are of no use to it.
    nodes: Mutex<HashMap<SocketAddr, Arc<ClientConfig>>>,
}

impl ClientSetup {
    /// For a pool that offers `alpn` (`h2` or `http/1.1`; empty: none).
    ///
    /// # Errors
    /// When a certificate or authority is not there or cannot be used.
    pub fn build(
        tls: &ClientTls,
        certificates: &BTreeMap<String, Certificate>,
        system: &Roots,
        alpn: &[&[u8]],
    ) -> Result<Arc<Self>, TlsError> {
        let provider = policy::provider(&[], &[])?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(policy::versions(Version::Tls12))?;
        let verifier = verifier(tls, system, &provider)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate = certificates.get(name).ok_or_else(|| TlsError::UnknownCertificate(name.clone()))?;
                let pair = Pair::read(&certificate.chain_pem, &certificate.key_pem)
                    .map_err(|source| TlsError::Certificate { name: name.clone(), source })?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair.certified)))
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(Self { config, server_name: tls.server_name.clone(), nodes: Mutex::default() }))
    }

    /// The name for a node: the configured one, or `own` (the node's DNS name, the request's host or the address).
    #[must_use]
    pub fn server_name<'a>(&'a self, own: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(own)
    }

    pub(super) fn start(&self, node: SocketAddr, server_name: &str) -> Result<UnbufferedClientConnection, Error> {
        UnbufferedClientConnection::new(self.of_node(node), parse_name(self.server_name(server_name))?)
    }

    fn of_node(&self, node: SocketAddr) -> Arc<ClientConfig> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= NODES && !nodes.contains_key(&node) {
            nodes.clear();
        }
        let make = || {
            let mut config = self.config.clone();
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Arc::new(config)
        };
        nodes.entry(node).or_insert_with(make).clone()
    }
}

fn parse_name(name: &str) -> Result<ServerName<'static>, Error> {
    if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    let name = DnsName::try_from(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
    name.map(ServerName::DnsName).map_err(|_| Error::General("not a server name".into()))
}

fn verifier(
    tls: &ClientTls,
    system: &Roots,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if !tls.verify {
        return Ok(Arc::new(Unverified::new(provider.clone())));
    }
    let roots =
        if tls.authorities.ca_pem.is_empty() { system.0.clone() } else { server::roots(&tls.authorities)?.into() };
    let unreadable = |error: &dyn std::fmt::Display| TlsError::Authorities(error.to_string());
    let lists = certificate::revocation_lists(&tls.authorities.crl_pem).map_err(|error| unreadable(&error))?;
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
    if !lists.is_empty() {
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    Ok(builder.build().map_err(|error| unreadable(&error))?)
}
