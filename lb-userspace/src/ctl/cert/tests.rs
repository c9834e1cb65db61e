//! From a key to a certificate that is in force, with openssl looking on.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use tempfile::TempDir;

use super::*;
use crate::ctl::args::{self, Format};

fn run(directory: &TempDir, line: &str) -> Result<(), Failure> {
    let words = line.split(' ').map(|word| match word.strip_prefix('@') {
        Some(file) => directory.path().join(file).into_os_string(),
        None => word.into(),
    });
    let arguments = args::parse(["lbctl".into(), "cert".into()].into_iter().chain(words)).unwrap();
    let args::Command::Cert(verb) = arguments.command else { panic!("another command") };
    execute(&verb, &Output::new(Some(Format::Json)))
}

fn openssl(directory: &TempDir, line: &str) -> String {
    let output = Command::new("openssl").args(line.split(' ')).current_dir(directory.path()).output();
    let output = output.expect("openssl is installed by `cargo xtask setup`");
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ca(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    (params, KeyPair::generate().unwrap())
}

fn mode(directory: &TempDir, file: &str) -> u32 {
    fs::metadata(directory.path().join(file)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn keys_of_every_kind_are_made_and_kept_from_others() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, said) in [("ecdsa-p256", "prime256v1"), ("ecdsa-p384", "secp384r1"), ("rsa-2048", "2048 bit")] {
        run(&directory, &format!("new-key @{kind}.key --type {kind}")).unwrap();
        assert_eq!(mode(&directory, &format!("{kind}.key")), 0o600);
        let text = openssl(&directory, &format!("pkey -noout -text -in {kind}.key"));
        assert!(text.contains(said), "{kind}: {text}");
        run(&directory, &format!("self-signed --key @{kind}.key --out @{kind}.pem --name a.test")).unwrap();
        run(&directory, &format!("show @{kind}.pem --key @{kind}.key")).unwrap();
    }
    // Nothing is written over, and nothing is left beside.
    let before = fs::read(directory.path().join("ecdsa-p256.key")).unwrap();
    let error = run(&directory, "new-key @ecdsa-p256.key").unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(fs::read(directory.path().join("ecdsa-p256.key")).unwrap(), before);
    run(&directory, "new-key @ecdsa-p256.key --force").unwrap();
    assert_ne!(fs::read(directory.path().join("ecdsa-p256.key")).unwrap(), before);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 6);
}

#[test]
fn a_self_signed_certificate_is_for_its_names() {
    let directory = tempfile::tempdir().unwrap();
    run(
        &directory,
        "self-signed --key @k --out @c --name bücher.example --name *.Example.com --name 192.0.2.1 --name 2001:db8::1 \
         --organization Acme --country de --days 10",
    )
    .unwrap();
    assert_eq!((mode(&directory, "k"), mode(&directory, "c")), (0o600, 0o600));
    let text = openssl(&directory, "x509 -noout -text -in c");
    for expected in [
        "DNS:xn--bcher-kva.example, DNS:*.example.com, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1",
        "C = DE, O = Acme, CN = xn--bcher-kva.example",
        "TLS Web Server Authentication",
        "CA:FALSE",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    openssl(&directory, "verify -CAfile c c");
    openssl(&directory, "x509 -noout -checkend 800000 -in c");
    let soon = Facts::read(&files::read_chain(&directory.path().join("c")).unwrap()[0], 1).unwrap();
    assert!(matches!(soon.expiry(now()), Some(Expiry::Soon { within: 30, .. })));
    for name in ["a..test", "a_b test", "-", "*.", "http://a.test"] {
        let error = run(&directory, &format!("csr --key @k --out @r --name {}", name.replace(' ', "\u{a0}")));
        assert!(matches!(error, Err(Failure::Usage(_))), "{name}");
    }
}

#[test]
fn a_request_is_signed_imported_and_renewed() {
    let directory = tempfile::tempdir().unwrap();
    run(&directory, "csr --key @site.key --out @site.csr --name www.test --name *.www.test").unwrap();
    let text = openssl(&directory, "req -verify -noout -text -in site.csr");
    assert!(text.contains("DNS:www.test, DNS:*.www.test"), "{text}");
    // The authority: a root, an intermediate that signs.
    let (params, key) = ca("root");
    let root = CertifiedIssuer::self_signed(params, key).unwrap();
    let (params, key) = ca("intermediate");
    let intermediate = CertifiedIssuer::signed_by(params, key, &root).unwrap();
    let request = fs::read_to_string(directory.path().join("site.csr")).unwrap();
    let sign = || CertificateSigningRequestParams::from_pem(&request).unwrap().signed_by(&intermediate).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("root.pem", &root.pem());
    write("answer.pem", &format!("{}{}", intermediate.pem(), sign().pem()));
    run(&directory, "import --key @site.key --out @site.pem @answer.pem").unwrap();
    let chain = files::read_chain(&directory.path().join("site.pem")).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(Facts::read(&chain[0], 1).unwrap().names, ["www.test", "*.www.test"]);
    openssl(&directory, "verify -CAfile root.pem -untrusted site.pem site.pem");
    assert_eq!(mode(&directory, "site.pem"), 0o600);
    // Renewed: the certificate alone, in DER; its intermediate is kept.
    fs::write(directory.path().join("renewed.der"), sign().der()).unwrap();
    assert!(run(&directory, "import --key @site.key --out @site.pem @renewed.der").is_err());
    run(&directory, "import --key @site.key --out @site.pem --force @renewed.der").unwrap();
    let renewed = files::read_chain(&directory.path().join("site.pem")).unwrap();
    assert_eq!((renewed.len(), &renewed[1]), (2, &chain[1]));
    assert_ne!(renewed[0], chain[0]);
    // What does not fit is refused, and what is there stays.
    run(&directory, "new-key @other.key").unwrap();
    let error = run(&directory, "import --key @other.key --out @site.pem --force @answer.pem").unwrap_err();
    assert!(error.to_string().contains("answer.pem") && error.to_string().contains("does not belong"), "{error}");
    assert_eq!(files::read_chain(&directory.path().join("site.pem")).unwrap(), renewed);
    assert!(run(&directory, "show @site.pem --key @other.key").is_err());
}

#[test]
fn keys_that_others_can_read_and_encrypted_ones_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    run(&directory, "new-key @k").unwrap();
    fs::set_permissions(directory.path().join("k"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = run(&directory, "self-signed --key @k --out @c --name a.test").unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    fs::set_permissions(directory.path().join("k"), fs::Permissions::from_mode(0o600)).unwrap();
    openssl(&directory, "pkey -in k -aes128 -passout pass:secret -out e");
    fs::set_permissions(directory.path().join("e"), fs::Permissions::from_mode(0o600)).unwrap();
    let error = run(&directory, "csr --key @e --out @r --name a.test").unwrap_err();
    assert!(error.to_string().contains("encrypted"), "{error}");
    assert!(!directory.path().join("r").exists());
}

#[test]
fn the_certificates_of_a_configuration_are_listed_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    run(&directory, "self-signed --key @k --out @c --name a.test").unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let text = format!("version = 1\n[certificate.a]\nchain = \"{}\"\nkey = \"{}\"\n", path("c"), path("k"));
    fs::write(path("lb.toml"), text).unwrap();
    run(&directory, "ls @lb.toml").unwrap();
    run(&directory, "new-key @k --force").unwrap();
    let error = run(&directory, "ls @lb.toml").unwrap_err();
    assert!(matches!(&error, Failure::ConfigInvalid(report) if report.contains("does not belong")), "{error}");
}
