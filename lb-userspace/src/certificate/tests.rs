//! Pairs of certificates and keys, good and bad.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};

use super::*;

fn ca(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params, KeyPair::generate().unwrap())
}

/// A root, an intermediate and a certificate for `names`: PEM each, and the key.
fn three(names: &[&str]) -> (String, String, String, String) {
    let (params, key) = ca("root");
    let root = CertifiedIssuer::self_signed(params, key).unwrap();
    let (params, key) = ca("intermediate");
    let intermediate = params.signed_by(&key, &root).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    (root.pem(), intermediate.pem(), leaf.pem(), key.serialize_pem())
}

#[test]
fn a_chain_in_any_order_is_sent_in_the_right_one() {
    let (root, intermediate, leaf, key) = three(&["WWW.Example.com", "*.example.com"]);
    let expected = format!("{leaf}{intermediate}").replace('\r', "");
    let rows = [
        ("in order", format!("{leaf}{intermediate}"), false),
        ("turned round", format!("{intermediate}{leaf}"), true),
        ("with its root", format!("{leaf}{intermediate}{root}"), true),
        ("root first", format!("{root}{intermediate}{leaf}"), true),
        ("one twice", format!("{leaf}{intermediate}{intermediate}"), true),
    ];
    for (name, chain, reordered) in rows {
        let pair = Pair::read(&chain, &key).unwrap();
        assert_eq!(chain_to_pem(&pair.chain), expected, "{name}");
        assert_eq!(pair.reordered, reordered, "{name}");
        assert_eq!(pair.facts.names, ["www.example.com", "*.example.com"], "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let (root, intermediate, leaf, key) = three(&["a.test"]);
    let (_, _, other_leaf, other_key) = three(&["b.test"]);
    let rows = [
        ("no certificate", String::new(), key.clone(), "no certificate"),
        ("the key alone", key.clone(), key.clone(), "no certificate"),
        ("no key", leaf.clone(), leaf.clone(), "no private key"),
        ("another's key", format!("{leaf}{intermediate}"), other_key, "does not belong to the certificate of"),
        ("a stranger", format!("{leaf}{intermediate}{other_leaf}"), key.clone(), "certificate 3"),
        ("cut off", leaf[..leaf.len() / 2].to_owned(), key.clone(), "not valid PEM"),
        (
            "rubbish",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            key.clone(),
            "does not belong",
        ),
        ("the root's", root, key, "does not belong to the certificate of"),
    ];
    for (name, chain, key, expected) in rows {
        let error = Pair::read(&chain, &key).map(|pair| pair.facts).unwrap_err().to_string();
        assert!(error.contains(expected) || name == "rubbish" && error.contains("cannot be read"), "{name}: {error}");
    }
}

#[test]
fn encrypted_keys_are_refused_with_advice() {
    let (_, _, leaf, _) = three(&["a.test"]);
    let rows = [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ];
    for key in rows {
        let error = Pair::read(&leaf, key).map(|pair| pair.facts).unwrap_err();
        assert_eq!(error, CertificateError::EncryptedKey);
        assert!(error.to_string().contains("openssl pkey"), "{error}");
    }
}

#[test]
fn kinds_of_keys_are_told() {
    let rows = [
        (KeyPair::generate().unwrap(), "ECDSA P-256"),
        (KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), "ECDSA P-384"),
        (KeyPair::generate_for(&PKCS_ED25519).unwrap(), "Ed25519"),
        (KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap(), "RSA 2048"),
    ];
    for (key, kind) in rows {
        let certificate = CertificateParams::new(vec!["a.test".into()]).unwrap().self_signed(&key).unwrap();
        assert_eq!(Pair::read(&certificate.pem(), &key.serialize_pem()).unwrap().facts.key, kind);
    }
}

#[test]
fn expiry_is_told_at_30_7_and_1_days() {
    let (_, _, leaf, key) = three(&["a.test"]);
    let facts = Facts { not_before: 0, not_after: 100 * DAY, ..Pair::read(&leaf, &key).unwrap().facts };
    let soon = |days, within| Some(Expiry::Soon { days, within });
    let rows = [
        (-1, Some(Expiry::NotYetValid)),
        (0, None),
        (70 * DAY, None),
        (70 * DAY + 1, soon(29, 30)),
        (93 * DAY, soon(7, 30)),
        (93 * DAY + 1, soon(6, 7)),
        (99 * DAY, soon(1, 7)),
        (99 * DAY + 1, soon(0, 1)),
        (100 * DAY, soon(0, 1)),
        (100 * DAY + 1, Some(Expiry::Expired)),
    ];
    for (now, expected) in rows {
        assert_eq!(facts.expiry(now), expected, "{now}");
    }
}

#[test]
fn key_files_are_for_their_owner() {
    for (mode, good) in
        [(0o600, true), (0o400, true), (0o100_600, true), (0o640, false), (0o644, false), (0o601, false)]
    {
        assert_eq!(check_key_mode(mode).is_ok(), good, "{mode:o}");
    }
    assert!(check_key_mode(0o100_644).unwrap_err().to_string().contains("0644"));
}

#[test]
fn pem_is_written_as_it_is_read() {
    for length in [1, 2, 3, 47, 48, 49, 96] {
        let der: Vec<u8> = (0..length).collect();
        let text = to_pem("CERTIFICATE", &der);
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        assert_eq!(chain(&text).unwrap()[0].as_ref(), der, "{length} bytes");
    }
}
