//! Which certificate a client gets, and what it is told when there is none (THREATS.md, T4 and T5).

use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::{AlertDescription, ProtocolVersion, SignatureScheme};
use rustls_pki_types::ServerName;

use super::fixtures::{Authority, Catalogue, HTTP, catalogue, keys, on_worker, s_client, server_tls, setup, shake};
use crate::{
    certificate::Facts,
    control::proxy::{Secret, tls::Version},
    proxy::tls::{HandshakeError, ServerSetup, TlsError},
};

/// The common name of the certificate that `setup` gives for a name.
fn given(setup: &ServerSetup, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<String> {
    let key = setup.catalogue.choose(name, schemes)?;
    Some(Facts::read(&key.cert[0], 1).unwrap().subject)
}

const BOTH: [SignatureScheme; 2] = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];

#[test]
fn the_server_name_chooses_the_certificate() {
    let authority = Authority::new("ca");
    let certificates = catalogue([
        ("plain", authority.ecdsa(&["www.test", "WWW.Upper.test"])),
        ("wild", authority.ecdsa(&["*.wild.test"])),
        ("exact", authority.ecdsa(&["exact.wild.test"])),
        ("idn", authority.ecdsa(&["xn--bcher-kva.test"])),
    ]);
    let strict = setup(&certificates, |_| ());
    let lenient = setup(&certificates, |tls| tls.default_certificate = Some("plain".into()));
    let rows = [
        (Some("www.test"), Some("CN=www.test")),
        (Some("www.test."), Some("CN=www.test")),
        (Some("www.upper.test"), Some("CN=www.test")),
        (Some("a.wild.test"), Some("CN=*.wild.test")),
        (Some("exact.wild.test"), Some("CN=exact.wild.test")),
        (Some("xn--bcher-kva.test"), Some("CN=xn--bcher-kva.test")),
        (Some("a.b.wild.test"), None),
        (Some("wild.test"), None),
        (Some(".wild.test"), None),
        (Some("*.wild.test"), Some("CN=*.wild.test")),
        (Some("other.test"), None),
        (Some(""), None),
        (None, None),
    ];
    for (name, expected) in rows {
        assert_eq!(given(&strict, name, &BOTH).as_deref(), expected, "{name:?}");
        assert_eq!(given(&lenient, name, &BOTH).as_deref(), expected.or(Some("CN=www.test")), "{name:?} with default");
    }
}

#[test]
fn ecdsa_goes_before_rsa_where_the_client_can() {
    let authority = Authority::new("ca");
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let certificates = catalogue([
        ("a_rsa", authority.sign(&["www.test", "rsa-only.test"], &rsa, |_| ())),
        ("b_ecdsa", authority.ecdsa(&["www.test"])),
    ]);
    let server = setup(&certificates, |tls| tls.default_certificate = Some("b_ecdsa".into()));
    let chosen = |name, schemes: &[SignatureScheme]| {
        format!("{:?}", server.catalogue.choose(name, schemes).unwrap().key.algorithm())
    };
    assert_eq!(chosen(Some("www.test"), &BOTH), "ECDSA");
    assert_eq!(chosen(Some("www.test"), &[SignatureScheme::RSA_PSS_SHA256]), "RSA");
    assert_eq!(chosen(Some("rsa-only.test"), &BOTH), "RSA");
    assert_eq!(chosen(None, &BOTH), "ECDSA", "the default");
    assert_eq!(chosen(None, &[SignatureScheme::RSA_PSS_SHA256]), "RSA", "its twin");
    // openssl, both versions, both kinds.
    on_worker(async move {
        for (options, kind) in [
            (["-tls1_3", "-sigalgs", "ECDSA+SHA256"], "ECDSA"),
            (["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"], "RSA-PSS"),
            (["-tls1_2", "-sigalgs", "ECDSA+SHA256"], "ECDSA"),
            (["-tls1_2", "-sigalgs", "RSA+SHA256"], "RSA"),
        ] {
            let told = s_client(&server, &[&options[..], &["-servername", "www.test"]].concat()).await;
            assert!(told.contains(&format!("Peer signature type: {kind}\n")), "{options:?}: {told}");
        }
    });
}

#[test]
fn clients_are_told_why_they_are_refused() {
    on_worker(async {
        let authority = Authority::new("ca");
        let certificates = catalogue([("a", authority.ecdsa(&["a.test"]))]);
        let server = setup(&certificates, |_| ());
        let client = authority.client(|_| (), &certificates);
        let (accepted, connected) = shake(&server, &client, "b.test").await;
        let error = accepted.unwrap_err();
        assert!(matches!(&error, HandshakeError::UnknownName(Some(name)) if name == "b.test"), "{error}");
        assert_eq!(error.reason(), "unknown_name");
        let told = connected.unwrap_err();
        assert!(
            matches!(told, HandshakeError::Tls(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName))),
            "{told:?}"
        );
        // An address is no server name: there is none then.
        let (accepted, _) = shake(&server, &client, "127.0.0.1").await;
        assert!(matches!(accepted.unwrap_err(), HandshakeError::UnknownName(None)));
        // No protocol in common (ALPACA).
        let told = s_client(&server, &["-servername", "a.test", "-alpn", "ftp"]).await;
        assert!(told.contains("no application protocol"), "{told}");
        // Versions that are not spoken.
        let modern = setup(&certificates, |tls| tls.min_version = Version::Tls13);
        let told = s_client(&modern, &["-servername", "a.test", "-tls1_2"]).await;
        assert!(told.contains("alert protocol version"), "{told}");
        let told = s_client(&server, &["-servername", "a.test", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]).await;
        // Without signature_algorithms, which TLS 1.1 does not have, it is refused before its version is looked at.
        assert!(told.contains("alert handshake failure"), "{told}");
    });
}

#[test]
fn names_that_are_none_are_refused() {
    let long = format!("{}.test", "a".repeat(251));
    for name in ["a\0b.test", long.as_str(), "a..test", "-.test", "a b.test", "bücher.test"] {
        assert!(ServerName::try_from(name).is_err() || name == "-.test", "{name:?}");
    }
}

#[test]
fn facts_of_the_handshake_are_told() {
    on_worker(async {
        let authority = Authority::new("ca");
        let certificates = catalogue([("a", authority.ecdsa(&["a.test"]))]);
        let server = setup(&certificates, |_| ());
        let client = authority.client(|_| (), &certificates);
        let (accepted, connected) = shake(&server, &client, "A.Test").await;
        let (stream, facts) = accepted.unwrap();
        assert_eq!((facts.version, facts.server_name.as_deref(), facts.resumed), ("1.3", Some("a.test"), false));
        assert!(facts.cipher.starts_with("TLS_AES_") && facts.client.is_none() && facts.session.is_some());
        assert_eq!(stream.alpn(), Some(&b"h2"[..]));
        assert_eq!(connected.unwrap().alpn(), Some(&b"h2"[..]));

        let old = setup(&certificates, |tls| {
            tls.cipher_suites = vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".into()];
            tls.curves = vec!["secp384r1".into()];
        });
        let (accepted, connected) = shake(&old, &client, "a.test").await;
        let facts = accepted.unwrap().1;
        assert_eq!((facts.version, facts.cipher), ("1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"));
        let state = connected.unwrap();
        assert_eq!(state.state().protocol_version(), Some(ProtocolVersion::TLSv1_2));
        assert_eq!(format!("{:?}", state.state().negotiated_key_exchange_group().unwrap().name()), "secp384r1");
    });
}

#[test]
fn plans_that_cannot_be_served_are_refused_by_name() {
    let authority = Authority::new("ca");
    let good = catalogue([("a", authority.ecdsa(&["a.test"]))]);
    let mut mixed = good.clone();
    mixed.insert("b".into(), authority.ecdsa(&["b.test"]));
    mixed.get_mut("b").unwrap().key_pem = good["a"].key_pem.clone();
    let build = |certificates: &Catalogue, change: fn(&mut crate::control::proxy::tls::ServerTls)| {
        let mut tls = server_tls(certificates);
        change(&mut tls);
        ServerSetup::build("web", &tls, certificates, &HTTP, &keys()).map(drop).unwrap_err()
    };
    assert!(matches!(build(&mixed, |_| ()), TlsError::Certificate { name, .. } if name == "b"));
    let error = build(&good, |tls| tls.default_certificate = Some("c".into()));
    assert!(matches!(error, TlsError::UnknownCertificate(name) if name == "c"));
    let error = build(&good, |tls| tls.cipher_suites = vec!["TLS_RSA_WITH_RC4_128_MD5".into()]).to_string();
    assert!(error.contains("RC4") && error.contains("TLS_AES_128_GCM_SHA256"), "{error}");
    let error = build(&good, |tls| tls.curves = vec!["sect163k1".into()]).to_string();
    assert!(error.contains("x25519"), "{error}");
    // A shared secret is accepted like a random one.
    let secret = Secret([3; 32]);
    let mut tls = server_tls(&good);
    tls.ticket_secret = Some(secret);
    ServerSetup::build("web", &tls, &good, &HTTP, &keys()).unwrap();
}

#[test]
fn an_ocsp_response_is_stapled() {
    on_worker(async {
        let authority = Authority::new("ca");
        let mut certificates = catalogue([("a", authority.ecdsa(&["a.test"]))]);
        // OCSPResponse { responseStatus tryLater } (RFC 6960 §4.2.1): the smallest that openssl reads.
        certificates.get_mut("a").unwrap().ocsp = Some(vec![0x30, 0x03, 0x0a, 0x01, 0x03]);
        let server = setup(&certificates, |_| ());
        for version in ["-tls1_2", "-tls1_3"] {
            let told = s_client(&server, &["-servername", "a.test", "-status", version]).await;
            assert!(told.contains("OCSP Response Status: trylater (0x3)"), "{version}: {told}");
        }
        certificates.get_mut("a").unwrap().ocsp = None;
        let told = s_client(&setup(&certificates, |_| ()), &["-servername", "a.test", "-status"]).await;
        assert!(told.contains("OCSP response: no response sent"), "{told}");
    });
}
