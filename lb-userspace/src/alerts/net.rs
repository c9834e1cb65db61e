//! Connections to whom is told: names are looked up for each attempt, and addresses of this machine and its link are refused
//! where the alert does not allow them (THREATS A9). TLS verifies chain and name, always.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use super::Failure;
use crate::config::{alert::Server, proxy::Host};

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Whether addresses of this machine and its link may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Allowed,
    Refused,
}

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where a server is now.
pub(super) async fn resolve(server: &Server, local: Local) -> Result<Vec<SocketAddr>, Failure> {
    let found: Vec<SocketAddr> = match &server.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, server.port)],
        Host::Name(name) => {
            let found = lookup_host((name.as_str(), server.port)).await;
            found.map_err(|error| Failure::again(format!("{name}: {error}")))?.take(MOST_ADDRESSES).collect()
        }
    };
    let allowed: Vec<SocketAddr> =
        found.iter().copied().filter(|to| local == Local::Allowed || !is_local(to.ip())).collect();
    match (allowed.is_empty(), found.first()) {
        (false, _) => Ok(allowed),
        (true, Some(refused)) => Err(Failure::never(format!(
            "{} is an address of this machine or its link: say allow_local = true if that is meant",
            refused.ip()
        ))),
        (true, None) => Err(Failure::again(format!("{} has no address", name(&server.host)))),
    }
}

/// Connects to the first address that answers.
pub(super) async fn connect(server: &Server, local: Local) -> Result<TcpStream, Failure> {
    let mut last = None;
    for address in resolve(server, local).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(format!("{address}: {error}")),
        }
    }
    Err(Failure::again(last.unwrap_or_default()))
}

/// TLS as clients of these authorities (PEM) have it.
///
/// # Errors
/// When the library has no authority to verify by.
pub(super) fn tls(authorities: &str) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    // What cannot be read in it is left out, as system stores hold the odd relic.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities.as_bytes()).flatten());
    if roots.is_empty() {
        return Err("there is no authority to verify certificates by".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

/// Makes TLS of a connection.
pub(super) async fn secure(
    connector: &TlsConnector,
    server: &Server,
    stream: TcpStream,
) -> Result<Box<dyn Stream>, Failure> {
    let expected = match &server.host {
        Host::Ip(ip) => ServerName::from(*ip),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| Failure::never(error.to_string()))?,
    };
    let secured = connector.connect(expected, stream).await;
    Ok(Box::new(secured.map_err(|error: io::Error| Failure::again(format!("TLS: {error}")))?))
}

/// For messages.
pub(super) fn name(host: &Host) -> String {
    match host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    }
}

/// Addresses that are this machine, its link, or nobody in particular.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_this_network = ip.octets()[0] == 0;
            ip.is_loopback() || ip.is_link_local() || is_this_network || ip.is_multicast() || ip.is_broadcast()
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_local(IpAddr::V4(mapped)),
            None => {
                // Where Amazon's machines are told their secrets by IPv6.
                const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
                let is_link = ip.segments()[0] & 0xffc0 == 0xfe80;
                ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_link || ip == METADATA
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_machine_and_its_link_are_known() {
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.18",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
        ] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "192.0.2.1", "2001:db8::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_here_is_refused_when_it_is_looked_up() {
        let server = Server { host: Host::Name("localhost".into()), port: 1 };
        let refused = resolve(&server, Local::Refused).await.unwrap_err();
        assert!(!refused.again && refused.why.contains("allow_local"), "{refused:?}");
        assert!(!resolve(&server, Local::Allowed).await.unwrap().is_empty());
    }

    #[test]
    fn without_authorities_there_is_no_tls() {
        assert!(tls("").is_err());
        assert!(tls("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
