//! Client certificates, and what resumption may not skip (THREATS.md, T3); and those of nodes (T10).

use rcgen::{
    CertificateParams, CertificateRevocationListParams, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls_pki_types::UnixTime;

use super::fixtures::{Authority, Catalogue, catalogue, keys, on_worker, setup, setup_with, shake};
use crate::{
    control::proxy::tls::{Authorities, ClientAuth},
    proxy::tls::{HandshakeError, TlsStream},
};

/// Lets the client take the tickets that came with the handshake.
async fn take_tickets(server: (TlsStream, crate::proxy::facts::TlsFacts), mut client: TlsStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut server, _) = server;
    server.shutdown().await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
}

/// A revocation list of these serial numbers, valid as long as the tests.
fn revocations(authority: &Authority, serials: &[u64]) -> String {
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority.issuer).unwrap().pem().unwrap()
}

/// A server's certificate, a good client's, a stranger's and one that was revoked.
fn cast(authority: &Authority, stranger: &Authority) -> Catalogue {
    let numbered =
        |serial: u64| move |params: &mut CertificateParams| params.serial_number = Some(SerialNumber::from(serial));
    catalogue([
        ("server", authority.ecdsa(&["a.test"])),
        ("good", authority.sign(&["good"], &KeyPair::generate().unwrap(), numbered(1))),
        ("revoked", authority.sign(&["revoked"], &KeyPair::generate().unwrap(), numbered(2))),
        ("stranger", stranger.ecdsa(&["stranger"])),
    ])
}

#[test]
fn client_certificates_and_resumption() {
    on_worker(async {
        let (authority, stranger) = (Authority::new("ca"), Authority::new("another ca"));
        let certificates = cast(&authority, &stranger);
        let trusted = Authorities { ca_pem: authority.pem(), crl_pem: revocations(&authority, &[2]) };
        let rows = [
            (ClientAuth::None, [("", true), ("good", true), ("revoked", true), ("stranger", true)]),
            (
                ClientAuth::Request(trusted.clone()),
                [("", true), ("good", true), ("revoked", false), ("stranger", false)],
            ),
            (ClientAuth::Require(trusted), [("", false), ("good", true), ("revoked", false), ("stranger", false)]),
        ];
        for (auth, clients) in rows {
            for suites in [vec![], vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".to_owned()]] {
                let server = setup(&certificates, |tls| {
                    tls.certificates = vec!["server".into()];
                    tls.client_auth = auth.clone();
                    tls.cipher_suites.clone_from(&suites);
                });
                for (who, welcome) in clients {
                    let case = format!("{auth:?} {suites:?} {who:?}").replace('\n', "");
                    let certificate = (!who.is_empty()).then(|| who.to_owned());
                    let client = authority.client(|tls| tls.certificate = certificate, &certificates);
                    let (accepted, connected) = shake(&server, &client, "a.test").await;
                    assert_eq!(accepted.is_ok(), welcome, "{case}");
                    let Ok(accepted) = accepted else { continue };
                    let asked = !matches!(auth, ClientAuth::None) && who == "good";
                    let subject = accepted.1.client.as_ref().map(|client| client.subject.as_str());
                    assert_eq!(subject, asked.then_some("CN=good"), "{case}");
                    let first = accepted.1.clone();
                    take_tickets(accepted, connected.unwrap()).await;
                    // The same client comes again: the session is resumed, and it is still the same client.
                    let (accepted, _) = shake(&server, &client, "a.test").await;
                    let again = accepted.unwrap_or_else(|error| panic!("{case}: {error}")).1;
                    assert!(again.resumed && !first.resumed, "{case}");
                    assert_eq!((again.client, again.session), (first.client, first.session), "{case}");
                }
            }
        }
    });
}

#[test]
fn a_session_resumes_only_where_it_was_made() {
    on_worker(async {
        let (authority, other) = (Authority::new("ca"), Authority::new("another ca"));
        let certificates = cast(&authority, &other);
        // One secret for all, as in a cluster: only the scope keeps them apart.
        let keys = keys();
        let of = |auth: ClientAuth| {
            setup_with(&certificates, &keys, |tls| {
                tls.certificates = vec!["server".into()];
                tls.client_auth = auth;
            })
        };
        let open = of(ClientAuth::None);
        let client = authority.client(|_| (), &certificates);
        let (accepted, connected) = shake(&open, &client, "a.test").await;
        take_tickets(accepted.unwrap(), connected.unwrap()).await;
        let closed = of(ClientAuth::Require(authority.authorities()));
        let (accepted, _) = shake(&closed, &client, "a.test").await;
        let error = accepted.unwrap_err();
        assert!(matches!(error, HandshakeError::Tls(rustls::Error::NoCertificatesPresented)), "{error}");

        // Another set of authorities: the client shows its certificate anew, and is refused.
        let client = authority.client(|tls| tls.certificate = Some("good".into()), &certificates);
        let (accepted, connected) = shake(&closed, &client, "a.test").await;
        take_tickets(accepted.unwrap(), connected.unwrap()).await;
        let elsewhere = of(ClientAuth::Require(other.authorities()));
        assert!(shake(&elsewhere, &client, "a.test").await.0.is_err());

        // Revoked since: a new list is a new scope.
        let client = authority.client(|tls| tls.certificate = Some("revoked".into()), &certificates);
        let (accepted, connected) = shake(&closed, &client, "a.test").await;
        take_tickets(accepted.unwrap(), connected.unwrap()).await;
        let crl_pem = revocations(&authority, &[2]);
        let with_list = ClientAuth::Require(Authorities { ca_pem: authority.pem(), crl_pem });
        let listed = of(with_list.clone());
        let error = shake(&listed, &client, "a.test").await.0.unwrap_err();
        assert!(error.to_string().contains("Revoked"), "{error}");

        // The same plan again, as a reload brings it: sessions go on.
        let client = authority.client(|tls| tls.certificate = Some("good".into()), &certificates);
        let (accepted, connected) = shake(&listed, &client, "a.test").await;
        take_tickets(accepted.unwrap(), connected.unwrap()).await;
        let reloaded = of(with_list);
        let again = shake(&reloaded, &client, "a.test").await.0.unwrap();
        assert!(again.1.resumed);
    });
}

#[test]
fn a_client_certificate_that_ends_is_refused_on_resumption_too() {
    on_worker(async {
        let authority = Authority::new("ca");
        let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(3);
        let short = authority.sign(&["short"], &KeyPair::generate().unwrap(), |params| params.not_after = end);
        let certificates = catalogue([("server", authority.ecdsa(&["a.test"])), ("short", short)]);
        let server = setup(&certificates, |tls| {
            tls.certificates = vec!["server".into()];
            tls.client_auth = ClientAuth::Require(authority.authorities());
        });
        let client = authority.client(|tls| tls.certificate = Some("short".into()), &certificates);
        let (accepted, connected) = shake(&server, &client, "a.test").await;
        take_tickets(accepted.unwrap(), connected.unwrap()).await;
        while UnixTime::now().as_secs() <= u64::try_from(end.unix_timestamp()).unwrap() {
            crate::proxy::reactor::Deadline::new().sleep_until(crate::proxy::reactor::now_ms() + 100).await;
        }
        let error = shake(&server, &client, "a.test").await.0.unwrap_err();
        assert!(matches!(error, HandshakeError::ResumedClient(_)), "{error}");
        assert_eq!(error.reason(), "client_certificate");
    });
}

#[test]
fn nodes_are_verified_unless_told_otherwise() {
    on_worker(async {
        let (authority, other) = (Authority::new("ca"), Authority::new("another ca"));
        let expired = authority.sign(&["old.test"], &KeyPair::generate().unwrap(), |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        });
        let certificates = catalogue([
            ("good", authority.ecdsa(&["a.test", "127.0.0.1"])),
            ("stranger", other.ecdsa(&["b.test"])),
            ("expired", expired),
        ]);
        let server = setup(&certificates, |tls| tls.default_certificate = Some("good".into()));
        let rows = [
            ("a.test", None, true, "good", true),
            ("a.test.", None, true, "good, absolute", true),
            ("127.0.0.1", None, true, "good, by address", true),
            ("c.test", None, true, "another name", false),
            ("b.test", None, true, "another authority", false),
            ("old.test", None, true, "expired", false),
            ("c.test", Some("a.test"), true, "name as configured", true),
            ("b.test", None, false, "not verified", true),
            ("old.test", None, false, "not verified, expired", true),
        ];
        for (name, configured, verify, case, good) in rows {
            let client = authority.client(
                |tls| {
                    tls.verify = verify;
                    tls.server_name = configured.map(str::to_owned);
                },
                &certificates,
            );
            let (_, connected) = shake(&server, &client, name).await;
            assert_eq!(connected.is_ok(), good, "{case}: {:?}", connected.err());
        }
    });
}
