//! An lbd on another machine: HTTPS to its admin API, with a token. The certificate is always verified.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use http::Uri;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{args::Remote as Arguments, failure::Failure};
use crate::{certificate, config::files::system_store};

/// Time to connect, handshake included.
const CONNECT: Duration = Duration::from_secs(10);

/// Where it is, and how to prove who asks.
#[derive(Clone)]
pub(super) struct Remote {
    /// `https://HOST:PORT`.
    pub(super) url: String,
    /// `HOST:PORT`, as the request says it.
    pub(super) authority: String,
    host: String,
    port: u16,
    /// `None`: only what needs none can be asked.
    pub(super) token: Option<String>,
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    pub(super) fn new(url: &str, arguments: &Arguments) -> Result<Self, Failure> {
        let usage = || Failure::Usage(format!("--url {url:?} is not like https://lb1.example.com:8443"));
        let uri: Uri = url.parse().map_err(|_| usage())?;
        let (Some("https"), Some(authority), "/" | "") = (uri.scheme_str(), uri.authority(), uri.path()) else {
            return Err(usage());
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let token = arguments.token_file.as_deref().map(read_token).transpose()?;
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 443,
            // A port that is none, or a user's name.
            None => return Err(usage()),
        };
        let tls = Arc::new(tls(arguments.ca_file.as_deref())?);
        Ok(Self { url: url.trim_end_matches('/').to_owned(), authority: authority.to_string(), host, port, token, tls })
    }

    /// A connection whose other end has proved who it is.
    pub(super) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let connected = timeout(CONNECT, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(self.tls.clone()).connect(name, stream).await
        });
        connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let pem = match ca_file {
        Some(path) => fs::read_to_string(path).map_err(|source| Failure::File { path: path.to_owned(), source })?,
        None => system_store()
            .ok_or_else(|| Failure::Usage("this machine has no store of authorities: say --ca-file FILE".to_owned()))?,
    };
    let of_file = |error| Failure::Certificate {
        path: ca_file.unwrap_or(Path::new("the store of authorities")).to_owned(),
        source: error,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificate::chain(&pem).map_err(of_file)?);
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| Failure::Output(io::Error::other(error)))
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let of_file = |source| Failure::File { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(of_file)?.permissions().mode();
    if mode & certificate::KEY_MODE_REFUSED != 0 {
        let why = format!("others can read the token (mode {:04o})\nnext: chmod 600 it", mode & 0o7777);
        return Err(of_file(io::Error::other(why)));
    }
    Ok(fs::read_to_string(path).map_err(of_file)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(token_file: Option<&Path>) -> Arguments {
        Arguments { url: None, token_file: token_file.map(Path::to_owned), ca_file: None }
    }

    #[test]
    fn only_https_urls_are_asked() {
        for wrong in ["", "lb1", "http://lb1:8443", "https://", "https://lb1/path", "https://lb1:99999"] {
            assert!(matches!(Remote::new(wrong, &arguments(None)), Err(Failure::Usage(_))), "{wrong}");
        }
        let remote = Remote::new("https://[2001:db8::1]:8443/", &arguments(None)).unwrap();
        assert_eq!(
            (remote.host.as_str(), remote.port, remote.url.as_str()),
            ("2001:db8::1", 8443, "https://[2001:db8::1]:8443")
        );
        assert_eq!(Remote::new("https://lb1", &arguments(None)).unwrap().port, 443);
    }

    #[test]
    fn a_token_that_others_can_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "lbt_secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Remote::new("https://lb1", &arguments(Some(&path))), Err(Failure::File { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let remote = Remote::new("https://lb1", &arguments(Some(&path))).unwrap();
        assert_eq!(remote.token.as_deref(), Some("lbt_secret"));
        assert!(!format!("{remote:?}").contains("secret"));
    }
}
