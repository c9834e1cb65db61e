//! TLS towards whom is checked. Every check is a full handshake, so that a certificate that has expired is noticed.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    sign::SingleCertAndKey,
};
use tokio_rustls::TlsConnector;

use super::machine::Outcome;
use crate::{
    certificate::{self, Pair, Unverified},
    control::probe::Tls,
};

/// Ready to connect.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) connector: TlsConnector,
    /// The name to send and verify, when the configuration says one.
    pub(super) server_name: Option<String>,
}

/// What was made ready, by where its settings are in memory: they are kept with it, so that nothing else comes to lie there.
#[derive(Default)]
pub(super) struct Clients(HashMap<usize, (Arc<Tls>, Result<Client, String>)>);

impl Clients {
    /// The client of some settings.
    pub(super) fn get(&mut self, tls: &Arc<Tls>) -> Result<Client, Outcome> {
        let (_, client) = self.0.entry(Arc::as_ptr(tls).addr()).or_insert_with(|| (Arc::clone(tls), build(tls)));
        client.clone().map_err(Outcome::Untested)
    }

    /// Forgets what nobody else has any longer.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|_, (tls, _)| Arc::strong_count(tls) > 1);
    }
}

/// The files were checked when the configuration was read: what fails here is said of the check.
fn build(tls: &Tls) -> Result<Client, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier(tls, provider)?);
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let pair = Pair::read(chain, key).map_err(|error| error.to_string())?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified)))
        }
    };
    config.resumption = Resumption::disabled();
    let server_name = tls.server_name.clone();
    Ok(Client { connector: TlsConnector::from(Arc::new(config)), server_name })
}

fn verifier(tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if !tls.verify {
        return Ok(Arc::new(Unverified::new(provider)));
    }
    let mut roots = RootCertStore::empty();
    // What cannot be read in it is left out, as system stores hold the odd relic.
    roots.add_parsable_certificates(certificate::chain(&tls.ca_pem).map_err(|error| error.to_string())?);
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    Ok(built.map_err(|error| format!("authorities: {error}"))?)
}
