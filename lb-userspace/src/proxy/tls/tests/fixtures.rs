//! An authority, certificates, setups and a server for the tests beside.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::{
    control::proxy::tls::{Authorities, Certificate, ClientAuth, ClientTls, ServerTls, Version},
    proxy::{
        facts::TlsFacts,
        reactor::{self, Deadline, Listener, Socket},
        tls::{
            ClientSetup, Gate, HandshakeError, Roots, ServerSetup, TicketKeys, TlsStream, accept, connect,
            server::roots,
        },
    },
};

pub(super) const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// An authority that signs what the tests need.
pub(super) struct Authority {
    pub(super) issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(super) fn ecdsa(&self, names: &[&str]) -> Certificate {
        self.sign(names, &KeyPair::generate().unwrap(), |_| ())
    }

    pub(super) fn sign(
        &self,
        names: &[&str],
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("nobody", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Certificate { chain_pem: certificate.pem(), key_pem: key.serialize_pem(), ocsp: None }
    }

    pub(super) fn authorities(&self) -> Authorities {
        Authorities { ca_pem: self.pem(), crl_pem: String::new() }
    }

    /// rustls as a client that trusts this authority.
    pub(super) fn rustls_client(&self) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let trusted = roots(&self.authorities()).unwrap();
        builder.unwrap().with_root_certificates(trusted).with_no_client_auth()
    }

    /// A client of a pool that trusts this authority.
    pub(super) fn client(&self, change: impl FnOnce(&mut ClientTls), certificates: &Catalogue) -> Arc<ClientSetup> {
        let mut tls = ClientTls { verify: true, authorities: self.authorities(), server_name: None, certificate: None };
        change(&mut tls);
        ClientSetup::build(&tls, certificates, &Roots::of_system(""), &HTTP).unwrap()
    }
}

pub(super) type Catalogue = BTreeMap<String, Certificate>;

pub(super) fn catalogue<const N: usize>(entries: [(&str, Certificate); N]) -> Catalogue {
    entries.into_iter().map(|(name, certificate)| (name.to_owned(), certificate)).collect()
}

pub(super) fn keys() -> TicketKeys {
    TicketKeys::default()
}

/// TLS of a virtual server with all certificates of a catalogue, and no default.
pub(super) fn server_tls(certificates: &Catalogue) -> ServerTls {
    ServerTls {
        certificates: certificates.keys().cloned().collect(),
        default_certificate: None,
        min_version: Version::Tls12,
        cipher_suites: Vec::new(),
        curves: Vec::new(),
        client_auth: ClientAuth::None,
        tickets: true,
        ticket_secret: None,
    }
}

pub(super) fn setup(certificates: &Catalogue, change: impl FnOnce(&mut ServerTls)) -> Arc<ServerSetup> {
    setup_with(certificates, &keys(), change)
}

pub(super) fn setup_with(
    certificates: &Catalogue,
    keys: &TicketKeys,
    change: impl FnOnce(&mut ServerTls),
) -> Arc<ServerSetup> {
    let mut tls = server_tls(certificates);
    change(&mut tls);
    ServerSetup::build("web", &tls, certificates, &HTTP, keys).unwrap()
}

/// Runs a test as a worker's thread runs.
pub(super) fn on_worker<T: 'static>(test: impl Future<Output = T> + 'static) -> T {
    reactor::run(test).unwrap()
}

pub(super) fn soon() -> u64 {
    reactor::now_ms() + 10_000
}

/// A listener on loopback.
pub(super) fn listen() -> (Listener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (Listener::new(listener).unwrap(), address)
}

pub(super) async fn dial(address: SocketAddr) -> Socket {
    let socket = Socket::connect(address, None).unwrap();
    socket.connected().await.unwrap();
    socket
}

pub(super) type Accepted = Result<(TlsStream, TlsFacts), HandshakeError>;
pub(super) type Connected = Result<TlsStream, HandshakeError>;

/// One handshake of our two sides.
pub(super) async fn shake(server: &Arc<ServerSetup>, client: &ClientSetup, name: &str) -> (Accepted, Connected) {
    let (listener, address) = listen();
    let gate = Rc::new(Gate::new(16));
    let serve = async {
        let (io, _) = listener.accept().await.unwrap();
        accept(io, server, &gate, &[], &Deadline::new(), soon()).await
    };
    // The node's address is a name for its sessions: the same in all tests of one client.
    let node = SocketAddr::from(([127, 0, 0, 1], 443));
    let greet = async { connect(dial(address).await, client, node, name, &Deadline::new(), soon()).await };
    tokio::join!(serve, greet)
}

/// What `openssl s_client` says of a connection to `server`, which it closes at once.
pub(super) async fn s_client(server: &Arc<ServerSetup>, options: &[&str]) -> String {
    let (listener, address) = listen();
    let options: Vec<String> = options.iter().map(ToString::to_string).collect();
    let (say, said) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut command = std::process::Command::new("openssl");
        command.args(["s_client", "-connect", &address.to_string()]).args(options).stdin(std::process::Stdio::null());
        let output = command.output().expect("openssl is installed by `cargo xtask setup`");
        let text = [output.stdout, output.stderr].concat();
        let _ = say.send(String::from_utf8_lossy(&text).into_owned());
    });
    let (io, _) = listener.accept().await.unwrap();
    let gate = Gate::new(1);
    if let Ok((mut stream, _)) = accept(io, server, &gate, &[], &Deadline::new(), soon()).await {
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
    }
    said.await.unwrap()
}
