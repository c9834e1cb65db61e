//! What is offered and taken by default, byte by byte (THREATS.md, T1 and T2); `cargo xtask testssl` looks at the same from outside.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use rustls::ClientConnection;
use tokio::sync::oneshot;

use super::fixtures::{Authority, catalogue, listen, on_worker, setup, soon};
use crate::proxy::{
    reactor::Deadline,
    tls::{Gate, ServerSetup, accept},
};

/// Alerts, RFC 8446 §6.
const HANDSHAKE_FAILURE: u8 = 40;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;

/// A suite that TLS 1.2 may use: `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`.
const GOOD: u16 = 0xc02b;

/// What a client of TLS 1.2 and below says.
#[derive(Clone)]
struct Hello {
    version: u16,
    suites: Vec<u16>,
    compressions: Vec<u8>,
    groups: Vec<u16>,
    schemes: Vec<u16>,
}

impl Hello {
    fn good() -> Self {
        // x25519 and secp256r1; ecdsa_secp256r1_sha256.
        let (groups, schemes) = (vec![29, 23], vec![0x0403]);
        Self { version: 0x0303, suites: vec![GOOD], compressions: vec![0], groups, schemes }
    }

    fn suites(suites: &[u16]) -> Self {
        Self { suites: suites.to_vec(), ..Self::good() }
    }

    /// One record, RFC 5246 §7.4.1.2.
    fn bytes(&self) -> Vec<u8> {
        let numbers = |list: &[u16]| list.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
        let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &with_length(body)].concat();
        let extensions = [
            extension(10, &with_length(&numbers(&self.groups))),
            extension(13, &with_length(&numbers(&self.schemes))),
            // Points without compression; secure renegotiation (RFC 5746); extended master secret (RFC 7627).
            extension(11, &[1, 0]),
            extension(0xff01, &[0]),
            extension(23, &[]),
        ];
        let body = [
            &self.version.to_be_bytes()[..],
            &[7; 32],
            &[0],
            &with_length(&numbers(&self.suites)),
            &[self.compressions.len() as u8],
            &self.compressions,
            &with_length(&extensions.concat()),
        ]
        .concat();
        let message = [&[1, 0][..], &with_length(&body)].concat();
        let record_version = self.version.min(0x0301).to_be_bytes();
        [&[22][..], &record_version, &with_length(&message)].concat()
    }
}

fn server() -> Arc<ServerSetup> {
    let certificates = catalogue([("a", Authority::new("ca").ecdsa(&["a.test"]))]);
    setup(&certificates, |tls| tls.default_certificate = Some("a".into()))
}

/// The first record that a server answers to these bytes with: its type and body.
async fn answer(server: &Arc<ServerSetup>, bytes: Vec<u8>) -> (u8, Vec<u8>) {
    let (listener, address) = listen();
    let (say, said) = oneshot::channel();
    thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut body).unwrap();
        let _ = say.send((head[0], body));
    });
    let (io, _) = listener.accept().await.unwrap();
    let gate = Gate::new(1);
    // The client leaves after the first answer.
    let _ = accept(io, server, &gate, &[], &Deadline::new(), soon()).await;
    said.await.unwrap()
}

#[test]
fn t1_old_versions_and_what_is_weak_are_refused() {
    const REFUSED: &[u8] = &[HANDSHAKE_FAILURE];
    let version = |version| Hello { version, ..Hello::good() };
    let rows: Vec<(&str, Hello, &[u8])> = vec![
        ("SSL 3.0", version(0x0300), &[PROTOCOL_VERSION]),
        ("TLS 1.0", version(0x0301), &[PROTOCOL_VERSION]),
        ("TLS 1.1", version(0x0302), &[PROTOCOL_VERSION]),
        ("RSA key transport (ROBOT)", Hello::suites(&[0x002f, 0x0035, 0x003c, 0x009c, 0x009d]), REFUSED),
        ("ephemeral DH (Logjam)", Hello::suites(&[0x0033, 0x0039, 0x009e, 0x009f, 0x0014]), REFUSED),
        ("export (FREAK)", Hello::suites(&[0x0003, 0x0008, 0x0062, 0x0064]), REFUSED),
        ("RC4", Hello::suites(&[0x0004, 0x0005, 0xc007, 0xc011]), REFUSED),
        ("3DES (Sweet32)", Hello::suites(&[0x000a, 0x0016, 0xc008, 0xc012]), REFUSED),
        ("CBC (Lucky13)", Hello::suites(&[0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc024]), REFUSED),
        ("no encryption", Hello::suites(&[0x0001, 0x0002, 0x003b, 0xc006, 0xc010]), REFUSED),
        ("nobody's certificate", Hello::suites(&[0x0018, 0x001b, 0xc018, 0xc019, 0x00a6]), REFUSED),
        ("small curves", Hello { groups: vec![1, 19, 21, 22], ..Hello::good() }, REFUSED),
        ("SHA-1 and MD5", Hello { schemes: vec![0x0201, 0x0203, 0x0101], ..Hello::good() }, REFUSED),
        (
            "nothing but compression (CRIME)",
            Hello { compressions: vec![1], ..Hello::good() },
            &[ILLEGAL_PARAMETER, HANDSHAKE_FAILURE, DECODE_ERROR],
        ),
    ];
    on_worker(async move {
        let server = server();
        for (name, hello, alerts) in rows {
            let (kind, body) = answer(&server, hello.bytes()).await;
            assert_eq!((kind, body[0]), (21, 2), "{name}: a fatal alert, not {body:?}");
            assert!(alerts.contains(&body[1]), "{name}: alert {}", body[1]);
        }
    });
}

#[test]
fn t1_tls_1_2_is_without_compression_and_renegotiates_securely_or_not_at_all() {
    on_worker(async {
        let offered = Hello { compressions: vec![1, 0], ..Hello::suites(&[0xc013, 0x002f, GOOD]) };
        let (kind, body) = answer(&server(), offered.bytes()).await;
        assert_eq!((kind, body[0]), (22, 2), "a ServerHello: {body:?}");
        assert_eq!(body[4..6], [3, 3]);
        let suite = 4 + 2 + 32 + 1 + usize::from(body[38]);
        assert_eq!(body[suite..suite + 2], GOOD.to_be_bytes(), "the good one, wherever it stands");
        assert_eq!(body[suite + 2], 0, "no compression");
        let mut extensions = Vec::new();
        let mut rest = &body[suite + 5..4 + usize::from(u16::from_be_bytes([body[2], body[3]]))];
        while let [kind_0, kind_1, length_0, length_1, more @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*length_0, *length_1]));
            extensions.push((u16::from_be_bytes([*kind_0, *kind_1]), more[..length].to_vec()));
            rest = &more[length..];
        }
        assert!(extensions.contains(&(0xff01, vec![0])), "RFC 5746: {extensions:?}");
        assert!(extensions.contains(&(23, Vec::new())), "RFC 7627: {extensions:?}");
    });
}

#[test]
fn t1_a_client_that_renegotiates_is_refused() {
    let said = on_worker(async {
        let (listener, address) = listen();
        let (say, said) = oneshot::channel();
        thread::spawn(move || {
            let mut openssl = Command::new("openssl")
                .args(["s_client", "-tls1_2", "-connect", &address.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("openssl is installed by `cargo xtask setup`");
            // A line of this letter alone asks for it; it waits for the answer before it reads on.
            openssl.stdin.as_mut().unwrap().write_all(b"R\n").unwrap();
            let output = openssl.wait_with_output().unwrap();
            let _ = say.send(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned());
        });
        let (io, _) = listener.accept().await.unwrap();
        let gate = Gate::new(1);
        let (mut stream, _) = accept(io, &server(), &gate, &[], &Deadline::new(), soon()).await.unwrap();
        // Its end or an error: the connection is over either way.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
        drop(stream);
        said.await.unwrap()
    });
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
}

#[test]
fn t2_sessions_allow_no_early_data() {
    on_worker(async {
        let authority = Authority::new("ca");
        let server = setup(&catalogue([("a", authority.ecdsa(&["a.test"]))]), |_| ());
        let mut config = authority.rustls_client();
        config.enable_early_data = true;
        let config = Arc::new(config);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (listener, address) = listen();
            let (say, said) = oneshot::channel();
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let mut client = ClientConnection::new(config, "a.test".try_into().unwrap()).unwrap();
                let may_begin_early = client.early_data().is_some();
                let mut stream = TcpStream::connect(address).unwrap();
                // To the end: tickets come after the handshake.
                let _ = rustls::Stream::new(&mut client, &mut stream).read_to_end(&mut Vec::new());
                let _ = say.send((may_begin_early, client.handshake_kind()));
            });
            let (io, _) = listener.accept().await.unwrap();
            let gate = Gate::new(1);
            let (mut stream, _) = accept(io, &server, &gate, &[], &Deadline::new(), soon()).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
            let (may_begin_early, kind) = said.await.unwrap();
            assert!(!may_begin_early, "{kind:?}");
            kinds.push(kind);
        }
        assert_eq!(kinds[1], Some(rustls::HandshakeKind::Resumed), "the second one had a session: {kinds:?}");
    });
}
