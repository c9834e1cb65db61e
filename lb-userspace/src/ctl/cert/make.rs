//! Making keys, requests and certificates that sign themselves.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize,
};
use time::{Duration, OffsetDateTime};

use super::{cannot, files};
use crate::{
    certificate,
    ctl::{
        args::{KeyType, Subject},
        failure::Failure,
    },
};

/// Clocks of clients may be behind ours.
const BACKDATED: Duration = Duration::hours(1);

pub(super) fn key(kind: KeyType) -> Result<KeyPair, Failure> {
    let made = match kind {
        KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyType::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    };
    made.map_err(|error| cannot("key", &error))
}

/// PEM.
pub(super) fn self_signed(subject: &Subject, days: u32, now: i64) -> Result<String, Failure> {
    let mut params = params(subject)?;
    let begin = OffsetDateTime::from_unix_timestamp(now).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = begin - BACKDATED;
    params.not_after = begin + Duration::days(i64::from(days));
    params.is_ca = IsCa::ExplicitNoCa;
    let certificate = params.self_signed(&key_of(subject)?).map_err(|error| cannot("certificate", &error))?;
    Ok(certificate.pem())
}

/// PEM.
pub(super) fn request(subject: &Subject) -> Result<String, Failure> {
    let request = params(subject)?.serialize_request(&key_of(subject)?);
    request.and_then(|request| request.pem()).map_err(|error| cannot("request", &error))
}

fn params(subject: &Subject) -> Result<CertificateParams, Failure> {
    let names = subject.names.iter().map(|name| canonical(name)).collect::<Result<Vec<_>, _>>()?;
    let mut params = CertificateParams::new(names.clone()).map_err(|error| cannot("certificate", &error))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(country) = &subject.country {
        params.distinguished_name.push(DnType::CountryName, country.as_str());
    }
    if let Some(organization) = &subject.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// A name as certificates have it: international ones in punycode, lower case.
fn canonical(name: &str) -> Result<String, Failure> {
    if name.parse::<IpAddr>().is_ok() {
        return Ok(name.to_owned());
    }
    let (star, host) = name.strip_prefix("*.").map_or(("", name), |host| ("*.", host));
    match idna::domain_to_ascii_strict(host) {
        Ok(ascii) if !ascii.is_empty() => Ok(format!("{star}{ascii}")),
        Ok(_) | Err(_) => Err(Failure::Usage(format!("{name:?} is no DNS name, *.DOMAIN or address"))),
    }
}

fn key_of(subject: &Subject) -> Result<KeyPair, Failure> {
    if !subject.key.exists() {
        let made = key(KeyType::EcdsaP256)?;
        files::write(&subject.key, made.serialize_pem().as_bytes(), false)?;
        return Ok(made);
    }
    let text = files::read_key(&subject.key)?;
    // Says in our words what is wrong with it before rcgen does in its own.
    certificate::key(&text).map_err(|error| Failure::of_certificate(&subject.key, error))?;
    KeyPair::from_pem(&text).map_err(|error| cannot("certificate with this key", &error))
}
