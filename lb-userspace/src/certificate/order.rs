//! The order of a chain: each certificate is followed by the one that signed it (RFC 8446 §4.4.2).

use rustls_pki_types::CertificateDer;

use super::{CertificateError, names, parse};

/// Puts a file's certificates into the order in which they are sent, beginning at index `first`. A root at the end is left
/// out: clients have it or do not trust it.
///
/// # Errors
/// When one cannot be read, or one does not belong to the chain.
pub(super) fn sort(
    read: &[CertificateDer<'static>],
    first: usize,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let parsed = read.iter().enumerate().map(|(i, der)| parse(der, i + 1)).collect::<Result<Vec<_>, _>>()?;
    let mut left: Vec<usize> = (0..read.len()).filter(|index| *index != first && read[*index] != read[first]).collect();
    let mut sorted = vec![first];
    while let Some(&last) = sorted.last() {
        let issuer = parsed[last].issuer().as_raw();
        // Names alone do not tell: a certificate that signs itself has no other issuer, and authorities share names.
        let signs = |index: &usize| {
            parsed[*index].subject().as_raw() == issuer
                && parsed[last].verify_signature(Some(parsed[*index].public_key())).is_ok()
        };
        let Some(at) = left.iter().position(signs) else { break };
        let next = left.remove(at);
        // The same certificate twice, as some bundles have it, is sent once.
        left.retain(|index| read[*index] != read[next]);
        sorted.push(next);
    }
    if let Some(&stray) = left.first() {
        let subject = names::distinguished(parsed[stray].subject());
        return Err(CertificateError::Stray { position: stray + 1, subject });
    }
    let is_root = |index: usize| parsed[index].subject().as_raw() == parsed[index].issuer().as_raw();
    if sorted.len() > 1 && sorted.last().is_some_and(|last| is_root(*last)) {
        sorted.pop();
    }
    Ok(sorted.into_iter().map(|index| read[index].clone()).collect())
}

/// A chain with what is missing of it behind: the issuers that are found among `others`, without a root.
///
/// # Errors
/// When one cannot be read.
pub fn complete(
    chain: &[CertificateDer<'static>],
    others: &[CertificateDer<'static>],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut whole = chain.to_vec();
    while let Some(last) = whole.last() {
        let parsed = parse(last, whole.len())?;
        let issuer = parsed.issuer().as_raw();
        let signs = |der: &&CertificateDer<'static>| {
            parse(der, 1).is_ok_and(|other| {
                other.subject().as_raw() == issuer
                    && other.issuer().as_raw() != issuer
                    && parsed.verify_signature(Some(other.public_key())).is_ok()
            })
        };
        let Some(next) = others.iter().find(signs).filter(|next| !whole.contains(next)).cloned() else { break };
        whole.push(next);
    }
    Ok(whole)
}
