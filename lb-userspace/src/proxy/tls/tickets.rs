//! Session tickets (RFC 8446 §4.6.1, RFC 5077): encrypted by keys that change every twelve hours, and that are different
//! for each virtual server and client-certificate policy, so that no session resumes where it was not made (THREATS.md,
//! T3 and T9).

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};

use super::TlsError;
use crate::control::proxy::Secret;

/// How long one key makes tickets, in seconds. It opens them for as long again: none is older than a day.
const EPOCH_S: u64 = 12 * 60 * 60;

/// Bytes that say by which epoch's key a ticket was made.
const EPOCH_LEN: usize = 8;

/// Where ticket keys come from. A worker keeps one for its whole life, over all plans, so that sessions live on.
#[derive(Clone, Debug)]
pub struct TicketKeys(Arc<RwLock<Master>>);

/// The random secrets of this epoch and the one before; older ones are forgotten, and what was recorded with them cannot
/// be opened any more.
struct Master {
    epoch: u64,
    current: [u8; 32],
    previous: [u8; 32],
}

impl std::fmt::Debug for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Master").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Random ones, from `now` (seconds since 1970) on.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn random(now: u64) -> Result<Self, TlsError> {
        let master = Master { epoch: now / EPOCH_S, current: random()?, previous: random()? };
        Ok(Self(Arc::new(RwLock::new(master))))
    }

    /// The secret of an epoch that is now, or was just before.
    fn of(&self, epoch: u64, now: u64) -> Option<[u8; 32]> {
        let current = now / EPOCH_S;
        if self.0.read().unwrap_or_else(PoisonError::into_inner).epoch < current {
            let fresh = random().ok()?;
            let mut master = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if master.epoch < current {
                let skipped = current - master.epoch > 1;
                master.previous = if skipped { random().ok()? } else { master.current };
                master.current = fresh;
                master.epoch = current;
            }
        }
        let master = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // No key for an epoch that has not begun: it would stay in use when the secret has changed.
        match master.epoch.checked_sub(epoch)? {
            0 => Some(master.current),
            1 => Some(master.previous),
            _ => None,
        }
    }
}

/// Seals and opens the tickets of one scope.
#[derive(Debug)]
pub(super) struct Ticketer {
    source: Source,
    scope: [u8; 32],
    /// Keys of the last two epochs that were used; newest first.
    keys: RwLock<Vec<Arc<Key>>>,
}

#[derive(Debug)]
enum Source {
    /// The same on all machines of a cluster: keys of an epoch are derived from it.
    Shared(Secret),
    Random(TicketKeys),
}

#[derive(Debug)]
struct Key {
    epoch: u64,
    /// Random nonces may repeat once in 2^48 tickets; this construction survives it (RFC 8452).
    aead: LessSafeKey,
}

impl Ticketer {
    /// For `scope`: a digest of all that a session depends on.
    pub(super) fn new(shared: Option<&Secret>, random: &TicketKeys, scope: [u8; 32]) -> Self {
        let source = shared.map_or_else(|| Source::Random(random.clone()), |secret| Source::Shared(secret.clone()));
        Self { source, scope, keys: RwLock::default() }
    }

    /// Least seconds for which a ticket made now can be used.
    pub(super) fn lifetime_s() -> u32 {
        u32::try_from(EPOCH_S).unwrap_or(u32::MAX)
    }

    /// A ticket with this content; `None` when there are no random bytes.
    pub(super) fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let epoch = now / EPOCH_S;
        let key = self.key(epoch, now)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(EPOCH_LEN + NONCE_LEN + plain.len() + AES_256_GCM_SIV.tag_len());
        ticket.extend_from_slice(&epoch.to_be_bytes());
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let aad = Aad::from(epoch.to_be_bytes());
        key.aead.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    /// The content of a ticket of this scope that is not too old. The ticket is what a client sent.
    pub(super) fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let made = u64::from_be_bytes(*epoch);
        let current = now / EPOCH_S;
        // One epoch ahead is let pass: clocks of a cluster differ a little.
        if made + 1 < current || made > current + 1 {
            return None;
        }
        let key = self.key(made, now)?;
        let mut plain = sealed.to_vec();
        let length =
            key.aead.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(*epoch), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    fn key(&self, epoch: u64, now: u64) -> Option<Arc<Key>> {
        /// Epochs in use at a time: the one before, this one, and the next of a clock that is ahead.
        const KEPT: usize = 3;
        let find = |keys: &[Arc<Key>]| keys.iter().find(|key| key.epoch == epoch).cloned();
        if let Some(key) = find(&self.keys.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(key);
        }
        let key = Arc::new(self.derive(epoch, now)?);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|old| old.epoch != epoch && old.epoch + 1 >= now / EPOCH_S);
        keys.insert(0, key.clone());
        keys.truncate(KEPT);
        Some(key)
    }

    fn derive(&self, epoch: u64, now: u64) -> Option<Key> {
        struct Len;
        impl KeyType for Len {
            fn len(&self) -> usize {
                AES_256_GCM_SIV.key_len()
            }
        }
        let secret = match &self.source {
            Source::Shared(secret) => secret.0,
            Source::Random(random) => random.of(epoch, now)?,
        };
        let epoch_bytes = epoch.to_be_bytes();
        let info: [&[u8]; 3] = [b"lb session ticket 1", &self.scope, &epoch_bytes];
        let mut bytes = [0; 32];
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(&secret);
        extracted.expand(&info, Len).ok()?.fill(&mut bytes).ok()?;
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &bytes).ok()?);
        Some(Key { epoch, aead })
    }
}

fn random() -> Result<[u8; 32], TlsError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn ticketer(scope: u8) -> Ticketer {
        Ticketer::new(Some(&Secret([7; 32])), &TicketKeys::random(NOW).unwrap(), [scope; 32])
    }

    #[test]
    fn a_ticket_opens_in_its_scope_and_nowhere_else() {
        let ticket = ticketer(1).seal(b"session", NOW).unwrap();
        assert_eq!(ticketer(1).open(&ticket, NOW).as_deref(), Some(&b"session"[..]), "another machine of the cluster");
        assert_eq!(ticketer(2).open(&ticket, NOW), None);
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(ticketer(1).open(&forged, NOW), None, "byte {at}");
            assert_eq!(ticketer(1).open(&ticket[..at], NOW), None, "cut at {at}");
        }
    }

    #[test]
    fn tickets_end_within_a_day_and_live_for_twelve_hours() {
        for random in [false, true] {
            let keys = TicketKeys::random(NOW).unwrap();
            let make = || Ticketer::new((!random).then_some(&Secret([7; 32])), &keys, [1; 32]);
            let ticketer = make();
            let ticket = ticketer.seal(b"session", NOW).unwrap();
            // A new plan builds a new setup: the tickets of the old one go on.
            assert!(make().open(&ticket, NOW + EPOCH_S).is_some(), "random {random}");
            assert!(ticketer.open(&ticket, NOW + EPOCH_S).is_some(), "random {random}");
            assert!(ticketer.open(&ticket, NOW + 2 * EPOCH_S).is_none(), "random {random}");
            let later = ticketer.seal(b"session", NOW + 5 * EPOCH_S).unwrap();
            assert!(ticketer.open(&later, NOW + 6 * EPOCH_S).is_some(), "random {random}");
            assert!(make().open(&ticket, NOW + 6 * EPOCH_S).is_none(), "random {random}");
        }
    }
}
