//! The certificate of the admin API where the configuration names none: it signs itself, is made once, and is kept in the
//! state directory, so that clients can be told to trust just this one.

use std::{fs, io, net::IpAddr, path::Path};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use crate::{
    certificate::{self, Expiry, Facts},
    state_file,
};

const CHAIN: &str = "api.pem";
const KEY: &str = "api.key";

/// How long it is valid: nobody renews it but the machine itself, in time.
const LIFE: Duration = Duration::days(3650);

/// Clocks of clients may be behind ours.
const BACKDATED: Duration = Duration::days(1);

/// Chain and key, PEM, for an address that is listened on.
pub(super) fn of(state_dir: &Path, address: IpAddr, now_s: i64) -> io::Result<(String, String)> {
    let (chain_file, key_file) = (state_dir.join(CHAIN), state_dir.join(KEY));
    if let (Ok(chain), Ok(key)) = (fs::read_to_string(&chain_file), fs::read_to_string(&key_file))
        && is_good(&chain, &key, address, now_s)
    {
        return Ok((chain, key));
    }
    let (chain, key) = make(address, now_s).map_err(io::Error::other)?;
    // The key first: a certificate without its key would be taken for good by whoever copies it.
    state_file::replace(&key_file, key.as_bytes())?;
    state_file::replace(&chain_file, chain.as_bytes())?;
    let facts = certificate::chain(&chain).and_then(|chain| Facts::read(&chain[0], 1)).map_err(io::Error::other)?;
    tracing::info!(
        file = %chain_file.display(), fingerprint = facts.fingerprint,
        "the admin API has a new certificate that signs itself: give the file to clients (lbctl --ca-file)"
    );
    Ok((chain, key))
}

fn is_good(chain: &str, key: &str, address: IpAddr, now_s: i64) -> bool {
    certificate::Pair::read(chain, key).is_ok_and(|pair| {
        let lives = !matches!(pair.facts.expiry(now_s), Some(Expiry::Expired | Expiry::Soon { .. }));
        lives && (address.is_unspecified() || pair.facts.names.contains(&address.to_string()))
    })
}

fn make(address: IpAddr, now_s: i64) -> Result<(String, String), rcgen::Error> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    let mut names = vec!["localhost".to_owned()];
    names.extend(Some(host.clone()).filter(|_| is_name && host != "localhost"));
    names.extend(Some(address.to_string()).filter(|_| !address.is_unspecified()));
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, if is_name { host.as_str() } else { "lb" });
    let begin = OffsetDateTime::from_unix_timestamp(now_s).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (params.not_before, params.not_after) = (begin - BACKDATED, begin + LIFE);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn it_is_made_once_and_again_when_it_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let first = of(dir.path(), here, NOW).unwrap();
        assert_eq!(of(dir.path(), here, NOW).unwrap(), first);
        assert_eq!(of(dir.path(), "0.0.0.0".parse().unwrap(), NOW).unwrap(), first);
        let other = of(dir.path(), there, NOW).unwrap();
        assert_ne!(other, first);
        let facts = Facts::read(&certificate::chain(&other.0).unwrap()[0], 1).unwrap();
        assert!(facts.names.contains(&"2001:db8::1".to_owned()) && !facts.is_ca, "{facts:?}");
        assert_ne!(of(dir.path(), there, NOW + 3640 * 86_400).unwrap(), other, "renewed before it ends");
        fs::write(dir.path().join(KEY), "broken").unwrap();
        assert!(of(dir.path(), there, NOW).is_ok());
    }
}
